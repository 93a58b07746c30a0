"""python -m generator export: the graph that an endpoint sends, and the way back."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from generator.cli import main
from generator.load import load_text
from generator.project import load_project
from generator.spec import Workflow

from .conftest import ROOT, MakeProject
from .test_handlers import contract
from .test_import import run_import, save, snapshot, text_to_image, written
from .test_import_templates import templates

# What an endpoint needs to make a graph.
PARAMS = {
    "flux": ["prompt=a red fox in the snow", "negative_prompt=blurry", "seed=7"],
    "flux-dev": ["prompt=a red fox in the snow", "negative_prompt=blurry", "seed=7"],
    "flux-lora": ["prompt=x", "lora_id=demo"],
    "flux-instantid": ["prompt=x", "reference_image=face.png"],
    "wan2": ["prompt=x"],
    "seedvr2": ["image=small.png"],
}


def export(root: Path, name: str, capsys: pytest.CaptureFixture[str], *params: str) -> Any:
    options = [option for param in params for option in ("--param", param)]
    assert main(["export", name, "--project", str(root), *options]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["flux", "flux-dev"])
def test_it_is_the_graph_of_the_contract(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(ROOT, name, capsys, *PARAMS[name]) == contract(name)


def test_values_are_converted_as_those_of_a_form(capsys: pytest.CaptureFixture[str]) -> None:
    graph = export(ROOT, "flux", capsys, "prompt=a=b", "width=64", "cfg=2", "seed=9007199254740991")
    assert graph["6"]["inputs"]["text"] == "a=b"
    assert graph["3"]["inputs"]["width"] == 64
    assert graph["5"]["inputs"]["cfg"] == 2.0
    assert graph["5"]["inputs"]["seed"] == 2**53 - 1


def test_a_seed_that_is_not_given_is_the_smallest(capsys: pytest.CaptureFixture[str]) -> None:
    """So that the same command prints the same graph."""
    graph = export(ROOT, "flux", capsys, "prompt=x")
    assert graph["5"]["inputs"]["seed"] == 0
    assert export(ROOT, "flux", capsys, "prompt=x") == graph


def test_the_chosen_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    graph = export(ROOT, "wan2", capsys, "prompt=x", "format=mp4")
    assert "50" in graph
    assert "28" not in graph


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flux"], ['param "prompt": this param is required', "given as --param NAME=VALUE"]),
        (["flux-instantid"], ['param "prompt"', 'param "reference_image"']),
        (
            ["flux", "--param", "prompt=x", "--param", "width=33", "--param", "cfg=a"],
            [
                'param "width": Input should be a multiple of 8',
                'param "cfg": Input should be a valid',
            ],
        ),
        (["flux", "--param", "promt=x"], ['param "promt": there is no such param', "promt"]),
        (["flux", "--param", "prompt"], ["NAME=VALUE"]),
        (["flux", "--param", "prompt=a", "--param", "prompt=b"], ["each param once"]),
        (["flux-lora", "--param", "prompt=x"], ["exactly one of lora_id, lora_name"]),
        (["flx"], ['there is no workflow "flx"; did you mean "flux"?']),
        (["../x"], ["no workflow"]),
        (["workflow"], ["holds no graph"]),
    ],
)
def test_what_the_endpoint_would_refuse(
    arguments: list[str], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--project", str(ROOT), *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert [words for words in said if words not in output.err] == []


def test_a_faulty_project_is_mended_first(
    make_project: MakeProject, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_project({"it": "graph: {1: {class_type: SaveImag, inputs: {}}}\n"})
    assert main(["export", "it", "--project", str(root)]) == 1
    assert "error[unknown-class]" in capsys.readouterr().out


def test_nothing_stays_behind(capsys: pytest.CaptureFixture[str]) -> None:
    before = [*sys.path]
    export(ROOT, "seedvr2", capsys, "image=x.png")
    assert sys.path == before
    assert [name for name in sys.modules if name.startswith("_exported")] == []


# --- the way back ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARAMS)
def test_an_export_brings_no_change(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every shipped workflow: the spec is the same, byte for byte."""
    shutil.copytree(ROOT / "workflows", tmp_path / "workflows")
    for file in ("gpu.yaml", "models.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    path = save(tmp_path, export(ROOT, name, capsys, *PARAMS[name]))
    before = snapshot(tmp_path)
    assert run_import(tmp_path, path, name, "--update") == 0
    assert snapshot(tmp_path) == before


def test_an_import_comes_back_from_its_export(
    make_project: MakeProject, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also as a new workflow; what it is called does not come from the graph."""
    source = "{hf: Comfy-Org/flux1-schnell, file: flux1-schnell-fp8.safetensors}"
    root = make_project({}, models=f"models: {{a: {{source: {source}, folder: checkpoints}}}}\n")
    assert run_import(root, save(root, text_to_image()), "one") == 0
    capsys.readouterr()
    path = save(root, export(root, "one", capsys), "graph.json")
    assert run_import(root, path, "two") == 0
    assert without_comments(written(root, "two")) == without_comments(written(root, "one"))


def without_comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


@pytest.mark.parametrize("name", sorted(templates())[::6])
def test_templates_come_back_from_their_export(
    name: str, make_project: MakeProject, capsys: pytest.CaptureFixture[str]
) -> None:
    """The import of an export gives the same params and the same graph."""
    root = make_project({})
    assert run_import(root, save(root, templates()[name]), "one") == 0
    one = load_project(root)[0].workflows["one"]
    media = [f"{name}={name}.png" for name, p in one.params.items() if p.required]
    capsys.readouterr()
    path = save(root, export(root, "one", capsys, *media))
    assert run_import(root, path, "two") == 0
    two = load_project(root)[0].workflows["two"]
    assert meaning(two) == meaning(one)
    assert run_import(root, path, "one", "--update") == 0
    assert load_text(written(root, "one"), "one")[0] is not None


def meaning(workflow: Workflow) -> Any:
    output = workflow.output and (workflow.output.nodes, workflow.output.param)
    graph = {
        node.id: (node.class_type, {name: value.value for name, value in node.inputs.items()})
        for node in workflow.graph.values()
    }
    return workflow.params, graph, output
