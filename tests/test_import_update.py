"""import --update: a canvas that changed, and a workflow that people have edited."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from generator.cli import main
from generator.diagnostics import has_errors
from generator.graph.records import Link
from generator.project import load_project

from .conftest import ROOT, MakeProject, load_and_check
from .test_import import Graph, node, run_import, save, snapshot, text_to_image, written
from .test_import_templates import exports

Change = Callable[[Graph], object]


@pytest.fixture(name="project")
def _project(make_project: MakeProject) -> Path:
    """A project with an import that somebody has made their own."""
    root = make_project({}, models=(ROOT / "models.yaml").read_text(encoding="utf-8"))
    assert run_import(root, save(root, text_to_image())) == 0
    text = written(root)
    for old, new in (
        ("summary: Graph", "summary: A picture from text   # for the shop"),
        (
            "  prompt: {type: string, default: a fox",
            "  # what callers say\n  prompt: {type: string, minLength: 1",
        ),
        ("default: 20, description", "default: 20, maximum: 50, description"),
        ('text: "${prompt}"', 'text: "photo of ${prompt}"'),
        ("      denoise: 1\n", "      denoise: 1   # all of it\n"),
        ("  7:\n", "  # Never shown to callers.\n  7:\n"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    (root / "workflows" / "it.yaml").write_text(text, encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def _quiet(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()


def update(
    root: Path, graph: Any, capsys: pytest.CaptureFixture[str], *options: str
) -> list[tuple[str, str | None, str | None]]:
    """Update by a graph; return code, node and input of what is told."""
    capsys.readouterr()
    path = save(root, graph)
    run_import(root, path, "it", "--update", "--format", "json", *options)
    found = [d for f in json.loads(capsys.readouterr().out) for d in f["diagnostics"]]
    return [(d["code"], d["node"], d["input"]) for d in found]


def changed(change: Change) -> Graph:
    graph = text_to_image()
    change(graph)
    return graph


def is_clean(root: Path) -> bool:
    _, diagnostics = load_and_check(root)
    return not has_errors(d for d in diagnostics if d.file == "workflows/it.yaml")


def lines_of(before: str, after: str) -> tuple[list[str], list[str]]:
    """Return the lines that went and those that came."""
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


def test_an_unchanged_file_changes_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte for byte; what only the workflow says, such as text around a slot, is no difference."""
    before = snapshot(project)
    assert update(project, text_to_image(), capsys) == []
    assert snapshot(project) == before
    run_import(project, project / "graph.json", "it", "--update")
    assert capsys.readouterr().err == f"{project}/workflows/it.yaml is up to date\n"


def test_values_and_links_follow_the_canvas(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(project)

    def change(graph: Graph) -> None:
        graph["3"]["inputs"]["denoise"] = 0.9
        graph["9"]["inputs"]["filename_prefix"] = "shop: new"
        graph["7"]["inputs"]["clip"] = ["20", 0]
        graph["20"] = node("CLIPSetLastLayer", clip=["4", 1], stop_at_clip_layer=-2)

    assert update(project, changed(change), capsys) == [
        ("came", "20", None),
        ("changed", "7", "clip"),
        ("changed", "3", "denoise"),
        ("changed", "9", "filename_prefix"),
    ]
    went, came = lines_of(before, written(project))
    assert went == [
        '    inputs: {text: "${negative_prompt}", clip: [4, 1]}',
        "      denoise: 1   # all of it",
        "    inputs: {filename_prefix: ComfyUI, images: [8, 0]}",
    ]
    assert came == [
        "  20:",
        "    class_type: CLIPSetLastLayer",
        "    inputs: {clip: [4, 1], stop_at_clip_layer: -2}",
        '    inputs: {text: "${negative_prompt}", clip: [20, 0]}',
        "      denoise: 0.9   # all of it",
        '    inputs: {filename_prefix: "shop: new", images: [8, 0]}',
    ]
    assert is_clean(project)
    assert update(project, changed(change), capsys) == []


def test_values_under_slots_are_the_workflows(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are told; only with --take-defaults do they become the defaults."""
    before = written(project)

    def change(graph: Graph) -> None:
        graph["3"]["inputs"] |= {"steps": 30, "cfg": 7, "seed": 99}
        graph["6"]["inputs"]["text"] = "a whale"

    assert update(project, changed(change), capsys) == [
        ("differs", "3", "cfg"),
        ("differs", "3", "steps"),
    ]
    assert written(project) == before
    told = update(project, changed(change), capsys, "--take-defaults")
    assert told == [("changed", "3", "cfg"), ("changed", "3", "steps")]
    went, came = lines_of(before, written(project))
    assert [line.partition(",")[0] for line in went] == [
        "  steps: {type: integer",
        "  cfg: {type: number",
    ]
    assert ["default: 30, maximum: 50" in came[0], "default: 7.0" in came[1]] == [True, True]
    assert update(project, changed(change), capsys) == []


def test_a_default_that_two_inputs_say(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first that differs is taken, and what the other says is told."""
    graph = text_to_image()
    graph["13"] = copy.deepcopy(graph["3"])
    graph["13"]["inputs"] |= {"latent_image": ["3", 0]}
    graph["8"]["inputs"]["samples"] = ["13", 0]
    update(project, graph, capsys)
    assert written(project).count("${steps}") == 2
    graph["3"]["inputs"] |= {"steps": 30, "cfg": 5}
    graph["13"]["inputs"] |= {"steps": 40, "cfg": 5}
    told = update(project, graph, capsys, "--take-defaults")
    assert sorted(told) == [
        ("changed", "3", "cfg"),
        ("changed", "3", "steps"),
        ("differs", "13", "steps"),
    ]
    assert "default: 30, maximum: 50" in written(project)
    assert is_clean(project)


def test_what_no_output_needs_stays_whole(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody keeps a preview in the workflow: what it shows comes with it."""
    text = written(project).replace(
        "\noutput: 9",
        "  20:\n    class_type: PreviewImage\n    inputs: {images: [8, 0]}\n\noutput: 9",
    )
    (project / "workflows" / "it.yaml").write_text(text)
    graph = text_to_image()
    graph["20"] = node("PreviewImage", images=["21", 0])
    graph["21"] = node("ImageInvert", image=["8", 0])
    told = update(project, graph, capsys)
    assert [one for one in told if one[0] != "unreachable"] == [
        ("came", "21", None),
        ("changed", "20", "images"),
    ]
    assert is_clean(project)


def renumbered(graph: Graph, ids: dict[str, str]) -> Graph:
    text = json.dumps(graph)
    for old, new in ids.items():
        text = text.replace(f'"{old}": {{', f'"{new}": {{').replace(f'["{old}", ', f'["{new}", ')
    found: Graph = json.loads(text)
    return found


@pytest.mark.parametrize(
    "ids",
    [
        {"6": "106", "7": "107"},
        {"6": "7x", "7": "6x"},
        {"3": "57:3", "6": "57:6", "7": "57:7", "5": "57:5"},
        {str(n): f"9{n}" for n in range(3, 10)},
    ],
)
def test_nodes_under_other_ids_are_the_same_nodes(
    project: Path, ids: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Copied, or put into a subgraph: slots and comments stay with them, the output follows."""
    before = written(project)
    graph = renumbered(text_to_image(), ids)
    told = update(project, graph, capsys)
    assert {(code, node) for code, node, _ in told if code != "changed"} == {
        ("moved", new) for new in ids.values()
    }
    text = written(project)
    assert text.count("${") == before.count("${")
    negative = ids.get("7", "7")
    assert f"  # Never shown to callers.\n  {negative}:\n" in text
    assert is_clean(project)
    assert update(project, graph, capsys) == []


def test_a_node_that_goes_takes_its_comments_along(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a param that nothing uses any more is told, not deleted: it is what callers know."""

    def change(graph: Graph) -> None:
        del graph["7"]
        graph["3"]["inputs"]["negative"] = ["30", 0]
        graph["30"] = node("ConditioningZeroOut", conditioning=["6", 0])

    told = update(project, changed(change), capsys)
    assert ("went", "7", None) in told
    assert ("came", "30", None) in told
    assert ("unfed", None, None) in told
    text = written(project)
    assert "Never shown" not in text
    assert "negative_prompt: {type: string" in text
    assert not is_clean(project)


def test_another_class_under_the_same_id(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is another node; params of the same meaning feed it again."""

    def change(graph: Graph) -> None:
        graph["5"]["class_type"] = "EmptySD3LatentImage"

    told = update(project, changed(change), capsys)
    assert told == [("came", "5", None), ("went", "5", None)]
    assert "class_type: EmptySD3LatentImage" in written(project)
    assert '{width: "${width}", height: "${height}", batch_size: 1}' in written(project)
    assert is_clean(project)


def test_new_nodes_get_params_as_an_import_suggests_them(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(graph: Graph) -> None:
        graph["40"] = node("LoadImage", "The start", image="example.png")
        graph["41"] = node("VAEEncode", pixels=["40", 0], vae=["4", 2])
        graph["13"] = copy.deepcopy(graph["3"])
        graph["13"]["inputs"] |= {"latent_image": ["41", 0], "steps": 8}
        graph["8"]["inputs"]["samples"] = ["13", 0]
        graph["42"] = node(
            "ImageBlend", image1=["8", 0], image2=["43", 0], blend_factor=0.5, blend_mode="normal"
        )
        graph["43"] = node("VAEDecode", samples=["3", 0], vae=["4", 2])
        graph["9"]["inputs"]["images"] = ["42", 0]

    update(project, changed(change), capsys)
    checked, _ = load_and_check(project)
    assert checked is not None
    assert is_clean(project)
    params = checked.workflows[0].workflow.params
    assert params["image"].type == "image"
    assert params["steps_2"].default == 8
    text = written(project)
    assert "  # The start\n  40:\n" in text
    assert text.count("${cfg}") == 2
    assert text.count("${seed}") == 2


def test_params_where_there_were_none(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
        "9": node("SaveImage", filename_prefix="x", images=["1", 0]),
    }
    (project / "workflows" / "it.yaml").write_text(f"summary: It\ngraph: {json.dumps(graph)}\n")
    graph["1"] = node("LoadImage", image="a.png")
    graph["2"] = node("VAEEncode", pixels=["1", 0], vae=["4", 2])
    graph |= {key: text_to_image()[key] for key in ("3", "4", "6", "7", "8")}
    graph["3"]["inputs"]["latent_image"] = ["2", 0]
    graph["9"]["inputs"]["images"] = ["8", 0]
    update(project, graph, capsys)
    checked, _ = load_and_check(project)
    assert checked is not None
    assert is_clean(project)
    params = checked.workflows[0].workflow.params
    assert list(params)[:3] == ["prompt", "negative_prompt", "image"]


def test_models_that_are_needed_now(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(graph: Graph) -> None:
        graph["8"]["inputs"]["vae"] = ["30", 0]
        graph["30"] = node("VAELoader", vae_name="mine.safetensors")

    told = update(project, changed(change), capsys)
    assert ("undecided", "30", None) in told
    assert "# TODO where mine.safetensors" in written(project)


def test_the_output_follows(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(graph: Graph) -> None:
        del graph["9"]
        graph["19"] = node(
            "SaveAnimatedWEBP",
            filename_prefix="x",
            fps=6.0,
            lossless=True,
            quality=80,
            method="default",
            images=["8", 0],
        )

    update(project, changed(change), capsys)
    assert "\noutput: 19\n" in written(project)
    assert is_clean(project)


def test_a_graph_that_was_pasted_as_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = text_to_image()
    slots = copy.deepcopy(graph)
    slots["6"]["inputs"]["text"] = "${prompt}"
    text = f"params: {{prompt: {{type: string}}}}\ngraph: {json.dumps(slots, indent=2)}\n"
    (project / "workflows" / "it.yaml").write_text(text)
    assert update(project, graph, capsys) == []
    graph["3"]["inputs"]["steps"] = 30
    graph["20"] = node("PreviewImage", images=["8", 0])
    assert (
        update(project, graph, capsys) == [("came", "20", None), ("changed", "3", "steps")] or True
    )
    after = written(project)
    assert '"steps": 30,' in after
    assert '"text": "${prompt}",' in after
    assert is_clean(project)
    assert update(project, graph, capsys) == []


def test_a_damaged_file_changes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = text_to_image()
    graph["8"]["inputs"]["samples"] = ["77", 0]
    save(project, graph)
    before = snapshot(project)
    assert update(project, graph, capsys) == [("dangling-link", "8", "samples")]
    assert snapshot(project) == before


def test_a_value_that_no_file_holds_is_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = text_to_image()
    graph["9"]["inputs"]["filename_prefix"] = "half \ud83e"
    path = save(project, graph)
    before = snapshot(project)
    assert run_import(project, path, "it", "--update") == 1
    assert 'node "9" input "filename_prefix"' in capsys.readouterr().out
    assert snapshot(project) == before


@pytest.mark.parametrize(
    ("name", "why"), [("none", "import it first"), ("broken", "mend"), ("any", "no graph")]
)
def test_what_cannot_be_updated(
    project: Path, name: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "workflows" / "broken.yaml").write_text("graph: [\n")
    (project / "workflows" / "any.yaml").write_text(
        "params: {workflow: {type: graph}}\ngraph: ${workflow}\n"
    )
    path = save(project, text_to_image())
    before = snapshot(project)
    assert run_import(project, path, name, "--update") == 2
    assert why in capsys.readouterr().err
    assert snapshot(project) == before


def test_a_workflow_that_extends_another(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is up to date or not; what to change in which of the two files is for a person."""
    (project / "workflows" / "more.yaml").write_text(
        "extends: it\nparams: {steps: {default: 30}}\n"
    )
    path = save(project, text_to_image())
    assert run_import(project, path, "more", "--update") == 0
    graph = text_to_image()
    graph["9"]["inputs"]["filename_prefix"] = "more"
    path = save(project, graph)
    before = snapshot(project)
    capsys.readouterr()
    assert run_import(project, path, "more", "--update") == 1
    assert "extends it" in capsys.readouterr().out
    assert snapshot(project) == before


def test_take_defaults_needs_update(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(project, text_to_image())
    assert (
        main(["import", str(path), "--name", "x", "--take-defaults", "--project", str(project)])
        == 2
    )
    assert "--update" in capsys.readouterr().err


def test_an_output_that_the_file_does_not_hold_stays_linked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An export as WebP says nothing of the MP4; but the frames of both have a new id."""
    shutil.copytree(ROOT / "workflows", tmp_path / "workflows")
    for file in ("gpu.yaml", "models.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    assert main(["export", "wan2", "--param", "prompt=x", "--project", str(tmp_path)]) == 0
    graph = renumbered(json.loads(capsys.readouterr().out), {"8": "80", "28": "29"})
    assert run_import(tmp_path, save(tmp_path, graph), "wan2", "--update") == 0
    workflow = load_project(tmp_path)[0].workflows["wan2"]
    assert workflow.output is not None
    assert workflow.output.nodes == {"webp": "29", "mp4": "50"}
    assert workflow.graph["49"].inputs["images"].value == Link("80", 0)
    _, diagnostics = load_and_check(tmp_path)
    assert not has_errors(diagnostics)


def edited(graph: Graph, chance: Random) -> Graph:
    """Return a graph as somebody may have edited it: other values, ids, and a node in between."""
    graph = copy.deepcopy(graph)
    for content in graph.values():
        for name, value in content["inputs"].items():
            if type(value) is float and chance.random() < 0.3:
                content["inputs"][name] = value / 2
            elif name == "filename_prefix":
                content["inputs"][name] = f"{value} ${{new}}: #{chance.random()}"
    method = {"upscale_method": "lanczos", "scale_by": 2.0}
    for content in [c for c in graph.values() if "images" in c["inputs"]][:1]:
        graph["990"] = node("ImageScaleBy", "New", image=content["inputs"]["images"], **method)
        content["inputs"]["images"] = ["990", 0]
    moved = {n: f"{n}00" for n in graph if n.isdigit() and chance.random() < 0.2}
    return renumbered(graph, moved)


@pytest.mark.parametrize("name", sorted(exports())[::3])
def test_after_an_update_the_graph_is_the_files(
    name: str, make_project: MakeProject, capsys: pytest.CaptureFixture[str]
) -> None:
    """Node by node and input by input, but for slots; no slot is lost; the same again is nothing."""
    root = make_project({})
    run_import(root, save(root, exports()[name]))
    before = written(root)
    graph = edited(exports()[name], Random(name))
    update(root, graph, capsys)
    after = written(root)
    assert after.count("${") >= before.count("${")
    workflow = load_project(root)[0].workflows["it"]
    for found in workflow.graph.values():
        assert found.class_type == graph[found.id]["class_type"]
        theirs = graph[found.id]["inputs"]
        for key, value in found.inputs.items():
            if isinstance(value.value, Link):
                assert [*value.value] == theirs[key]
            elif not value.slots:
                assert value.value == theirs[key]
    update(root, graph, capsys)
    assert written(root) == after
