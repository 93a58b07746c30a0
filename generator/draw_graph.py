"""Draw the graph of a workflow as SVG: nodes from left to right, and the links between them.

Graphviz places the nodes and leads the links; what that looks like is written here. Pages that show
the picture find nodes by `data-node`, and links by `data-from` and `data-to`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from .check import CheckedWorkflow
from .graph.records import Link
from .graph.words import printable
from .spec import GraphNode

# In pixels, which are points to Graphviz.
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
.name { font-size: 13px; font-weight: 600 }
.about { font-size: 11px; fill: #646b77 }
.params { font-size: 11px; fill: #3457d5 }
.link { fill: none; stroke-width: 1.6 }
@media (prefers-color-scheme: dark) {
  text { fill: #e9ebef }
  .box { fill: #20242b; stroke: #454b56 }
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

    @property
    def width(self) -> int:
        small = max(len(self.about), len(self.params))
        widest = max(len(self.name) * _TITLE_CHARACTER, small * _SMALL_CHARACTER)
        return max(_NARROWEST, round(widest) + 2 * _PADDING)

    @property
    def height(self) -> int:
        return 2 * _PADDING + _LINE * (3 if self.params else 2) - 6


def draw_graph(checked: CheckedWorkflow) -> str:
    """Return the graph of a workflow as an SVG document; the same graph gives the same text.

    Raises:
        ValueError: when it has no graph of its own, as /workflow has none.
    """
    # Not needed for anything else, and it takes its time.
    import pygraphviz

    boxes = [_box(node) for node in checked.workflow.graph.values()]
    if not boxes:
        raise ValueError(f"{checked.workflow.name} has no graph of its own: its callers send one")
    # Graphviz knows nodes by their number, so that no id means anything to it.
    numbers = {box.node.id: str(number) for number, box in enumerate(boxes)}
    graph = pygraphviz.AGraph(directed=True, strict=False, rankdir="LR", nodesep=0.28, ranksep=0.5)
    graph.node_attr.update(shape="box", fixedsize="true", label="")
    graph.edge_attr.update(tailport="e", headport="w", arrowhead="none")
    for number, box in enumerate(boxes):
        graph.add_node(str(number), width=box.width / 72, height=box.height / 72)
    pairs: dict[tuple[str, str], str] = {}
    for box in boxes:
        for link in (i.value for i in box.node.inputs.values() if isinstance(i.value, Link)):
            found = checked.classes.get(link.node)
            outputs = found.outputs if found else ()
            kind = outputs[link.output].type if 0 <= link.output < len(outputs) else ""
            pairs.setdefault((link.node, box.node.id), kind)
    for source, target in pairs:
        graph.add_edge(numbers[source], numbers[target])
    graph.layout(prog="dot")
    return _document(checked, graph, boxes, pairs, numbers)


def _document(
    checked: CheckedWorkflow,
    graph: Any,
    boxes: list[_Box],
    pairs: Mapping[tuple[str, str], str],
    numbers: Mapping[str, str],
) -> str:
    _, _, width, height = (float(n) for n in graph.graph_attr["bb"].split(","))
    wide, high = round(width) + 2 * _MARGIN, round(height) + 2 * _MARGIN
    name = checked.workflow.name

    def point(text: str) -> str:
        x, y = text.split(",")
        return f"{round(float(x)) + _MARGIN} {round(height - float(y)) + _MARGIN}"

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}"'
        f' height="{high}" role="img" aria-label={quoteattr(f"The graph of {printable(name)}")}>',
        f"<style>\n{_STYLE}</style>",
    ]
    for (source, target), kind in pairs.items():
        way = graph.get_edge(numbers[source], numbers[target]).attr["pos"].split(" ")
        start, *curve = [point(p) for p in way if not p.startswith(("e,", "s,"))]
        lines.append(
            f'<path class="link" data-from={quoteattr(source)} data-to={quoteattr(target)}'
            f' stroke="{_COLORS.get(kind, _OTHER_COLOR)}" d="M{start} C{" ".join(curve)}"/>'
        )
    for number, box in enumerate(boxes):
        x, y = point(graph.get_node(str(number)).attr["pos"]).split(" ")
        lines += _node(box, int(x) - box.width // 2, int(y) - box.height // 2)
    return "\n".join([*lines, "</svg>\n"])


def _node(box: _Box, left: int, top: int) -> list[str]:
    texts = {"name": box.name, "about": box.about, "params": box.params}
    full = f"{box.node.title or box.node.class_type} ({box.node.class_type}, node {box.node.id})"
    return [
        f'<g class="node" data-node={quoteattr(box.node.id)}>',
        f"<title>{escape(printable(full))}</title>",
        f'<rect class="box" x="{left}" y="{top}" width="{box.width}" height="{box.height}" rx="8"/>',
        *(
            f'<text class="{kind}" x="{left + _PADDING}" y="{top + 22 + _LINE * line}">'
            f"{escape(text)}</text>"
            for line, (kind, text) in enumerate(texts.items())
            if text
        ),
        "</g>",
    ]


def _box(node: GraphNode) -> _Box:
    slots = [slot for value in node.inputs.values() for slot, _ in value.slots]
    params = dict.fromkeys(name for slot in slots for name in slot.names)
    about = f"{node.class_type}, node {node.id}" if node.title else f"node {node.id}"
    return _Box(
        node, _short(node.title or node.class_type), _short(about), _short(" · ".join(params))
    )


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
