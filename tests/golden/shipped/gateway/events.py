"""What callers are told of a job on its way: numbered events, kept for those who listen late."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from ..utils.comfyui_records import (
    Cached,
    EngineInfo,
    Event,
    NodeStarted,
    Planned,
    Preview,
    Progress,
    Queued,
    Started,
)
from ..utils.image_utils import encode_base64
from .backend import END, JobEvent, engine_name, gpu_of

# Steps are told at most this often, in seconds, and ever more seldom as a run goes on: Modal keeps
# 5,000 events of a job, and so a day of steps is fewer.
STEP_SECONDS: Final = 0.05
_STEPS: Final = 400
_MOST_EVENTS: Final = 4900
_MOST_STEPS: Final = 4500
# Callers choose the ids and titles of their nodes; all events of a job together are no longer.
_MOST_CHARACTERS: Final = 2_000_000
# What an event takes in memory beside its data, in bytes.
_EVENT_BYTES: Final = 120
# A listener is shown a preview at most this often, in seconds; what is larger is none.
_PREVIEW_SECONDS: Final = 0.2
_MOST_PREVIEW_BYTES: Final = 500_000


class Told(NamedTuple):
    """An event without its number."""

    name: str
    data: str


EVENTS: Final = ("queued", "started", "cached", "node", "progress", "preview", "output", END)
QUEUED: Final = Told("queued", json.dumps({"position": None}))


class Narrator:
    """Says what the events of one run are to callers, and leaves out steps that come too fast.

    `engine` returns what the engine has said of itself, `prices` are USD per second by GPU. Steps
    are at least `step_seconds` apart, by `clock`.
    """

    def __init__(
        self,
        engine: Callable[[], EngineInfo | None],
        prices: Mapping[str, float],
        *,
        step_seconds: float = STEP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._prices = prices
        self._step_seconds = step_seconds
        self._clock = clock
        self._begun = clock()
        self._count = 0
        self._characters = 0
        self._step: Progress | None = None
        self._step_at = 0.0
        self._seen: set[str] = set()
        self._planned: frozenset[str] | None = None

    def tell(self, event: Event) -> Told | None:
        """Return what callers are told of an event; None when that is nothing."""
        told = self._told(event)
        if told is None or self._count >= _MOST_EVENTS:
            return None
        if self._characters + len(told.data) > _MOST_CHARACTERS:
            return None
        self._count += 1
        self._characters += len(told.data)
        return told

    def _told(self, event: Event) -> Told | None:
        match event:
            case Queued(position):
                return _told("queued", position=position)
            case Started():
                self._seen.clear()
                info = self._engine()
                gpu = gpu_of(info.device, self._prices) if info else None
                return _told("started", gpu=gpu, engine=engine_name(info) if info else None)
            case Cached(nodes):
                return _told("cached", nodes=nodes)
            case Planned(nodes):
                self._planned = frozenset(nodes)
            case NodeStarted(node, class_type, title):
                self._seen.discard(node)
                done, of = len(self._seen), self._planned
                self._seen.add(node)
                # Nodes may expand to others, which nobody has planned.
                most = None if of is None else max(len(of), len(self._seen))
                about = {"node": node, "class_type": class_type, "title": title}
                return _told("node", **about, done=done, of=most)
            case Progress(node, value, most) if self._is_due(event):
                self._step, self._step_at = event, self._clock()
                return _told("progress", node=node, value=_number(value), max=_number(most))
        return None

    def _is_due(self, step: Progress) -> bool:
        if self._count >= _MOST_STEPS:
            return False
        last, now = self._step, self._clock()
        if last is None or last.node != step.node:
            return True
        pause = max(self._step_seconds, (now - self._begun) / _STEPS)
        return now - self._step_at >= pause or (step.value >= step.max and last.value < last.max)


class EventLog:
    """The events of one job, and those who listen.

    Whoever listens reads at its own pace what is kept here, so a slow one costs no memory.
    """

    __slots__ = ("_event", "_events", "_is_closed", "_preview", "_wakers")

    def __init__(self) -> None:
        self._events: list[Told] = [QUEUED]
        self._preview: Preview | None = None
        # The preview as an event, once somebody wants it.
        self._event: JobEvent | None = None
        self._is_closed = False
        self._wakers: set[asyncio.Event] = set()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def size(self) -> int:
        """About how many bytes the events take in memory."""
        return sum(len(told.data) + _EVENT_BYTES for told in self._events)

    def add(self, told: Told) -> None:
        """Add an event."""
        self._events.append(told)
        self._wake()

    def show(self, preview: Preview) -> None:
        """Keep a preview in place of the one before."""
        if len(preview.data) <= _MOST_PREVIEW_BYTES:
            self._preview, self._event = preview, None
            self._wake()

    def close(self) -> None:
        """Let those who listen go once they have read all; nothing more is to come."""
        self._is_closed = True
        self._preview = self._event = None
        self._wake()

    async def listen(self, after: int, *, previews: bool = False) -> AsyncGenerator[JobEvent, None]:
        """Yield the events that come after a number, until the log is closed."""
        waker = asyncio.Event()
        self._wakers.add(waker)
        shown: Preview | None = None
        shown_at = -_PREVIEW_SECONDS
        try:
            while True:
                waker.clear()
                while after < len(self._events):
                    after += 1
                    yield JobEvent(after, *self._events[after - 1])
                pause = None
                if previews and self._preview is not None and self._preview is not shown:
                    pause = shown_at + _PREVIEW_SECONDS - time.monotonic()
                    if pause <= 0:
                        shown, shown_at = self._preview, time.monotonic()
                        yield self._shown(shown)
                        continue
                if self._is_closed:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await waker.wait()
        finally:
            self._wakers.discard(waker)

    def _shown(self, preview: Preview) -> JobEvent:
        """Return the newest preview as an event, which is made once for all who listen."""
        if self._event is None:
            data = encode_base64(preview.data)
            about = {"node": preview.node, "media_type": preview.media_type, "data": data}
            self._event = JobEvent(None, *_told("preview", **about))
        return self._event

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()


def _told(name: str, **data: Any) -> Told:
    # ASCII alone, for readers disagree on which other characters end a line.
    return Told(name, json.dumps(data))


def _number(value: float) -> float | int:
    """Return a whole number as one; a number that JSON has no word for as 0."""
    with suppress(ValueError, OverflowError):
        return int(value) if value == int(value) else value
    return 0
