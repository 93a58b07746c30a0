"""A workflow as ComfyUI's canvas saves it (UI format) to a graph in API format.

The result is what ComfyUI's frontend 1.28 exports, less the inputs that only the frontend reads.
Source: `graphToPrompt` and `ExecutableNodeDTO` of ComfyUI_frontend.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from .catalog import Catalog
from .check import Finding
from .classes import resolve_classes
from .records import Graph, Link
from .subgraphs import PRIMITIVE, VIRTUAL, Part, Placed, Workflow
from .ui_records import BYPASS, NEVER, SUBGRAPH_INPUT, UiGraph, UiInput, is_ui, read_document
from .widgets import as_text, chosen_text, shared, stepped
from .words import show

__all__ = ["CanvasNode", "Conversion", "convert", "is_ui"]

# Classes in whose file names the canvas puts values of other nodes.
_SAVES: Final = frozenset(
    "CLIPSave LoraSave ModelSave SaveAnimatedPNG SaveAnimatedWEBP SaveAudio SaveGLB SaveImage"
    " SaveLatent SaveWEBM VAESave".split()
)
_REPLACED: Final = re.compile(r"%([^%]+)%")
_NO_FILE_NAME: Final = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')
# What one finding too many says nothing new of.
_MOST_FINDINGS: Final = 200
# A second or so; a workflow of a hundred nodes takes a few hundred.
_MOST_STEPS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class CanvasNode:
    """What the canvas knows of a node of the graph, and the graph does not hold.

    `position` is that on its canvas or in its subgraph, `groups` are the titles of the frames it
    stands in, `subgraphs` the titles of the nodes that it is in, the outermost first.
    `properties` are the node's own: models, cnr_id, aux_id, ver.
    """

    title: str
    position: tuple[float, float] | None
    properties: Mapping[str, Any]
    groups: tuple[str, ...] = ()
    subgraphs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversion:
    """A graph in API format, in the order of the frontend's export, and what is wrong with it.

    The graph is empty where the file is too damaged to make one. `canvas` is by node id, and empty
    where the document was in API format already.
    """

    graph: Graph
    findings: tuple[Finding, ...] = ()
    canvas: Mapping[str, CanvasNode] = field(default_factory=dict)


class _Value(NamedTuple):
    """What an input in a subgraph gets where the subgraph's node shows a widget for it."""

    value: Any


def convert(document: object, catalog: Catalog) -> Conversion:
    """Return a workflow as a graph in API format; one in API format as it is.

    Never raises for what a document holds. Classes that no schema is known of are errors among the
    findings, and their nodes are in the graph as far as the file tells their inputs.
    """
    if not isinstance(document, dict):
        return Conversion({}, (Finding("bad-graph", "error", "a workflow is a mapping"),))
    if not is_ui(document):
        faults = list(_not_nodes(document))
        return Conversion({}, tuple(faults)) if faults else Conversion(document)
    read, faults = read_document(document)
    if faults:
        return Conversion({}, tuple(faults[:_MOST_FINDINGS]))
    workflow = Workflow(read, catalog)
    placed = workflow.load()
    maker = _Maker(workflow, placed)
    graph = maker.graph() if placed or not workflow.found else {}
    _, unknown = resolve_classes(graph, catalog, catalog.packs, choose=True)
    unknown = [_with_pack(finding, placed) for finding in unknown]
    findings = (*workflow.found, *maker.found[:_MOST_FINDINGS], *unknown)
    if any(f.severity == "error" for f in (*workflow.found, *maker.found)):
        return Conversion({}, findings)
    canvas = {node: maker.canvas_node(placed[node]) for node in graph}
    return Conversion(graph, findings, canvas)


def _not_nodes(graph: Mapping[str, Any]) -> Iterator[Finding]:
    """Say what of a graph in API format is no node."""
    for node, content in graph.items():
        if not (
            isinstance(content, dict)
            and isinstance(content.get("class_type"), str)
            and isinstance(content.get("inputs"), dict)
        ):
            message = "this is no node of a graph in API format, and the file is not in UI format"
            hint = "save or export the workflow anew in ComfyUI"
            yield Finding("bad-graph", "error", message, str(node), hint=hint)
            return


@dataclass(slots=True)
class _Maker:
    """A graph that is being made of a workflow's nodes."""

    workflow: Workflow
    placed: Mapping[str, Placed]
    found: list[Finding] = field(default_factory=list)
    steps: int = 0
    setters: dict[int, dict[str, Part]] = field(default_factory=dict)
    named: dict[str, Part] | None = None

    def graph(self) -> Graph:
        """Return the graph; where `found` holds an error it is none."""
        for graph in (*self.workflow.document.subgraphs.values(), self.workflow.document.canvas):
            self._apply_primitives(graph)
        made: Graph = {}
        for node in self.placed.values():
            part = node.part
            if part.is_virtual or part.node.mode in (NEVER, BYPASS):
                continue
            made[node.id] = {
                "inputs": self._inputs(node),
                "class_type": part.type,
                "_meta": {"title": _title(part)},
            }
        for content in made.values():
            content["inputs"] = {
                name: value
                for name, value in content["inputs"].items()
                if not isinstance(value, list) or value[0] in made
            }
        return _numbers_first(made)

    def canvas_node(self, placed: Placed) -> CanvasNode:
        """Return what the canvas knows of a node."""
        titles: list[str] = []
        owner = placed.owner
        while owner is not None:
            titles.append(owner.part.node.title or str(owner.graph.name or ""))
            owner = owner.owner
        node = placed.part.node
        groups = tuple(
            group.title
            for group in placed.graph.groups
            if node.position is not None and _is_in(node.position, group.bounds)
        )
        return CanvasNode(
            _title(placed.part), node.position, node.properties, groups, tuple(reversed(titles))
        )

    def _apply_primitives(self, graph: UiGraph) -> None:
        """Write the values of primitive nodes into the widgets that they are linked to."""
        parts = self.workflow.parts.get(id(graph), {})
        primitives = [part for part in parts.values() if part.type == PRIMITIVE]
        targets = {
            slot.link: (part, slot.widget)
            for part in (parts.values() if primitives else ())
            for slot in part.slots
            if slot.link is not None and slot.widget is not None and slot.widget in part.values
        }
        for primitive in primitives:
            if "value" not in primitive.values:
                continue
            links = primitive.node.outputs[0].links if primitive.node.outputs else ()
            fed = [targets[key] for key in links if key in targets]
            schemas = [part.schema(name) for part, name in fed]
            value = shared([s for s in schemas if s is not None], primitive.values["value"])
            for (part, name), schema in zip(fed, schemas, strict=True):
                part.values[name] = stepped(schema, value) if schema else value

    def _inputs(self, node: Placed) -> dict[str, Any]:
        part = node.part
        inputs: dict[str, Any] = {}
        for name, value in part.values.items():
            taken = part.schema(name)
            if taken is not None and taken.dynamic_prompts and isinstance(value, str):
                value, was_choice = chosen_text(value)
                if was_choice:
                    message = "the canvas chooses a part of this text at random for each run"
                    hint = "the first choice is taken; write a text without {…|…}"
                    self._add(Finding("dynamic-prompt", "warning", message, node.id, name, hint))
            if name == "filename_prefix" and part.type in _SAVES and isinstance(value, str):
                value = _REPLACED.sub(self._replaced, value)
            inputs[name] = _as_input(value)
        for slot in part.slots:
            if slot.link is None:
                continue
            match self._resolved(node, slot):
                case Link() as link:
                    inputs[slot.name] = list(link)
                case _Value(value):
                    inputs[slot.name] = _as_input(value)
                case Finding() as fault:
                    self._add(fault)
        linked = {slot.name for slot in part.slots if slot.link is not None}
        for name in part.missing:
            if name not in linked:
                self._add(_missing(node, name))
        return inputs

    def _replaced(self, match: re.Match[str]) -> str:
        """Return the widget's value that a file name's prefix asks for: %Node.widget%.

        What asks for something else, such as the date of the run, stays as it is.
        """
        name, _, widget = match[1].partition(".")
        if self.named is None:
            self.named = {}
            on_canvas = [self.placed[node] for node in self.workflow.document.canvas.nodes]
            nodes = [*on_canvas, *(node for node in self.placed.values() if node.owner)]
            for node in nodes:
                self.named.setdefault(_alias(node.part), node.part)
            for node in nodes:
                self.named.setdefault(_title(node.part), node.part)
        part = self.named.get(name)
        if part is None or widget not in part.values:
            return match[0]
        return _NO_FILE_NAME.sub("_", str(as_text(part.values[widget])))

    def _add(self, finding: Finding) -> None:
        self.found.append(finding)

    def _resolved(self, node: Placed, slot: UiInput) -> Link | _Value | Finding | None:
        """Return what an input gets, None where nothing comes along its links.

        The way goes up out of subgraphs and down into them, through reroutes and bypassed nodes.
        """
        at: Placed = node
        name = slot.name
        wanted: str | None = None
        seen: set[tuple[str, str, int]] = set()
        while True:
            self.steps += 1
            if self.steps > _MOST_STEPS:
                message = "following all links takes too long: too many reroutes in a row"
                return Finding("too-large", "error", message, node.id, name)
            # From an input up its link …
            if slot.link is None:
                return None
            link = at.graph.links.get(slot.link)
            if link is None:
                message = f"link {slot.link} is not in the file"
                return _dangling(node, name, at, message)
            wanted = wanted or slot.type
            if link.origin == SUBGRAPH_INPUT and at.owner is not None:
                outer = at.owner
                if not 0 <= link.origin_slot < len(outer.part.slots):
                    message = f"the subgraph has no input {link.origin_slot}"
                    return _dangling(node, name, at, message)
                slot = outer.part.slots[link.origin_slot]
                if slot.link is None:
                    shown = outer.part.values
                    if slot.widget is not None and slot.widget in shown:
                        return _Value(shown[slot.widget])
                    return None
                at, wanted = outer, None
                continue
            origin = self.placed.get(at.path + link.origin)
            if origin is None:
                message = f"link {slot.link} comes from node {link.origin}, which is not there"
                return _dangling(node, name, at, message)
            # … to the output that it comes from, and through what only the canvas knows.
            number = link.origin_slot
            while origin.part.subgraph is not None and origin.part.node.mode != BYPASS:
                inner = self._inner(origin, number)
                if inner is None:
                    return None
                if isinstance(inner, Finding):
                    return inner
                origin, number = inner
            key = ("output", origin.id, number)
            if key in seen:
                message = "its link leads back to where it came from"
                return Finding("cycle", "error", message, node.id, name)
            seen.add(key)
            part = origin.part
            if part.node.mode == BYPASS:
                passed = _passed_slot(part, number, wanted)
                if passed is None:
                    return None
                at, slot, wanted = origin, part.slots[passed], None
            elif part.type in VIRTUAL:
                found = self._through(origin, number)
                if found is None:
                    return None
                at, slot = found
            else:
                return Link(origin.id, number)

    def _inner(self, outer: Placed, number: int) -> tuple[Placed, int] | Finding | None:
        """Return the node in a subgraph that feeds an output of it, and which of its outputs."""
        inner = outer.part.subgraph
        assert inner is not None
        if not 0 <= number < len(inner.outputs):
            message = f"its subgraph has no output {number}"
            return Finding("bad-output-index", "error", message, outer.id)
        links = [inner.links[key] for key in inner.outputs[number].links if key in inner.links]
        if not links:
            return None
        origin = self.placed.get(f"{outer.id}:{links[0].origin}")
        if origin is None:
            message = (
                f"output {number} of its subgraph comes from node {links[0].origin} in it, "
                "which is not there"
            )
            return Finding("dangling-link", "error", message, outer.id)
        return origin, links[0].origin_slot

    def _through(self, node: Placed, number: int) -> tuple[Placed, UiInput] | None:
        """Return the input that a node of the canvas passes on as an output."""
        if number < len(node.part.slots):
            return node, node.part.slots[number]
        if node.part.type in ("GetNode", "easy getNode"):
            setter = self._setters(node.graph).get(_first_value(node.part))
            if setter is not None and setter.slots:
                return self.placed[node.path + setter.node.id], setter.slots[0]
        return None

    def _setters(self, graph: UiGraph) -> Mapping[str, Part]:
        """Return the nodes of a graph that Get nodes get from, by the name that both have."""
        if id(graph) not in self.setters:
            found: dict[str, Part] = {}
            for part in self.workflow.parts[id(graph)].values():
                if part.type in ("SetNode", "easy setNode") and _first_value(part):
                    found.setdefault(_first_value(part), part)
            self.setters[id(graph)] = found
        return self.setters[id(graph)]


def _missing(node: Placed, name: str) -> Finding:
    """Say that a file has no value for a widget; the canvas takes its default.

    Several widgets without any value are no older version of a class: the file is damaged.
    """
    part = node.part
    if name not in part.values:
        message = "the file has no value for this input, and it has no default"
        return Finding("missing-input", "error", message, node.id, name)
    if not part.node.values and len(part.missing) > 1:
        message = f"the file has no values for the inputs of {part.type}"
        hint = "save it anew in ComfyUI"
        return Finding("missing-input", "error", message, node.id, name, hint)
    message = (
        f"the file has no value for this input; {show(part.values[name])}, its default, is taken"
    )
    return Finding("default-taken", "warning", message, node.id, name)


def _with_pack(finding: Finding, placed: Mapping[str, Placed]) -> Finding:
    """Return an unknown class with the pack that the file names for its node."""
    node = placed.get(finding.node or "")
    properties = node.part.node.properties if node else {}
    for key in ("cnr_id", "aux_id"):
        pack = properties.get(key)
        if isinstance(pack, str) and pack and pack != "comfy-core":
            return replace(finding, hint=f"the file says it is of pack {show(pack)}")
    return finding


def _dangling(node: Placed, name: str, at: Placed, message: str) -> Finding:
    where = "" if at is node else f" of node {show(at.id)}"
    return Finding(
        "dangling-link", "error", f"its link leads nowhere: {message}{where}", node.id, name
    )


def _passed_slot(part: Part, number: int, type: str) -> int | None:
    """Return the input that a bypassed node passes on as an output, None where none fits."""
    slots = part.slots
    if type in ("*", ""):
        if number < len(slots):
            return number
        return 0 if slots else None
    given = part.outputs[number] if 0 <= number < len(part.outputs) else "*"
    if number < len(slots) and _fits(slots[number].type, given) and _fits(slots[number].type, type):
        return number
    for place, slot in enumerate(slots):
        if slot.type == type:
            return place
    for place, slot in enumerate(slots):
        if _fits(slot.type, given) and _fits(slot.type, type):
            return place
    return None


def _fits(one: str, other: str) -> bool:
    """Say whether slots of two types can be linked."""
    if one in ("*", "") or other in ("*", "") or one == other:
        return True
    others = other.lower().split(",")
    return any(part in others or part in ("*", "") for part in one.lower().split(","))


def _numbers_first(graph: Graph) -> Graph:
    """Return a graph in the order of JavaScript's objects: numbers first, by size."""
    numbers = sorted((node for node in graph if _is_index(node)), key=int)
    return {node: graph[node] for node in (*numbers, *(n for n in graph if not _is_index(n)))}


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdigit() and (key == "0" or key[0] != "0") and len(key) < 10


def _title(part: Part) -> str:
    return part.node.title or part.type


def _alias(part: Part) -> str:
    """Return the name by which the prefixes of files' names know a node."""
    alias = part.node.properties.get("Node name for S&R")
    return alias if isinstance(alias, str) else "" if part.type in _SAVES else part.type


def _first_value(part: Part) -> str:
    values = part.node.values
    return values[0] if isinstance(values, list) and values and isinstance(values[0], str) else ""


def _as_input(value: Any) -> Any:
    """Return a widget's value as an input of a graph; a list would be taken for a link."""
    return {"__value__": value} if isinstance(value, list) else value


def _is_in(position: tuple[float, float], bounds: tuple[float, float, float, float]) -> bool:
    left, top, width, height = bounds
    return left <= position[0] <= left + width and top <= position[1] <= top + height
