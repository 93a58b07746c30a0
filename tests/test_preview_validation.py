"""The preview engine's verdicts: those of a real ComfyUI, recorded, and none that is a crash."""

import asyncio
import gzip
import json
import math
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.graph.catalog import open_catalog
from generator.preview.folders import Folders
from generator.preview.schemas import Schemas
from generator.preview.server import Server, serving
from generator.preview.validation import Verdict, validate

from .conftest import ROOT

RECORDED = json.loads(
    gzip.decompress((ROOT / "tests" / "fixtures" / "verdicts.json.gz").read_bytes())
)
CATALOG = open_catalog(ROOT / "generator" / "catalogs", version="0.3.71")
IMAGE = {
    "class_type": "EmptyImage",
    "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 0},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Folders with empty files for all that the recorded graphs name."""
    folders = Folders(tmp_path_factory.mktemp("base"))
    folders.make()
    for model in RECORDED["models"]:
        folders.add_model(model)
    for name in RECORDED["uploads"]:
        (folders.base / "input" / name).touch()
    return folders


@pytest.fixture(scope="module")
def schemas(folders: Folders) -> Schemas:
    return Schemas(CATALOG, folders, [])


def saved(**inputs: object) -> dict[str, Any]:
    """Return a graph that saves an image; `inputs` replace the image's."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {**IMAGE["inputs"], **inputs}},  # type: ignore[dict-item]
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["2", 0]}},
    }


def types(verdict: Verdict) -> dict[str, list[str]]:
    return {
        node: sorted(error["type"] for error in found["errors"])
        for node, found in verdict.node_errors.items()
    }


@pytest.mark.parametrize(
    "case", RECORDED["graphs"], ids=lambda case: f"{case['kind']}-{case['name']}"
)
def test_verdict_is_the_recorded_one(
    case: dict[str, Any], schemas: Schemas, folders: Folders
) -> None:
    """Validity, outputs that run and the types of errors per node are those of ComfyUI."""
    expected = case["verdict"]
    verdict = validate(json.loads(json.dumps(case["graph"])), schemas, folders)
    assert (verdict.error or {}).get("type") == expected["error"]
    assert sorted(verdict.outputs) == sorted(expected["outputs"])
    assert types(verdict) == {
        node: sorted(error[0] for error in errors)
        for node, errors in expected["node_errors"].items()
    }


@pytest.mark.parametrize(
    ("value", "error", "details"),
    [
        ("64", None, 64),
        (64.7, None, 64),
        (True, None, 1),
        ({"__value__": 64}, None, 64),
        (
            "64.5",
            "invalid_input_type",
            "width, 64.5, invalid literal for int() with base 10: '64.5'",
        ),
        (math.nan, "invalid_input_type", "width, nan, cannot convert float NaN to integer"),
        (math.inf, "invalid_input_type", "width, inf, cannot convert float infinity to integer"),
        ([1], "bad_linked_input", "width"),
        (0, "value_smaller_than_min", "width"),
        (10**6, "value_bigger_than_max", "width"),
        (["1", 0], "return_type_mismatch", "width, received_type(IMAGE) mismatch input_type(INT)"),
    ],
)
def test_values(
    value: object, error: str | None, details: object, schemas: Schemas, folders: Folders
) -> None:
    """Values are converted as ComfyUI converts them, and refused in its words."""
    graph = saved(width=value)
    verdict = validate(graph, schemas, folders)
    if error is None:
        assert verdict.error is None
        assert graph["1"]["inputs"]["width"] == details
        return
    [found] = verdict.node_errors["1"]["errors"]
    assert (found["type"], found["details"]) == (error, details)
    assert found["extra_info"]["input_name"] == "width"
    assert verdict.node_errors["1"]["dependent_outputs"] == ["9"]


@pytest.mark.parametrize(
    ("link", "details"),
    [
        (["77", 0], "'77'"),
        (["1", 1], "tuple index out of range"),
        (["1", "0"], "tuple indices must be integers or slices, not str"),
        (["1", 0.0], "tuple indices must be integers or slices, not float"),
    ],
)
def test_links_to_nowhere(
    link: list[Any], details: str, schemas: Schemas, folders: Folders
) -> None:
    """They are exceptions, told at the node that holds the link, with the input of its reader."""
    graph = saved()
    graph["2"]["inputs"]["image"] = link
    verdict = validate(graph, schemas, folders)
    [found] = verdict.node_errors["2"]["errors"]
    assert (found["type"], found["details"]) == ("exception_during_inner_validation", details)
    assert found["extra_info"]["input_name"] == "images"
    assert found["extra_info"]["linked_node"] == ["2", 0]


def test_one_good_output_is_enough(schemas: Schemas, folders: Folders) -> None:
    """The good output runs, the bad one is told of; only the unknown class stops all."""
    graph = saved()
    graph["3"] = {"class_type": "SaveImage", "inputs": {"filename_prefix": "y"}}
    verdict = validate(graph, schemas, folders)
    assert (verdict.error, verdict.outputs) == (None, ("9",))
    assert types(verdict) == {"3": ["required_input_missing"]}
    graph["4"] = {"class_type": "Zork", "inputs": {}}
    graph["5"] = {"class_type": "Zork2", "inputs": {}}
    verdict = validate(graph, schemas, folders)
    assert verdict.error is not None
    assert verdict.error["message"] == "Cannot execute because node Zork does not exist."
    assert (verdict.outputs, verdict.node_errors) == ((), {})


def test_long_lists_of_options_are_left_out(schemas: Schemas, folders: Folders) -> None:
    """Up to 20 options are listed, of more only the number is told."""
    sampler = {
        "class_type": "KSampler",
        "inputs": {
            "seed": 0,
            "steps": 4,
            "cfg": 1.0,
            "denoise": 1.0,
            "sampler_name": "zz",
            "scheduler": "zz",
            **dict.fromkeys(("model", "positive", "negative", "latent_image"), "a literal"),
        },
    }
    preview = {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}
    verdict = validate({"1": sampler, "2": preview}, schemas, folders)
    found = {e["extra_info"]["input_name"]: e for e in verdict.node_errors["1"]["errors"]}
    assert set(found) == {"sampler_name", "scheduler"}
    assert found["sampler_name"]["details"].startswith("sampler_name: 'zz' not in (list of length ")
    assert found["sampler_name"]["extra_info"]["input_config"] is None
    assert "'karras'" in found["scheduler"]["details"]


def test_models_are_the_files_that_there_are(tmp_path: Path) -> None:
    """Both folders of an alias are listed, by extension, beside the fixed options."""
    folders = Folders(tmp_path)
    folders.make()
    schemas = Schemas(CATALOG, folders)
    for model in ("clip/a.safetensors", "text_encoders/sub/b.sft", "vae/c.txt", "vae/d.pt"):
        folders.add_model(model)
    assert folders.models("clip", "text_encoders") == ["a.safetensors", "sub/b.sft"]
    loader = schemas.get("VAELoader")
    assert loader is not None
    assert schemas.options(loader.inputs["vae_name"]) == ["pixel_space", "d.pt"]
    assert folders.models("loras") == ["character-demo.safetensors"]


def test_demo_lora_reads_as_flux(folders: Folders) -> None:
    """Its header is a valid safetensors header, and names layers as Flux LoRAs do."""
    data = (folders.base / "models" / "loras" / "character-demo.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight" in header
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    assert max(ends) == len(data) - 8 - length
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            assert end - start == 2 * math.prod(entry["shape"])


NAMES = st.sampled_from(
    ["EmptyImage", "SaveImage", "ImageInvert", "LoadImage", "KSampler", "PreviewAny", "Zork", ""]
)
INPUTS = st.sampled_from(
    ["width", "height", "images", "image", "source", "seed", "filename_prefix"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
LINKS = st.tuples(st.sampled_from(["1", "2", "3"]), st.integers(-1, 2)).map(list)
NODES = st.fixed_dictionaries(
    {"class_type": NAMES | VALUES},
    optional={"inputs": st.dictionaries(INPUTS, VALUES | LINKS, max_size=5) | VALUES},
)
GRAPHS = st.dictionaries(st.sampled_from(["1", "2", "3", "x"]), NODES | VALUES, max_size=4)
BODIES = (
    st.fixed_dictionaries(
        {"prompt": GRAPHS},
        optional=dict.fromkeys(("number", "front", "client_id", "prompt_id", "extra_data"), VALUES),
    )
    | st.fixed_dictionaries({"prompt": GRAPHS}, optional={"partial_execution_targets": VALUES})
    | VALUES
)


async def post(base: Path, *bodies: bytes) -> list[int]:
    """Send bodies to a preview engine and return the statuses; then see that it still answers."""
    folders = Folders(base)
    folders.make()
    statuses = []
    async with (
        serving(Server(Schemas(CATALOG, folders), folders, pace=0)) as url,
        aiohttp.ClientSession() as session,
    ):
        for body in bodies:
            async with session.post(f"{url}/prompt", data=body) as response:
                await response.read()
                statuses.append(response.status)
        good = json.dumps({"prompt": saved(), "prompt_id": "good"}).encode()
        async with session.post(f"{url}/prompt", data=good) as response:
            assert response.status == 200
        for _ in range(400):
            async with session.get(f"{url}/history/good") as response:
                if await response.json():
                    return statuses
            await asyncio.sleep(0.01)
    raise AssertionError("the queue stands still")


@settings(max_examples=60, deadline=None)
@given(bodies=st.lists(BODIES, min_size=1, max_size=6))
def test_no_body_is_a_crash(bodies: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever JSON is sent is taken or refused, and the queue goes on."""
    statuses = asyncio.run(
        post(tmp_path_factory.mktemp("base"), *(json.dumps(body).encode() for body in bodies))
    )
    assert set(statuses) <= {200, 400}


def test_no_text_is_a_crash(tmp_path: Path) -> None:
    """Nor is what reads as no JSON, or as JSON that no file holds."""
    graph = b'{"prompt": {"1": {"class_type": "EmptyImage", "inputs": {"width": %s}}, '
    graph += b'"2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}}'
    bodies = [
        *(b"", b"{", b"\xff{}", b"[" * 100_000, b'"prompt"', b"null", b"5"),
        *(graph % value for value in (b"1e400", b"NaN", b"9" * 5000, b'"\\ud83e"', b"[" * 5000)),
    ]
    assert set(asyncio.run(post(tmp_path, *bodies))) == {400}
