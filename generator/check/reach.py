"""Which nodes of a graph are ever sent to the engine."""

from ..graph.records import Link
from ..spec import Workflow


def sent_nodes(workflow: Workflow) -> frozenset[str]:
    """Return the nodes that some output needs; without `output`, every node is sent.

    A node that `output` names and the graph does not hold is passed over.
    """
    if workflow.output is None:
        return frozenset(workflow.graph)
    keep: set[str] = set()
    pending = [node for node in workflow.output.nodes.values() if node in workflow.graph]
    while pending:
        node_id = pending.pop()
        if node_id in keep:
            continue
        keep.add(node_id)
        links = (value.value for value in workflow.graph[node_id].inputs.values())
        pending += [
            link.node for link in links if isinstance(link, Link) and link.node in workflow.graph
        ]
    return frozenset(keep)
