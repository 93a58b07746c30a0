"""The project of the tests that every backend must pass, deployed."""

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.jobs_contract import DEADLINE, MODELS_YAML, WORKFLOWS

from .api import Deployed
from .local import SECONDS, LocalModal
from .project import GPU_YAML, write_project


def put_model(modal: LocalModal) -> None:
    """Put the model that a preview engine takes its time with on its Volume."""
    model = modal.plane.volume_path("ryla-models") / "checkpoints" / "flux1-schnell-fp8.safetensors"
    model.parent.mkdir(exist_ok=True)
    model.touch()


def serve(
    modal: LocalModal,
    folder: Path,
    app: str,
    *,
    limits: str = "",
    more: Mapping[str, str] | None = None,
) -> Deployed:
    """Deploy the project on a preview engine, and return it once a worker is up.

    `limits` stands in its gpu.yaml; `more` are workflows by their names.
    """
    project = write_project(
        folder,
        app,
        real=False,
        workflows=WORKFLOWS | dict(more or {}),
        models=MODELS_YAML,
        options=("--pace", "0.02", "--preview-method", "auto"),
        gpu=GPU_YAML.replace("deadline: 60", f"deadline: {DEADLINE}, operators: [bob]") + limits,
    )
    put_model(modal)
    modal.deploy(project.folder)
    deployed = Deployed(modal, project)
    limit = time.monotonic() + SECONDS
    while time.monotonic() < limit:
        reply = deployed.post("/picture", {"color": 0})
        if reply.status_code == 200:
            return deployed
        assert reply.status_code == 202, reply.text
        # With a limit on jobs, there is room for no more of these.
        deployed.until(reply.json()["job"], lambda job: job["status"] == "succeeded")
    pytest.fail("no worker starts")
