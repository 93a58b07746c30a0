"""A workflow as a picture: its graph in SVG, laid out in layers from left to right.

Nothing in the file has a style of its own beyond presentation attributes, so that a page whose
Content-Security-Policy forbids styles can show it, and give it other colours by class. Each node is
a `<g class="node" data-node="ID">`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final
from xml.etree import ElementTree as Xml

from fast_sugiyama import from_edges

from .graph.records import Link
from .graph.words import printable
from .spec import GraphNode, Workflow

# Pixels.
_WIDTH: Final = 224
_HEIGHT: Final = 52
_GAP: Final = 64
_ROW: Final = 72
_MARGIN: Final = 16
_PAD: Final = 12
# As wide as the texts of a node can be; in the fonts named below, a character takes about so much.
_TITLE: Final = 26
_SMALL: Final = 31

_INK: Final = "#1c2430"
_FAINT: Final = "#66707f"
_LINE: Final = "#b6bfcc"
_SLOT: Final = "#2f6fde"
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


# x and y of a middle, in pixels.
Point = tuple[float, float]


def as_svg(workflow: Workflow) -> str:
    """Return the graph of a workflow as the text of an SVG file; the same graph, the same bytes.

    Nodes that params feed say which. A node that an `output` names has a frame of its own.
    """
    graph = workflow.graph
    places, routes = _laid_out(graph)
    points = [*places.values(), *(point for route in routes for point in route)]
    width = max((x for x, _ in points), default=0) + _WIDTH / 2 + _MARGIN
    height = max((y for _, y in points), default=0) + _HEIGHT / 2 + _MARGIN
    svg = Xml.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_number(width)} {_number(height)}",
            "width": _number(width),
            "height": _number(height),
            "role": "img",
            "aria-label": f"The graph of {workflow.name}",
            "font-family": _FONT,
        },
    )
    Xml.SubElement(svg, "title").text = f"The graph of {workflow.name}"
    size = {"width": "100%", "height": "100%", "fill": "#f7f8fa"}
    Xml.SubElement(svg, "rect", {"class": "ground", **size})
    for route in routes:
        _draw_link(svg, route)
    outputs = set(workflow.output.nodes.values()) if workflow.output else set()
    for node in graph.values():
        _draw_node(svg, node, places[node.id], is_output=node.id in outputs)
    Xml.indent(svg)
    return Xml.tostring(svg, encoding="unicode") + "\n"


def _edges(graph: Mapping[str, GraphNode]) -> list[tuple[str, str]]:
    """Return which node feeds which, each pair once."""
    found = {
        (value.value.node, node.id): None
        for node in graph.values()
        for value in node.inputs.values()
        if isinstance(value.value, Link) and value.value.node in graph
    }
    return list(found)


def _laid_out(graph: Mapping[str, GraphNode]) -> tuple[dict[str, Point], list[list[Point]]]:
    """Return where the middle of each node is, and the points that each link passes.

    What feeds others stands left of them; parts that are not connected stand below each other.
    """
    numbers = {node: number for number, node in enumerate(graph)}
    names = list(graph)
    places: dict[str, Point] = {}
    routes: list[list[Point]] = []
    top = _MARGIN + _HEIGHT / 2
    edges = [(numbers[source], numbers[target]) for source, target in _edges(graph)]
    for positions, *_, pieces in from_edges(edges, vertex_spacing=_ROW, dummy_vertices=True):
        at = _turned({int(number): xy for number, xy in positions}, top)
        places |= {names[number]: point for number, point in at.items() if number < len(names)}
        part = [edge for edge in edges if edge[0] in at]
        routes += [
            [at[n] for n in way]
            for way in _ways([(int(a), int(b)) for a, b in pieces or part], len(names))
        ]
        top = max(y for _, y in at.values()) + _ROW
    for node in graph:
        if node not in places:
            places[node] = (_MARGIN + _WIDTH / 2, top)
            top += _ROW
    return places, routes


def _turned(positions: Mapping[int, Point], top: float) -> dict[int, Point]:
    """Return positions in pixels; the library draws layers from the top down, and y goes up."""
    layers = sorted({y for _, y in positions.values()}, reverse=True)
    first = min(x for x, _ in positions.values())
    left = _MARGIN + _WIDTH / 2
    return {
        node: (left + layers.index(y) * (_WIDTH + _GAP), top + x - first)
        for node, (x, y) in positions.items()
    }


def _ways(pieces: Iterable[tuple[int, int]], count: int) -> Iterator[list[int]]:
    """Yield each link as the nodes that it passes; from `count` on they are none of the graph's.

    The library puts such a one into every layer that a link crosses, and each leads on to one.
    """
    follows: dict[int, int] = {}
    starts: list[tuple[int, int]] = []
    for source, target in pieces:
        if source < count:
            starts.append((source, target))
        else:
            follows[source] = target
    for source, target in starts:
        way = [source, target]
        while way[-1] >= count:
            way.append(follows[way[-1]])
        yield way


def _draw_link(svg: Xml.Element, points: Sequence[Point]) -> None:
    x, y = points[0]
    path = [f"M{_number(x + _WIDTH / 2)} {_number(y)}"]
    x += _WIDTH / 2
    for number, (next_x, next_y) in enumerate(points[1:], 1):
        enters = next_x - _WIDTH / 2
        bend = (x + enters) / 2
        path.append(
            f"C{_number(bend)} {_number(y)} {_number(bend)} {_number(next_y)} "
            f"{_number(enters)} {_number(next_y)}"
        )
        if number < len(points) - 1:
            path.append(f"H{_number(next_x + _WIDTH / 2)}")
        x, y = next_x + _WIDTH / 2, next_y
    Xml.SubElement(
        svg,
        "path",
        {"class": "link", "d": "".join(path), "fill": "none", "stroke": _LINE, "stroke-width": "2"},
    )


def _draw_node(svg: Xml.Element, node: GraphNode, place: Point, *, is_output: bool) -> None:
    left, top = place[0] - _WIDTH / 2, place[1] - _HEIGHT / 2
    params = list(dict.fromkeys(_params(node)))
    group = Xml.SubElement(svg, "g", {"class": "node", "data-node": node.id})
    said = f"{node.id}: {node.class_type}" + (f" ({', '.join(params)})" if params else "")
    Xml.SubElement(group, "title").text = printable(said)
    box = {
        "x": _number(left),
        "y": _number(top),
        "width": _number(_WIDTH),
        "height": _number(_HEIGHT),
        "rx": "8",
        "fill": "#ffffff",
        "stroke": _INK if is_output else _LINE,
        "stroke-width": "2" if is_output else "1",
    }
    Xml.SubElement(group, "rect", {"class": "output box" if is_output else "box", **box})
    _write(group, "name", left, top + 22, 14, _INK, _cut(node.title or node.class_type, _TITLE))
    detail = f"{node.id} · {node.class_type}" if node.title else node.id
    shown = f"{node.id} · {' '.join(params)}" if params else detail
    colour = _SLOT if params else _FAINT
    _write(group, "params" if params else "detail", left, top + 40, 12, colour, _cut(shown, _SMALL))


def _params(node: GraphNode) -> Iterator[str]:
    for value in node.inputs.values():
        for slot, _ in value.slots:
            yield from slot.names


def _write(
    group: Xml.Element, kind: str, left: float, y: float, size: int, colour: str, text: str
) -> None:
    place = {"x": _number(left + _PAD), "y": _number(y)}
    look = {"font-size": str(size), "fill": colour}
    Xml.SubElement(group, "text", {"class": kind, **place, **look}).text = text


def _cut(text: str, most: int) -> str:
    shown = printable(text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
