"""What a job took: start-up, queue and execution, in seconds and USD."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..utils.comfyui_records import Event, Started
from ..utils.lasting import lasting

# A job waits for the last starts, not for those of yesterday.
_MOST_STARTS: Final = 16


@lasting
@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds and USD of a job.

    Start-up is the part of its wait that the start of an engine took, queue the rest of the wait,
    execution from the engine's start of the run to its end. Waiting in the queue costs nothing. No
    second of a start is billed twice: each is the first job's to end that waited for it. USD are None
    where the GPU, and so its price, is not known.
    """

    startup_seconds: float = 0.0
    queue_seconds: float = 0.0
    execution_seconds: float = 0.0
    startup_usd: float | None = 0.0
    execution_usd: float | None = 0.0


@dataclass(slots=True)
class _Start:
    begun: float
    ended: float | None = None
    # What came before is billed to somebody.
    billed_to: float = 0.0


class Starts:
    """The starts of an engine, as seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._starts: deque[_Start] = deque(maxlen=_MOST_STARTS)

    def begin(self) -> None:
        """Note that the engine is not up; it starts, or is to be started."""
        if not self._starts or self._starts[-1].ended is not None:
            self._starts.append(_Start(self._clock()))

    def end(self) -> float:
        """Note that the engine is up, or will not be; return how long its start took."""
        if not self._starts or self._starts[-1].ended is not None:
            return 0.0
        start = self._starts[-1]
        start.ended = self._clock()
        return start.ended - start.begun

    def waited(self, since: float, until: float, *, bill: bool = False) -> tuple[float, float]:
        """Return how many seconds of a wait were of starts, and how many of these are its to pay.

        With `bill`, they are nobody else's any more.
        """
        seconds = billed = 0.0
        for start in self._starts:
            end = until if start.ended is None else min(start.ended, until)
            begun = max(start.begun, since)
            if end <= begun:
                continue
            seconds += end - begun
            billed += max(0.0, end - max(begun, start.billed_to))
            if bill:
                start.billed_to = max(end, start.billed_to)
        return seconds, billed


class Watch:
    """The clock of a job, which was asked for at `created`, in seconds since the epoch."""

    def __init__(
        self, created: float, starts: Starts, clock: Callable[[], float] = time.time
    ) -> None:
        self._created = created
        self._starts = starts
        self._clock = clock
        self._started: float | None = None

    @property
    def waited(self) -> float:
        """Seconds from the request to the start of the run, or until now."""
        return max(0.0, (self._started or self._clock()) - self._created)

    def take(self, event: Event) -> None:
        """Take note of an event of the run."""
        if isinstance(event, Started):
            # The engine's own clock may be another machine's.
            self._started = self._clock()

    def timings(
        self, price: float | None, execution: float | None = None, *, is_last: bool = True
    ) -> Timings:
        """Return what the job took until now.

        `price` is in USD per second. `execution` are the seconds that the engine itself told; else
        they are those since it started. `is_last` says that the job has ended.
        """
        now = self._clock()
        until = now if self._started is None else self._started
        # What nobody can be billed for is left to those who come after.
        bill = is_last and price is not None
        startup, billed = self._starts.waited(self._created, until, bill=bill)
        if execution is None:
            execution = 0.0 if self._started is None else max(0.0, now - self._started)
        startup, billed, execution = (round(n, 3) for n in (startup, billed, execution))
        return Timings(
            startup_seconds=startup,
            queue_seconds=round(max(0.0, until - self._created - startup), 3),
            execution_seconds=execution,
            startup_usd=_cost(billed, price),
            execution_usd=_cost(execution, price),
        )


def _cost(seconds: float, price: float | None) -> float | None:
    """Return what seconds cost; none cost nothing, whatever the price."""
    return 0.0 if not seconds else None if price is None else seconds * price
