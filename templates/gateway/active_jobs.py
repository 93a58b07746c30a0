"""The jobs that have not ended, as one entry of the table that all gateways share.

Gateways that write it at the same moment lose what one of them wrote, so it is approximate: more
jobs than that may run. Who has ended is asked when there seems to be no room, so a job gives its
place back however it ended, and nobody has to say so.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

from .backend import BackendUnavailableError, NotTakenError, Room, UnknownJobError, Work
from .job_store import Table

_ENTRY: Final = "jobs/active"
# A job is in the list before it is known; one that stays unknown was never started.
_STARTING_SECONDS: Final = 60.0
# Between two looks at all jobs: each is a question to Modal for each of them.
_LOOK_SECONDS: Final = 1.0


class Active(NamedTuple):
    """A job that had not ended when somebody looked; `since` is in seconds since the epoch."""

    job: str
    owner: str
    since: float


class ActiveJobs:
    """Gives jobs a place. `has_ended` says of a job whether it has, or raises UnknownJobError."""

    def __init__(self, table: Table, has_ended: Callable[[str], Awaitable[bool]]) -> None:
        self._table = table
        self._has_ended = has_ended
        # Requests to one gateway do not lose each other's changes.
        self._lock = asyncio.Lock()
        self._looked = -_LOOK_SECONDS
        # When Modal did not answer the last time.
        self._failed = 0.0

    async def enter(self, work: Work, room: Room) -> None:
        """Give a job a place.

        Raises:
            NotTakenError: when there is none.
            BackendUnavailableError: when Modal does not answer those that came before.
        """
        async with self._turn():
            # A gateway that takes over from another starts the other's job.
            active = [one for one in await self._read() if one.job != work.job]
            try:
                room.check([one.owner for one in active], work.owner)
            except NotTakenError:
                if time.monotonic() - self._looked < _LOOK_SECONDS:
                    raise
                active = await self._look(active)
                self._looked = time.monotonic()
                await self._write(active)
                room.check([one.owner for one in active], work.owner)
            await self._write([*active, Active(work.job, work.owner, time.time())])

    async def leave(self, job: str) -> None:
        """Take back the place of a job that was not started."""
        # If nobody is told, the next look finds it.
        with suppress(BackendUnavailableError):
            async with self._turn():
                active = await self._read()
                await self._write([one for one in active if one.job != job])

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for those who came before, unless one of them waits in vain for Modal."""
        begun = time.monotonic()
        async with self._lock:
            if self._failed > begun:
                raise BackendUnavailableError("Modal does not answer")
            try:
                yield
            except BackendUnavailableError:
                self._failed = time.monotonic()
                raise

    async def _read(self) -> list[Active]:
        return [Active(*entry) for entry in await self._table.get(_ENTRY) or ()]

    async def _write(self, active: list[Active]) -> None:
        # Plain tuples, which every version of this code can read.
        await self._table.put(_ENTRY, [tuple(one) for one in active])

    async def _look(self, active: list[Active]) -> list[Active]:
        """Return the jobs that have not ended."""
        are_over = await asyncio.gather(*(self._is_over(one) for one in active))
        return [one for one, is_over in zip(active, are_over, strict=True) if not is_over]

    async def _is_over(self, one: Active) -> bool:
        try:
            return await self._has_ended(one.job)
        except UnknownJobError:
            return time.time() - one.since > _STARTING_SECONDS
