"""Faults planted in a rendered app: each must turn red what the other tests here hold an app to."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .api import Deployed
from .local import LocalModal
from .project import Project, write_project
from .test_deploy import check_registered

Check = Callable[[LocalModal, Project], None]


def check_serves(modal: LocalModal, project: Project) -> None:
    """See that what is deployed makes a picture."""
    api = Deployed(modal, project)
    health = api.get("/health")
    assert health.status_code == 200
    assert health.json()["app"] == project.app
    api.check_picture()


def missing_module(project: Project) -> None:
    (project.build / "gateway" / "replies.py").unlink()


def missing_data(project: Project) -> None:
    project.replace("build/image.py", ('"**/__pycache__"])\n', '"**/__pycache__", "**/*.json"])\n'))


def wrong_volume(project: Project) -> None:
    project.replace("build/app.py", ('from_name("hf-hub-cache"', 'from_name("hf-cache"'))


def leaked_token(project: Project) -> None:
    secret = 'modal.Secret.from_name("huggingface", required_keys=["HF_TOKEN"])'
    project.replace("build/app.py", ('"secrets": [],', f'"secrets": [{secret}],'))


def wrong_gpu(project: Project) -> None:
    project.replace("build/app.py", ('gpu=["L40S", ', 'gpu=["T4", '))


def dead_engine(project: Project) -> None:
    project.replace("build/worker.py", ('"main.py"', '"main_.py"'))


def deaf_worker(project: Project) -> None:
    """The gateway asks for another worker than there is."""
    project.replace("build/app.py", ('("l40s", ""): L40sWorker', '("l4", ""): L40sWorker'))


def closed_gateway(project: Project) -> None:
    project.replace("build/app.py", ("requires_proxy_auth=False", "requires_proxy_auth=True"))


@pytest.mark.parametrize(
    ("plant", "check"),
    [
        (missing_module, check_serves),
        (missing_data, check_serves),
        (wrong_volume, check_registered),
        (leaked_token, check_registered),
        (wrong_gpu, check_registered),
        (dead_engine, check_serves),
        (deaf_worker, check_serves),
        (closed_gateway, check_serves),
    ],
    ids=lambda value: value.__name__.replace("_", " "),
)
def test_a_planted_fault_is_found(
    modal: LocalModal, tmp_path: Path, plant: Callable[[Project], None], check: Check
) -> None:
    project = write_project(tmp_path / "it", plant.__name__.replace("_", "-"), real=False)
    plant(project)
    modal.deploy(project.folder)
    with pytest.raises((AssertionError, ValueError)):
        check(modal, project)


def test_a_sound_app_passes(modal: LocalModal, tmp_path: Path) -> None:
    """So that it is the fault that the checks above fail by."""
    project = write_project(tmp_path / "it", "sound", real=False)
    modal.deploy(project.folder)
    check_registered(modal, project)
    check_serves(modal, project)
