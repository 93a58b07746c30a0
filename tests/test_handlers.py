"""Every endpoint of build/, and small endpoints with what is rare in the shipped ones."""

import copy
import importlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from build.params import MAX_SEED, Request
from generator.cli import main
from generator.graph.catalog import Catalog, ClassType, Input, open_catalog
from generator.graph.records import Graph, is_link

from .conftest import ROOT, MakeProject

Body = dict[str, Any]
Inputs = dict[str, Body]
Build = Callable[[Any], Graph]

FIXTURES = Path(__file__).parent / "fixtures" / "test_workflows"
ROUTES: dict[str, Body] = json.loads((ROOT / "build" / "manifest.json").read_bytes())["routes"]


def contract(name: str) -> Graph:
    """Return the graph that an endpoint promises to run, from tests/fixtures/test_workflows."""
    graph: Graph = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return graph


def changed(graph: Graph, value: object, places: str) -> Graph:
    """Return a graph with one value at `node.input` places, which must be in the graph."""
    result = copy.deepcopy(graph)
    for place in places.split():
        node, name = place.split(".")
        assert name in result[node]["inputs"]
        result[node]["inputs"][name] = value
    return result


def refusals(build: Build, body: object) -> list[tuple[tuple[int | str, ...], str]]:
    """Return where and why a body is refused."""
    with pytest.raises(ValidationError) as caught:
        build(body)
    return [(error["loc"], error["type"]) for error in caught.value.errors()]


TEXTS: Body = {"prompt": "a red fox in the snow", "negative_prompt": "blurry", "seed": 7}
# A body for every graph in tests/fixtures/test_workflows that an endpoint builds.
BODIES: dict[str, tuple[str, Body]] = {
    "flux": ("/flux", TEXTS),
    "flux-dev": ("/flux-dev", TEXTS),
    "flux-lora": ("/flux-lora", TEXTS | {"lora_name": "character-demo.safetensors"}),
    "flux-instantid": ("/flux-instantid", TEXTS | {"reference_image": "reference.png"}),
    "wan2": ("/wan2", TEXTS),
    "wan2-mp4": ("/wan2", TEXTS | {"format": "mp4"}),
    "seedvr2": ("/seedvr2", {"image": "small.png", "seed": 7}),
    "workflow": ("/workflow", {"workflow": contract("flux")}),
}
BODY_OF = dict(reversed(BODIES.values()))

_FLUX = {
    "width": (16, 2048, 8),
    "height": (16, 2048, 8),
    "steps": (1, 100, 1),
    "cfg": (0.0, 100.0, 0.5),
    "seed": (0, MAX_SEED, 1),
}
_FLUX_DEV = _FLUX | {"guidance": (0.0, 100.0, 0.5)}
# Least value, greatest value and step of every number.
BOUNDS: dict[str, dict[str, tuple[float, float, float]]] = {
    "/flux": _FLUX,
    "/flux-dev": _FLUX_DEV,
    "/flux-lora": _FLUX_DEV | {"lora_strength": (-100.0, 100.0, 0.5)},
    "/flux-instantid": _FLUX_DEV
    | {
        "instantid_strength": (0.0, 3.0, 0.5),
        "controlnet_strength": (0.0, 10.0, 0.5),
        "identity_denoise": (0.0, 1.0, 0.5),
        "identity_cfg": (0.0, 100.0, 0.5),
    },
    "/wan2": {
        "width": (16, 1280, 16),
        "height": (16, 1280, 16),
        "length": (1, 161, 4),
        "fps": (1, 60, 1),
        "steps": (1, 100, 1),
        "cfg": (0.0, 100.0, 0.5),
        "seed": (0, MAX_SEED, 1),
        "quality": (0, 100, 1),
    },
    "/seedvr2": {
        "resolution": (16, 16384, 2),
        "max_resolution": (0, 16384, 2),
        "seed": (0, 4294967295, 1),
    },
}
REQUIRED = {
    "/flux": ["prompt"],
    "/flux-dev": ["prompt"],
    "/flux-lora": ["prompt"],
    "/flux-instantid": ["prompt", "reference_image"],
    "/wan2": ["prompt"],
    "/seedvr2": ["image"],
    "/workflow": ["workflow"],
}


def endpoint(route: str) -> tuple[type[Request], Build]:
    """Return an endpoint's request model and builder, by the names in the manifest."""
    module = importlib.import_module(f"build.handlers.{ROUTES[route]['handler']}")
    request: type[Request] = getattr(module, ROUTES[route]["request"])
    build: Build = getattr(module, ROUTES[route]["builder"])
    return request, build


def test_the_routes_are_those_of_the_contract() -> None:
    """Seven endpoints; the one that runs whatever it is sent is off."""
    assert {route: one["enabled"] for route, one in ROUTES.items()} == {
        "/flux": True,
        "/flux-dev": True,
        "/flux-instantid": True,
        "/flux-lora": True,
        "/seedvr2": True,
        "/wan2": True,
        "/workflow": False,
    }
    assert sorted(BODY_OF) == sorted(ROUTES)


@pytest.mark.parametrize("route", ROUTES)
def test_request_model_and_builder_exist(route: str) -> None:
    request, build = endpoint(route)
    assert issubclass(request, Request)
    assert build(BODY_OF[route]) == build(request.of(BODY_OF[route]))


# Graphs against the pinned catalog


def classes_of(graph: Graph, catalog: Catalog, packs: list[str]) -> dict[str, ClassType]:
    """Return the class of every node; each must be known once."""
    found = {node: catalog.get(content["class_type"], packs) for node, content in graph.items()}
    assert {node: len(known) for node, known in found.items()} == dict.fromkeys(graph, 1)
    return {node: known[0] for node, known in found.items()}


def faults_of(graph: Graph, classes: Mapping[str, ClassType]) -> list[str]:
    """Return what ComfyUI would refuse in a graph."""
    found = [] if any(classes[node].output_node for node in graph) else ["no output node"]
    for node, content in graph.items():
        schema, inputs = classes[node].inputs, content["inputs"]
        found += [f"{node}: no input {name}" for name in inputs if name not in schema]
        found += [
            f"{node}: {name} is missing"
            for name, one in schema.items()
            if not one.optional and name not in inputs
        ]
        found += [
            f"{node}: {name} cannot be {value!r}"
            for name, value in inputs.items()
            if name in schema and not fits(value, schema[name], classes)
        ]
    return found


def fits(value: Any, schema: Input, classes: Mapping[str, ClassType]) -> bool:
    if is_link(value):
        node, output = value
        outputs = classes[node].outputs if node in classes else ()
        return output in range(len(outputs)) and outputs[output].type == schema.type
    match schema.type:
        case "INT" | "FLOAT":
            low, high = schema.minimum, schema.maximum
            return (
                type(value) in ((int,) if schema.type == "INT" else (int, float))
                and (low is None or value >= low)
                and (high is None or value <= high)
            )
        case "BOOLEAN":
            return type(value) is bool
        case "STRING":
            return type(value) is str
        case "COMBO":
            return type(value) is str and (schema.is_open or value in schema.options)
    return False


@pytest.mark.parametrize("folder", ["generator/catalogs", "build/graph/catalogs"])
@pytest.mark.parametrize("name", BODIES)
def test_graph_is_one_that_the_pinned_catalog_takes(name: str, folder: str) -> None:
    """Classes, inputs, values, links and outputs; the deployed catalog knows them as well."""
    route, body = BODIES[name]
    graph = endpoint(route)[1](body)
    catalog = open_catalog(ROOT / folder, version="0.3.71")
    assert faults_of(graph, classes_of(graph, catalog, ROUTES[route]["packs"])) == []


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("steps", None, "5: steps is missing"),
        ("step", 1, "5: no input step"),
        ("steps", True, "5: steps cannot be True"),
        ("steps", 0, "5: steps cannot be 0"),
        ("cfg", "1.0", "5: cfg cannot be '1.0'"),
        ("sampler_name", "eular", "5: sampler_name cannot be 'eular'"),
        ("model", ["4", 1], "5: model cannot be ['4', 1]"),
        ("model", ["4", 3], "5: model cannot be ['4', 3]"),
        ("model", ["44", 0], "5: model cannot be ['44', 0]"),
    ],
)
def test_the_comparison_with_the_catalog_sees_faults(name: str, value: Any, fault: str) -> None:
    graph = contract("flux")
    graph["5"]["inputs"][name] = value
    if value is None:
        del graph["5"]["inputs"][name]
    catalog = open_catalog(ROOT / "generator" / "catalogs", version="0.3.71")
    assert faults_of(graph, classes_of(graph, catalog, [])) == [fault]


# Builders


def containers(value: object) -> set[int]:
    """Return the identities of all lists and dicts in a value."""
    if isinstance(value, dict):
        return {id(value)}.union(*map(containers, value.values()))
    return {id(value)}.union(*map(containers, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("name", BODIES)
def test_builders_are_pure(name: str) -> None:
    """Equal graphs that share nothing, and the caller's body as it was."""
    route, body = BODIES[name]
    request, build = endpoint(route)
    before = copy.deepcopy(body)
    first, second = build(body), build(body)
    assert first == second
    assert containers(first) & (containers(second) | containers(body)) == set()
    item = request.of(body)
    kept = item.model_copy(deep=True)
    from_request = build(item)
    assert from_request == first
    from_request.clear()
    assert build(item) == first
    assert item == kept
    assert body == before


@pytest.mark.parametrize("route", ROUTES)
def test_any_mapping_is_a_body(route: str) -> None:
    """The builders' signature says Mapping, so one that is no dict is taken too."""
    build = endpoint(route)[1]
    assert build(MappingProxyType(BODY_OF[route])) == build(BODY_OF[route])


@pytest.mark.parametrize("route", [route for route in ROUTES if route != "/flux"])
def test_a_request_of_another_endpoint_is_refused(route: str) -> None:
    other = endpoint("/flux")[0].of(TEXTS)
    assert refusals(endpoint(route)[1], other) == [((), "model_type")]


@pytest.mark.parametrize("route", BOUNDS)
def test_seed_is_drawn_in_its_range(route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 0 to the greatest seed, both included, anew for every request."""
    build, greatest = endpoint(route)[1], BOUNDS[route]["seed"][1]
    body = {key: value for key, value in BODY_OF[route].items() if key != "seed"}

    def seeds() -> set[int]:
        inputs = [node["inputs"] for node in build(body).values()]
        return {one["seed"] for one in inputs if "seed" in one}

    drawn = [seeds() for _ in range(20)]
    assert [len(one) for one in drawn] == [1] * 20
    assert len(set().union(*drawn)) > 15
    assert all(0 <= seed <= greatest for one in drawn for seed in one)
    monkeypatch.setattr("secrets.randbelow", lambda below: below - 1)
    assert seeds() == {greatest}
    monkeypatch.setattr("secrets.randbelow", lambda _: 0)
    assert seeds() == {0}


@pytest.mark.parametrize("route", BOUNDS)
def test_seed_zero_is_kept(route: str) -> None:
    graph = endpoint(route)[1](BODY_OF[route] | {"seed": 0})
    seeds = [node["inputs"]["seed"] for node in graph.values() if "seed" in node["inputs"]]
    assert set(map(repr, seeds)) == {"0"}


# Request models


@pytest.mark.parametrize("route", BOUNDS)
def test_numbers_end_at_their_bounds(route: str) -> None:
    """Each bound is taken, and one step beyond it refused."""
    request, build = endpoint(route)
    numbers = {n for n, kind in ROUTES[route]["params"].items() if kind in ("integer", "number")}
    assert set(BOUNDS[route]) == numbers | {"seed"}
    for field, (low, high, step) in BOUNDS[route].items():
        for value in (low, low + step, high):
            item = request.of(BODY_OF[route] | {field: value})
            assert repr(getattr(item, field)) == repr(value)
        assert refusals(build, BODY_OF[route] | {field: low - step}) == [
            ((field,), "greater_than_equal")
        ]
        assert refusals(build, BODY_OF[route] | {field: high + step}) == [
            ((field,), "less_than_equal")
        ]
        if step > 1:
            kind = "step" if field == "length" else "multiple_of"
            assert refusals(build, BODY_OF[route] | {field: low + 1}) == [((field,), kind)]


@pytest.mark.parametrize("route", BOUNDS)
@pytest.mark.parametrize("value", ["1024", True, None, [1024], {"a": 1}], ids=repr)
def test_what_is_no_number_is_refused(route: str, value: object) -> None:
    """Nothing is converted: "1024" is no integer, and True is not 1."""
    build = endpoint(route)[1]
    for field in BOUNDS[route]:
        kind = "float_type" if ROUTES[route]["params"][field] == "number" else "int_type"
        assert refusals(build, BODY_OF[route] | {field: value}) == [((field,), kind)]


@pytest.mark.parametrize("route", ROUTES)
def test_missing_and_unknown_fields_are_named(route: str) -> None:
    build = endpoint(route)[1]
    assert refusals(build, BODY_OF[route] | {"zzz": 1}) == [(("zzz",), "extra_forbidden")]
    for field in REQUIRED[route]:
        body = {key: value for key, value in BODY_OF[route].items() if key != field}
        assert refusals(build, body) == [((field,), "missing")]
        assert refusals(build, body | {field: None})[0][0] == (field,)


@pytest.mark.parametrize("route", ROUTES)
def test_json_schema_describes_every_field(route: str) -> None:
    """What goes into OpenAPI: the manifest's params, described, required as they are."""
    schema = endpoint(route)[0].model_json_schema()
    Draft202012Validator.check_schema(schema)
    params = list(ROUTES[route]["params"])
    assert list(schema["properties"]) == params + (["files"] if "workflow" in params else [])
    assert [n for n, one in schema["properties"].items() if not one.get("description")] == []
    assert schema["required"] == REQUIRED[route]
    assert schema["additionalProperties"] is False
    assert Draft202012Validator(schema).is_valid(BODY_OF[route])
    assert not Draft202012Validator(schema).is_valid(BODY_OF[route] | {"zzz": 1})


@pytest.mark.parametrize("route", ROUTES)
def test_defaults_and_examples_are_taken(route: str) -> None:
    request, build = endpoint(route)
    schema = request.model_json_schema()
    for field, one in schema["properties"].items():
        shown = [one["default"]] if one.get("default") is not None else []
        for value in (*shown, *one.get("examples", ())):
            rivals = {name for group in request.ONE_OF if field in group for name in group}
            body = {key: v for key, v in BODY_OF[route].items() if key not in rivals}
            assert build(body | {field: value})
            assert Draft202012Validator(one).is_valid(value)


def deep(kind: type, levels: int) -> Any:
    """Return a list or dict in itself, many levels deep."""
    value: Any = kind()
    for _ in range(levels):
        value = [value] if kind is list else {"a": value}
    return value


# What no JSON text can hold, or none that is sent on: as Python reads it, and as a body has it.
HOSTILE: dict[str, Callable[[], object]] = {
    "NaN": lambda: math.nan,
    "Infinity": lambda: math.inf,
    "-Infinity": lambda: -math.inf,
    "surrogate": lambda: "\ud800",
    "surrogate-inside": lambda: "x\udfffy",
    "huge-integer": lambda: 10**5_000,
    "huge-negative": lambda: -(10**5_000),
    "deep-list": lambda: deep(list, 10_000),
    "deep-dict": lambda: deep(dict, 10_000),
}
HOSTILE_JSON = {
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "1e400": b"1e400",
    "surrogate": b'"\\ud800"',
    "huge-integer": b"1" * 5_000,
    "deep-list": b"[" * 100_000 + b"]" * 100_000,
    "deep-dict": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "cut-off": b"[" * 100_000,
}
GRAPHS: dict[str, Callable[[Any], Body]] = {
    "node": lambda value: {"1": value},
    "class": lambda value: {"1": {"class_type": value, "inputs": {}}},
    "inputs": lambda value: {"1": {"class_type": "KSampler", "inputs": value}},
    "input": lambda value: {"1": {"class_type": "KSampler", "inputs": {"positive": value}}},
    "nested": lambda value: {"1": {"class_type": "KSampler", "inputs": {"a": [{"b": value}]}}},
    "link": lambda value: {"1": {"class_type": "KSampler", "inputs": {"positive": ["2", value]}}},
    "beside": lambda value: {"1": {"class_type": "KSampler", "inputs": {}, "_meta": value}},
}


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("route", ROUTES)
def test_hostile_values_are_refused(route: str, hostile: str) -> None:
    """In every field, in an unknown one, as a whole body: ValidationError and nothing else."""
    build = endpoint(route)[1]
    for field in (*ROUTES[route]["params"], "zzz"):
        with pytest.raises(ValidationError):
            build(BODY_OF[route] | {field: HOSTILE[hostile]()})
    with pytest.raises(ValidationError):
        build(HOSTILE[hostile]())


@pytest.mark.parametrize("hostile", HOSTILE_JSON)
@pytest.mark.parametrize("route", ROUTES)
def test_hostile_json_is_refused(route: str, hostile: str) -> None:
    request = endpoint(route)[0]
    start = json.dumps(BODY_OF[route]).encode()[:-1]
    for field in (*ROUTES[route]["params"], "zzz"):
        with pytest.raises(ValidationError):
            request.model_validate_json(
                start + f', "{field}": '.encode() + HOSTILE_JSON[hostile] + b"}"
            )


@pytest.mark.parametrize("route", ROUTES)
def test_hostile_keys_are_refused(route: str) -> None:
    keys: list[Any] = ["\ud800", "a\udc00", "", "__class__", 1, None, 10**5_000]
    for key in keys:
        with pytest.raises(ValidationError):
            endpoint(route)[1](BODY_OF[route] | {key: 1})


@pytest.mark.parametrize("place", GRAPHS)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_values_in_a_graph_are_refused(hostile: str, place: str) -> None:
    """A caller's graph goes on as JSON, so nothing may be in it that JSON cannot carry."""
    build = endpoint("/workflow")[1]
    with pytest.raises(ValidationError):
        build({"workflow": GRAPHS[place](HOSTILE[hostile]())})


@pytest.mark.parametrize("place", GRAPHS)
@pytest.mark.parametrize("hostile", HOSTILE_JSON)
def test_hostile_json_in_a_graph_is_refused(hostile: str, place: str) -> None:
    request = endpoint("/workflow")[0]
    body = json.dumps({"workflow": GRAPHS[place]("HERE")}).encode()
    with pytest.raises(ValidationError):
        request.model_validate_json(body.replace(b'"HERE"', HOSTILE_JSON[hostile]))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
@pytest.mark.parametrize("route", ROUTES)
def test_any_body_is_built_or_refused(route: str, data: st.DataObject) -> None:
    """What is built can be sent; nothing but ValidationError says why not."""
    names = st.sampled_from([*ROUTES[route]["params"], "zzz"])
    body = BODY_OF[route] | data.draw(st.dictionaries(names, JSON_VALUES, max_size=3))
    if route == "/workflow":
        body["prompt"] = None
    try:
        graph = endpoint(route)[1](body)
    except ValidationError:
        return
    assert json.loads(json.dumps(graph, allow_nan=False).encode("utf-8")) == graph


# Small endpoints, rendered

_PACKAGES = count()
Render = Callable[[Mapping[str, str]], Path]


@pytest.fixture(name="render")
def _render(make_project: MakeProject) -> Render:
    """Return a function that renders workflows into a package and returns its folder."""

    def make(workflows: Mapping[str, str]) -> Path:
        root = make_project(workflows)
        target = root / f"rendered_{next(_PACKAGES)}"
        assert main(["build", "--project", str(root), "--out", str(target)]) == 0
        return target

    return make


def imported(package: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the rendered module of the workflow `it`."""
    monkeypatch.syspath_prepend(str(package.parent))
    return importlib.import_module(f"{package.name}.handlers.it")


def in_own_process(package: Path, body: Body) -> Graph:
    """Import a rendered package where warnings are errors, and return what `it` builds."""
    program = (
        "import importlib, json, sys;"
        f"module = importlib.import_module('{package.name}.handlers.it');"
        "print(json.dumps(module.build_it_workflow(json.loads(sys.argv[1]))))"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, json.dumps(body)],
        cwd=package.parent,
        capture_output=True,
        check=False,
        text=True,
    )
    assert run.stderr == ""
    graph: Graph = json.loads(run.stdout)
    return graph


def test_params_that_python_or_pydantic_claims(
    render: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They keep their names in the body, and what annotations after them say."""
    body: Body = {
        "json": "a", "copy": "b", "class": "c", "model_config": "d", "schema": "e", "str": "f",
        "int": 1, "of": "g", "validate": "h", "float": 2.5, "bool": True, "list": "i", "dict": "j",
        "model_fields": "k", "model_x": "l", "from": "m", "none": "n", "json_": "o", "type": "p",
        "after_text": "q", "after_integer": 3, "after_number": 4.5, "after_boolean": False,
    }  # fmt: skip
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean"}
    params = {name: {"type": kinds[type(value)]} for name, value in body.items()}
    source = {name: f"${{{name}}}" for name in body}
    graph = {"1": {"class_type": "PreviewAny", "inputs": {"source": source}}}
    package = render({"it": json.dumps({"params": params, "graph": graph})})
    assert in_own_process(package, body)["1"]["inputs"]["source"] == body
    module = imported(package, monkeypatch)
    assert list(module.ItRequest.model_json_schema()["properties"]) == list(body)
    renamed = {"class_" if key == "class" else key: value for key, value in body.items()}
    assert refusals(module.build_it_workflow, renamed) == [
        (("class",), "missing"),
        (("class_",), "extra_forbidden"),
    ]


def test_params_that_the_rendered_module_uses_itself(render: Render) -> None:
    """A param may be named like a helper of the module, or like a local of the builder."""
    names = "drawn item graph affix deepcopy with_positive_text field request mapping any".split()
    params: Body = {name: {"type": "string"} for name in names} | {
        "affix": {"type": "string", "suffix": "!"},
        "given": {"type": "string"},
        "needed": {"type": "string"},
        "text": {"type": "boolean"},
        "without": {"type": "string", "optional": True},
        "seed": {"type": "seed"},
    }
    source = {name: f"${{{name}}}" for name in (*names, "seed")}
    nodes = {
        "1": source | {"given": "${given|needed}", "text": "is ${text}"},
        "2": "${without}",
    }
    graph = {
        node: {"class_type": "PreviewAny", "inputs": {"source": one}} for node, one in nodes.items()
    }
    spec = {"params": params, "one_of": [["given", "needed"]], "graph": graph}
    body: Body = {name: name.upper() for name in names} | {"text": True, "seed": 3}
    built = in_own_process(render({"it": json.dumps(spec)}), body | {"needed": "N"})
    assert {node: one["inputs"]["source"] for node, one in built.items()} == {
        "1": {name: name.upper() for name in names}
        | {"affix": "AFFIX!", "given": "N", "text": "is true", "seed": 3}
    }


OPTIONAL = """\
params: {words: {type: string, optional: true}, times: {type: integer, optional: true}}
graph:
  1: {class_type: RegexReplace, inputs: {string: "${words}", regex_pattern: a, replace: b}}
  2: {class_type: PreviewAny, inputs: {source: [1, 0]}}
  3: {class_type: PrimitiveInt, inputs: {value: "${times}"}}
  4:
    class_type: RegexReplace
    inputs: {string: abc, regex_pattern: a, replace: b, count: [3, 0]}
  5: {class_type: PreviewAny, inputs: {source: [4, 0]}}
  6: {class_type: PreviewAny, inputs: {source: "said ${words}, ${times} times"}}
"""
_REPLACE = {"regex_pattern": "a", "replace": "b"}
_WORDS: Inputs = {"1": {"string": "a cat", **_REPLACE}, "2": {"source": ["1", 0]}}
_NO_TIMES: Inputs = {"4": {"string": "abc", **_REPLACE}, "5": {"source": ["4", 0]}}
_TIMES: Inputs = {
    "3": {"value": 0},
    "4": {"string": "abc", **_REPLACE, "count": ["3", 0]},
    "5": {"source": ["4", 0]},
}
ONE_OF = """\
params:
  id: {type: string, prefix: character-, suffix: .safetensors}
  name: {type: string}
  size: {type: integer}
one_of: [[id, name, size]]
graph:
  1: {class_type: PreviewAny, inputs: {source: "${name|id|size}"}}
  2: {class_type: PreviewAny, inputs: {source: "[${size|name|id}] [${id}] [${name}]"}}
  3: {class_type: PreviewAny, inputs: {source: "${name}"}}
"""
ONE_OF_AND_ALONE = """\
params: {id: {type: string, suffix: .bin}, name: {type: string}}
one_of: [[id, name]]
graph:
  1: {class_type: PreviewAny, inputs: {source: "${id|name}"}}
  2: {class_type: PreviewAny, inputs: {source: "${id}"}}
  3: {class_type: PreviewAny, inputs: {source: "only ${id}"}}
"""
AFFIXES = """\
params:
  style: {type: string, default: "", strip: true, prefix: 'in "', suffix: '", {'}
  thing: {type: string, optional: true, suffix: "!"}
graph:
  1: {class_type: PreviewAny, inputs: {source: "${style}${thing}?"}}
  2: {class_type: PreviewAny, inputs: {source: "${style}"}}
  3: {class_type: PreviewAny, inputs: {source: "${thing}"}}
"""
IN_TEXT = """\
params:
  flag: {type: boolean, default: true}
  ratio: {type: number, default: 6}
  size: {type: integer, optional: true}
  weight: {type: number, optional: true}
  on: {type: boolean, optional: true}
  seed: {type: seed}
graph:
  1:
    class_type: PreviewAny
    inputs: {source: "${flag} ${ratio} [${size}] [${weight}] [${on}] ${seed}"}
"""
NUMBER_ENUMS = """\
params: {size: {type: integer, enum: [1, 2, 4], default: 2}, ratio: {type: number, enum: [0.5, 1]}}
graph:
  1: {class_type: PreviewAny, inputs: {source: "${size}"}}
  2: {class_type: PreviewAny, inputs: {source: "${ratio}"}}
"""
NESTED = """\
params: {n: {type: integer}, s: {type: string}}
graph:
  1:
    class_type: PreviewAny
    inputs:
      source:
        list: [1, "${n}", [x, "${s} and ${n}"], {deep: "${s}", flag: true}]
        empty: {}
        none: []
        half: 0.5
"""
DOLLARS = """\
params: {n: {type: integer}}
graph:
  1: {class_type: PreviewAny, inputs: {source: {__value__: "$${n} {n} {{n}} $n $ {n} %s"}}}
  2: {class_type: PreviewAny, inputs: {source: "$${n}${n}$5 {${n}} \\\\ \\" ' \\n"}}
  3: {class_type: PreviewAny, inputs: {source: {__value__: ["$${", "${n}", "$$", "$${${n}}"]}}}
"""
NODE_IDS = """\
graph:
  57:8: {class_type: PrimitiveString, inputs: {value: a}}
  010: {class_type: PrimitiveString, inputs: {value: b}}
  0x1F: {class_type: PrimitiveString, inputs: {value: c}}
  "4": {class_type: PrimitiveString, inputs: {value: d}}
  true: {class_type: PreviewAny, inputs: {source: [57:8, 0]}}
  a b: {class_type: PreviewAny, inputs: {source: [010, 0]}}
  7: {class_type: PreviewAny, inputs: {source: [0x1F, 0]}}
  8: {class_type: PreviewAny, inputs: {source: [4, 0]}}
  9: {class_type: PreviewAny, inputs: {source: ["57:8", 0]}}
"""
FLOAT_IDS = """\
graph:
  1e3: {class_type: PrimitiveString, inputs: {value: a}}
  1.0: {class_type: PrimitiveString, inputs: {value: b}}
  2: {class_type: PreviewAny, inputs: {source: [1e3, 0]}}
  3: {class_type: PreviewAny, inputs: {source: [1.0, 0]}}
"""
STEPS = """\
params:
  frames: {type: integer, minimum: 1, step: 4, default: 5}
  below: {type: integer, minimum: -10, step: 4, default: -10}
  both: {type: integer, minimum: 0, step: 4, multipleOf: 6, default: 12}
graph:
  1: {class_type: PreviewAny, inputs: {source: {__value__: ["${frames}", "${below}", "${both}"]}}}
"""
STRIPPED = """\
params:
  word: {type: string, strip: true, minLength: 1, maxLength: 3, default: " ab "}
graph:
  1: {class_type: PreviewAny, inputs: {source: "${word}"}}
"""
CHOSEN_OUTPUT = """\
params: {width: {type: integer, optional: true}}
graph:
  1: {class_type: EmptyImage, inputs: {width: 8, height: 8, batch_size: 1, color: 0}}
  2: {class_type: EmptyImage, inputs: {width: "${width}", height: [3, 0], batch_size: 1, color: 0}}
  3: {class_type: PrimitiveInt, inputs: {value: 9}}
  4:
    class_type: ImageStitch
    inputs:
      image1: [1, 0]
      image2: [2, 0]
      direction: right
      match_image_size: true
      spacing_width: 0
      spacing_color: white
  5: {class_type: PreviewImage, inputs: {images: [4, 0]}}
  6: {class_type: PreviewImage, inputs: {images: [1, 0]}}
output: 5
"""
OUTPUT_BY_PARAM = """\
params: {format: {type: string, enum: [b, a], default: a}}
graph:
  1: {class_type: PrimitiveString, inputs: {value: "${format}"}}
  2: {class_type: PreviewAny, inputs: {source: [1, 0]}}
  3: {class_type: PreviewAny, inputs: {source: {__value__: alone}}}
output: {param: format, nodes: {a: 2, b: "3"}}
"""

_IMAGE: Body = {"width": 8, "height": 8, "batch_size": 1, "color": 0}
_STITCH: Body = {
    "image1": ["1", 0],
    "direction": "right",
    "match_image_size": True,
    "spacing_width": 0,
    "spacing_color": "white",
}
# The spec, bodies with the inputs of the graph that they give, and bodies that are refused.
CASES: dict[str, tuple[str, list[tuple[Body, Inputs]], list[Body]]] = {
    "optional": (
        OPTIONAL,
        [
            ({}, _NO_TIMES | {"6": {"source": "said ,  times"}}),
            ({"words": None, "times": None}, _NO_TIMES | {"6": {"source": "said ,  times"}}),
            ({"words": "a cat"}, _WORDS | _NO_TIMES | {"6": {"source": "said a cat,  times"}}),
            ({"times": 0}, _TIMES | {"6": {"source": "said , 0 times"}}),
            (
                {"words": "a cat", "times": 0},
                _WORDS | _TIMES | {"6": {"source": "said a cat, 0 times"}},
            ),
        ],
        [{"words": 1}, {"times": "1"}],
    ),
    "one_of": (
        ONE_OF,
        [
            (
                {"id": "x"},
                {
                    "1": {"source": "character-x.safetensors"},
                    "2": {"source": "[character-x.safetensors] [character-x.safetensors] []"},
                },
            ),
            (
                {"name": "", "id": None},
                {"1": {"source": ""}, "2": {"source": "[] [] []"}, "3": {"source": ""}},
            ),
            ({"size": 0}, {"1": {"source": 0}, "2": {"source": "[0] [] []"}}),
        ],
        [{}, {"id": None}, {"id": "x", "name": "y"}, {"name": "", "size": 0}],
    ),
    "one_of-and-alone": (
        ONE_OF_AND_ALONE,
        [
            (
                {"id": "x"},
                {"1": {"source": "x.bin"}, "2": {"source": "x.bin"}, "3": {"source": "only x.bin"}},
            ),
            ({"name": "y"}, {"1": {"source": "y"}, "3": {"source": "only "}}),
        ],
        [],
    ),
    "affixes": (
        AFFIXES,
        [
            ({}, {"1": {"source": "?"}, "2": {"source": ""}}),
            (
                {"style": " \n", "thing": ""},
                {"1": {"source": "?"}, "2": {"source": ""}, "3": {"source": ""}},
            ),
            (
                {"style": " ink ", "thing": " a cat"},
                {
                    "1": {"source": 'in "ink", { a cat!?'},
                    "2": {"source": 'in "ink", {'},
                    "3": {"source": " a cat!"},
                },
            ),
        ],
        [{"style": None}],
    ),
    "in-text": (
        IN_TEXT,
        [
            ({"seed": 0}, {"1": {"source": "true 6.0 [] [] [] 0"}}),
            (
                {"flag": False, "ratio": 0.29, "size": 0, "weight": 1e-7, "on": False, "seed": 1},
                {"1": {"source": "false 0.29 [0] [1e-07] [false] 1"}},
            ),
            ({"seed": 2, "ratio": 4, "on": True}, {"1": {"source": "true 4.0 [] [] [true] 2"}}),
        ],
        [{"flag": 1}, {"flag": "true"}, {"size": 1.0}, {"weight": True}],
    ),
    "number-enums": (
        NUMBER_ENUMS,
        [
            ({"ratio": 0.5}, {"1": {"source": 2}, "2": {"source": 0.5}}),
            ({"ratio": 1, "size": 4}, {"1": {"source": 4}, "2": {"source": 1.0}}),
        ],
        [
            {},
            {"ratio": 0.75},
            {"ratio": True},
            {"ratio": 0.5, "size": 3},
            {"ratio": 0.5, "size": True},
            {"ratio": 0.5, "size": 1.0},
            {"ratio": math.nan},
        ],
    ),
    "nested": (
        NESTED,
        [
            (
                {"n": 3, "s": "a"},
                {
                    "1": {
                        "source": {
                            "list": [1, 3, ["x", "a and 3"], {"deep": "a", "flag": True}],
                            "empty": {},
                            "none": [],
                            "half": 0.5,
                        }
                    }
                },
            )
        ],
        [],
    ),
    "dollars": (
        DOLLARS,
        [
            (
                {"n": 3},
                {
                    "1": {"source": {"__value__": "${n} {n} {{n}} $n $ {n} %s"}},
                    "2": {"source": "${n}3$5 {3} \\ \" ' \n"},
                    "3": {"source": {"__value__": ["${", 3, "$$", "${3}"]}},
                },
            )
        ],
        [],
    ),
    "node-ids": (
        NODE_IDS,
        [
            (
                {},
                {
                    "57:8": {"value": "a"},
                    "010": {"value": "b"},
                    "0x1F": {"value": "c"},
                    "4": {"value": "d"},
                    "true": {"source": ["57:8", 0]},
                    "a b": {"source": ["010", 0]},
                    "7": {"source": ["0x1F", 0]},
                    "8": {"source": ["4", 0]},
                    "9": {"source": ["57:8", 0]},
                },
            )
        ],
        [{"a": 1}],
    ),
    "float-ids": (
        FLOAT_IDS,
        [
            (
                {},
                {
                    "1e3": {"value": "a"},
                    "1.0": {"value": "b"},
                    "2": {"source": ["1e3", 0]},
                    "3": {"source": ["1.0", 0]},
                },
            )
        ],
        [],
    ),
    "steps": (
        STEPS,
        [
            ({}, {"1": {"source": {"__value__": [5, -10, 12]}}}),
            ({"frames": 1, "below": -2, "both": 0}, {"1": {"source": {"__value__": [1, -2, 0]}}}),
        ],
        [{"frames": 4}, {"frames": -3}, {"below": -8}, {"both": 4}, {"both": 6}, {"both": -12}],
    ),
    "stripped": (
        STRIPPED,
        [({"word": "\t abc \n"}, {"1": {"source": "abc"}}), ({}, {"1": {"source": "ab"}})],
        [{"word": "  "}, {"word": "abcd"}],
    ),
    "chosen-output": (
        CHOSEN_OUTPUT,
        [
            ({}, {"1": _IMAGE, "4": _STITCH, "5": {"images": ["4", 0]}}),
            (
                {"width": 3},
                {
                    "1": _IMAGE,
                    "2": _IMAGE | {"width": 3, "height": ["3", 0]},
                    "3": {"value": 9},
                    "4": {"image1": ["1", 0], "image2": ["2", 0]} | _STITCH,
                    "5": {"images": ["4", 0]},
                },
            ),
        ],
        [{"width": 0}],
    ),
    "output-by-param": (
        OUTPUT_BY_PARAM,
        [
            ({}, {"1": {"value": "a"}, "2": {"source": ["1", 0]}}),
            ({"format": "b"}, {"3": {"source": {"__value__": "alone"}}}),
        ],
        [{"format": "c"}, {"format": None}, {"format": "A"}],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_small_endpoints(name: str, render: Render, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inputs of every node that is sent, for each body; repr tells 1 from 1.0 and True."""
    spec, built, refused = CASES[name]
    build = imported(render({"it": spec}), monkeypatch).build_it_workflow
    for body, expected in built:
        inputs = {node: content["inputs"] for node, content in build(body).items()}
        assert inputs == expected
        assert sorted(map(repr, inputs.items())) == sorted(map(repr, expected.items()))
    for body in refused:
        with pytest.raises(ValidationError):
            build(body)


def test_titles_and_classes_are_kept(render: Render, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = "graph:\n  1: {class_type: PreviewAny, inputs: {source: {__value__: x}}, _meta: {title: 'a \"b\"', z: 1}}"
    module = imported(render({"it": spec}), monkeypatch)
    assert module.build_it_workflow({}) == {
        "1": {
            "class_type": "PreviewAny",
            "inputs": {"source": {"__value__": "x"}},
            "_meta": {"title": 'a "b"'},
        }
    }
