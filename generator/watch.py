"""Serve a project on this machine, anew with each spec that is saved."""

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from watchfiles import Change, awatch

from templates.gateway.serve import PortTakenError, listen
from templates.utils.comfyui_errors import EngineStartError
from templates.utils.comfyui_process import EngineProcess, tied_to_this_process

from .check import Checked
from .lock import LOCK_FILE
from .ports import HOST, free_port
from .serve import ServeError, ended, preview_command

_START_SECONDS: Final = 30.0
# Milliseconds: editors save in several steps, which are one change.
_STEP: Final = 30
_DEBOUNCE: Final = 150

# Checks, reports and renders; returns what was checked, None where something is wrong.
Render = Callable[[], Checked | None]


def watch(render: Render, root: Path, *, port: int, comfyui_url: str | None) -> int:
    """Serve `root`/build on 127.0.0.1 until SIGINT or SIGTERM; render and serve after each change.

    While a spec has an error, what was served last goes on.

    Raises:
        ServeError: when the port is taken.
    """
    try:
        listener = listen(port)
    except PortTakenError as error:
        raise ServeError(str(error)) from error
    with listener, TemporaryDirectory(prefix="preview-engine-") as folder:
        served = _Served(root, Path(folder), listener, comfyui_url)
        return asyncio.run(_watch(render, served))


async def _watch(render: Render, served: "_Served") -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    root = served.root
    folders = [root, *(f for f in (root / "workflows", root / "catalogs") if f.is_dir())]
    changes = awatch(
        *folders,
        watch_filter=_is_spec,
        step=_STEP,
        debounce=_DEBOUNCE,
        stop_event=stopped,
        recursive=False,
    )
    # It watches from its first step on, so that what is saved during the first turn counts.
    changing = asyncio.ensure_future(anext(changes, None))
    await asyncio.sleep(0)
    try:
        await _turn(render, served)
        while await changing:
            changing = asyncio.ensure_future(anext(changes, None))
            await asyncio.sleep(0)
            await _turn(render, served)
    finally:
        await served.stop()
    return 0


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


def _is_spec(_: Change, path: str) -> bool:
    """Say whether a file that changed is one that a build is made of."""
    file = Path(path)
    return (
        file.suffix == ".yaml" or file.name == LOCK_FILE or file.parent.name == "catalogs"
    ) and not file.name.startswith(".")


class _Served:
    """What is served now: an API process on `listener`, and a preview engine where one is needed."""

    def __init__(
        self, root: Path, base: Path, listener: socket.socket, comfyui_url: str | None
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
        self._spare: asyncio.subprocess.Process | None = None
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
        await self._start_engine(checked)
        old, self._api = self._api, None
        # Both listen on one socket: whoever asks meanwhile waits, and none is asked that ends.
        starting = asyncio.create_task(self._start_api())
        if old is not None:
            await ended(old)
        self._api = await starting
        self._build = build
        self._later(self._prepare())
        return True

    async def stop(self) -> None:
        """End all that was started."""
        for process in (self._api, self._spare):
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
        if self._spare is None or self._spare.returncode is not None:
            await self._prepare()
        assert self._spare is not None
        process, self._spare = self._spare, None
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

    async def _prepare(self) -> None:
        """Start a process that waits with all imported for the next change."""
        self._spare = await asyncio.create_subprocess_exec(
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


async def _read(stream: asyncio.StreamReader) -> None:
    """Read what an API process says, so that it never waits to say it."""
    while await stream.read(65536):
        pass


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
