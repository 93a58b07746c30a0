"""Jobs of the backend on this machine, on a real ComfyUI."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI

from tests.api_client import asked, import_rendered, in_thread, new_app, part
from tests.jobs_contract import KEYS, JobsContract, Served, write_project

from .conftest import Installed
from .install import COMFYUI_VERSION

PACKAGE = "jobs_of_comfyui"


@pytest.fixture(autouse=True)
def _no_sockets_left() -> None:
    """Sockets are not counted here: the service, in this process, closes its own a moment later."""


@pytest.fixture(scope="module")
def served(engine: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The project on the ComfyUI of the tests."""
    folder = tmp_path_factory.mktemp("jobs")
    import_rendered(write_project(folder / "project", real=True), folder / PACKAGE)
    access = part(PACKAGE, "gateway.access").ApiKeys(KEYS)

    @asynccontextmanager
    async def app() -> AsyncIterator[FastAPI]:
        local = part(PACKAGE, "gateway.local").LocalBackend(engine.url, engine.directories)
        async with local as backend:
            found = new_app(PACKAGE, backend, access)
            async with asked(found):
                yield found

    with in_thread(app()) as url:
        yield Served(url, f"comfyui/{COMFYUI_VERSION}", "ProbeSleep")


class TestComfyUI(JobsContract):
    """What every backend must do."""
