"""A model file that is to be uploaded, against the workflows that callers may name it in."""

from dataclasses import dataclass
from typing import Any

from ..graph.families import Families, Known, check_families
from ..slots import Template
from ..spec import Workflow
from . import Checked, CheckedWorkflow
from .graphs import plain_graph
from .models import families_of


@dataclass(frozen=True, slots=True)
class Fit:
    """A workflow that takes files of a folder from its callers; `misfit` says why not this one."""

    workflow: Workflow
    misfit: str | None


def check_upload(checked: Checked, folder: str, name: str, families: Families | None) -> list[Fit]:
    """Return the workflows with a param of type model for this folder, and whether the file fits.

    `families` are those of the file; with None its name is asked.
    """
    known: Known = families_of(checked.models)
    if families is not None:
        known = {**known, f"{folder}/{name}": families}
    fits: list[Fit] = []
    for one in checked.workflows:
        params = {p.name for p in one.workflow.params.values() if p.folder == folder}
        if params:
            fits.append(Fit(one.workflow, _misfit(one, params, name, known)))
    return fits


def _misfit(one: CheckedWorkflow, params: set[str], name: str, known: Known) -> str | None:
    graph: dict[str, Any] = plain_graph(one.workflow)
    for node in one.workflow.graph.values():
        for taken, value in node.inputs.items():
            whole = value.value.whole if isinstance(value.value, Template) else None
            if whole is not None and params.intersection(whole.names):
                graph[node.id]["inputs"][taken] = name
    outputs = set(one.workflow.output.nodes.values()) if one.workflow.output else None
    found = next(check_families(graph, one.classes, known, outputs=outputs), None)
    return found.message if found else None
