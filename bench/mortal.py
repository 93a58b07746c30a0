"""Engines that are killed and come back, and the API that asks them: for soak.py and recovery.py."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import aiohttp

from generator.cli import main as generate
from generator.ports import free_port
from templates.utils.comfyui_process import EngineProcess, tied_to_this_process
from tests.engine.conftest import prepare
from tests.jobs_contract import write_project

ROOT: Final = Path(__file__).parents[1]
KINDS: Final = ("preview", "comfyui")
_START_SECONDS: Final = 300.0
_PROBE_PAUSE: Final = 0.005


class Mortal:
    """An engine that is started again whenever it ends.

    `ends` counts how often it did; `answered_at` is when the present one answered first.
    """

    def __init__(self, process: EngineProcess, base: Path) -> None:
        self.process = process
        self.base = base
        self.ends = 0
        self.answered_at = 0.0

    @property
    def url(self) -> str:
        """Where it is."""
        return self.process.url

    async def keep_up(self) -> None:
        """Start it again whenever it ends."""
        while True:
            await self.process.wait()
            self.ends += 1
            await self.process.stop()
            probing = asyncio.create_task(self._probe())
            await self.process.start()
            self.answered_at = await probing

    async def _probe(self) -> float:
        """Return when it answers for the first time; asked far more often than by the API."""
        async with aiohttp.ClientSession() as session:
            while True:
                with suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/system_stats") as answer:
                        if answer.status == 200:
                            return time.monotonic()
                await asyncio.sleep(_PROBE_PAUSE)


@asynccontextmanager
async def engine(kind: str, folder: Path) -> AsyncIterator[Mortal]:
    """Run a preview engine, or a real ComfyUI on the CPU."""
    base, port = folder / "base", free_port()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    if kind == "preview":
        base.mkdir()
        command = [sys.executable, "-m", "generator.preview", "--port", str(port)]
        command += ["--base-directory", str(base), "--comfyui", "0.3.71", "--no-packs"]
        command += ["--model", "checkpoints/flux1-schnell-fp8.safetensors"]
    else:
        installed = prepare(base)
        command, port = installed.command, installed.port
        # More threads would wait for each other at full speed, on cores that others need.
        env = {**installed.env, "OMP_NUM_THREADS": "1"}
    url = f"http://127.0.0.1:{port}"
    process = EngineProcess(command, url=url, env=env, cwd=base, start_timeout=_START_SECONDS)
    found = Mortal(process, base)
    keeper: asyncio.Task[None] | None = None
    try:
        await process.start()
        keeper = asyncio.create_task(found.keep_up())
        yield found
    finally:
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        await process.stop()


@asynccontextmanager
async def service(kind: str, folder: Path, engine: Mortal) -> AsyncIterator[str]:
    """Render the project of tests/jobs_contract.py, run its API, and yield where that is."""
    write_project(folder / "app", real=kind != "preview")
    if generate(["build", "--quiet", "--project", str(folder / "app")]):
        raise RuntimeError("the specs do not build")
    command = [sys.executable, "-m", "bench.soaked", "--port", "0"]
    command += ["--comfyui-url", engine.url, "--base-directory", str(engine.base)]
    log = folder / "api.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *tied_to_this_process(command),
            cwd=folder / "app",
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "app"), str(ROOT)])},
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    try:
        assert process.stdout is not None
        greeting = (await process.stdout.readline()).decode()
        if not greeting.startswith("serving on "):
            raise RuntimeError(f"the API does not start:\n{log.read_text('utf-8')}")
        yield greeting.split()[2]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if "Traceback" in log.read_text("utf-8"):
            sys.stderr.write(f"the API says:\n{log.read_text('utf-8')[-5000:]}\n")
