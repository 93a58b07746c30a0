"""Thousands of jobs of all sorts, with an engine that is killed now and then: what is left of it.

    python -m bench.soak [--preview 2000] [--comfyui 300] [--every 200]

The API runs in a process of its own. Callers, eight at a time, ask it for pictures, wait for some and
ask again for others, ask for some twice with one key, listen to runs and leave in mid-run, send what is
wrong, what fails and what takes too long, and cancel that; after every 200 jobs the engine is killed in
the midst of one, and started again. First on the preview engine,
then on a real ComfyUI on the CPU.

Every job must end in the one state that it is to end in, and still be in it at the end. At the end, the
engine has nothing to do and no file; the API's process holds tasks, sockets and files as at the start,
and its memory is at most 10 % and 20 MB above what it was after a tenth of the jobs. Prints what was
counted and measured; exits 1 when a bound is broken.
"""

import argparse
import asyncio
import io
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
from PIL import Image

from .mortal import KINDS, Mortal, engine, service

CALLERS: Final = 8
# At least that many of the last jobs are kept; some are of callers that left, and not counted here.
KEPT: Final = 800
SECONDS: Final = 300.0
# Connections that nobody uses are closed by then.
CALM_SECONDS: Final = 40.0
MEMORY_SHARE: Final = 1.1
MEMORY_MB: Final = 20.0
MEGABYTE: Final = 2**20
FINAL: Final = ("succeeded", "failed", "cancelled")

Body = dict[str, Any]


class SoakError(Exception):
    """A job did not end as it should; the text says how."""


@dataclass
class Soak:
    """The callers of one API; `ended` has how each job ended, in the order in which they did."""

    client: httpx.AsyncClient
    mortal: Mortal
    every: int
    ended: dict[str, tuple[str, int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    held: dict[str, Body] = field(default_factory=dict)

    async def run(self, jobs: int) -> None:
        """Send all jobs, and see that they end as they should."""
        await self._do(0)
        await asyncio.sleep(1)
        self.held["start"] = await self._held()
        numbers = iter(range(1, jobs))
        first = jobs // 10

        async def call() -> None:
            for number in numbers:
                if number == first:
                    self.held[f"after {first}"] = await self._held()
                if number % self.every == 0:
                    asyncio.get_running_loop().call_later(0.05, self.mortal.process.kill)
                try:
                    await self._do(number)
                except (SoakError, httpx.HTTPError, KeyError) as error:
                    self.faults.append(f"job {number}: {error!r}")

        await asyncio.gather(*(call() for _ in range(CALLERS)))
        self.held[f"after {jobs}"] = await self._held()
        await self._check_ended()

    async def calm(self) -> None:
        """Note what is left when nobody asks any more."""
        limit = time.monotonic() + CALM_SECONDS
        while True:
            self.held["at the end"] = held = await self._held()
            start = self.held["start"]
            if time.monotonic() > limit or all(held[k] <= start[k] for k in held if k != "memory"):
                break
            await asyncio.sleep(0.5)
        async with httpx.AsyncClient(timeout=SECONDS) as client:
            queue = (await client.get(f"{self.mortal.url}/queue")).json()
        left = len(queue["queue_running"]) + len(queue["queue_pending"])
        if left:
            self.faults.append(f"{left} prompts are left at the engine")
        for name in ("output", "temp", "input"):
            if files := [p for p in Path(self.mortal.base, name).rglob("*") if p.is_file()]:
                self.faults.append(f"{len(files)} files are left in {name}/, such as {files[0]}")

    async def _do(self, number: int) -> None:
        kinds: list[Callable[[int], Awaitable[None]]] = [
            self._picture, self._later, self._failing, self._twice, self._cancelled,
            self._several, self._heard, self._wrong, self._left, self._picture,
        ]  # fmt: skip
        await kinds[number % len(kinds)](number)

    async def _ask(self, path: str, body: Body, **headers: str) -> httpx.Response:
        """Ask until there is an engine, as a good client does."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        while True:
            reply = await self.client.post(path, json=body, headers=named)
            if reply.status_code != 503:
                return reply
            self.counts["refused for want of an engine, and asked again"] += 1
            await asyncio.sleep(0.5)

    async def _picture(self, number: int) -> None:
        """A picture for a caller that waits."""
        await self._check_reply(await self._ask("/picture", {"color": number}), number)

    async def _check_reply(self, reply: httpx.Response, number: int) -> None:
        if reply.status_code == 202:
            # The deadline came first: an engine was away.
            await self._check_picture(reply.json()["job"], number)
            return
        if reply.status_code != 200 or not _shows(reply.content, number):
            raise SoakError(f"no picture: {reply.status_code} {reply.text[:500]}")
        await self._end(reply.headers["x-job-id"], "succeeded", 1)

    async def _later(self, number: int) -> None:
        """A picture for a caller that asks again."""
        reply = await self._ask("/picture", {"color": number}, prefer="respond-async")
        await self._check_picture(reply.json()["job"], number)

    async def _check_picture(self, job: str, number: int) -> None:
        found = await self._end(job, "succeeded", 1)
        output = await self.client.get(found["outputs"][0]["url"])
        if not _shows(output.content, number):
            raise SoakError(f"another picture: {output.status_code}")

    async def _twice(self, number: int) -> None:
        """A picture that is asked for twice at once, with one key, and another one with the same."""
        key = f"soak-{number}"
        asking = [self._ask("/picture", {"color": number}, idempotency_key=key) for _ in range(2)]
        replies = await asyncio.gather(*asking)
        if len({reply.headers["x-job-id"] for reply in replies}) != 1:
            raise SoakError("one key stands for two jobs")
        self.counts["asked for twice"] += 1
        await self._check_reply(replies[0], number)
        other = await self._ask("/picture", {"color": number + 1}, idempotency_key=key)
        if other.status_code != 409:
            raise SoakError(f"a key was taken for another request: {other.status_code}")

    async def _several(self, number: int) -> None:
        """Several outputs: as JSON for a caller that waits, or the first for one that asks again."""
        if number % 20 < 10:
            reply = await self._ask("/several", {"color": number}, accept="application/json")
            await self._end(reply.json()["job"], "succeeded", 3)
            return
        reply = await self._ask("/several", {"color": number}, prefer="respond-async")
        job = reply.json()["job"]
        await self._end(job, "succeeded", 3)
        raw = await self.client.get(f"/jobs/{job}/result", headers={"accept": "image/*"})
        if not _shows(raw.content, number):
            raise SoakError(f"another picture: {raw.status_code}")

    async def _heard(self, number: int) -> None:
        """A run that somebody listens to, and leaves in its midst; later all of it is told."""
        body = {"seed": number, "steps": 20}
        job = (await self._ask("/slow", body, prefer="respond-async")).json()["job"]
        async with self.client.stream("GET", f"/jobs/{job}/events?previews=true") as stream:
            async for line in stream.aiter_lines():
                if line in ("event: node", "event: progress", "event: end"):
                    break
        self.counts["heard by one who left"] += 1
        await self._end(job, "succeeded", 1)
        told = (await self.client.get(f"/jobs/{job}/events")).text.splitlines()
        names = [line for line in told if line.startswith("event: ")]
        if names[-1] != "event: end" or names.count("event: end") != 1:
            raise SoakError(f"told as {names}")
        ids = [line for line in told if line.startswith("id: ")]
        if ids != [f"id: {number}" for number in range(1, len(ids) + 1)]:
            raise SoakError(f"told under {ids}")

    async def _failing(self, number: int) -> None:
        """A node that raises."""
        reply = await self._ask("/failing", {"color": number})
        job = await self._end(reply.json()["job"], "failed", 0)
        if job["problem"]["code"] != "node-failed":
            raise SoakError(f"failed otherwise: {job['problem']}")

    async def _wrong(self, number: int) -> None:
        """A request that is no job."""
        reply = await self.client.post("/picture", json={"color": str(number)})
        if reply.status_code != 422:
            raise SoakError(f"taken: {reply.status_code}")
        self.counts["refused as wrong"] += 1

    async def _cancelled(self, number: int) -> None:
        """A run that is cancelled, while it waits or is executed."""
        job = (await self._ask("/slow", {"seed": number}, prefer="respond-async")).json()["job"]
        await asyncio.sleep(number % 7 / 20)
        await self.client.delete(f"/jobs/{job}")
        await self._end(job, "cancelled", 0)

    async def _left(self, number: int) -> None:
        """A caller that goes away; who it was is never said, so what is left of it is all that shows."""
        try:
            await self.client.post("/slow", json={"seed": number}, timeout=0.2)
        except httpx.TimeoutException:
            self.counts["left by their callers"] += 1

    async def _end(self, job: str, status: str, outputs: int) -> Body:
        """Return a job once it has ended."""
        limit = time.monotonic() + SECONDS
        while True:
            reply = await self.client.get(f"/jobs/{job}", headers={"prefer": "wait=20"})
            found: Body = reply.json()
            if found["status"] in FINAL:
                break
            if time.monotonic() > limit:
                raise SoakError(f"stays {found['status']}")
        if (found["status"], len(found["outputs"])) != (status, outputs):
            problem = (found["problem"] or {}).get("detail")
            raise SoakError(f"{found['status']} with {len(found['outputs'])} outputs: {problem}")
        self.ended[job] = (status, outputs)
        self.counts[status] += 1
        return found

    async def _check_ended(self) -> None:
        """See that each job still is how it ended; the oldest are kept no longer."""
        for job, (status, outputs) in list(self.ended.items())[-KEPT:]:
            found = (await self.client.get(f"/jobs/{job}")).json()
            if (found["status"], len(found.get("outputs", ()))) != (status, outputs):
                self.faults.append(f"{job} was {status}, and is {found['status']}")

    async def _held(self) -> Body:
        # Over a connection of its own, which counts each time.
        async with httpx.AsyncClient(base_url=self.client.base_url, timeout=SECONDS) as client:
            found: Body = (await client.get("/held")).json()
            return found


def _shows(data: bytes, colour: int) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        pixel = (colour >> 16, colour >> 8 & 255, colour & 255)
        return image.convert("RGB").getpixel((0, 0)) == pixel


async def soak(kind: str, jobs: int, every: int) -> bool:
    """Run, print, and return whether all is within the bounds."""
    begin = time.monotonic()
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with engine(kind, folder) as mortal, service(kind, folder, mortal) as url:
            async with httpx.AsyncClient(base_url=url, timeout=SECONDS) as client:
                found = Soak(client, mortal, every)
                await found.run(jobs)
            await found.calm()
    seconds = time.monotonic() - begin
    print(f"{kind}: {jobs} jobs in {seconds:.0f} s, the engine killed {mortal.ends} times")
    for what, count in sorted(found.counts.items()):
        print(f"  {count:6} {what}")
    return report(found.held, found.faults)


def report(held: dict[str, Body], faults: list[str]) -> bool:
    """Print what the API's process held, and what went wrong; return whether that is good."""
    start, first, _, end = held.values()
    print("  " + " " * 14 + "".join(f"{name:>14}" for name in held) + f"{'bound':>14}")
    most = first["memory"] / MEGABYTE * MEMORY_SHARE + MEMORY_MB
    megabytes = [of["memory"] / MEGABYTE for of in held.values()]
    print(f"  {'memory, MB':14}" + "".join(f"{m:14.1f}" for m in megabytes) + f"{most:14.1f}")
    if max(megabytes[2:]) > most:
        faults.append(f"the memory grew to {max(megabytes):.1f} MB")
    for what in ("tasks", "sockets", "files"):
        numbers = "".join(f"{of[what]:14}" for of in held.values())
        print(f"  {what:14}{numbers}{start[what]:14}")
        if end[what] > start[what]:
            faults.append(f"{end[what] - start[what]} {what} are left")
    for fault in faults:
        print(f"  broken: {fault}")
    print("  all bounds hold" if not faults else f"  {len(faults)} bounds are broken", flush=True)
    return not faults


def main(arguments: list[str] | None = None) -> int:
    """Run on both engines, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--preview", type=int, default=2000, help="jobs; 0 leaves the engine out")
    parser.add_argument("--comfyui", type=int, default=300, help="jobs; 0 leaves the engine out")
    parser.add_argument("--every", type=int, default=200, help="jobs between two kills")
    options: Any = parser.parse_args(arguments)
    counts = zip(KINDS, (options.preview, options.comfyui), strict=True)
    good = [asyncio.run(soak(kind, jobs, options.every)) for kind, jobs in counts if jobs]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
