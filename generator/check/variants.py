"""The variants of a workflow: which graph is sent when optional params are absent."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, islice, product
from math import prod
from typing import Final

from ..diagnostics import Diagnostic
from ..graph.catalog import ClassType
from ..graph.records import Link
from ..graph.words import did_you_mean, show
from ..spec import Workflow

# Up to here every combination is looked at; beyond it none, each, each pair, and all that can go.
MAX_VARIANTS: Final = 512
_SHOWN_NAMES: Final = 12


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What the absence of one param leaves out of the graph."""

    nodes: tuple[str, ...]
    inputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """One graph that may be sent: params that are absent, and the value that chose the output."""

    absent: frozenset[str]
    choice: str | None = None


def left_out(workflow: Workflow, classes: Mapping[str, ClassType], param: str) -> LeftOut:
    """Return what is left out of the graph when a param is absent.

    An input whose whole value is the param's slot goes; a node that loses a required input goes,
    and so on along the links. An input or node goes when any of its reasons holds, so the
    absence of several params leaves out just what each of them does.
    """
    inputs: set[tuple[str, str]] = set()
    nodes: set[str] = set()
    pending: list[tuple[str, str]] = []
    consumers: dict[str, list[tuple[str, str]]] = {}
    for node in workflow.graph.values():
        for name, value in node.inputs.items():
            if isinstance(value.value, Link):
                consumers.setdefault(value.value.node, []).append((node.id, name))
            if any(whole and slot.names == (param,) for slot, whole in value.slots):
                pending.append((node.id, name))
    while pending:
        node_id, name = pending.pop()
        inputs.add((node_id, name))
        if node_id not in nodes and _requires(classes.get(node_id), name):
            nodes.add(node_id)
            pending += consumers.get(node_id, [])
    return LeftOut(
        tuple(node for node in workflow.graph if node in nodes),
        tuple(
            (node.id, name)
            for node in workflow.graph.values()
            for name in node.inputs
            if node.id not in nodes and (node.id, name) in inputs
        ),
    )


def variants(workflow: Workflow) -> Iterator[Variant]:
    """Yield the variants of a workflow, the fullest first."""
    choices: list[str | None] = [None]
    if workflow.output and workflow.output.param:
        choices = list(workflow.output.nodes)
    for absent in _absences(workflow):
        for choice in choices:
            yield Variant(absent, choice)


def check_variants(
    workflow: Workflow, classes: Mapping[str, ClassType]
) -> tuple[dict[str, LeftOut], list[Diagnostic]]:
    """Return what each param leaves out that may be absent, and what is wrong with that."""
    faults = _check_output(workflow, classes)
    absent = [param.name for param in workflow.params.values() if param.may_be_absent]
    gone = {name: left_out(workflow, classes, name) for name in absent}
    if faults or workflow.graph_param is not None:
        return gone, faults
    unknown = any(node not in classes for node in workflow.graph)
    reported: list[frozenset[str]] = []
    for variant in sorted(variants(workflow), key=lambda v: len(v.absent)):
        if any(seen <= variant.absent for seen in reported):
            continue
        lost = {node for name in variant.absent for node in gone[name].nodes}
        if outputs(workflow, classes, variant.choice) <= lost and not unknown:
            reported.append(variant.absent)
            faults.append(_no_output(workflow, variant))
    return gone, faults


def outputs(
    workflow: Workflow, classes: Mapping[str, ClassType], choice: str | None = None
) -> set[str]:
    """Return the nodes that a run is for: the chosen one, or all output nodes."""
    if workflow.output:
        return {workflow.output.nodes[choice or ""]}
    return {node for node, class_type in classes.items() if class_type.output_node}


def _absences(workflow: Workflow) -> Iterator[frozenset[str]]:
    optional = [param.name for param in workflow.params.values() if param.optional]
    known = [[name for name in group if name in workflow.params] for group in workflow.one_of]
    groups = [[frozenset(group) - {name} for name in group] for group in known if group]
    choices = [[frozenset[str](), frozenset((name,))] for name in optional] + groups
    if prod(len(choice) for choice in choices) <= MAX_VARIANTS:
        for chosen in product(*choices):
            yield frozenset[str]().union(*chosen)
        return
    for chosen in islice(product(*groups), MAX_VARIANTS):
        yield frozenset(optional).union(*chosen)
    others = [(i, other) for i, choice in enumerate(choices) for other in choice[1:]]
    for few in ((), *combinations(others, 1), *combinations(others, 2)):
        chosen_others = dict(few)
        yield frozenset[str]().union(
            *(chosen_others.get(i, choice[0]) for i, choice in enumerate(choices))
        )


def _requires(class_type: ClassType | None, name: str) -> bool:
    return (
        class_type is not None
        and name in class_type.inputs
        and not class_type.inputs[name].optional
    )


def _check_output(workflow: Workflow, classes: Mapping[str, ClassType]) -> list[Diagnostic]:
    output = workflow.output
    if output is None:
        return []
    if workflow.graph_param is not None:
        return [output.at.error("bad-output", "the caller's graph has its own output nodes")]
    faults: list[Diagnostic] = []
    places = output.at.mapping["nodes"].mapping if output.param else {"": output.at}
    for value, node_id in output.nodes.items():
        at = places[value]
        if node_id not in workflow.graph:
            hint = did_you_mean(node_id, workflow.graph)
            faults.append(at.error("bad-output", f"no node {show(node_id)}", hint=hint))
        elif node_id in classes and not classes[node_id].output_node:
            class_type = classes[node_id].name
            message = f"node {show(node_id)} ({class_type}) is no output node: nothing runs for it"
            hint = "name a node that saves or previews, such as SaveImage"
            faults.append(at.error("bad-output", message, hint=hint))
    return faults + _check_output_param(workflow)


def _check_output_param(workflow: Workflow) -> list[Diagnostic]:
    output = workflow.output
    if output is None or output.param is None:
        return []
    at = output.at.mapping["param"]
    param = workflow.params.get(output.param)
    if param is None:
        hint = did_you_mean(output.param, workflow.params)
        return [at.error("unknown-param", f"no param {show(output.param)}", hint=hint)]
    is_plain = param.type == "string" and not (param.prefix or param.suffix or param.strip)
    if not is_plain or param.may_be_absent or not param.enum:
        message = f"param {show(param.name)} must be a plain string with an enum, always present"
        return [at.error("bad-output", message)]
    if set(param.enum) != set(output.nodes):
        message = f"nodes has other keys than the enum of param {show(param.name)}"
        hint = f"give a node for each of {', '.join(map(str, param.enum))}"
        return [output.at.mapping["nodes"].error("bad-output", message, hint=hint, at_key=True)]
    return []


def _no_output(workflow: Workflow, variant: Variant) -> Diagnostic:
    names = sorted(variant.absent)
    shown = [show(name) for name in names[:_SHOWN_NAMES]]
    shown += [f"{len(names) - _SHOWN_NAMES} more"] if len(names) > _SHOWN_NAMES else []
    message = f"without {' and '.join(shown)}, no output node is left"
    hint = "make it required, or feed it to an input that may be left out"
    if names and (group := workflow.params[names[0]].group):
        hint = f"write ${{{'|'.join(group)}}} for the one that is given"
    if not names:
        at = workflow.at.mapping["graph"]
        return at.error("no-output", "no output node: nothing would run", at_key=True)
    return workflow.params[names[0]].at.error("no-output", message, hint=hint, at_key=True)
