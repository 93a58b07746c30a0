"""docs/diagnostics.md: every code has an entry, and every example gives its code."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import pytest

from generator.cli import main
from generator.graph.catalog import Input, open_catalog
from generator.lock import Lock, inputs_of_images, text_of
from generator.project import CATALOGS, load_project

from .conftest import MODELS_YAML, ROOT

PAGE: Final = (ROOT / "docs" / "diagnostics.md").read_text(encoding="utf-8")
LANGUAGE: Final = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
CATALOG: Final = open_catalog(CATALOGS, version="0.3.71")

ENTRY = re.compile(
    r"^### `([a-z0-9-]+)`\n\n\*\*(Error|Warning|Info)\.\*\* ((?:(?!##).*\n)*)", re.MULTILINE
)
DIFF = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The line of an example that names the file in which the lines below it stand.
NAME = re.compile(r"^# ((?:gpu|models)\.yaml|graph\.json|(?:models|workflows)/.+)\n", re.MULTILINE)
NODE = re.compile(r"^(  \w+: )(.*\n)", re.MULTILINE)
# A node of which an example does not show all inputs.
SHORTENED = re.compile(r'type"?: "?(\w+)"?, "?inputs"?: \{(.*?)…\}')
# What an example leaves out.
FILE: str
BASE: str
[(FILE, BASE)] = re.findall(r"^```yaml\n# (workflows/\S+)\n(.*?)^```$", PAGE, re.M | re.S)
[GPU_YAML] = re.findall(r"^```yaml\n(app:.*?)^```$", LANGUAGE, re.M | re.S)
GPU: dict[str, str] = dict(re.findall(r"^(\w+)(:.*\n(?: .*\n)*)", GPU_YAML, re.MULTILINE)) | {
    "volumes": ": {my-models: /root/models}\n"
}

# Texts of files by their names; None is a file that is not there.
Files = Mapping[str, str | bytes | None]


class Entry(NamedTuple):
    """What the page says of a code; `example` is its diff, "" where words tell it."""

    severity: str
    example: str


ENTRIES = {
    code: Entry(severity.lower(), found[1] if (found := DIFF.search(text)) else "")
    for code, severity, text in ENTRY.findall(PAGE)
}


def a_lock() -> str:
    """Return a lock that fits the examples' gpu.yaml, without models and packs."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "gpu.yaml").write_text("".join(f"{key}{GPU[key]}" for key in GPU))
        settings = load_project(Path(folder))[0].settings
    assert settings is not None
    return text_of(Lock(resolved=inputs_of_images(settings, {"": ()})))


COMMIT = "0123456789abcdef0123456789abcdef01234567"
MY_PACK: Files = {
    "models.yaml": f"packs: {{MyPack: {{git: https://github.com/A/MyPack, commit: {COMMIT}}}}}\n",
    FILE: "graph: {1: {class_type: MyUpscaler, inputs: {}}}\n",
}
MY_SCHEMAS: Files = {
    "catalogs/packs/MyPack.jsonl": (
        f'{{"pack": "MyPack", "commit": "{COMMIT}", "classes": ["MyUpscaler"]}}\n'
        '{"inputs": {}, "outputs": [], "output_node": true}\n'
    )
}
MY_GRAPH: Files = {
    "graph.json": '{"1": {"class_type": "VAELoader", "inputs": {"vae_name": "ae.safetensors"}}, '
    '"2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}'
}


def canvas(text: str, *loaded: str) -> str:
    """Return a workflow in UI format that shows a text's conditioning."""
    nodes = [
        {"id": 1, "type": "CLIPLoader", "outputs": [{"type": "CLIP", "links": [1]}],
         "widgets_values": ["clip_l.safetensors", "sd3", *loaded]},
        {"id": 2, "type": "CLIPTextEncode", "inputs": [{"name": "clip", "type": "CLIP", "link": 1}],
         "outputs": [{"type": "CONDITIONING", "links": [2]}], "widgets_values": [text]},
        {"id": 3, "type": "PreviewAny", "inputs": [{"name": "source", "type": "*", "link": 2}]},
    ]  # fmt: skip
    links = [[1, 1, 0, 2, 0, "CLIP"], [2, 2, 0, 3, 0, "CONDITIONING"]]
    return json.dumps({"nodes": nodes, "links": links, "version": 0.4})


MY_FILE = "models/vae/ae.safetensors"
MY_VAE: Files = {
    "models.yaml": "models: {ae: {source: {hf: a/b, file: ae.safetensors}, folder: vae}}\n"
}
LOCK = a_lock()
# What only `make lock` reports, which asks others; tests/test_lock.py has examples.
OF_LOCK = frozenset(("unresolved",))


def chain_of(count: int) -> str:
    """Return a workflow of nodes in a row."""
    first = (
        "  1: {class_type: EmptyImage, inputs: {width: 8, height: 8, batch_size: 1, color: 0}}\n"
    )
    nodes = "".join(
        f"  {n}: {{class_type: ImageInvert, inputs: {{image: [{n - 1}, 0]}}}}\n"
        for n in range(2, count)
    )
    last = f"  {count}: {{class_type: PreviewImage, inputs: {{images: [{count - 1}, 0]}}}}\n"
    return f"graph:\n{first}{nodes}{last}"


# The examples that words tell, bad and good, and why no diff shows them.
IN_WORDS: dict[str, tuple[Files, Files]] = {
    # A folder has no text.
    "unreadable": ({FILE: None, f"{FILE}/note.txt": ""}, {}),
    # It would be long.
    "too-large": ({FILE: f"graph: {'[' * 65}{']' * 65}\n"}, {}),
    # The page is UTF-8.
    "not-utf8": ({FILE: "summary: Café\n".encode("latin-1")}, {FILE: "summary: Café\n"}),
    # It would be invisible.
    "control-character": ({FILE: 'summary: "\x1b"\n'}, {FILE: 'summary: "\\x1b"\n'}),
    # There is no file to show.
    "missing-file": ({"models.yaml": None}, {"models.yaml": "models: {}\n"}),
    # It would be long.
    "too-deep": ({FILE: chain_of(1000)}, {FILE: chain_of(500)}),
    # A command writes the file that mends it.
    "no-schemas": (MY_PACK, {**MY_PACK, **MY_SCHEMAS}),
    # A file in UI format is long.
    "default-taken": (
        {"graph.json": canvas("red fox")},
        {"graph.json": canvas("red fox", "default")},
    ),
    "dynamic-prompt": (
        {"graph.json": canvas("{red|blue} fox", "default")},
        {"graph.json": canvas("red fox", "default")},
    ),
    # Models are no text.
    # A lock is made by a command.
    "bad-lock": ({"generator.lock": "<<<<<<< HEAD\n"}, {"generator.lock": LOCK}),
    "lock-drift": ({**MY_VAE, "generator.lock": LOCK}, {"generator.lock": LOCK}),
    "unread-header": (
        {**MY_GRAPH, MY_FILE: b"<html></html>"},
        {**MY_GRAPH, MY_FILE: (2).to_bytes(8, "little") + b"{}"},
    ),
}
# Errors that no bad example can be without.
TOGETHER = {"alias": {"anchor"}}


def side(code: str, sign: str) -> Files:
    """Return one side of an example, as the page shows it: the bad one is "-", the good one "+"."""
    if code in IN_WORDS:
        bad, good = IN_WORDS[code]
        return bad if sign == "-" else good
    lines = ENTRIES[code].example.splitlines(keepends=True)
    text = "".join(line[1:] for line in lines if line[0] in (" ", sign))
    before, *named = NAME.split(text)
    files = dict(zip(named[::2], named[1::2], strict=True))
    return {FILE: before, **files} if before else files


def whole(file: str, text: str) -> str:
    """Return a file with what its example leaves out."""
    text = SHORTENED.sub(lambda node: node[0].replace("…", others(node[1], node[2])), text)
    if file == "gpu.yaml":
        missing = [key for key in GPU if not re.search(f"^{key}:", text, re.MULTILINE)]
        return text + "".join(key + GPU[key] for key in missing)
    if not file.startswith("workflows/") or "extends:" in text:
        return text
    if text[:1].isdigit():
        text = "graph:\n" + "".join(f"  {line}" for line in text.splitlines(keepends=True))
    if "graph:" not in text:
        return text + BASE
    if "graph:\n" in text:
        shown = dict(NODE.findall(text))
        text += "".join(node + rest for node, rest in NODE.findall(BASE) if node not in shown)
    return text


def others(class_type: str, written: str) -> str:
    """Return the inputs that a node needs beside the written ones, with their defaults."""
    [found] = CATALOG.get(class_type, ())
    return ", ".join(
        f"{json.dumps(name)}: {json.dumps(default(taken))}"
        for name, taken in found.inputs.items()
        if not taken.optional and not re.search(rf'\b{name}"?: ', written)
    )


def default(taken: Input) -> Any:
    return taken.options[0] if taken.default is None else taken.default


def reported(root: Path, files: Files, capsys: pytest.CaptureFixture[str]) -> set[tuple[str, str]]:
    """Return severities and codes: of `validate` for a project, of `lint` for a graph."""
    valid: Files = {"gpu.yaml": "", "models.yaml": MODELS_YAML, FILE: ""}
    for file, text in {**valid, **files}.items():
        if text is not None:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            data = text if isinstance(text, bytes) else whole(file, text).encode()
            (root / file).write_bytes(data)
    command = ["validate", "--project", str(root)]
    if "graph.json" in files:
        folder = root / "models"
        models = ["--models", str(folder)] if folder.exists() else ["--no-models"]
        command = ["lint", *models, str(root / "graph.json")]
    main([*command, "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    return {(d["severity"], d["code"]) for one in found for d in one["diagnostics"]}


@pytest.mark.parametrize("code", [code for code in ENTRIES if code not in OF_LOCK])
def test_an_example(code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bad side gives the code at its severity, and no other error; the good one has no error."""
    bad = reported(tmp_path / "bad", side(code, "-"), capsys)
    assert {severity for severity, found in bad if found == code} == {ENTRIES[code].severity}
    assert {found for severity, found in bad if severity == "error"} <= {
        code,
        *TOGETHER.get(code, ()),
    }
    good = reported(tmp_path / "good", side(code, "+"), capsys)
    assert {found for severity, found in good if severity == "error" or found == code} == set()


def test_what_words_tell() -> None:
    """Every entry has a diff, or two lines of words for what the test above makes of them."""
    assert {code for code, entry in ENTRIES.items() if not entry.example} == {*IN_WORDS, *OF_LOCK}
    for code in (*IN_WORDS, *OF_LOCK):
        text = PAGE.partition(f"### `{code}`\n")[2].partition("\n#")[0]
        assert re.findall(r"^- (\w+): ", text, re.MULTILINE) == ["wrong", "right"]


def test_every_code_has_an_entry() -> None:
    """For each code in the source the page has one entry, and none for any other."""
    headings = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)
    assert headings == list(ENTRIES)
    assert len(set(headings)) == len(headings)
    assert set(ENTRIES) == codes_in_source()


def test_the_list_of_codes() -> None:
    """It names every code once, in its group, in the order of the page, and its links are right."""
    listed = re.findall(r"^\| \[`?(.+?)`?\]\(#([a-z-]+)\) \| (.+) \|$", PAGE, re.MULTILINE)
    assert [slug for _, slug, _ in listed] == [
        name.lower().replace(" ", "-") for name, _, _ in listed
    ]
    groups = re.split(r"^## `?(.+?)`?$", PAGE, flags=re.MULTILINE)
    assert [(name, codes) for name, _, codes in listed] == [
        (name, " ".join(f"[`{code}`](#{code})" for code, _, _ in ENTRY.findall(text)))
        for name, text in zip(groups[1::2], groups[2::2], strict=True)
        if ENTRY.search(text)
    ]


def codes_in_source() -> set[str]:
    """Return what calls give to the arguments named `code`, of functions and of records."""
    modules = [
        ast.parse(path.read_bytes())
        for folder in ("generator", "generator/check", "generator/graph")
        for path in (ROOT / folder).glob("*.py")
    ]
    nodes = [node for module in modules for node in ast.walk(module)]
    places = {place for node in nodes for place in _place_of_code(node)}
    given = [
        argument
        for node in nodes
        if isinstance(node, ast.Call)
        for index, argument in enumerate(node.args)
        if (_name(node.func), index) in places
    ]
    return {
        argument.value
        for argument in given
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def _place_of_code(node: ast.AST) -> Iterator[tuple[str, int]]:
    names: list[str] = []
    match node:
        case ast.FunctionDef(args=arguments):
            names = [argument.arg for argument in arguments.args if argument.arg != "self"]
        case ast.ClassDef(body=body):
            fields = [line.target for line in body if isinstance(line, ast.AnnAssign)]
            names = [field.id for field in fields if isinstance(field, ast.Name)]
    if "code" in names and isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name, names.index("code")


def _name(function: ast.expr) -> str:
    match function:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""
