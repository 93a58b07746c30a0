"""The nodes of a workflow in UI format as they run: subgraphs opened, each node under its own id.

A node in a subgraph has the id of the node that stands for the subgraph before its own: "57:8".
Source: `SubgraphNode` and `ExecutableNodeDTO` of ComfyUI's frontend 1.28.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .catalog import Catalog, ClassType
from .check import Finding
from .ui_records import (
    SUBGRAPH_INPUT,
    UiDocument,
    UiGraph,
    UiInput,
    UiNode,
)
from .widgets import inputs_shown, values_of
from .words import show

# A subgraph can hold others many times over: few bytes may stand for more nodes than atoms.
MOST_NODES: Final = 20_000
_DEEPEST: Final = 100

PRIMITIVE: Final = "PrimitiveNode"
# Nodes that only the canvas knows. What is linked to an output of theirs gets what the input of
# the same number gets, if they have one.
VIRTUAL: Final = frozenset(
    (
        PRIMITIVE,
        "MarkdownNote",
        "Note",
        "Reroute",
        # of ComfyUI-KJNodes, ComfyUI-Easy-Use and rgthree-comfy
        "GetNode",
        "SetNode",
        "easy getNode",
        "easy setNode",
        "Bookmark (rgthree)",
        "Fast Actions Button (rgthree)",
        "Fast Bypasser (rgthree)",
        "Fast Groups Bypasser (rgthree)",
        "Fast Groups Muter (rgthree)",
        "Fast Muter (rgthree)",
        "Label (rgthree)",
        "Mute / Bypass Relay (rgthree)",
        "Mute / Bypass Repeater (rgthree)",
        "Node Collector (rgthree)",
        "Random Unmuter (rgthree)",
        "Reroute (rgthree)",
    )
)
# Misspelt in old files, and classes that became one; the frontend corrects them when it loads.
_RENAMED: Final = {
    "ConditioningAverage ": "ConditioningAverage",
    "SDV_img2vid_Conditioning": "SVD_img2vid_Conditioning",
    "T2IAdapterLoader": "ControlNetLoader",
}


@dataclass(slots=True)
class Part:
    """A node of the canvas or of a subgraph, as the canvas holds it once it is loaded.

    `slots` are its inputs in the canvas's order, `values` those of its widgets. A subgraph's node
    has the widgets of inner nodes that it shows, under the names of its own inputs.
    """

    node: UiNode
    type: str
    slots: list[UiInput]
    outputs: list[str]
    values: dict[str, Any]
    class_type: ClassType | None = None
    subgraph: UiGraph | None = None

    @property
    def is_virtual(self) -> bool:
        """Whether it is not run itself."""
        return self.subgraph is not None or self.type in VIRTUAL


@dataclass(frozen=True, slots=True)
class Placed:
    """A node of the workflow under its id; `owner` is the subgraph's node that it is in."""

    id: str
    part: Part
    graph: UiGraph
    path: str
    owner: "Placed | None"


@dataclass(slots=True)
class Workflow:
    """A workflow that is being converted."""

    document: UiDocument
    catalog: Catalog
    found: list[Finding] = field(default_factory=list)
    parts: dict[int, dict[str, Part]] = field(default_factory=dict)

    def load(self) -> dict[str, Placed]:
        """Return all nodes by id, in the order in which the frontend numbers them.

        Empty where subgraphs hold themselves, nest too deep, or hold too many nodes.
        """
        order = self._inner_first()
        if order is None or not self._is_bounded(order):
            return {}
        for graph in (*order, self.document.canvas):
            self.parts[id(graph)] = {node.id: self._part(node) for node in graph.nodes.values()}
        return {placed.id: placed for placed in self._placed()}

    def _subgraph(self, node: UiNode) -> UiGraph | None:
        return self.document.subgraphs.get(node.type)

    def _inner_first(self) -> list[UiGraph] | None:
        """Return the subgraphs in use, those that others hold first; None where one holds itself."""
        done: dict[str, UiGraph] = {}
        open_keys: list[str] = []
        work: list[tuple[str | None, Iterator[UiNode]]] = [
            (None, iter(self.document.canvas.nodes.values()))
        ]
        while work:
            key, rest = work[-1]
            for node in rest:
                inner = self._subgraph(node)
                if inner is None or node.type in done:
                    continue
                if node.type in open_keys:
                    message = f"subgraph {show(inner.name)} holds itself"
                    self.found.append(Finding("cycle", "error", message, node.id))
                    return None
                if len(open_keys) >= _DEEPEST:
                    message = f"subgraphs nest more than {_DEEPEST} deep"
                    self.found.append(Finding("too-large", "error", message, node.id))
                    return None
                open_keys.append(node.type)
                work.append((node.type, iter(inner.nodes.values())))
                break
            else:
                work.pop()
                if key is not None:
                    open_keys.pop()
                    done[key] = self.document.subgraphs[key]
        return list(done.values())

    def _is_bounded(self, order: list[UiGraph]) -> bool:
        counts: dict[int, int] = {}
        for graph in (*order, self.document.canvas):
            inner = [self._subgraph(node) for node in graph.nodes.values()]
            counts[id(graph)] = len(inner) + sum(counts[id(g)] for g in inner if g is not None)
            if counts[id(graph)] > MOST_NODES:
                what = "the workflow" if graph.name is None else f"subgraph {show(graph.name)}"
                message = f"{what} holds {counts[id(graph)]} nodes; at most {MOST_NODES} are read"
                self.found.append(Finding("too-large", "error", message))
                return False
        return True

    def _part(self, node: UiNode) -> Part:
        inner = self._subgraph(node)
        if inner is not None:
            return self._subgraph_part(node, inner)
        name = _RENAMED.get(node.type, node.type)
        outputs = [output.type for output in node.outputs]
        class_type = None if name in VIRTUAL else self._class_type(name, node)
        if class_type is None:
            return Part(node, name, list(node.inputs), outputs, _named_values(node))
        given = {slot.name: slot for slot in node.inputs}
        slots = [
            UiInput(
                key,
                taken.type,
                given[key].link if key in given else None,
                key if has_widget else None,
            )
            for key, taken, has_widget in inputs_shown(class_type)
        ]
        known = {slot.name for slot in slots}
        # What a class's own script adds; a widget that is gone takes its input along.
        slots += [slot for slot in node.inputs if slot.name not in known and slot.widget is None]
        declared = [output.type for output in class_type.outputs]
        outputs = declared + outputs[len(declared) :]
        return Part(node, name, slots, outputs, values_of(class_type, node), class_type)

    def _class_type(self, type: str, node: UiNode) -> ClassType | None:
        """Return a node's class; of several packs' the one that has the inputs of the node."""
        found = self.catalog.get(type, self.catalog.packs)
        names = {slot.name for slot in node.inputs}
        return min(found, key=lambda c: len(names - c.inputs.keys()), default=None)

    def _subgraph_part(self, node: UiNode, inner: UiGraph) -> Part:
        given = {slot.name: slot for slot in node.inputs}
        slots = []
        shown: dict[str, Any] = {}
        for slot in inner.inputs:
            link = given[slot.name].link if slot.name in given else None
            has_widget = False
            if slot.name not in shown:
                for value in self._shown_values(inner, slot.links):
                    shown[slot.name], has_widget = value, True
                    break
            slots.append(UiInput(slot.name, slot.type, link, slot.name if has_widget else None))
        known = {slot.name for slot in slots}
        slots += [slot for slot in node.inputs if slot.name not in known]
        outputs = [slot.type for slot in inner.outputs]
        values = _subgraph_values(node, shown)
        return Part(node, node.type, slots, outputs, values, subgraph=inner)

    def _shown_values(self, inner: UiGraph, links: tuple[str, ...]) -> Iterator[Any]:
        """Yield the values of the widgets that an input of a subgraph is linked to."""
        for key in links:
            link = inner.links.get(key)
            part = self.parts[id(inner)].get(link.target) if link else None
            if link is None or part is None or not 0 <= link.target_slot < len(part.slots):
                continue
            widget = part.slots[link.target_slot].widget
            if widget is not None:
                yield part.values.get(widget)

    def _placed(self) -> Iterator[Placed]:
        canvas = self.document.canvas
        for node in canvas.nodes:
            yield from self._opened(Placed(node, self.parts[id(canvas)][node], canvas, "", None))

    def _opened(self, placed: Placed) -> Iterator[Placed]:
        """Yield a node, and those in it."""
        pending = [placed]
        while pending:
            outer = pending.pop()
            yield outer
            inner = outer.part.subgraph
            if inner is not None:
                path = f"{outer.id}:"
                pending += reversed(
                    [
                        Placed(path + key, part, inner, path, outer)
                        for key, part in self.parts[id(inner)].items()
                    ]
                )


def _named_values(node: UiNode) -> dict[str, Any]:
    """Return the values of a node without a schema, as far as its inputs name its widgets."""
    if isinstance(node.values, dict):
        return dict(node.values)
    if node.type == PRIMITIVE or node.values is None:
        return {"value": node.values[0]} if node.values else {}
    names = [slot.widget for slot in node.inputs if slot.widget is not None]
    return dict(zip(names, node.values, strict=True)) if len(names) == len(node.values) else {}


def _subgraph_values(node: UiNode, shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the widgets that a subgraph's node shows of inner nodes.

    `proxyWidgets` lists all widgets as [inner node, widget]; those of node -1 are its own inputs',
    whose values it holds. The values of others are those of the inner nodes.
    """
    values = dict(shown)
    given = node.values if isinstance(node.values, list) else []
    values.update(zip(shown, given, strict=False))
    listed = node.properties.get("proxyWidgets")
    for entry, value in zip(listed if isinstance(listed, list) else (), given, strict=False):
        match entry:
            case ["-1", str(name)] if name in values and value is not None:
                values[name] = value
    return values


__all__ = ["MOST_NODES", "PRIMITIVE", "SUBGRAPH_INPUT", "VIRTUAL", "Part", "Placed", "Workflow"]
