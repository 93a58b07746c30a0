"""How the endpoints are used: per route and key, how many requests, how they ended, what they took.

Every container counts for itself, and nobody else writes its counts: none is lost to another
container's. They go into a shared table, one entry for each container and hour, a few seconds after
they change; a container that is killed takes those of the last seconds with it. The entries of an
hour that is over become one, so that there are no more than the hours of the window and the
containers of the last two.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from operator import add
from typing import Any, Final, NamedTuple, Protocol
from uuid import uuid4

from ..utils.lasting import lasting
from .backend import BackendUnavailableError
from .timings import Timings

_log = logging.getLogger(__name__)

HOURS: Final = 7 * 24

_HOUR: Final = 3600.0
_FLUSH_SECONDS: Final = 5.0
# Until an hour's entries are taken together: more than any write takes.
_GRACE_SECONDS: Final = 900.0
# Most entries that one reading tidies away.
_MOST_DELETED: Final = 100
# The name of an hour's entry that is the sum of the others.
_SUM: Final = "sum"


class Counts(NamedTuple):
    """Requests, how they ended, and what they took; USD of unknown prices are left out.

    Rejected ones became no job, repeated ones had become one before, by an idempotency key. Those that
    are none of these and have not ended are under way, or lost.
    """

    requests: int = 0
    rejected: int = 0
    repeated: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    startup_seconds: float = 0.0
    queue_seconds: float = 0.0
    execution_seconds: float = 0.0
    startup_usd: float = 0.0
    execution_usd: float = 0.0

    def __add__(self, other: "Counts") -> "Counts":  # type: ignore[override]
        return Counts(*map(add, self, other))

    @property
    def success_rate(self) -> float | None:
        """The share of successes among the runs that nobody cancelled; None when there are none."""
        ended = self.succeeded + self.failed
        return self.succeeded / ended if ended else None


Key = tuple[str, str]
"""A route, and the name of a key: empty where there are no keys."""


@lasting
@dataclass(frozen=True, slots=True)
class Segment:
    """What was counted in an hour, from `since` on, in seconds since the epoch."""

    since: float
    counts: Mapping[Key, Counts]

    def __add__(self, other: "Segment") -> "Segment":
        return Segment(min(self.since, other.since), added(self.counts, other.counts))


def added(first: Mapping[Key, Counts], second: Mapping[Key, Counts]) -> dict[Key, Counts]:
    """Return the sums of two."""
    keys = (*first, *(key for key in second if key not in first))
    return {key: first.get(key, Counts()) + second.get(key, Counts()) for key in keys}


class UsageTable(Protocol):
    """A table that all containers share. Each method may raise BackendUnavailableError."""

    async def put(self, key: str, value: Any, *, skip_if_exists: bool = False) -> bool:
        """Write a value, and say whether it was written."""

    async def delete(self, key: str) -> None:
        """Delete a key, if it is there."""

    def items(self) -> AsyncIterator[tuple[str, Any]]:
        """Yield all keys with their values."""


class Usage:
    """The counts of this container, and of all others that share its table.

    Without a table they are those of this process, from its start on. `hour` is the present one,
    counted since the epoch.
    """

    def __init__(
        self, table: UsageTable | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._table = table
        self._clock = clock
        self._name = uuid4().hex
        self._since = clock()
        self._hour = self._hour_of(self._since)
        # What the table has of this container and hour, and what it has not yet.
        self._saved: dict[Key, Counts] = {}
        self._fresh: dict[Key, Counts] = {}
        self._lock = asyncio.Lock()
        self._flusher: asyncio.Task[None] | None = None

    def add(self, route: str, owner: str, counts: Counts) -> None:
        """Add to the counts of a route and a key."""
        key = (route, owner)
        self._fresh[key] = self._fresh.get(key, Counts()) + counts
        if self._table is not None and self._flusher is None:
            self._flusher = asyncio.create_task(self._flush_later())

    async def read(self) -> Segment:
        """Return all counts since the beginning of the window.

        Raises:
            BackendUnavailableError: when the table does not answer.
        """
        if self._table is None:
            return Segment(self._since, dict(self._fresh))
        await self.flush()
        segments: dict[int, dict[str, Segment]] = {}
        async for key, value in self._table.items():
            hour, _, name = key.partition("/")
            if hour.isdigit() and isinstance(value, Segment):
                segments.setdefault(int(hour), {})[name] = value
        first = self._hour_of(self._clock()) - HOURS
        hours = {hour: _sum(found) for hour, found in segments.items() if hour > first}
        await self._tidy(segments, hours, first)
        return sum(hours.values(), start=Segment(self._clock(), {}))

    async def flush(self) -> None:
        """Write what was counted since the last time.

        Raises:
            BackendUnavailableError: when the table does not answer; it is written the next time.
        """
        if self._table is None:
            return
        async with self._lock:
            now = self._clock()
            if (hour := self._hour_of(now)) != self._hour:
                self._hour, self._saved, self._since = hour, {}, now
            if not self._fresh:
                return
            fresh, self._fresh = self._fresh, {}
            counts = added(self._saved, fresh)
            try:
                await self._table.put(f"{hour}/{self._name}", Segment(self._since, counts))
            except BaseException:
                self._fresh = added(fresh, self._fresh)
                raise
            self._saved = counts

    async def close(self) -> None:
        """Write what is left; what cannot be written is said in the log, and lost."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        try:
            await self.flush()
        except BackendUnavailableError as error:
            _log.warning("the last counts of this container are lost: %s", error)

    async def _flush_later(self) -> None:
        while self._fresh:
            await asyncio.sleep(_FLUSH_SECONDS)
            try:
                await self.flush()
            except BackendUnavailableError as error:
                _log.warning("the counts of this container wait: %s", error)
        self._flusher = None

    async def _tidy(
        self,
        segments: Mapping[int, Mapping[str, Segment]],
        hours: Mapping[int, Segment],
        first: int,
    ) -> None:
        """Take the entries of each hour that is over together, and delete what is too old.

        The sum is written once and for all; only then are its parts deleted. They change no more,
        so it makes no difference which container does it.
        """
        assert self._table is not None
        left = _MOST_DELETED
        for hour, found in sorted(segments.items()):
            if self._clock() < (hour + 1) * _HOUR + _GRACE_SECONDS or left <= 0:
                break
            if hour > first and _SUM not in found:
                await self._table.put(f"{hour}/{_SUM}", hours[hour], skip_if_exists=True)
            names = [name for name in found if name != _SUM or hour <= first]
            await asyncio.gather(*(self._table.delete(f"{hour}/{n}") for n in names[:left]))
            left -= len(names)

    def _hour_of(self, seconds: float) -> int:
        return int(seconds // _HOUR)


def _sum(found: Mapping[str, Segment]) -> Segment:
    """Return the sum of an hour's entries; where it has been written, they are parts of it."""
    if _SUM in found:
        return found[_SUM]
    first, *rest = found.values()
    return sum(rest, start=first)


def of_timings(timings: Timings | None) -> Counts:
    """Return what a job took, to be added to its counts."""
    if timings is None:
        return Counts()
    return Counts(
        startup_seconds=timings.startup_seconds,
        queue_seconds=timings.queue_seconds,
        execution_seconds=timings.execution_seconds,
        startup_usd=timings.startup_usd or 0.0,
        execution_usd=timings.execution_usd or 0.0,
    )


def ended(status: str, timings: Timings | None) -> Counts:
    """Return one end: succeeded, failed, cancelled or rejected, and what it took."""
    return of_timings(timings)._replace(**{status: 1})
