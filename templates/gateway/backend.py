"""What runs graphs for the gateway: the protocol that every backend follows, and its records.

All records can be pickled, so that they can come from another machine.
"""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ..graph.families import Families
from ..utils.comfyui_errors import (
    EngineDiskFull,
    EngineError,
    EngineFailed,
    EngineHung,
    EngineInterrupted,
    EngineLost,
    EngineOutputError,
    EngineRefused,
    EngineStartError,
    EngineTimeout,
    EngineUnreachable,
    NodeError,
    shortened,
)
from ..utils.comfyui_records import (
    EngineInfo,
    Event,
    File,
    Graph,
    NodeStarted,
    Progress,
    Queued,
    Run,
    Started,
    Text,
)
from ..utils.lasting import lasting
from .spool import Spooled
from .timings import Timings

if TYPE_CHECKING:
    from .journal import Journal

# Crockford's base 32: no letter that reads like a digit.
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_BITS: Final = 5
_CHARACTERS: Final = 26
_RANDOM_BITS: Final = 80
_ID: Final = re.compile("job_" + f"[{_ALPHABET}]" * _CHARACTERS)


ENGINE_LOST: Final = (
    "the engine ended in mid-run, and so it did or was gone when it was tried again"
)


def new_job_id() -> str:
    """Return a new id: `job_` and 26 characters, the first ten of them the time in milliseconds."""
    number = time.time_ns() // 1_000_000 << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    shifts = range(_BITS * (_CHARACTERS - 1), -1, -_BITS)
    return "job_" + "".join(_ALPHABET[number >> shift & 31] for shift in shifts)


def is_job_id(text: str) -> bool:
    """Say whether a text may be the id of a job."""
    return _ID.fullmatch(text) is not None


class Key(NamedTuple):
    """An idempotency key, and the fingerprint of the request that it stands for.

    It means something for its owner alone: others may have the same.
    """

    text: str
    fingerprint: str


@lasting
@dataclass(frozen=True, slots=True)
class Work:
    """A graph to run. `files` are its input files by the names that it uses.

    `owner` is the name of the key that asked for it, empty where there are no keys; `profile` and
    `group` name the workers that may run it; `timeout` is the longest run in seconds, waiting for
    others included. With a `key` it is run once, however often it is submitted. `created` is in
    seconds since the epoch.
    """

    job: str
    route: str
    graph: Graph
    files: Mapping[str, bytes]
    seed: int | None
    profile: str
    timeout: float
    owner: str = ""
    group: str = ""
    key: Key | None = None
    created: float = field(default_factory=time.time)


class Status(StrEnum):
    """Where a job is; the last three are final, and a job ends in exactly one of them."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self not in (Status.QUEUED, Status.RUNNING)


@lasting
@dataclass(frozen=True, slots=True)
class Step:
    """What a run is at: a node of its graph and, where the node says so, step `value` of `max`."""

    node: str
    title: str
    value: float | None = None
    max: float | None = None


@lasting
@dataclass(frozen=True, slots=True)
class Result:
    """What a run made, and on what.

    `gpu` is the GPU that was found; `price_per_second` is in USD, 0 where nobody is billed.
    `preview` says that the engine is a stand-in and nothing is real. `spooled` are those
    outputs, by their numbers, whose bytes lie on disk: `whole` brings them.
    """

    outputs: tuple[File | Text, ...]
    execution_seconds: float
    queue_seconds: float
    gpu: str
    price_per_second: float
    engine: str
    preview: bool
    spooled: Mapping[int, Spooled] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        """What the run cost, in USD; seconds count to the millisecond, as they are shown."""
        return round(self.execution_seconds, 3) * self.price_per_second


@lasting
@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed. `code` is one of those in problems.py; `errors` are what nodes said."""

    code: str
    detail: str
    errors: tuple[NodeError, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is now.

    `result` is there when it succeeded, `failure` when it failed. `created` is in seconds since the
    epoch. `position` says how many runs are ahead of one that waits. `timings` are there once it
    has ended, where they are known.
    """

    id: str
    route: str
    owner: str
    seed: int | None
    created: float
    status: Status = Status.QUEUED
    position: int | None = None
    step: Step | None = None
    result: Result | None = None
    failure: Failure | None = None
    timings: Timings | None = None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job. `data` is JSON on one line, of ASCII alone.

    Numbers count from 1 within a job; a preview has none, for only the newest is kept. The last
    event is END, which has the job as it ended in place of data.
    """

    number: int | None
    name: str
    data: str = ""
    job: Job | None = None


END: Final = "end"


@lasting
@dataclass(frozen=True, slots=True)
class Worker:
    """What is known of the engines of one GPU profile, without asking for one to be started.

    `last_start` and `last_error_at` are in seconds since the epoch; an error stays told of when
    another start went well. `ready` is None where it is not known. `group` is the group of workflows
    that has workers of its own, empty for none.
    """

    profile: str
    ready: bool | None
    engine: str | None = None
    gpu: str | None = None
    last_start: float | None = None
    last_error: str | None = None
    last_error_at: float | None = None
    group: str = ""


class UnknownJobError(LookupError):
    """There is no such job, or it is kept no longer."""


class JobEndedError(Exception):
    """The job ended before it could be cancelled."""


class NotTakenError(Exception):
    """A job is not taken; `code` is one of those in problems.py, the text says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class Room:
    """How many jobs may run or wait at a time: of all owners, and of one; 0 is no limit for one."""

    jobs: int
    jobs_per_key: int

    def check(self, owners: Sequence[str], owner: str) -> None:
        """See whether there is room for one job more; `owners` are those of the jobs there are.

        Raises:
            NotTakenError: when there is none.
        """
        own = owners.count(owner)
        if self.jobs_per_key and own >= self.jobs_per_key:
            whose = f"this key has {own} jobs" if owner else f"there are {own} jobs"
            raise NotTakenError("too-many-jobs", f"{whose} that have not ended")
        if len(owners) >= self.jobs:
            raise NotTakenError("queue-full", f"{len(owners)} jobs run or wait already")


def check_key(key: Key, fingerprint: str) -> None:
    """See whether a key was used for the same request, whose fingerprint is given.

    Raises:
        NotTakenError: when it was used for another.
    """
    if key.fingerprint != fingerprint:
        detail = f"the key {key.text} was used for another request; draw a new one for this"
        raise NotTakenError("idempotency-conflict", detail)


class BackendUnavailableError(Exception):
    """No job can be taken now; the text says why."""


class UnreadModelError(ValueError):
    """A model file is none, or only a part of one; the text says why."""


class Backend(Protocol):
    """Runs graphs. Each method raises BackendUnavailableError when the backend does not answer.

    `journal` is told what happens to jobs.
    """

    journal: "Journal"

    async def submit(self, work: Work, room: Room) -> str:
        """Start a job if there is room for it, and return its id when it is queued.

        Work whose key was used before is not run again: the job that it was used for is returned.

        Raises:
            NotTakenError: when there is no room, or the key was used for another request.
        """

    async def keyed(self, owner: str, key: Key) -> str | None:
        """Return the job that an owner's key was used for; None when it can be used.

        Raises:
            NotTakenError: when it was used for another request.
        """

    async def wait(self, job: str, seconds: float) -> Job:
        """Return a job once it has ended, or as it is after a time; 0 is at once.

        Raises:
            UnknownJobError: when there is none.
        """

    def events(
        self, job: str, after: int, *, previews: bool = False
    ) -> AsyncGenerator[JobEvent, None]:
        """Yield what happens to a job, those events first that were told already; last END.

        Events up to the number `after` are left out, but never END.

        Raises:
            UnknownJobError: when there is no such job.
        """

    async def cancel(self, job: str) -> Job:
        """Stop a job, and return it once it has stopped, or as it is when that takes long.

        Raises:
            UnknownJobError: when there is none.
            JobEndedError: when it ended otherwise before.
        """

    async def models(self, folder: str) -> Collection[str] | None:
        """Return the files of a model folder, or None when there is no such folder."""

    async def families(self, folder: str, name: str) -> Families | None:
        """Return the families that a model file is of by its header, None when nobody here knows.

        Raises:
            UnreadModelError: when it is not the file that its name says.
        """

    async def workers(self) -> list[Worker]:
        """Return what is known of the engines; starts none."""


async def whole(job: Job, numbers: Collection[int]) -> Job:
    """Return a job with the bytes of some of its outputs, by their numbers."""
    result = job.result
    if result is None or not result.spooled:
        return job
    outputs = [*result.outputs]
    for number, spooled in result.spooled.items():
        if number not in numbers:
            continue
        output = outputs[number]
        assert isinstance(output, File)
        outputs[number] = replace(output, data=await asyncio.to_thread(spooled.read))
    return replace(job, result=replace(result, outputs=tuple(outputs)))


def failure_of(error: EngineError) -> Failure:
    """Return why a run failed, from what the engine client raised."""
    match error:
        case EngineRefused():
            return Failure("engine-refused", error.message, error.errors)
        case EngineFailed():
            code = "node-failed"
            if error.out_of_memory:
                code = "engine-out-of-memory"
            elif error.disk_full:
                code = "disk-full"
            message = shortened(error.message)
            said = NodeError(error.node, error.class_type, error.exception_type, message, "")
            return Failure(code, message or error.exception_type, (said,))
        case EngineLost():
            return Failure("engine-lost", ENGINE_LOST)
        case EngineHung():
            return Failure("engine-hung", "the engine has stopped answering; the run was given up")
        case EngineDiskFull():
            return Failure("disk-full", "there is no room for the input files of the run")
        case EngineUnreachable():
            return Failure("engine-unreachable", "the engine does not answer")
        case EngineStartError():
            return Failure("engine-not-started", "the engine does not start")
        case EngineTimeout():
            return Failure("engine-timeout", "the run was not done in time, and was stopped")
        case EngineInterrupted():
            return Failure(
                "engine-interrupted", "the engine stopped the run; nobody here asked it to"
            )
        case EngineOutputError():
            return Failure("output-missing", "an output of the run cannot be read")
    return Failure("engine-error", "the engine answers in a way that ComfyUI does not")


def gpu_of(device: str, known: Collection[str]) -> str:
    """Return which of the known GPUs a device is, by ComfyUI's name of it; else that name.

    ComfyUI says "cuda:0 NVIDIA L40S : cudaMallocAsync", and "cpu" where there is no GPU.
    """
    words = set(re.split("[ -]", device.casefold()))
    for name in sorted(known, key=len, reverse=True):
        if words.issuperset(name.casefold().split("-")):
            return name
    name = device.partition(" : ")[0].strip()
    return name.partition(" ")[2] if name.startswith("cuda:") and " " in name else name


def told(job: Job, event: Event) -> Job:
    """Return a job after an event of its run."""
    match event:
        case Queued(position):
            # An engine that ended may have been at work on it.
            return replace(job, status=Status.QUEUED, position=position, step=None)
        case Started():
            return replace(job, status=Status.RUNNING, position=None)
        case NodeStarted(node, _, title):
            return replace(job, step=Step(node, title))
        case Progress(node, value, most):
            title = job.step.title if job.step and job.step.node == node else ""
            return replace(job, step=Step(node, title, value, most))
    return job


def engine_name(info: EngineInfo) -> str:
    """Return what X-Engine says of an engine."""
    return "preview" if info.preview else f"comfyui/{info.version}"


def result_of(run: Run, info: EngineInfo, prices: Mapping[str, float]) -> Result | Failure:
    """Return what a run made, on an engine that says `info` of itself.

    `prices` are USD per second by GPU; a GPU that is not among them costs nothing, for nobody bills
    it.
    """
    if not run.outputs:
        return Failure("output-missing", "the run made no output")
    gpu = gpu_of(info.device, prices)
    return Result(
        outputs=run.outputs,
        execution_seconds=run.execution_seconds,
        queue_seconds=run.queue_seconds,
        gpu=gpu,
        price_per_second=prices.get(gpu, 0.0),
        engine=engine_name(info),
        preview=info.preview,
    )
