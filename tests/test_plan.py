"""What a plan says: which changes break callers, what is built and fetched, and what it costs."""

import json
import re
from collections.abc import Iterable
from copy import deepcopy
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from build.api import create_api
from build.gateway.access import Anyone
from build.gateway.service import gateway_of
from generator.deployment.compat import Change, request_changes, route_changes
from generator.deployment.manifest import ManifestError, parse_manifest, read_manifest
from generator.deployment.plan import Plan, make_plan
from generator.deployment.report import as_table, size_text
from generator.layers import layers
from generator.licences import forbids_commercial_use
from generator.render import render

from .conftest import ROOT, MakeProject, load_and_check

Body = dict[str, Any]

SHIPPED = read_manifest(ROOT / "build" / "manifest.json")


def changed() -> Body:
    """Return the shipped manifest with another spec hash, to be changed further."""
    return deepcopy(SHIPPED) | {"spec": "0" * 64}


def manifest_of(root: Path) -> Body:
    """Return the manifest of a project's build."""
    checked, diagnostics = load_and_check(root)
    assert checked is not None, diagnostics
    return parse_manifest(render(checked)["manifest.json"], "manifest.json")


# The schemas of requests


def test_request_schemas_say_what_the_models_say() -> None:
    """They are made from the same params, by two ways."""
    endpoints = gateway_of(create_api(None, Anyone())).endpoints  # type: ignore[arg-type]
    assert set(endpoints) == set(SHIPPED["routes"])
    for route, endpoint in endpoints.items():
        schema = SHIPPED["routes"][route]["request_schema"]
        model = endpoint.request.model_json_schema()
        assert schema["required"] == model.get("required", [])
        assert list(schema["properties"]) == list(model["properties"])
        assert schema.get("allOf") == model.get("allOf")
        Draft202012Validator.check_schema(schema)
        for name, about in schema["properties"].items():
            found = dict(model["properties"][name])
            if "anyOf" in found:
                [found, null] = found["anyOf"]
                assert null == {"type": "null"}
                assert about["type"] == [found["type"], "null"]
            else:
                assert about["type"] == found["type"], name
                assert about.get("default") == found.get("default")
            if route == "/workflow":
                continue
            for key in ("minimum", "maximum", "minLength", "maxLength", "pattern", "enum"):
                assert about.get(key) == found.get(key), (route, name, key)
            assert about.get("multipleOf") == found.get("multipleOf")
            assert about.get("x-type") == found.get("x-media", about.get("x-type"))


def test_schemas_say_what_json_schema_has_no_word_for() -> None:
    properties = SHIPPED["routes"]["/wan2"]["request_schema"]["properties"]
    assert properties["length"]["x-step"] == [1, 4]
    assert properties["format"]["enum"] == ["webp", "mp4"]
    lora = SHIPPED["routes"]["/flux-lora"]["request_schema"]
    assert lora["properties"]["lora_name"]["x-folder"] == "loras"
    assert lora["allOf"] == [{"oneOf": [{"required": ["lora_id"]}, {"required": ["lora_name"]}]}]


# What breaks callers


def request(required: list[str] | None = None, groups: Any = (), **properties: Body) -> Body:
    schema: Body = {"type": "object", "properties": properties, "required": required or []}
    if groups:
        schema["allOf"] = [{"oneOf": [{"required": [name]} for name in g]} for g in groups]
    return schema


INTEGER = {"type": "integer", "default": 8}
TEXT = {"type": "string", "default": ""}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (request(a=INTEGER), request(), '"a" is gone'),
        (request(), request(["a"], a=INTEGER), "required"),
        (request(a=INTEGER), request(["a"], a={"type": "integer"}), "required now"),
        (request(a=INTEGER), request(a=TEXT), "integer → string"),
        (request(a={"type": "number"}), request(a=INTEGER), "number → integer"),
        (request(a=TEXT), request(a={"type": "string", "x-type": "image"}), "string → image"),
        (request(a=INTEGER), request(a={**INTEGER, "minimum": 1}), "minimum none → 1"),
        (request(a={**INTEGER, "minimum": 1}), request(a={**INTEGER, "minimum": 2}), "1 → 2"),
        (request(a={**INTEGER, "maximum": 9}), request(a={**INTEGER, "maximum": 8}), "9 → 8"),
        (request(a=TEXT), request(a={**TEXT, "maxLength": 5}), "longest length"),
        (request(a=TEXT), request(a={**TEXT, "minLength": 1}), "shortest length"),
        (request(a=TEXT), request(a={**TEXT, "pattern": "x"}), "pattern"),
        (request(a=INTEGER), request(a={**INTEGER, "multipleOf": 8}), "steps of 1"),
        (
            request(a={**INTEGER, "multipleOf": 4}),
            request(a={**INTEGER, "x-step": [1, 4]}),
            "steps of 4 from 0 → of 4 from 1",
        ),
        (request(a={**TEXT, "enum": ["x", "y"]}), request(a={**TEXT, "enum": ["x"]}), '"y"'),
        (request(a=TEXT), request(a={**TEXT, "enum": ["x"]}), "alone"),
        (
            request(a={**INTEGER, "enum": [1, 9]}),
            request(a={**INTEGER, "maximum": 8}),
            "does not take 9",
        ),
        (
            request(a={"type": ["string", "null"]}),
            request(a={"type": "string", "default": ""}),
            "must not be null",
        ),
        (
            request(a={"type": "string", "x-type": "model", "x-folder": "loras"}),
            request(a={"type": "string", "x-type": "model", "x-folder": "vae"}),
            "model folder loras → vae",
        ),
        (request(a=TEXT, b=TEXT), request(a=TEXT, b=TEXT, groups=["ab"]), "exactly one"),
        (
            request(a=TEXT, b=TEXT, c=TEXT, groups=["ab"]),
            request(a=TEXT, b=TEXT, c=TEXT, groups=["abc"]),
            "exactly one of a, b, c",
        ),
        (
            request(a=TEXT, b=TEXT, c=TEXT, groups=["abc"]),
            request(a=TEXT, b=TEXT, c=TEXT, groups=["ab"]),
            "exactly one of a, b",
        ),
    ],
)
def test_requests_that_would_be_refused(old: Body, new: Body, words: str) -> None:
    [*others, found] = sorted(request_changes(old, new), key=lambda change: change.breaking)
    assert found.breaking, others
    assert words in found.text


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (request(), request(a=INTEGER), 'optional param "a" is new'),
        (request(["a"], a={"type": "integer"}), request(a=INTEGER), "optional now"),
        (request(a=INTEGER), request(a={**INTEGER, "default": 9}), "default 8 → 9"),
        (request(a=INTEGER), request(a={"type": "number", "default": 8}), "integer → number"),
        (request(a={**INTEGER, "minimum": 2}), request(a={**INTEGER, "minimum": 1}), "2 → 1"),
        (request(a={**INTEGER, "maximum": 2}), request(a=INTEGER), "maximum 2 → none"),
        (request(a={**INTEGER, "multipleOf": 8}), request(a={**INTEGER, "multipleOf": 4}), "of 8"),
        (
            request(a={**INTEGER, "x-step": [1, 4]}),
            request(a={**INTEGER, "x-step": [1, 2]}),
            "steps of 4 from 1 → of 2 from 1",
        ),
        (request(a={**TEXT, "enum": ["x"]}), request(a={**TEXT, "enum": ["y", "x"]}), '"y" too'),
        (request(a={**TEXT, "enum": ["x"]}), request(a=TEXT), "more than its options"),
        (request(a={**TEXT, "pattern": "x"}), request(a=TEXT), "pattern"),
        (
            request(a={"type": "string"}),
            request(a={"type": ["string", "null"]}),
            "may be null",
        ),
        (
            request(a=TEXT, b=TEXT, groups=["ab"]),
            request(a=TEXT, b=TEXT, c=TEXT, groups=["abc"]),
            "exactly one of a, b, c",
        ),
        (request(a=TEXT, b=TEXT, groups=["ab"]), request(a=TEXT, b=TEXT), "any more"),
    ],
)
def test_requests_that_are_taken_still(old: Body, new: Body, words: str) -> None:
    found = request_changes(old, new)
    assert not [change.text for change in found if change.breaking]
    assert words in " ".join(change.text for change in found)


KINDS = ("integer", "number", "string")


@st.composite
def params(draw: st.DrawFn) -> Body:
    """A property of a request, as manifests hold them."""
    kind = draw(st.sampled_from(KINDS))
    found: Body = {"type": [kind, "null"] if draw(st.booleans()) else kind}
    small = st.integers(0, 6)
    if kind == "string":
        texts = st.text("ab", max_size=3)
        if draw(st.booleans()):
            return found | {"enum": draw(st.lists(texts, min_size=1, max_size=3, unique=True))}
        keys = {"minLength": small, "maxLength": small, "pattern": st.sampled_from("ab")}
    else:
        if draw(st.booleans()):
            return found | {"enum": draw(st.lists(small, min_size=1, max_size=3, unique=True))}
        keys = {"minimum": small, "maximum": small}
        if kind == "integer":
            keys["multipleOf"] = st.integers(1, 4)
            if draw(st.booleans()):
                del keys["multipleOf"]
                keys["x-step"] = st.tuples(small, st.integers(2, 4)).map(list)
    return found | draw(st.fixed_dictionaries({}, optional=keys))


NAMES = ("x", "y", "z")


@st.composite
def presences(draw: st.DrawFn) -> Body:
    """The schema of a request whose params take any integer: which must be there, or one of which."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    free = list(names)
    groups: list[list[str]] = []
    if len(free) > 1 and draw(st.booleans()):
        groups = [draw(st.lists(st.sampled_from(names), min_size=2, unique=True))]
        free = [name for name in names if name not in groups[0]]
    required = draw(st.lists(st.sampled_from(free), unique=True)) if free else []
    about = {"type": "integer"}
    return request(required, groups, **dict.fromkeys(names, about))


def takes(schema: Body, body: Body) -> bool:
    """Say whether a request is taken, by JSON Schema and the steps that it has no word for."""
    if not Draft202012Validator(schema | {"additionalProperties": False}).is_valid(body):
        return False
    for name, value in body.items():
        start, step = schema["properties"][name].get("x-step", (0, 1))
        is_free = isinstance(value, int) and "enum" not in schema["properties"][name]
        if is_free and (value - start) % step:
            return False
    return True


VALUES = (None, *range(10), 0.5, 2.5, "", "a", "b", "ab", "aab", "bbbb", "aaaaaaa")
ONE_PARAM: tuple[Body, ...] = ({}, *({"x": value} for value in VALUES))
SUBSETS = tuple(
    dict.fromkeys(names, 1) for n in range(len(NAMES) + 1) for names in combinations(NAMES, n)
)


def assert_told(old: Body, new: Body, bodies: Iterable[Body]) -> None:
    """Whoever is refused now and was not before must have been told."""
    if any(takes(old, body) and not takes(new, body) for body in bodies):
        assert any(change.breaking for change in request_changes(old, new))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_whoever_sends_a_value_was_told(data: st.DataObject) -> None:
    old = data.draw(params())
    new = data.draw(params())
    if ("enum" in old) == ("enum" in new) and data.draw(st.booleans()):
        # But for one of its keys, the same.
        key = data.draw(st.sampled_from([*new]))
        new = old | {key: new[key]}
        if "integer" not in new["type"]:
            # Steps are for integers only.
            new = {k: v for k, v in new.items() if k not in ("multipleOf", "x-step")}
    assert_told(request(x=old), request(x=new), ONE_PARAM)


@settings(max_examples=80, deadline=None)
@given(presences(), presences())
def test_whoever_sends_a_param_was_told(old: Body, new: Body) -> None:
    assert_told(old, new, SUBSETS)


@settings(max_examples=25, deadline=None)
@given(params(), presences())
def test_nothing_differs_from_itself(about: Body, schema: Body) -> None:
    for same in (request(x=about), schema):
        assert request_changes(same, deepcopy(same)) == []


def mutations(schema: Body) -> list[Body]:
    """Return schemas that each refuse something that the schema takes."""
    found = []
    for name, about in schema["properties"].items():
        edits: list[Body] = [{**about, "type": "boolean", "x-type": "boolean"}]
        edits += [{**about, "maximum": about[k] - 1} for k in ("maximum",) if k in about]
        edits += [{**about, "minimum": about[k] + 1} for k in ("minimum",) if k in about]
        edits += [{**about, "enum": about["enum"][:-1]} for k in ("enum",) if k in about]
        if about["type"] == "string" and "enum" not in about:
            edits += [{**about, "pattern": "never"}, {**about, "maxLength": 3}]
        if about["type"] == "integer":
            edits.append({**about, "multipleOf": 7, "x-step": [0, 7]})
        found += [_with(schema, name, edit) for edit in edits]
        if name not in schema["required"]:
            found.append({**deepcopy(schema), "required": [*schema["required"], name]})
        gone = deepcopy(schema)
        del gone["properties"][name]
        gone["required"] = [other for other in gone["required"] if other != name]
        found.append(gone)
    return found


def _with(schema: Body, name: str, about: Body) -> Body:
    mutated = deepcopy(schema)
    mutated["properties"][name] = about
    return mutated


@pytest.mark.parametrize("route", [r for r, about in SHIPPED["routes"].items() if about["enabled"]])
def test_every_narrower_schema_of_the_shipped_routes_is_flagged(route: str) -> None:
    schema = SHIPPED["routes"][route]["request_schema"]
    mutated = mutations(schema)
    assert len(mutated) > 10
    for new in mutated:
        assert any(change.breaking for change in request_changes(schema, new)), new


# Routes


def test_equal_manifests() -> None:
    plan = make_plan(SHIPPED, deepcopy(SHIPPED))
    assert plan.changes_nothing
    assert not plan.breaking
    assert (plan.routes, plan.gateway, plan.downloads, plan.settings) == ((),) * 4
    assert not any(image.changed or image.after for image in plan.images)
    assert set(plan.unchanged) == set(SHIPPED["routes"])
    assert "what is deployed is the same" in as_table(plan)


def test_nothing_is_deployed_yet() -> None:
    plan = make_plan(None, SHIPPED)
    assert not plan.breaking
    assert {change.kind for change in plan.routes} == {"added"}
    for image in plan.images:
        assert list(image.changed) == list(SHIPPED["images"][image.image])
        assert (image.after, image.kept) == ((), ())
    assert {download.model for download in plan.downloads} == set(SHIPPED["models"])
    assert "nothing is deployed yet" in as_table(plan)


def breaking(plan: Plan) -> list[str]:
    changes = [(route.route, change) for route in plan.routes for change in route.changes]
    changes += [("*", change) for change in plan.gateway]
    return [f"{where}: {change.text}" for where, change in changes if change.breaking]


def test_a_route_that_vanishes_breaks_callers() -> None:
    new = changed()
    del new["routes"]["/wan2"]
    assert breaking(make_plan(SHIPPED, new)) == ["/wan2: it is gone"]
    assert make_plan(new, SHIPPED).breaking is False


def test_what_was_off_breaks_nobody() -> None:
    new = changed()
    new["routes"]["/workflow"]["request_schema"] = request()
    assert make_plan(SHIPPED, new).breaking is False
    del new["routes"]["/workflow"]
    assert make_plan(SHIPPED, new).breaking is False


def test_switching_off_breaks_callers() -> None:
    new = changed()
    new["routes"]["/flux"]["enabled"] = False
    assert breaking(make_plan(SHIPPED, new)) == ["/flux: it is switched off"]
    assert breaking(make_plan(new, SHIPPED)) == []


def test_replies_of_another_kind_break_callers() -> None:
    old = SHIPPED["routes"]["/wan2"]
    other = {**old, "reply": "video/mp4"}
    assert Change("it replies with video/mp4, not image/webp", breaking=True) in route_changes(
        old, other
    )
    fewer = {**old, "media_types": ["image/webp"]}
    assert Change("no reply is video/mp4 any more", breaking=True) in route_changes(old, fewer)
    assert route_changes(fewer, old) == [Change("a reply may be video/mp4")]


def test_what_is_not_seen_by_callers_is_a_note() -> None:
    old = SHIPPED["routes"]["/flux"]
    new = {**old, "gpu": "h100", "timeout": 60, "models": ["x"], "graph": "0"}
    found = route_changes(old, new)
    assert len(found) == 4
    assert not any(change.breaking for change in found)


@pytest.mark.parametrize(
    ("key", "value", "breaks"),
    [
        ("auth", "none", False),
        ("auth", "proxy", True),
        ("max_body_bytes", 1, True),
        ("max_media_pixels", 10**9, False),
        ("max_text_characters", 1, True),
        ("max_output_pixels", 1, True),
        ("max_jobs", 1000, False),
        ("max_jobs_per_key", 0, False),
        ("max_requests_per_minute", 1, True),
        ("max_listeners_per_key", 1, True),
        ("deadline", 5, False),
        ("cors_origins", ["https://a.example"], False),
    ],
)
def test_what_all_callers_see(key: str, value: Any, breaks: bool) -> None:
    new = changed()
    new["gateway"][key] = value
    plan = make_plan(SHIPPED, new)
    assert (len(plan.gateway), plan.breaking) == (1, breaks)


def test_limits_that_an_older_manifest_does_not_have() -> None:
    """They are told, and break nobody's plan: nothing is known of them."""
    old = changed()
    del old["gateway"]["max_jobs"]
    plan = make_plan(old, SHIPPED)
    assert [change.text for change in plan.gateway] == ["most jobs at a time: none → 200"]
    assert not plan.breaking
    old["gateway"]["max_jobs"] = 0
    assert make_plan(old, SHIPPED).breaking


def test_origins_that_may_not_ask_any_more() -> None:
    old = changed()
    old["gateway"]["cors_origins"] = ["https://a.example"]
    assert breaking(make_plan(old, SHIPPED)) == [
        "*: pages of https://a.example may not ask any more"
    ]


# Image, models, settings


def test_layers_after_a_change_are_built() -> None:
    old = changed()
    old["images"]["worker_image"]["ComfyUI"] = "other"
    gateway, worker = make_plan(old, SHIPPED).images
    assert (gateway.image, gateway.changed, gateway.after) == ("gateway_image", (), ())
    assert worker.image == "worker_image"
    assert worker.changed == ("ComfyUI",)
    assert worker.kept == ("base", "apt", "comfy-cli", "constraints")
    assert worker.after[:2] == ("scripts", "apt of packs")
    assert worker.after[-2:] == ("requirements", "classes")


@pytest.mark.parametrize(
    "change", ["default", "model", "pack", "apt", "pip", "requirement", "comfy-cli"]
)
def test_what_changes_which_layer(make_project: MakeProject, change: str) -> None:
    root = make_project(
        {path.stem: path.read_text("utf-8") for path in (ROOT / "workflows").glob("*.yaml")},
        models=(ROOT / "models.yaml").read_text("utf-8"),
        gpu=(ROOT / "gpu.yaml").read_text("utf-8"),
    )
    before = manifest_of(root)
    edits = {
        "default": (
            "workflows/flux.yaml",
            "steps: {type: integer, default: 4",
            "steps: {type: integer, default: 5",
        ),
        "model": ("models.yaml", "size: 17.2 GB", "size: 17.3 GB"),
        "pack": ("models.yaml", "1ef34ef573581bd9727c1e0ac05aa956b356a510", "f" * 40),
        "apt": ("models.yaml", "apt: [libgl1,", "apt: [ffmpeg, libgl1,"),
        "pip": ("models.yaml", "pip: [", "pip: [timm, "),
        "requirement": ("gpu.yaml", "pillow==13.0.0", "pillow==13.0.1"),
        "comfy-cli": ("gpu.yaml", "comfy-cli==1.5.3", "comfy-cli==1.5.4"),
    }
    name, old, new = edits[change]
    text = (root / name).read_text("utf-8")
    assert old in text
    (root / name).write_text(text.replace(old, new), "utf-8")
    after = manifest_of(root)
    assert after["spec"] != before["spec"]
    plan = make_plan(before, after)
    built = {image.image: image.changed for image in plan.images}
    assert (
        built
        == {
            "default": {"gateway_image": (), "worker_image": ()},
            "model": {"gateway_image": (), "worker_image": ()},
            "pack": {"gateway_image": (), "worker_image": ("pack ComfyUI_InstantID",)},
            "apt": {"gateway_image": (), "worker_image": ("apt of packs",)},
            "pip": {"gateway_image": (), "worker_image": ("requirements",)},
            "requirement": {
                "gateway_image": ("requirements",),
                "worker_image": ("requirements",),
            },
            "comfy-cli": {"gateway_image": (), "worker_image": ("comfy-cli",)},
        }[change]
    )
    kept = {name for image in plan.images for name in image.kept}
    assert ("ComfyUI" in kept) is (change != "comfy-cli")
    assert plan.breaking is False


@pytest.mark.parametrize(
    ("old", "new", "first"),
    [
        (" --skip-manager", "", "ComfyUI"),
        ("--init --recursive", "--init", "pack ComfyUI-SeedVR2_VideoUpscaler"),
        ("requirements.py {COMFYUI}", "requirements.py -v {COMFYUI}", "requirements"),
        ("classes.py {COMFYUI}", "classes.py -v {COMFYUI}", "classes"),
        ('uv_version="0.13.9"', 'uv_version="0.13.10"', "comfy-cli"),
        ('"""Start ComfyUI on the CPU', '"""Start it on the CPU', None),
        ("# Its pip and uv take", "# They take", None),
    ],
)
def test_what_is_run_is_in_its_layer(old: str, new: str, first: str | None) -> None:
    """A newer generator may build the same specs in another way, but not for other words on it."""
    checked, _ = load_and_check(ROOT)
    assert checked is not None
    files = render(checked)
    assert old.encode() in files["image.py"]
    changed = {**files, "image.py": files["image.py"].replace(old.encode(), new.encode())}
    before, after = (layers(checked, one)["worker_image"] for one in (files, changed))
    differ = [name for name in before if before[name] != after[name]]
    assert differ[:1] == ([first] if first else [])


def test_models_that_differ_are_downloaded() -> None:
    old = changed()
    old["models"]["flux1-dev"]["revision"] = "1" * 40
    del old["models"]["t5xxl"]
    old["models"]["renamed"] = old["models"].pop("clip-l")
    plan = make_plan(old, SHIPPED)
    assert [download.model for download in plan.downloads] == ["flux1-dev", "t5xxl"]
    assert sum(download.size or 0 for download in plan.downloads) == 33_600_000_000
    same = changed()
    for manifest in (old, same):
        manifest["models"]["flux1-dev"]["sha256"] = "2" * 64
    assert [download.model for download in make_plan(old, same).downloads] == ["t5xxl"]


def test_what_the_volume_has_is_not_downloaded() -> None:
    """What is deployed says nothing of it: files may be lost, or there before."""
    new = changed()
    for number, model in enumerate(new["models"].values()):
        model["sha256"] = f"{number:064}"
    hashes = {name: model["sha256"] for name, model in new["models"].items()}
    plan = make_plan(new, deepcopy(new), there={*hashes.values()} - {hashes["t5xxl"]})
    assert [download.model for download in plan.downloads] == ["t5xxl"]
    assert "to download: 9.8 GB\n" in as_table(plan)
    assert "nothing to download\n" in as_table(make_plan(None, new, there=[*hashes.values()]))
    assert len(make_plan(new, deepcopy(new), there=()).downloads) == len(hashes)
    text = as_table(make_plan(new, deepcopy(new)))
    assert "nothing to download, if the Volume still has what is deployed\n" in text
    # Without a lock nobody knows by which name the Volume has a file.
    new["models"]["t5xxl"]["sha256"] = None
    plan = make_plan(SHIPPED, new, there=[*hashes.values()])
    assert (plan.downloads, plan.knows_volume) == ((), False)


def test_files_of_a_volume_are_not_downloaded() -> None:
    new = changed()
    new["models"] = {"mine": {**new["models"]["t5xxl"], "source": {"volume": "ryla-models"}}}
    assert make_plan(None, new).downloads == ()


def test_unknown_sizes_are_said() -> None:
    text = as_table(make_plan(None, SHIPPED))
    assert "and 5 of unknown size" in text
    assert re.search(r"antelopev2-scrfd +unknown", text)


def test_settings_that_change() -> None:
    new = changed()
    new["scaling"]["min_containers"] = 1
    new["gpus"]["l40s"] |= {"modal": "H100", "price_per_second": 0.001097}
    new["gateway"]["max_containers"] = 8
    new["engine"] |= {"version": "0.3.75", "flags": [*SHIPPED["engine"]["flags"], "--fast"]}
    new["volumes"]["other"] = "/other"
    del new["volumes"]["ryla-models"]
    new["secrets"]["api-keys"] = ["API_KEYS", "MORE"]
    found = make_plan(SHIPPED, new).settings
    assert "min_containers: 0 → 1" in found
    assert "gateway, max. containers: 4 → 8" in found
    assert "ComfyUI, version: 0.3.71 → 0.3.75" in found
    [flags] = [line for line in found if line.startswith("ComfyUI, flags: ")]
    assert flags.endswith(", --fast")
    assert "Volume other: none → /other" in found
    assert "Volume ryla-models: /root/models → none" in found
    assert "Secret api-keys: API_KEYS → API_KEYS, MORE" in found
    assert "l40s, GPU: L40S → H100" in found
    assert "l40s, USD per second: 0.000542 → 0.001097" in found


@pytest.mark.parametrize(
    ("licence", "forbids"),
    [
        ("FLUX.1 [dev] Non-Commercial License", True),
        ("non-commercial", True),
        ("NonCommercial", True),
        ("CC-BY-NC-4.0", True),
        ("cc_by_nc_sa", True),
        ("research only", True),
        ("Apache-2.0", False),
        ("MIT", False),
        ("FLUX.1 [pro] Commercial License", False),
        ("Encore", False),
    ],
)
def test_licences(licence: str, forbids: bool) -> None:
    assert forbids_commercial_use(licence) is forbids


def test_licences_are_said_with_their_routes() -> None:
    [line] = [
        line
        for line in as_table(make_plan(None, SHIPPED)).splitlines()
        if "flux1-dev," in line and "FLUX" in line
    ]
    assert line.strip() == (
        "no commercial use: FLUX.1 [dev] Non-Commercial License: flux-vae, flux1-dev, "
        "in /flux-dev /flux-instantid /flux-lora"
    )


# Costs


def test_costs_of_workers() -> None:
    new = changed()
    new["scaling"] |= {"min_containers": 2, "buffer_containers": 1, "scaledown": 100}
    new["gpus"]["l40s"] |= {"price_per_second": 0.5, "cpu": 4, "memory_gb": 8}
    new["prices"] |= {"cpu_per_second": 0.1, "memory_per_second": 0.01, "multiplier": 2}
    [worker] = make_plan(None, new).workers
    second = 2 * (0.5 + 4 * 0.1 + 8 * 0.01)
    assert worker.hour == pytest.approx(3600 * second)
    assert worker.idle_hour == pytest.approx(2 * 3600 * second)
    assert worker.buffer_hour == pytest.approx(3600 * second)
    assert worker.scaledown == pytest.approx(100 * second)
    assert worker.is_whole


def test_costs_without_prices_of_cores() -> None:
    new = changed()
    new["prices"]["cpu_per_second"] = None
    [worker] = make_plan(None, new).workers
    assert not worker.is_whole
    assert "the GPU alone" in as_table(make_plan(None, new))


def test_groups_have_workers_of_their_own() -> None:
    new = changed()
    new["routes"]["/wan2"]["group"] = "video"
    assert [worker.worker for worker in make_plan(None, new).workers] == ["l40s", "l40s/video"]


def test_costs_of_requests_are_recorded_or_unknown() -> None:
    recorded = {"/flux": {"seconds": 2.0, "gpu": "l40s"}, "/wan2": {"seconds": 9, "gpu": "H100"}}
    found = {cost.route: cost for cost in make_plan(None, SHIPPED, recorded=recorded).requests}
    assert found["/flux"].cost == pytest.approx(2 * 0.000542)
    assert (found["/wan2"].seconds, found["/wan2"].cost) == (None, None)
    assert "/workflow" not in found
    text = as_table(make_plan(None, SHIPPED, recorded=recorded))
    assert re.search(r"/flux +L40S +2\.0 +0\.001084", text)
    assert re.search(r"/wan2 +L40S +unknown +unknown", text)
    assert text.splitlines()[-1].startswith("  unknown: make deploy SMOKE=1 measures ")
    every = {cost.route: {"seconds": 2.0, "gpu": "L40S"} for cost in found.values()}
    assert "unknown" not in as_table(make_plan(SHIPPED, SHIPPED, recorded=every))


# How it is shown


def test_the_document_is_json_and_says_what_breaks() -> None:
    new = changed()
    del new["routes"]["/wan2"]
    document = json.loads(json.dumps(make_plan(SHIPPED, new, environment="staging").document()))
    assert document["breaking"] is True
    [route] = document["routes"]
    assert (route["route"], route["kind"], route["breaking"]) == ("/wan2", "removed", True)
    assert route["changes"] == [{"text": "it is gone", "breaking": True}]
    assert document["environment"] == "staging"


def test_colour_is_all_that_colour_adds() -> None:
    new = changed()
    del new["routes"]["/wan2"]
    plan = make_plan(SHIPPED, new)
    plain, coloured = as_table(plan), as_table(plan, colour=True)
    assert "\033" not in plain
    assert "\033[31m" in coloured
    assert re.sub(r"\033\[\d+m", "", coloured) == plain
    assert "- /wan2  it is gone  [breaks callers]" in plain


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (23_800_000_000, "23.8 GB"),
        (None, "unknown"),
        (5 * 10**12, "5000.0 GB"),
    ],
)
def test_sizes(size: int | None, text: str) -> None:
    assert size_text(size) == text


def test_texts_cannot_repaint_a_terminal() -> None:
    """Whatever a manifest says that somebody has sent: every text of it is hostile here."""

    def hostile(value: Any) -> Any:
        if isinstance(value, dict):
            keys = (
                {k: k for k in value} if set(value) <= known else {k: f"{k}{EVIL}" for k in value}
            )
            return {keys[k]: hostile(v) for k, v in value.items()}
        if isinstance(value, list):
            return [hostile(item) for item in value]
        return f"{value}{EVIL}" if isinstance(value, str) else value

    known = words_of(SHIPPED)
    old = hostile({k: v for k, v in SHIPPED.items() if k != "files"})
    for route in old["routes"].values():
        route["request_schema"] = SHIPPED["routes"]["/flux"]["request_schema"]
    parse_manifest(json.dumps(old), "old")
    for plan in (make_plan(old, SHIPPED), make_plan(SHIPPED, old), make_plan(old, changed())):
        text = as_table(plan)
        assert "\033" not in text
        assert "\u202e" not in text
        assert "\\x1b[2J" in text


EVIL = "\033[2J\u202e"


def words_of(manifest: Body) -> set[str]:
    """Return the keys of a manifest that are its own words, not names of something in it."""
    parts = [manifest, *manifest["routes"].values(), *manifest["models"].values()]
    parts += [*manifest["gpus"].values(), manifest["gateway"], manifest["scaling"]]
    parts += [manifest["prices"], manifest["engine"]]
    return {key for part in parts for key in part}


# Manifests that cannot be read


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ("[]", "no manifest"),
        ("{}", "no manifest"),
        ('{"spec": "x", "generator": "0.0.1", "routes": {}}', "0.0.1"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_what_is_no_manifest(text: str, words: str) -> None:
    with pytest.raises(ManifestError, match=words) as caught:
        parse_manifest(text, "old.json")
    assert str(caught.value).startswith("old.json: ")


@pytest.mark.parametrize("key", sorted(set(SHIPPED) - {"families", "files"}))
def test_manifests_that_lack_something(key: str) -> None:
    broken = {name: value for name, value in SHIPPED.items() if name != key}
    with pytest.raises(ManifestError, match="old"):
        parse_manifest(json.dumps(broken), "old")
    broken[key] = 1.5
    with pytest.raises(ManifestError, match="old"):
        parse_manifest(json.dumps(broken), "old")


def test_a_profile_that_is_not_described() -> None:
    broken = changed()
    broken["routes"]["/flux"]["gpu"] = "t4"
    with pytest.raises(ManifestError, match="GPU profiles"):
        parse_manifest(json.dumps(broken), "old")
