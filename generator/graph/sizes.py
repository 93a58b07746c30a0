"""How many pixels the nodes of a graph make, as far as its numbers say so."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from .records import Graph, followed

# Inputs that say how large a picture is, and how many of them are made at once.
_SIDES = (
    ("width", "height"),
    ("empty_latent_width", "empty_latent_height"),
    ("target_width", "target_height"),
)
_COUNTS = ("length", "frames", "num_frames", "video_frames", "batch_size", "max_images")
# From an input to the node that its number stands in; a chain in a caller's graph may be a ring.
_MOST_LINKS = 20


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
    for node, content in graph.items():
        for sides in _SIDES:
            if sides[0] not in content["inputs"]:
                continue
            found = [n for name in sides if (n := _number(graph, node, name))]
            if len(found) == len(sides):
                counts = [n for name in _COUNTS if (n := _number(graph, node, name))]
                numbers = (*found, *(n for n in counts if n.value > 1))
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
