"""The JSON Schemas of the three kinds of file, and what validation reports."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft7Validator

from generator.diagnostics import sorted_once
from generator.load import load_file
from generator.project import load_project
from generator.schema import SCHEMAS, Kind, schema, validate

from .conftest import GPU_YAML, ROOT, CheckProject, MakeProject
from .test_load import found_at, loaded, marked

KINDS: tuple[Kind, ...] = get_args(Kind)
SHIPPED: dict[Path, Kind] = {
    ROOT / "gpu.yaml": "gpu",
    ROOT / "models.yaml": "models",
    **dict.fromkeys(sorted((ROOT / "workflows").glob("*.yaml")), "workflow"),
}

PathTo = tuple[str | int, ...]

# Keywords of draft-07 whose value is a schema, a list of schemas, or schemas by name.
_ONE = ("additionalItems", "contains", "additionalProperties", "propertyNames", "not", "if")
_SCHEMA = (*_ONE, "then", "else", "items")
_LIST = ("allOf", "anyOf", "oneOf", "items")
_NAMED = ("properties", "patternProperties", "definitions")

# In these the keys are ComfyUI's own.
OPEN_OBJECTS = {
    ("definitions", "node", "properties", "inputs"),
    ("definitions", "node", "properties", "_meta"),
}


def subschemas(part: Any, at: PathTo = ()) -> Iterator[tuple[PathTo, dict[str, Any]]]:
    """Yield a schema and all below it, each with its path."""
    if not isinstance(part, dict):
        return
    yield at, part
    for keyword in _SCHEMA:
        yield from subschemas(part.get(keyword), (*at, keyword))
    for keyword in _LIST:
        inner = part.get(keyword)
        for index, item in enumerate(inner if isinstance(inner, list) else []):
            yield from subschemas(item, (*at, keyword, index))
    for keyword in _NAMED:
        for name, item in part.get(keyword, {}).items():
            yield from subschemas(item, (*at, keyword, name))


def is_refinement(path: PathTo) -> bool:
    """Say whether a subschema only says more about what another one describes."""
    return bool({"if", "then", "else", "oneOf", "propertyNames"} & set(path))


def described(kind: Kind) -> list[tuple[PathTo, dict[str, Any]]]:
    """Return the subschemas that describe something, with their paths."""
    return [(at, part) for at, part in subschemas(schema(kind)) if not is_refinement(at)]


def properties(kind: Kind) -> list[tuple[PathTo, dict[str, Any]]]:
    """Return the schemas of the keys that a kind of file may hold, with their paths."""
    found = [(at, part) for at, part in described(kind) if at[-2:-1] == ("properties",)]
    assert found
    return found


def by_kind(items: Iterable[tuple[Kind, Any]]) -> list[Any]:
    return [pytest.param(kind, item, id=f"{kind}-{n}") for n, (kind, item) in enumerate(items)]


@pytest.mark.parametrize("kind", KINDS)
def test_schemas_are_valid_draft_07(kind: Kind) -> None:
    whole = schema(kind)
    assert whole["$schema"] == "http://json-schema.org/draft-07/schema#"
    Draft7Validator.check_schema(whole)


def test_each_kind_has_one_schema() -> None:
    assert {p.name for p in SCHEMAS.iterdir()} == {f"{kind}.schema.json" for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_schemas_use_keywords_of_draft_07(kind: Kind) -> None:
    known = set(Draft7Validator.META_SCHEMA["properties"])
    assert {
        at: set(part) - known for at, part in subschemas(schema(kind)) if set(part) - known
    } == {}


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_described(kind: Kind) -> None:
    definitions = [(at, part) for at, part in described(kind) if at[-2:-1] == ("definitions",)]
    parts = [((), schema(kind)), *definitions, *properties(kind)]
    assert [at for at, part in parts if not part.get("description")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_says_its_type(kind: Kind) -> None:
    says = {at: {"type", "enum", "$ref"} & set(part) for at, part in properties(kind)}
    assert {at: found for at, found in says.items() if len(found) != 1} == {}


@pytest.mark.parametrize("kind", KINDS)
def test_objects_allow_nothing_unknown(kind: Kind) -> None:
    objects = {
        at: part.get("additionalProperties", True)
        for at, part in described(kind)
        if "object" in part.get("type", ()) or "properties" in part
    }
    assert () in objects
    allowed = {at for at, others in objects.items() if others is True}
    assert allowed == (OPEN_OBJECTS if kind == "workflow" else set())
    others = [others for others in objects.values() if isinstance(others, dict)]
    assert [part for part in others if not {"type", "$ref"} & set(part)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_shows_a_value(kind: Kind) -> None:
    assert [at for at, part in properties(kind) if not {"examples", "default"} & set(part)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_examples_and_defaults_fit(kind: Kind) -> None:
    """Asked of jsonschema itself, within the whole schema, so that references resolve."""
    whole = Draft7Validator(schema(kind))
    shown = [
        (at, value, part)
        for at, part in subschemas(schema(kind))
        for value in (*part.get("examples", []), *([part["default"]] if "default" in part else []))
    ]
    assert len(shown) > 10
    wrong = [
        (at, value) for at, value, part in shown if not whole.evolve(schema=part).is_valid(value)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("kind", "example"), by_kind((kind, e) for kind in KINDS for e in schema(kind)["examples"])
)
def test_whole_examples_load(kind: Kind, example: dict[str, Any]) -> None:
    assert validate(loaded(json.dumps(example)), kind) == []


@pytest.mark.parametrize(("path", "kind"), SHIPPED.items(), ids=[p.name for p in SHIPPED])
def test_shipped_files_name_their_schema(path: Path, kind: Kind) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named is not None
    assert (path.parent / named[1]).resolve() == SCHEMAS / f"{kind}.schema.json"


@pytest.mark.parametrize(("path", "kind"), SHIPPED.items(), ids=[p.name for p in SHIPPED])
def test_shipped_files_fit_their_schema(path: Path, kind: Kind) -> None:
    root, faults = load_file(path, path.name)
    assert root is not None
    assert [*faults, *validate(root, kind)] == []


HEX = "a" * 40
GPU = {
    "unknown key": GPU_YAML + "«unknown-key»é: 1\n«unknown-key»colour: 2\n",
    "unknown, nested": """\
app: x
python: "3.11"
comfyui: {version: 0.3.71, commit: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, «unknown-key»prot: 1}
gpus:
  default: l40s
  l40s: {modal: L40S, «unknown-key»"é": 1, vram_gb: 48, price_per_second: 0.1}
scaling:
  max_containers: 1
  «unknown-key»buffer: 3
""",
    "missing at the top": "«missing-key»«missing-key»app: x\npython: '3.11'\n",
    "missing, nested": """\
app: x
python: "3.11"
«missing-key»comfyui: {version: 0.3.71}
gpus:
  default: l40s
  «missing-key»«missing-key»l40s: {modal: L40S}
""",
    "types": f"""\
app: «schema»5
python: «schema»3.11
comfyui:
  version: 0.3.71
  commit: {HEX}
  port: «schema»"8000"
  metadata: «schema»yes
  flags: «schema»--highvram
gpus:
  default: «schema»[l40s]
  l40s: «schema»L40S
apt: [git, «schema»7]
volumes:«schema»
auth: «schema»password
""",
    "ranges": f"""\
app: x
python: "3.11"
comfyui: {{version: 0.3.71, commit: {HEX}, port: «schema»80}}
gpus: {{default: l, l: {{modal: L, vram_gb: «schema»0, price_per_second: «schema»0.0}}}}
scaling: {{scaledown: «schema»3601, max_inputs: 1}}
secrets: {{s: «schema»[]}}
""",
    "names": f"""\
app: x
python: "3.11"
comfyui: {{version: 0.3.71, commit: {HEX}}}
gpus: {{default: l, «bad-name»L40S: {{modal: L, vram_gb: 1, price_per_second: 1}}}}
volumes: {{«bad-name»"-x": /a, y: «schema»models}}
""",
    "a last newline": f"""\
app: «schema»"x\\n"
python: «schema»"3.11\\n"
comfyui: {{version: «schema»"0.3.71\\n", commit: «schema»"{HEX}\\n", flags: [«schema»"--a=b\\n"]}}
gpus: {{default: l, «bad-name»"l\\n": {{modal: «schema»"L\\n", vram_gb: 1, price_per_second: 1}}}}
requirements: [«schema»"a==1\\n"]
apt: [«schema»"git\\n"]
volumes: {{«bad-name»"v\\n": /a, w: «schema»"/b\\n"}}
secrets: {{s: [«schema»"A\\n"]}}
priced: «schema»"2026-07\\n"
gateway: {{cors_origins: [«schema»"https://a\\n"]}}
""",
    "no mapping": "«schema»[app]\n",
    "null": "--- «schema»null\n",
}
MODELS = {
    "unknown key": "models: {}\npacks: {}\n«unknown-key»loras: {}\n",
    "sources": """\
models:
  a: {source: «schema»{hf: a/b}, folder: x}
  b: {source: «schema»{hf: a/b, file: c, volume: d}, folder: x}
  c: {source: «schema»{}, folder: x}
  d: {source: {volume: d, «unknown-key»path: e}, folder: x}
  «missing-key»e: {folder: x}
  f: {source: {url: «schema»"ftp://a/b", sha256: «schema»abc}, folder: x}
""",
    "sources mixed": f"""\
models:
  a: {{source: «schema»{{hf: a/b, file: c, url: "https://d/e"}}, folder: x}}
  b: {{source: «schema»{{volume: v, hf: a/b}}, folder: x}}
  c: {{source: «schema»{{volume: v, revision: {HEX}}}, folder: x}}
  d: {{source: «schema»{{url: "https://d/e", sha256: {"b" * 64}, file: c}}, folder: x}}
  e: {{source: {{volume: v, file: c}}, folder: x}}
""",
    "sizes": """\
models:
  a: {source: {volume: d}, folder: x, size: «schema»17.2 GiB}
  b: {source: {volume: d}, folder: x, size: «schema»-1}
  c: {source: {volume: d}, folder: x, size: «schema»1.5}
  d: {source: {volume: d}, folder: «schema»../x, filename: «schema»/y, family: «schema»FLUX}
""",
    "a last newline": f"""\
models:
  «bad-name»"a\\n": {{source: {{volume: d}}, folder: x}}
  b: {{source: {{hf: «schema»"a/b\\n", file: c}}, folder: «schema»"x\\n", size: «schema»"1 GB\\n"}}
packs:
  p: {{git: «schema»"https://a\\n", commit: «schema»"{HEX}\\n", apt: [«schema»"a\\n"]}}
""",
}
NODE = "{class_type: EmptyImage, inputs: {}}"
WORKFLOW = {
    "unknown key": f"graph: {{1: {NODE}}}\n«unknown-key»grahp: {{}}\n",
    "unknown, nested": f"""\
params:
  a: {{type: string, «unknown-key»defualt: x}}
graph:
  1: {NODE}
  2: {{class_type: A, inputs: {{any: thing}}, _meta: {{any: thing}}, «unknown-key»is_changed: [1]}}
output: {{param: a, nodes: {{x: 1}}, «unknown-key»node: 2}}
""",
    "missing": """\
«missing-key»params:
  «missing-key»a: {default: x}
""",
    "missing, in a graph": """\
graph:
  «missing-key»1: {inputs: {}}
  «missing-key»2: {}
«missing-key»output: {param: a}
""",
    "types": """\
summary: «schema»3
enabled: «schema»yes
timeout: «schema»1.5
models: «schema»flux
one_of: [[«schema»1, b], «schema»[c]]
params:
  a: {type: «schema»int, default: «schema»[1], minimum: «schema»"1", step: «schema»0}
  b: «schema»string
  c: {type: string, enum: «schema»[], examples: [«schema»[a]], optional: «schema»1}
graph:
  1: «schema»[a]
  2: {class_type: «schema»3, inputs: «schema»[a]}
output: «schema»[9]
""",
    "names": f"""\
params:
  «bad-name»A: {{type: string}}
  «bad-name»é: {{type: string}}
  «bad-name»{"a" * 65}: {{type: string}}
graph: {{1: {NODE}}}
route: «schema»flux
handler: «schema»a-b
group: «schema»G
""",
    "a last newline": """\
params: {«bad-name»"a\\n": {type: string}}
route: «schema»"/a\\n"
handler: «schema»"a\\n"
group: «schema»"g\\n"
graph: «schema»"${w}\\n"
""",
    "graph": "graph: «schema»{}\n",
    "a text that is no slot": "graph: «schema»workflow\n",
    "twice": f"graph: {{1: {NODE}}}\nmodels: «schema»[a, a]\none_of: [«schema»[b, b]]\n",
}
CASES: list[tuple[Kind, str]] = [
    *(("gpu", text) for text in GPU.values()),
    *(("models", text) for text in MODELS.values()),
    *(("workflow", text) for text in WORKFLOW.values()),
]
TITLES = [
    *(f"gpu: {title}" for title in GPU),
    *(f"models: {title}" for title in MODELS),
    *(f"workflow: {title}" for title in WORKFLOW),
]


@pytest.mark.parametrize(("kind", "text"), CASES, ids=TITLES)
def test_faults_are_reported_where_they_are(kind: Kind, text: str) -> None:
    clean, marks = marked(text)
    assert found_at(validate(loaded(clean), kind)) == marks


@pytest.mark.parametrize(
    ("kind", "text", "message", "hint"),
    [
        ("workflow", "grahp: {}\ngraph: {}\n", 'unknown key "grahp"', 'did you mean "graph"?'),
        ("models", "x: 1\n", 'unknown key "x"', "known are models, packs"),
        ("models", "models: 3\n", "expected a mapping, found 3", "Model files by a name"),
        ("models", "models:\n", "expected a mapping, found nothing", "Model files by a name"),
        ("models", "models: [a]\n", "expected a mapping, found a list", "Model files by a name"),
        ("models", "models: {a: {folder: b}}\n", 'missing "source"', "Where the file comes from"),
        (
            "models",
            "models: {a: {folder: x, source: {}}}\n",
            "needs exactly one of hf with file or url with sha256 or volume",
            "Where the file comes from",
        ),
        (
            "models",
            "models: {a: {folder: x, source: {volume: a}, size: true}}\n",
            "expected a text or an integer, found true",
            "Size of the file",
        ),
        (
            "models",
            "packs: {a: {git: x, commit: y}}\n",
            '"x" does not match ^https://[A-Za-z0-9][A-Za-z0-9._/~:@%+-]*$',
            "Address of the pack's git repository",
        ),
        (
            "workflow",
            "graph: {1: {class_type: A}}\nparams: {a: {type: strin}}\n",
            '"strin" is none of string, integer, number, boolean, seed, image, video, audio, '
            "model, graph",
            'did you mean "string"?',
        ),
        (
            "workflow",
            "graph: {1: {class_type: A}}\ntimeout: 0\n",
            "0 is too small: at least 1",
            "Longest run",
        ),
        (
            "workflow",
            "graph: {1: {class_type: A}}\ntimeout: 90000\n",
            "90000 is too large: at most 86340",
            "Longest run",
        ),
        (
            "workflow",
            "graph: {1: {class_type: A}}\nsummary: ''\n",
            "too short: at least 1",
            "One line that says",
        ),
    ],
)
def test_messages(kind: Kind, text: str, message: str, hint: str) -> None:
    fault = validate(loaded(text), kind)[0]
    assert fault.message == message
    assert str(fault.hint).startswith(hint)


def test_two_missing_keys_are_one_message_once() -> None:
    faults = sorted_once(validate(loaded("app: x\npython: '3.11'\n"), "gpu"))
    assert [(d.line, d.column, d.message) for d in faults] == [(1, 1, 'missing "comfyui", "gpus"')]


INTEGERS: list[tuple[str, str, Callable[[Any], Any], int]] = [
    (
        GPU_YAML.replace("vram_gb: 48", "vram_gb: 48.0"),
        "{}",
        lambda project: project.settings.gpus["l40s"].vram_gb,
        48,
    ),
    (
        GPU_YAML + "scaling: {max_containers: 2.0}\n",
        "{}",
        lambda project: project.settings.scaling.max_containers,
        2,
    ),
    (
        GPU_YAML,
        "models: {m: {source: {volume: v}, folder: x, size: 1.5e9}}\n",
        lambda project: project.models.models["m"].size,
        1_500_000_000,
    ),
]


@pytest.mark.parametrize(("gpu", "models", "read", "value"), INTEGERS, ids=range(len(INTEGERS)))
def test_integers_with_a_point(
    make_project: MakeProject, gpu: str, models: str, read: Callable[[Any], Any], value: int
) -> None:
    """JSON Schema takes 48.0 for an integer: it is refused, or read as the integer it is."""
    root = make_project({"a": f"graph: {{1: {NODE}}}\n"}, gpu=gpu, models=models)
    project, faults = load_project(root)
    if not faults:
        assert repr(read(project)) == repr(value)
    assert {d.code for d in faults} <= {"schema"}


def test_a_project_reports_schema_faults_by_file(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    workflow, at_workflow = marked(f"graph: {{1: {NODE}}}\n«unknown-key»x: 1\n")
    models, at_models = marked("models: {}\npacks: «schema»[]\n")
    gpu, at_gpu = marked(GPU_YAML + "«unknown-key»x: 1\n")
    checked, faults = check_project(make_project({"a": workflow}, models=models, gpu=gpu))
    assert checked is None
    assert [(d.file, d.line, d.column, d.code) for d in faults] == [
        ("gpu.yaml", *at_gpu[0]),
        ("models.yaml", *at_models[0]),
        ("workflows/a.yaml", *at_workflow[0]),
    ]


@pytest.mark.parametrize("name", ["gpu.yaml", "models.yaml"])
def test_a_missing_file_is_reported(
    make_project: MakeProject, check_project: CheckProject, name: str
) -> None:
    root = make_project({"a": f"graph: {{1: {NODE}}}\n"})
    (root / name).unlink()
    checked, faults = check_project(root)
    assert checked is None
    assert [(d.file, d.line, d.column, d.code) for d in faults if d.file == name] == [
        (name, 1, 1, "missing-file")
    ]


def test_the_default_requirements_are_those_of_the_shipped_project() -> None:
    """What gpu.yaml may leave out is what the app was tested with."""
    project, _ = load_project(ROOT)
    assert project.settings is not None
    default = schema("gpu")["properties"]["requirements"]["default"]
    assert default == list(project.settings.requirements)


def test_a_handler_whose_file_no_disk_takes(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    text = f"handler: {'a' * 101}\ngraph: {{1: {{class_type: PreviewAny, inputs: {{}}}}}}\n"
    _, diagnostics = check_project(make_project({"it": text}))
    assert ("schema", "too long: at most 100") in [(d.code, d.message) for d in diagnostics]
