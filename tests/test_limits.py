"""Limits of the backend on this machine, and what they count."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from generator.graph.sizes import sizes
from templates.gateway.limits import Rate
from templates.gateway.problems import Problem

from .api_client import import_rendered, in_thread, part, service
from .jobs_contract import GPU_YAML, KEYS, Served, write_project
from .limits_contract import LIMITS_YAML, WORKFLOWS, LimitsContract

PACKAGE = "limits_package"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The project on a preview engine."""
    folder = tmp_path_factory.mktemp("limits")
    project = write_project(folder / "project", gpu=GPU_YAML + LIMITS_YAML, more=WORKFLOWS)
    import_rendered(project, folder / PACKAGE)
    access = part(PACKAGE, "gateway.access").ApiKeys(KEYS)

    @asynccontextmanager
    async def app() -> AsyncIterator[FastAPI]:
        async with service(folder / "base", package=PACKAGE, access=access, pace=0.02) as found:
            yield found.app

    with in_thread(app()) as url:
        yield Served(url)


class TestLocalBackend(LimitsContract):
    """What every backend must do."""


def test_a_rate() -> None:
    """All at once or evenly; what is refused costs nothing."""
    now = 0.0
    rate = Rate(60, lambda: now)

    def take(owner: str, times: int) -> None:
        """Take all that there is."""
        for _ in range(times):
            rate.take(owner)
        with pytest.raises(Problem) as refused:
            rate.take(owner)
        assert refused.value.code == "too-many-requests"
        assert refused.value.headers["Retry-After"] == "1"

    take("ann", 60)
    take("bob", 60)
    now = 0.9
    take("ann", 0)
    now = 1.0
    take("ann", 1)
    now = 1000.0
    take("ann", 60)
    endless = Rate(0)
    for _ in range(1000):
        endless.take("ann")


def node(**inputs: Any) -> dict[str, Any]:
    return {"class_type": "X", "inputs": inputs}


@pytest.mark.parametrize(
    ("graph", "pixels"),
    [
        ({"1": node(width=4, height=5)}, [20]),
        ({"1": node(width=4, height=5, length=3, batch_size=2)}, [120]),
        ({"1": node(width=4, height=5, batch_size=0)}, [20]),
        # As ComfyUI reads numbers.
        ({"1": node(width="4", height=5.9)}, [20]),
        ({"1": node(width=float("inf"), height=5)}, []),
        ({"1": node(width="4" * 5000, height=5)}, []),
        ({"1": node(width="wide", height=5)}, []),
        ({"1": node(width=4)}, []),
        # Through nodes that hold a number.
        ({"1": node(width=["2", 0], height=5), "2": node(value=4)}, [20]),
        ({"1": node(width=["2", 0], height=5), "2": node(any=["3", 0]), "3": node(value=4)}, [20]),
        # What is computed is not known.
        ({"1": node(width=["2", 0], height=5), "2": node(a=4, b=5)}, []),
        ({"1": node(width=["2", 0], height=5)}, []),
        ({"1": node(width=["1", 0], height=5)}, []),
        ({"1": node(width=["2", 0], height=5), "2": node(value=["2", 0])}, []),
        ({"1": node(width=4, height=5, length=["1", 0])}, [20]),
        ({"1": node(empty_latent_width=4, empty_latent_height=5)}, [20]),
    ],
)
def test_what_a_graph_makes(graph: dict[str, Any], pixels: list[int]) -> None:
    assert [size.pixels for size in sizes(graph)] == pixels
