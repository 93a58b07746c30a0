"""The graph checks beside a real ComfyUI, on graphs that nobody has seen before.

MUTANTS says how many, SEED which.
"""

import gzip
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from generator.graph.catalog import Catalog, Input, open_catalog
from generator.graph.check import Finding, check_graph
from generator.graph.classes import resolve_classes
from generator.graph.values import misfit
from tests.conftest import ROOT
from tests.engine.conftest import Installed
from tests.engine.install import COMFYUI_VERSION
from tests.engine.mutants import Graph, mutants

COUNT = int(os.environ.get("MUTANTS", "2000"))
SEED = int(os.environ.get("SEED", "0"))
# What only these checks refuse; the engine ignores it, or fails when it gets there.
STRICTER = {"unknown-input", "literal-for-link", "not-an-option", "unlisted-file"}
# Where the options of an input are not checked by the engine, these too.
UNCHECKED = {"literal-type"}
CORPUS = json.loads(gzip.decompress((ROOT / "tests" / "fixtures" / "corpus.json.gz").read_bytes()))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The stored schemas of the engine itself."""
    folder = tmp_path_factory.mktemp("catalogs")
    name = f"comfyui-{COMFYUI_VERSION}.jsonl"
    (folder / name).write_bytes((Path(__file__).parent / name).read_bytes())
    return open_catalog(folder, version=COMFYUI_VERSION)


@pytest.fixture(scope="module")
def originals(catalog: Catalog) -> list[Graph]:
    """Official templates whose classes this engine has."""
    return [
        case["graph"]
        for case in CORPUS
        if case["kind"] == "original"
        and all(node["class_type"] in catalog.core for node in case["graph"].values())
    ]


@pytest.fixture(scope="module")
def stocked(engine: Installed, catalog: Catalog, originals: list[Graph]) -> Iterator[httpx.Client]:
    """An engine with an empty file for each that the templates name, busy while it is asked.

    It takes and refuses graphs at once, and would run those that it takes.
    """
    made: list[Path] = []
    for node in (node for graph in originals for node in graph.values()):
        [class_type] = catalog.get(node["class_type"], ())
        for name, value in node["inputs"].items():
            taken = class_type.inputs.get(name)
            if taken is None or not isinstance(value, str):
                continue
            paths = [engine.base / "models" / folder / value for folder in taken.folders[:1]]
            paths += [engine.base / "input" / value] if taken.media else []
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                made.append(path)
    sleeping = {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0},
        },
        "2": {
            "class_type": "ProbeSleep",
            "inputs": {"image": ["1", 0], "steps": 100_000, "seconds": 0.1, "preview": False},
        },
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    with httpx.Client(base_url=engine.url, timeout=60) as client:
        client.post("/prompt", json={"prompt": sleeping}).raise_for_status()
        yield client
        client.post("/queue", json={"clear": True}).raise_for_status()
        client.post("/interrupt").raise_for_status()
    for path in made:
        path.unlink(missing_ok=True)


def is_about_files(taken: Input | None, value: object) -> bool:
    """Say whether an engine's complaint is that a file is not there, which lint does not ask."""
    return (
        taken is not None
        and bool(taken.folders or taken.media)
        and not misfit(taken, value, frozenset)
    )


class Verdict:
    """What the engine says of a graph: whether it refuses any of it, and at which nodes."""

    def __init__(self, graph: Any, answer: httpx.Response, catalog: Catalog) -> None:
        body = answer.json() if answer.status_code in (200, 400) else {}
        self.nodes: set[str] = set()
        only_files = bool(body.get("node_errors"))
        for node, found in body.get("node_errors", {}).items():
            inputs = graph[node].get("inputs")
            known = catalog.get(found["class_type"], ())
            for error in found["errors"]:
                name = error.get("extra_info", {}).get("input_name")
                taken = known[0].inputs.get(name) if known else None
                is_file = error["type"] in ("value_not_in_list", "custom_validation_failed")
                value = inputs.get(name) if isinstance(inputs, dict) else None
                if is_file and is_about_files(taken, value):
                    continue
                only_files = False
                # Else the engine repeats what it says of a node further up.
                if error["type"] not in ("exception_during_inner_validation",):
                    self.nodes.add(node)
        is_partly = answer.status_code == 200 and bool(body.get("node_errors"))
        self.refused = not only_files and (answer.status_code != 200 or is_partly)
        self.text = answer.text[:400]


def is_stricter(finding: Finding, graph: Any, catalog: Catalog) -> bool:
    if finding.code not in UNCHECKED:
        return finding.code in STRICTER
    [class_type] = catalog.get(graph[finding.node]["class_type"], ())
    taken = class_type.inputs[finding.input or ""]
    return taken.type == "COMBO" and not taken.checked


def disagreement(
    graph: Any, findings: list[Finding], verdict: Verdict, catalog: Catalog
) -> str | None:
    errors = [finding for finding in findings if finding.severity == "error"]
    if verdict.refused and not errors:
        return "missed"
    if missed := verdict.nodes - {finding.node for finding in errors}:
        return f"missed at {sorted(missed)}"
    if not verdict.refused and not all(is_stricter(error, graph, catalog) for error in errors):
        return "false alarm"
    return None


def asked(client: httpx.Client, graph: Graph) -> httpx.Response:
    # As ComfyUI's own clients write it: NaN and Infinity are JSON to Python.
    return client.post("/prompt", content=json.dumps({"prompt": graph}))


def lint(graph: Graph, catalog: Catalog) -> list[Finding]:
    classes, findings = resolve_classes(graph, catalog, ())
    return [*findings, *check_graph(graph, classes, catalog)]


def test_mutants(stocked: httpx.Client, catalog: Catalog, originals: list[Graph]) -> None:
    """What the engine refuses is refused at the same nodes, and what it takes is clean."""
    dice = random.Random(SEED)
    names = catalog.names()
    assert len(originals) > 30
    wrong: list[dict[str, Any]] = []
    for number, graph in enumerate([{}, *originals]):
        verdict = Verdict(graph, asked(stocked, graph), catalog)
        kinds = mutants(graph, names, dice, COUNT // len(originals)) if number else iter(())
        for mutant in (graph, *kinds):
            verdict = Verdict(mutant, asked(stocked, mutant), catalog)
            found = lint(mutant, catalog)
            if why := disagreement(mutant, found, verdict, catalog):
                said = [(f.code, f.node, f.input) for f in found if f.severity == "error"]
                wrong.append({"why": why, "engine": verdict.text, "lint": said, "graph": mutant})
        stocked.post("/queue", json={"clear": True}).raise_for_status()
    if wrong and (report := os.environ.get("REPORT")):
        Path(report).write_text(json.dumps(wrong, indent=1), encoding="utf-8")
    assert [(one["why"], one["engine"], one["lint"]) for one in wrong] == []
