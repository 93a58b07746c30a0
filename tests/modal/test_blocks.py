"""The commands of README and docs that ask Modal, run on the Modal of this machine, in one project.

They run as they are written, the deploys after what the pages say is needed once.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from generator.preview.folders import demo_lora
from generator.schema import schema
from tests.blocks import Command, Way, all_commands, commands
from tests.conftest import ROOT
from tests.hub_server import hub_server
from tests.sources import Sources
from tests.test_blocks import set_up
from tests.test_ci import STARTER, step

from .local import SECONDS, LocalModal, local_modal
from .project import GPU_YAML, Project, write_project

WORKFLOW = """\
summary: A picture of one colour, beside a model
params:
  color: {type: integer, minimum: 0, examples: [7]}
graph:
  1:
    class_type: EmptyImage
    inputs: {width: 32, height: 16, batch_size: 1, color: "${color}"}
  2:
    class_type: SaveImage
    inputs: {images: [1, 0], filename_prefix: picture}
  3:
    class_type: UpscaleModelLoader
    inputs: {model_name: small.safetensors}
  4:
    class_type: ImageUpscaleWithModel
    inputs: {upscale_model: [3, 0], image: [1, 0]}
  5:
    class_type: SaveImage
    inputs: {images: [4, 0], filename_prefix: large}
"""
MODELS = """\
models:
  small:
    source: {hf: example/small, file: small.safetensors}
    folder: upscale_models
"""


@pytest.fixture(name="modal")
def _modal(tmp_path: Path) -> Iterator[LocalModal]:
    """A workspace without Secrets."""
    with local_modal(tmp_path / "modal") as found:
        yield found


@pytest.fixture(name="project")
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project that is not locked, and what `make lock` asks, on this machine."""
    sources = Sources(tmp_path / "sources", monkeypatch)
    for pin in schema("gpu")["properties"]["requirements"]["default"]:
        name, _, version = pin.partition("==")
        sources.wheel(name, version)
    comfyui = sources.commit("comfyanonymous/ComfyUI", requirements_txt="")
    with hub_server() as hub:
        hub.add("example/small", {"small.safetensors": b"small" * 1000})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        project = write_project(
            tmp_path / "it",
            "as-documented",
            real=False,
            workflows={"picture": WORKFLOW},
            models=MODELS,
            gpu=GPU_YAML.replace("{commit}", comfyui),
        )
        for name in ("Makefile", "pyproject.toml"):
            (project.folder / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
        set_up(project.folder)
        (project.folder / "style.safetensors").write_bytes(demo_lora())
        yield project


def run(command: Command, modal: LocalModal, project: Project) -> str:
    done = subprocess.run(
        ["/bin/sh", "-ec", command.text],
        cwd=project.folder,
        env=modal.environment | {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command.text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_what_pages_show_of_modal(modal: LocalModal, project: Project) -> None:
    """README's commands in order, which make the Secrets, lock, plan and deploy; then the others."""
    first = [one for one in commands(ROOT / "README.md") if one.way is Way.MODAL]
    texts = {" ".join(one.text.partition("#")[0].split()) for one in first}
    others = {
        " ".join(one.text.partition("#")[0].split()): one
        for one in all_commands()
        if one.way is Way.MODAL
    }
    for one in first:
        run(one, modal, project)
    assert modal.plane.deployments == 1
    url = modal.url(project.app)
    reply = httpx.post(
        f"{url}/picture", json={"color": 1}, headers={"X-API-Key": "KEY"}, timeout=SECONDS
    )
    assert reply.status_code == 200
    for text, one in others.items():
        if text in texts:
            continue
        if "secret create" in text and "--force" not in text:
            name = text.split()[3]
            del modal.plane.named_secrets[name]
        run(one, modal, project)
    assert modal.plane.named_secrets["api-keys"] == {"API_KEYS": "ann:KEY,bob:KEY,eve:KEY"}
    uploaded = modal.plane.volume_path("ryla-models") / "loras" / "style.safetensors"
    assert uploaded.read_bytes() == demo_lora()


def test_the_deploy_of_the_workflow_for_github(modal: LocalModal, project: Project) -> None:
    """It deploys with the token of the job's environment; what breaks callers, when told to alone."""
    file = project.folder / ".github" / "workflows" / "service.yml"
    file.parent.mkdir(parents=True)
    file.write_text((STARTER / "service.yml").read_text("utf-8"), "utf-8")
    modal.plane.named_secrets |= {
        "api-keys": {"API_KEYS": "ann:KEY"},
        "huggingface": {"HF_TOKEN": "x"},
    }
    run(Command("", "make lock"), modal, project)
    variables = modal.environment | {"PYTHONPATH": str(ROOT)}
    done = step(project.folder, "deploy", "Deploy", **variables | {"ALLOW_BREAKING": "0"})
    assert (done.returncode, modal.plane.deployments) == (0, 1), done.stderr
    project.replace(
        "workflows/picture.yaml", ("{type: integer, minimum: 0", "{type: integer, minimum: 5")
    )
    done = step(project.folder, "deploy", "Deploy", **variables | {"ALLOW_BREAKING": "0"})
    assert (done.returncode != 0, modal.plane.deployments) == (True, 1)
    assert "[breaks callers]" in done.stdout
    done = step(project.folder, "deploy", "Deploy", **variables | {"ALLOW_BREAKING": "1"})
    assert (done.returncode, modal.plane.deployments) == (0, 2), done.stderr
