"""What happens to jobs on Modal: workers tell it into a shared list a job, and gateways read that.

Nothing is consumed, so any number of gateways can read a list, at any time while it is kept. Who
listens is told of the end by the gateway, which knows it of a worker that died too. Previews
are no part of a list: the job store holds the newest, and only while somebody wants them.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ..utils.comfyui_records import Event, Preview
from .backend import END, BackendUnavailableError, Job, JobEvent, UnknownJobError
from .events import EventLog, Narrator, Told
from .job_store import JobStore

_log = logging.getLogger(__name__)

# How often a worker tells what is new, in seconds.
TELL_SECONDS: Final = 0.25
_PREVIEW_SECONDS: Final = 1.0
# How long a worker that is done may take to tell the last of it.
_FINISH_SECONDS: Final = 3.0
# How long a gateway waits for one answer, and for a list that nobody adds to.
_HOLD_SECONDS: Final = 30.0
_LONGEST_RUN: Final = 24 * 3600.0
_RETRY_SECONDS: Final = 1.0
# A worker takes it that nobody looks when that was said longer ago.
_WATCH_SECONDS: Final = 30.0


class Lists(Protocol):
    """Lists that all containers share. Each method raises BackendUnavailableError."""

    async def add(self, key: str, items: Sequence[Any]) -> None:
        """Add items to the end of a list, which is kept for 24 hours from then on."""

    def read(self, key: str, seconds: float) -> AsyncGenerator[Any, None]:
        """Yield the items of a list from its first, until none has come for some seconds."""


class EventWriter:
    """Tells what happens to one run, from the worker that has it."""

    def __init__(self, lists: Lists, jobs: JobStore, job: str, narrator: Narrator) -> None:
        self._lists = lists
        self._jobs = jobs
        self._job = job
        self._narrator = narrator
        self._untold: list[Told] = []
        self._preview: Preview | None = None
        self._shown_at = 0.0
        self._has_shown = False
        self._has_failed = False
        self._waker = asyncio.Event()
        self._done = asyncio.Event()
        self._task = asyncio.create_task(self._tell())

    def take(self, event: Event) -> None:
        """Take note of an event of the run."""
        if isinstance(event, Preview):
            self._preview = event
        elif told := self._narrator.tell(event):
            self._untold.append(told)
        self._waker.set()

    async def finish(self) -> None:
        """Tell what has not been told."""
        self._done.set()
        self._waker.set()
        _, late = await asyncio.wait({self._task}, timeout=_FINISH_SECONDS)
        if late:
            _log.warning("job %s: nobody was told the last of it in time", self._job)
            self.stop()

    def stop(self) -> None:
        """Tell no more."""
        self._task.cancel()

    async def _tell(self) -> None:
        while self._untold or not self._done.is_set():
            await self._waker.wait()
            self._waker.clear()
            untold, self._untold = self._untold, []
            try:
                if untold:
                    await self._lists.add(self._job, [tuple(told) for told in untold])
                await self._show()
            except BackendUnavailableError as error:
                if not self._has_failed:
                    _log.warning("job %s: not all of it is told now: %s", self._job, error)
                self._has_failed = True
                # It is tried again while the run goes on, and once more at its end.
                if untold and not self._done.is_set():
                    self._untold[:0] = untold
                    self._waker.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._done.wait(), TELL_SECONDS)
        if self._has_shown:
            with suppress(BackendUnavailableError):
                await self._jobs.show(self._job, None)

    async def _show(self) -> None:
        """Show the newest preview to whoever wants previews."""
        now = time.monotonic()
        is_due = now - self._shown_at >= _PREVIEW_SECONDS and not self._done.is_set()
        if self._preview is None or not is_due:
            return
        self._shown_at = now
        preview, self._preview = self._preview, None
        watched = await self._jobs.watched(self._job)
        if watched is not None and time.time() - watched < _WATCH_SECONDS:
            self._has_shown = True
            await self._jobs.show(self._job, preview)


@dataclass(slots=True)
class _Feed:
    """The events of a job that somebody listens to, and the tasks that fetch them.

    Once the log is closed there is a `job`, as it ended, or the `error` that kept it away.
    """

    name: str
    log: EventLog = field(default_factory=EventLog)
    listeners: int = 0
    following: "asyncio.Task[None] | None" = None
    showing: "asyncio.Task[None] | None" = None
    job: Job | None = None
    error: Exception | None = None

    def stop(self) -> None:
        """Fetch no more."""
        for task in (self.following, self.showing):
            if task is not None:
                task.cancel()


class EventReader:
    """Reads what happens to jobs for those who listen at one gateway, once for all of them.

    `wait` is the backend's: it returns a job once it has ended, or as it is after a time.
    """

    def __init__(
        self, lists: Lists, jobs: JobStore, wait: Callable[[str, float], Awaitable[Job]]
    ) -> None:
        self._lists = lists
        self._jobs = jobs
        self._wait = wait
        self._feeds: dict[str, _Feed] = {}

    async def listen(
        self, job: str, after: int, *, previews: bool = False
    ) -> AsyncGenerator[JobEvent, None]:
        """Yield what happens to a job; last END.

        Raises:
            UnknownJobError: when there is none.
            BackendUnavailableError: when Modal does not answer.
        """
        feed = self._feeds.setdefault(job, _Feed(job))
        feed.listeners += 1
        try:
            feed.following = feed.following or asyncio.create_task(self._follow(feed))
            if previews and feed.showing is None:
                feed.showing = asyncio.create_task(self._show(feed))
            async with aclosing(feed.log.listen(after, previews=previews)) as events:
                async for event in events:
                    yield event
            if feed.error is not None:
                raise feed.error
            yield JobEvent(len(feed.log) + 1, END, job=feed.job)
        finally:
            feed.listeners -= 1
            if not feed.listeners:
                del self._feeds[job]
                feed.stop()

    async def _follow(self, feed: _Feed) -> None:
        """Fetch the events of a job until it has ended."""
        reading = asyncio.create_task(self._keep_reading(feed))
        try:
            job = await self._wait(feed.name, 0)
            while not job.status.is_final:
                job = await self._wait(feed.name, _HOLD_SECONDS)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            feed.job = job
            # Whoever told the others has done so before it ended.
            with suppress(BackendUnavailableError):
                await self._read(feed, 0)
        except (BackendUnavailableError, UnknownJobError) as error:
            feed.error = error
        except Exception as error:
            _log.exception("job %s: this is a fault of the service", feed.name)
            feed.error = BackendUnavailableError(type(error).__name__)
        finally:
            reading.cancel()
            if feed.showing is not None:
                feed.showing.cancel()
            feed.log.close()

    async def _keep_reading(self, feed: _Feed) -> None:
        while True:
            try:
                await self._read(feed, _LONGEST_RUN)
            except BackendUnavailableError as error:
                _log.warning("job %s: what happens is not known now: %s", feed.name, error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _read(self, feed: _Feed, seconds: float) -> None:
        """Add those items of a job's list that are not in its log yet."""
        count = 0
        async with aclosing(self._lists.read(feed.name, seconds)) as items:
            async for item in items:
                count += 1
                # The first event of a log, that the job is queued, is in no list.
                if count >= len(feed.log):
                    feed.log.add(Told(*item))

    async def _show(self, feed: _Feed) -> None:
        """Say that somebody wants previews, and fetch the newest."""
        said_at = -_WATCH_SECONDS
        shown: Preview | None = None
        while True:
            try:
                if time.monotonic() - said_at > _WATCH_SECONDS / 3:
                    await self._jobs.watch(feed.name)
                    said_at = time.monotonic()
                preview = await self._jobs.shown(feed.name)
            except BackendUnavailableError as error:
                _log.warning("job %s: no previews now: %s", feed.name, error)
            else:
                if preview is not None and preview != shown:
                    shown = preview
                    feed.log.show(preview)
            await asyncio.sleep(_PREVIEW_SECONDS)
