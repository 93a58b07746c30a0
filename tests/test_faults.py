"""What happens to jobs when something fails around them: each ends once, and leaves nothing."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from generator.ports import free_port

from .api_client import FLUX, Service, import_rendered, listening, serve
from .conftest import ROOT
from .faults_contract import FaultsContract, Mortal
from .jobs_contract import write_project

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
