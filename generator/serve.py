"""Serve a build on this machine: the API, and a preview engine where there is no ComfyUI."""

import asyncio
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from templates.utils.comfyui_errors import EngineStartError
from templates.utils.comfyui_process import EngineProcess, tied_to_this_process

from .check import Checked
from .ports import HOST, free_port

_START_SECONDS: Final = 30.0
# An engine that ends sooner than this after its start, more often in a row, does not get another.
_SHORTEST_LIFE: Final = 5.0
_MOST_SHORT_LIVES: Final = 3
_STOP_SECONDS: Final = 10.0


class ServeError(RuntimeError):
    """The service cannot be started, or does not stay up; the text says why."""


def serve(checked: Checked, root: Path, *, port: int, comfyui_url: str | None) -> int:
    """Serve `root`/build on 127.0.0.1 until SIGINT or SIGTERM, and return its exit code.

    Without a `comfyui_url`, a preview engine draws placeholders; it has the declared packs and
    models, and is started again when it ends.

    Raises:
        ServeError: when the engine does not start, or ends again and again.
    """
    if comfyui_url:
        return asyncio.run(_serve(root, port, comfyui_url))
    with TemporaryDirectory(prefix="preview-engine-") as folder:
        base = Path(folder)
        url = f"http://{HOST}:{free_port()}"
        engine = EngineProcess(
            preview_command(checked, root, base, url), url=url, start_timeout=_START_SECONDS
        )
        return asyncio.run(_serve(root, port, url, base, engine))


def preview_command(checked: Checked, root: Path, base: Path, url: str) -> list[str]:
    """Return the command of a preview engine that has what the specs declare."""
    models = [f"--model={m.destination}" for m in checked.models.models.values()]
    packs = [f"--pack={p}" for p in checked.models.packs if p in checked.catalog.packs]
    return [
        *(sys.executable, "-m", "generator.preview", "--port", url.rpartition(":")[2]),
        *("--base-directory", str(base), "--comfyui", checked.settings.comfyui.version),
        *("--catalogs", str((root / "catalogs").resolve()), "--preview-method", "auto"),
        *(packs or ["--no-packs"]),
        *models,
    ]


async def _serve(
    root: Path,
    port: int,
    url: str,
    base: Path | None = None,
    engine: EngineProcess | None = None,
) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    if engine is not None:
        try:
            await engine.start()
        except EngineStartError as error:
            raise ServeError(f"the preview engine does not start: {error}") from error
    options = ["--base-directory", str(base)] if base else []
    command = [sys.executable, "-m", "build.api", "--comfyui-url", url, "--port", str(port)]
    try:
        api = await asyncio.create_subprocess_exec(
            *tied_to_this_process([*command, *options]), cwd=root, start_new_session=True
        )
        try:
            return await _watch(api, engine, stopped)
        finally:
            await ended(api)
    finally:
        if engine is not None:
            await engine.stop()


async def _watch(
    api: asyncio.subprocess.Process, engine: EngineProcess | None, stopped: asyncio.Event
) -> int:
    """Wait until the service is told to stop, or ends by itself."""
    ending = asyncio.create_task(api.wait())
    stopping = asyncio.create_task(stopped.wait())
    tasks: list[asyncio.Task[object]] = [ending, stopping]
    if engine is not None:
        tasks.append(asyncio.create_task(_keep_up(engine)))
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()
    return 0 if stopping in done else ending.result()


async def _keep_up(engine: EngineProcess) -> None:
    """Start the engine again whenever it ends.

    Raises:
        ServeError: when it ends too soon after a start, several times in a row.
    """
    short_lives = 0
    while True:
        started = time.monotonic()
        status = await engine.watch()
        # One run may take it down twice, for it is sent again.
        short_lives = short_lives + 1 if time.monotonic() - started < _SHORTEST_LIFE else 0
        if short_lives > _MOST_SHORT_LIVES:
            tail = "".join(f"\n  {line}" for line in engine.output)
            raise ServeError(f"the preview engine does not stay up (status {status}):{tail}")
        sys.stderr.write(f"the preview engine ended (status {status}); starting it again\n")
        await engine.stop()
        try:
            await engine.start()
        except EngineStartError as error:
            raise ServeError(f"the preview engine does not start again: {error}") from error


async def ended(api: asyncio.subprocess.Process) -> None:
    """End an API process: ask, then kill."""
    with suppress(ProcessLookupError):
        api.terminate()
    try:
        await asyncio.wait_for(api.wait(), _STOP_SECONDS)
    except TimeoutError:
        with suppress(ProcessLookupError):
            api.kill()
        await api.wait()
