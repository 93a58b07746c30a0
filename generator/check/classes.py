"""Which class each node of a workflow is, and which packs bring them."""

from collections.abc import Mapping
from typing import Final

from ..diagnostics import Diagnostic
from ..graph.catalog import Catalog, ClassType
from ..graph.classes import how_to_spell, nearest_class
from ..graph.records import Link
from ..graph.words import misspelt, show
from ..slots import has_slot
from ..spec import GraphNode, Models, Workflow
from .reach import run_nodes

# What is used is not known while one of these is there.
UNCLEAR: Final = frozenset(("ambiguous-class", "undeclared-pack", "unknown-class"))
# Comparing a name with all classes takes milliseconds.
_MOST_HINTS: Final = 50


def resolve_classes(
    workflow: Workflow, catalog: Catalog, models: Models | None
) -> tuple[dict[str, ClassType], list[Diagnostic]]:
    """Return the class of every node whose class is known, by node id.

    Without `models`, the packs of all catalogs count as declared. A class that nothing defines is of
    a declared pack without node schemas, where there is one: it passes.
    """
    packs = list(models.packs if models else catalog.packs)
    classes: dict[str, ClassType] = {}
    faults: list[Diagnostic] = []
    for node in workflow.graph.values():
        found = catalog.get(node.class_type, packs)
        chosen = [c for c in found if c.pack in workflow.packs] if len(found) > 1 else found
        if len(chosen) == 1:
            classes[node.id] = chosen[0]
        elif found:
            faults.append(_ambiguous(node, found))
        else:
            faults += _unknown(node, catalog, models, with_hint=len(faults) < _MOST_HINTS)
    return classes, faults


def check_links(workflow: Workflow, classes: Mapping[str, ClassType]) -> list[Diagnostic]:
    """Return every link of a node that runs to one which the graph does not hold."""
    if any(has_slot(node) for node in workflow.graph):
        return []  # the node may be there, under an id that was reported
    run = run_nodes(workflow, classes)
    return [
        value.at.items[0].error(
            "dangling-link",
            f"there is no node {show(value.value.node)}",
            node=node.id,
            input=name,
        )
        for node in workflow.graph.values()
        for name, value in node.inputs.items()
        if isinstance(value.value, Link)
        and value.value.node not in workflow.graph
        and node.id in run
    ]


def _ambiguous(node: GraphNode, found: list[ClassType]) -> Diagnostic:
    packs = [definition.pack or "ComfyUI" for definition in found]
    message = f"{' and '.join(packs)} both define class {show(node.class_type)}"
    hint = f"say which is meant, with packs: [{packs[0]}]"
    return node.class_at.error("ambiguous-class", message, node=node.id, hint=hint)


def _unknown(
    node: GraphNode, catalog: Catalog, models: Models | None, *, with_hint: bool
) -> list[Diagnostic]:
    """Return what to say of a class that nothing declared has; a slot was reported before."""
    name = node.class_type
    if has_slot(name):
        return []
    if packs := catalog.packs_with(name):
        header = catalog.packs[packs[0]].header
        message = f"class {show(name)} is in pack {' or '.join(packs)}, which nobody declared"
        hint = (
            "add to packs: in models.yaml: "
            f"{packs[0]}: {{git: {header['repo']}, commit: {header['commit']}}}"
        )
        return [node.class_at.error("undeclared-pack", message, node=node.id, hint=hint)]
    unseen = unseen_packs(catalog, models)
    if not unseen:
        near = nearest_class(name, catalog) if with_hint else None
    elif spelt := misspelt(name, catalog.names(models.packs if models else ())):
        near = how_to_spell(spelt, unseen)
    else:
        return []
    return [node.class_at.error("unknown-class", f"no class {show(name)}", node=node.id, hint=near)]


def unseen_packs(catalog: Catalog, models: Models | None) -> list[str]:
    """Return the declared packs that there are no node schemas of."""
    return [pack for pack in (models.packs if models else ()) if pack not in catalog.packs]
