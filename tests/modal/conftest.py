"""A Modal on this machine for the tests of this folder, collected only when they are named."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import install
from tests.jobs_contract import MODELS_YAML

from .local import LocalModal, local_modal
from .project import SLOW_SAMPLER, WORKFLOWS, Project, write_project
from .served import put_model

HERE = Path(__file__).parent
KEYS = "ann:secret-of-ann,bob:secret-of-bob"
HF_TOKEN = "hf_a-secret-token"
SECRETS = {"api-keys": {"API_KEYS": KEYS}, "huggingface": {"HF_TOKEN": HF_TOKEN}}


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave this folder out unless the command line names it or something in it."""
    start = config.invocation_params.dir
    named = any((start / arg.split("::")[0]).resolve().is_relative_to(HERE) for arg in config.args)
    return None if named else True


@pytest.fixture(scope="session")
def modal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModal]:
    """A Modal on which nothing is deployed yet."""
    with local_modal(tmp_path_factory.mktemp("modal"), SECRETS) as found:
        yield found


@pytest.fixture(scope="session")
def project(modal: LocalModal, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that is deployed, with a real ComfyUI where there is one."""
    folder = tmp_path_factory.mktemp("project") / "it"
    if install.folder().is_dir():
        project = write_project(folder)
    else:
        workflows = WORKFLOWS | {"slow": SLOW_SAMPLER}
        project = write_project(
            folder, workflows=workflows, models=MODELS_YAML, options=("--pace", "0.02")
        )
        put_model(modal)
    said = modal.deploy(project.folder)
    assert "deprecat" not in said.lower(), said
    return project
