"""Engines that die, hang and lose connections: what jobs make of it, on whatever engine.

An engine joins with a fixture `mortal` in its module, and a class that inherits FaultsContract. Each
job is to end once, in the one right way, and to leave nothing: no prompt in the engine's queue, no
file, no task, no socket.
"""

import asyncio
import io
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from .api_client import asked, new_app, part, problem

SECONDS = 60
START_SECONDS = 180
ASYNC = {"Prefer": "respond-async"}
FINAL = ("succeeded", "failed", "cancelled")

Body = dict[str, Any]


@dataclass
class Mortal:
    """An engine that can be killed, and started again; `package` is a project for it.

    The project is that of jobs_contract; `sampler` is the class of /slow that takes its time.
    """

    command: Sequence[str]
    base: Path
    port: int
    package: str
    sampler: str = "KSampler"
    env: Mapping[str, str] | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers."""
        if self.process is not None and self.process.poll() is None:
            return
        log = (self.base.parent / "engine.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                self.command, env=self.env, cwd=self.base, stdout=log, stderr=log
            )
        limit = time.monotonic() + START_SECONDS
        while time.monotonic() < limit and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/system_stats", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        pytest.fail(f"the engine does not start (status {self.process.poll()})")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; return when a killed one is gone."""
        assert self.process is not None
        os.kill(self.process.pid, number)
        if number is signal.SIGKILL:
            self.process.wait()

    def end(self) -> None:
        """Kill it, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)


class Proxy:
    """A TCP proxy in front of an engine, which can cut connections and refuse new ones."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self._server: asyncio.Server | None = None
        self._pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []

    async def __aenter__(self) -> "Proxy":
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break all connections, and take no new ones until it listens again."""
        assert self._server is not None
        self._server.close()
        for pair in self._pairs:
            for writer in pair:
                writer.transport.abort()
        self._pairs.clear()
        await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, down: asyncio.StreamWriter) -> None:
        try:
            up_reader, up = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            down.transport.abort()
            return
        self._pairs.append((down, up))
        await asyncio.gather(self._pump(reader, up), self._pump(up_reader, down))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
        except OSError:
            writer.transport.abort()


@dataclass
class Rig:
    """The project's API in this process, on an engine; `has_work` says that a test leaves some."""

    mortal: Mortal
    proxy: Proxy
    client: httpx.AsyncClient
    colours: list[int] = field(default_factory=list)
    has_work: bool = False

    async def start(self, path: str, **body: Any) -> str:
        """Start a job, and return its id."""
        reply = await self.client.post(path, json=body, headers=ASYNC)
        assert reply.status_code == 202, reply.text
        job: str = reply.json()["job"]
        return job

    async def until(self, job: str, wanted: Callable[[Body], object]) -> Body:
        """Return a job as JSON once it is as wanted."""
        while True:
            found: Body = (await self.client.get(f"/jobs/{job}")).json()
            if wanted(found):
                return found
            assert found["status"] not in FINAL, found
            await asyncio.sleep(0.01)

    async def at_work(self, job: str) -> None:
        """Wait until the engine is in the midst of a job."""
        await self.until(job, lambda found: (found["progress"] or {}).get("value"))

    async def ended(self, job: str) -> Body:
        return await self.until(job, lambda found: found["status"] in FINAL)

    async def restart(self) -> None:
        await asyncio.to_thread(self.mortal.start)

    async def pictures(self, count: int) -> list[str]:
        """Start jobs for pictures, each in another colour."""
        jobs = []
        for _ in range(count):
            self.colours.append(0x10000 * (len(self.colours) % 200) + len(self.colours))
            jobs.append(await self.start("/picture", color=self.colours[-1]))
        return jobs

    async def check_pictures(self, jobs: Sequence[str]) -> None:
        """See that each of the last jobs made its own picture, and no other."""
        for job, colour in zip(jobs, self.colours[-len(jobs) :], strict=True):
            found = await self.ended(job)
            assert found["status"] == "succeeded", found
            [output] = found["outputs"]
            data = (await self.client.get(output["url"])).content
            with Image.open(io.BytesIO(data)) as image:
                assert image.convert("RGB").getpixel((0, 0)) == (
                    colour >> 16,
                    colour >> 8 & 255,
                    colour & 255,
                )
            # Each ends once: what has ended stays as it is.
            problem(await self.client.delete(f"/jobs/{job}"), 409, "job-ended")

    async def queue(self) -> list[Any]:
        """Return what the engine has."""
        async with httpx.AsyncClient(base_url=self.mortal.url, timeout=SECONDS) as engine:
            found = (await engine.get("/queue")).json()
        return [*found["queue_running"], *found["queue_pending"]]

    async def executed(self) -> int:
        """Return how many prompts the engine has done since it was started."""
        async with httpx.AsyncClient(base_url=self.mortal.url, timeout=SECONDS) as engine:
            return len((await engine.get("/history")).json())


def files(base: Path) -> list[Path]:
    return [path for name in ("output", "input", "temp") for path in (base / name).rglob("*.*")]


def tasks() -> list[str]:
    """Return the names of the functions that run as tasks, but for those of proxies."""
    names = [str(task.get_coro().__qualname__) for task in asyncio.all_tasks()]  # type: ignore[union-attr]
    return [name for name in names if not name.startswith("Proxy.")]


def open_files() -> list[str]:
    """Return what this process has open."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            target = str(path.readlink())
        except OSError:
            continue
        found.append(target.partition(":")[0] if target.startswith("socket:") else target)
    return sorted(found)


def run(mortal: Mortal, test: Callable[[Rig], Awaitable[None]], **engine_options: float) -> None:
    """Run a test with a service of its own, and see that nothing is left behind.

    The options are those of the engine client.
    """

    async def main() -> None:
        async with asyncio.timeout(SECONDS):
            async with rig(mortal, engine_options) as found:
                before = len(tasks())
                await test(found)
                if not found.has_work:
                    await _calm(lambda: len(tasks()) <= before, "tasks are left")
            assert not await found.queue()
            assert not files(mortal.base)
            await _calm(lambda: len(tasks()) == 1, "tasks are left")

    mortal.start()
    before = open_files()
    try:
        asyncio.run(main())
    finally:
        with suppress(ProcessLookupError):
            mortal.signal(signal.SIGCONT)
    assert open_files() == before


async def _calm(found: Callable[[], bool], failure: str) -> None:
    for _ in range(500):
        if found():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{failure}: {tasks()}")


@asynccontextmanager
async def rig(mortal: Mortal, options: Mapping[str, float]) -> AsyncIterator[Rig]:
    """Serve the project on an engine that runs, with a proxy in between."""
    local = part(mortal.package, "gateway.local")
    directories = part(mortal.package, "utils.comfyui_files").Directories.below(mortal.base)
    async with Proxy(mortal.port) as proxy:
        backend = local.LocalBackend(proxy.url, directories)
        make = part(mortal.package, "utils.comfyui").Engine
        backend._engine = make(proxy.url, directories, **options)
        async with backend, asked(new_app(mortal.package, backend)) as client:
            yield Rig(mortal, proxy, client)


class FaultsContract:
    """What jobs make of what happens to their engine."""

    def test_the_engine_is_killed_in_mid_run(self, mortal: Mortal) -> None:
        """It is sent again to the next one, and so is what waited; nothing is done twice."""

        async def test(rig: Rig) -> None:
            slow = await rig.start("/slow", steps=20)
            await rig.at_work(slow)
            waiting = await rig.pictures(3)
            mortal.signal(signal.SIGKILL)
            while (reply := await rig.client.get("/ready")).status_code == 200:
                await asyncio.sleep(0.01)
            problem(reply, 503, "engine-unreachable")
            await rig.restart()
            assert (await rig.ended(slow))["status"] == "succeeded"
            await rig.check_pictures(waiting)
            assert await rig.executed() == 4
            assert (await rig.client.get("/ready")).status_code == 200

        run(mortal, test)

    def test_a_run_that_takes_the_engine_down_twice(self, mortal: Mortal) -> None:
        """It ends as lost; what waited behind it does not."""

        async def test(rig: Rig) -> None:
            slow = await rig.start("/slow")
            waiting = await rig.pictures(2)
            for _ in range(2):
                while not await rig.queue():
                    await asyncio.sleep(0.02)
                await rig.at_work(slow)
                mortal.signal(signal.SIGKILL)
                await rig.restart()
            ended = await rig.ended(slow)
            assert (ended["status"], ended["problem"]["code"]) == ("failed", "engine-lost")
            problem(await rig.client.get(f"/jobs/{slow}/result"), 502, "engine-lost")
            await rig.check_pictures(waiting)
            assert await rig.executed() <= 2

        run(mortal, test)

    @pytest.mark.parametrize("then", [signal.SIGKILL, signal.SIGCONT])
    def test_the_engine_hangs(self, mortal: Mortal, then: signal.Signals) -> None:
        """The run that it was at ends; what waited runs when it goes on, or on the next one."""

        async def test(rig: Rig) -> None:
            done = await rig.executed()
            slow = await rig.start("/slow")
            await rig.at_work(slow)
            waiting = await rig.pictures(2)
            mortal.signal(signal.SIGSTOP)
            ended = await rig.ended(slow)
            assert (ended["status"], ended["problem"]["code"]) == ("failed", "engine-hung")
            problem(await rig.client.get(f"/jobs/{slow}/result"), 504, "engine-hung")
            for job in waiting:
                assert (await rig.client.get(f"/jobs/{job}")).json()["status"] == "queued"
            mortal.signal(then)
            await rig.restart()
            await rig.check_pictures(waiting)
            # An interrupted run is in the history too.
            assert await rig.executed() == (done + 3 if then is signal.SIGCONT else 2)
            assert (await rig.client.get(f"/jobs/{slow}")).json() == ended

        run(mortal, test, silence=0.3, hung_after=3)

    def test_a_run_is_cancelled_while_there_is_no_engine(self, mortal: Mortal) -> None:
        """At once; and an engine that was only out of reach does not work on for nobody."""

        async def test(rig: Rig) -> None:
            jobs = [await rig.start("/slow"), *await rig.pictures(1)]
            await rig.at_work(jobs[0])
            await rig.proxy.cut()
            for job in jobs:
                async with asyncio.timeout(5):
                    reply = await rig.client.delete(f"/jobs/{job}")
                    assert reply.json()["status"] == "cancelled", reply.text
            assert await rig.queue()
            await rig.proxy.listen()
            while await rig.queue():
                await asyncio.sleep(0.02)
            await rig.check_pictures(await rig.pictures(1))

        run(mortal, test)

    @pytest.mark.parametrize("away", [0.0, 2.0])
    def test_connections_are_cut(self, mortal: Mortal, away: float) -> None:
        """Nothing is lost, and nothing done twice; with `away`, runs end while nobody listens."""

        async def test(rig: Rig) -> None:
            done = await rig.executed()
            slow = await rig.start("/slow", steps=30)
            await rig.at_work(slow)
            waiting = await rig.pictures(3)
            await rig.proxy.cut()
            await asyncio.sleep(away)
            await rig.proxy.listen()
            found = await rig.ended(slow)
            assert (found["status"], len(found["outputs"])) == ("succeeded", 1)
            await rig.check_pictures(waiting)
            assert await rig.executed() == done + 4

        run(mortal, test)

    def test_a_request_while_there_is_no_engine(
        self, mortal: Mortal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that was taken waits, for the engine may be starting; later ones are refused at once."""
        local = part(mortal.package, "gateway.local")
        monkeypatch.setattr(local, "_MOST_SECONDS_GONE", 1.0)

        async def test(rig: Rig) -> None:
            await rig.proxy.cut()
            soon = await rig.pictures(1)
            await asyncio.sleep(1.2)
            begin = time.monotonic()
            reply = await rig.client.post("/picture", json={"color": 1})
            problem(reply, 503, "engine-unreachable")
            assert int(reply.headers["retry-after"]) > 0
            assert time.monotonic() - begin < 0.5
            await rig.proxy.listen()
            await rig.check_pictures(soon)
            await rig.proxy.cut()
            [never] = await rig.pictures(1)
            ended = await rig.ended(never)
            assert (ended["status"], ended["problem"]["code"]) == ("failed", "engine-unreachable")
            await rig.proxy.listen()

        run(mortal, test, patience=3)

    def test_fifty_at_once_and_the_engine_is_killed(self, mortal: Mortal) -> None:
        """Each gets its own."""

        async def test(rig: Rig) -> None:
            slow = await rig.start("/slow", steps=10)
            jobs = await rig.pictures(50)
            await rig.at_work(slow)
            mortal.signal(signal.SIGKILL)
            await rig.restart()
            assert (await rig.ended(slow))["status"] == "succeeded"
            await rig.check_pictures(jobs)
            assert await rig.executed() == 51

        run(mortal, test)

    def test_the_service_is_stopped(self, mortal: Mortal) -> None:
        """With jobs in flight; the engine, which goes on, has nothing left to do."""

        async def test(rig: Rig) -> None:
            rig.has_work = True
            await rig.at_work(await rig.start("/slow"))
            await rig.pictures(2)

        run(mortal, test)
