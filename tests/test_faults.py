"""What happens to jobs when something fails around them: each ends once, and leaves nothing."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from generator.ports import free_port
from templates.gateway.backend import Room, Work
from templates.gateway.local import LocalBackend
from templates.utils.comfyui_files import Directories

from .api_client import FLUX, Service, import_rendered, listening, part, problem, serve
from .conftest import ROOT
from .faults_contract import FaultsContract, Mortal
from .jobs_contract import write_project
from .test_comfyui_offline import Fake

PACKAGE = "faults_package"

# Takes longer than any test waits, at PACE seconds a step.
PACE = 0.5
ENDLESS = {**FLUX, "steps": 100}


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    """A preview engine in a process of its own."""
    folder = tmp_path_factory.mktemp("faults")
    import_rendered(write_project(folder / "project"), folder / PACKAGE)
    base, port = folder / "base", free_port()
    base.mkdir()
    command = [sys.executable, "-m", "generator.preview", "--port", str(port)]
    command += ["--base-directory", str(base), "--comfyui", "0.3.71", "--no-packs"]
    command += ["--model", "checkpoints/flux1-schnell-fp8.safetensors"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = Mortal(command, base, port, PACKAGE, env=env)
    try:
        yield found
    finally:
        found.end()


class TestPreviewEngine(FaultsContract):
    """What jobs make of what happens to their engine."""


# Callers that go away


@pytest.mark.parametrize("asked_for", [True, False])
def test_a_run_ends_with_the_last_caller_that_wants_it(tmp_path: Path, asked_for: bool) -> None:
    """One that leaves takes its own run along, and not one that another has asked for."""

    async def test(service: Service) -> None:
        async with listening(service.app) as url, httpx.AsyncClient(base_url=url) as client:
            posting = asyncio.create_task(client.post("/flux", json=ENDLESS, timeout=0.5))
            while not service.backend.works:
                await asyncio.sleep(0.01)
            job = service.backend.works[0].job
            if asked_for:
                await service.until(job, "running")
            with pytest.raises(httpx.ReadTimeout):
                await posting
            if asked_for:
                await asyncio.sleep(0.3)
                assert (await client.delete(f"/jobs/{job}")).json()["status"] == "cancelled"
            else:
                async with asyncio.timeout(5):
                    while (await service.backend.wait(job, 1)).status != "cancelled":
                        await asyncio.sleep(0.01)

    serve(tmp_path, test, pace=PACE)


# Memory that is used up


def test_the_engine_of_another_is_asked_to_free_its_memory(tmp_path: Path) -> None:
    """It is not ours to start again."""

    async def run() -> None:
        graph = {"1": {"class_type": "SaveImage", "inputs": {}}}
        async with Fake() as fake, LocalBackend(fake.url, Directories.below(tmp_path)) as backend:
            work = Work("job", "/it", graph, {}, None, "l40s", 20.0)
            await backend.submit(work, Room(1, 0))
            while not fake.prompts:
                await asyncio.sleep(0.01)
            await fake.say(
                "execution_error",
                prompt_id=fake.prompts[0]["prompt_id"],
                node_id="1",
                node_type="SaveImage",
                exception_type="torch.OutOfMemoryError",
                exception_message="CUDA out of memory.",
                traceback=[],
                timestamp=0,
            )
            job = await backend.wait("job", 10)
            assert job.failure is not None
            assert job.failure.code == "engine-out-of-memory"
            assert fake.posted == [("free", {"unload_models": True, "free_memory": True})]

    asyncio.run(asyncio.wait_for(run(), 20))


# Disks that are full

# Mounts a file system of this size at a folder, and runs a command that nobody else sees it from.
ON_SMALL_DISK = 'mount -t tmpfs -o size=2m none "$0" && exec "$@"'


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    small = ["unshare", "--map-root-user", "--mount", "sh", "-c", ON_SMALL_DISK, str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*small, "true"], check=False).returncode:
        pytest.skip("this machine lets nobody mount a file system")
    command = [sys.executable, "-W", "error", "-m", "tests.full_disk", str(tmp_path)]
    done = subprocess.run([*small, *command], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("prefer", ["respond-async", "wait=60"])
def test_who_cannot_be_told_how_a_job_is_learns_which(tmp_path: Path, prefer: str) -> None:
    """It goes on, and whoever would send it again would pay for it twice."""
    unavailable = part("build", "gateway.backend").BackendUnavailableError

    async def test(service: Service) -> None:
        wait = service.backend.backend.wait

        async def failing(job: str, seconds: float) -> Any:  # noqa: ARG001
            raise unavailable("Modal does not answer")

        service.backend.wait = failing  # type: ignore[attr-defined]
        reply = await service.client.post("/flux", json=FLUX, headers={"Prefer": prefer})
        service.backend.wait = wait  # type: ignore[attr-defined]
        problem(reply, 503, "engine-unreachable")
        job = reply.json()["job"]
        assert reply.headers["x-job-id"] == job
        assert (await service.until(job, "succeeded"))["outputs"]

    serve(tmp_path, test)
