"""Which nodes of a graph run, in what order, and what the cache knows them by."""

import hashlib
import json
from collections.abc import Callable, Container, Iterable, Iterator

from ..graph.records import Graph, is_link, links
from .errors import GraphError

_FAR = 3


def execution_order(graph: Graph, outputs: Iterable[str], cached: Container[str]) -> Iterator[str]:
    """Yield the nodes to run, as ComfyUI picks them.

    Of the nodes that wait for nothing an output comes first, then one that an output waits for,
    then one that such a node waits for, else the first. What only cached nodes need is left out.
    The caller runs each node before it asks for the next.

    Raises:
        GraphError: when a link leads nowhere, and when only nodes that wait for each other are
            left. The engine's validation keeps both out, except from inputs that no class has.
    """
    outputs = list(outputs)
    waits_for: dict[str, set[str]] = {}
    for output in outputs:
        _add(graph, output, cached, waits_for)
    distance = _distances(waits_for, outputs)
    while waits_for:
        ready = [node for node, sources in waits_for.items() if not sources]
        if not ready:
            blocked = min(waits_for, key=lambda name: distance.get(name, _FAR))
            raise GraphError(blocked, "Dependency cycle detected", "graph.DependencyCycleError")
        node = min(ready, key=lambda name: distance.get(name, _FAR))
        yield node
        del waits_for[node]
        for sources in waits_for.values():
            sources.discard(node)


def _add(graph: Graph, start: str, cached: Container[str], waits_for: dict[str, set[str]]) -> None:
    pending = [start]
    while pending:
        node = pending.pop()
        if node in waits_for:
            continue
        waits_for[node] = set()
        if node in cached:
            continue
        for _, link in links(graph[node]["inputs"]):
            if link.node not in graph:
                raise GraphError(node, f"Node {link.node} not found", "graph.NodeNotFoundError")
            if link.node not in cached:
                waits_for[node].add(link.node)
                pending.append(link.node)


def _distances(waits_for: dict[str, set[str]], outputs: Iterable[str]) -> dict[str, int]:
    """Return how many links the nodes near an output are away from one."""
    distance = dict.fromkeys(outputs, 0)
    near = set(distance)
    for step in range(1, _FAR):
        near = {source for node in near for source in waits_for.get(node, ())}
        for node in near:
            distance.setdefault(node, step)
    return distance


def signatures(graph: Graph, digest: Callable[[str], str]) -> dict[str, str]:
    """Return what each node's result depends on, hashed: its class, values and what feeds it.

    Two nodes of the same signature have the same result, whatever their ids are. `digest` returns
    what a node depends on beyond its inputs, such as the content of a file. Nodes that have no
    result (a link into nothing, a circle) have no signature.
    """
    found: dict[str, str] = {}
    failed: set[str] = set()

    def signature(node: str, path: frozenset[str]) -> str | None:
        if node in found:
            return found[node]
        if node in path or node in failed or node not in graph:
            return None
        content = graph[node]
        inputs = content.get("inputs")
        if not isinstance(inputs, dict):
            failed.add(node)
            return None
        parts: list[object] = []
        for name in sorted(inputs):
            value = inputs[name]
            if is_link(value):
                source = signature(value[0], path | {node})
                if source is None:
                    failed.add(node)
                    return None
                parts.append([name, "link", source, value[1]])
            else:
                parts.append([name, "value", value])
        text = json.dumps([content["class_type"], digest(node), parts])
        found[node] = hashlib.sha256(text.encode()).hexdigest()
        return found[node]

    for node in graph:
        signature(node, frozenset())
    return found
