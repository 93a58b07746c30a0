"""A workflow's YAML file from a graph and the params that were suggested for it."""

import heapq
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ..dump import DumpError, entry
from ..graph.convert import CanvasNode
from ..graph.records import Graph, followed, links
from ..graph.words import printable
from .suggest import Suggestion

FIRST_LINE: Final = "# yaml-language-server: $schema=../generator/schemas/workflow.schema.json"
MODELS_FIRST_LINE: Final = "# yaml-language-server: $schema=generator/schemas/models.schema.json"

_LONGEST_COMMENT: Final = 200
_SPACES: Final = re.compile(r"\s+")


class WriteError(ValueError):
    """A graph holds what a workflow's file cannot; the message names the node."""


def workflow_text(
    summary: str,
    suggestions: Sequence[Suggestion],
    graph: Graph,
    comments: Mapping[str, Sequence[str]],
    output: str | None,
    todo: Sequence[str] = (),
) -> str:
    """Return the file of a workflow; `comments` stand above their nodes, `todo` above the output.

    Raises:
        WriteError: when a value cannot be written as YAML.
    """
    lines = [FIRST_LINE, *entry("summary", summary, 0), ""]
    if suggestions:
        lines.append("params:")
        for suggestion in suggestions:
            lines += entry(suggestion.name, suggestion.schema, 2)
        lines.append("")
    lines.append("graph:")
    for node, content in graph.items():
        lines += [f"  # {comment}" for comment in comments.get(node, ())]
        lines += node_lines(node, with_slots(node, content, suggestions))
    if todo or output:
        lines.append("")
    lines += [f"# {comment}" for comment in todo]
    if output:
        lines += entry("output", int(output) if _is_plain_id(output) else output, 0)
    return "\n".join(lines) + "\n"


def node_lines(node: str, content: Mapping[str, Any]) -> list[str]:
    """Return the lines of one node. Raises WriteError."""
    lines: list[str] = []
    for name, value in content["inputs"].items():
        try:
            entry(name, value, 0)
        except DumpError as error:
            raise WriteError(
                f'node "{printable(node)}" input "{printable(name)}": YAML cannot hold {error}'
            ) from error
    try:
        lines = entry(node, {"class_type": content["class_type"], "inputs": content["inputs"]}, 2)
    except DumpError as error:
        raise WriteError(f'node "{printable(node)[:80]}": YAML cannot hold {error}') from error
    return lines


def with_slots(
    node: str, content: Mapping[str, Any], suggestions: Sequence[Suggestion]
) -> dict[str, Any]:
    """Return a node with slots where params go, and its other texts as they are to be read."""
    slots = {
        place.input: "${" + suggestion.name + "}"
        for suggestion in suggestions
        for place in suggestion.places
        if place.node == node
    }
    inputs = {
        name: slots[name] if name in slots else as_written(value)
        for name, value in content["inputs"].items()
    }
    return {"class_type": content["class_type"], "inputs": inputs}


def as_written(value: Any) -> Any:
    """Return an input's value of a graph as it stands in a workflow's file."""
    if link := followed(value):
        return link
    if isinstance(value, Mapping):
        return {key: as_written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_written(item) for item in value]
    return escaped(value) if isinstance(value, str) else value


def escaped(text: str) -> str:
    """Return a text that the slots' parser reads as itself."""
    return text.replace("${", "$${")


def title_comment(node: Mapping[str, Any], canvas: CanvasNode | None) -> str | None:
    """Return a node's title as a comment, None where it says no more than the class."""
    meta = node.get("_meta")
    title = canvas.title if canvas else meta.get("title") if isinstance(meta, Mapping) else None
    if not isinstance(title, str):
        return None
    titles = [*(canvas.subgraphs if canvas else ()), title]
    comment = comment_text(" / ".join(titles))
    is_class = comment.replace(" ", "").casefold() == node["class_type"].casefold()
    return None if is_class or not comment else comment


def comment_text(text: str) -> str:
    """Return a text as one line of a comment."""
    line = printable(_SPACES.sub(" ", text).strip())
    return line if len(line) <= _LONGEST_COMMENT else f"{line[: _LONGEST_COMMENT - 1]}…"


def in_reading_order(graph: Graph, canvas: Mapping[str, CanvasNode]) -> Graph:
    """Return a graph so that nodes stand after those that feed them.

    Of several that could come next, the one that stands further left on the canvas does, then the
    higher one; without a canvas the one that came first.
    """
    waiting = {node: len(set(_sources(graph, node))) for node in graph}
    consumers: dict[str, list[str]] = {}
    for node in graph:
        for source in set(_sources(graph, node)):
            consumers.setdefault(source, []).append(node)
    rank = {node: (_position(canvas.get(node)), place) for place, node in enumerate(graph)}
    ready = [(rank[node], node) for node, count in waiting.items() if not count]
    heapq.heapify(ready)
    ordered: list[str] = []
    while ready:
        _, node = heapq.heappop(ready)
        ordered.append(node)
        for consumer in consumers.get(node, ()):
            waiting[consumer] -= 1
            if not waiting[consumer]:
                heapq.heappush(ready, (rank[consumer], consumer))
    return {node: graph[node] for node in (*ordered, *(n for n in graph if n not in ordered))}


def _sources(graph: Graph, node: str) -> Iterator[str]:
    return (link.node for _, link in links(graph[node]["inputs"]) if link.node in graph)


def _position(canvas: CanvasNode | None) -> tuple[float, float]:
    return canvas.position if canvas and canvas.position else (0.0, 0.0)


def _is_plain_id(node: str) -> bool:
    return bool(re.fullmatch("0|[1-9][0-9]{0,15}", node))
