"""The graphs that a workflow sends: what the engine would refuse in them, or run in vain."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..diagnostics import Diagnostic, Severity
from ..graph.catalog import Catalog, ClassType
from ..graph.check import Finding, Unknown, check_graph
from ..graph.families import Known, check_families
from ..graph.records import Graph, Link, without
from ..slots import Template, has_slot
from ..spec import GraphNode, InputValue, Workflow
from .variants import LeftOut, variants

Lost = frozenset[str | tuple[str, str]]

# With one of them it is not known which nodes the outputs need.
WRONG_LINKS: Final = frozenset(("bad-output-index", "cycle", "dangling-link", "link-type"))
# What classes.py, models.py and variants.py say already, with more to go by.
_SAID: Final = frozenset(("dangling-link", "no-output", "unlisted-file"))
# What the name of an input is to blame for, not its value.
_AT_KEY: Final = frozenset(("frontend-input", "unknown-input"))


def check_graphs(
    workflow: Workflow,
    classes: Mapping[str, ClassType],
    left_out: Mapping[str, LeftOut],
    catalog: Catalog,
    families: Known,
) -> list[Diagnostic]:
    """Return what is wrong with the graphs that a workflow may send, each thing once.

    `families` are those that models.yaml declares, by folder/file.

    A variant that leaves out more is a part of one that leaves out less, and what is wrong with a
    part is wrong with the whole. So the graph as written is looked at first, with all that it can
    hold; what is found there counts once it is seen in one of the fullest variants too, for the
    graph as written is never sent when params exclude each other.
    """
    if workflow.graph_param is not None:
        return []
    graph = plain_graph(workflow)
    outputs = set(workflow.output.nodes.values()) if workflow.output else None

    def faults(graph: Graph) -> list[Finding]:
        found = check_graph(graph, classes, catalog, outputs=outputs)
        return [*found, *check_families(graph, classes, families, outputs=outputs)]

    whole = [finding for finding in faults(graph) if _is_news(finding)]
    in_vain = [finding for finding in whole if finding.code == "unreachable"]
    possible = {_place(finding) for finding in whole if finding.code != "unreachable"}
    found: dict[Finding, None] = {}
    unseen = set(possible)
    for lost in _losses(workflow, left_out) if unseen else ():
        here = faults(without(graph, *lost))
        seen = [finding for finding in here if _place(finding) in possible]
        found |= dict.fromkeys(seen)
        unseen -= {_place(finding) for finding in seen}
        if not unseen:
            break
    if not any(has_slot(node) for node in graph):
        found |= dict.fromkeys(in_vain)
    return [
        _placed(workflow.graph[finding.node or ""], finding)
        for finding in found
        if not _is_reported(workflow.graph[finding.node or ""], finding)
    ]


def _is_news(finding: Finding) -> bool:
    return finding.code not in _SAID


def _place(finding: Finding) -> tuple[str, str | None, str | None]:
    return finding.code, finding.node, finding.input


def _is_reported(node: GraphNode, finding: Finding) -> bool:
    """Say whether a fault comes from a slot in the name of an input, which was reported."""
    return finding.code in ("missing-input", "unknown-input") and any(map(has_slot, node.inputs))


def plain_graph(workflow: Workflow) -> Graph:
    """Return the graph as the engine gets it, but for values that params give."""
    return {
        node.id: {
            "class_type": node.class_type,
            "inputs": {name: _plain_value(workflow, at) for name, at in node.inputs.items()},
        }
        for node in workflow.graph.values()
    }


def _plain_value(workflow: Workflow, value: InputValue) -> Any:
    """Return an input's value; one with a faulty slot, which was reported, is not known."""
    written = value.at.value
    is_faulty = (
        (value.value is None and written is not None)
        or (isinstance(value.value, str) and value.value == written and has_slot(value.value))
        or any(
            len(slot.names) == 1 and workflow.params[slot.names[0]].may_be_absent
            for slot in value.nested_slots
            if slot.names[0] in workflow.params
        )
    )
    return Unknown() if is_faulty else _filled(value.value)


def _filled(value: Any) -> Any:
    if isinstance(value, Template):
        return Unknown()
    if isinstance(value, Link):
        return [value.node, value.output]
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items()}
    return [_filled(item) for item in value] if isinstance(value, list) else value


def _losses(workflow: Workflow, left_out: Mapping[str, LeftOut]) -> Iterator[Lost]:
    """Yield the nodes and inputs that each of the fullest variants lacks."""
    seen: list[frozenset[str]] = []
    yielded: set[Lost] = set()
    for absent in sorted({v.absent for v in variants(workflow)}, key=lambda a: (len(a), sorted(a))):
        if any(fuller <= absent for fuller in seen):
            continue
        seen.append(absent)
        lost: Lost = frozenset[str | tuple[str, str]]().union(
            *(left_out[name].nodes for name in absent),
            *(left_out[name].inputs for name in absent),
        )
        if lost not in yielded:
            yielded.add(lost)
            yield lost


def _placed(node: GraphNode, finding: Finding) -> Diagnostic:
    at, at_key = node.class_at, False
    if finding.code == "unreachable":
        at, at_key = node.at, True
    elif finding.input in node.inputs:
        at, at_key = node.inputs[finding.input].at, finding.code in _AT_KEY
    if finding.code == "bad-output-index":
        at = at.items[1]
    return at.report(
        Severity(finding.severity),
        finding.code,
        finding.message,
        node=finding.node,
        input=finding.input,
        hint=finding.hint,
        at_key=at_key,
    )
