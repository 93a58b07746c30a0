"""Which nodes of a graph are ever sent to the engine."""

from collections.abc import Mapping

from ..graph.catalog import ClassType
from ..graph.records import Link
from ..spec import InputValue, Workflow


def sent_nodes(workflow: Workflow) -> frozenset[str]:
    """Return the nodes that are sent: without `output` all, else what the chosen ones need."""
    if workflow.output is None:
        return frozenset(workflow.graph)
    return _needed(workflow, list(workflow.output.nodes.values()))


def run_nodes(workflow: Workflow, classes: Mapping[str, ClassType]) -> frozenset[str]:
    """Return the nodes that run: of those that are sent, what some output node needs.

    Nodes whose class is not in `classes`, because it is unknown, may be output nodes.
    """
    if workflow.output:
        return sent_nodes(workflow)
    graph = workflow.graph
    return _needed(workflow, [n for n in graph if n not in classes or classes[n].output_node])


def _needed(workflow: Workflow, outputs: list[str]) -> frozenset[str]:
    """Return what the outputs need, themselves included.

    All nodes come back when there is no output, or one that the graph does not hold: that is
    reported, and should hide nothing else.
    """
    graph = workflow.graph
    if not outputs or any(node not in graph for node in outputs):
        return frozenset(graph)
    keep: set[str] = set()
    pending = outputs
    while pending:
        node_id = pending.pop()
        if node_id not in keep:
            keep.add(node_id)
            sources = (_source(value) for value in graph[node_id].inputs.values())
            pending += [source for source in sources if source in graph]
    return frozenset(keep)


def _source(value: InputValue) -> str | None:
    """Return the node that a value links to, or seems to: a malformed link hides nothing."""
    if isinstance(value.value, Link):
        return value.value.node
    return value.at.items[0].text if value.at.items else None
