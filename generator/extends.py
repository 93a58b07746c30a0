"""`extends`: a workflow as a JSON merge patch (RFC 7396) on another one."""

from collections.abc import Iterable, Mapping
from typing import Final

from .diagnostics import Diagnostic, Severity
from .graph.words import did_you_mean, show
from .load import Node

NOT_INHERITED: Final = ("route", "handler", "summary", "description", "enabled")


def merge(base: Node, patch: Node) -> Node:
    """Return the base with the patch applied; every value keeps the place where it is written."""
    if not isinstance(patch.value, dict):
        return patch
    entries = dict(base.mapping)
    for key, value in patch.value.items():
        if value.value is None:
            entries.pop(key, None)
        else:
            entries[key] = merge(entries[key], value) if key in entries else without_nulls(value)
    return Node(entries, patch.file, patch.line, patch.column, patch.key, patch.text)


def inherited(base: Node) -> Node:
    """Return what a workflow passes on to those that extend it."""
    entries = {key: node for key, node in base.mapping.items() if key not in NOT_INHERITED}
    return Node(entries, base.file, base.line, base.column)


def extended(base: Node, root: Node) -> Node:
    """Return a workflow's tree with what it inherits; nothing of `extends` is left in it."""
    patch = {key: node for key, node in root.mapping.items() if key != "extends"}
    return merge(inherited(base), Node(patch, root.file, root.line, root.column))


def base_of(root: Node) -> str | None:
    """Return the name that a workflow extends, if it extends one."""
    extends = root.mapping.get("extends")
    return extends.value if extends and isinstance(extends.value, str) else None


def bases_first(roots: Mapping[str, Node]) -> list[str]:
    """Return the workflows so that every base stands before what extends it.

    Those whose bases are in a loop, or are not among `roots`, come last.
    """
    depths = {name: len(_chain(name, roots)) for name in roots}
    return sorted(roots, key=lambda name: (depths[name], name))


def check_bases(roots: Mapping[str, Node], names: Iterable[str]) -> list[Diagnostic]:
    """Return loops, bases that do not exist, and what is deleted and is not there.

    `names` are those of all workflows, also of files that could not be loaded.
    """
    known = set(names)
    faults: list[Diagnostic] = []
    for name, root in roots.items():
        base = base_of(root)
        if base is None:
            continue
        at = root.mapping["extends"]
        chain = _chain(name, roots)
        if base not in known:
            hint = did_you_mean(base, known - {name})
            faults.append(at.error("unknown-base", f"no workflow {show(base)}", hint=hint))
        elif base_of(roots.get(chain[-1], root)) == name and name == min(chain):
            loop = " extends ".join((*chain, name))
            faults.append(at.error("extends-loop", f"{loop}: a loop"))
    return faults


def check_nulls(root: Node, base: Node | None) -> list[Diagnostic]:
    """Return nulls that delete nothing: there is no base, or it has no such key."""
    if base is None:
        return _nulls(root)
    return _deletes_nothing(inherited(base), root)


def without_nulls(node: Node) -> Node:
    """Return a tree without the entries that are null."""
    if not isinstance(node.value, dict):
        return node
    entries = {k: without_nulls(v) for k, v in node.value.items() if v.value is not None}
    return Node(entries, node.file, node.line, node.column, node.key, node.text)


def _chain(name: str, roots: Mapping[str, Node]) -> list[str]:
    """Return a workflow, its base, and so on, up to the last or to the start of a loop."""
    chain = [name]
    while chain[-1] in roots:
        base = base_of(roots[chain[-1]])
        if base is None or base in chain:
            break
        chain.append(base)
    return chain


def _nulls(node: Node) -> list[Diagnostic]:
    if node.value is None:
        message = "nothing stands here (null deletes, in a file that extends another)"
        return [node.error("null-value", message, hint="leave the key out, or give a value")]
    if not isinstance(node.value, dict | list):
        return []
    faults: list[Diagnostic] = []
    for key, value in node.mapping.items():
        if value.value is None and ":" in key:
            message = f"{show(key)} is a key of its own: a space is missing after the colon"
            faults.append(value.error("null-value", message, at_key=True))
        else:
            faults += _nulls(value)
    return faults + [fault for item in node.items for fault in _nulls(item)]


def _deletes_nothing(base: Node, patch: Node) -> list[Diagnostic]:
    faults: list[Diagnostic] = []
    for key, value in patch.mapping.items():
        if value.value is None and key not in base.mapping:
            message = f"{show(key)} deletes nothing: the base has no such key"
            hint = did_you_mean(key, base.mapping)
            faults.append(
                value.report(Severity.WARNING, "deletes-nothing", message, hint=hint, at_key=True)
            )
        elif value.mapping:
            below = base.mapping.get(key, Node({}, value.file, value.line, value.column))
            faults += _deletes_nothing(below, value)
        else:
            faults += [fault for item in value.items for fault in _nulls(item)]
    return faults
