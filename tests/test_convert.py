"""UI format to API format: graphs equal to those that ComfyUI's own frontend exports."""

import gzip
import json
from pathlib import Path
from typing import Any, Final

import pytest

from generator.cli import main
from generator.graph.catalog import open_catalog
from generator.graph.convert import convert
from generator.project import CATALOGS

from .conftest import ROOT

CATALOG: Final = open_catalog(CATALOGS, version="0.3.71")


def pairs(name: str) -> dict[str, dict[str, Any]]:
    """Return workflows by name, each in UI format and as the frontend exports it."""
    packed = (ROOT / "tests" / "fixtures" / f"{name}.json.gz").read_bytes()
    found: dict[str, dict[str, Any]] = json.loads(gzip.decompress(packed))
    return found


PAIRS: Final = pairs("conversions")
ALL_PAIRS: Final = PAIRS | pairs("conversions-more")


def declared(graph: dict[str, Any]) -> dict[str, Any]:
    """Return a graph with the inputs that the classes declare, and no others."""
    found = {}
    for node, content in graph.items():
        [class_type, *_] = CATALOG.get(content["class_type"], CATALOG.packs)
        inputs = content["inputs"].items()
        found[node] = {
            "class_type": content["class_type"],
            "inputs": {name: value for name, value in inputs if name in class_type.inputs},
        }
    return found


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_a_template_becomes_what_the_frontend_exports(name: str) -> None:
    pair = ALL_PAIRS[name]
    made = convert(pair["ui"], CATALOG)
    assert not [f for f in made.findings if f.severity == "error"]
    assert declared(made.graph) == declared(pair["api"])
    assert list(made.graph) == list(pair["api"])
    assert list(made.canvas) == list(made.graph)


def test_api_format_passes_through() -> None:
    [graph, *_] = [pair["api"] for pair in PAIRS.values()]
    assert convert(graph, CATALOG).graph is graph


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two workflows, and the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, pair in list(PAIRS.items())[:2]:
        (tmp_path / f"{name}.ui.json").write_text(json.dumps(pair["ui"]))
    return tmp_path


def test_one_file_goes_to_standard_output(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, pair = next(iter(PAIRS.items()))
    assert main(["convert", f"{name}.ui.json"]) == 0
    shown = capsys.readouterr()
    assert declared(json.loads(shown.out)) == declared(pair["api"])
    assert shown.err == ""
    assert len(list(here.iterdir())) == 2


def test_the_packs_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "nodes": [
            {"id": 1, "type": "PulidFluxEvaClipLoader"},
            {"id": 2, "type": "SomethingToString"},
        ]
    }
    document["nodes"][1]["widgets_values"] = ["", ""]
    (here / "a.json").write_text(json.dumps(document))
    assert main(["convert", "a.json"]) == 0
    packs = "ComfyUI-KJNodes, ComfyUI-PuLID-Flux or ComfyUI_PuLID_Flux_ll"
    assert capsys.readouterr().err == f"a.json needs {packs}\n"


def test_files_go_into_a_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of an error is left out, the others are written."""
    names = list(PAIRS)[:2]
    (here / "bad.json").write_text('{"nodes": [{"id": 5, "type": "NoSuchThing"}], "version": 0.4}')
    files = [*(f"{name}.ui.json" for name in names), "bad.json"]
    assert main(["convert", *files, "-o", "graphs/api"]) == 1
    written = {path.name: json.loads(path.read_text()) for path in Path("graphs/api").iterdir()}
    assert set(written) == {f"{name}.api.json" for name in names}
    for name in names:
        assert declared(written[f"{name}.api.json"]) == declared(PAIRS[name]["api"])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert 'bad.json:1:12: error[unknown-class] node "5": no class "NoSuchThing"' in shown.err


def test_what_convert_refuses(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{name}.ui.json" for name in list(PAIRS)[:2]]
    assert main(["convert", *names]) == 2
    assert "-o DIR" in capsys.readouterr().err
    (here / "other").mkdir()
    (here / "other" / names[0]).write_text("{}")
    assert main(["convert", names[0], f"other/{names[0]}", "-o", "out"]) == 2
    assert "would both become" in capsys.readouterr().err
    (here / "file").write_text("")
    assert main(["convert", names[0], "-o", "file"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_lint_takes_ui_format(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Diagnostics name nodes by the ids of the graph, and stand where the file has the node."""
    text = json.dumps(PAIRS["video_wan2_2_14B_s2v"]["ui"], indent=1)
    (here / "a.json").write_text(text)
    assert main(["lint", "--no-models", "a.json"]) == 0
    (here / "a.json").write_text(
        text.replace('"euler"', '"eular"', 1).replace('"uni_pc"', '"eular"')
    )
    capsys.readouterr()
    assert main(["lint", "--no-models", "--format", "json", "a.json"]) == 1
    [one] = json.loads(capsys.readouterr().out)
    found = one["diagnostics"][0]
    assert (found["code"], found["input"]) == ("not-an-option", "sampler_name")
    lines = (here / "a.json").read_text().splitlines()
    assert '"id"' in lines[found["line"]]
