"""Idempotency keys over two gateway containers, one of which stalls or dies."""

import asyncio
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from grpclib import GRPCError, Status

from .api import Deployed, new_color, wait_until
from .containers import Task
from .local import LocalModal
from .served import serve

LEASE = 5.0


@pytest.fixture(scope="module")
def api(modal: LocalModal, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """The project on a preview engine in a worker, which is up."""
    return serve(modal, tmp_path_factory.mktemp("keys") / "it", "keys")


@pytest.fixture(autouse=True)
def _two_gateways(api: Deployed) -> Iterator[None]:
    up = [task for task in gateways(api) if task.is_up and not task.retiring]
    for _ in range(2 - len(up)):
        api.modal.start(api.project.app, "gateway")
    before = {task.id: task.inputs for task in gateways(api)}
    wait_until(
        lambda: (
            api.get("/health").status_code == 200
            and sum(t.inputs > before[t.id] for t in gateways(api) if t.is_up) == 2
        ),
        30,
        "the second gateway takes nothing",
    )
    yield
    api.modal.plane.before_call = None


def gateways(api: Deployed) -> list[Task]:
    """Return all gateway containers that there have been."""
    return api.modal.tasks(api.project.app, "gateway")


def runs(api: Deployed) -> int:
    """Return how many runs ComfyUI has had."""
    url = f"http://127.0.0.1:{api.port}/history?max_items=10000"
    return len(httpx.get(url, timeout=30).json())


def test_many_requests_at_once(api: Deployed) -> None:
    """They all get one job, whichever gateway they come to."""
    before = {task.id: task.inputs for task in gateways(api)}
    runs_before, calls = runs(api), api.modal.plane.calls["FunctionMap"]
    body = {"color": new_color()}
    with ThreadPoolExecutor(12) as pool:
        replies = list(
            pool.map(lambda _: api.post("/picture", body, idempotency_key="many"), range(12))
        )
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.headers["x-job-id"] for reply in replies}) == 1
    assert len({reply.content for reply in replies}) == 1
    assert runs(api) == runs_before + 1
    assert api.modal.plane.calls["FunctionMap"] == calls + 1
    assert sum(task.inputs > before[task.id] for task in gateways(api)) == 2


def test_the_first_is_killed_before_it_calls_a_worker(api: Deployed) -> None:
    """Whoever asks again gets the job within seconds, and it runs once."""
    body = {"color": new_color()}
    runs_before = runs(api)
    killed: list[str] = []

    async def kill() -> None:
        if killed:
            return
        [task] = [task for task in gateways(api) if task.is_up and task.active]
        killed.append(task.id)
        task.process.send_signal(signal.SIGKILL)
        await task.process.wait()
        raise GRPCError(Status.CANCELLED)

    api.modal.plane.before_call = kill
    try:
        first = api.post("/picture", body, idempotency_key="killed")
    except httpx.HTTPError:
        pass
    else:
        assert first.status_code >= 500
    assert killed
    start = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        replies = list(
            pool.map(lambda _: api.post("/picture", body, idempotency_key="killed"), range(4))
        )
    assert time.monotonic() - start < LEASE + 5
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.headers["x-job-id"] for reply in replies}) == 1
    assert runs(api) == runs_before + 1


def test_the_first_stalls_before_it_calls_a_worker(api: Deployed) -> None:
    """Another takes over; when the first goes on, its call is not run."""
    body = {"color": new_color()}
    runs_before = runs(api)
    stalled: list[None] = []

    async def stall() -> None:
        if not stalled:
            stalled.append(None)
            await asyncio.sleep(LEASE + 3)

    api.modal.plane.before_call = stall
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(api.post, "/picture", body, idempotency_key="stalled")
        wait_until(lambda: stalled, 10, "nobody calls a worker")
        again = api.post("/picture", body, idempotency_key="stalled")
        assert not first.done()
        assert again.status_code == 200, again.text
        assert first.result().status_code == 200, first.result().text
    assert first.result().headers["x-job-id"] == again.headers["x-job-id"]
    assert first.result().content == again.content
    assert runs(api) == runs_before + 1
