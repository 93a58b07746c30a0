"""What an import works on: a graph in API format, and what is known of its nodes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from ..diagnostics import Diagnostic, Severity
from ..graph.catalog import Catalog, ClassType, is_model_file
from ..graph.check import Finding, check_graph
from ..graph.classes import inputs_of, resolve_classes
from ..graph.convert import CanvasNode, convert
from ..graph.records import Graph, links, needed
from ..graph.words import show
from ..graph_files import parse, read_text
from ..graph_files import placed as in_file
from .needs import Listed, listed_models
from .notes import Note, of_finding, placed
from .read import ReadError, carried_text
from .suggest import SEEDS

# A graph with such a fault is damaged: it is for the canvas to mend, not for a spec.
_DAMAGE: Final = frozenset(
    ("bad-graph", "bad-output-index", "cycle", "dangling-link", "missing-input", "no-output")
)
# More of them say nothing new.
_MOST: Final = 20


@dataclass(frozen=True)
class Source:
    """A graph that is whole. `canvas` and `listed` are empty where the file is in API format.

    `notes` are what was changed in it on the way, with the node.
    """

    graph: Graph
    classes: Mapping[str, ClassType]
    canvas: Mapping[str, CanvasNode]
    listed: Sequence[Listed]
    notes: Sequence[Note]


def read_source(
    path: Path, name: str, catalog: Catalog, packs: Collection[str]
) -> tuple[Source | None, list[Diagnostic]]:
    """Return what a file holds, or None; and what is to be said of it. `name` is the file's.

    `packs` are those that models.yaml declares: where several define a class, these come first.
    """
    try:
        carried = carried_text(path)
    except ReadError as error:
        return None, [placed(Note("unreadable", str(error), severity=Severity.ERROR), name)]
    text, faults = (carried, []) if carried is not None else read_text(path, name)
    if text is None:
        return None, faults
    document, faults = parse(text, name)
    if faults:
        return None, faults
    found = convert(document, catalog)
    shown = partial(_shown, name, document, None if carried else text)
    wrong = [finding for finding in found.findings if finding.code != "unknown-class"]
    if wrong and not found.graph:
        return None, shown(wrong)
    classes, _ = resolve_classes(found.graph, catalog, packs)
    others, _ = resolve_classes(found.graph, catalog, catalog.packs, choose=True)
    classes = {node: classes.get(node) or others[node] for node in others}
    checked = check_graph(found.graph, classes, catalog)
    if damage := [finding for finding in checked if finding.code in _DAMAGE]:
        return None, shown(damage)
    frontend = {(f.node, f.input) for f in checked if f.code == "frontend-input"}
    graph = {
        node: {
            **content,
            "inputs": {
                key: value
                for key, value in content["inputs"].items()
                if (node, key) not in frontend
            },
        }
        for node, content in found.graph.items()
    }
    warnings = [finding for finding in wrong if finding.severity != "error"]
    notes = [*map(of_finding, warnings), *_normalise(graph, classes)]
    source = Source(graph, classes, found.canvas, listed_models(document, found.canvas), notes)
    return source, []


def choose_output(source: Source) -> tuple[str | None, tuple[str, ...]]:
    """Return the node whose file is the reply, or None and those between which it is undecided.

    One that saves counts before those that preview. Of several that save, one that needs all that
    the others show, or all of their samplers and another one, is the result, and the others are
    steps on the way. Nodes of unknown classes may save, too, where nothing takes what they make.
    """
    consumed = {
        link.node for content in source.graph.values() for _, link in links(content["inputs"])
    }
    unknown = [n for n in source.graph if n not in source.classes and n not in consumed]
    found = [node for node, c in source.classes.items() if c.output_node]
    savers = [node for node in found if "preview" not in source.classes[node].name.casefold()]
    chosen = savers or found
    if unknown:
        return None, (*chosen, *unknown) if chosen or len(unknown) > 1 else ()
    if len(chosen) == 1:
        return chosen[0], ()
    last = _last(source.graph, chosen) if len(chosen) <= _MOST else None
    return (last, ()) if last else (None, tuple(chosen[:_MOST]))


def kept_nodes(source: Source, output: str | None) -> Graph:
    """Return the part of the graph that some output needs, or that the chosen one does."""
    if output is not None:
        return needed(source.graph, output)
    outputs = [n for n in source.graph if n not in source.classes or source.classes[n].output_node]
    return needed(source.graph, *outputs) if outputs else dict(source.graph)


def _last(graph: Graph, among: Collection[str]) -> str | None:
    """Return the output node that comes after all the others, None where no single one does."""
    parts = {node: needed(graph, node) for node in among}
    shown = {n: {link.node for _, link in links(graph[n]["inputs"])} for n in among}
    # What makes something new is told by its seed.
    samplers = {
        node: {n for n, content in part.items() if SEEDS & content["inputs"].keys()}
        for node, part in parts.items()
    }
    found: list[str] = []
    for node in among:
        others = [other for other in among if other != node]
        steps = set[str]().union(*(shown[other] for other in others))
        is_behind = bool(steps) and steps < parts[node].keys()
        if is_behind or all(samplers[other] < samplers[node] for other in others):
            found.append(node)
    return found[0] if len(found) == 1 else None


def _normalise(graph: Graph, classes: Mapping[str, ClassType]) -> Iterator[Note]:
    """Change what no workflow's file can hold, in place, and yield what was changed."""
    for node, name, value, taken in list(inputs_of(graph, classes)):
        if isinstance(value, str) and taken.folders and "\\" in value and is_model_file(value):
            written = graph[node]["inputs"]
            file = value.replace("\\", "/")
            if isinstance(written[name], dict):
                written[name] = {k: file if v == value else v for k, v in written[name].items()}
            else:
                written[name] = file
            message = f"{show(value)} is written with /, as the engine on Linux lists it"
            yield Note("changed", message, node, name)
    for node, content in graph.items():
        for name in [name for name, value in content["inputs"].items() if value is None]:
            del content["inputs"][name]
            message = "it is null, which a file cannot say: left out, so the node's default counts"
            yield Note("left-out", message, node, name)


def _shown(
    name: str, document: Any, text: str | None, findings: Sequence[Finding]
) -> list[Diagnostic]:
    """Return findings as diagnostics, at their lines where the file is that text."""
    some = findings[:_MOST]
    if text is not None:
        return list(in_file(some, document, text, name))
    return [placed(of_finding(finding), name) for finding in some]
