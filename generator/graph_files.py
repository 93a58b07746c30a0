"""Files that hold a graph as JSON: in ComfyUI's API format, or in UI format as the canvas saves it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .diagnostics import Diagnostic, Severity
from .graph.check import Finding
from .graph.convert import is_ui
from .graph.words import show
from .load import MAX_BYTES, Node, load_text

# The name of an input is at fault there, not its value.
_AT_KEY: Final = frozenset(("frontend-input", "unknown-input"))


def read_text(path: Path, name: str) -> tuple[str | None, list[Diagnostic]]:
    """Return a file's text, or why there is none; `name` is what diagnostics call it."""
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_BYTES and path.is_file() else b""
    except OSError as error:
        return None, [fault(name, "unreadable", f"cannot be read: {error.strerror}")]
    if not path.is_file():
        return None, [fault(name, "unreadable", "is no regular file")]
    if size > MAX_BYTES:
        return None, [fault(name, "too-large", f"{size} bytes; at most {MAX_BYTES} are read")]
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return None, [fault(name, "not-utf8", f"byte {error.start} is no UTF-8", line)]


def parse(text: str, name: str) -> tuple[Any, list[Diagnostic]]:
    """Return the JSON of a text; of the body of a request to ComfyUI, its graph."""
    try:
        graph = json.loads(text, object_pairs_hook=_unique)
    except _DuplicateKeyError as error:
        _, faults = load_text(text, name)
        twice = [found for found in faults if found.code == "duplicate-key"]
        message = f"the key {show(str(error))} stands in an object twice"
        return None, twice or [fault(name, "duplicate-key", message)]
    except json.JSONDecodeError as error:
        ends = error.pos >= len(text.rstrip())
        problem = "it ends too early; save it again" if ends else error.msg
        return None, [fault(name, "syntax", f"no JSON: {problem}", error.lineno, error.colno)]
    except (RecursionError, ValueError):
        return None, [fault(name, "too-large", "the JSON nests too deep, or has a huge number")]
    if isinstance(graph, dict) and graph.keys() <= {"prompt", "client_id", "extra_data"}:
        graph = graph.get("prompt", graph)
    return graph, []


class _DuplicateKeyError(Exception):
    """A key stands in an object twice; ComfyUI would take the last, and say nothing."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(next(key for key in keys if keys.count(key) > 1))
    return found


def placed(
    findings: Iterable[Finding], document: Any, text: str, name: str
) -> Iterator[Diagnostic]:
    """Yield findings with their lines; those of JSON that YAML cannot read stand in line 1."""
    root, _ = load_text(text, name)
    nodes = _canvas_nodes(root) if root and is_ui(document) else _graph_nodes(root)
    for finding in findings:
        at, key = nodes.get(finding.node or ""), True
        inputs = at.mapping.get("inputs") if at else None
        if inputs and finding.input in inputs.mapping:
            at, key = inputs.mapping[finding.input], finding.code in _AT_KEY
        line, column = 1, 1
        if at is not None:
            line, column = at.key if key and at.key else (at.line, at.column)
        yield Diagnostic(
            name,
            line,
            column,
            Severity(finding.severity),
            finding.code,
            finding.message,
            finding.node,
            finding.input,
            finding.hint,
        )


def _graph_nodes(root: Node | None) -> dict[str, Node]:
    nodes = root.mapping if root else {}
    if "prompt" in nodes and "inputs" not in nodes["prompt"].mapping:
        nodes = nodes["prompt"].mapping
    return nodes


@dataclass(frozen=True, slots=True)
class _CanvasNodes:
    """The nodes of a file in UI format: those of the canvas by id, and those of subgraphs."""

    canvas: Mapping[str, Node]
    subgraphs: Mapping[str, Mapping[str, Node]]

    def get(self, key: str) -> Node | None:
        """Return a node by its id in the graph; "57:8" is node 8 of what node 57 stands for."""
        nodes, found = self.canvas, None
        for part in key.split(":"):
            found = nodes.get(part)
            nodes = self.subgraphs.get(_text(found.mapping.get("type")), {}) if found else {}
        return found


def _canvas_nodes(root: Node) -> _CanvasNodes:
    definitions = root.mapping.get("definitions")
    subgraphs = definitions.mapping.get("subgraphs") if definitions else None
    within = {
        _text(content.mapping.get("id")): _by_id(content)
        for content in (subgraphs.items if subgraphs else ())
    }
    return _CanvasNodes(_by_id(root), within)


def _by_id(graph: Node) -> dict[str, Node]:
    nodes = graph.mapping.get("nodes")
    return {_text(node.mapping.get("id")): node for node in (nodes.items if nodes else ())}


def _text(node: Node | None) -> str:
    return "" if node is None or not isinstance(node.value, str | int) else str(node.value)


def fault(file: str, code: str, message: str, line: int = 1, column: int = 1) -> Diagnostic:
    """Return an error that is the whole file's."""
    return Diagnostic(file, line, column, Severity.ERROR, code, message)
