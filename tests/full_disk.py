"""What the API makes of a disk that is full, on one that is: python -m tests.full_disk FOLDER.

`FOLDER` is a file system of a few megabytes, which test_faults.py mounts where nobody else sees it.
"""

import asyncio
import base64
import os
import random
import sys
import tempfile
from pathlib import Path

from .api_client import FLUX, Service, png, problem, service

LARGE = 3 * 2**20


def fill(folder: Path) -> Path:
    """Use up all the room that there is, and return the file that does."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**16, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


def files(base: Path) -> list[Path]:
    """Return the files of runs."""
    return [path for name in ("output", "input", "temp") for path in (base / name).rglob("*.*")]


async def check(folder: Path, found: Service) -> None:
    """See that each file that finds no room is said, and leaves nothing."""
    client = found.client
    image = {"image": base64.b64encode(png()).decode()}
    filler = fill(folder)
    # An input of the engine's.
    document = problem(await client.post("/seedvr2", json=image), 507, "disk-full")
    assert (await client.get(f"/jobs/{document['job']}")).json()["problem"] == document
    # What a node writes.
    document = problem(await client.post("/flux", json=FLUX), 507, "disk-full")
    assert (document["node"], document["file"]) == ("9", "workflows/flux.yaml"), document
    # An upload, which is too large for memory.
    upload = {"image": ("large.png", random.randbytes(LARGE), "image/png")}
    problem(await client.post("/seedvr2", files=upload), 507, "disk-full")
    assert (await client.get("/ready")).status_code == 200
    # An output that is to be kept on disk stays in memory.
    filler.unlink()
    jobs = [await found.started("/flux", {**FLUX, "seed": seed, "steps": 5}) for seed in range(2)]
    await found.until(jobs[0], "succeeded")
    tempfile.tempdir = str(folder / "gone")
    await found.until(jobs[1], "succeeded")
    for job in jobs:
        reply = await client.get(f"/jobs/{job}/outputs/0")
        assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
    tempfile.tempdir = str(folder / "temporary")
    assert (await client.post("/seedvr2", json=image)).status_code == 200
    while files(folder / "base"):
        await asyncio.sleep(0.05)


async def main(folder: Path) -> None:
    """Run the API, with all of its files in the folder."""
    for name in ("base", "temporary"):
        (folder / name).mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "temporary")
    async with asyncio.timeout(60), service(folder / "base", most_in_memory=10) as found:
        await check(folder, found)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
