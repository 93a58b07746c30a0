"""Names in Python, files, routes, and what workflows name and nobody declares."""

import ast
import builtins
import keyword
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

from generator.check import bounds
from generator.check.names import RESERVED_ROUTES
from generator.diagnostics import as_text
from generator.graph import catalog
from generator.names import (
    WORKFLOW_NAME,
    attribute_names,
    class_name,
    function_name,
    local_names,
    module_name,
)
from generator.render import render
from templates import params
from templates.params import Request

from .conftest import GPU_YAML, CheckProject, MakeProject, goes_when_it_is_read
from .test_extends import GRAPH, in_files, written

_PARAMS = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


def attributes_of(model: type[BaseModel]) -> set[str]:
    """Return the names that a field of a model may not have: the class's and its metaclass's."""
    names = {*dir(model), *dir(type(model)), *model.__annotations__}
    return {name for name in names if not name.startswith("_") and name == name.lower()}


@pytest.mark.parametrize(
    ("name", "module", "function", "model"),
    [
        ("flux", "flux", "build_flux_workflow", "FluxRequest"),
        ("flux-dev", "flux_dev", "build_flux_dev_workflow", "FluxDevRequest"),
        ("flux_dev", "flux_dev", "build_flux_dev_workflow", "FluxDevRequest"),
        ("wan2", "wan2", "build_wan2_workflow", "Wan2Request"),
        ("a-b_c-1", "a_b_c_1", "build_a_b_c_1_workflow", "ABC1Request"),
        ("import", "import_", "build_import_workflow", "ImportRequest"),
        ("lambda", "lambda_", "build_lambda_workflow", "LambdaRequest"),
        ("match", "match", "build_match_workflow", "MatchRequest"),
    ],
)
def test_names_of_a_workflow(name: str, module: str, function: str, model: str) -> None:
    assert WORKFLOW_NAME.fullmatch(name)
    assert module_name(name) == module
    assert function_name(name) == function
    assert class_name(name) == model


@pytest.mark.parametrize("name", keyword.kwlist)
def test_no_module_is_a_keyword(name: str) -> None:
    assert not keyword.iskeyword(module_name(name.lower()))


@given(st.from_regex(WORKFLOW_NAME, fullmatch=True))
@settings(deadline=None)
def test_names_of_a_workflow_are_identifiers(name: str) -> None:
    for found in (module_name(name), function_name(name), class_name(name)):
        assert found.isidentifier()
        assert not keyword.iskeyword(found)


@pytest.mark.parametrize(
    ("params", "attributes"),
    [
        ("prompt width seed", "prompt width seed"),
        ("class json copy model_config", "class_ json_ copy_ model_config_"),
        ("class class_ class__", "class___ class_ class__"),
        ("class_ class", "class_ class__"),
        ("model_name model_", "model_name model_"),
        ("str int float bool drawn list", "str_ int_ float_ bool_ drawn_ list"),
        ("of register one_of", "of_ register_ one_of"),
        ("match type", "match type"),
        ("none true", "none true"),
    ],
)
def test_attributes(params: str, attributes: str) -> None:
    expected = dict(zip(params.split(), attributes.split(), strict=True))
    assert attribute_names(params.split()) == expected


@given(
    st.lists(st.one_of(_PARAMS, st.sampled_from(["class", "class_", "json", "json_"])), unique=True)
)
@settings(deadline=None)
def test_attributes_differ(params: list[str]) -> None:
    attributes = attribute_names(params)
    assert list(attributes) == params
    assert len(set(attributes.values())) == len(params)
    assert not any(keyword.iskeyword(name) for name in attributes.values())
    assert all(name.rstrip("_") == param.rstrip("_") for param, name in attributes.items())


def test_what_pydantic_and_request_call_their_own_is_claimed() -> None:
    """When this fails, a new version of pydantic has names that generator/names.py must claim."""
    names = attributes_of(Request)
    assert {"copy", "json", "model_config", "model_fields", "of", "register"} <= names
    assert {name for name in names if attribute_names([name])[name] != f"{name}_"} == set()


def test_what_no_library_claims_is_free() -> None:
    """When this fails, generator/names.py claims names that nobody has any more."""
    free = {"field", "fields", "model", "model_name", "model_path", "item", "graph", "errors", "id"}
    assert not free & attributes_of(Request)
    assert attribute_names(sorted(free)) == {name: name for name in sorted(free)}


@pytest.mark.parametrize(
    "name", sorted({*attributes_of(Request), *(k for k in keyword.kwlist if k.islower())})
)
def test_a_model_takes_every_claimed_name(name: str) -> None:
    attribute = attribute_names([name])[name]
    fields: dict[str, Any] = {attribute: (str, Field(alias=name))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = create_model("Model", __base__=Request, **fields)
    assert getattr(model.model_validate({name: "x"}), attribute) == "x"


def names_in_class_bodies(source: ast.Module) -> set[str]:
    """Return the names that the class bodies of a module read."""
    return {
        name.id
        for part in ast.walk(source)
        if isinstance(part, ast.ClassDef)
        for statement in part.body
        for name in ast.walk(statement)
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load)
    }


BODY = """\
params:
  a: {type: string, strip: true}
  b: {type: integer, enum: [1, 2], default: 1}
  c: {type: number, default: 1.0}
  d: {type: boolean, default: true}
  e: {type: seed}
  f: {type: image}
  g: {type: model, folder: loras}
  h: {type: integer, minimum: 1, step: 4}
  i: {type: string, enum: [x, y]}
  j: {type: string, optional: true}
  k: {type: string}
one_of: [[g, k]]
graph:
  1: {class_type: PrimitiveString, inputs: {value: "${a}${b}${c}${d}${e}${f}${g}${h}${i}${j}${g|k}"}}
  2: {class_type: PreviewAny, inputs: {source: [1, 0]}}
"""


def rendered(make_project: MakeProject, check_project: CheckProject, workflow: str) -> ast.Module:
    """Return the handler of a workflow."""
    checked, faults = check_project(make_project({"a": workflow}))
    assert faults == []
    assert checked is not None
    return ast.parse(render(checked)["handlers/a.py"])


def test_a_param_shadows_nothing_that_its_class_body_reads(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    """`drawn: str = Field()` would take the place of the function that the next line calls."""
    read = names_in_class_bodies(rendered(make_project, check_project, BODY))
    assert {"str", "int", "Field", "drawn"} <= read
    lower = {name for name in read if name == name.lower() and not name.startswith("_")}
    assert {name for name in lower if attribute_names([name])[name] == name} == set()


def test_every_slot_has_a_variable_of_its_own(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    """With one variable for both, `${a}` gives the value of b when b was given.

    `${a|b}` and `${b|a}` are the same value.
    """
    workflow = """\
params: {a: {type: string, suffix: .x}, b: {type: string}}
one_of: [[a, b]]
graph:
  1: {class_type: PrimitiveString, inputs: {value: "${a} of ${a|b} and ${b|a}"}}
  2: {class_type: PreviewAny, inputs: {source: [1, 0]}}
"""
    [builder] = [
        part
        for part in rendered(make_project, check_project, workflow).body
        if isinstance(part, ast.FunctionDef) and part.name.startswith("build_")
    ]
    variables = [
        target.id
        for part in builder.body
        if isinstance(part, ast.Assign)
        for target in part.targets
        if isinstance(target, ast.Name) and target.id != "item"
    ]
    assert len(variables) == 2
    assert len(set(variables)) == 2


@pytest.mark.parametrize(
    ("params", "reserved", "local"),
    [
        ("prompt lora_id", "", "prompt lora_id"),
        ("item graph", "item graph text", "item_ graph_"),
        ("class print id", "", "class_ print_ id_"),
        ("text text_", "text", "text_ text__"),
        ("text_ text", "text", "text_ text__"),
        ("a a", "", "a a_"),
    ],
)
def test_local_variables(params: str, reserved: str, local: str) -> None:
    assert local_names(params.split(), reserved.split()) == local.split()


@given(st.lists(_PARAMS), st.lists(_PARAMS))
@settings(deadline=None)
def test_local_variables_differ(params: list[str], reserved: list[str]) -> None:
    names = local_names(params, reserved)
    assert [name.rstrip("_") for name in names] == [param.rstrip("_") for param in params]
    assert len(set(names)) == len(params)
    assert not {*reserved, *keyword.kwlist, *dir(builtins)} & set(names)


@pytest.mark.parametrize(
    "name",
    [
        "flux.yml",
        "Flux.yaml",
        "FLUX.YAML",
        "flux.YAML",
        "fluX.yaml",
        "flux-.yaml",
        "-flux.yaml",
        "_flux.yaml",
        "flux_.yaml",
        "flux--2.yaml",
        "flux_-2.yaml",
        "flux__2.yaml",
        "2flux.yaml",
        "flux.v2.yaml",
        "flux 2.yaml",
        "flüx.yaml",
        "flux².yaml",
        ".flux.yaml",
    ],
)
def test_file_names_that_are_no_names_of_workflows(
    make_project: MakeProject, check_project: CheckProject, name: str
) -> None:
    root = make_project({"ok": GRAPH})
    (root / "workflows" / name).write_text(GRAPH)
    checked, faults = check_project(root)
    assert in_files(faults) == [(f"workflows/{name}", 1, 1, "bad-name")]
    assert checked is not None
    assert [c.workflow.name for c in checked.workflows] == ["ok"]


@pytest.mark.parametrize("name", ["flux\n.yaml", "flux\x1b[2J.yaml", "fl\udcffux.yaml"])
def test_file_names_that_do_not_print(
    make_project: MakeProject, check_project: CheckProject, name: str
) -> None:
    root = make_project({"ok": GRAPH})
    (root / "workflows" / name).write_text(GRAPH)
    _, faults = check_project(root)
    assert [d.code for d in faults] == ["bad-name"]
    text = as_text(faults)
    assert text.encode().decode() == text
    assert text.count("\n") == 1
    assert text[:-1].isprintable()


@pytest.mark.parametrize("name", ["flux.yaml~", "flux.yaml.bak", "notes.md", "#flux.yaml#"])
def test_other_files_are_left_alone(
    make_project: MakeProject, check_project: CheckProject, name: str
) -> None:
    root = make_project({"ok": GRAPH})
    (root / "workflows" / name).write_text("{")
    checked, faults = check_project(root)
    assert faults == []
    assert checked is not None
    assert [c.workflow.name for c in checked.workflows] == ["ok"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_project_without_workflows(
    make_project: MakeProject, check_project: CheckProject, exists: bool
) -> None:
    root = make_project({})
    if not exists:
        (root / "workflows").rmdir()
    _, faults = check_project(root)
    assert in_files(faults) == [("workflows", 1, 1, "missing-file")]


def test_a_folder_with_the_name_of_a_workflow(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    root = make_project({"ok": GRAPH})
    (root / "workflows" / "a.yaml").mkdir()
    _, faults = check_project(root)
    assert in_files(faults) == [("workflows/a.yaml", 1, 1, "unreadable")]


def test_a_folder_that_goes_while_it_is_read(
    make_project: MakeProject, check_project: CheckProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_project({"ok": GRAPH})
    gone = goes_when_it_is_read(root / "workflows" / "gone", monkeypatch)
    checked, faults = check_project(root)
    assert not gone.exists()
    assert faults == []
    assert checked is not None
    assert [c.workflow.name for c in checked.workflows] == ["ok"]


CLASHES: dict[str, dict[str, str]] = {
    "no clash": {"a": GRAPH, "b": "extends: a\n", "a-b": GRAPH, "c": "handler: a\nextends: a\n"},
    "reserved": {
        "a": "route: «reserved-route»/docs\n" + GRAPH,
        "b": "summary: x\nroute: «reserved-route»/health/now\n" + GRAPH,
        "jobs": "«reserved-route»" + GRAPH,
        "c": "route: /docs-2\n" + GRAPH,
        "d": "route: /d/docs\n" + GRAPH,
    },
    "reserved, not inherited": {
        "a": "route: «reserved-route»/docs\n" + GRAPH,
        "b": "extends: a\n",
        "usage": "«reserved-route»extends: b\n",
    },
    "one route twice": {
        "a": "route: /x/y\n" + GRAPH,
        "b": "route: «route-collision»/x/y\n" + GRAPH,
        "c": "summary: c\nroute: «route-collision»/x/y\n" + GRAPH,
    },
    "a route that another file has by its name": {
        "a": "route: /b\n" + GRAPH,
        "b": "«route-collision»" + GRAPH,
    },
    "one name in Python": {
        "a-b": GRAPH,
        "a_b": "«name-collision»«name-collision»" + GRAPH,
        "flux-2": GRAPH,
        "flux2": "«name-collision»" + GRAPH,
    },
    "a keyword as a handler": {
        "a": "handler: «bad-name»class\n" + GRAPH,
        "import": GRAPH,
        "b": "handler: match\n" + GRAPH,
    },
    "an unknown GPU": {
        "a": "gpu: «unknown-gpu»h100\n" + GRAPH,
        "b": "gpu: l40s\n" + GRAPH,
        "c": "extends: a\n",
    },
    "unknown models and packs": {
        "a": "models: [«undeclared-model»x, «undeclared-model»y]\npacks: [«undeclared-pack»p]\n"
        + GRAPH,
        "b": "extends: a\nmodels: [«undeclared-model»z]\npacks: []\n",
    },
}


@pytest.mark.parametrize("workflows", CLASHES.values(), ids=CLASHES)
def test_names_that_clash_or_name_nothing(
    make_project: MakeProject, check_project: CheckProject, workflows: dict[str, str]
) -> None:
    texts, expected = written(workflows)
    _, faults = check_project(make_project(texts))
    assert in_files(faults) == expected


@pytest.mark.parametrize("route", sorted(RESERVED_ROUTES))
def test_reserved_routes(
    make_project: MakeProject, check_project: CheckProject, route: str
) -> None:
    texts = {"a": f"route: /{route}\n{GRAPH}", "b": f"route: /{route}/x/y\n{GRAPH}"}
    _, faults = check_project(make_project(texts))
    assert in_files(faults) == [
        ("workflows/a.yaml", 1, 8, "reserved-route"),
        ("workflows/b.yaml", 1, 8, "reserved-route"),
    ]
    assert faults[0].message == f"route /{route} is reserved: the API answers there itself"


def test_the_api_keeps_the_routes_of_the_design() -> None:
    assert {"docs", "health", "jobs", "openapi", "ready", "static"} <= RESERVED_ROUTES


def test_hints(make_project: MakeProject, check_project: CheckProject) -> None:
    models = """\
models:
  flux-vae: {source: {volume: v}, folder: vae, filename: x.safetensors}
packs:
  some-pack: {git: "https://a/b", commit: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}
"""
    root = make_project(
        {"a": "gpu: l40\nmodels: [flux-vea]\npacks: [x]\n" + GRAPH, "b": "gpu: t4\n" + GRAPH},
        models=models,
        gpu=GPU_YAML + "volumes: {v: /v}\n",
    )
    _, faults = check_project(root)
    assert {(d.code, d.message, d.hint) for d in faults if d.file.startswith("workflows")} == {
        ("unknown-gpu", 'gpu.yaml has no GPU profile "l40"', 'did you mean "l40s"?'),
        ("unknown-gpu", 'gpu.yaml has no GPU profile "t4"', "declared are l40s"),
        (
            "undeclared-model",
            'models.yaml declares no model "flux-vea"',
            'did you mean "flux-vae"?',
        ),
        ("undeclared-pack", 'models.yaml declares no pack "x"', "declared are some-pack"),
    }


def test_worker_classes_of_one_name(make_project: MakeProject, check_project: CheckProject) -> None:
    """They would be one class, and jobs would run on the other's GPU, without its packs."""
    texts, expected = written(
        {
            "a": "group: apart\n" + GRAPH,
            "b": "gpu: «name-collision»l40s_apart\n" + GRAPH,
            "c": "gpu: l40s-b\ngroup: c\n" + GRAPH,
            "d": "group: «name-collision»b_c\n" + GRAPH,
            "e": "group: apart\nsummary: e\n" + GRAPH,
        }
    )
    profiles = "".join(
        f"  {name}: {{modal: A100, vram_gb: 80, price_per_second: 0.1}}\n"
        for name in ("l40s_apart", "l40s-b")
    )
    _, faults = check_project(make_project(texts, gpu=GPU_YAML + profiles))
    assert in_files(faults) == expected
    assert faults[0].message == (
        'the worker class of GPU profile "l40s_apart" is L40sApartWorker, '
        'and so is that of GPU profile "l40s", group "apart"'
    )


GPUS = """\
app: x
python: "3.11"
comfyui: {version: 0.3.71, commit: c55fd7481626d8bee8044ea7512ea996d13a1b90}
gpus:
  default: «unknown-gpu»l40
  l40s: {modal: L40S, vram_gb: 48, price_per_second: 0.1, fallback: [a10, «unknown-gpu»h100]}
  a10: {modal: A10, vram_gb: 24, price_per_second: 0.1}
"""


def test_gpus_that_gpu_yaml_itself_names(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    texts, expected = written({"gpu": GPUS})
    _, faults = check_project(make_project({"a": GRAPH}, gpu=texts["gpu"]))
    assert in_files(faults) == [("gpu.yaml", *place[1:]) for place in expected]


def test_a_folder_that_is_no_project(tmp_path: Path, check_project: CheckProject) -> None:
    """A folder that is no project: every missing file is named, and nothing raises."""
    checked, faults = check_project(tmp_path / "nowhere")
    assert checked is None
    assert in_files(faults) == [
        ("gpu.yaml", 1, 1, "missing-file"),
        ("models.yaml", 1, 1, "missing-file"),
        ("workflows", 1, 1, "missing-file"),
    ]


def test_what_stands_in_the_generator_and_in_the_app_is_the_same() -> None:
    """The app imports nothing of the generator, so two constants stand in both."""
    assert params.MAX_SEED == bounds.MAX_SEED
    assert frozenset(params.MODEL_EXTENSIONS) == catalog.MODEL_EXTENSIONS
