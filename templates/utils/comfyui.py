"""The engine client: runs graphs on a ComfyUI and returns what they make.

An `Engine` speaks to a ComfyUI by its URL; `EngineProcess` in comfyui_process.py starts one, and
neither needs the other. An `Engine` has one HTTP session and one websocket for all its runs,
however many are in flight. ComfyUI executes one graph at a time, so runs wait in its queue, and
each gets its own result.

File names come from the engine's messages, not from its history, which is read only when messages
may have been missed. Each run writes below a folder of its own, which is deleted once it is read.

An engine that ends takes its queue along. Once another answers in its place, the runs that it does
not know are sent again: those that waited always, those that were executed once, for one that takes
the engine down may do so again.
"""

import asyncio
import itertools
import json
import logging
import re
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

import aiohttp

from .comfyui_errors import (
    EngineError,
    EngineHung,
    EngineInterrupted,
    EngineLost,
    EngineTimeout,
    EngineUnreachable,
)
from .comfyui_files import Directories, Files, Inputs, LocalFiles, RemoteFiles
from .comfyui_http import Http, parsed, reason, refused, timed_out
from .comfyui_job import Job
from .comfyui_line import Line
from .comfyui_protocol import isolate, parse_frame, refusal
from .comfyui_records import EngineInfo, Event, Graph, Run

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_JOB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
# Makes previews come with the ids of their prompt and node.
_FEATURES: Final = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
# Half of what the engine tells, and the largest part; what it says comes in other messages too.
_OF_NO_USE: Final = ('{"type": "progress_state"', '{"type": "status"')
_QUEUES: Final = ("queue_running", "queue_pending")
_MAX_MESSAGE: Final = 2**28
# Seconds between tries to connect: who waits for an engine that starts is not to wait for us.
_RECONNECT_DELAY: Final = 0.1
_LAST_DELAY: Final = 2.0
# For questions that take an engine no time, unless it is busy with something that stops all else.
_ASK_SECONDS: Final = 10.0
# A graph whose sending broke off may still be on its way to the engine's queue.
_ARRIVAL_SECONDS: Final = 1.0
_MOST_DEATHS: Final = 2
_RENEWAL_SECONDS: Final = 3.0
_CLOSE_SECONDS: Final = 5.0
_SWEEP_SECONDS: Final = 0.5


class Engine:
    """A ComfyUI at a URL.

    `directories` are given when the engine runs on this machine: files are then read, written and
    deleted on disk; else they go over HTTP and stay where they are.

    Seconds: `connect_timeout` is how long `connect` waits for the websocket; `patience`, how long an
    engine may be gone before runs are refused that it never had. `request_timeout` is for each HTTP
    request. After a `silence` the client asks whether it is being told anything at all, for an
    engine forgets a client when an old connection of the same client ends late, and says nothing.
    An engine that does not answer that within `hung_after` has hung. It must be long, for an engine
    that loads a model may be deaf meanwhile.

    `on_connected` is told when the websocket is up, and when it is down.
    """

    def __init__(
        self,
        url: str,
        directories: Directories | None = None,
        *,
        connect_timeout: float = 10.0,
        patience: float = 60.0,
        request_timeout: float = 60.0,
        silence: float = 5.0,
        hung_after: float = 60.0,
        on_connected: Callable[[bool], None] | None = None,
    ) -> None:
        self._http = Http(url, request_timeout)
        self._files: Files = LocalFiles(directories) if directories else RemoteFiles(self._http)
        self._inputs = Inputs(self._files)
        self._connect_timeout = connect_timeout
        self._patience = patience
        self._silence = silence
        self._hung_after = hung_after
        self._on_connected = on_connected or (lambda _: None)
        self._client_id = uuid4().hex
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._connected = asyncio.Event()
        self._unreachable = "not connected yet"
        self._has_hung = False
        self._down_since = 0.0
        self._connections = 0
        self._heard_at = 0.0
        # Those that the engine has come in its own order.
        self._jobs: dict[str, Job] = {}
        self._line = Line()
        self._numbers = itertools.count()
        self._output_classes: frozenset[str] | None = None
        self._classes_lock = asyncio.Lock()
        self._keepers: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._left_behind: set[str] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def url(self) -> str:
        """Where the engine is, without a slash at the end."""
        return self._http.url

    @property
    def connected(self) -> bool:
        """Whether the websocket is up now."""
        return self._connected.is_set()

    @property
    def gone_for(self) -> float:
        """For how many seconds the websocket has been down; 0 while it is up."""
        return 0.0 if self.connected else time.monotonic() - self._down_since

    @property
    def connections(self) -> int:
        """How often the websocket was opened; after each it may be another engine."""
        return self._connections

    async def connect(self) -> None:
        """Open the session and the websocket, which from now on is kept open.

        Raises:
            EngineUnreachable: when the engine does not answer within `connect_timeout`.
        """
        if self._keepers:
            raise RuntimeError("connect() was called before")
        self._http.open()
        self._down_since = time.monotonic()
        self._keepers = [
            asyncio.create_task(self._keep_connected()),
            asyncio.create_task(self._keep_listening()),
        ]
        for keeper in self._keepers:
            keeper.add_done_callback(self._give_up)
        try:
            await asyncio.wait_for(self._connected.wait(), self._connect_timeout)
        except TimeoutError as error:
            await self.close()
            raise EngineUnreachable(f"{self.url} does not answer: {self._unreachable}") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop what is in flight and close all connections; runs raise EngineInterrupted."""
        self._closing.set()
        for job in [*self._jobs.values()]:
            self._withdraw(job)
        if self.connected:
            await self._wait_for_tasks(_CLOSE_SECONDS)
        for job in [*self._jobs.values()]:
            job.end(EngineInterrupted(f"job {job.name}: the client was closed", requested=True))
        await _cancel(self._keepers)
        self._connected.clear()
        await self._wait_for_tasks(1.0)
        await _cancel([*self._tasks])
        await self._http.close()

    async def probe(self) -> EngineInfo:
        """Ask the engine what it is.

        Raises:
            EngineUnreachable: when it does not answer.
        """
        return EngineInfo.of(await self._get("system_stats"))

    async def classes(self) -> dict[str, Any]:
        """Return the engine's node classes, as /object_info describes them.

        Raises:
            EngineUnreachable: when it does not answer.
        """
        found = await self._get("object_info")
        if not isinstance(found, dict):
            raise EngineError("/object_info is no object")
        self._output_classes = frozenset(
            name for name, info in found.items() if info.get("output_node") is True
        )
        return found

    async def models(self, folder: str) -> list[str]:
        """Return the files that a model folder lists.

        Raises:
            LookupError: when the engine has no such folder.
            EngineUnreachable: when it does not answer.
        """
        status, body = await self._http.request("GET", f"models/{quote(folder, safe='')}")
        if status == 404:
            raise LookupError(f"the engine has no model folder {folder!r}")
        return [str(name) for name in parsed("models", status, body)]

    async def interrupt(self, job: str) -> bool:
        """Stop a run, whether it waits or is executed; say whether there was one.

        Returns when the engine has been told. The run itself raises EngineInterrupted when it has
        stopped, which may take until its present node is done; or it ends as if nothing had been,
        when it was done before.

        Raises:
            EngineUnreachable: when the engine does not answer.
        """
        found = self._named(job)
        if found is None:
            return False
        found.withdrawn = True
        try:
            if found.answered.is_set():
                await self._tell_to_stop(found)
        finally:
            # Should this time fail, it is told again.
            self._withdraw(found)
        return True

    def excuse(self) -> None:
        """Say that the engine is about to be ended: that is no fault of what it executes now."""
        for job in self._jobs.values():
            job.excused = True

    async def free(self) -> None:
        """Ask the engine to unload its models and free its memory once it has nothing to do.

        Raises:
            EngineError: when it does not answer, or refuses.
        """
        await self._http.post("free", {"unload_models": True, "free_memory": True}, _ASK_SECONDS)

    async def run(
        self,
        graph: Graph,
        *,
        job: str,
        files: Mapping[str, bytes] | None = None,
        on_event: Callable[[Event], None] | None = None,
        deadline: float | None = None,
    ) -> Run:
        """Execute a graph and return what its output nodes made.

        `job` names the run: 1 to 64 of `A-Z a-z 0-9 _ -`, unlike that of any other in flight. It is
        the folder that the run writes to. `files` are put into the engine's input folder under
        the names that the graph uses, and taken away when no run needs them. `on_event` is called
        in the event loop and must not block; what it raises ends the run and is raised here.
        `deadline` is in seconds from now, waiting included. A run whose caller is cancelled is
        stopped at the engine too.

        Raises:
            EngineUnreachable: the engine does not answer.
            EngineRefused: the graph is not valid, or one of its output nodes is not.
            EngineFailed: a node raised.
            EngineInterrupted: the run was stopped.
            EngineLost: the engine died twice in mid-run, or once and did not come back in time.
            EngineHung: the engine answers no more.
            EngineTimeout: the deadline passed.
            EngineDiskFull: there is no room for an input file.
            EngineOutputError: an output cannot be read.
            ValueError: a name is not allowed or already in use, or the graph is not JSON.
        """
        if not self._keepers:
            raise RuntimeError("run() before connect()")
        if not _JOB_NAME.fullmatch(job):
            raise ValueError(f"not a name for a job: {job!r}")
        if self._named(job) is not None:
            raise ValueError(f"job {job} is already in flight")
        for name in files or ():
            if not _FILE_NAME.fullmatch(name):
                raise ValueError(f"not a name for an input file: {name!r}")
        state = Job(job, graph, on_event, next(self._numbers))
        self._jobs[state.prompt_id] = state
        self._spawn(self._drive(state, files or {})).add_done_callback(state.settle)
        try:
            done, _ = await asyncio.wait({state.outcome}, timeout=deadline)
        except asyncio.CancelledError:
            self._withdraw(state)
            raise
        if not done:
            state.give_up(self._too_late(state, deadline or 0))
            self._withdraw(state)
        return state.outcome.result()

    def _too_late(self, job: Job, seconds: float) -> EngineError:
        if self.connected:
            return EngineTimeout(f"job {job.name} was not done after {seconds:g} s")
        if self._has_hung:
            return self._hung(job)
        return EngineLost(f"job {job.name} was lost: {self.url} is gone: {self._unreachable}")

    def _hung(self, job: Job) -> EngineHung:
        return EngineHung(f"job {job.name} was given up: {self.url} has stopped answering")

    def _named(self, name: str) -> Job | None:
        return next((job for job in self._jobs.values() if job.name == name), None)

    async def _drive(self, job: Job, files: Mapping[str, bytes]) -> Run:
        """See a run through, until an engine is done with it."""
        try:
            async with self._inputs.held(files):
                while True:
                    try:
                        return await self._perform(job)
                    except EngineLost as error:
                        if job.deaths >= _MOST_DEATHS:
                            raise
                        _log.warning("%s; it is sent again", error)
                    # At once, to go before those that came later; but none waits for another's files.
                    if not files:
                        self._line.join(job)
                    await self._begin_again(job, files)
        finally:
            self._line.leave(job)
            # Also when it was refused, or never sent.
            job.answered.set()
            del self._jobs[job.prompt_id]
            if job.accepted or job.losses:
                self._left_behind.add(job.name)
                self._sweeper = self._sweeper or self._spawn(self._sweep())
            self._tell_positions()

    async def _perform(self, job: Job) -> Run:
        await self._submit(job)
        await job.ended.wait()
        if job.error is not None:
            raise job.error
        return job.result(await self._files.read(job.files()))

    async def _begin_again(self, job: Job, files: Mapping[str, bytes]) -> None:
        """Make a lost run ready to be sent to another engine."""
        del self._jobs[job.prompt_id]
        job.renew()
        self._jobs[job.prompt_id] = job
        self._heed(job)
        # What was written before the end is no output of the run to come.
        await self._files.clear([job.name])
        await self._inputs.renew(files)

    async def _sweep(self) -> None:
        """Delete the folders of runs, together, when whoever waited for them has been answered."""
        try:
            while self._left_behind:
                await _wait(self._closing, _SWEEP_SECONDS)
                jobs = frozenset(self._left_behind)
                await self._files.clear(jobs)
                self._left_behind -= jobs
        finally:
            self._sweeper = None

    async def _submit(self, job: Job) -> None:
        while job.name in self._left_behind:
            await asyncio.sleep(_SWEEP_SECONDS / 10)
        self._line.join(job)
        try:
            answer = await self._send(job)
        finally:
            self._line.leave(job)
        if answer is None:
            await self._find_out(job)
            return
        status, body = answer
        if status != 200:
            raise refusal(status, body)
        self._accept(job)
        accepted = parsed("prompt", status, body)
        if not isinstance(accepted, dict) or accepted.get("prompt_id") != job.prompt_id:
            raise EngineError("the engine does not keep the prompt_id that it is given")
        if accepted.get("node_errors"):
            # The good output nodes are queued, and may be running already.
            self._withdraw(job)
            await job.ended.wait()
            raise refusal(status, body)
        self._tell_positions()

    async def _send(self, job: Job) -> tuple[int, bytes] | None:
        """Send a graph, and return the answer; None when it is not known whether it arrived."""
        limit = time.monotonic() + self._patience
        while True:
            await self._wait_turn(job)
            try:
                job.output_classes = await self._known_output_classes()
                graph = isolate(job.graph, job.name, job.output_classes)
                body = json.dumps(
                    {"prompt": graph, "prompt_id": job.prompt_id, "client_id": self._client_id},
                    allow_nan=False,
                ).encode()
                if job.withdrawn:
                    raise job.interrupted()
                job.send()
                return await self._http.request("POST", "prompt", body)
            except EngineUnreachable as error:
                if job.sent_at and not refused(error):
                    return None
                # It may have ended just now, which the websocket has not been told yet.
                if not job.losses and time.monotonic() >= limit:
                    raise
            job.sent_at = 0.0
            self._line.let_go(job)
            await asyncio.sleep(_RECONNECT_DELAY)

    async def _find_out(self, job: Job) -> None:
        """Ask whether a graph arrived whose sending broke off."""
        job.missed_messages = True
        absent_since: float | None = None
        connections = self._connections
        while not job.answered.is_set():
            await self._connected.wait()
            try:
                entry = None
                if job.prompt_id not in await self._queued():
                    entry = await self._history_of(job)
                    absent_since = absent_since or time.monotonic()
                    if entry is None and time.monotonic() - absent_since < _ARRIVAL_SECONDS:
                        await asyncio.sleep(_RECONNECT_DELAY)
                        continue
                    self._accept(job)
                    job.blamed = connections == self._connections
                    self._settle(job, entry)
                self._accept(job)
            except EngineError as error:
                _log.warning("job %s cannot be found now: %s", job.name, error)
                await asyncio.sleep(_RECONNECT_DELAY)

    def _accept(self, job: Job) -> None:
        """Note that the engine has a run, or may have it, behind those that it had before."""
        if not job.accepted:
            self._jobs[job.prompt_id] = self._jobs.pop(job.prompt_id)
        job.accept()

    async def _wait_turn(self, job: Job) -> None:
        """Wait until a run may be sent, and hold back all others."""
        while not (self._connected.is_set() and job.turn.is_set()):
            if job.withdrawn:
                raise job.interrupted()
            # A run that an engine had already waits for the next one as long as its caller does.
            if self.gone_for >= self._patience and not job.losses:
                raise EngineUnreachable(f"{self.url} does not answer: {self._unreachable}")
            await _wait(job.turn if self._connected.is_set() else self._connected, 0.1)
        self._line.hold(job)

    async def _known_output_classes(self) -> frozenset[str]:
        async with self._classes_lock:
            if self._output_classes is None:
                await self.classes()
            return self._output_classes or frozenset()

    async def _renew_output_classes(self) -> None:
        """Ask an engine that took another's place for its classes, once it has done its first runs.

        It takes long to tell them, and they seldom are others.
        """
        await _wait(self._closing, _RENEWAL_SECONDS)
        if self._closing.is_set() or not self.connected:
            return
        try:
            await self.classes()
        except EngineError as error:
            _log.warning("the engine does not tell its classes: %s", error)

    def _tell_positions(self) -> None:
        in_flight = self._in_flight()
        waiting = [job for job in in_flight if job.started is None]
        for position, job in enumerate(waiting, len(in_flight) - len(waiting)):
            job.tell_position(position)
            self._heed(job)

    def _heed(self, job: Job) -> None:
        """Stop a run whose callback has raised."""
        if job.callback_error is not None:
            self._withdraw(job)

    def _withdraw(self, job: Job) -> None:
        """Stop a run at the engine, in the background, until it has ended."""
        job.withdrawn = True
        if not self.connected:
            # Whoever has stopped it does not wait until there is an engine that can be told.
            job.give_up(job.interrupted())
        if not job.stopping:
            job.stopping = True
            self._spawn(self._stop(job))

    async def _stop(self, job: Job) -> None:
        await job.answered.wait()
        delay = 0.1
        while job.in_flight:
            # Told more than once: an engine forgets an interrupt that comes as a run begins.
            try:
                if self.connected:
                    await self._tell_to_stop(job)
            except EngineError as error:
                _log.warning("job %s cannot be stopped now: %s", job.name, error)
            await _wait(job.ended, delay)
            delay = min(2 * delay, _LAST_DELAY)

    async def _tell_to_stop(self, job: Job) -> None:
        # In this order, for in between a run can only go from waiting to running.
        await self._http.post("queue", {"delete": [job.prompt_id]}, _ASK_SECONDS)
        await self._http.post("interrupt", {"prompt_id": job.prompt_id}, _ASK_SECONDS)
        await self._settle_unless_queued([job])

    async def _settle_unless_queued(self, jobs: Sequence[Job]) -> None:
        """Settle those of the runs that are neither waiting nor executed now."""
        queued = await self._queued()
        missing = [job for job in jobs if job.prompt_id not in queued]
        # One question for all of them is enough where an engine has just been started.
        if len(missing) > 1 and not await self._http.get("history?max_items=1", _ASK_SECONDS):
            for job in missing:
                self._settle(job, None)
            return
        for job in missing:
            await self._settle_from_history(job)

    async def _queued(self, timeout: float = _ASK_SECONDS) -> set[str]:
        """Return the ids of what waits or is executed at the engine."""
        queue = await self._http.get("queue", timeout)
        try:
            return {str(entry[1]) for key in _QUEUES for entry in queue[key]}
        except (LookupError, TypeError) as error:
            raise EngineError(f"/queue is not ComfyUI's: {error!r}") from error

    async def _settle_from_history(self, job: Job) -> None:
        self._settle(job, await self._history_of(job))

    async def _history_of(self, job: Job) -> Any:
        """Return what the engine's history has of a run, None when it has nothing."""
        history = await self._http.get(f"history/{job.prompt_id}", _ASK_SECONDS)
        return history.get(job.prompt_id) if isinstance(history, dict) else None

    def _settle(self, job: Job, entry: Any) -> None:
        """End a run by what the engine's history has of it."""
        if job.ended.is_set():
            return
        if entry is None:
            job.end_absent("the engine no longer knows it")
            return
        try:
            job.take_history(entry)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            job.end(EngineError(f"/history is not ComfyUI's: {error!r}"))

    async def _keep_connected(self) -> None:
        """Keep the websocket open; what may have been missed meanwhile is asked for."""
        while True:
            try:
                async with asyncio.timeout(_ASK_SECONDS):
                    socket = await self._open_socket()
                async with socket:
                    await self._catch_up()
                    self._socket = socket
                    self._has_hung = False
                    self._connections += 1
                    self._connected.set()
                    self._on_connected(True)
                    await self._listen(socket)
                reason_ = "it closed the websocket"
            except (aiohttp.ClientError, OSError, TimeoutError, EngineError) as error:
                reason_ = reason(error)
            if not self._has_hung:
                self._unreachable = reason_
            if self._connected.is_set():
                self._connected.clear()
                self._down_since = time.monotonic()
                self._on_connected(False)
                _log.warning("the engine's websocket is down: %s", self._unreachable)
                for job in self._jobs.values():
                    if job.withdrawn:
                        job.give_up(job.interrupted())
            await asyncio.sleep(_RECONNECT_DELAY)

    async def _open_socket(self) -> aiohttp.ClientWebSocketResponse:
        socket = await self._http.session.ws_connect(
            f"{self.url}/ws?clientId={self._client_id}",
            max_msg_size=_MAX_MESSAGE,
            timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
        )
        await socket.send_json(_FEATURES)
        return socket

    async def _catch_up(self) -> None:
        """Settle the runs that ended while nobody listened; it may even be another process."""
        self._heard_at = time.monotonic()
        if self._output_classes is not None:
            self._spawn(self._renew_output_classes())
        for job in self._jobs.values():
            job.missed_messages = True
        jobs = self._in_flight()
        if jobs:
            await self._settle_unless_queued(jobs)

    def _in_flight(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.in_flight]

    async def _keep_listening(self) -> None:
        """Reconnect when the engine goes on working and doesn't tell us; see that it works at all."""
        while True:
            await asyncio.sleep(self._silence / 2)
            jobs = [job for job in self._jobs.values() if job.in_flight or job.unanswered]
            heard_at = self._heard_at
            active_at = max([heard_at, *(job.sent_at for job in jobs)])
            if not jobs or not self.connected or time.monotonic() - active_at < self._silence:
                continue
            try:
                queued = await self._queued(self._hung_after)
            except EngineError as error:
                _log.warning("the engine is silent: %s", error)
                was_asked = isinstance(error, EngineUnreachable) and timed_out(error)
                if was_asked and self._heard_at == heard_at and self._socket is not None:
                    await self._give_up_engine(self._socket)
                continue
            jobs = [job for job in jobs if job.in_flight and job.prompt_id not in queued]
            if jobs and self._heard_at == heard_at and self._socket is not None:
                _log.warning("the engine ended %d runs without a word; reconnecting", len(jobs))
                for job in jobs:
                    job.blamed = True
                await self._socket.close()

    async def _give_up_engine(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Take an engine for hung: the run that it executes ends, those that wait may yet go on."""
        self._has_hung = True
        self._unreachable = "it has stopped answering"
        _log.error("the engine at %s has stopped answering", self.url)
        for job in self._in_flight():
            if job.executing:
                job.give_up(self._hung(job))
                self._withdraw(job)
        await socket.close()

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            self._heard_at = time.monotonic()
            try:
                if message.type is aiohttp.WSMsgType.TEXT:
                    if message.data.startswith(_OF_NO_USE):
                        continue
                    self._take_message(json.loads(message.data))
                elif message.type is aiohttp.WSMsgType.BINARY:
                    self._take_frame(message.data)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                _log.warning(
                    "the engine sent a message that cannot be read: %s", type(error).__name__
                )

    def _take_message(self, message: dict[str, Any]) -> None:
        data = message["data"]
        job = self._jobs.get(data.get("prompt_id", ""))
        if job is None or job.ended.is_set():
            return
        if message["type"] == "executing" and data.get("node") is None:
            # It comes when the history has the run; after a success it is not waited for.
            self._spawn(self._settle_late(job))
            return
        job.take(message["type"], data)
        self._heed(job)
        if message["type"] == "execution_start":
            self._tell_positions()

    async def _settle_late(self, job: Job) -> None:
        try:
            await self._settle_from_history(job)
        except EngineError as error:
            # The socket is down then, or it falls silent: either way it is asked again.
            _log.warning("job %s cannot be settled now: %s", job.name, error)

    def _take_frame(self, data: bytes) -> None:
        frame = parse_frame(data)
        if frame is None:
            return
        if frame.prompt_id is None:
            job = next((job for job in self._jobs.values() if job.executing), None)
        else:
            job = self._jobs.get(frame.prompt_id)
        if job is not None and not job.ended.is_set():
            job.take_frame(frame)
            self._heed(job)

    async def _get(self, path: str) -> Any:
        return await self._http.get(path)

    def _give_up(self, keeper: asyncio.Task[None]) -> None:
        """Fail loudly when a keeper fails, which is a fault of this module."""
        error = None if keeper.cancelled() else keeper.exception()
        if error is None:
            return
        _log.error("the engine client has failed", exc_info=error)
        self._connected.clear()
        self._unreachable = f"the engine client has failed: {error!r}"
        for job in self._in_flight():
            job.end(EngineUnreachable(self._unreachable))

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def _wait_for_tasks(self, seconds: float) -> None:
        """Wait until there are none; those that end may start others."""
        limit = time.monotonic() + seconds
        while self._tasks and (left := limit - time.monotonic()) > 0:
            await asyncio.wait({*self._tasks}, timeout=left)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # Whoever waits for the task raises this; nobody may be left who does.
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.debug("ended with %r", error)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
