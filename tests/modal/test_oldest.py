"""The oldest Modal SDK that pyproject.toml allows plans, deploys and runs the app too."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cached import python
from tests.test_upload import SDXL_LORA

from . import oldest
from .api import Deployed
from .conftest import SECRETS
from .local import LocalModal, local_modal
from .project import write_project
from .test_make_deploy import KEY, WORKFLOWS, deployed, generator, lock


@pytest.fixture(scope="module")
def modal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModal]:
    """A Modal whose clients and containers have the oldest SDK."""
    interpreter = python(oldest.install())
    with local_modal(tmp_path_factory.mktemp("modal"), SECRETS, interpreter) as found:
        yield found


def test_it_is_the_oldest(modal: LocalModal) -> None:
    command = [str(modal.python), "-c", "import modal; print(modal.__version__)"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == oldest.version() == "1.4.3"


def test_an_app_from_plan_to_stop(modal: LocalModal, tmp_path: Path) -> None:
    project = write_project(tmp_path / "it", "oldest", real=False, workflows=WORKFLOWS)
    lock(project)
    assert "nothing is deployed yet" in generator(modal, project, "plan").stdout
    said = deployed(modal, project, "--smoke", COMFYUI_API_KEY="secret-of-ann")
    assert f"deployed: {modal.url('oldest')}" in said
    api = Deployed(modal, project)
    assert api.check_picture().headers["x-gpu-type"] == "preview"
    job = api.start("/picture", {"color": 7})
    assert api.until(job, lambda found: found["status"] == "succeeded")["outputs"]
    assert api.ask("GET", f"/jobs/{job}", key=KEY["X-API-Key"]).status_code == 200
    style = tmp_path / "style.safetensors"
    style.write_bytes(SDXL_LORA)
    for sent in (0, 1):
        done = generator(modal, project, "upload", str(style), "--folder", "loras", "--any-family")
        assert done.returncode == sent, done.stderr
    assert "what is deployed is the same" in generator(modal, project, "plan").stdout
    for tag in ("manifest", "gateway", "L40sWorker.*"):
        assert modal.tasks("oldest", tag)
        assert "deprecat" not in api.log(tag).lower()
    assert generator(modal, project, "status").returncode == 0
    for more in ((), ("--follow",)):
        logs = generator(modal, project, "logs", *more)
        assert logs.returncode == 0, logs.stderr
        assert more or f'"event": "finished", "job": "{job}"' in logs.stdout
    back = generator(modal, project, "rollback", "v1")
    assert (back.returncode, "paid plan" in back.stderr) == (1, True), back.stderr
    assert generator(modal, project, "stop", "--yes").returncode == 0
    assert "nothing is deployed yet" in generator(modal, project, "plan").stdout
