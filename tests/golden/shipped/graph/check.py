"""What is wrong with a graph in ComfyUI's API format, by the schemas of its nodes.

Errors are what the engine refuses, or accepts and then fails at or ignores: an input that the
class does not have, an option that a V3 node does not offer, a literal where only a link makes
sense, a class that calls a vendor's API. Which class each node has is for the caller to find out;
nodes whose class is unknown pass, and count as outputs, for they may be some.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .catalog import WIDGET_TYPES, Catalog, ClassType, Input
from .records import Link, followed
from .values import Severity, Unknown, misfit
from .words import did_you_mean, show, some

__all__ = ["Finding", "Unknown", "check_graph"]

Sources = Mapping[str, list[tuple[str, Link]]]

_LOADS_IMAGE: Final = frozenset(("LoadImage", "LoadImageMask", "LoadImageOutput"))
_SHOWS_3D: Final = frozenset(("Preview3D", "Preview3DAnimation", "SaveGLB"))
_LOADS_VIDEO: Final = frozenset(
    ("VHS_LoadVideo", "VHS_LoadVideoFFmpeg", "VHS_LoadVideoFFmpegPath", "VHS_LoadVideoPath")
)
# Widgets that ComfyUI's frontend adds to nodes and exports with them; no schema has them.
_FRONTEND_INPUTS: Final = {
    "audioUI": frozenset(
        (
            "LoadAudio",
            "PreviewAudio",
            "RecordAudio",
            "SaveAudio",
            "SaveAudioMP3",
            "SaveAudioOpus",
        )
    ),
    "image": _SHOWS_3D,
    "preview": frozenset(("PreviewAny",)),
    "upload": _LOADS_IMAGE | {"LoadAudio", "LoadVideo"},
    "videopreview": _LOADS_VIDEO,
    "choose video to upload": _LOADS_VIDEO,
    "choose folder to upload": frozenset(("VHS_LoadImages",)),
}
# The engine checks a graph by recursion along its links; Python's limit stops it at some 975 nodes.
_DEEPEST: Final = 950
# Of more inputs than these that a class does not have, the nearest names are not looked for.
_MOST_HINTED: Final = 20
# Python writes no integers of thousands of digits, which JSON may hold.
_LONGEST_ID: Final = 10**18


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a graph; `code` is documented in docs/diagnostics.md."""

    code: str
    severity: Severity
    message: str
    node: str | None = None
    input: str | None = None
    hint: str | None = None


def check_graph(
    graph: object,
    classes: Mapping[str, ClassType],
    catalog: Catalog,
    *,
    outputs: Collection[str] | None = None,
    allow_api_nodes: bool = False,
) -> list[Finding]:
    """Return what is wrong with a graph, in its order; `classes` are those of its nodes, by id.

    Nodes that no output needs get a warning and nothing else: the engine neither checks nor runs
    them, so a fault in them fails no run, and exports are full of such leftovers. `outputs` are
    the nodes that the run is for, by default all output nodes. A graph without any is checked as
    a whole. Never raises for what a graph holds; values may be `Unknown`.
    """
    if not isinstance(graph, dict):
        return [Finding("bad-graph", "error", "a graph maps node ids to nodes")]
    found = [finding for node, content in graph.items() for finding in _check_form(node, content)]
    malformed = {finding.node for finding in found}
    nodes = {
        node: content.get("inputs") for node, content in graph.items() if node not in malformed
    }
    check = _Check(graph, nodes, classes, catalog, allow_api_nodes)
    return found + list(check.findings(outputs))


def _check_form(node: str, content: object) -> Iterator[Finding]:
    """Check what the engine asks of every node, be it needed or not."""
    if not isinstance(content, dict):
        message = "a node has a class_type and inputs"
        yield Finding("bad-graph", "error", message, node)
    elif not isinstance(content.get("class_type"), str):
        hint = "add its class_type, or remove the node"
        yield Finding("bad-graph", "error", "this node has no class_type", node, hint=hint)


@dataclass(frozen=True, slots=True)
class _Check:
    """A graph that is being checked; `nodes` are the inputs of its nodes that have a class."""

    graph: Mapping[str, Any]
    nodes: Mapping[str, Any]
    classes: Mapping[str, ClassType]
    catalog: Catalog
    allow_api_nodes: bool

    def findings(self, outputs: Collection[str] | None) -> Iterator[Finding]:
        sources = {
            node: [
                (name, link)
                for name, value in (inputs.items() if isinstance(inputs, dict) else ())
                if (link := _meant(value)) and link.node in self.nodes
            ]
            for node, inputs in self.nodes.items()
        }
        roots = [node for node in self.nodes if self._is_output(node, outputs)]
        if not roots:
            hint = "add a node that saves or previews, such as SaveImage"
            yield Finding("no-output", "error", "no output node: nothing would run", hint=hint)
        needed = _reached(sources, roots or self.nodes)
        for node, inputs in self.nodes.items():
            if node in needed and isinstance(inputs, dict):
                yield from self._check_node(node, inputs)
            elif node in needed:
                message, hint = "this node has no mapping of inputs", "add inputs: {}"
                yield Finding("bad-graph", "error", message, node, hint=hint)
            else:
                message = "no output needs this node, so it does not run"
                hint = "link it to what needs it, or remove it"
                yield Finding("unreachable", "warning", message, node, hint=hint)
        sources = {node: sources[node] for node in self.nodes if node in needed}
        yield from _check_cycles(sources)
        yield from _check_depth(sources)

    def _is_output(self, node: str, outputs: Collection[str] | None) -> bool:
        if outputs is not None:
            return node in outputs
        return node not in self.classes or self.classes[node].output_node

    def _check_node(self, node: str, inputs: Mapping[str, Any]) -> Iterator[Finding]:
        class_type = self.classes.get(node)
        if class_type is None:
            for name, value in inputs.items():
                if link := followed(value):
                    yield from self._check_source(node, name, link)
            return
        if class_type.api_node and not self.allow_api_nodes:
            message = f"{class_type.name} calls its vendor's API, with an account and at a price"
            hint = "replace it by a node that runs in the engine itself, or remove it"
            yield Finding("api-node", "error", message, node, hint=hint)
        if class_type.deprecated:
            message = f"class {show(class_type.name)} is deprecated"
            yield Finding("deprecated", "warning", message, node)
        for name, taken in class_type.inputs.items():
            if name not in inputs and not taken.optional:
                message = f"{class_type.name} needs this input"
                yield Finding("missing-input", "error", message, node, name, _how_to_add(taken))
        for name, value in inputs.items():
            if name not in class_type.inputs:
                yield from self._check_undeclared(node, name, value, class_type)
            elif isinstance(value, list):
                yield from self._check_link(node, name, value, class_type)
            elif wrong := misfit(class_type.inputs[name], value, lambda: self.catalog.linked_types):
                yield Finding(wrong.code, wrong.severity, wrong.message, node, name, wrong.hint)

    def _check_undeclared(
        self, node: str, name: str, value: Any, class_type: ClassType
    ) -> Iterator[Finding]:
        """Check an input beyond the schema; the engine follows its link all the same."""
        if class_type.name in _FRONTEND_INPUTS.get(name, ()):
            message = "only ComfyUI's frontend reads this input"
            yield Finding("frontend-input", "warning", message, node, name, "leave it out")
        elif not class_type.open:
            message = f"{class_type.name} has no such input"
            # Looking for near names takes its time; whoever has that many faults needs no hints.
            is_lost = len(self.nodes[node]) > _MOST_HINTED + len(class_type.inputs)
            hint = None if is_lost else did_you_mean(name, class_type.inputs)
            yield Finding("unknown-input", "error", message, node, name, hint)
        if link := followed(value):
            yield from self._check_source(node, name, link)

    def _check_link(
        self, node: str, name: str, value: list[Any], class_type: ClassType
    ) -> Iterator[Finding]:
        taken = class_type.inputs[name]
        link = followed(value)
        if link is None:
            message = 'a list is a link here, ["node id", output number]'
            hint = _how_to_link(taken, value)
            yield Finding("bad-link", "error", message, node, name, hint)
            return
        yield from self._check_source(node, name, link)
        source = self.classes.get(link.node) if link.node in self.nodes else None
        if source is None:
            return
        received = _output_type(source, link.output)
        others = [i for i, output in enumerate(source.outputs) if _fits(output.type, taken.type)]
        hint = f"did you mean {_shown_link(link.node, others[0])}?" if others else None
        if received is None:
            message = f"{source.name} has no output {show(link.output)}: {_outputs(source)}"
            yield Finding("bad-output-index", "error", message, node, name, hint)
        elif taken.media and taken.type == "COMBO" and class_type.pack is None:
            message = f"{class_type.name} takes the name of a file here, not a link"
            yield Finding("link-type", "error", message, node, name)
        elif not _fits(received, taken.type):
            message = (
                f"this input takes {taken.type}, but output {link.output} of node "
                f"{show(link.node)} ({source.name}) is {received}"
            )
            yield Finding("link-type", "error", message, node, name, hint)

    def _check_source(self, node: str, name: str, link: Link) -> Iterator[Finding]:
        if link.node not in self.graph:
            yield Finding(
                "dangling-link", "error", f"there is no node {show(link.node)}", node, name
            )


def _meant(value: object) -> Link | None:
    """Return the link that a value is, or is meant to be: a fault of form hides no other fault."""
    match value:
        case [str(node), int() | float()]:
            return followed(value) or Link(node, 0)
        case [int() as node, int() | float()] if abs(node) < _LONGEST_ID:
            return Link(str(int(node)), 0)
    return None


def _reached(sources: Sources, roots: Collection[str]) -> set[str]:
    reached: set[str] = set()
    pending = list(roots)
    while pending:
        node = pending.pop()
        if node not in reached:
            reached.add(node)
            pending += [link.node for _, link in sources[node]]
    return reached


def _check_cycles(sources: Sources) -> Iterator[Finding]:
    """Report every node of a cycle: which of its links is the wrong one, no schema knows."""
    rank = {node: i for i, node in enumerate(sources)}
    for members in _components(sources):
        ordered = sorted(members, key=rank.__getitem__)
        message = f"these nodes wait for each other: {some(tuple(ordered))}"
        if len(ordered) == 1:
            message = "this node waits for its own output"
        for node in ordered:
            name = next((name for name, link in sources[node] if link.node in members), None)
            if name is not None:
                hint = "link it to a node that does not need this one"
                yield Finding("cycle", "error", message, node, name, hint)


def _components(sources: Sources) -> Iterator[set[str]]:
    """Yield the strongly connected parts of a graph (Tarjan's algorithm, without recursion)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    stacked: set[str] = set()
    for root in sources:
        work = [] if root in order else [(root, iter(sources[root]))]
        while work:
            node, rest = work[-1]
            if node not in order:
                order[node] = low[node] = len(order)
                stack.append(node)
                stacked.add(node)
            for _, link in rest:
                if link.node not in order:
                    work.append((link.node, iter(sources[link.node])))
                    break
                if link.node in stacked:
                    low[node] = min(low[node], order[link.node])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    members = {node}
                    while (member := stack.pop()) != node:
                        members.add(member)
                    stacked -= members
                    yield members


def _check_depth(sources: Sources) -> Iterator[Finding]:
    """Report the first node that waits for more nodes in a row than the engine can follow."""
    if len(sources) <= _DEEPEST:
        return
    depths: dict[str, int] = {}
    # A part of several nodes is a cycle, which was reported; each comes after those it needs.
    for members in _components(sources):
        below = [depths.get(link.node, 0) for node in members for _, link in sources[node]]
        depths |= dict.fromkeys(members, max(below, default=0) + 1)
        for node in members:
            if depths[node] == _DEEPEST + 1:
                message = f"this node waits for {_DEEPEST} others in a row: the engine gives up"
                yield Finding("too-deep", "error", message, node, hint="split the graph")
                return


def _output_type(source: ClassType, index: int) -> str | None:
    """Return the type of an output, None when there is none; some open classes have any number.

    The engine takes numbers below 0 as Python does: -1 is the last.
    """
    if -len(source.outputs) <= index < len(source.outputs):
        return source.outputs[index].type
    is_endless = source.open and source.outputs and source.outputs[-1].type == "*"
    return "*" if is_endless and index >= 0 else None


def _fits(received: str, wanted: str) -> bool:
    """Say whether an output's type fits an input: equal, a wildcard, or unions that overlap."""
    if received == wanted or "*" in (received, wanted):
        return True
    return not set(received.split(",")).isdisjoint(wanted.split(","))


def _outputs(source: ClassType) -> str:
    types = [f"{i} is {output.type}" for i, output in enumerate(source.outputs)]
    return ", ".join(types) or "it has none"


def _shown_link(node: str, output: int) -> str:
    return f"[{show(node)}, {output}]"


def _how_to_add(taken: Input) -> str | None:
    if WIDGET_TYPES.isdisjoint(taken.type.split(",")):
        return f"link it to an output of type {taken.type}"
    return None if taken.default is None else f"the default is {show(taken.default)}"


def _how_to_link(taken: Input, value: list[Any]) -> str | None:
    match value:
        case [int() as node, int() as output] if (
            not isinstance(output, bool) and 0 <= node < _LONGEST_ID > output >= 0
        ):
            return f"node ids are texts: {_shown_link(str(int(node)), output)}"
        case [str() as node, _]:
            return f"outputs are whole numbers from 0: {_shown_link(node, 0)}"
    if WIDGET_TYPES.isdisjoint(taken.type.split(",")):
        return None
    return 'a list that is a value goes in {"__value__": …}'
