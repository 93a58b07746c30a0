"""Graphs that differ from good ones by what people, scripts and language models get wrong."""

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

Graph = dict[str, Any]

# Values as they turn up in inputs, of every type that JSON has.
VALUES: Final[tuple[Any, ...]] = (
    None, "", " ", "hello", "64", " 64 ", "1_000", "64.5", "0x10", "1e3", "inf", "nan", "٣", "true",
    "None", "a.safetensors", "sub/a.safetensors", "../a.safetensors", "a.zip", "A.SAFETENSORS",
    "a\\b.safetensors", 64, 64.7, 0, -1, 1, 3, 10**9, 2**63, 2**64, -(2**63), 1e-9, 1e300, 10**400,
    float("inf"), float("nan"), True, False, [], {}, [1], ["1"], [[]], [None, 0], {"a": 1},
    {"__value__": 64}, {"__value__": [1, 2]}, {"__value__": "hello"}, {"__value__": None},
)  # fmt: skip
# What stands where a link should say the number of an output.
OUTPUTS: Final[tuple[Any, ...]] = (0, 1, 2, 99, "0", 0.0, 1.5, None, [], 2**70)
IDS: Final = ("57:8", "010", "", " ", "é", "-1", "a b", "None", "0")
CLASSES: Final[tuple[Any, ...]] = (None, 5, [], {}, "", "ksampler", "KSampler ", "NoSuchClass")
NODES: Final[tuple[Any, ...]] = (None, "x", 5, [], {}, {"inputs": {}}, {"class_type": "SaveImage"})


def mutants(graph: Graph, classes: list[str], dice: random.Random, count: int) -> Iterator[Graph]:
    """Yield changed copies of a graph, each with one to three changes; `classes` are all names."""
    for _ in range(count):
        mutant = copy.deepcopy(graph)
        for _ in range(dice.choice((1, 1, 1, 2, 3))):
            change = dice.choice(_CHANGES)
            nodes = [node for node in mutant if isinstance(mutant[node], dict)]
            if nodes:
                change(mutant, dice.choice(nodes), classes, dice)
        yield mutant


Change = Callable[[Graph, str, list[str], random.Random], None]


def _inputs(graph: Graph, node: str) -> dict[str, Any]:
    inputs = graph[node].get("inputs")
    return inputs if isinstance(inputs, dict) else {}


def _value(graph: Graph, node: str, _: list[str], dice: random.Random) -> None:
    if inputs := _inputs(graph, node):
        inputs[dice.choice(list(inputs))] = copy.deepcopy(dice.choice(VALUES))


def _nearby(graph: Graph, node: str, _: list[str], dice: random.Random) -> None:
    """Change a number a little, or a text by a letter."""
    inputs = _inputs(graph, node)
    plain = [name for name, value in inputs.items() if isinstance(value, int | float | str)]
    if not plain:
        return
    name = dice.choice(plain)
    value = inputs[name]
    if isinstance(value, str):
        at = dice.randrange(len(value) + 1)
        inputs[name] = dice.choice(
            (value[:at] + value[at + 1 :], value.upper(), value + "x", str(value)[::-1])
        )
    else:
        inputs[name] = dice.choice((value + 1, -value, value * 10, value / 2, str(value)))


def _link(graph: Graph, node: str, _: list[str], dice: random.Random) -> None:
    if inputs := _inputs(graph, node):
        source: Any = dice.choice([*graph, "nowhere"])
        if dice.random() < 0.1 and str(source).isdigit():
            source = int(source)
        link = [source, dice.choice(OUTPUTS)]
        inputs[dice.choice(list(inputs))] = dice.choice((link, link, link, link[:1], [*link, 0]))


def _swap(graph: Graph, node: str, _: list[str], dice: random.Random) -> None:
    inputs = _inputs(graph, node)
    if len(inputs) > 1:
        one, other = dice.sample(list(inputs), 2)
        inputs[one], inputs[other] = inputs[other], inputs[one]


def _drop(graph: Graph, node: str, _: list[str], dice: random.Random) -> None:
    if inputs := _inputs(graph, node):
        del inputs[dice.choice(list(inputs))]


def _rename(graph: Graph, node: str, _: list[str], dice: random.Random) -> None:
    if inputs := _inputs(graph, node):
        name = dice.choice(list(inputs))
        inputs[dice.choice((name + "s", name.upper(), "x", name[:-1]))] = inputs.pop(name)


def _remove(graph: Graph, node: str, _: list[str], dice: random.Random) -> None:  # noqa: ARG001
    del graph[node]


def _other_id(graph: Graph, node: str, _: list[str], dice: random.Random) -> None:
    """Call a node otherwise, and change the links to it in half of the cases."""
    new = dice.choice(IDS)
    if new in graph:
        return
    graph[new] = graph.pop(node)
    if dice.random() < 0.5:
        for other in graph:
            if isinstance(graph[other], dict):
                for value in _inputs(graph, other).values():
                    if isinstance(value, list) and value and value[0] == node:
                        value[0] = new


def _class(graph: Graph, node: str, classes: list[str], dice: random.Random) -> None:
    graph[node]["class_type"] = dice.choice((dice.choice(classes), dice.choice(CLASSES)))


def _form(graph: Graph, node: str, _: list[str], dice: random.Random) -> None:
    """Break the form of a node."""
    match dice.randrange(4):
        case 0:
            graph[node].pop("class_type", None)
        case 1:
            graph[node].pop("inputs", None)
        case 2:
            graph[node]["inputs"] = dice.choice((None, [], "x", 5))
        case _:
            graph[node] = copy.deepcopy(dice.choice(NODES))


def _added(graph: Graph, node: str, classes: list[str], dice: random.Random) -> None:
    """Add a node of any class that takes what another gives, in the place of a link or of none."""
    new = str(1000 + len(graph))
    graph[new] = {"class_type": dice.choice(classes), "inputs": {}}
    inputs = _inputs(graph, node)
    links = [name for name, value in inputs.items() if isinstance(value, list)]
    if links:
        inputs[dice.choice(links)] = [new, 0]


_CHANGES: Final[tuple[Change, ...]] = (
    _value, _value, _value, _nearby, _nearby, _link, _link, _link, _swap, _swap, _drop, _drop,
    _rename, _remove, _other_id, _class, _form, _added,
)  # fmt: skip


def single(name: str, inputs: dict[str, Any], sources: dict[str, list[Any]]) -> Graph:
    """Return a graph of one node, and of those that its links and an output need.

    `sources` are nodes by the type that their first output has, with their ids.
    """
    graph: Graph = {"1": {"class_type": name, "inputs": inputs}}
    for value in inputs.values():
        if isinstance(value, list) and value and value[0] in sources:
            graph[value[0]] = {"class_type": sources[value[0]][0], "inputs": {}}
    return graph | {"9": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}
