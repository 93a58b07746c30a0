"""A graph as ComfyUI's API format has it: `{node id: {"class_type": …, "inputs": {…}}}`."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeGuard

Graph = dict[str, Any]


class Link(NamedTuple):
    """The output of another node as the value of an input."""

    node: str
    output: int


def is_link(value: object) -> TypeGuard[list[Any]]:
    """Say whether an input's value is a link, by ComfyUI's own rule.

    Source: `is_link` in comfy_execution/graph_utils.py.
    """
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and type(value[1]) in (int, float)
    )


def followed(value: object) -> Link | None:
    """Return an input's value as a link if the engine can follow it, which takes no float."""
    if is_link(value) and type(value[1]) is int:
        return Link(value[0], value[1])
    return None


def links(inputs: Mapping[str, Any]) -> Iterator[tuple[str, Link]]:
    """Yield the inputs of a node that are links."""
    for name, value in inputs.items():
        if is_link(value):
            yield name, Link(value[0], int(value[1]))


def needed(graph: Graph, *outputs: str) -> Graph:
    """Return the part of a graph that the given nodes need, in the graph's order.

    Raises:
        KeyError: when a node is missing from the graph.
    """
    keep: set[str] = set()
    pending = list(outputs)
    while pending:
        node = pending.pop()
        if node not in keep:
            keep.add(node)
            pending += [link.node for _, link in links(graph[node]["inputs"])]
    return {node: content for node, content in graph.items() if node in keep}


def without(graph: Graph, *left_out: str | tuple[str, str]) -> Graph:
    """Return a graph without some nodes, and without some inputs: `(node, input)`.

    Nodes and inputs that the graph does not hold are passed over, for two optional params may
    leave out the same one.
    """
    nodes = {node for node in left_out if isinstance(node, str)}
    inputs = {entry for entry in left_out if isinstance(entry, tuple)}
    return {
        node: {
            **content,
            "inputs": {
                name: value
                for name, value in content["inputs"].items()
                if (node, name) not in inputs
            },
        }
        for node, content in graph.items()
        if node not in nodes
    }
