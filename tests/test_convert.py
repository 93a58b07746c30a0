"""UI format to API format: graphs equal to those that ComfyUI's own frontend exports."""

import gzip
import json
from typing import Any, Final

import pytest

from generator.graph.catalog import open_catalog
from generator.graph.convert import convert
from generator.project import CATALOGS

from .conftest import ROOT

CATALOG: Final = open_catalog(CATALOGS, version="0.3.71")
PAIRS: Final[dict[str, dict[str, Any]]] = json.loads(
    gzip.decompress((ROOT / "tests" / "fixtures" / "conversions.json.gz").read_bytes())
)


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


@pytest.mark.parametrize("name", PAIRS)
def test_a_template_becomes_what_the_frontend_exports(name: str) -> None:
    made = convert(PAIRS[name]["ui"], CATALOG)
    assert not [f for f in made.findings if f.severity == "error"]
    assert declared(made.graph) == declared(PAIRS[name]["api"])
    assert list(made.graph) == list(PAIRS[name]["api"])
    assert list(made.canvas) == list(made.graph)


def test_api_format_passes_through() -> None:
    [graph, *_] = [pair["api"] for pair in PAIRS.values()]
    assert convert(graph, CATALOG).graph is graph
