"""Endpoints of the workflow handler.

POST /workflow, from workflows/workflow.yaml.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from pydantic import Field

from ..graph.prompt import with_positive_text
from ..graph.records import Graph
from ..params import Request, WholeGraph


class WorkflowRequest(Request):
    """What POST /workflow takes."""

    workflow: WholeGraph = Field(description="A ComfyUI graph in API format.")
    prompt: str | None = Field(
        None, description="Replaces the positive text of the graph; the negative stays as it is."
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
