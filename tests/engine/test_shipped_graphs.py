"""The graphs of the shipped endpoints, offered to a real ComfyUI.

There are no weights: empty files stand in for the models, which is enough for the engine to say
whether it takes a graph. Nodes of packs, which this ComfyUI has not, are left out.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from generator.graph.catalog import Catalog, open_catalog
from generator.graph.records import Graph, links
from generator.project import load_project
from tests.api_client import png
from tests.conftest import ROOT
from tests.engine.conftest import Installed
from tests.test_handlers import BODIES, endpoint

CATALOG: Catalog = open_catalog(ROOT / "generator" / "catalogs", version="0.3.71")


@pytest.fixture(scope="module")
def stocked(engine: Installed) -> Iterator[str]:
    """An engine that has a file for every model and picture that the graphs name; its URL."""
    models = load_project(ROOT)[0].models
    assert models is not None
    names = [f"models/{model.destination}" for model in models.models.values()]
    loras = [body["lora_name"] for _, body in BODIES.values() if "lora_name" in body]
    pictures = ["input/reference.png", "input/small.png"]
    made = []
    for name in (*names, *(f"models/loras/{lora}" for lora in loras), *pictures):
        path = engine.base / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png() if name in pictures else b"")
            made.append(path)
    yield engine.url
    for path in made:
        path.unlink()


def built(name: str) -> Graph:
    route, body = BODIES[name]
    _, build = endpoint(route)
    graph: Graph = json.loads(json.dumps(build(body)))
    return graph


def core_part(graph: Graph) -> Graph:
    """Return a graph without the nodes of packs.

    What they made comes from the nearest node before them that makes something of the same type.
    """

    def class_of(node: str) -> Any:
        return CATALOG.get(graph[node]["class_type"], CATALOG.packs)[0]

    def stand_in(node: str, output: int) -> list[Any]:
        wanted = class_of(node).outputs[output].type
        pending = [link.node for _, link in links(graph[node]["inputs"])]
        for found in pending:
            class_type = class_of(found)
            if class_type.pack is None:
                for number, made in enumerate(class_type.outputs):
                    if made.type == wanted:
                        return [found, number]
            pending += [link.node for _, link in links(graph[found]["inputs"])]
        raise AssertionError(f"nothing before node {node} makes {wanted}")

    core = {node: graph[node] for node in graph if class_of(node).pack is None}
    for content in core.values():
        for name, link in [*links(content["inputs"])]:
            if link.node not in core:
                content["inputs"][name] = stand_in(link.node, link.output)
    return core


@pytest.mark.parametrize("name", BODIES)
def test_the_core_part_is_accepted(stocked: str, name: str) -> None:
    graph = core_part(built(name))
    assert len(graph) > 1
    with httpx.Client(base_url=stocked, timeout=60) as client:
        answer = client.post("/prompt", json={"prompt": graph})
        assert answer.status_code == 200, answer.text
        assert answer.json()["node_errors"] == {}
        client.post("/queue", json={"delete": [answer.json()["prompt_id"]]})
        client.post("/interrupt")
        limit = time.monotonic() + 60
        while any(client.get("/queue").json().values()):
            assert time.monotonic() < limit
            time.sleep(0.05)
