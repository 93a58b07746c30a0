"""Limits: what one request may ask for, and how often a key may ask."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .backend import Room
from .problems import Problem

_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What gpu.yaml says under `limits` of requests and jobs.

    `text_characters` is the longest text of a caller's graph; texts that are params have their
    bounds in the request model. `output_pixels` are those of all frames together. Of `room` and
    `requests_per_minute`, which count for one key, 0 is no limit.
    """

    text_characters: int
    output_pixels: int
    requests_per_minute: int
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
