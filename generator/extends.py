"""`extends`: a workflow as a JSON merge patch (RFC 7396) on another one."""

from collections.abc import Mapping
from typing import Final

from .diagnostics import Diagnostic, Severity, did_you_mean, show
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
            entries[key] = merge(entries[key], value) if key in entries else _without_nulls(value)
    return Node(entries, patch.file, patch.line, patch.column, patch.key, patch.text)


def resolve(roots: Mapping[str, Node]) -> tuple[dict[str, Node], list[Diagnostic]]:
    """Return the workflows with their bases merged in, bases before what extends them.

    `roots` holds the files that loaded, by name. Left out are workflows whose base is missing,
    left out itself or in a loop, and those with a null where nothing can be deleted.
    """
    merged: dict[str, Node] = {}
    faults: list[Diagnostic] = []
    for name in roots:
        faults += _resolve(name, roots, merged, ())
    return merged, faults


def _resolve(
    name: str, roots: Mapping[str, Node], merged: dict[str, Node], below: tuple[str, ...]
) -> list[Diagnostic]:
    if name in merged:
        return []
    root = roots[name]
    extends = root.mapping.get("extends")
    if extends is None:
        faults = _nulls(root)
        if not faults:
            merged[name] = root
        return faults
    base = extends.value
    if not isinstance(base, str):
        return []
    if base not in roots:
        hint = did_you_mean(base, roots)
        return [extends.error("unknown-base", f"no workflow {show(base)}", hint=hint)]
    if base == name or base in below:
        loop = " extends ".join((*below[below.index(base) if base in below else 0 :], name, base))
        return [extends.error("extends-loop", f"{loop}: a loop")]
    faults = _resolve(base, roots, merged, (*below, name))
    if base not in merged:
        return faults
    inherited = merged[base]
    entries = {k: v for k, v in inherited.mapping.items() if k not in NOT_INHERITED}
    rest = {key: value for key, value in root.mapping.items() if key != "extends"}
    faults += _deletes_nothing(Node(entries, base, 1, 1), root)
    merged[name] = merge(
        Node(entries, root.file, root.line, root.column),
        Node(rest, root.file, root.line, root.column),
    )
    return faults


def _without_nulls(node: Node) -> Node:
    if not isinstance(node.value, dict):
        return node
    entries = {k: _without_nulls(v) for k, v in node.value.items() if v.value is not None}
    return Node(entries, node.file, node.line, node.column, node.key, node.text)


def _nulls(node: Node) -> list[Diagnostic]:
    """Null deletes, and there is nothing to delete in a file that extends none."""
    if node.value is None:
        message = "null has no meaning here: it deletes, in a file that extends another"
        return [node.error("null-value", message, hint="leave the key out, or give a value")]
    return [fault for child in (*node.mapping.values(), *node.items) for fault in _nulls(child)]


def _deletes_nothing(base: Node, patch: Node) -> list[Diagnostic]:
    faults: list[Diagnostic] = []
    for key, value in patch.mapping.items():
        if value.value is None and key not in base.mapping:
            message = f"{show(key)} deletes nothing: the base has no such key"
            hint = did_you_mean(key, base.mapping)
            faults.append(
                value.report(Severity.WARNING, "deletes-nothing", message, hint=hint, at_key=True)
            )
        elif value.mapping and key in base.mapping:
            faults += _deletes_nothing(base.mapping[key], value)
    return faults
