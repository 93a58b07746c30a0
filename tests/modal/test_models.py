"""Models on Modal: the download function fills its Volume, and a warm worker gets new LoRAs."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from generator.lock import Lock, LockedModel, inputs_of_images, write_lock
from generator.preview.folders import demo_lora
from generator.project import load_project
from tests.hub_server import HubServer, Repo, commit_of, hub_server
from tests.test_downloads import sha256
from tests.test_upload import SDXL_LORA

from .local import LocalModal, local_modal
from .project import Project, write_project

APP = "modal-models"
WORKER = "L40sWorker.*"
TOKEN = "hf_a-secret-token"
REPO = "acme/gated"
FILES = {
    "unet": ("diffusion_models", "flux.safetensors"),
    "clip": ("text_encoders", "clip_l.safetensors"),
    "t5": ("text_encoders", "t5xxl.safetensors"),
    "vae": ("vae", "ae.safetensors"),
}
MODELS_YAML = "models:\n" + "".join(
    f"  {name}: {{source: {{hf: {REPO}, file: {file}}}, folder: {folder}, family: flux, gated: true}}\n"
    for name, (folder, file) in FILES.items()
)
# As large as the demo, with one weight that is not 0.
CHANGED_LORA = demo_lora()[:-2] + b"\0\x3c"
WORKFLOW = """\
params:
  lora: {type: model, folder: loras}
  seed: {type: seed}
graph:
  1: {class_type: UNETLoader, inputs: {unet_name: flux.safetensors, weight_dtype: default}}
  2:
    class_type: DualCLIPLoader
    inputs: {clip_name1: t5xxl.safetensors, clip_name2: clip_l.safetensors, type: flux}
  3: {class_type: VAELoader, inputs: {vae_name: ae.safetensors}}
  4:
    class_type: LoraLoader
    inputs: {model: [1, 0], clip: [2, 0], lora_name: "${lora}", strength_model: 1, strength_clip: 1}
  5: {class_type: CLIPTextEncode, inputs: {clip: [4, 1], text: a red fox}}
  6: {class_type: EmptySD3LatentImage, inputs: {width: 64, height: 64, batch_size: 1}}
  7:
    class_type: KSampler
    inputs: {model: [4, 0], positive: [5, 0], negative: [5, 0], latent_image: [6, 0], seed: "${seed}",
             steps: 1, cfg: 1, sampler_name: euler, scheduler: simple, denoise: 1}
  8: {class_type: VAEDecode, inputs: {samples: [7, 0], vae: [3, 0]}}
  9: {class_type: SaveImage, inputs: {images: [8, 0], filename_prefix: x}}
"""


@dataclass(frozen=True)
class Deployed:
    modal: LocalModal
    project: Project
    hub: HubServer

    @property
    def files(self) -> dict[str, bytes]:
        [files] = self.hub.repos[REPO].revisions.values()
        return files

    def post(self, lora: str) -> httpx.Response:
        return httpx.post(
            f"{self.modal.url(APP)}/it",
            json={"lora": lora},
            headers={"X-API-Key": "secret"},
            timeout=60,
        )

    def upload(self, file: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "generator", "upload", "--folder", "loras", str(file)]
        run = subprocess.run(
            [*command, "--project", str(self.project.folder), *arguments],
            env=self.modal.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """An app whose models are on a hub that asks for a token, and locked."""
    with hub_server() as hub:
        files = {file: name.encode() * 100_000 for name, (_, file) in FILES.items()}
        commit = commit_of("x")
        hub.repos[REPO] = Repo({commit: files}, token=TOKEN, gated=True)
        secrets = {
            "api-keys": {"API_KEYS": "ann:secret"},
            "huggingface": {"HF_TOKEN": TOKEN, "HF_ENDPOINT": hub.url},
        }
        with local_modal(tmp_path_factory.mktemp("modal"), secrets) as modal:
            project = write_project(
                tmp_path_factory.mktemp("project") / "it",
                APP,
                real=False,
                workflows={"it": WORKFLOW},
                models=MODELS_YAML,
            )
            settings = load_project(project.folder)[0].settings
            assert settings is not None
            locked = {
                name: LockedModel(
                    name,
                    {"hf": REPO, "file": file},
                    commit,
                    len(files[file]),
                    sha256(files[file]),
                    True,
                )
                for name, (_, file) in FILES.items()
            }
            lock = Lock(models=locked, resolved=inputs_of_images(settings, {"": ()}))
            assert write_lock(lock, project.folder)
            project.render()
            modal.deploy(project.folder)
            yield Deployed(modal, project, hub)


def test_models_and_loras(deployed: Deployed, tmp_path: Path) -> None:
    """From an empty Volume to a LoRA that a warm worker gets, without a second deploy."""
    modal, folder = deployed.modal, deployed.project.folder
    style = tmp_path / "style.safetensors"
    style.write_bytes(demo_lora())

    # A worker without its models says so, and wakes for nothing else.
    deployed.upload(style)
    problem = deployed.post("style.safetensors")
    assert problem.status_code == 503
    assert "model clip: it is not downloaded" in problem.json()["detail"]
    modal.scale_down(APP, WORKER)
    modal.cli("run", "-m", "build.app::download", cwd=folder)
    cache = modal.plane.volume_path("hf-hub-cache")
    data = {path.name: path.read_bytes() for path in (cache / "verified").iterdir()}
    assert data == {sha256(one): one for one in deployed.files.values()}
    assert deployed.hub.sent() == sum(map(len, data.values()))
    assert TOKEN not in modal.log(APP, "download")

    assert deployed.post("style.safetensors").status_code == 200
    models = deployed.project.comfyui / "models"
    linked = {file: (models / where / file).read_bytes() for where, file in FILES.values()}
    assert linked == deployed.files
    warm = modal.tasks(APP, WORKER)

    # What comes later is for the next request; what is wrong wakes no worker.
    assert deployed.post("late.safetensors").status_code == 404
    deployed.upload(style, "--name", "late.safetensors")
    assert deployed.post("late.safetensors").status_code == 200
    assert (models / "loras" / "late.safetensors").read_bytes() == demo_lora()
    # So is what replaces it, under a name that ComfyUI has not loaded.
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(CHANGED_LORA)
    deployed.upload(changed, "--name", "late.safetensors", "--force")
    assert deployed.post("late.safetensors").status_code == 200
    [newest] = (models / "loras").glob("late.*.safetensors")
    assert newest.read_bytes() == CHANGED_LORA
    assert (models / "loras" / "late.safetensors").read_bytes() == demo_lora()
    other = tmp_path / "other.safetensors"
    other.write_bytes(SDXL_LORA)
    deployed.upload(other, "--any-family")
    problem = deployed.post("other.safetensors")
    assert (problem.status_code, problem.json()["code"]) == (422, "bad-model")
    assert modal.tasks(APP, WORKER) == warm


def test_what_is_there_is_not_downloaded_again(deployed: Deployed) -> None:
    deployed.modal.cli("run", "-m", "build.app::download", cwd=deployed.project.folder)
    deployed.hub.asked.clear()
    deployed.modal.cli("run", "-m", "build.app::download", cwd=deployed.project.folder)
    assert deployed.hub.asked == []


def test_why_a_model_cannot_be_had(deployed: Deployed) -> None:
    """It is the error of `modal run`, all of it, without the token."""
    deployed.modal.cli("run", "-m", "build.app::download", cwd=deployed.project.folder)
    build = deployed.project.build / "models.json"
    before = build.read_text()
    models = json.loads(before)
    for model in models:
        model["sha256"] = sha256(model["name"].encode())
    build.write_text(json.dumps(models))
    said = deployed.modal.cli(
        "run", "-m", "build.app::download", cwd=deployed.project.folder, check=False
    )
    build.write_text(before)
    for name in FILES:
        assert f"model {name}: its SHA-256 is" in said
    assert TOKEN not in said
