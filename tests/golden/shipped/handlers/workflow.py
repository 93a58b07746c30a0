"""Endpoints of the workflow handler.

POST /workflow, from workflows/workflow.yaml.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from fastapi import FastAPI
from pydantic import Field

from ..gateway.backend import Backend
from ..gateway.endpoints import add_endpoint
from ..gateway.service import Endpoint
from ..graph.prompt import with_positive_text
from ..graph.records import Graph
from ..params import Files, Request, WholeGraph


class WorkflowRequest(Request):
    """What POST /workflow takes."""

    workflow: WholeGraph = Field(
        description=(
            "A ComfyUI graph in API format, or a workflow in UI format as the canvas saves it."
        )
    )
    prompt: str | None = Field(
        None,
        max_length=10000,
        description="Replaces the positive text of the graph; the negative stays as it is.",
    )
    files: Files = Field(
        default_factory=dict,
        description="Pictures, videos and sounds that the graph loads, by the names in it.",
    )


def build_workflow_workflow(item: WorkflowRequest | Mapping[str, Any]) -> Graph:
    """Return the graph that POST /workflow runs.

    Any ComfyUI graph.
    """
    item = WorkflowRequest.of(item)
    graph = deepcopy(item.workflow)
    if item.prompt is not None:
        graph = with_positive_text(graph, item.prompt)
    return graph


def setup_workflow_endpoints(app: FastAPI, backend: Backend) -> None:
    """Add POST /workflow to an app."""
    add_endpoint(
        app,
        backend,
        Endpoint(
            name="workflow",
            route="/workflow",
            request=WorkflowRequest,
            build=build_workflow_workflow,
            media_types=["*/*"],
            profile="l40s",
            timeout=1800,
            file="workflows/workflow.yaml",
            summary="Any ComfyUI graph",
            description=(
                "Runs the graph that the caller sends, so it is off unless somebody "
                "switches it on here. Set enabled to true only where every caller is "
                "trusted."
            ),
            graph="workflow",
            enabled=False,
        ),
    )
