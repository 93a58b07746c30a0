"""`lint --no-models` beside the verdicts of a real ComfyUI on 943 graphs, most with a planted fault.

Originals are official templates (MIT) in API format; each verdict is that of ComfyUI, with empty
files for models. What lint refuses besides is planted too: inputs that a class does not have,
options that it does not offer, values where only a link makes sense.
"""

import gzip
import json
from typing import Any

import pytest

from generator.cli import main

from .conftest import ROOT

CORPUS: list[dict[str, Any]] = json.loads(
    gzip.decompress((ROOT / "tests" / "fixtures" / "corpus.json.gz").read_bytes())
)
PLANTED = {"unknown_input", "bad_combo_v3", "literal_for_link"}
# Faults behind one of several outputs: the engine runs the others, and says nothing of it.
SILENT = {"cycle"}

Errors = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Errors]:
    """The errors of each graph, by one command for all."""
    folder = tmp_path_factory.mktemp("corpus")
    paths = [folder / f"{number}.json" for number in range(len(CORPUS))]
    for path, case in zip(paths, CORPUS, strict=True):
        path.write_text(json.dumps(case["graph"]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        report = folder / "report"
        with report.open("w", encoding="utf-8") as stream:
            patch.setattr("sys.stdout", stream)
            main(["lint", "--no-models", "--format", "json", "--quiet", *map(str, paths)])
    by_file = {one["file"]: one["diagnostics"] for one in json.loads(report.read_text("utf-8"))}
    return [by_file.get(str(path), []) for path in paths]


def refused(case: dict[str, Any]) -> bool:
    verdict = case["verdict"]
    return not verdict["valid"] or bool(verdict["node_errors"])


def missed(case: dict[str, Any], errors: Errors) -> bool:
    """Say whether nothing is reported at the node of the planted fault, if one is named."""
    places = {error["node"] for error in errors}
    node = (case.get("where") or {}).get("node")
    return not errors or (node is not None and node not in places)


def test_what_the_engine_refuses_is_refused_there(found: list[Errors]) -> None:
    cases = [(c, errors) for c, errors in zip(CORPUS, found, strict=True) if refused(c)]
    assert len(cases) > 500
    assert [(c["name"], c["kind"]) for c, errors in cases if missed(c, errors)] == []


@pytest.mark.parametrize("kind", sorted(PLANTED))
def test_planted_faults_that_the_engine_accepts_are_found(kind: str, found: list[Errors]) -> None:
    cases = [(c, errors) for c, errors in zip(CORPUS, found, strict=True) if c["kind"] == kind]
    assert len(cases) > 30
    assert [c["name"] for c, errors in cases if missed(c, errors)] == []


def test_what_the_engine_accepts_is_clean(found: list[Errors]) -> None:
    """But for nodes that call a vendor's API."""
    accepted = [
        (case, {error["code"] for error in errors} - {"api-node"})
        for case, errors in zip(CORPUS, found, strict=True)
        if not refused(case) and case["kind"] not in PLANTED | SILENT
    ]
    assert sum(case["kind"] == "original" for case, _ in accepted) == 62
    assert [(c["name"], c["kind"], codes) for c, codes in accepted if codes] == []


def test_a_fault_behind_one_of_several_outputs(found: list[Errors]) -> None:
    cases = [e for c, e in zip(CORPUS, found, strict=True) if c["kind"] == "cycle"]
    assert [{error["code"] for error in errors} - {"api-node"} for errors in cases] == (
        [{"cycle"}] * len(cases)
    )
