"""The backend on this machine: the engine client against a ComfyUI at a URL."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final, Self

from ..graph.families import Families
from ..utils.comfyui import Engine
from ..utils.comfyui_errors import EngineError, EngineFailed, EngineInterrupted
from ..utils.comfyui_files import Directories
from ..utils.comfyui_needs import Needs, lacking
from ..utils.comfyui_records import EngineInfo, Event, File, Preview, Started
from .backend import (
    END,
    BackendUnavailableError,
    Failure,
    Job,
    JobEndedError,
    JobEvent,
    Key,
    Room,
    Status,
    UnknownJobError,
    Work,
    Worker,
    check_key,
    engine_name,
    failure_of,
    gpu_of,
    result_of,
    told,
)
from .events import EventLog, Narrator
from .journal import Journal, Subject, why
from .logs import event
from .spool import Spooled
from .timings import Starts, Watch

_log = logging.getLogger(__name__)

PROFILE: Final = "local"

# An engine may be starting again; from then on nobody waits for it who can ask later.
_MOST_SECONDS_GONE: Final = 10.0
# A node at work may not be interrupted before it is done.
_STOP_SECONDS: Final = 30.0


@dataclass(slots=True)
class _Entry:
    """A job, the task that runs it, and how many bytes its outputs and events have."""

    job: Job
    key: Key | None = None
    task: "asyncio.Task[None] | None" = None
    size: int = 0
    log: EventLog = field(default_factory=EventLog)

    async def spool(self, most: int) -> None:
        """Keep files of more than `most` bytes on disk.

        Raises:
            OSError: when they cannot be written; then all stay in memory.
        """
        result = self.job.result
        if result is None:
            return
        outputs = [*result.outputs]
        spooled: dict[int, Spooled] = {}
        for number, output in enumerate(outputs):
            if isinstance(output, File) and len(output.data) > most:
                spooled[number] = await asyncio.to_thread(Spooled, output.data)
                outputs[number] = replace(output, data=b"")
        if spooled:
            result = replace(result, outputs=tuple(outputs), spooled=spooled)
            self.job = replace(self.job, result=result)


class LocalBackend:
    """Runs graphs on the ComfyUI at `url`, which may be any that is up.

    `directories` are its folders where they can be read from here. `prices` are USD per second by
    GPU; a GPU that is not among them costs nothing, for nobody bills it. The last `keep_jobs`
    finished jobs are kept, and no more than `keep_bytes` of their outputs and events: outputs of
    more than `most_in_memory` bytes in temporary files.
    """

    def __init__(
        self,
        url: str,
        directories: Directories | None = None,
        *,
        journal: Journal | None = None,
        prices: Mapping[str, float] | None = None,
        keep_jobs: int = 1000,
        keep_bytes: int = 512 * 10**6,
        most_in_memory: int = 4 * 10**6,
    ) -> None:
        self.journal = journal or Journal()
        self._engine = Engine(url, directories, on_connected=self._note_connected)
        self._prices = dict(prices or {})
        self._gpu, self._price = "", 0.0
        self._starts = Starts()
        self._keep_jobs = keep_jobs
        self._keep_bytes = keep_bytes
        self._most_in_memory = most_in_memory
        self._stopping = False
        self._running: dict[str, _Entry] = {}
        self._finished: OrderedDict[str, _Entry] = OrderedDict()
        # The jobs that were asked for with a key, by their owners and the keys' texts.
        self._keyed: dict[tuple[str, str], _Entry] = {}
        self._bytes = 0
        self._info: EngineInfo | None = None
        self._probed = 0
        self._last_start: float | None = None
        self._last_error: str | None = None
        self._last_error_at: float | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            EngineError: when there is no ComfyUI at the URL.
        """
        await self._engine.connect()
        try:
            await self._probe()
        except BaseException:
            await self._engine.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop all jobs, and take no more."""
        self._stopping = True
        await self._engine.close()
        tasks = [entry.task for entry in self._running.values() if entry.task]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def submit(self, work: Work, room: Room) -> str:
        """Start a job if there is room for it; work whose key was used is not run again."""
        # Nothing else runs until the job is there, for nothing is waited for.
        if work.key and (known := self._job_of(work.owner, work.key)):
            return known
        if self._stopping:
            raise BackendUnavailableError("the service is stopping")
        if self._engine.gone_for >= _MOST_SECONDS_GONE:
            # What has been taken waits longer; of this nothing is lost yet.
            raise BackendUnavailableError("the engine does not answer")
        room.check([entry.job.owner for entry in self._running.values()], work.owner)
        job = Job(work.job, work.route, work.owner, work.seed, work.created)
        entry = self._running[work.job] = _Entry(job, work.key)
        if work.key:
            self._keyed[work.owner, work.key.text] = entry
        entry.task = asyncio.create_task(self._perform(entry, work))
        entry.task.add_done_callback(lambda _: entry.log.close())
        return work.job

    async def keyed(self, owner: str, key: Key) -> str | None:
        """Return the job that an owner's key was used for."""
        return self._job_of(owner, key)

    async def wait(self, job: str, seconds: float) -> Job:
        """Return a job once it has ended, or as it is after a time."""
        entry = self._entry(job)
        if entry.task and not entry.task.done() and seconds > 0:
            await asyncio.wait({entry.task}, timeout=seconds)
        return entry.job

    async def events(
        self, job: str, after: int, *, previews: bool = False
    ) -> AsyncGenerator[JobEvent, None]:
        """Yield what happens to a job; last END."""
        entry = self._entry(job)
        async with aclosing(entry.log.listen(after, previews=previews)) as events:
            async for event in events:
                yield event
        yield JobEvent(len(entry.log) + 1, END, job=entry.job)

    async def cancel(self, job: str) -> Job:
        """Stop a job, and return it once it has stopped."""
        entry = self._entry(job)
        if entry.task and not entry.task.done():
            try:
                while not await self._engine.interrupt(job) and not entry.task.done():
                    await asyncio.sleep(0.01)  # not handed to the engine yet
            except EngineError as error:
                _log.warning("job %s: it is told to stop again: %s", job, why(error))
            await asyncio.wait({entry.task}, timeout=_STOP_SECONDS)
        if entry.job.status.is_final and entry.job.status is not Status.CANCELLED:
            raise JobEndedError(job)
        return entry.job

    async def models(self, folder: str) -> Collection[str] | None:
        """Return the files of a model folder, or None when there is no such folder."""
        limit = time.monotonic() + _MOST_SECONDS_GONE
        while True:
            try:
                return await self._engine.models(folder)
            except LookupError:
                return None
            except EngineError as error:
                # It may be starting again; a run would wait for it too.
                if time.monotonic() >= limit or self._engine.gone_for >= _MOST_SECONDS_GONE:
                    raise BackendUnavailableError("the engine does not answer") from error
                await asyncio.sleep(0.2)

    async def lacking(self, needs: Needs) -> Needs:
        """Return what the engine has not.

        Raises:
            EngineError: when it does not answer.
        """
        return await lacking(self._engine, needs)

    async def families(self, folder: str, name: str) -> Families | None:  # noqa: ARG002
        """Return None: the engine lists its files, and hands none out."""
        return None

    async def workers(self) -> list[Worker]:
        """Return what is known of the engine."""
        info = self._info
        return [
            Worker(
                PROFILE,
                ready=self._engine.connected,
                engine=engine_name(info) if info else None,
                gpu=gpu_of(info.device, self._prices) if info else None,
                last_start=self._last_start,
                last_error=self._last_error,
                last_error_at=self._last_error_at,
            )
        ]

    def _job_of(self, owner: str, key: Key) -> str | None:
        entry = self._keyed.get((owner, key.text))
        if entry is None or entry.key is None:
            return None
        check_key(key, entry.key.fingerprint)
        return entry.job.id

    def _entry(self, job: str) -> _Entry:
        found = self._running.get(job) or self._finished.get(job)
        if found is None:
            raise UnknownJobError(job)
        return found

    async def _perform(self, entry: _Entry, work: Work) -> None:
        """Run a job to its end, which is one of three, whatever happens."""
        watch = Watch(work.created, self._starts)
        subject = Subject(work.job, work.route, work.owner)

        narrator = Narrator(lambda: self._info, self._prices)

        def on_event(event: Event) -> None:
            # The engine may be heard of a run that has been given up.
            if entry.job.status.is_final:
                return
            entry.job = told(entry.job, event)
            watch.take(event)
            if isinstance(event, Started):
                self.journal.started(subject, *self._found(), watch.waited)
            if isinstance(event, Preview):
                entry.log.show(event)
            elif line := narrator.tell(event):
                entry.log.add(line)

        job = work.job
        execution: float | None = None
        reason: str | None = None
        try:
            run = await self._engine.run(
                work.graph, job=job, files=work.files, on_event=on_event, deadline=work.timeout
            )
            execution = run.execution_seconds
            made = result_of(run, await self._engine_info(), self._prices)
            if isinstance(made, Failure):
                ended = replace(entry.job, status=Status.FAILED, failure=made)
            else:
                ended = replace(entry.job, status=Status.SUCCEEDED, result=made)
        except EngineInterrupted as error:
            if self._stopping:
                failure = Failure("engine-unreachable", "the service was stopped")
                ended = replace(entry.job, status=Status.FAILED, failure=failure)
            elif error.requested:
                ended = replace(entry.job, status=Status.CANCELLED)
            else:
                ended, reason = self._failed(entry.job, error), why(error)
        except EngineError as error:
            ended, reason = self._failed(entry.job, error), why(error)
            if isinstance(error, EngineFailed) and error.breaks_engine:
                await self._free(job)
        except Exception:
            _log.exception("job %s: this is a fault of the service", job)
            failure = Failure("internal-error", "this is a fault of the service; its log says more")
            ended = replace(entry.job, status=Status.FAILED, failure=failure)
        timings = watch.timings(self._price, execution)
        self.journal.ended(subject, ended.status, timings, ended.failure, reason)
        entry.job = replace(ended, position=None, step=None, timings=timings)
        await self._keep(entry)

    def _failed(self, job: Job, error: EngineError) -> Job:
        failure = failure_of(error)
        if not failure.errors:
            # What nodes say is about a caller's graph, and for that caller alone.
            self._last_error, self._last_error_at = failure.detail, time.time()
        return replace(job, status=Status.FAILED, failure=failure)

    async def _keep(self, entry: _Entry) -> None:
        """Move a job to the finished ones, and drop the oldest of them that are too many."""
        result = entry.job.result
        outputs = result.outputs if result else ()
        entry.size = sum(len(o.data if isinstance(o, File) else o.text) for o in outputs)
        entry.size += entry.log.size
        try:
            await entry.spool(self._most_in_memory)
        except OSError as error:
            _log.warning("job %s: its outputs stay in memory: %s", entry.job.id, error)
        except Exception:
            # A job that has ended is to be among the finished ones, whatever happens.
            _log.exception(
                "job %s: its outputs stay in memory: a fault of the service", entry.job.id
            )
        self._running.pop(entry.job.id, None)
        self._finished[entry.job.id] = entry
        self._bytes += entry.size
        while len(self._finished) > 1 and (
            len(self._finished) > self._keep_jobs or self._bytes > self._keep_bytes
        ):
            _, oldest = self._finished.popitem(last=False)
            self._bytes -= oldest.size
            if oldest.key:
                del self._keyed[oldest.job.owner, oldest.key.text]

    async def _free(self, job: str) -> None:
        """Have the engine free its memory; it is another's process, and cannot be started again."""
        try:
            await self._engine.free()
        except EngineError as error:
            _log.warning("job %s: the engine does not free its memory: %s", job, error)

    async def _engine_info(self) -> EngineInfo:
        """Return what the engine says of itself; whenever the connection broke, it is asked anew."""
        if self._probed != self._engine.connections:
            try:
                return await self._probe()
            except EngineError as error:
                if self._info is None:
                    raise
                # It ended just now; what it made is there.
                _log.warning("it is not known which engine this is: %s", error)
        assert self._info is not None
        return self._info

    def _note_connected(self, is_connected: bool) -> None:
        """Take note that the engine went, or came back: it was started again then."""
        if not is_connected:
            self._starts.begin()
        elif seconds := self._starts.end():
            event("engine-back", url=self._engine.url, seconds=round(seconds, 3))

    def _found(self) -> tuple[str | None, str | None]:
        """Return the GPU and the name of the engine, where they are known."""
        return (self._gpu, engine_name(self._info)) if self._info else (None, None)

    async def _probe(self) -> EngineInfo:
        connections = self._engine.connections
        self._info = await self._engine.probe()
        self._probed = connections
        self._gpu = gpu_of(self._info.device, self._prices)
        self._price = self._prices.get(self._gpu, 0.0)
        self._last_start = time.time()
        return self._info
