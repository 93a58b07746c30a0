"""Jobs of the backend on Modal: the tests that every backend must pass, on what is deployed."""

import time

import httpx
import pytest

from tests.jobs_contract import DEADLINE, MODELS_YAML, WORKFLOWS, JobsContract, Served

from .local import SECONDS, LocalModal
from .project import GPU_YAML, write_project

ANN = {"X-API-Key": "secret-of-ann"}


@pytest.fixture(scope="module")
def served(modal: LocalModal, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """The project on a preview engine in a worker, which is up."""
    project = write_project(
        tmp_path_factory.mktemp("jobs") / "it",
        "jobs",
        real=False,
        workflows=WORKFLOWS,
        models=MODELS_YAML,
        options=("--pace", "0.02", "--preview-method", "auto"),
        gpu=GPU_YAML.replace("deadline: 60", f"deadline: {DEADLINE}"),
    )
    model = modal.plane.volume_path("ryla-models") / "checkpoints" / "flux1-schnell-fp8.safetensors"
    model.parent.mkdir(exist_ok=True)
    model.touch()
    modal.deploy(project.folder)
    url = modal.url("jobs")
    limit = time.monotonic() + SECONDS
    while time.monotonic() < limit:
        reply = httpx.post(f"{url}/picture", json={"color": 0}, headers=ANN, timeout=SECONDS)
        if reply.status_code == 200:
            return Served(url)
        assert reply.status_code == 202, reply.text
    pytest.fail("no worker starts")


class TestModalBackend(JobsContract):
    """What every backend must do."""
