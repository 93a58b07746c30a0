"""The nodes of a workflow in UI format as they run: subgraphs opened, each node under its own id.

A node in a subgraph has the id of the node that stands for the subgraph before its own: "57:8".
Source: `SubgraphNode` and `ExecutableNodeDTO` of ComfyUI's frontend 1.28.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .catalog import Catalog, ClassType, Input
from .check import Finding
from .group_nodes import Group, group_name, group_size, open_group
from .ui_records import UiDocument, UiGraph, UiInput, UiNode
from .widgets import COMPANIONS, inputs_shown, values_of
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

    `slots` are its inputs in the canvas's order, `values` those of its widgets; for the widgets in
    `missing` the file has none, so that they have their defaults, if any. A subgraph's node
    has the widgets of inner nodes that it shows, under the names of its own inputs.
    """

    node: UiNode
    type: str
    slots: list[UiInput]
    outputs: list[str]
    values: dict[str, Any]
    class_type: ClassType | None = None
    subgraph: UiGraph | None = None
    missing: tuple[str, ...] = ()

    @property
    def is_virtual(self) -> bool:
        """Whether it is not run itself."""
        return self.subgraph is not None or self.type in VIRTUAL

    def schema(self, name: str) -> Input | None:
        """Return what the class says of an input, None where it says nothing."""
        return self.class_type.inputs.get(name) if self.class_type else None


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
    groups: dict[int, Group] = field(default_factory=dict)

    def load(self) -> dict[str, Placed]:
        """Return all nodes by id, in the order of the frontend's export: those of the canvas by
        their links, those in subgraphs as they stand there.

        Empty where subgraphs hold themselves, nest too deep, or hold too many nodes.
        """
        order = self._inner_first() if self._open_groups() else None
        if order is None or not self._is_bounded(order):
            return {}
        for graph in (*order, self.document.canvas):
            self.parts[id(graph)] = {node.id: self._part(node) for node in graph.nodes.values()}
        found: dict[str, Placed] = {}
        for placed in self._placed():
            if placed.id in found:
                message = "two nodes get this id, one of them in a subgraph"
                self.found.append(Finding("bad-graph", "error", message, placed.id))
            found[placed.id] = placed
        return found

    def _open_groups(self) -> bool:
        """Make subgraphs of the group nodes, each its own, for each has its own values.

        Returns False when they hold too many nodes.
        """
        named = self.document.group_nodes
        count = 0
        for graph in (self.document.canvas, *self.document.subgraphs.values()):
            for node in graph.nodes.values():
                name = group_name(node.type, named)
                if name is None:
                    continue
                count += group_size(named[name])
                if count > MOST_NODES:
                    message = f"group nodes hold over {MOST_NODES} nodes and links"
                    self.found.append(Finding("too-large", "error", message, node.id))
                    return False
                group, faults = open_group(node, name, named[name], self._class_of)
                self.groups[id(node)] = group
                self.found += faults
        return True

    def _subgraph(self, node: UiNode) -> UiGraph | None:
        group = self.groups.get(id(node))
        return group.graph if group else self.document.subgraphs.get(node.type)

    def _inner_first(self) -> list[UiGraph] | None:
        """Return the subgraphs in use, those that others hold first; None where one holds itself."""
        done: dict[int, UiGraph] = {}
        held: list[int] = []
        work: list[tuple[UiGraph | None, Iterator[UiNode]]] = [
            (None, iter(self.document.canvas.nodes.values()))
        ]
        while work:
            graph, rest = work[-1]
            for node in rest:
                inner = self._subgraph(node)
                if inner is None or id(inner) in done:
                    continue
                if id(inner) in held:
                    message = f"subgraph {show(inner.name)} holds itself"
                    self.found.append(Finding("cycle", "error", message, node.id))
                    return None
                if len(held) >= _DEEPEST:
                    message = f"subgraphs nest more than {_DEEPEST} deep"
                    self.found.append(Finding("too-large", "error", message, node.id))
                    return None
                held.append(id(inner))
                work.append((inner, iter(inner.nodes.values())))
                break
            else:
                work.pop()
                if graph is not None:
                    done[held.pop()] = graph
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
        class_type = self._class_of(node)
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
        values, missing = values_of(class_type, node)
        return Part(node, name, slots, outputs, values, class_type, missing=tuple(missing))

    def _class_of(self, node: UiNode) -> ClassType | None:
        """Return a node's class; of several packs' the one that has the inputs of the node."""
        name = _RENAMED.get(node.type, node.type)
        found = [] if name in VIRTUAL else self.catalog.get(name, self.catalog.packs)
        names = {slot.name for slot in node.inputs}
        return min(found, key=lambda c: len(names - c.inputs.keys()), default=None)

    def _subgraph_part(self, node: UiNode, inner: UiGraph) -> Part:
        group = self.groups.get(id(node))
        given = {slot.name: slot for slot in node.inputs}
        slots = []
        shown: dict[str, Any] = {}
        for slot in inner.inputs:
            link = given[slot.name].link if slot.name in given else None
            has_widget = False
            if group and slot.name in group.values:
                has_widget = True
            elif slot.name not in shown:
                for value in self._shown_values(inner, slot.links):
                    shown[slot.name], has_widget = value, True
                    break
            slots.append(UiInput(slot.name, slot.type, link, slot.name if has_widget else None))
        known = {slot.name for slot in slots}
        slots += [slot for slot in node.inputs if slot.name not in known]
        outputs = [slot.type for slot in inner.outputs]
        values = dict(group.values) if group else _subgraph_values(node, shown)
        return Part(node, node.type, slots, outputs, values, subgraph=inner)

    def _shown_values(self, inner: UiGraph, links: tuple[str, ...]) -> Iterator[Any]:
        """Yield the values of the widgets that an input of a subgraph is linked to.

        A widget that the class does not have counts too: the file has a value for it.
        """
        for key in links:
            link = inner.links.get(key)
            part = self.parts[id(inner)].get(link.target) if link else None
            if part is None:
                continue
            slots = part.slots if part.subgraph else (*part.slots, *part.node.inputs)
            for slot in slots:
                if slot.link == key and slot.widget is not None:
                    if part.subgraph is None or slot.widget in part.values:
                        yield part.values.get(slot.widget)
                    break

    def _placed(self) -> Iterator[Placed]:
        canvas = self.document.canvas
        for node in _execution_order(canvas):
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


def _execution_order(graph: UiGraph) -> list[str]:
    """Return the nodes of a graph so that each comes after those that it needs, cycles last."""
    missing = {
        node.id: sum(slot.link is not None for slot in node.inputs) for node in graph.nodes.values()
    }
    order = [node for node, count in missing.items() if not count]
    visited: set[str] = set()
    for node in order:
        for output in graph.nodes[node].outputs:
            for key in output.links:
                link = graph.links.get(key)
                if link is None or key in visited:
                    continue
                visited.add(key)
                if link.target in missing:
                    missing[link.target] -= 1
                    if not missing[link.target]:
                        order.append(link.target)
    done = set(order)
    return order + [node for node in graph.nodes if node not in done]


def _named_values(node: UiNode) -> dict[str, Any]:
    """Return the values of a node without a schema, as far as the file names its widgets."""
    if node.type == PRIMITIVE:
        return {"value": node.values[0]} if isinstance(node.values, list) and node.values else {}
    if isinstance(node.values, dict):
        return dict(node.values)
    if node.named:
        return {name: value for name, value in node.named.items() if name not in COMPANIONS}
    values = node.values or []
    names = [slot.widget for slot in node.inputs if slot.widget is not None]
    return dict(zip(names, values, strict=True)) if len(names) == len(values) else {}


def _subgraph_values(node: UiNode, shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the widgets that a subgraph's node shows of inner nodes.

    `proxyWidgets` lists all widgets as [inner node, widget]; those of node -1 are its own inputs',
    whose values it holds. The values of others are those of the inner nodes, also where an input
    has the name of one.
    """
    values = dict(shown)
    given = node.values if isinstance(node.values, list) else []
    values.update(zip(shown, given, strict=False))
    listed = node.properties.get("proxyWidgets")
    entries = [
        (entry[0], entry[1])
        for entry in (listed if isinstance(listed, list) else ())
        if isinstance(entry, list) and len(entry) > 1 and isinstance(entry[1], str)
    ]
    own = {name for key, name in entries if key == "-1"}
    for (key, name), value in zip(entries, given, strict=False):
        if key == "-1" and name in values and value is not None:
            values[name] = value
    others = {name for key, name in entries if key != "-1"} - own
    return {name: value for name, value in values.items() if name not in others}
