"""What went wrong in the system that this one replaces, found here before anything is deployed.

That system's failures are on record, numbered from 1. Those that show in a spec or in a build are
here: its own tests, turned round. The others show at run time, and are tested with the API.
"""

import ast
import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from generator.cli import main

from .api_client import import_rendered
from .conftest import GPU_YAML, MODELS_YAML, ROOT, load_and_check, without_licenses

# A fault stands where « is; several are reported in this order.
MARK = re.compile("«([a-z-]+)»")
COMMIT = "0123456789abcdef0123456789abcdef01234567"

IT = "workflows/it.yaml"
GPU = GPU_YAML + "volumes: {m: /root/models}\n"
IMAGE = """\
graph:
  1: {class_type: EmptyImage, inputs: {width: 64, height: 64, batch_size: 1, color: 0}}
  9: {class_type: SaveImage, inputs: {images: [1, 0], filename_prefix: x}}
"""
FLUX = """\
models:
  flux: {source: {volume: m}, folder: checkpoints, filename: flux1-dev.safetensors, family: flux}
"""
INSTANTID = """\
packs:
  ComfyUI_InstantID:
    git: https://github.com/cubiq/ComfyUI_InstantID
    commit: 1ef34ef573581bd9727c1e0ac05aa956b356a510
"""
# The models that InstantIDFaceAnalysis loads though no input names them.
ANTELOPE = "".join(
    f"  {name}: {{source: {{volume: m}}, folder: insightface/models/antelopev2, "
    f"filename: {name}.onnx}}\n"
    for name in ("1k3d68", "2d106det", "genderage", "glintr100", "scrfd_10g_bnkps")
)
FACE = """\
graph:
  1: {class_type: InstantIDFaceAnalysis, inputs: {provider: CPU}}
  2: {class_type: PreviewAny, inputs: {source: [1, 0]}}
"""
LORA = """\
graph:
  1: {class_type: CheckpointLoaderSimple, inputs: {ckpt_name: flux1-dev.safetensors}}
  2:
    class_type: LoraLoaderModelOnly
    inputs: {model: [1, 0], lora_name: NAME, strength_model: 1}
  3: {class_type: PreviewAny, inputs: {source: [2, 0]}}
"""

# By row and what went wrong: files with marks, and a part of the hint for each mark.
FAILURES: dict[str, tuple[dict[str, str], list[str]]] = {
    "1: twelve faults in one graph": (
        {
            "models.yaml": FLUX,
            IT: """\
graph:
  1: {class_type: CheckpointLoaderSimple, inputs: {ckpt_name: flux1-dev.safetensors}}
  2: {class_type: «unknown-class»InsightFaceLoader, inputs: {provider: CPU}}
  3: {class_type: «unknown-class»InstantIDLoader, inputs: {}}
  4: {class_type: «missing-input»CLIPTextEncode, inputs: {«unknown-input»prompt: a red fox, clip: [1, 1]}}
  5: {class_type: «missing-input»EmptyLatentImage, inputs: {width: 64, height: 64, «unknown-input»batch: 1}}
  6: {class_type: FluxGuidance, inputs: {conditioning: «link-type»[1, 0], guidance: 3.5}}
  7:
    class_type: «missing-input»«missing-input»KSampler
    inputs:
      model: [1, 0]
      positive: [6, 0]
      negative: [4, 0]
      latent_image: [5, 0]
      seed: 0
      «unknown-input»num_steps: 20
      cfg: 1
      sampler_name: «not-an-option»euler_a
      scheduler: simple
  8: {class_type: VAEDecode, inputs: {samples: [7, 0], vae: [1, «bad-output-index»3]}}
  9: {class_type: SaveImage, inputs: {images: [8, 0], filename_prefix: x}}
""",
        },
        [
            'did you mean "PulidFluxInsightFaceLoader" (pack ComfyUI-PuLID-Flux)?',
            'did you mean "InstantIDModelLoader" (pack ComfyUI_InstantID)?',
            "",
            "",
            "the default is 1",
            'did you mean "batch_size"?',
            "",
            "the default is 1.0",
            "the default is 20",
            'did you mean "steps"?',
            'did you mean "euler"?',
            'did you mean ["1", 2]?',
        ],
    ),
    "2: InstantID, which is for SDXL, on Flux": (
        {
            "models.yaml": FLUX
            + "  face: {source: {volume: m}, folder: instantid, filename: ip-adapter.bin}\n"
            + "  net: {source: {volume: m}, folder: controlnet, filename: instantid.safetensors}\n"
            + ANTELOPE
            + INSTANTID,
            IT: """\
graph:
  1: {class_type: CheckpointLoaderSimple, inputs: {ckpt_name: flux1-dev.safetensors}}
  2: {class_type: CLIPTextEncode, inputs: {text: a red fox, clip: [1, 1]}}
  3: {class_type: EmptyImage, inputs: {width: 512, height: 512, batch_size: 1, color: 0}}
  4: {class_type: EmptyLatentImage, inputs: {width: 512, height: 512, batch_size: 1}}
  5: {class_type: InstantIDModelLoader, inputs: {instantid_file: ip-adapter.bin}}
  6: {class_type: InstantIDFaceAnalysis, inputs: {provider: CPU}}
  7: {class_type: ControlNetLoader, inputs: {control_net_name: instantid.safetensors}}
  8:
    class_type: ApplyInstantID
    inputs:
      instantid: [5, 0]
      insightface: [6, 0]
      control_net: [7, 0]
      image: [3, 0]
      model: «family-mismatch»[1, 0]
      positive: [2, 0]
      negative: [2, 0]
      weight: 0.8
      start_at: 0
      end_at: 1
  9:
    class_type: KSampler
    inputs:
      model: [8, 0]
      positive: [8, 1]
      negative: [8, 2]
      latent_image: [4, 0]
      seed: 0
      steps: 20
      cfg: 1
      sampler_name: euler
      scheduler: simple
      denoise: 1
  10: {class_type: VAEDecode, inputs: {samples: [9, 0], vae: [1, 2]}}
  11: {class_type: SaveImage, inputs: {images: [10, 0], filename_prefix: x}}
""",
        },
        ["use a model of sdxl"],
    ),
    "3: a LoRA of SDXL on Flux, as its family says": (
        {
            "models.yaml": FLUX
            + "  style: {source: {volume: m}, folder: loras, filename: s.safetensors, family: sdxl}\n",
            IT: LORA.replace("NAME", "«family-mismatch»s.safetensors"),
        },
        ["use a LoRA made for flux"],
    ),
    "3: a LoRA of SDXL on Flux, as its name says": (
        {
            "models.yaml": FLUX
            + "  style: {source: {volume: m}, folder: loras, filename: style-sdxl.safetensors}\n",
            IT: LORA.replace("NAME", "«family-mismatch»style-sdxl.safetensors"),
        },
        ["use a LoRA made for flux"],
    ),
    "4: another model where a repository does not exist": (
        {
            "models.yaml": "models:\n"
            "  wan: {source: {hf: Wan-AI/Wan2.6, file: wan2.6.safetensors}, folder: unet, "
            "«unknown-key»fallback: wan2.1}\n"
        },
        ["known are family, filename, folder, gated, license, size, source"],
    ),
    "4: two sources of one model": (
        {
            "models.yaml": "models:\n"
            "  wan: {source: «schema»{hf: Wan-AI/Wan2.6, file: wan2.6.safetensors, volume: m}, folder: unet}\n"
        },
        ["a Hugging Face repository, a URL with its hash, or a Volume"],
    ),
    "5: no token for a model that needs one": (
        {
            "models.yaml": "models:\n  flux:\n"
            f"    source: {{hf: black-forest-labs/FLUX.1-dev, file: a.safetensors, revision: {COMMIT}}}\n"
            "    folder: vae\n"
            "    gated: «gated-without-secret»true\n",
            IT: "models: [flux]\n" + IMAGE,
        },
        ["huggingface: [HF_TOKEN]"],
    ),
    "6: the folder seedvr2 instead of SEEDVR2": (
        {
            "models.yaml": """\
models:
  vae: {source: {volume: m}, folder: seedvr2, filename: ema_vae_fp16.safetensors}
packs:
  ComfyUI-SeedVR2_VideoUpscaler:
    git: https://github.com/numz/ComfyUI-SeedVR2_VideoUpscaler
    commit: 4490bd1f482e026674543386bb2a4d176da245b9
""",
            IT: """\
graph:
  1:
    class_type: SeedVR2LoadVAEModel
    inputs: {model: «wrong-folder»ema_vae_fp16.safetensors, device: "cuda:0"}
  2: {class_type: PreviewAny, inputs: {source: [1, 0]}}
""",
        },
        ['set folder: SEEDVR2 for model "vae" in models.yaml'],
    ),
    "7: two models of the name diffusion_pytorch_model": (
        {
            "models.yaml": f"""\
models:
  canny:
    source: {{hf: a/canny, file: diffusion_pytorch_model.safetensors, revision: {COMMIT}}}
    folder: controlnet
  «same-destination»depth:
    source: {{hf: a/depth, file: fp16/diffusion_pytorch_model.safetensors, revision: {COMMIT}}}
    folder: controlnet
""",
            IT: "models: [canny, depth]\n" + IMAGE,
        },
        ["give one of them another filename"],
    ),
    "7: two models of the name ae": (
        {
            "models.yaml": """\
models:
  flux: {source: {volume: m}, folder: vae, filename: ae.safetensors}
  «same-destination»lumina: {source: {volume: m}, folder: vae, filename: ae.safetensors}
"""
        },
        ["give one of them another filename"],
    ),
    "8: models that no input names are not installed": (
        {
            "models.yaml": INSTANTID,
            IT: FACE.replace("Instant", "«implicit-model»Instant", 1),
        },
        ["file: 1k3d68.onnx}, folder: insightface/models/antelopev2}, and so for each"],
    ),
    "8: they are installed where they are not looked for": (
        {
            "models.yaml": "models:\n" + ANTELOPE.replace("/antelopev2", "") + INSTANTID,
            IT: FACE.replace("Instant", "«implicit-model»Instant", 1),
        },
        ["folder: insightface/models/antelopev2}"],
    ),
    "8: a pack names one that nobody declares": (
        {
            "models.yaml": "models:\n"
            + ANTELOPE
            + INSTANTID
            + "    models: [«undeclared-model»glintr]\n",
            IT: FACE,
        },
        ['did you mean "glintr100"?'],
    ),
    "9: a pack at no commit": (
        {"models.yaml": "packs:\n  «missing-key»Mine: {git: https://github.com/me/Mine}\n"},
        ["40 hexadecimal digits"],
    ),
    "9: a pack at a branch": (
        {
            "models.yaml": "packs:\n  Mine: {git: https://github.com/me/Mine, commit: «schema»main}\n"
        },
        ["40 hexadecimal digits"],
    ),
    "9: a clone that may fail": (
        {
            "models.yaml": "packs:\n"
            f"  Mine: {{git: «schema»https://github.com/me/Mine || true, commit: {COMMIT}}}\n"
        },
        ["Address of the pack's git repository, https."],
    ),
    "9: a pack that is not installed": (
        {IT: FACE.replace("Instant", "«undeclared-pack»Instant", 1)},
        ["git: https://github.com/cubiq/ComfyUI_InstantID, commit: 1ef34ef57358"],
    ),
    "10: ComfyUI at no commit": (
        {
            "gpu.yaml": re.sub(
                "comfyui: .*", "«missing-key»comfyui: {version: 0.3.71}", GPU, count=1
            )
        },
        ["The commit of that version"],
    ),
    "10: the latest ComfyUI": (
        {"gpu.yaml": GPU.replace("0.3.71", "«schema»latest")},
        ["graphs are checked against its node schemas"],
    ),
    "10: requirements that are not pinned": (
        {"gpu.yaml": GPU + "requirements: [«schema»fastapi, «schema»comfy-cli>=1.5]\n"},
        ["", ""],
    ),
    "10: a model at a branch": (
        {
            "models.yaml": "models:\n"
            "  a: {source: {hf: a/b, file: a.safetensors, revision: «schema»main}, folder: vae}\n"
        },
        ["Commit of the Hugging Face repository"],
    ),
    "10: a model by its address alone": (
        {
            "models.yaml": "models:\n"
            "  a: {source: «schema»{url: https://example.com/a.safetensors}, folder: vae}\n"
        },
        ["a URL with its hash"],
    ),
    "15: params that nothing uses": (
        {
            IT: "params:\n"
            "  «unused-param»num_inference_steps: {type: integer, default: 20}\n"
            "  «unused-param»pulid_strength: {type: number, default: 0.8}\n" + IMAGE
        },
        ["write ${num_inference_steps} in an input", "write ${pulid_strength} in an input"],
    ),
    "17: a seed that is always the same": (
        {
            IT: "params:\n  seed: {type: seed, «bad-param»default: 42}\n"
            + IMAGE.replace("color: 0", "color: '${seed}'")
        },
        ["a seed that is absent is drawn"],
    ),
    "7: a name that no loader lists": (
        {
            "models.yaml": "models:\n"
            "  ae: {source: {volume: m}, folder: vae, filename: «bad-filename»ae.zip}\n"
        },
        ["give a filename that ends in .safetensors"],
    ),
    "23: two workflows for one route": (
        {"workflows/a.yaml": "route: /x\n" + IMAGE, IT: "route: «route-collision»/x\n" + IMAGE},
        ["give one of them another route"],
    ),
    "23: a route in the way of the API's own": (
        {IT: "route: «reserved-route»/health\n" + IMAGE},
        ["set route: /it-workflow or another"],
    ),
    "23: a file that would be passed over": (
        {"workflows/it.yml": "«bad-name»" + IMAGE},
        ["rename it to workflows/it.yaml"],
    ),
    "25: two prices of one GPU": (
        {
            "gpu.yaml": GPU.replace(
                "volumes:",
                "  «gpu-price»big: {modal: L40S, vram_gb: 48, price_per_second: 0.0008}\nvolumes:",
            )
        },
        ["give both the same modal and price_per_second"],
    ),
    "27: a model of which nobody says the folder": (
        {
            "models.yaml": "models:\n  «missing-key»a: {source: {volume: m}, filename: a.safetensors}\n"
        },
        ["Folder below ComfyUI's models folder"],
    ),
    "29: pages of all origins": (
        {"gpu.yaml": GPU + "gateway: {cors_origins: [«schema»'*']}\n"},
        [""],
    ),
    "29: authentication switched off in passing": (
        {"gpu.yaml": GPU + "auth: «schema»false\n"},
        [""],
    ),
    "29: keys that no secret brings": (
        {"gpu.yaml": GPU + "«auth-without-secret»auth: api-key\nsecrets: {hf: [HF_TOKEN]}\n"},
        ["api-keys: [API_KEYS]"],
    ),
    "31: a job that its worker does not outlast": (
        {IT: "timeout: «schema»86400\n" + IMAGE},
        ["a worker runs for a minute more, and Modal ends it after a day"],
    ),
    "31: a job that ends before its request": (
        {IT: "timeout: «timeout-order»60\n" + IMAGE},
        ["lower gateway.deadline"],
    ),
    "31: a request that waits for longer than Modal lets it": (
        {"gpu.yaml": GPU + "gateway: {deadline: «schema»1200}\n"},
        ["Seconds after which a synchronous request gets 202"],
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_found(failure: str, tmp_path: Path) -> None:
    """It is reported with its code, where it stands, with what to do, and nothing else is."""
    files, hints = FAILURES[failure]
    marked = {"gpu.yaml": GPU, "models.yaml": MODELS_YAML, IT: IMAGE} | files
    for file, text in marked.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(MARK.sub("", text), encoding="utf-8")
    found = without_licenses(load_and_check(tmp_path)[1])
    wanted = [fault for file in sorted(files) for fault in faults_in(file, files[file])]
    assert [(d.file, d.line, d.column, d.code) for d in found] == wanted
    for diagnostic, hint in zip(found, hints, strict=True):
        assert hint in (diagnostic.hint or "")


def faults_in(file: str, text: str) -> Iterator[tuple[str, int, int, str]]:
    """Yield what the marks in a file say: file, line, column and code."""
    for number, line in enumerate(text.splitlines(), 1):
        while mark := MARK.search(line):
            yield file, number, mark.start() + 1, mark[1]
            line = line[: mark.start()] + line[mark.end() :]


# What is rendered

PICTURE = """\
params:
  prompt: {type: string}
  scale: {type: number, default: 2}
  seed: {type: seed}
graph:
  1: {class_type: EmptyImage, inputs: {width: 64, height: 64, batch_size: 1, color: "${seed}"}}
  2: {class_type: ImageScaleBy, inputs: {image: [1, 0], upscale_method: area, scale_by: "${scale}"}}
  9:
    class_type: SaveImage
    inputs: {images: [2, 0], filename_prefix: "${prompt}"}
"""
MODELS = (
    f"models:\n{ANTELOPE}{INSTANTID}  Mine: {{git: https://github.com/me/Mine, commit: {COMMIT}}}\n"
)
WORKFLOWS = {"picture": PICTURE, "face": FACE} | {f"image{n}": IMAGE for n in range(7)}


@dataclass(frozen=True)
class Build:
    """A rendered project, which can be imported as `failures`."""

    folder: Path

    def module(self, name: str) -> ModuleType:
        return importlib.import_module(f"{self.folder.name}.{name}")

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_bytes())

    def graph(self, **body: object) -> dict[str, Any]:
        """Return the graph that a request to /picture becomes."""
        graph: dict[str, Any] = self.module("handlers.picture").build_picture_workflow(body)
        return graph

    def refusal(self, **body: object) -> list[tuple[tuple[int | str, ...], str]]:
        """Return where and why a request to /picture is refused."""
        with pytest.raises(ValidationError) as caught:
            self.graph(**body)
        return [(error["loc"], error["type"]) for error in caught.value.errors()]


@pytest.fixture(scope="module", name="build")
def _build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    project = tmp_path_factory.mktemp("project")
    (project / "workflows").mkdir()
    for name, text in WORKFLOWS.items():
        (project / "workflows" / f"{name}.yaml").write_text(text, encoding="utf-8")
    (project / "gpu.yaml").write_text(GPU, encoding="utf-8")
    (project / "models.yaml").write_text(MODELS, encoding="utf-8")
    folder = tmp_path_factory.mktemp("build") / "failures"
    import_rendered(project, folder)
    return Build(folder)


@pytest.fixture(scope="module", name="document")
def _document(build: Build) -> dict[str, Any]:
    """Return the OpenAPI document of the app, which no engine is behind."""
    create: Any = build.module("api").create_api
    document: dict[str, Any] = create(None, build.module("api").access_of("none", {})).openapi()
    return document


def test_row_8_models_that_no_input_names_are_there(build: Build) -> None:
    names = ["1k3d68", "2d106det", "genderage", "glintr100", "scrfd_10g_bnkps"]
    assert build.json("manifest.json")["routes"]["/face"]["models"] == names
    folder = "insightface/models/antelopev2"
    paths = [model["path"] for model in build.json("models.json")]
    assert paths == [f"{folder}/{name}.onnx" for name in names]


def test_row_11_only_packs_in_use_are_installed(build: Build) -> None:
    routes = build.json("manifest.json")["routes"]
    assert {name for name, route in routes.items() if route["packs"]} == {"/face"}
    image = (build.folder / "image.py").read_text("utf-8")
    assert "ComfyUI_InstantID" in image
    assert "Mine" not in image


def test_row_12_every_module_can_be_imported(build: Build) -> None:
    """And none takes another of them for an installed one."""
    own = {path.stem for path in build.folder.iterdir()}
    for path in sorted(build.folder.rglob("*.py")):
        name = ".".join(path.relative_to(build.folder).with_suffix("").parts)
        build.module(name.removesuffix(".__init__"))
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                assert own.isdisjoint(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert (node.module or "").partition(".")[0] not in own


def test_row_13_nine_endpoints_are_one_app(build: Build, document: dict[str, Any]) -> None:
    assert len(WORKFLOWS) == 9
    routes = set(build.json("manifest.json")["routes"])
    assert routes == {f"/{name}" for name in WORKFLOWS}
    assert routes <= set(document["paths"])


@pytest.mark.parametrize("name", WORKFLOWS)
def test_row_14_every_reply_says_its_cost(document: dict[str, Any], name: str) -> None:
    headers = document["paths"][f"/{name}"]["post"]["responses"]["200"]["headers"]
    assert {"X-Cost-USD", "X-Execution-Time-Sec", "X-GPU-Type"} <= set(headers)


@pytest.mark.parametrize("field", ["num_inference_steps", "Prompt", "scale_by"])
def test_row_15_unknown_fields_are_refused(build: Build, field: str) -> None:
    assert build.refusal(prompt="x", **{field: 1}) == [((field,), "extra_forbidden")]


def test_row_15_a_param_arrives(build: Build) -> None:
    assert build.graph(prompt="x", scale=3)["2"]["inputs"]["scale_by"] == 3


def test_row_16_a_missing_prompt_is_named(build: Build) -> None:
    assert build.refusal(scale=3) == [(("prompt",), "missing")]


def test_row_17_a_seed_of_0_is_a_seed(build: Build) -> None:
    assert build.graph(prompt="x", seed=0)["1"]["inputs"]["color"] == 0


def test_row_17_without_a_seed_it_differs(build: Build) -> None:
    """Which is what keeps benchmarks from measuring a cache, too (row 30)."""
    assert len({build.graph(prompt="x")["1"]["inputs"]["color"] for _ in range(8)}) > 1


def test_row_20_an_error_of_a_node_finds_its_line(build: Build) -> None:
    found = build.json("sourcemap.json")["/picture"]["2"]
    assert "ImageScaleBy" in PICTURE.splitlines()[found["line"] - 1]
    assert found["file"] == "workflows/picture.yaml"
    assert found["inputs"]["scale_by"]["params"] == ["scale"]


def test_row_24_the_graphs_that_tests_expect_are_checked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Against the node schemas, so that no test asks for a class that was invented."""
    graphs = sorted((ROOT / "tests" / "fixtures" / "test_workflows").glob("*.json"))
    assert graphs
    main(["lint", "--no-models", "--format", "json", *map(str, graphs)])
    found = json.loads(capsys.readouterr().out)
    assert [d for one in found for d in one["diagnostics"] if d["severity"] == "error"] == []


def test_row_26_no_template_shows(build: Build) -> None:
    for path in build.folder.rglob("*.py"):
        assert not re.search(r"\{\{|\{%|\{#", path.read_text(encoding="utf-8")), path
    assert "${" not in (build.folder / "handlers" / "picture.py").read_text(encoding="utf-8")


def test_row_29_nobody_is_let_in_by_default(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without keys the API does not start, and pages of other origins may not ask."""
    monkeypatch.delenv("API_KEYS", raising=False)
    with pytest.raises(ValueError, match="API_KEYS"):
        build.module("api").create_api(None)
    assert build.module("config").CORS_ORIGINS == []
