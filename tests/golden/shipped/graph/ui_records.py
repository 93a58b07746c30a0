"""A workflow as ComfyUI's canvas saves it (UI format), read into records.

Source: the schemas of ComfyUI's frontend for versions 0.4 and 1 of the format. Nothing in a file
is taken on trust: what has another type than the format says becomes a finding, and reading goes on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .check import Finding
from .words import show

NEVER: Final = 2  # muted
BYPASS: Final = 4

# The ends of a subgraph's own inputs and outputs, as links name them.
SUBGRAPH_INPUT: Final = "-10"
SUBGRAPH_OUTPUT: Final = "-20"

_LATEST_VERSION: Final = 1
# More than any class has; what is done with a node takes its time for each.
_MOST_SLOTS: Final = 1000
_MOST_GROUPS: Final = 200
_LARGEST_ID: Final = 2**63


@dataclass(frozen=True, slots=True)
class UiLink:
    """A link between two nodes of one graph."""

    origin: str
    origin_slot: int
    target: str
    target_slot: int


@dataclass(frozen=True, slots=True)
class UiInput:
    """An input of a node; `widget` names the widget whose value a link replaces."""

    name: str
    type: str
    link: str | None = None
    widget: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class UiOutput:
    """An output of a node, with the ids of the links that leave it."""

    name: str
    type: str
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UiNode:
    """A node; `values` are its widgets' values by place or by name.

    `named` are the same by name: newer files have both, and ComfyUI 0.3.71 reads those by place.
    """

    id: str
    type: str
    title: str | None
    mode: int
    inputs: tuple[UiInput, ...]
    outputs: tuple[UiOutput, ...]
    values: list[Any] | dict[str, Any] | None
    properties: Mapping[str, Any]
    position: tuple[float, float] | None
    named: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UiSlot:
    """An input or output of a subgraph, with the ids of the links at its inner side."""

    name: str
    type: str
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UiGroup:
    """A titled frame: left, top, width, height."""

    title: str
    bounds: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class UiGraph:
    """The canvas or a subgraph: nodes in the file's order, links by id."""

    name: str | None
    nodes: Mapping[str, UiNode]
    links: Mapping[str, UiLink]
    groups: tuple[UiGroup, ...] = ()
    inputs: tuple[UiSlot, ...] = ()
    outputs: tuple[UiSlot, ...] = ()


@dataclass(frozen=True, slots=True)
class UiDocument:
    """A file: the canvas, the subgraphs by id, and the older group nodes by name, unread."""

    canvas: UiGraph
    subgraphs: Mapping[str, UiGraph] = field(default_factory=dict)
    group_nodes: Mapping[str, Any] = field(default_factory=dict)


def is_ui(document: object) -> bool:
    """Say whether a JSON document is a workflow in UI format."""
    return isinstance(document, dict) and isinstance(document.get("nodes"), list)


def read_document(document: Mapping[str, Any]) -> tuple[UiDocument, list[Finding]]:
    """Return a workflow in UI format as records, and what is wrong with it."""
    reader = _Reader([])
    version = document.get("version")
    if isinstance(version, int | float) and version > _LATEST_VERSION:
        reader.fault(
            f"this is version {show(version)} of the UI format; 0.4 and 1 are known",
            hint="export it with Workflow > Export (API)",
            code="other-format",
        )
    canvas = reader.graph(document, None)
    subgraphs: dict[str, UiGraph] = {}
    for content in _definitions(document):
        key = _id(content.get("id"))
        if key is None:
            reader.fault("a subgraph has no id")
        elif key not in subgraphs:
            subgraphs[key] = reader.graph(content, str(content.get("name") or key))
    extra = document.get("extra")
    groups = extra.get("groupNodes") if isinstance(extra, dict) else None
    return UiDocument(canvas, subgraphs, groups if isinstance(groups, dict) else {}), reader.found


def read_group(
    content: object, name: str, node: str
) -> tuple[list[UiNode], list[list[Any]], list[Finding]]:
    """Return the nodes of a group node by place, its links, and what is wrong with them.

    Each link has the places of two nodes and of their slots: origin, slot, target, slot.
    """
    reader = _Reader([], name)
    nodes: list[UiNode] = []
    links: list[list[Any]] = []
    if not isinstance(content, dict):
        reader.fault(f"the group is {show(content)}, not a mapping", node)
        return nodes, links, reader.found
    for place, raw in enumerate(reader.list_of(content, "nodes", node)):
        read = reader.node({**raw, "id": place} if isinstance(raw, dict) else raw)
        if read is not None:
            nodes.append(read)
    for raw in reader.list_of(content, "links", node):
        parts = [_index(part) for part in raw[:4]] if isinstance(raw, list) else []
        if (
            len(parts) == 4
            and None not in parts
            and min(map(int, filter(None, parts)), default=0) >= 0
        ):
            links.append([*parts, *raw[4:]])
        elif not (isinstance(raw, list) and raw and raw[0] is None):
            reader.fault(f"a link of the group is {show(raw)}: it names no two ends", node)
    return nodes, links, reader.found


def _definitions(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the definitions of subgraphs, those that stand in others too."""
    pending: list[Any] = [document]
    while pending:
        definitions = pending.pop(0).get("definitions")
        found = definitions.get("subgraphs") if isinstance(definitions, dict) else None
        for content in found if isinstance(found, list) else ():
            if isinstance(content, dict):
                pending.append(content)
                yield content


@dataclass(slots=True)
class _Reader:
    found: list[Finding]
    graph_name: str | None = None

    def fault(
        self,
        message: str,
        node: str | None = None,
        input: str | None = None,
        hint: str | None = None,
        code: str = "bad-graph",
    ) -> None:
        if self.graph_name is not None:
            message = f"in subgraph {show(self.graph_name)}: {message}"
        self.found.append(Finding(code, "error", message, node, input, hint))

    def graph(self, content: Mapping[str, Any], name: str | None) -> UiGraph:
        self.graph_name = name
        nodes: dict[str, UiNode] = {}
        for raw in self.list_of(content, "nodes"):
            node = self.node(raw)
            if node is None:
                continue
            if node.id in nodes:
                self.fault("two nodes have this id", node.id)
            nodes[node.id] = node
        graph = UiGraph(
            name,
            nodes,
            dict(self._links(content.get("links"))),
            tuple(self._groups(content.get("groups"))),
            tuple(self._slot(raw) for raw in self.list_of(content, "inputs") if name is not None),
            tuple(self._slot(raw) for raw in self.list_of(content, "outputs") if name is not None),
        )
        self.graph_name = None
        return graph

    def list_of(self, content: Mapping[str, Any], key: str, node: str | None = None) -> list[Any]:
        """Return a list of the file, empty where there is none."""
        value = content.get(key)
        if value is None:
            return []
        if isinstance(value, list):
            return value
        self.fault(f"{key} is no list", node)
        return []

    def node(self, raw: Any) -> UiNode | None:
        """Return a node, None where it is none."""
        if not isinstance(raw, dict):
            self.fault(f"a node is a mapping, not {show(raw)}")
            return None
        key = _id(raw.get("id"))
        if key is None:
            self.fault(f"a node has the id {show(raw.get('id'))}; ids are numbers or texts")
            return None
        if not isinstance(raw.get("type"), str):
            self.fault("this node has no type", key)
            return None
        title, mode, properties = raw.get("title"), raw.get("mode", 0), raw.get("properties")
        if mode is not None and (not isinstance(mode, int) or isinstance(mode, bool)):
            self.fault(f"its mode is {show(mode)}, not a number", key)
            mode = 0
        values = raw.get("widgets_values")
        if values is not None and not isinstance(values, list | dict):
            self.fault(f"its widgets_values are {show(values)}, not a list or mapping", key)
            values = None
        for part in ("inputs", "outputs"):
            if len(self.list_of(raw, part)) > _MOST_SLOTS:
                self.fault(f"it has more than {_MOST_SLOTS} {part}", key, code="too-large")
                return None
        return UiNode(
            key,
            raw["type"],
            title if isinstance(title, str) and title else None,
            mode or 0,
            tuple(
                found
                for slot in self.list_of(raw, "inputs", key)
                if (found := self._input(slot, key)) is not None
            ),
            tuple(self._output(slot, key) for slot in self.list_of(raw, "outputs", key)),
            values,
            properties if isinstance(properties, dict) else {},
            _point(raw.get("pos")),
            named if isinstance(named := raw.get("widgets_values_named"), dict) else {},
        )

    def _input(self, raw: Any, node: str) -> UiInput | None:
        if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
            self.fault(f"an input is {show(raw)}: it has no name", node)
            return None
        name = raw["name"]
        link = _id(raw.get("link"))
        if link is None and raw.get("link") is not None:
            self.fault(f"its link is {show(raw['link'])}; ids are numbers or texts", node, name)
        widget = raw.get("widget")
        named = widget.get("name") if isinstance(widget, dict) else None
        label = raw.get("label")
        return UiInput(
            name,
            _type(raw.get("type")),
            link,
            named if isinstance(named, str) else None,
            label if isinstance(label, str) else None,
        )

    def _output(self, raw: Any, node: str) -> UiOutput:
        if not isinstance(raw, dict):
            self.fault(f"an output is {show(raw)}, not a mapping", node)
            return UiOutput("", "*")
        links = [_id(link) for link in self.list_of(raw, "links", node)]
        return UiOutput(
            str(raw.get("name", "")),
            _type(raw.get("type")),
            tuple(link for link in links if link is not None),
        )

    def _slot(self, raw: Any) -> UiSlot:
        if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
            self.fault(f"an input or output of it is {show(raw)}: it has no name")
            return UiSlot("", "*", ())
        links = [_id(link) for link in self.list_of(raw, "linkIds")]
        return UiSlot(
            raw["name"],
            _type(raw.get("type")),
            tuple(link for link in links if link is not None),
        )

    def _links(self, raw: Any) -> Iterator[tuple[str, UiLink]]:
        found = list(raw.values()) if isinstance(raw, dict) else raw
        if found is None:
            return
        if not isinstance(found, list):
            self.fault("links is no list")
            return
        for content in found:
            if content is None:
                continue
            if isinstance(content, dict):
                keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
                parts = [content.get(key) for key in keys]
            else:
                parts = content[:5] if isinstance(content, list) else []
            match parts:
                case [key, origin, origin_slot, target, target_slot]:
                    ids = [_id(part) for part in (key, origin, target)]
                    slots = [_index(part) for part in (origin_slot, target_slot)]
                    if None not in ids and None not in slots:
                        yield (
                            str(ids[0]),
                            UiLink(str(ids[1]), slots[0] or 0, str(ids[2]), slots[1] or 0),
                        )
                        continue
            self.fault(f"a link is {show(content)}: it names no two ends")

    def _groups(self, raw: Any) -> Iterator[UiGroup]:
        for content in raw[:_MOST_GROUPS] if isinstance(raw, list) else ():
            bounds = content.get("bounding") if isinstance(content, dict) else None
            if isinstance(bounds, list) and len(bounds) == 4 and all(map(_is_number, bounds)):
                left, top, width, height = map(float, bounds)
                title = content.get("title")
                yield UiGroup(title if isinstance(title, str) else "", (left, top, width, height))


def _id(value: Any) -> str | None:
    """Return the id of a node, link or subgraph as a text, as keys of JSON have it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST_ID:
        return str(int(value))
    return None


def _index(value: Any) -> int | None:
    """Return the number of a slot, None where it is none."""
    text = _id(value)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def _type(value: Any) -> str:
    """Return the type of a slot; numbers stand for triggers, lists for the options of a choice."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "COMBO"
    return "*" if value is None or value == 0 else str(value)


def _point(value: Any) -> tuple[float, float] | None:
    """Return a position; older files have it as a mapping."""
    if isinstance(value, dict):
        value = [value.get("0"), value.get("1")]
    if isinstance(value, list) and len(value) >= 2 and all(map(_is_number, value[:2])):
        return float(value[0]), float(value[1])
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < _LARGEST_ID
