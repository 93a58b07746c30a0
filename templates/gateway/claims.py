"""Which job an idempotency key stands for, in the table that all gateways share.

Whoever first writes `key/DIGEST/0` takes the key, and calls a worker. One that dies in between
leaves a claim without a job: once its lease is over, whoever first writes `key/DIGEST/1` takes over,
and so on. All of them call for the same job, and the job store knows one call of a job; its worker
turns others away. So the job runs once, also when the first gateway was only slow.

A request that is refused leaves a claim behind, and may be sent again ever so often. `key/DIGEST/last`
is the number of a late claim: those between the first and it have nothing more to say, and are not
read again.
"""

import asyncio
import hashlib
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from ..utils.lasting import lasting
from .backend import BackendUnavailableError, Key, UnknownJobError, Work, check_key
from .job_store import JobStore

# Within it, a gateway that has taken a key has called a worker.
LEASE_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.2
_LAST: Final = "last"
# As long as Modal keeps what a call returned.
_KEPT_SECONDS: Final = 7 * 24 * 3600.0


@lasting
@dataclass(frozen=True, slots=True)
class Claim:
    """The job that a key was taken for, and when, in seconds since the epoch.

    The fingerprint is that of the request, empty when the request was refused after all.
    """

    job: str
    fingerprint: str
    at: float


@dataclass(frozen=True, slots=True)
class _Found:
    """The claim that counts, the number of the next one, and the job: None is not known yet."""

    claim: Claim | None
    number: int
    is_recorded: bool = False
    is_kept: bool = True


class Claims:
    """The idempotency keys of all owners."""

    def __init__(self, jobs: JobStore, *, lease: float = LEASE_SECONDS) -> None:
        self._table = jobs.table
        self._jobs = jobs
        self._lease = lease

    async def job(self, owner: str, key: Key) -> str | None:
        """Return the job that a key was used for, None when there is none that is known.

        Raises:
            NotTakenError: when it was used for another request.
        """
        found = await self._find(owner, key)
        if found.claim is None or not found.is_recorded:
            return None
        check_key(key, found.claim.fingerprint)
        return found.claim.job

    async def take(self, work: Work, key: Key) -> tuple[str, bool]:
        """Return the job that a key stands for, and whether the caller is to start it.

        Raises:
            NotTakenError: when the key was used for another request.
        """
        limits: dict[int, float] = {}
        while True:
            found = await self._find(work.owner, key)
            claim, job = found.claim, work.job
            if claim and found.is_kept and claim.fingerprint:
                check_key(key, claim.fingerprint)
                if found.is_recorded:
                    return claim.job, False
                # No longer than the lease, whatever the other machine's clock says.
                limit = limits.setdefault(found.number, time.monotonic() + self._lease)
                left = min(claim.at + self._lease - time.time(), limit - time.monotonic())
                if left > 0:
                    await asyncio.sleep(min(left, _POLL_SECONDS))
                    continue
                job = claim.job
            mine = Claim(job, key.fingerprint, time.time())
            if await self._table.put(
                _name(work.owner, key, found.number), mine, skip_if_exists=True
            ):
                await self._note(work.owner, key, found.number)
                return job, True

    async def give_up(self, work: Work, key: Key, *, was_refused: bool) -> None:
        """Let others take a key at once, for another request too when this one was refused."""
        found = await self._find(work.owner, key)
        if found.claim is None or found.is_recorded or found.claim.job != work.job:
            return
        freed = replace(found.claim, at=0.0)
        if was_refused:
            freed = replace(freed, fingerprint="")
        # If nobody is told, the lease ends by itself.
        with suppress(BackendUnavailableError):
            await self._table.put(_name(work.owner, key, found.number - 1), freed)

    async def _find(self, owner: str, key: Key) -> _Found:
        last = _Found(None, 0)
        while True:
            number = last.number
            claim = await self._table.get(_name(owner, key, number))
            if not isinstance(claim, Claim):
                return last
            last = await self._judged(claim, number)
            if last.is_recorded:
                return last
            if number == 0:
                late = await self._table.get(_name(owner, key, _LAST))
                # It says which claim to read next, whatever is the last one by now.
                last = replace(last, number=late if isinstance(late, int) else 1)

    async def _judged(self, claim: Claim, number: int) -> _Found:
        try:
            record = await self._jobs.record(claim.job)
        except UnknownJobError:
            return _Found(claim, number + 1)
        is_kept = record.created + _KEPT_SECONDS > time.time()
        return _Found(claim, number + 1, is_kept, is_kept)

    async def _note(self, owner: str, key: Key, number: int) -> None:
        """Have others begin with a claim: all before it are lost, refused, or for the same job."""
        if number:
            # If nobody is told, they read more.
            with suppress(BackendUnavailableError):
                await self._table.put(_name(owner, key, _LAST), number)


def _name(owner: str, key: Key, number: int | str) -> str:
    # Neither may be longer than Modal takes, or run into the other.
    digest = hashlib.sha256(f"{owner}\n{key.text}".encode("utf-8", "surrogateescape")).hexdigest()
    return f"key/{digest}/{number}"
