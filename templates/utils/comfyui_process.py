"""A ComfyUI process of ours: it is started, watched, and ended with all that it started."""

import asyncio
import atexit
import codecs
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from .comfyui_errors import (
    MESSAGE_LENGTH,
    EngineError,
    EngineStartError,
    EngineUnreachable,
    shortened,
)
from .comfyui_http import Http, timed_out
from .comfyui_records import EngineInfo

_log = logging.getLogger(__name__)

_PROBE_SECONDS: Final = 5.0
_WATCH_SECONDS: Final = 5.0
# Linux kills the engine with its parent, however that ends.
_TIED_TO_PARENT: Final = """\
import ctypes, os, signal, sys
parent = int(sys.argv[1])
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
if os.getppid() != parent:
    sys.exit("the parent is gone")
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{error.strerror}: {sys.argv[2]!r}")
"""


def tied_to_this_process(command: Sequence[str]) -> list[str]:
    """Return a command that starts another, which Linux kills when this process ends."""
    if sys.platform != "linux":
        return [*command]
    return [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), *command]


class EngineProcess:
    """A ComfyUI process of ours; it never outlives this one.

    `command` starts it, in `cwd` and with `env`; `url` is where it will answer. Its output is read
    all the time, and the last `keep_lines` lines are kept in `output`. Seconds: `start_timeout`
    for coming up, `stop_timeout` for ending by itself when told to. One that does not answer within
    `hung_after` has hung; that is longer than a client waits, which so tells its callers first.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        url: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        start_timeout: float = 300.0,
        stop_timeout: float = 10.0,
        hung_after: float = 75.0,
        keep_lines: int = 100,
    ) -> None:
        self.url = url.rstrip("/")
        self._command = [*command]
        self._cwd = cwd
        self._env = dict(env) if env is not None else None
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._hung_after = hung_after
        self._lines: deque[str] = deque(maxlen=keep_lines)
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """The process id, which is the id of its group too; None before the start."""
        return self._process.pid if self._process is not None else None

    @property
    def output(self) -> tuple[str, ...]:
        """The last lines that the process wrote, to either stream."""
        return tuple(self._lines)

    async def start(self) -> EngineInfo:
        """Start the process, wait until it answers, and return what it says of itself.

        Raises:
            EngineStartError: when something else answers at the URL, when the process cannot be
                started or ends, or when it does not answer in time. Nothing of it is left then.
        """
        if self.alive:
            raise RuntimeError("the engine runs already")
        async with Http(self.url, _PROBE_SECONDS) as http:
            if not isinstance(await _stats(http), EngineError):
                raise EngineStartError(f"another engine answers at {self.url} already")
            self._lines.clear()
            try:
                await self._launch()
                return await self._wait_ready(http)
            except BaseException:
                await self.stop()
                raise

    async def wait(self) -> int:
        """Wait until the process ends, and return its exit status; negative for a signal.

        Raises:
            RuntimeError: when it was never started.
        """
        if self._process is None:
            raise RuntimeError("the engine was never started")
        return await self._process.wait()

    async def watch(self) -> int:
        """Wait until the process ends, as `wait` does; kill it when it has hung."""
        ending = asyncio.create_task(self.wait())
        try:
            async with Http(self.url, self._hung_after) as http:
                while not (await asyncio.wait({ending}, timeout=_WATCH_SECONDS))[0]:
                    asking = asyncio.create_task(_has_hung(http))
                    await asyncio.wait({ending, asking}, return_when=asyncio.FIRST_COMPLETED)
                    if not asking.done():
                        asking.cancel()
                    elif asking.result():
                        _log.error("the engine has stopped answering; killing it")
                        self.kill()
            return ending.result()
        finally:
            ending.cancel()

    def kill(self) -> None:
        """End the process at once, with all of its group. Does nothing when none runs."""
        if self.alive:
            self._signal(signal.SIGKILL)

    async def stop(self) -> None:
        """End the process and all of its group: ask, then kill. Does nothing when none runs."""
        process, drain = self._process, self._drain
        if process is None or drain is None:
            return
        self._drain = None  # a second call must not signal a group that may be another's by then
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self._stop_timeout)
        except TimeoutError:
            _log.warning("the engine does not end when told to; killing it")
        finally:
            # Also after a quick end: children of the engine may be left.
            self._signal(signal.SIGKILL)
            atexit.unregister(self.kill)
        await process.wait()
        await asyncio.wait({drain}, timeout=1.0)
        drain.cancel()
        await asyncio.gather(drain, return_exceptions=True)

    async def _launch(self) -> None:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *tied_to_this_process(self._command),
                cwd=self._cwd,
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise EngineStartError(f"the engine cannot be started: {error}") from error
        atexit.register(self.kill)
        assert self._process.stdout is not None
        self._drain = asyncio.create_task(self._read_output(self._process.stdout))

    async def _read_output(self, stream: asyncio.StreamReader) -> None:
        rest = ""
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        while data := await stream.read(65536):
            # Progress bars write carriage returns; only their last state is of use.
            *lines, rest = (rest + decode(data)).split("\n")
            self._lines.extend(shortened(line.rpartition("\r")[2]) for line in lines)
            rest = rest[-4 * MESSAGE_LENGTH :]
        if rest:
            self._lines.append(shortened(rest))

    async def _wait_ready(self, http: Http) -> EngineInfo:
        assert self._process is not None
        assert self._drain is not None
        limit = time.monotonic() + self._start_timeout
        while True:
            stats = await _stats(http)
            code = self._process.returncode
            if code is not None:
                # What was written last is what matters.
                await asyncio.wait({self._drain}, timeout=1.0)
                raise EngineStartError(
                    f"the engine ended with status {code} before it answered", self.output, code
                )
            if not isinstance(stats, EngineError):
                return EngineInfo.of(stats)
            if time.monotonic() >= limit:
                raise EngineStartError(
                    f"the engine did not answer within {self._start_timeout:g} s ({stats})",
                    self.output,
                )
            await asyncio.sleep(0.1)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


async def _has_hung(http: Http) -> bool:
    try:
        await http.get("prompt")
    except EngineUnreachable as error:
        return timed_out(error)
    except EngineError:
        return False
    return False


async def _stats(http: Http) -> Any:
    """Return /system_stats, or the exception that came instead of it."""
    try:
        return await http.get("system_stats")
    except EngineError as error:
        return error
