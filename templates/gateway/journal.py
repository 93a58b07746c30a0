"""What happens to jobs: each event is told to the log and, where it counts, to the usage."""

import logging
from typing import Any, Final, NamedTuple

from ..utils.comfyui_errors import (
    EngineInterrupted,
    EngineLost,
    EngineTimeout,
    EngineUnreachable,
)
from .backend import Failure, Status, Work
from .logs import event, prompt_fields, shows_prompts
from .timings import Timings
from .usage import Counts, Usage, ended, of_timings

_ENDS: Final = {
    Status.SUCCEEDED: ("finished", logging.INFO),
    Status.FAILED: ("failed", logging.WARNING),
    Status.CANCELLED: ("cancelled", logging.INFO),
}

# What these say of a node may hold what its caller wrote.
_OF_GRAPHS: Final = frozenset(("engine-out-of-memory", "engine-refused", "node-failed"))


class Subject(NamedTuple):
    """The job that an event is of. `owner` is the name of a key, empty where there are none."""

    job: str
    route: str
    owner: str

    def fields(self) -> dict[str, Any]:
        """Return it as the log has it."""
        return {"job": self.job, "route": self.route, "owner": self.owner or None}


class Journal:
    """The log and the counts of a container."""

    def __init__(self, usage: Usage | None = None) -> None:
        self.usage = usage or Usage()

    def queued(self, work: Work) -> None:
        """Note that a request has become a job."""
        subject = Subject(work.job, work.route, work.owner)
        event("queued", **subject.fields(), **prompt_fields(work.graph))
        self.usage.add(work.route, work.owner, Counts(requests=1))

    def repeated(self, subject: Subject) -> None:
        """Note a request that was made before: its key stands for a job already."""
        event("repeated", **subject.fields())
        self.usage.add(subject.route, subject.owner, Counts(requests=1, repeated=1))

    def refused(self, route: str, owner: str, status: Status | None, code: str) -> None:
        """Note that a request becomes no job: it is rejected, unless it ended with a status."""
        name, level = _ENDS[status] if status else ("rejected", logging.INFO)
        event(name, level=level, route=route, owner=owner or None, code=code)
        self.usage.add(route, owner, ended(status or "rejected", None)._replace(requests=1))

    def started(self, subject: Subject, gpu: str | None, engine: str | None, waited: float) -> None:
        """Note that a run has started, some seconds after it was asked for."""
        event("started", **subject.fields(), gpu=gpu, engine=engine, waited=round(waited, 3))

    def ended(
        self,
        subject: Subject,
        status: Status,
        timings: Timings | None,
        failure: Failure | None = None,
        why: str | None = None,
    ) -> None:
        """Note how a job has ended, which it does once; `why` is more than callers are told."""
        name, level = _ENDS[status]
        told = {**_failure(failure), **_spent(timings), "why": why}
        event(name, level=level, **subject.fields(), **told)
        self.usage.add(subject.route, subject.owner, ended(status, timings))

    def stopped(self, subject: Subject, timings: Timings) -> None:
        """Note what a run took whose job somebody else has ended, or is to end."""
        event("stopped", **subject.fields(), **_spent(timings))
        self.usage.add(subject.route, subject.owner, of_timings(timings))


def _failure(failure: Failure | None) -> dict[str, Any]:
    """Return what a failure says; what nodes say may hold a prompt."""
    if failure is None:
        return {}
    found: dict[str, Any] = {"code": failure.code}
    for error in failure.errors[:1]:
        found |= {"node": error.node, "class_type": error.class_type, "type": error.type}
    if shows_prompts() or failure.code not in _OF_GRAPHS:
        found["detail"] = failure.detail
    return found


def why(error: Exception) -> str:
    """Return what may be logged of an exception of the engine client."""
    safe = EngineInterrupted | EngineLost | EngineTimeout | EngineUnreachable
    return str(error) if shows_prompts() or isinstance(error, safe) else type(error).__name__


def _spent(timings: Timings | None) -> dict[str, Any]:
    if timings is None:
        return {}
    usd = (timings.startup_usd or 0.0) + (timings.execution_usd or 0.0)
    return {
        "seconds": timings.execution_seconds,
        "startup_seconds": timings.startup_seconds,
        "queue_seconds": timings.queue_seconds,
        "usd": round(usd, 6),
    }
