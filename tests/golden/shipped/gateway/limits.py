"""Limits: what one request may ask for, how often a key may ask, and how much it may keep open."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from .backend import Room
from .problems import Problem

_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What gpu.yaml says under `limits` of requests and jobs.

    `text_characters` is the longest text of a caller's graph; texts that are params have their
    bounds in the request model. `output_pixels` are those of all frames together. Of `room`,
    `requests_per_minute` and `listeners_per_key`, which count for one key, 0 is no limit.
    """

    text_characters: int
    output_pixels: int
    requests_per_minute: int
    listeners_per_key: int
    room: Room


class Rate:
    """Lets each key ask `per_minute` times a minute, all at once or evenly; 0 is no limit.

    It counts what this process is asked. `clock` is in seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        # What a key has left, and when that was; there are as many as keys.
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, owner: str) -> None:
        """Count a request.

        Raises:
            Problem: when it is one too many.
        """
        most = self._per_minute
        if not most:
            return
        now = self._clock()
        left, at = self._left.get(owner, (float(most), now))
        left = min(most, left + (now - at) * most / _MINUTE)
        is_taken = left >= 1
        self._left[owner] = (left - is_taken, now)
        if not is_taken:
            seconds = math.ceil((1 - left) * _MINUTE / most)
            whose = "this key" if owner else "all callers together"
            raise Problem(
                "too-many-requests",
                f"at most {most} requests a minute are taken of {whose}",
                headers={"Retry-After": str(seconds)},
            )


class Places:
    """The requests of each key that listen to jobs; each has `most` of them at a time, 0 is no limit.

    It counts what this process is asked.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    def is_full(self, owner: str) -> bool:
        """Say whether a key has no place left."""
        return 0 < self._most <= self._taken[owner]

    @contextmanager
    def of(self, owner: str) -> Iterator[None]:
        """Hold a place.

        Raises:
            Problem: when there is none.
        """
        if self.is_full(owner):
            whose = "this key" if owner else "all callers together"
            raise Problem(
                "too-many-listeners", f"{self._most} requests of {whose} listen to jobs already"
            )
        self._taken[owner] += 1
        try:
            yield
        finally:
            self._taken[owner] -= 1
