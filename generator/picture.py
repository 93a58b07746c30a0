"""A workflow as a picture: its graph in SVG, laid out from left to right.

Graphviz places the nodes and leads the links; what that looks like is written here. Pages that show
the picture find nodes by `data-node`, and links by `data-from` and `data-to`. All of the look is in
one `<style>`, which a page can leave out for a style of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape, quoteattr

import pygraphviz

from .graph.catalog import ClassType
from .graph.records import Link
from .graph.words import printable
from .spec import GraphNode, Workflow

# Points, as Graphviz has them, are pixels here; sizes it has in inches.
_INCH: Final = 72
_MARGIN: Final = 12
_LINE: Final = 17
_PADDING: Final = 12
_NARROWEST: Final = 96
# What a character takes on average, in the title's size and in the small one.
_TITLE_CHARACTER: Final = 8.6
_SMALL_CHARACTER: Final = 6.6
_LONGEST: Final = 34

# By the type that a link carries; others are grey.
_COLORS: Final = {
    "MODEL": "#8a7bf0",
    "CLIP": "#c99a06",
    "CONDITIONING": "#e8863a",
    "LATENT": "#d162c0",
    "VAE": "#dd5a62",
    "IMAGE": "#3d97e6",
    "VIDEO": "#2aa39a",
    "AUDIO": "#5aa845",
}
_OTHER_COLOR: Final = "#8b919c"

_STYLE: Final = """\
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #1d2026 }
.box { fill: #ffffff; stroke: #c9cdd4 }
.output { stroke: #646b77; stroke-width: 1.6 }
.name { font-size: 13px; font-weight: 600 }
.about { font-size: 11px; fill: #646b77 }
.params { font-size: 11px; fill: #3457d5 }
.link { stroke-width: 1.6 }
@media (prefers-color-scheme: dark) {
  text { fill: #e9ebef }
  .box { fill: #20242b; stroke: #454b56 }
  .output { stroke: #9aa2af }
  .about { fill: #9aa2af }
  .params { fill: #9db2ff }
}
"""


@dataclass(frozen=True, slots=True)
class _Box:
    """A node as it is drawn; the lines of text are its name, what it is, and its params."""

    node: GraphNode
    name: str
    about: str
    params: str
    is_output: bool

    @property
    def width(self) -> int:
        small = max(len(self.about), len(self.params))
        widest = max(len(self.name) * _TITLE_CHARACTER, small * _SMALL_CHARACTER)
        return max(_NARROWEST, round(widest) + 2 * _PADDING)

    @property
    def height(self) -> int:
        return 2 * _PADDING + _LINE * (3 if self.params else 2) - 6


def as_svg(workflow: Workflow, classes: Mapping[str, ClassType] | None = None) -> str:
    """Return the graph of a workflow as the text of an SVG file; the same graph, the same bytes.

    Nodes say which params feed them. A node that an `output` names has a frame of its own. Links
    are coloured by what they carry, where `classes` has the class of the node that they come from.
    """
    boxes = [_box(node, workflow) for node in workflow.graph.values()]
    pairs = _links(workflow.graph, classes or {})
    # Graphviz knows nodes by their number, so that no id means anything to it.
    numbers = {box.node.id: str(number) for number, box in enumerate(boxes)}
    graph = pygraphviz.AGraph(directed=True, strict=False, rankdir="LR", nodesep=0.28, ranksep=0.5)
    graph.node_attr.update(shape="box", fixedsize="true", label="")
    graph.edge_attr.update(tailport="e", headport="w", arrowhead="none")
    for box in boxes:
        size = {"width": box.width / _INCH, "height": box.height / _INCH}
        graph.add_node(numbers[box.node.id], **size)
    for source, target in pairs:
        graph.add_edge(numbers[source], numbers[target])
    graph.layout(prog="dot")
    _, _, width, height = (float(number) for number in graph.graph_attr["bb"].split(","))

    def point(text: str) -> tuple[int, int]:
        """Return a place in the picture; Graphviz counts from the bottom."""
        x, y = text.split(",")
        return round(float(x)) + _MARGIN, round(height - float(y)) + _MARGIN

    wide, high = round(width) + 2 * _MARGIN, round(height) + 2 * _MARGIN
    name = f"The graph of {printable(workflow.name)}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}"'
        f' height="{high}" role="img" aria-label={quoteattr(name)}>',
        f"<style>\n{_STYLE}</style>",
    ]
    for (source, target), kind in pairs.items():
        spline = graph.get_edge(numbers[source], numbers[target]).attr["pos"].split(" ")
        start, *curve = ("{} {}".format(*point(p)) for p in spline)
        lines.append(
            f'<path class="link" data-from={quoteattr(source)} data-to={quoteattr(target)}'
            f' fill="none" stroke="{_COLORS.get(kind, _OTHER_COLOR)}"'
            f' d="M{start} C{" ".join(curve)}"/>'
        )
    for box in boxes:
        x, y = point(graph.get_node(numbers[box.node.id]).attr["pos"])
        lines += _node(box, x - box.width // 2, y - box.height // 2)
    return "\n".join([*lines, "</svg>\n"])


def _links(
    graph: Mapping[str, GraphNode], classes: Mapping[str, ClassType]
) -> dict[tuple[str, str], str]:
    """Return which node feeds which, each pair once, with the type of what goes first."""
    found: dict[tuple[str, str], str] = {}
    for node in graph.values():
        for value in node.inputs.values():
            link = value.value
            if isinstance(link, Link) and link.node in graph:
                source = classes.get(link.node)
                outputs = source.outputs if source else ()
                kind = outputs[link.output].type if 0 <= link.output < len(outputs) else ""
                found.setdefault((link.node, node.id), kind)
    return found


def _node(box: _Box, left: int, top: int) -> list[str]:
    texts = {"name": box.name, "about": box.about, "params": box.params}
    full = f"{box.node.title or box.node.class_type} ({box.node.class_type}, node {box.node.id})"
    look = "output box" if box.is_output else "box"
    return [
        f'<g class="node" data-node={quoteattr(box.node.id)}>',
        f"<title>{escape(printable(full))}</title>",
        f'<rect class="{look}" x="{left}" y="{top}" width="{box.width}" height="{box.height}" rx="8"/>',
        *(
            f'<text class="{kind}" x="{left + _PADDING}" y="{top + 22 + _LINE * line}">'
            f"{escape(text)}</text>"
            for line, (kind, text) in enumerate(texts.items())
            if text
        ),
        "</g>",
    ]


def _box(node: GraphNode, workflow: Workflow) -> _Box:
    slots = [slot for value in node.inputs.values() for slot, _ in value.slots]
    params = dict.fromkeys(name for slot in slots for name in slot.names)
    about = f"{node.class_type}, node {node.id}" if node.title else f"node {node.id}"
    return _Box(
        node,
        name=_short(node.title or node.class_type),
        about=_short(about),
        params=_short(" · ".join(params)),
        is_output=workflow.output is not None and node.id in workflow.output.nodes.values(),
    )


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
