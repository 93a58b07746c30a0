"""python -m generator import: from a file saved in ComfyUI to a workflow."""

import copy
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from generator.cli import main
from generator.diagnostics import has_errors
from generator.project import load_project
from generator.spec import Workflow

from .conftest import ROOT, MakeProject, load_and_check
from .test_dump import TEXT

Graph = dict[str, Any]
HUB = "https://huggingface.co/Comfy-Org/flux1-schnell/resolve/main/flux1-schnell-fp8.safetensors"


def node(class_type: str, title: str = "", **inputs: Any) -> dict[str, Any]:
    meta = {"_meta": {"title": title}} if title else {}
    return {"class_type": class_type, "inputs": inputs, **meta}


def text_to_image() -> Graph:
    """Return an export as ComfyUI writes it: ids in order, not the nodes."""
    return {
        "3": node(
            "KSampler",
            seed=7,
            steps=20,
            cfg=8,
            sampler_name="euler",
            scheduler="normal",
            denoise=1,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "4": node("CheckpointLoaderSimple", "Model", ckpt_name="flux1-schnell-fp8.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "6": node("CLIPTextEncode", "What it shows", text="a fox", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    }


Run = Callable[..., int]


@pytest.fixture(name="project")
def _project(make_project: MakeProject) -> Path:
    return make_project({}, models=(ROOT / "models.yaml").read_text(encoding="utf-8"))


def save(root: Path, document: Any, name: str = "graph.json") -> Path:
    path = root / name
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_text(text, encoding="utf-8")
    return path


def run_import(root: Path, path: Path, name: str = "it", *options: str) -> int:
    return main(["import", str(path), "--name", name, "--project", str(root), *options])


def imported(root: Path, document: Any, name: str = "it") -> Workflow:
    """Import a document that leaves nothing undecided, and return the workflow."""
    assert run_import(root, save(root, document), name) == 0
    checked, diagnostics = load_and_check(root)
    assert checked is not None
    assert not has_errors(d for d in diagnostics if "gated" not in d.code)
    return next(one.workflow for one in checked.workflows if one.workflow.name == name)


def written(root: Path, name: str = "it") -> str:
    return (root / "workflows" / f"{name}.yaml").read_text(encoding="utf-8")


def reported(
    root: Path, path: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> list[Any]:
    run_import(root, path, "it", "--format", "json", *options)
    return [d for file in json.loads(capsys.readouterr().out) for d in file["diagnostics"]]


def test_the_whole_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nodes in reading order with their titles, params with the file's values, and the output."""
    before = (project / "models.yaml").read_bytes()
    assert run_import(project, save(project, text_to_image(), "portrait_v2.api.json")) == 0
    assert written(project) == EXPECTED
    assert (project / "models.yaml").read_bytes() == before
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"{project}/workflows/it.yaml: 7 nodes; params: prompt, negative_prompt, width, height, steps, cfg, "
        "sampler, scheduler, seed\n"
    )


EXPECTED = """\
# yaml-language-server: $schema=../generator/schemas/workflow.schema.json
summary: Portrait v2

params:
  prompt: {type: string, default: a fox, description: What the result shows.}
  negative_prompt: {type: string, default: "", description: What the result must not show.}
  width: {type: integer, default: 512, step: 8, description: Width in pixels.}
  height: {type: integer, default: 768, step: 8, description: Height in pixels.}
  steps: {type: integer, default: 20, description: Sampling steps.}
  cfg: {type: number, default: 8.0, description: How strongly the prompt guides the sampler.}
  sampler: {type: string, default: euler, description: Sampling method.}
  scheduler: {type: string, default: normal, description: How the noise is spread over the steps.}
  seed: {type: seed, description: The same seed and params give the same result.}

graph:
  # Model
  4:
    class_type: CheckpointLoaderSimple
    inputs: {ckpt_name: flux1-schnell-fp8.safetensors}
  5:
    class_type: EmptyLatentImage
    inputs: {width: "${width}", height: "${height}", batch_size: 1}
  # What it shows
  6:
    class_type: CLIPTextEncode
    inputs: {text: "${prompt}", clip: [4, 1]}
  7:
    class_type: CLIPTextEncode
    inputs: {text: "${negative_prompt}", clip: [4, 1]}
  3:
    class_type: KSampler
    inputs:
      seed: ${seed}
      steps: ${steps}
      cfg: ${cfg}
      sampler_name: ${sampler}
      scheduler: ${scheduler}
      denoise: 1
      model: [4, 0]
      positive: [6, 0]
      negative: [7, 0]
      latent_image: [5, 0]
  8:
    class_type: VAEDecode
    inputs: {samples: [3, 0], vae: [4, 2]}
  9:
    class_type: SaveImage
    inputs: {filename_prefix: ComfyUI, images: [8, 0]}

output: 9
"""


# --- which params are suggested -----------------------------------------------------------------


def fed_by(workflow: Workflow, param: str) -> list[str]:
    return [
        f"{n.id}.{name}"
        for n in workflow.graph.values()
        for name, value in n.inputs.items()
        for slot, _ in value.slots
        if param in slot.names
    ]


def test_prompts_are_found_by_their_way_to_the_sampler(project: Path) -> None:
    """Not by titles or order: here the ids are the other way round, and other nodes lie between."""
    graph = text_to_image()
    graph["3"]["inputs"] |= {"positive": ["20", 0], "negative": ["21", 0]}
    graph["20"] = node("FluxGuidance", conditioning=["7", 0], guidance=3.5)
    graph["21"] = node("FluxDisableGuidance", conditioning=["6", 0])
    graph["7"]["inputs"]["text"] = "a whale"
    workflow = imported(project, graph)
    assert fed_by(workflow, "prompt") == ["7.text"]
    assert fed_by(workflow, "negative_prompt") == ["6.text"]
    assert fed_by(workflow, "guidance") == ["20.guidance"]


def test_one_text_for_both_sides_is_the_prompt(project: Path) -> None:
    graph = text_to_image()
    graph["3"]["inputs"]["negative"] = ["21", 0]
    graph["21"] = node("ConditioningZeroOut", conditioning=["6", 0])
    del graph["7"]
    workflow = imported(project, graph)
    assert fed_by(workflow, "prompt") == ["6.text"]
    assert "negative_prompt" not in workflow.params


def test_custom_samplers(project: Path) -> None:
    graph = text_to_image()
    graph["3"] = node(
        "SamplerCustomAdvanced",
        noise=["30", 0],
        guider=["31", 0],
        sampler=["32", 0],
        sigmas=["33", 0],
        latent_image=["5", 0],
    )
    graph |= {
        "30": node("RandomNoise", noise_seed=3),
        "31": node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=4.5),
        "32": node("KSamplerSelect", sampler_name="dpmpp_2m"),
        "33": node("BasicScheduler", model=["4", 0], scheduler="beta", steps=12, denoise=1.0),
    }
    workflow = imported(project, graph)
    places = {name: fed_by(workflow, name) for name in workflow.params}
    assert places == {
        "prompt": ["6.text"],
        "negative_prompt": ["7.text"],
        "width": ["5.width"],
        "height": ["5.height"],
        "steps": ["33.steps"],
        "cfg": ["31.cfg"],
        "sampler": ["32.sampler_name"],
        "scheduler": ["33.scheduler"],
        "seed": ["30.noise_seed"],
    }


def test_values_behind_primitives(project: Path) -> None:
    """The param feeds the primitive node, within the bounds of the input that it goes to."""
    graph = text_to_image()
    graph["5"]["inputs"]["width"] = ["40", 0]
    graph["40"] = node("PrimitiveInt", value=640)
    graph["6"]["inputs"]["text"] = ["41", 0]
    graph["41"] = node("PrimitiveStringMultiline", value="a fox\nin the snow")
    workflow = imported(project, graph)
    assert fed_by(workflow, "width") == ["40.value"]
    width = workflow.params["width"]
    assert (width.default, width.minimum, width.maximum, width.step) == (640, 16, 16384, 8)
    assert fed_by(workflow, "prompt") == ["41.value"]
    assert workflow.params["prompt"].default == "a fox\nin the snow"


def test_same_values_share_a_param_and_others_are_numbered(project: Path) -> None:
    graph = text_to_image()
    graph["13"] = copy.deepcopy(graph["3"])
    graph["13"]["inputs"] |= {"latent_image": ["3", 0], "steps": 8, "denoise": 0.5, "seed": 99}
    graph["8"]["inputs"]["samples"] = ["13", 0]
    workflow = imported(project, graph)
    assert fed_by(workflow, "cfg") == ["3.cfg", "13.cfg"]
    assert fed_by(workflow, "seed") == ["3.seed", "13.seed"]
    assert (fed_by(workflow, "steps"), fed_by(workflow, "steps_2")) == (["3.steps"], ["13.steps"])
    assert fed_by(workflow, "denoise") == ["13.denoise"]


def test_media_and_loras(project: Path) -> None:
    models = (project / "models.yaml").read_text(encoding="utf-8")
    lora = "  mine: {source: {volume: my-models}, folder: loras, filename: mine.safetensors}\n"
    (project / "models.yaml").write_text(models.replace("models:\n", f"models:\n{lora}", 1))
    gpu = (project / "gpu.yaml").read_text() + "volumes: {my-models: /root/models}\n"
    (project / "gpu.yaml").write_text(gpu)
    graph = text_to_image()
    graph |= {
        "20": node("LoadImage", image="example.png", upload="image"),
        "21": node("VAEEncode", pixels=["20", 0], vae=["4", 2]),
        "22": node(
            "LoraLoader",
            lora_name="mine.safetensors",
            strength_model=0.8,
            strength_clip=1,
            model=["4", 0],
            clip=["4", 1],
        ),
    }
    graph["3"]["inputs"] |= {"latent_image": ["21", 0], "model": ["22", 0]}
    workflow = imported(project, graph)
    assert fed_by(workflow, "image") == ["20.image"]
    assert workflow.params["image"].type == "image"
    assert workflow.params["image"].required
    assert fed_by(workflow, "denoise") == ["3.denoise"]
    assert (workflow.params["lora"].type, workflow.params["lora"].folder) == ("model", "loras")
    assert fed_by(workflow, "lora_strength") == ["22.strength_model"]
    assert fed_by(workflow, "lora_clip_strength") == ["22.strength_clip"]
    assert "upload" not in workflow.graph["20"].inputs


def test_pictures_are_called_after_where_they_go(project: Path) -> None:
    graph = {
        "1": node("LoadImage", image="a.png"),
        "2": node("LoadImage", image="b.png"),
        "3": node(
            "ImageStitch",
            image1=["1", 0],
            image2=["2", 0],
            direction="right",
            match_image_size=True,
            spacing_width=0,
            spacing_color="white",
        ),
        "4": node("SaveImage", filename_prefix="x", images=["3", 0]),
    }
    assert list(imported(project, graph).params) == ["image1", "image2"]


def test_a_value_that_no_param_can_have_stays(project: Path) -> None:
    """It is reported at its input, and no param makes a second fault of it."""
    graph = text_to_image()
    graph["3"]["inputs"] |= {"steps": 0, "sampler_name": "oiler", "seed": -1}
    path = save(project, graph)
    assert run_import(project, path) == 1
    text = written(project)
    assert "steps: 0" in text
    assert "sampler_name: oiler" in text
    assert "seed: ${seed}" in text
    _, diagnostics = load_and_check(project)
    errors = [(d.code, d.input) for d in diagnostics if d.severity == "error" and d.node == "3"]
    assert errors == [("out-of-range", "steps"), ("not-an-option", "sampler_name")]


# --- the output, and what it needs ----------------------------------------------------------------


def test_what_the_output_does_not_need_is_left_out(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = text_to_image()
    graph["20"] = node("PreviewImage", images=["8", 0])
    graph["21"] = node("VAELoader", vae_name="nobody-needs-it.safetensors")
    [found] = reported(project, save(project, graph), capsys)
    assert (found["code"], found["severity"]) == ("left-out", "info")
    assert found["message"].endswith(": 20 PreviewImage, 21 VAELoader")
    assert "nobody-needs-it" not in written(project)


def test_of_several_outputs_the_last_is_the_result(project: Path) -> None:
    graph = text_to_image()
    graph["20"] = node("ImageScaleBy", image=["8", 0], upscale_method="bilinear", scale_by=2.0)
    graph["21"] = node("SaveImage", filename_prefix="large", images=["20", 0])
    workflow = imported(project, graph)
    assert workflow.output is not None
    assert workflow.output.nodes == {"": "21"}


def test_outputs_between_which_nothing_decides(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = text_to_image()
    graph["20"] = node("ImageInvert", image=["8", 0])
    graph["21"] = node("SaveImage", filename_prefix="a", images=["20", 0])
    graph["22"] = node("ImageScaleBy", image=["8", 0], upscale_method="bilinear", scale_by=2.0)
    graph["23"] = node("SaveImage", filename_prefix="b", images=["22", 0])
    del graph["9"]
    [found] = reported(project, save(project, graph), capsys)
    assert (found["code"], found["severity"]) == ("undecided", "warning")
    assert "# TODO output: 21 or 23?" in written(project)
    assert "\noutput:" not in written(project)
    _, diagnostics = load_and_check(project)
    assert not has_errors(d for d in diagnostics if d.file == "workflows/it.yaml")


# --- models and packs -----------------------------------------------------------------------------


def canvas(graph: Graph, properties: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a workflow in UI format of loaders that a PreviewAny shows: node 1 with properties."""
    nodes = [
        {
            "id": 1,
            "type": graph["class_type"],
            "pos": [0, 0],
            "mode": 0,
            "inputs": [],
            "outputs": [{"name": "OUT", "type": "VAE", "links": [1]}],
            "properties": dict(properties or {}),
            "widgets_values": list(graph["inputs"].values()),
        },
        {
            "id": 2,
            "type": "PreviewAny",
            "pos": [300, 0],
            "mode": 0,
            "inputs": [{"name": "source", "type": "*", "link": 1}],
            "outputs": [],
            "properties": {},
            "widgets_values": [],
        },
    ]
    links = [[1, 1, 0, 2, 0, "*"]]
    return {"nodes": nodes, "links": links, "version": 0.4, "last_node_id": 2, "last_link_id": 1}


def listed(url: str, name: str = "new_vae.safetensors", **more: str) -> dict[str, Any]:
    return {"models": [{"name": name, "url": url, "directory": "vae", **more}]}


VAE = node("VAELoader", vae_name="new_vae.safetensors")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("url", "more", "source"),
    [
        (
            "https://huggingface.co/A/b.c/resolve/main/split/vae/new_vae.safetensors?download=true",
            {},
            {"hf": "A/b.c", "file": "split/vae/new_vae.safetensors"},
        ),
        (
            "https://huggingface.co/A/b/blob/main/new%20vae.safetensors",
            {},
            {"hf": "A/b", "file": "new vae.safetensors"},
        ),
        (
            f"https://huggingface.co/A/b/resolve/{COMMIT}/x.safetensors",
            {},
            {"hf": "A/b", "file": "x.safetensors", "revision": COMMIT},
        ),
        (
            "https://example.com/x/new_vae.safetensors",
            {"hash": "A" * 64, "hash_type": "SHA256"},
            {"url": "https://example.com/x/new_vae.safetensors", "sha256": "a" * 64},
        ),
    ],
)
def test_sources_of_models(
    project: Path, url: str, more: dict[str, str], source: dict[str, str]
) -> None:
    """They go to the end of models.yaml, where every other character stays."""
    before = (project / "models.yaml").read_text(encoding="utf-8")
    imported(project, canvas(VAE, listed(url, **more)))
    models = load_project(project)[0].models
    assert models is not None
    made = models.models["new_vae"]
    assert (made.source, made.destination) == (source, "vae/new_vae.safetensors")
    after = (project / "models.yaml").read_text(encoding="utf-8")
    added = [line for line in after.splitlines() if line not in before.splitlines()]
    assert added[0] == "  new_vae:"
    start = after.index("  new_vae:\n")
    end = after.index("\npacks:")
    assert after[:start] + after[end:].removeprefix("\n") in (
        before,
        before.replace("\n\npacks", "\npacks"),
    )


@pytest.mark.parametrize(
    ("properties", "why"),
    [
        ({}, "comes from"),
        (listed("https://civitai.com/api/download/models/1"), "sha256"),
        (listed("https://huggingface.co/A/b/resolve/fp16/x.safetensors"), "on main or at a commit"),
        (listed("https://huggingface.co/A/b"), "on main or at a commit"),
        (listed(""), "names no address"),
        ({"models": "nonsense"}, "comes from"),
        ({"models": [{"name": 1}, 2, None]}, "comes from"),
        (listed("http://[::1", hash="a" * 64), "is no address"),
    ],
)
def test_what_a_source_lacks_is_a_todo(
    project: Path, properties: dict[str, Any], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And validate tells it too, until somebody decides."""
    before = (project / "models.yaml").read_bytes()
    found = reported(project, save(project, canvas(VAE, properties)), capsys)
    assert [(d["code"], d["severity"], d["node"]) for d in found] == [("undecided", "warning", "1")]
    assert why in found[0]["message"]
    assert "  # TODO " in written(project)
    assert (project / "models.yaml").read_bytes() == before
    _, diagnostics = load_and_check(project)
    assert [d.code for d in diagnostics if d.severity == "error" and d.node] == ["undeclared-model"]


def test_two_sources_of_one_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (f"https://huggingface.co/A/{n}/resolve/main/new_vae.safetensors" for n in "bc")
    properties = {"models": [*listed(one)["models"], *listed(other)["models"]]}
    [found] = reported(project, save(project, canvas(VAE, properties)), capsys)
    assert "which source" in found["message"]


def test_a_declared_model_is_used(project: Path) -> None:
    before = (project / "models.yaml").read_bytes()
    loader = node("VAELoader", vae_name="ae.safetensors")
    url = "https://huggingface.co/Other/repo/resolve/main/ae.safetensors"
    imported(project, canvas(loader, listed(url, "ae.safetensors")))
    assert (project / "models.yaml").read_bytes() == before


def test_names_of_models_differ(project: Path) -> None:
    """`flux1-dev` is taken by another file."""
    loader = node("VAELoader", vae_name="sub/flux1-dev.safetensors")
    url = "https://huggingface.co/A/b/resolve/main/vae.safetensors"
    imported(project, canvas(loader, listed(url, "flux1-dev.safetensors")))
    models = load_project(project)[0].models
    assert models is not None
    assert models.models["flux1-dev-2"].destination == "vae/sub/flux1-dev.safetensors"


def test_backslashes_of_windows(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loader = node("VAELoader", vae_name="sub\\x.safetensors")
    url = "https://huggingface.co/A/b/resolve/main/x.safetensors"
    [found] = reported(project, save(project, canvas(loader, listed(url, "x.safetensors"))), capsys)
    assert found["code"] == "changed"
    assert "vae_name: sub/x.safetensors" in written(project)


def test_packs_of_the_catalog(project: Path) -> None:
    """Declared at the commit of their node schemas."""
    graph = {
        "1": node("INTConstant", value=3),
        "2": node("PreviewAny", source=["1", 0]),
    }
    imported(project, graph)
    models = load_project(project)[0].models
    assert models is not None
    pack = models.packs["ComfyUI-KJNodes"]
    assert pack.git == "https://github.com/kijai/ComfyUI-KJNodes"
    assert pack.commit == "a7ce03e735be07c6598723e55d1d330f95fcea7c"


def test_files_that_no_input_names(make_project: MakeProject) -> None:
    """A class that loads them brings them along, where it is known from where."""
    root = make_project({})
    imported(
        root,
        {
            "1": node("InstantIDFaceAnalysis", provider="CPU"),
            "2": node("PreviewAny", source=["1", 0]),
        },
    )
    models = load_project(root)[0].models
    assert models is not None
    assert sorted(model.destination for model in models.models.values()) == [
        f"insightface/models/antelopev2/{name}.onnx"
        for name in ("1k3d68", "2d106det", "genderage", "glintr100", "scrfd_10g_bnkps")
    ]
    assert {model.source["hf"] for model in models.models.values()} == {"DIAMONIK7777/antelopev2"}


def test_files_inside_of_a_value(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The Power Lora Loader keeps a LoRA in a mapping; all of that stays but the backslash."""
    lora = {"on": True, "lora": "sub\\x.safetensors", "strength": 0.5}
    graph = text_to_image()
    graph["20"] = node("Power Lora Loader (rgthree)", lora_1=lora, model=["4", 0], clip=["4", 1])
    graph["3"]["inputs"]["model"] = ["20", 0]
    found = reported(project, save(project, graph), capsys)
    assert {d["code"] for d in found if d["node"] == "20"} == {"changed", "undecided"}
    assert "lora_1: {on: true, lora: sub/x.safetensors, strength: 0.5}" in written(project)


def test_a_pack_between_several_is_said_by_the_node(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loader = node("PulidFluxModelLoader", pulid_file="pulid_flux_v0.9.1.safetensors")
    [todo, *_] = reported(project, save(project, canvas(loader)), capsys)
    assert "ComfyUI-PuLID-Flux and ComfyUI_PuLID_Flux_ll" in todo["message"]
    (project / "workflows" / "it.yaml").unlink()
    said = {"aux_id": "lldacing/ComfyUI_PuLID_Flux_ll"}
    found = reported(project, save(project, canvas(loader, said)), capsys)
    assert not [d for d in found if "PuLID-Flux and" in d["message"]]
    models = load_project(project)[0].models
    assert models is not None
    assert "ComfyUI_PuLID_Flux_ll" in models.packs


def test_a_pack_that_only_the_node_knows(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = canvas(node("MyUpscaler"), {"aux_id": "someone/my-pack", "ver": COMMIT})
    reported(project, save(project, graph), capsys)
    models = load_project(project)[0].models
    assert models is not None
    assert (models.packs["my-pack"].git, models.packs["my-pack"].commit) == (
        "https://github.com/someone/my-pack",
        COMMIT,
    )


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"cnr_id": "my-pack", "ver": "1.2.3"},
        {"aux_id": "someone/my-pack"},
        {"aux_id": "../../x", "ver": COMMIT},
        {"aux_id": 3, "ver": []},
    ],
)
def test_a_class_of_no_known_pack_is_a_todo(
    project: Path, properties: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (project / "models.yaml").read_bytes()
    found = reported(project, save(project, canvas(node("MyUpscaler"), properties)), capsys)
    assert "undecided" in [d["code"] for d in found]
    assert '# TODO no pack is known that has class "MyUpscaler"' in written(project)
    assert (project / "models.yaml").read_bytes() == before


def test_a_project_without_models_yaml(make_project: MakeProject) -> None:
    root = make_project({})
    (root / "models.yaml").unlink()
    imported(root, canvas(VAE, listed("https://huggingface.co/A/b/resolve/main/x.safetensors")))
    text = (root / "models.yaml").read_text()
    assert text.startswith("# yaml-language-server: ")
    assert "models:\n  new_vae:\n" in text


def test_a_lock_is_to_be_made_anew(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "generator.lock").write_text("{}")
    url = "https://huggingface.co/A/b/resolve/main/x.safetensors"
    run_import(project, save(project, canvas(VAE, listed(url))))
    assert "run make lock" in capsys.readouterr().err


# --- files that carry a workflow ------------------------------------------------------------------


def png_with(path: Path, **texts: str) -> None:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text, zip=True)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


def as_png(path: Path, document: Any) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", json.dumps({"1": {"is_changed": [float("nan")]}}))
    info.add_text("workflow", json.dumps(document))
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


def as_webp(path: Path, document: Any) -> None:
    exif = Image.Exif()
    exif[0x0110] = "prompt:{}"
    exif[0x010F] = "workflow:" + json.dumps(document)
    Image.new("RGB", (8, 8)).save(path, exif=exif)


def as_video(path: Path, document: Any) -> None:
    options = {"movflags": "use_metadata_tags"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata["workflow"] = json.dumps(document)
        add_picture(container, "mpeg4" if path.suffix == ".mp4" else "libvpx-vp9")


def as_comment(path: Path, document: Any) -> None:
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata["comment"] = json.dumps({"workflow": document})
        add_picture(container, "mpeg4")


def add_picture(container: av.container.OutputContainer, codec: str) -> None:
    stream = container.add_stream(codec, rate=8)
    assert isinstance(stream, av.VideoStream)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
    container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.png", as_png),
        ("a.webp", as_webp),
        ("a.mp4", as_video),
        ("a.webm", as_video),
        ("b.mp4", as_comment),
    ],
)
def test_media_that_carry_their_workflow(
    project: Path, name: str, write: Callable[[Path, Any], None]
) -> None:
    url = "https://huggingface.co/A/b/resolve/main/new_vae.safetensors"
    write(project / name, canvas(VAE, listed(url)))
    assert run_import(project, project / name) == 0
    assert "vae_name: new_vae.safetensors" in written(project)


def test_a_png_that_carries_only_the_graph(project: Path) -> None:
    png_with(project / "a.png", prompt=json.dumps(text_to_image()))
    assert run_import(project, project / "a.png") == 0
    assert "${prompt}" in written(project)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PNG = b"\x89PNG\r\n\x1a\n"
BOMB = chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b" " * 40_000_000, 9))
HUGE = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0))

DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "ends too early"),
    "truncated": (json.dumps(text_to_image()).encode()[:200], "ends too early"),
    "no JSON": (b"{'a': 1}", "no JSON"),
    "a list": (b"[1, 2]", "bad-graph"),
    "a text": (b'"x"', "bad-graph"),
    "nothing in it": (b"{}", "no output node"),
    "Latin-1": ('{"a": "é"}'.encode("latin-1"), "UTF-8"),
    "deep": (b'{"a":' * 100_000, "too deep"),
    "huge number": (b'{"a": ' + b"9" * 10_000 + b"}", "huge number"),
    "50 MB": (b'{"a": "' + b"x" * 50_000_000 + b'"}', "too-large"),
    "binary": (b"\0\1\2\3" * 10, "neither JSON"),
    "a JPEG": (b"\xff\xd8\xff\xe0", "a JPEG"),
    "PNG without": (PNG + chunk(b"IEND", b""), "carries no workflow"),
    "PNG, cut": (PNG + chunk(b"tEXt", b"workflow\0{}")[:12], "cut short"),
    "PNG, checksum": (PNG + chunk(b"tEXt", b"workflow\0{}")[:-1] + b"x", "checksum"),
    "PNG, bomb": (PNG + BOMB, "over 16 MiB"),
    "PNG, huge picture": (PNG + HUGE, "carries no workflow"),
    "PNG, text cut": (PNG + chunk(b"tEXt", b'workflow\0{"nodes": ['), "ends too early"),
    "PNG, no zlib": (PNG + chunk(b"zTXt", b"workflow\0\0xxxx"), "damaged"),
    "WebP without": (b"RIFF\x04\0\0\0WEBP", "carries no workflow"),
    "WebP, no EXIF": (b"RIFF\x10\0\0\0WEBPEXIF\x04\0\0\0xxxx", "is damaged"),
    "MP4, damaged": (b"\0\0\0\x18ftypmp42" + b"x" * 64, "damaged"),
    "WebM, damaged": (b"\x1a\x45\xdf\xa3" + b"x" * 64, "damaged"),
    "a playlist": (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n/etc/passwd\n", "no JSON"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(project: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An error that says what is wrong, and nothing is written."""
    data, why = DAMAGED[name]
    (project / "file").write_bytes(data)
    before = snapshot(project)
    assert run_import(project, project / "file") == 1
    said = capsys.readouterr()
    assert why in said.out
    assert said.err == "nothing written\n"
    assert snapshot(project) == before


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def broken(change: Callable[[Graph], Any]) -> Graph:
    graph = text_to_image()
    change(graph)
    return graph


DAMAGED_GRAPHS: dict[str, tuple[Graph, str, str]] = {
    "link to nowhere": (
        broken(lambda g: g["8"]["inputs"].update(samples=["77", 0])),
        "dangling-link",
        "8",
    ),
    "no such output": (
        broken(lambda g: g["8"]["inputs"].update(samples=["3", 5])),
        "bad-output-index",
        "8",
    ),
    "missing widget": (broken(lambda g: g["3"]["inputs"].pop("steps")), "missing-input", "3"),
    "missing link": (broken(lambda g: g["3"]["inputs"].pop("model")), "missing-input", "3"),
    "a cycle": (
        broken(lambda g: g["4"].update(node("VAEDecode", samples=["3", 0], vae=["4", 0]))),
        "cycle",
        "4",
    ),
    "no class": (broken(lambda g: g["5"].pop("class_type")), "bad-graph", "5"),
    "no inputs": (broken(lambda g: g["5"].update(inputs=[1])), "bad-graph", "5"),
    "a node that is a text": (broken(lambda g: g.update({"5": "x"})), "bad-graph", "5"),
}


@pytest.mark.parametrize("name", DAMAGED_GRAPHS)
def test_damaged_graphs(project: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the node, and nothing is written."""
    graph, code, where = DAMAGED_GRAPHS[name]
    path = save(project, graph)
    before = snapshot(project)
    found = reported(project, path, capsys)
    assert (code, "error", where) in [(d["code"], d["severity"], d["node"]) for d in found]
    assert snapshot(project) == before


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (float("nan"), "not finite"),
        (float("inf"), "not finite"),
        (10**305, "digits"),
        ("half \ud83e", "surrogate"),
        ([1, None, 2], "null"),
        ({"k" * 2000: 1}, "name of over"),
    ],
)
def test_values_that_no_yaml_file_holds(
    project: Path, value: Any, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = {"1": node("PreviewAny", source={"__value__": {"x": value}})}
    path = save(project, graph)
    before = snapshot(project)
    [found] = reported(project, path, capsys)
    assert (found["code"], found["severity"]) == ("unwritable", "error")
    assert 'node "1" input "source"' in found["message"]
    assert why in found["message"]
    assert snapshot(project) == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda g: g["4"].update(class_type=""), "too short"),
        (lambda g: g.update((str(n), g["9"]) for n in range(100, 2200)), "at most 2000"),
    ],
)
def test_what_is_no_workflow_is_not_written(
    project: Path, change: Callable[[Graph], Any], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = text_to_image()
    change(graph)
    path = save(project, graph)
    before = snapshot(project)
    [found] = reported(project, path, capsys)
    assert found["code"] == "unwritable"
    assert why in found["message"]
    assert snapshot(project) == before


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    prompt=TEXT,
    negative=TEXT,
    prefix=TEXT,
    title=st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | TEXT,
)
def test_any_text_comes_back(
    project: Path, prompt: str, negative: str, prefix: str, title: str
) -> None:
    """In a param's default, in an input, and without harm in a title."""
    graph = text_to_image()
    graph["6"]["inputs"]["text"] = prompt
    graph["7"]["inputs"]["text"] = negative
    graph["9"]["inputs"]["filename_prefix"] = prefix
    graph["9"]["_meta"] = {"title": title}
    (project / "workflows" / "it.yaml").unlink(missing_ok=True)
    workflow = imported(project, graph)
    assert workflow.params["prompt"].default == prompt
    assert workflow.params["negative_prompt"].default == negative
    assert workflow.graph["9"].inputs["filename_prefix"].value == prefix


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "a/b", "Flux", "", "x.yaml", "a\nb", "1x", "x" * 200]
)
def test_names_that_are_none(project: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(project, text_to_image())
    before = snapshot(project)
    assert run_import(project, path, name) == 2
    assert "is no name of a workflow" in capsys.readouterr().err
    assert snapshot(project) == before


def test_a_workflow_that_is_there_stays(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(project, text_to_image())
    assert run_import(project, path) == 0
    before = snapshot(project)
    assert run_import(project, path) == 2
    assert "--update" in capsys.readouterr().err
    assert snapshot(project) == before


def test_a_file_that_is_not_there(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_import(project, project / "none.json") == 1
    assert "there is no such file" in capsys.readouterr().out
    assert run_import(project, project / "workflows") == 1
    assert "no regular file" in capsys.readouterr().out


def test_a_faulty_project_is_mended_first(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "models.yaml").write_text("models: [\n")
    before = snapshot(project)
    assert run_import(project, save(project, text_to_image(), "../graph.json")) == 1
    assert "models.yaml:" in capsys.readouterr().out
    assert snapshot(project) == before


def test_both_files_are_written_or_none(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever of the two the disk refuses."""
    path = save(
        project, canvas(VAE, listed("https://huggingface.co/A/b/resolve/main/x.safetensors"))
    )
    before = snapshot(project)
    replace = Path.replace
    refused: list[str] = []

    def failing(self: Path, target: Path) -> Path:
        if refused and Path(target).name == refused[-1]:
            refused.clear()
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    for name in ("models.yaml", "it.yaml"):
        refused.append(name)
        assert run_import(project, path) == 2
        assert "No space left" in capsys.readouterr().err
        assert (refused, snapshot(project)) == ([], before)
    assert run_import(project, path) == 0


def test_the_same_file_gives_the_same_workflow(project: Path) -> None:
    path = save(project, text_to_image())
    for name in ("one", "two"):
        assert run_import(project, path, name) == 0
    assert written(project, "one") == written(project, "two")


def test_api_nodes_are_imported_and_refused_by_validate(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is there to be changed; why it does not run is said at once."""
    graph = {
        "1": node(
            "IdeogramV3", prompt="x", aspect_ratio="1:1", resolution="Auto", seed=0, num_images=1
        ),
        "2": node("SaveImage", filename_prefix="x", images=["1", 0]),
    }
    found: list[Any] = reported(project, save(project, graph), capsys)
    assert "api-node" in [d["code"] for d in found]
