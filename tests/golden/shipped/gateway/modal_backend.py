"""The backend on Modal: a run is a call of a worker's method, spawned and asked for, never awaited.

Everything that a gateway knows of a job is in the job store, so any gateway can answer for any job.
"""

import logging
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

from ..graph.families import Families
from .active_jobs import ActiveJobs
from .backend import (
    BackendUnavailableError,
    Failure,
    Job,
    JobEndedError,
    JobEvent,
    Key,
    NotTakenError,
    Room,
    Status,
    UnknownJobError,
    Work,
    Worker,
)
from .claims import Claims
from .job_store import CANCELLED, End, JobStore, Now, Record, job_of
from .journal import Journal
from .modal_events import EventReader, Lists
from .timings import Timings

_log = logging.getLogger(__name__)

# How long whoever cancels a job waits for its worker to let go of it.
_STOP_SECONDS: Final = 3.0
# How long a result may be on its way from its worker.
_HANDING_SECONDS: Final = 10.0
# What ComfyUI brings files of its own for; nobody here can list them.
_SHIPPED_FOLDERS: Final = frozenset(("configs",))


class CallPendingError(Exception):
    """A call has not ended."""


class CallLostError(Exception):
    """A call ended without a result; `failure` says why, and `why` what the log may say more."""

    def __init__(self, failure: Failure, why: str | None = None) -> None:
        super().__init__(failure.detail)
        self.failure = failure
        self.why = why


class Calls(Protocol):
    """Calls of workers. Each method raises BackendUnavailableError when Modal does not answer."""

    async def spawn(self, work: Work) -> str:
        """Call the worker that work is for, and return the id of the call."""

    async def get(self, call: str, seconds: float) -> End:
        """Return what a call returned, waiting for it for some seconds.

        Raises:
            CallPendingError: when it has not ended by then.
            CallLostError: when it ended without a result.
            UnknownJobError: when its result is kept no longer.
        """

    async def cancel(self, call: str) -> None:
        """Stop a call, whether it waits or runs."""


class Uploads(Protocol):
    """The model files on the app's own Volume."""

    async def listing(self, folder: str) -> Collection[str]:
        """Return the files of a model folder; none when it is not there."""

    async def families(self, folder: str, name: str) -> Families | None:
        """Return the families that a file is of by its header.

        Raises:
            UnreadModelError: when it is not the file that its name says.
        """


class ModalBackend:
    """Runs graphs on the workers of a Modal app.

    `workers` are the profile and group of each. `models` are the declared model files,
    below ComfyUI's models folder; `uploads` are those that were uploaded since.
    """

    def __init__(
        self,
        calls: Calls,
        jobs: JobStore,
        lists: Lists,
        *,
        workers: Collection[tuple[str, str]],
        models: Collection[str] = (),
        uploads: Uploads | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.journal = journal or Journal()
        self._calls = calls
        self._jobs = jobs
        self._claims = Claims(jobs)
        self._active = ActiveJobs(jobs.table, self._has_ended)
        self._workers = sorted(workers)
        self._model_paths = sorted(models)
        self._uploads = uploads
        self._reader = EventReader(lists, jobs, self.wait)

    async def submit(self, work: Work, room: Room) -> str:
        """Start a job if there is room, and return its id when every gateway can answer for it."""
        key = work.key
        if key is None:
            await self._start(work, room)
            return work.job
        own = work.job
        job, is_to_start = await self._claims.take(work, key)
        if is_to_start:
            work = replace(work, job=job)
            try:
                await self._start(work, room)
            except BaseException as error:
                # One that took over from another may be run by the other's call.
                is_refused = isinstance(error, NotTakenError) and job == own
                await self._claims.give_up(work, key, was_refused=is_refused)
                raise
        return job

    async def keyed(self, owner: str, key: Key) -> str | None:
        """Return the job that an owner's key was used for."""
        return await self._claims.job(owner, key)

    async def _start(self, work: Work, room: Room) -> None:
        """Call the worker that work is for, if there is room."""
        await self._active.enter(work, room)
        try:
            call = await self._calls.spawn(work)
        except BaseException:
            await self._active.leave(work.job)
            raise
        try:
            is_first = await self._add(work, call)
        except BaseException:
            # Under a key it may be known by now, or its worker makes it known: asking again finds it.
            if work.key is None:
                # Nobody could ask for it, and it would be billed.
                await self._stop(work.job, call, "it may run though nobody can ask for it")
                await self._active.leave(work.job)
            raise
        if not is_first:
            # Another gateway has called for this job meanwhile.
            await self._stop(work.job, call, "its second call is left to be turned away")

    async def _add(self, work: Work, call: str) -> bool:
        """Note the job of a call, and say whether its call is the job's one."""
        record = Record.of(work, call)
        try:
            return await self._jobs.add(work.job, record)
        except BackendUnavailableError:
            if work.key is None:
                raise
            # It may have been written though the answer was late, and the key stands for it then.
            return await self._jobs.add(work.job, record)

    async def _stop(self, job: str, call: str, otherwise: str) -> None:
        """Stop a call that no job is to have; the log says what comes of it otherwise."""
        try:
            await self._calls.cancel(call)
        except BackendUnavailableError as error:
            _log.warning("job %s: %s: %s", job, otherwise, error)

    async def _has_ended(self, job: str) -> bool:
        record = await self._jobs.record(job)
        if isinstance(await self._jobs.now(job), End):
            return True
        # A worker that died could not say so.
        return await self._end(job, record, 0) is not None

    async def wait(self, job: str, seconds: float) -> Job:
        """Return a job once it has ended, or as it is after a time."""
        record = await self._jobs.record(job)
        end = await self._end(job, record, seconds)
        if end is None:
            now = await self._jobs.now(job)
            if isinstance(now, End) and now.status is Status.SUCCEEDED:
                # Its worker is handing out what it made.
                end = await self._end(job, record, _HANDING_SECONDS)
            else:
                return job_of(job, record, now)
        return job_of(job, record, end or Now(Status.RUNNING))

    async def _end(self, job: str, record: Record, seconds: float) -> End | None:
        """Return how a job ended; None when it has not, after a time."""
        try:
            end = await self._calls.get(record.call, seconds)
        except CallPendingError:
            return None
        except CallLostError as error:
            # Cancelled jobs end here too, and the store knows of which one that is true.
            told = (await self._jobs.told(job)).timings
            lost = End(Status.FAILED, failure=error.failure, timings=told)
            end, is_first = await self._jobs.settle(job, lost)
            if is_first:
                # A worker that was told to stop has counted what it took.
                counted = None if error.failure.code == "engine-interrupted" else told
                subject = record.subject(job)
                self.journal.ended(subject, Status.FAILED, counted, error.failure, error.why)
            if end.status is Status.SUCCEEDED:
                return end.handed_out
            return replace(end, timings=told or end.timings)
        if end.is_settled:
            return end
        kept, is_first = await self._jobs.settle_late(job, replace(end, is_settled=True))
        if is_first:
            # Its worker has counted what it took.
            self.journal.ended(record.subject(job), end.status, None, end.failure)
        return replace(kept.handed_out, timings=end.timings)

    def events(
        self, job: str, after: int, *, previews: bool = False
    ) -> AsyncGenerator[JobEvent, None]:
        """Yield what happens to a job; last END."""
        return self._reader.listen(job, after, previews=previews)

    async def cancel(self, job: str) -> Job:
        """Stop a job, and return it once it has stopped."""
        record = await self._jobs.record(job)
        waited = Timings(queue_seconds=round(max(0.0, time.time() - record.created), 3))
        wanted = replace(CANCELLED, timings=waited)
        with suppress(UnknownJobError):
            # The table may know of no end that its worker could not write.
            wanted = await self._end(job, record, 0) or wanted
        end, is_first = await self._jobs.settle(job, wanted)
        if end.status is not Status.CANCELLED:
            raise JobEndedError(job)
        told: Timings | None = None
        try:
            await self._calls.cancel(record.call)
            # It is cancelled, whatever its worker makes of that.
            with suppress(CallPendingError, CallLostError, UnknownJobError):
                await self._calls.get(record.call, _STOP_SECONDS)
            # What its run took, its worker has told, and counted.
            told = (await self._jobs.told(job)).timings
        finally:
            if is_first:
                counted = None if told else end.timings
                self.journal.ended(record.subject(job), Status.CANCELLED, counted)
        return job_of(job, record, replace(CANCELLED, timings=told or end.timings))

    async def models(self, folder: str) -> Collection[str] | None:
        """Return the files of a model folder, or None when nobody here can list it."""
        if folder in _SHIPPED_FOLDERS:
            return None
        start = f"{folder}/"
        declared = [p.removeprefix(start) for p in self._model_paths if p.startswith(start)]
        uploaded = await self._uploads.listing(folder) if self._uploads else ()
        return sorted({*declared, *uploaded})

    async def families(self, folder: str, name: str) -> Families | None:
        """Return the families that an uploaded file shows; a declared one was verified."""
        if self._uploads is None or f"{folder}/{name}" in self._model_paths:
            return None
        return await self._uploads.families(folder, name)

    async def workers(self) -> list[Worker]:
        """Return what is known of the workers; starts none."""
        return [await self._jobs.worker(profile, group) for profile, group in self._workers]
