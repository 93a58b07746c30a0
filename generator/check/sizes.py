"""Sizes that a workflow has by default, against the limits of gpu.yaml."""

from typing import Any

from ..diagnostics import Diagnostic, Severity
from ..graph.records import Link
from ..graph.sizes import sizes
from ..slots import Template
from ..spec import InputValue, Limits, Workflow


def check_sizes(workflow: Workflow, limits: Limits) -> list[Diagnostic]:
    """Return the nodes that make more by default than a caller may ask for.

    Where no param has a part in it, it is the workflow's own affair, and taken.
    """
    graph = {
        node.id: {"inputs": {name: _number(v, workflow) for name, v in node.inputs.items()}}
        for node in workflow.graph.values()
    }
    faults: list[Diagnostic] = []
    for size in sizes(graph):
        values = [(n, workflow.graph[n.node].inputs[n.input]) for n in size.numbers]
        fed = next(((n, value) for n, value in values if value.slots), None)
        if fed and size.pixels > limits.output_pixels:
            number, value = fed
            message = f"by default it makes {size}; a request that leaves that so is refused"
            hint = f"at most {limits.output_pixels:,} are made: limits.output_pixels in gpu.yaml"
            faults.append(
                value.at.report(
                    Severity.WARNING,
                    "over-limit",
                    message,
                    node=number.node,
                    input=number.input,
                    hint=hint,
                )
            )
    return faults


def _number(value: InputValue, workflow: Workflow) -> Any:
    """Return an input's value when each param has its default; None where that says no number."""
    match value.value:
        case Link(node, output):
            return [node, output]
        case Template() as template:
            names = template.whole.names if template.whole else ()
            param = workflow.params.get(names[0]) if len(names) == 1 else None
            return param.default if param else None
    return value.value
