"""How soon there are good answers again after the engine was killed under load.

    python -m bench.recovery [--rounds 5] [--comfyui-rounds 3]

Eight callers ask the API for pictures, one after the other. The engine is killed in the midst of that,
and started again; it is asked every few milliseconds whether it answers yet. Counted is the time from
its first answer to anybody to the first good answer to a caller, by then of a request that was sent
before the kill. Exits 1 when that takes longer than a second, or when a request is lost.
"""

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp

from .mortal import KINDS, Mortal, engine, service

CALLERS: Final = 8
MOST_SECONDS: Final = 1.0
BEFORE_SECONDS: Final = 1.0
PATIENCE: Final = 300.0


@dataclass
class Load:
    """Callers that ask without end; `answers` has when each answer came, and its status."""

    url: str
    answers: list[tuple[float, int]] = field(default_factory=list)
    count: int = 0

    async def call(self) -> None:
        """Ask for one picture after the other."""
        async with aiohttp.ClientSession(base_url=self.url) as session:
            while True:
                self.count += 1
                async with session.post("/picture", json={"color": self.count}) as reply:
                    job = (await reply.read()) if reply.status != 202 else await reply.json()
                status = reply.status
                if isinstance(job, dict):
                    status = await self._result(session, job["job"])
                self.answers.append((time.monotonic(), status))

    async def _result(self, session: aiohttp.ClientSession, job: str) -> int:
        """Return the status of a result that comes after the deadline."""
        while True:
            path, wait = f"/jobs/{job}/result", {"prefer": "wait=60"}
            async with session.get(path, headers=wait) as reply:
                if reply.status != 202:
                    return reply.status


async def recover(load: Load, mortal: Mortal) -> tuple[float, float]:
    """Kill the engine, and return how long it was away, and how long answers were after that."""
    await asyncio.sleep(BEFORE_SECONDS)
    killed, ends, before = time.monotonic(), mortal.ends, mortal.answered_at
    mortal.process.kill()
    while mortal.ends == ends or mortal.answered_at == before or not _first(load, mortal):
        if time.monotonic() - killed > PATIENCE:
            raise RuntimeError("there are no answers any more")
        await asyncio.sleep(0.01)
    return mortal.answered_at - killed, _first(load, mortal) - mortal.answered_at


def _first(load: Load, mortal: Mortal) -> float:
    """Return when the first good answer came from the present engine, 0 while there is none."""
    good = [at for at, status in load.answers if status == 200 and at > mortal.answered_at]
    return good[0] if good else 0.0


async def bench(kind: str, rounds: int) -> bool:
    """Measure, print, and return whether all is within the bounds."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with engine(kind, folder) as mortal, service(kind, folder, mortal) as url:
            load = Load(url)
            callers = [asyncio.create_task(load.call()) for _ in range(CALLERS)]
            try:
                found = [await recover(load, mortal) for _ in range(rounds)]
            finally:
                for caller in callers:
                    caller.cancel()
                ended = await asyncio.gather(*callers, return_exceptions=True)
    faults = [e for e in ended if isinstance(e, Exception)]
    lost = [status for _, status in load.answers if status != 200]
    away, delays = zip(*found, strict=True)
    print(f"{kind}: {rounds} kills under {CALLERS} callers, {len(load.answers)} answers")
    print(f"  the engine was away for {statistics.median(away):.2f} s (median)")
    print(f"  good answers after its first: {statistics.median(delays):.2f} s (median), ", end="")
    print(f"{max(delays):.2f} s (most)   bound ≤ {MOST_SECONDS:g}")
    print(f"  requests lost: {len(lost) + len(faults)}   bound 0", flush=True)
    for fault in faults:
        print(f"  broken: {fault!r}")
    return max(delays) <= MOST_SECONDS and not lost and not faults


def main(arguments: list[str] | None = None) -> int:
    """Measure both engines, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.recovery")
    parser.add_argument("--rounds", type=int, default=5, help="on the preview engine")
    parser.add_argument("--comfyui-rounds", type=int, default=3, help="on a real ComfyUI")
    options: Any = parser.parse_args(arguments)
    rounds = zip(KINDS, (options.rounds, options.comfyui_rounds), strict=True)
    good = [asyncio.run(bench(kind, count)) for kind, count in rounds if count]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
