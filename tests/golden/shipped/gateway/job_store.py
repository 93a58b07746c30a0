"""What gateways and workers tell each other of jobs: a few entries a job in one shared table.

`JOB` says who asked for what, and which call runs it. `JOB/now` is where a run is, told by its
worker as it goes. `JOB/end` is how it ended: whoever writes it first decides, for a job that is
cancelled as it succeeds must not be both. `JOB/noted` is there once an end is in the log that its
worker was in doubt of. `JOB/watched` says when somebody last looked for a preview, `JOB/preview` is
the newest. `worker/PROFILE/GROUP` says how a worker started last, and `worker/PROFILE/GROUP/error`
what went wrong last, whichever container of it that was in.
What claims.py and active_jobs.py keep is in the same table.
"""

import time
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from ..utils.comfyui_records import Preview
from ..utils.lasting import lasting
from .backend import Failure, Job, Result, Status, Step, UnknownJobError, Work, Worker
from .journal import Subject
from .timings import Timings


class Table(Protocol):
    """A table that all containers share; each of its operations is atomic."""

    async def get(self, key: str) -> Any:
        """Return the value of a key, or None."""

    async def put(self, key: str, value: Any, *, skip_if_exists: bool = False) -> bool:
        """Write a value, and say whether it was written."""


@lasting
@dataclass(frozen=True, slots=True)
class Record:
    """A job as it was submitted. `call` is Modal's id of the call; no caller ever sees it."""

    call: str
    route: str
    owner: str
    seed: int | None
    created: float

    @classmethod
    def of(cls, work: Work, call: str) -> "Record":
        """Return what is kept of work."""
        return cls(call, work.route, work.owner, work.seed, work.created)

    def subject(self, job: str) -> Subject:
        """Return the job as the log names it."""
        return Subject(job, self.route, self.owner)


@lasting
@dataclass(frozen=True, slots=True)
class Now:
    """Where a run is that has not ended, and what it has taken until now."""

    status: Status = Status.QUEUED
    position: int | None = None
    step: Step | None = None
    timings: Timings | None = None


@lasting
@dataclass(frozen=True, slots=True)
class End:
    """How a job ended. `result` is there when it succeeded, `failure` when it failed.

    One that is not settled is how its worker would end it: the table did not answer, and may have
    another end.
    """

    status: Status
    result: Result | None = None
    failure: Failure | None = None
    timings: Timings | None = None
    is_settled: bool = True

    @classmethod
    def of(cls, made: Result | Failure) -> "End":
        """Return the end of a run that was not cancelled."""
        if isinstance(made, Failure):
            return cls(Status.FAILED, failure=made)
        return cls(Status.SUCCEEDED, result=made)

    @property
    def handed_out(self) -> "End":
        """The end that callers are told: a success without its outputs is none."""
        if self.result is not None or self.status is not Status.SUCCEEDED:
            return self
        return replace(self, status=Status.FAILED, failure=_NOT_HANDED_OUT)


CANCELLED: Final = End(Status.CANCELLED)
_NOT_HANDED_OUT: Final = Failure(
    "output-missing", "the worker ended before it could hand out what it had made"
)


class JobStore:
    """The jobs and workers of an app, in a table that its containers share."""

    def __init__(self, table: Table) -> None:
        self.table = table

    async def add(self, job: str, record: Record) -> bool:
        """Note a job that has been submitted, and say whether its call is the job's one."""
        if await self.table.put(job, record, skip_if_exists=True):
            return True
        return (await self.record(job)).call == record.call

    async def record(self, job: str) -> Record:
        """Return what is kept of a job.

        Raises:
            UnknownJobError: when there is none.
        """
        # Keys of workers and of what is told of jobs are no jobs.
        found = await self.table.get(job) if "/" not in job else None
        if not isinstance(found, Record):
            raise UnknownJobError(job)
        return found

    async def tell(self, job: str, now: Now) -> None:
        """Say where a run is."""
        await self.table.put(f"{job}/now", now)

    async def told(self, job: str) -> Now:
        """Return where a run was when its worker told it last, also of a job that has ended."""
        now = await self.table.get(f"{job}/now")
        return now if isinstance(now, Now) else Now()

    async def now(self, job: str) -> Now | End:
        """Return where a run is, or its end without the outputs."""
        end = await self.table.get(f"{job}/end")
        if isinstance(end, End):
            return end
        return await self.told(job)

    async def settle(self, job: str, end: End) -> tuple[End, bool]:
        """End a job, unless it has ended; return how it did end, and whether it is this that ended it.

        Outputs stay with whoever has them: the table holds the status, the failure and the timings.
        """
        kept = _kept(end)
        if await self.table.put(f"{job}/end", kept, skip_if_exists=True):
            return end, True
        first = await self.table.get(f"{job}/end")
        if not isinstance(first, End) or (first.status is end.status and end.result):
            return end, False
        return first, False

    async def settle_late(self, job: str, end: End) -> tuple[End, bool]:
        """End a job as its worker would have, who does not know whether it has.

        Return what `settle` does. Where this very end is there, one of those who find it has ended the
        job: whoever wrote it was not told.
        """
        kept, is_first = await self.settle(job, end)
        if not is_first:
            is_first = await self.table.get(f"{job}/end") == _kept(end)
        return kept, is_first and await self.table.put(f"{job}/noted", True, skip_if_exists=True)

    async def watch(self, job: str) -> None:
        """Say that somebody wants to see previews now."""
        await self.table.put(f"{job}/watched", time.time())

    async def watched(self, job: str) -> float | None:
        """Return when somebody last wanted previews, in seconds since the epoch."""
        found = await self.table.get(f"{job}/watched")
        return found if isinstance(found, float) else None

    async def show(self, job: str, preview: Preview | None) -> None:
        """Keep a preview in place of the one before; None is for a run that has ended."""
        await self.table.put(f"{job}/preview", preview)

    async def shown(self, job: str) -> Preview | None:
        """Return the newest preview."""
        found = await self.table.get(f"{job}/preview")
        return found if isinstance(found, Preview) else None

    async def tell_worker(self, worker: Worker) -> None:
        """Say how a worker is."""
        key = f"worker/{worker.profile}/{worker.group}"
        if worker.last_error is not None:
            await self.table.put(f"{key}/error", (worker.last_error, worker.last_error_at))
        await self.table.put(key, replace(worker, last_error=None, last_error_at=None))

    async def worker(self, profile: str, group: str) -> Worker:
        """Return what is known of a worker."""
        key = f"worker/{profile}/{group}"
        found = await self.table.get(key)
        error, at = await self.table.get(f"{key}/error") or (None, None)
        known = found if isinstance(found, Worker) else Worker(profile, ready=None, group=group)
        return replace(known, last_error=error, last_error_at=at)


def _kept(end: End) -> End:
    """Return what the table holds of an end."""
    return End(end.status, failure=end.failure, timings=end.timings)


def job_of(job: str, record: Record, at: Now | End) -> Job:
    """Return a job as callers see it."""
    known = Job(job, record.route, record.owner, record.seed, record.created, at.status)
    if isinstance(at, Now):
        return replace(known, position=at.position, step=at.step)
    return replace(known, result=at.result, failure=at.failure, timings=at.timings)
