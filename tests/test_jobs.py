"""Jobs of the backend on this machine."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI

from .api_client import import_rendered, in_thread, part, service
from .jobs_contract import KEYS, JobsContract, Served, write_project

PACKAGE = "jobs_package"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The project on a preview engine."""
    folder = tmp_path_factory.mktemp("jobs")
    import_rendered(write_project(folder / "project"), folder / PACKAGE)
    access = part(PACKAGE, "gateway.access").ApiKeys(KEYS)

    @asynccontextmanager
    async def app() -> AsyncIterator[FastAPI]:
        serving = service(folder / "base", package=PACKAGE, access=access, pace=0.02, previews=True)
        async with serving as found:
            yield found.app

    with in_thread(app()) as url:
        yield Served(url)


class TestLocalBackend(JobsContract):
    """What every backend must do."""
