"""What happens to jobs when something fails around them: each ends once, and leaves nothing."""

import asyncio
from pathlib import Path

import httpx
import pytest

from .api_client import FLUX, Service, listening, serve

# Takes longer than any test waits, at PACE seconds a step.
PACE = 0.5
ENDLESS = {**FLUX, "steps": 100}


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
