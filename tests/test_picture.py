"""Workflows as pictures: what an SVG file of a graph shows, and that it is safe to show."""

from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from generator.cli import main
from generator.picture import as_svg
from generator.project import load_project
from generator.spec import Workflow

from .conftest import ROOT, CheckProject, MakeProject
from .test_cli import GOOD

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = """\
graph:
  "</text><script>": {class_type: EmptyImage, inputs: {width: 8}, _meta: {title: "<b onload='x'>&"}}
  2: {class_type: "Save\\u202eImage", inputs: {images: ["</text><script>", 0]}}
"""


def workflows() -> dict[str, Workflow]:
    project, _ = load_project(ROOT)
    return dict(project.workflows)


def drawn(workflow: Workflow) -> Xml.Element:
    return Xml.fromstring(as_svg(workflow))


def nodes(svg: Xml.Element) -> dict[str, Xml.Element]:
    return {g.attrib["data-node"]: g for g in svg.iter(f"{SVG}g")}


@pytest.mark.parametrize("workflow", workflows().values(), ids=lambda w: w.name)
def test_all_nodes_and_links_are_there(workflow: Workflow) -> None:
    svg = drawn(workflow)
    assert list(nodes(svg)) == list(workflow.graph)
    pairs = {
        (value.value.node, node.id)
        for node in workflow.graph.values()
        for value in node.inputs.values()
        if hasattr(value.value, "node")
    }
    assert len(svg.findall(f"{SVG}path")) == len(pairs)


@pytest.mark.parametrize("workflow", workflows().values(), ids=lambda w: w.name)
def test_nodes_do_not_overlap_and_are_in_the_picture(workflow: Workflow) -> None:
    svg = drawn(workflow)
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    boxes = []
    for node in nodes(svg).values():
        box = node.find(f"{SVG}rect")
        assert box is not None
        x, y, w, h = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
        boxes.append((x, y, x + w, y + h))
    for number, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[number + 1 :]:
            assert other[0] >= right or other[2] <= left or other[1] >= bottom or other[3] <= top


def test_a_link_leads_to_the_right() -> None:
    places = {
        node: float(group[1].attrib["x"])
        for node, group in nodes(drawn(workflows()["flux"])).items()
    }
    for node in workflows()["flux"].graph.values():
        for value in node.inputs.values():
            if hasattr(value.value, "node"):
                assert places[value.value.node] < places[node.id]


def test_nodes_say_which_params_feed_them() -> None:
    texts = {n: "".join(g.itertext()) for n, g in nodes(drawn(workflows()["wan2"])).items()}
    assert "width · height · length" in texts["40"]
    assert "output" in nodes(drawn(workflows()["wan2"]))["50"][1].attrib["class"]


def test_links_have_the_colours_of_what_they_carry(check_project: CheckProject) -> None:
    checked, _ = check_project(ROOT)
    assert checked is not None
    [one] = [one for one in checked.workflows if one.workflow.name == "flux"]
    links = Xml.fromstring(as_svg(one.workflow, one.classes)).findall(f"{SVG}path")
    colours = {(p.get("data-from"), p.get("data-to")): p.get("stroke") for p in links}
    assert colours["6", "5"] == colours["7", "5"]
    assert len(set(colours.values())) == 6
    assert len({p.get("stroke") for p in drawn(one.workflow).findall(f"{SVG}path")}) == 1


def test_the_same_graph_gives_the_same_bytes() -> None:
    workflow = workflows()["flux-instantid"]
    assert as_svg(workflow) == as_svg(workflow)


def test_names_cannot_become_markup(make_project: MakeProject) -> None:
    project, _ = load_project(make_project({"it": HOSTILE}))
    svg = drawn(project.workflows["it"])
    assert {element.tag.removeprefix(SVG) for element in svg.iter()} == {
        "svg", "style", "title", "rect", "path", "g", "text",
    }  # fmt: skip
    assert not [a for e in svg.iter() for a in e.attrib if a.startswith("on") or a == "style"]
    assert "\u202e" not in "".join(svg.itertext())


def test_a_graph_without_links_or_nodes(make_project: MakeProject) -> None:
    lonely = GOOD.replace("images: [1, 0], ", "")
    project, _ = load_project(make_project({"it": lonely}))
    assert list(nodes(drawn(project.workflows["it"]))) == ["1", "2"]
    assert nodes(drawn(workflows()["workflow"])) == {}


def test_a_workflow_that_is_not_there(
    make_project: MakeProject, capsys: pytest.CaptureFixture[str]
) -> None:
    project = str(make_project({"good": GOOD, "other": GOOD}))
    assert main(["graph", "nope", "--project", project]) == 2
    assert 'there is no workflow "nope"; there are good, other' in capsys.readouterr().err


def test_several_go_into_a_folder(
    make_project: MakeProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project({"good": GOOD, "other": GOOD})
    command = ["graph", "--project", str(project)]
    folder = tmp_path / "pictures"
    assert main([*command, "good", "other", "-o", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["good.svg", "other.svg"]
    (folder / "good.svg").unlink()
    assert main([*command, "good", "-o", str(folder)]) == 0
    assert (folder / "good.svg").read_text().startswith("<svg")
    capsys.readouterr()
    for options in ([], ["-o", str(folder / "good.svg")]):
        assert main([*command, "good", "other", *options]) == 2
        assert "several pictures go into a folder" in capsys.readouterr().err
