"""Group nodes, which came before subgraphs, as subgraphs.

A file keeps the nodes of a group under `extra.groupNodes`, without ids, and links them by place.
What the group's node shows follows from the schemas of the nodes in it. Source: `GroupNodeConfig` in
extensions/core/groupNode.ts of ComfyUI's frontend 1.28.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from .catalog import ClassType, Input
from .check import Finding
from .ui_records import (
    SUBGRAPH_INPUT,
    SUBGRAPH_OUTPUT,
    UiGraph,
    UiInput,
    UiLink,
    UiNode,
    UiSlot,
    read_group,
)
from .widgets import is_widget, values_of

PREFIXES: Final = ("workflow>", "workflow/")
_SEEDS: Final = frozenset(("noise_seed", "seed"))

ClassOf = Callable[[UiNode], ClassType | None]


class _Wire(NamedTuple):
    """A link in a group, by places."""

    origin: int
    origin_slot: int
    target: int
    target_slot: int
    type: str


@dataclass(frozen=True, slots=True)
class Group:
    """A group node as a subgraph, and the values of its widgets by input."""

    graph: UiGraph
    values: Mapping[str, Any]


def group_name(type: str, groups: Mapping[str, Any]) -> str | None:
    """Return the name of the group that a node's type stands for, None when it is no group."""
    for prefix in PREFIXES:
        if type.startswith(prefix) and type.removeprefix(prefix) in groups:
            return type.removeprefix(prefix)
    return None


def group_size(content: object) -> int:
    """Return how many nodes and links a group has."""
    found = [content.get(key) for key in ("nodes", "links")] if isinstance(content, dict) else []
    return sum(len(part) for part in found if isinstance(part, list))


def open_group(
    node: UiNode, name: str, content: object, class_of: ClassOf
) -> tuple[Group, list[Finding]]:
    """Return a group node as a subgraph, and what is wrong with the group."""
    nodes, raw_links, found = read_group(content, name, node.id)
    wires = [
        _Wire(
            link[0],
            link[1],
            link[2],
            link[3],
            link[5] if len(link) > 5 and isinstance(link[5], str) else "*",
        )
        for link in raw_links
        if link[0] < len(nodes) and link[2] < len(nodes)
    ]
    config = content.get("config") if isinstance(content, dict) else None
    external = content.get("external") if isinstance(content, dict) else None
    builder = _Builder(
        name,
        nodes,
        wires,
        config if isinstance(config, dict) else {},
        {
            (entry[0], entry[1])
            for entry in (external if isinstance(external, list) else ())
            if isinstance(entry, list)
            and len(entry) > 1
            and not isinstance(entry[0], list | dict)
            and not isinstance(entry[1], list | dict)
        },
        class_of,
    )
    return builder.group(node), found


@dataclass(slots=True)
class _Builder:
    name: str
    nodes: list[UiNode]
    wires: list[_Wire]
    config: Mapping[str, Any]
    external: set[tuple[Any, Any]]
    class_of: ClassOf
    # What the group's node shows: the schema of each input, and what it feeds: node and input.
    shown: dict[str, Input] = field(default_factory=dict)
    feeds: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    outputs: list[tuple[int, int, str]] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    leaving: dict[int, list[_Wire]] = field(default_factory=dict)
    arriving: dict[int, list[_Wire]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for wire in self.wires:
            self.leaving.setdefault(wire.origin, []).append(wire)
            self.arriving.setdefault(wire.target, []).append(wire)

    def group(self, node: UiNode) -> Group:
        converted: list[tuple[int, str, Input]] = []
        for place, inner in enumerate(self.nodes):
            inputs, outputs = self._schema(place, inner)
            by_link = {slot.name for slot in inner.inputs if slot.widget == slot.name}
            linked = {name for name, _ in self._linked(place)}
            for name, taken in inputs.items():
                if not is_widget(taken):
                    if name not in linked:
                        self._show(place, name, taken)
                elif name in by_link:
                    if name not in linked:
                        converted.append((place, name, taken))
                else:
                    self._show(place, name, taken)
            self._show_outputs(place, outputs)
        for place, name, taken in converted:
            self._show(place, name, taken)
        as_class = ClassType(node.type, None, self.shown, ())
        values, _ = values_of(as_class, node)
        return Group(self._graph(), values)

    def _schema(self, place: int, inner: UiNode) -> tuple[Mapping[str, Input], list[str]]:
        """Return the inputs and the types of the outputs of a node of the group."""
        leaving = self.leaving.get(place, [])
        if inner.type == "PrimitiveNode":
            if not leaving:
                return {}, []
            kind = leaving[0].type
            control = kind in ("COMBO", "INT")
            return {"value": Input(kind, control_after_generate=control)}, [kind]
        if inner.type == "Reroute":
            arriving = self.arriving.get(place, [])
            if arriving and leaving and (place, 0) not in self.external:
                return {}, []
            kind = next((wire.type for wire in (*leaving, *arriving) if wire.type != "*"), "*")
            name = inner.inputs[0].name if inner.inputs else ""
            return {name: Input(kind, link_only=True)}, [kind]
        class_type = self.class_of(inner)
        if class_type is None:
            return {}, [output.type for output in inner.outputs]
        return class_type.inputs, [output.type for output in class_type.outputs]

    def _linked(self, place: int) -> list[tuple[str, _Wire]]:
        """Return the inputs of a node that are linked within the group."""
        slots = self.nodes[place].inputs
        return [
            (slots[wire.target_slot].name, wire)
            for wire in self.arriving.get(place, ())
            if 0 <= wire.target_slot < len(slots)
        ]

    def _show(self, place: int, input: str, taken: Input) -> None:
        inner = self.nodes[place]
        custom = self._custom(place, "input", input)
        labels = [slot.label for slot in inner.inputs if slot.name == input and slot.label]
        name = custom.get("name") or (labels[0] if labels else input)
        if inner.type == "Reroute":
            name = taken.type
        key = name
        if (inner.type == "PrimitiveNode" and inner.title) or name in self.seen:
            prefix = f"{inner.title or inner.type} "
            key = name = f"{prefix}{input}"
            if name in self.seen:
                name = f"{prefix}{self.seen[name]} {input}"
        self.seen[key] = self.seen.get(key, 1) + 1
        if input in _SEEDS:
            taken = replace(taken, control_after_generate=True)
        if not is_widget(taken) and custom.get("visible") is False:
            return
        self.shown[name] = taken
        self.feeds[name] = [(place, input)]
        if inner.type == "PrimitiveNode":
            self.feeds[name] = [
                (wire.target, self.nodes[wire.target].inputs[wire.target_slot].name)
                for wire in self.leaving.get(place, ())
                if 0 <= wire.target_slot < len(self.nodes[wire.target].inputs)
            ]

    def _show_outputs(self, place: int, outputs: list[str]) -> None:
        for number, kind in enumerate(outputs):
            has_link = any(wire.origin_slot == number for wire in self.leaving.get(place, ()))
            is_shown = not has_link or (place, number) in self.external
            visible = self._custom(place, "output", str(number)).get("visible")
            if visible if isinstance(visible, bool) else is_shown:
                self.outputs.append((place, number, kind))

    def _custom(self, place: int, kind: str, key: str) -> Mapping[str, Any]:
        """Return what the file's user has set for an input or output of the group."""
        found: Any = self.config
        for part in (str(place), kind, key):
            found = found.get(part) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def _graph(self) -> UiGraph:
        links: dict[str, UiLink] = {}
        arriving: list[dict[str, str]] = [{} for _ in self.nodes]
        for place in range(len(self.nodes)):
            for name, wire in self._linked(place):
                if self.nodes[wire.origin].type == "PrimitiveNode":
                    continue  # its value comes by the group's own widget
                key = f"inner {len(links)}"
                links[key] = UiLink(
                    str(wire.origin), wire.origin_slot, str(place), wire.target_slot
                )
                arriving[place][name] = key
        inputs: list[UiSlot] = []
        for number, (name, taken) in enumerate(self.shown.items()):
            keys: list[str] = []
            for place, fed in self.feeds[name]:
                key = f"input {number} {len(keys)}"
                links[key] = UiLink(SUBGRAPH_INPUT, number, str(place), 0)
                arriving[place][fed] = key
                keys.append(key)
            inputs.append(UiSlot(name, taken.type, tuple(keys)))
        outputs: list[UiSlot] = []
        for number, (place, slot, kind) in enumerate(self.outputs):
            key = f"output {number}"
            links[key] = UiLink(str(place), slot, SUBGRAPH_OUTPUT, number)
            outputs.append(UiSlot(kind, kind, (key,)))
        nodes = {
            str(place): replace(inner, inputs=_with_links(inner, arriving[place]))
            for place, inner in enumerate(self.nodes)
        }
        return UiGraph(self.name, nodes, links, (), tuple(inputs), tuple(outputs))


def _with_links(inner: UiNode, arriving: Mapping[str, str]) -> tuple[UiInput, ...]:
    """Return a node's inputs with the links that they have in the group."""
    found = {slot.name: replace(slot, link=None) for slot in inner.inputs}
    for name, key in arriving.items():
        found[name] = replace(found.get(name, UiInput(name, "*")), link=key)
    return tuple(found.values())
