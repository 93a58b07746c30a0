"""Limits: how often a key may ask, and how much the graph of a request may make."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..graph.records import Graph, followed
from .backend import Room
from .problems import Problem

_MINUTE: Final = 60.0

# Inputs that say how large a picture is, and how many of them are made at once.
_SIDES: Final = (
    ("width", "height"),
    ("empty_latent_width", "empty_latent_height"),
    ("target_width", "target_height"),
)
_COUNTS: Final = ("length", "frames", "num_frames", "video_frames", "batch_size", "max_images")
# From an input to the node that its number stands in; a chain in a caller's graph may be a ring.
_MOST_LINKS: Final = 20


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


class Number(NamedTuple):
    """A number in a graph: the input that it stands in."""

    node: str
    input: str
    value: int


class Size(NamedTuple):
    """What a node makes: pixels of all pictures together, and the numbers that say so."""

    node: str
    pixels: int
    numbers: tuple[Number, ...]

    def __str__(self) -> str:
        product = " × ".join(str(number.value) for number in self.numbers)
        return f"{product} = {self.pixels:,} pixels"


def sizes(graph: Graph) -> Iterator[Size]:
    """Yield how much the nodes make that take a width and a height.

    A number may stand in a node of its own, such as PrimitiveInt. What the graph computes is not
    known before it runs, and not counted.
    """
    for node in graph:
        counts = [n for name in _COUNTS if (n := _number(graph, node, name)) and n.value > 1]
        for sides in _SIDES:
            found = [n for name in sides if (n := _number(graph, node, name))]
            if len(found) == len(sides):
                numbers = (*found, *counts)
                yield Size(node, math.prod(number.value for number in numbers), numbers)


def _number(graph: Graph, node: str, name: str) -> Number | None:
    """Return the number that an input has, as the engine reads it."""
    for _ in range(_MOST_LINKS):
        value = graph[node]["inputs"].get(name)
        link = followed(value)
        if link is None:
            number = _integer(value)
            return None if number is None else Number(node, name, number)
        inputs = graph[link.node]["inputs"] if link.node in graph else {}
        if len(inputs) != 1:
            return None
        node, [name] = link.node, inputs
    return None


def _integer(value: Any) -> int | None:
    """Return a value as ComfyUI's `int(value)` does.

    Source: validate_inputs in ComfyUI's execution.py.
    """
    if not isinstance(value, int | float | str):
        return None
    try:
        return int(value)
    except (ValueError, OverflowError):
        return None
