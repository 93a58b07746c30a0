"""Graphs drawn as SVG: every node and link is there, whatever the YAML calls them."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from generator.check import CheckedWorkflow
from generator.draw_graph import draw_graph

from .conftest import ROOT, MakeProject, load_and_check

SVG = "{http://www.w3.org/2000/svg}"

HOSTILE = """\
summary: A picture of one colour
params:
  prompt: {type: string, default: a}
graph:
  "<b>&\\"1'":
    class_type: EmptyImage
    _meta: {title: "</title><script>alert(1)</script>\\0 ]]> and a title longer than any box"}
    inputs: {width: 64, height: 64, batch_size: 1, color: 0}
  "<TABLE>":
    class_type: SaveImage
    inputs: {filename_prefix: "${prompt}", images: ["<b>&\\"1'", 0]}
"""


def workflows(root: Path) -> dict[str, CheckedWorkflow]:
    checked, diagnostics = load_and_check(root)
    assert checked is not None, diagnostics
    return {one.workflow.name: one for one in checked.workflows}


SHIPPED = workflows(ROOT)


@pytest.mark.parametrize("name", [name for name, one in SHIPPED.items() if one.workflow.graph])
def test_all_nodes_and_links_of_the_shipped_graphs_are_drawn(name: str) -> None:
    nodes = SHIPPED[name].workflow.graph
    picture = ElementTree.fromstring(draw_graph(SHIPPED[name]))
    drawn = {group.get("data-node") for group in picture.iter(f"{SVG}g")}
    assert drawn == set(nodes)
    links = {(path.get("data-from"), path.get("data-to")) for path in picture.iter(f"{SVG}path")}
    values = [(node.id, value.value) for node in nodes.values() for value in node.inputs.values()]
    assert links == {(value.node, node) for node, value in values if hasattr(value, "output")}
    assert links


def test_boxes_stand_apart_inside_of_the_picture() -> None:
    picture = ElementTree.fromstring(draw_graph(SHIPPED["flux-instantid"]))
    wide, high = int(picture.get("width", 0)), int(picture.get("height", 0))
    boxes = [
        tuple(int(box.get(key, 0)) for key in ("x", "y", "width", "height"))
        for box in picture.iter(f"{SVG}rect")
    ]
    assert len(boxes) == len(SHIPPED["flux-instantid"].workflow.graph)
    for number, (x, y, width, height) in enumerate(boxes):
        assert 0 <= x < x + width <= wide
        assert 0 <= y < y + height <= high
        for left, top, other_width, other_height in boxes[:number]:
            assert (
                x + width <= left
                or left + other_width <= x
                or y + height <= top
                or top + other_height <= y
            )


def test_names_from_yaml_stay_text(make_project: MakeProject) -> None:
    [one] = workflows(make_project({"blank": HOSTILE})).values()
    text = draw_graph(one)
    picture = ElementTree.fromstring(text)
    assert {g.get("data-node") for g in picture.iter(f"{SVG}g")} == {"<b>&\"1'", "<TABLE>"}
    assert {e.tag for e in picture.iter()} == {
        SVG + tag for tag in ("svg", "style", "path", "g", "title", "rect", "text")
    }
    [path] = picture.iter(f"{SVG}path")
    assert (path.get("data-from"), path.get("data-to")) == ("<b>&\"1'", "<TABLE>")
    assert "prompt" in [e.text for e in picture.iter(f"{SVG}text")]
    assert draw_graph(one) == text


def test_a_workflow_without_a_graph_of_its_own_is_not_drawn() -> None:
    with pytest.raises(ValueError, match="workflow has no graph of its own"):
        draw_graph(SHIPPED["workflow"])
