"""A real ComfyUI that dies, hangs and loses connections."""

from collections.abc import Iterator

import pytest

from tests.api_client import import_rendered
from tests.faults_contract import FaultsContract, Mortal
from tests.jobs_contract import write_project

from .conftest import prepare

PACKAGE = "faults_of_comfyui"


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    """A ComfyUI of these tests alone."""
    folder = tmp_path_factory.mktemp("faults")
    import_rendered(write_project(folder / "project", real=True), folder / PACKAGE)
    engine = prepare(folder / "base")
    found = Mortal(
        engine.command, engine.base, engine.port, PACKAGE, sampler="ProbeSleep", env=engine.env
    )
    try:
        yield found
    finally:
        found.end()


class TestComfyUI(FaultsContract):
    """What jobs make of what happens to their engine."""
