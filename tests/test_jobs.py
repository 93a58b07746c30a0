"""Jobs of the backend on this machine."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from .api_client import import_rendered, listening, part, service
from .jobs_contract import KEYS, JobsContract, Served, write_project

PACKAGE = "jobs_package"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The project on a preview engine, in a thread of its own."""
    folder = tmp_path_factory.mktemp("jobs")
    import_rendered(write_project(folder / "project"), folder / PACKAGE)
    access = part(PACKAGE, "gateway.access").ApiKeys(KEYS)
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        async with (
            service(folder / "base", package=PACKAGE, access=access, pace=0.02) as found,
            listening(found.app) as url,
        ):
            started.set_result((url, asyncio.get_running_loop(), stop))
            await stop.wait()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(asyncio.run, run())
        running.add_done_callback(lambda _: started.cancel())
        url, loop, stop = started.result(20)
        yield Served(url)
        loop.call_soon_threadsafe(stop.set)
        running.result()


class TestLocalBackend(JobsContract):
    """What every backend must do."""
