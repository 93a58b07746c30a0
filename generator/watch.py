"""Serve a project on this machine, anew with each spec that is saved."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
from watchfiles import Change, awatch

from templates.gateway.serve import PortTakenError, listen
from templates.utils.comfyui_errors import EngineStartError
from templates.utils.comfyui_process import EngineProcess, tied_to_this_process

from .check import Checked
from .console import counted
from .lock import LOCK_FILE
from .ports import HOST, free_port
from .project import SPEC_SUFFIXES
from .serve import ServeError, ended, preview_command

_START_SECONDS: Final = 30.0
# How long a change waits for the runs that are under way, and then for whoever takes what they made.
_RUNS_SECONDS: Final = 10.0
_FETCH_SECONDS: Final = 0.5
_PAUSE: Final = 0.1
# How a request ends, as /usage counts it; the others are under way.
_ENDS: Final = ("rejected", "repeated", "succeeded", "failed", "cancelled")
# What a project holds, beside what is in its folders.
_NAMES: Final = frozenset(("gpu.yaml", "models.yaml", LOCK_FILE, "workflows", "catalogs"))
# Milliseconds: editors save in several steps, which are one change.
_STEP: Final = 30
_DEBOUNCE: Final = 150

# Checks, reports and renders; returns what was checked, None where something is wrong.
Render = Callable[[], Checked | None]


def watch(render: Render, root: Path, *, port: int, comfyui_url: str | None) -> int:
    """Serve `root`/build on 127.0.0.1 until SIGINT or SIGTERM; render and serve after each change.

    While a spec has an error, what was served last goes on.

    Raises:
        ServeError: when the port is taken, or `root` goes.
    """
    # What is relative says nothing once the folder that it is relative to is gone.
    root = root.resolve()
    try:
        listener = listen(port)
    except PortTakenError as error:
        raise ServeError(str(error)) from error
    stopped = asyncio.Event()
    with listener, TemporaryDirectory(prefix="preview-engine-") as folder:
        served = _Served(root, Path(folder), listener, comfyui_url, stopped)
        return asyncio.run(_watch(render, served, stopped))


async def _watch(render: Render, served: "_Served", stopped: asyncio.Event) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    try:
        async for _ in _changes(served.root, stopped):
            await _turn(render, served)
    finally:
        await served.stop()
    return 0


async def _changes(root: Path, stopped: asyncio.Event) -> AsyncIterator[None]:
    """Yield once, then after each change of what a build is made of, those of meanwhile included."""
    while True:
        folders = _folders(root)
        if root not in folders:
            raise ServeError(f"{root} is gone")
        changes = awatch(
            *folders,
            watch_filter=_Specs(root),
            step=_STEP,
            debounce=_DEBOUNCE,
            stop_event=stopped,
            recursive=False,
        )
        while folders == _folders(root):
            # It watches from its first step on, so that what is saved during a turn counts.
            changing = asyncio.ensure_future(anext(changes, None))
            await asyncio.sleep(0)
            yield
            try:
                if await changing is None:
                    return
            except FileNotFoundError:
                # A folder went before it was watched.
                break
        # One came, went or is another one now: what was watched is not what is there.
        await changes.aclose()


def _folders(root: Path) -> dict[Path, int]:
    """Return the folders of specs that are there, each with its inode."""
    specs = root / "workflows"
    # Unlike rglob, os.walk bears with folders that go meanwhile.
    below = (Path(at, name) for at, names, _ in os.walk(specs) for name in names)
    found = [root, root / "catalogs", specs, *below]
    folders: dict[Path, int] = {}
    for folder in found:
        # It may go at any time.
        with suppress(FileNotFoundError, NotADirectoryError):
            if folder.is_dir():
                folders[folder] = folder.stat().st_ino
    return folders


async def _turn(render: Render, served: "_Served") -> None:
    """Render what is there now, and serve it if that is anything else than before."""
    start = time.monotonic()
    checked = await asyncio.to_thread(render)
    if checked is None:
        if served.url:
            _say(f"{served.url} goes on with what it had")
        return
    try:
        if await served.serve(checked):
            _say(f"{served.url} serves it after {time.monotonic() - start:.2f} s")
    except ServeError as error:
        _say(f"error: {error}")


class _Specs:
    """Says whether what has changed is a file that a build is made of, or a folder of such files."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def __call__(self, change: Change, path: str) -> bool:
        file = Path(path)
        if file.name.startswith("."):
            return False
        if file.parent.resolve() == self._root:
            return file.name in _NAMES
        return (
            file.suffix.lower() in SPEC_SUFFIXES
            or file.parent.name == "catalogs"
            or file.is_dir()
            or (change is Change.deleted and not file.suffix)
        )


class _Served:
    """What is served now: an API process on `listener`, and a preview engine where one is needed."""

    def __init__(
        self,
        root: Path,
        base: Path,
        listener: socket.socket,
        comfyui_url: str | None,
        stopped: asyncio.Event,
    ) -> None:
        self.root = root
        self.url = ""
        self._base = base
        self._listener = listener
        self._comfyui_url = comfyui_url
        self._preview_url = f"http://{HOST}:{free_port()}"
        self._engine: EngineProcess | None = None
        self._engine_command: list[str] = []
        self._api: asyncio.subprocess.Process | None = None
        self._spare: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._stopped = stopped
        self._build = b""
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, checked: Checked) -> bool:
        """Serve what was rendered, and return whether that is new.

        Raises:
            ServeError: when the engine or the API does not start.
        """
        build = (self.root / "build" / "manifest.json").read_bytes()
        is_up = self._api is not None and self._api.returncode is None
        if build == self._build and is_up:
            return False
        if is_up:
            await self._runs_end()
        await self._start_engine(checked)
        old, self._api = self._api, None
        # Both listen on one socket: whoever asks meanwhile waits, and none is asked that ends.
        starting = asyncio.create_task(self._start_api())
        if old is not None:
            await ended(old)
        self._api = await starting
        self._build = build
        self._prepare()
        return True

    async def stop(self) -> None:
        """End all that was started."""
        for process in (self._api, await self._take_spare()):
            if process is not None:
                await ended(process)
        for task in list(self._tasks):
            await task
        if self._engine is not None:
            await self._engine.stop()

    async def _start_engine(self, checked: Checked) -> None:
        """Start the preview engine, anew when it is to have other models or packs."""
        if self._comfyui_url:
            return
        command = preview_command(checked, self.root, self._base, self._preview_url)
        if self._engine is not None and self._engine.alive and command == self._engine_command:
            return
        if self._engine is not None:
            await self._engine.stop()
        self._engine_command = command
        self._engine = EngineProcess(command, url=self._preview_url, start_timeout=_START_SECONDS)
        try:
            await self._engine.start()
        except EngineStartError as error:
            raise ServeError(f"the preview engine does not start: {error}") from error

    async def _start_api(self) -> asyncio.subprocess.Process:
        """Return an API process once it answers."""
        process = await self._take_spare()
        if process is None or process.returncode is not None:
            try:
                process = await self._start_spare()
            except OSError as error:
                raise ServeError(f"the API does not start: {error}") from error
        assert process.stdin is not None
        assert process.stdout is not None
        url = self._comfyui_url or self._preview_url
        arguments = ["--comfyui-url", url, "--fd", str(self._listener.fileno())]
        if not self._comfyui_url:
            arguments += ["--base-directory", str(self._base)]
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(json.dumps(arguments).encode() + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            raise ServeError(f"the API does not start (status {await process.wait()})")
        if not self.url:
            self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"
            sys.stdout.write(line.decode())
            sys.stdout.flush()
        self._later(_read(process.stdout))
        return process

    async def _runs_end(self) -> None:
        """Wait for the runs that are under way, though not for long."""
        waits_until = time.monotonic() + _RUNS_SECONDS
        is_told = False
        # No TLS is spoken, so no certificates are read; and no proxy of the environment is asked.
        async with httpx.AsyncClient(
            base_url=self.url, timeout=_RUNS_SECONDS, verify=False, trust_env=False
        ) as client:
            while not self._stopped.is_set() and time.monotonic() < waits_until:
                try:
                    count = _under_way((await client.get("/usage")).raise_for_status().json())
                except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
                    reason = f"{type(error).__name__}: {error}".splitlines()[0]
                    _say(
                        f"warning: {self.url}/usage does not say which runs are under way, "
                        f"and none is waited for: {reason}"
                    )
                    return
                if not count:
                    break
                if not is_told:
                    runs = counted(count, "run")
                    _say(f"{runs} under way; what is new waits, {_RUNS_SECONDS:.0f} s at most")
                    is_told = True
                await asyncio.sleep(_PAUSE)
        if is_told:
            # Whoever waited for a job now asks for its outputs.
            await asyncio.sleep(_FETCH_SECONDS)

    def _prepare(self) -> asyncio.Task[asyncio.subprocess.Process]:
        """Return the process that waits with all imported for the next change: there is one."""
        if self._spare is None:
            self._spare = asyncio.create_task(self._start_spare())
        return self._spare

    async def _take_spare(self) -> asyncio.subprocess.Process | None:
        """Return the process that waits, which is nobody else's then; None where none could start."""
        spare, self._spare = self._spare, None
        # Whoever needs one starts it, and says why that fails.
        with suppress(OSError):
            return await spare if spare else None
        return None

    async def _start_spare(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *tied_to_this_process([sys.executable, "-m", "generator.standby"]),
            cwd=self.root,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(self._listener.fileno(),),
            start_new_session=True,
        )

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _under_way(usage: Any) -> int:
    """Return how many runs are under way; raises what reading another document raises."""
    return sum(row["requests"] - sum(row[end] for end in _ENDS) for row in usage["rows"])


async def _read(stream: asyncio.StreamReader) -> None:
    """Read what an API process says, so that it never waits to say it."""
    while await stream.read(65536):
        pass


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
