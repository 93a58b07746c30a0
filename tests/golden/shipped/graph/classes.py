"""Which class each node of a bare graph is."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from .catalog import Catalog, ClassType, Input
from .check import Finding
from .words import misspelt, nearest, show, some

# Comparing a name with all classes takes milliseconds.
_MOST_HINTS: Final = 20
MAKE_SCHEMAS: Final = "python -m generator catalog --url URL"


def resolve_classes(
    graph: object, catalog: Catalog, packs: Collection[str], *, choose: bool = False
) -> tuple[dict[str, ClassType], list[Finding]]:
    """Return the class of every node whose class is known, by node id, and what is wrong with others.

    `packs` are those that are installed. Where two of them define a class, that is a fault, unless
    `choose`: then the definition counts that the node's inputs fit best. A class that nothing
    defines may be of a pack without node schemas, where there is one: it passes. Nodes that are
    malformed are passed over, for `check_graph` reports them.
    """
    unseen = sorted(set(packs) - catalog.packs.keys())
    classes: dict[str, ClassType] = {}
    faults: list[Finding] = []
    for node, content in graph.items() if isinstance(graph, dict) else ():
        name = content.get("class_type") if isinstance(content, dict) else None
        if not isinstance(name, str):
            continue
        found = catalog.get(name, packs)
        if choose:
            found = sorted(found, key=lambda c: _misfits(c, content.get("inputs")))[:1]
        if len(found) == 1:
            classes[node] = found[0]
        elif found:
            faults.append(_ambiguous(node, found))
        elif packs_with := catalog.packs_with(name):
            faults.append(_not_installed(node, name, packs_with, catalog))
        elif not unseen:
            hint = nearest_class(name, catalog) if len(faults) < _MOST_HINTS else None
            faults.append(
                Finding("unknown-class", "error", f"no class {show(name)}", node, hint=hint)
            )
        elif near := misspelt(name, catalog.names(packs)):
            hint = how_to_spell(near, unseen)
            faults.append(
                Finding("unknown-class", "error", f"no class {show(name)}", node, hint=hint)
            )
    return classes, faults


def _misfits(class_type: ClassType, inputs: Any) -> int:
    given = inputs if isinstance(inputs, Mapping) else {}
    unknown = 0 if class_type.open else len(given.keys() - class_type.inputs.keys())
    needed = {name for name, taken in class_type.inputs.items() if not taken.optional}
    return unknown + len(needed - given.keys())


def _ambiguous(node: str, found: list[ClassType]) -> Finding:
    packs = " and ".join(c.pack or "ComfyUI" for c in found)
    message = f"{packs} both define class {show(found[0].name)}"
    return Finding("ambiguous-class", "error", message, node, hint="install one of them only")


def _not_installed(node: str, name: str, packs: list[str], catalog: Catalog) -> Finding:
    header = catalog.packs[packs[0]].header
    message = f"class {show(name)} is in pack {' or '.join(packs)}, which is not installed"
    repository = f"{header['repo']} at {header['commit']}"
    return Finding("undeclared-pack", "error", message, node, hint=repository)


def how_to_spell(near: str, unseen: Collection[str]) -> str:
    """Return a hint for a class that is nearly one, where a pack without schemas may have it too."""
    packs = " or ".join(unseen)
    return f"did you mean {show(near)}? if {packs} has it, make the pack's schemas: {MAKE_SCHEMAS}"


def without_schemas(packs: Collection[str], classes: Collection[str]) -> tuple[str, str]:
    """Return what to say of packs without node schemas, and a hint; `classes` may be theirs."""
    unchecked = f"classes {some(tuple(sorted(classes)))} go" if classes else "its nodes go"
    message = (
        f"there are no node schemas of pack {' and '.join(map(show, packs))}: {unchecked} unchecked"
    )
    return message, f"make them where it is installed: {MAKE_SCHEMAS}"


def inputs_of(
    graph: Mapping[str, Any], classes: Mapping[str, ClassType]
) -> Iterator[tuple[str, str, Any, Input]]:
    """Yield node, input, value and schema of every input that its class declares, in order."""
    for node, content in graph.items():
        class_type = classes.get(node)
        if class_type is None or not isinstance(content.get("inputs"), Mapping):
            continue
        for name, value in content["inputs"].items():
            if named := class_type.file_input(name, value):
                yield node, name, named[1], named[0]


def nearest_class(name: str, catalog: Catalog) -> str | None:
    """Return a hint that names the class nearest to a wrong name, None when nothing is near."""
    near = nearest(name, catalog.names())
    if near is None:
        return None
    packs = catalog.packs_with(near)
    return f"did you mean {show(near)}" + (f" (pack {packs[0]})?" if packs else "?")
