"""Whether the models of a graph belong together: families followed along its links.

A family comes from a file (declared, read from its header, or told by its name) or from the type
that a text encoder is loaded as. Nodes hand it on, and where two values meet that have no family
in common, there is a finding; what no table knows fits everything. A finding is not repeated
further down: what comes out of that node is of no known family.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Any, Final, NamedTuple

from .catalog import MODEL_EXTENSIONS, ClassType, Input, Output
from .check import Finding
from .family_tables import (
    ALIASES,
    CLASSES,
    DECLARED_FITS,
    FAMILIES,
    FITS,
    FOLDERS,
    LINK_TYPES,
    NAMED_BY_FOLDER,
    NAMED_FROM_START,
    NAMES,
    NAMES_IN,
    Families,
    Rule,
)
from .records import Link, followed
from .words import show

__all__ = [
    "Families",
    "Known",
    "check_families",
    "declared_families",
    "families_named",
    "family_of_name",
]

Known = Mapping[str, Families | None]

_NO_RULE: Final = Rule()
_RANK: Final = {kind: i for i, kind in enumerate((*LINK_TYPES, *FOLDERS))}
_LONGEST_NAME: Final = 300
_SHOWN_FAMILIES: Final = 3
_EXTENSION: Final = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(MODEL_EXTENSIONS)))})$")
_SEPARATORS: Final = re.compile(r"[-_. +()\[\]]+")
_NOT_PLAIN: Final = re.compile(r"[^a-z0-9]")


def family_of_name(file: str, folder: str) -> Families | None:
    """Return the families that a file's name says it belongs to, None when it says nothing.

    `folder` is the model folder that it lies in. The name of the file itself comes before those
    of the folders in between: `SDXL/canny.safetensors`.
    """
    parts = _EXTENSION.sub("", file[-_LONGEST_NAME:].lower().replace("\\", "/")).split("/")
    names = (_SEPARATORS.sub("-", part).strip("-") for part in reversed(parts))
    return next((found for name in names if (found := _named(name, folder))), None)


@lru_cache(maxsize=1024)
def _named(name: str, folder: str) -> Families | None:
    for pattern, families in NAMES_IN.get(folder, ()):
        if pattern.search(name):
            return families
    if folder in NAMED_BY_FOLDER:
        return None
    find = re.Pattern.match if folder in NAMED_FROM_START else re.Pattern.search
    claims = {families for pattern, families in NAMES if find(pattern, name)}
    return claims.pop() if len(claims) == 1 else None


def families_named(text: str) -> Families | None:
    """Return the families that somebody calls so (`flux`, `SD 1.5`, `wan2.2`), None for others."""
    return _CALLED.get(_plain(text[:_LONGEST_NAME])) or family_of_name(text, "")


def declared_families(models: Iterable[tuple[str, str, str]]) -> dict[str, Families | None]:
    """Return what `check_families` takes as known, from (folder, file, family) of each model.

    A family that no table knows is None: the file's own name then says nothing either.
    """
    return {f"{folder}/{file}": _declared(folder, family) for folder, file, family in models}


def _declared(folder: str, family: str) -> Families | None:
    named = families_named(family)
    return _fitting(named, DECLARED_FITS.get(folder, {})) if named else None


def _plain(text: str) -> str:
    return _NOT_PLAIN.sub("", text.lower())


_CALLED: Final = {_plain(family): frozenset((family,)) for family in FAMILIES} | dict(ALIASES)


def check_families(
    graph: object,
    classes: Mapping[str, ClassType],
    known: Known | None = None,
    *,
    outputs: Collection[str] | None = None,
) -> Iterator[Finding]:
    """Yield where models of different families meet in a graph; `classes` are by node id.

    `known` are the families of files, by `folder/file` or by the file alone as the graph names
    it; None there means any. Of other files their names are asked. Only nodes that run are looked
    at: those that `outputs` need, by default all output nodes. Never raises for what a graph
    holds.
    """
    if not isinstance(graph, dict):
        return
    nodes = {
        node: content["inputs"]
        for node, content in graph.items()
        if isinstance(content, dict) and isinstance(content.get("inputs"), dict)
    }
    trace = _Trace(nodes, classes, known or {})
    for node in _in_order(nodes, classes, outputs):
        if node in classes:
            yield from trace.follow(node, classes[node])


class _Value(NamedTuple):
    """What a link or a file carries: `families` are those that it works with.

    `own` are those that it is said to be of, `node` and `label` where that was said.
    """

    families: Families
    own: Families
    node: str
    label: str


class _Taken(NamedTuple):
    """A value as an input takes it; `kind` is a type of links, or the folder of a file."""

    input: str
    kind: str
    value: _Value


@dataclass(frozen=True, slots=True)
class _Node:
    """A node with what is known of its inputs.

    `linked` are the inputs that have links, by the types that they take; `loading` those that
    name files, by the types that the files' folder gives.
    """

    id: str
    class_type: ClassType
    rule: Rule
    links: list[_Taken] = field(default_factory=list)
    files: list[_Taken] = field(default_factory=list)
    linked: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    loading: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True, slots=True)
class _Trace:
    """A graph that is being followed; `values` are those of the outputs passed so far."""

    nodes: Mapping[str, Mapping[str, Any]]
    classes: Mapping[str, ClassType]
    known: Known
    values: dict[tuple[str, int], _Value] = field(default_factory=dict)
    # What outputs carry that are of any type, where it is known.
    types: dict[tuple[str, int], str] = field(default_factory=dict)

    def follow(self, node_id: str, class_type: ClassType) -> Iterator[Finding]:
        """Yield what meets at a node and does not fit, and note what comes out of it."""
        node = _Node(node_id, class_type, CLASSES.get(class_type.name, _NO_RULE))
        inputs = self.nodes[node_id]
        for name, value in inputs.items():
            if named := class_type.file_input(name, value):
                self._read(node, name, *named)
        if node.rule.families:
            encoder, found = _text_encoder(node, inputs.get("type", ""))
            outputs = [encoder] * len(class_type.outputs)
        else:
            met = _that_meet(node)
            found = list(_disagreements(node, met))
            common = _common(node, met)
            outputs = [None if found else _given(node, o, common) for o in class_type.outputs]
        yield from found
        self.values.update({(node_id, i): value for i, value in enumerate(outputs) if value})
        self._pass_on(node_id, class_type)

    def _pass_on(self, node_id: str, class_type: ClassType) -> None:
        """Note what a node hands on that takes anything, as switches do: any of its inputs."""
        wild = [i for i, output in enumerate(class_type.outputs) if output.type == "*"]
        if len(wild) != 1:
            return
        carried: dict[Link, str | None] = {}
        for name, value in self.nodes[node_id].items():
            declared = class_type.inputs.get(name)
            if declared is None or "*" in declared.type.split(","):
                carried |= {link: self._type(link) for link in (followed(value),) if link}
        kinds = {kind for kind in carried.values() if kind is None or kind in LINK_TYPES}
        kind = kinds.pop() if len(kinds) == 1 else None
        if kind is None:
            return
        links = [link for link, carries in carried.items() if carries == kind]
        taken = [_Taken("", kind, self.values[link]) for link in links if link in self.values]
        self.types[node_id, wild[0]] = kind
        if len(taken) == len(links) and (either := _either([""], taken)):
            self.values[node_id, wild[0]] = either

    def _type(self, link: Link) -> str | None:
        """Return the type of what a link carries, None where it is not known."""
        source = self.classes.get(link.node)
        if source is None or not 0 <= link.output < len(source.outputs):
            return None
        declared = source.outputs[link.output].type
        return self.types.get(link) if declared == "*" else declared

    def _read(self, node: _Node, name: str, declared: Input, value: object) -> None:
        link = followed(value)
        if link:
            types = [part for part in declared.type.split(",") if part in LINK_TYPES]
            for part in types:
                node.linked[part].append(name)
            kind = self._type(link)
            if link in self.values and kind in types:
                node.links.append(_Taken(name, kind, self.values[link]))
            return
        own_folder = node.rule.folders.get(name)
        folders = (own_folder, *declared.folders) if own_folder else declared.folders
        kind = next((folder for folder in folders if folder in FOLDERS), "")
        if kind and isinstance(value, str):
            for part in FOLDERS[kind].gives:
                node.loading[part].append(name)
            if own := self._family(value, folders):
                carried = _Value(_fitting(own, FITS.get(kind, {})), own, node.id, value)
                node.files.append(_Taken(name, kind, carried))

    def _family(self, file: str, folders: tuple[str, ...]) -> Families | None:
        for name in (*(f"{folder}/{file}" for folder in folders), file):
            if name in self.known:
                return self.known[name]
        return next((f for folder in folders if (f := family_of_name(file, folder))), None)


def _text_encoder(node: _Node, chosen: object) -> tuple[_Value | None, list[Finding]]:
    """Return what a node loads as the text encoder of a type, and which files do not belong."""
    rule, label = node.rule, node.class_type.name
    if not isinstance(chosen, str) or chosen not in rule.families:
        return None, []
    own = rule.families[chosen]
    found: list[Finding] = []
    if own and rule.is_strict:
        label = f"{label}, type {chosen}" if chosen else label
        anchor = f"{label} takes those of {_names(own)}"
        strangers = (taken for taken in node.files if taken.value.families.isdisjoint(own))
        found = [_finding(node, taken, anchor, own) for taken in strangers]
    else:
        for taken in node.files:
            label = taken.value.label
            own = (own and own & taken.value.families) or taken.value.families
    if own is None or found:
        return None, found
    return _Value(_fitting(own, FITS["CLIP"]), own, node.id, label), []


def _that_meet(node: _Node) -> list[_Taken]:
    """Return the values that a node uses together, the one first that the rest must fit."""
    applied = [taken for taken in node.files if FOLDERS[taken.kind].is_applied]
    agree = node.rule.agree
    if agree is None:
        is_used_up = not node.linked.keys() <= {output.type for output in node.class_type.outputs}
        agree = bool(node.rule.needs or is_used_up or (applied and node.linked))
    return sorted((*node.links, *applied), key=lambda taken: _RANK[taken.kind]) if agree else []


def _disagreements(node: _Node, met: list[_Taken]) -> Iterator[Finding]:
    needs = node.rule.needs
    for taken in met:
        if needs and taken.value.families.isdisjoint(needs):
            anchor = f"{node.class_type.name} is for {_names(needs)} alone"
            yield _finding(node, taken, anchor, needs)
            return
    reported: set[tuple[str, str]] = set()
    for i, taken in enumerate(met):
        value = taken.value
        other = next((o for o in met[:i] if o.value.families.isdisjoint(value.families)), None)
        if other and (value.node, value.label) not in reported:
            reported.add((value.node, value.label))
            anchor = f"the {_described(node, other)} is of {_names(other.value.own)}"
            yield _finding(node, taken, anchor, other.value.own)


def _common(node: _Node, met: list[_Taken]) -> _Value | None:
    """Return what all values that meet at a node fit, as the narrowest of them says it."""
    needs, name = node.rule.needs, node.class_type.name
    values = [taken.value for taken in met]
    if needs:
        values.append(_Value(needs, needs, node.id, name))
    return reduce(_both, values) if values else None


def _given(node: _Node, output: Output, common: _Value | None) -> _Value | None:
    """Return what an output carries: of the inputs that it is made of, or of a file."""
    if output.type not in LINK_TYPES:
        return None
    fits = FITS.get(output.type, {})
    made_of = LINK_TYPES[output.type].made_of
    if output.type in node.rule.made_of:
        made_of = (node.rule.made_of[output.type],)
    kind = next((kind for kind in made_of if node.linked.get(kind)), None)
    if kind is None:
        names = node.loading.get(output.type, [])
        value = _either(names, node.files)
        return value._replace(families=_fitting(value.own, fits)) if value else None
    names = node.linked[kind]
    is_named = kind == output.type and output.name in names
    value = _either([output.name] if is_named else names, node.links)
    value = _both(value, common) if value and common else value or common
    if value is None or not value.families:
        return None
    is_made = kind != output.type
    return value._replace(families=_fitting(value.families, fits)) if is_made else value


def _either(names: Collection[str], taken: Iterable[_Taken]) -> _Value | None:
    """Return what one of several inputs brings, whichever it is; None when one is not known."""
    values = [one.value for one in taken if one.input in names]
    if not values or len(values) < len(names):
        return None
    families = frozenset[str]().union(*(value.families for value in values))
    own = frozenset[str]().union(*(value.own for value in values))
    return values[0]._replace(families=families, own=own)


def _both(one: _Value, other: _Value) -> _Value:
    narrower = other if len(other.families) < len(one.families) else one
    return narrower._replace(families=one.families & other.families)


def _fitting(families: Families, fits: Mapping[str, Families]) -> Families:
    """Return the families that a part of some families works with."""
    return families.union(*(fits.get(family, families) for family in families))


def _finding(node: _Node, taken: _Taken, anchor: str, wanted: Families) -> Finding:
    kind = LINK_TYPES.get(taken.kind) or FOLDERS[taken.kind]
    message = f"this {_described(node, taken)} is of {_names(taken.value.own)}, but {anchor}"
    hint = kind.remedy.format(_names(wanted))
    return Finding("family-mismatch", "error", message, node.id, taken.input, hint)


def _described(node: _Node, taken: _Taken) -> str:
    """Return what a value is, and where it comes from if that is not this input."""
    kind = LINK_TYPES.get(taken.kind) or FOLDERS[taken.kind]
    value = taken.value
    if value.node == node.id:
        return kind.noun
    return f"{kind.noun} (node {show(value.node)}, {show(value.label)[1:-1]})"


def _names(families: Families) -> str:
    ordered = sorted(families)
    more = len(ordered) - _SHOWN_FAMILIES
    if more > 1:
        return f"{', '.join(ordered[:_SHOWN_FAMILIES])} and {more} more"
    return " or ".join(filter(None, (", ".join(ordered[:-1]), ordered[-1])))


def _in_order(
    nodes: Mapping[str, Mapping[str, Any]],
    classes: Mapping[str, ClassType],
    outputs: Collection[str] | None,
) -> Iterator[str]:
    """Yield the nodes that run, each after those that it needs; a cycle is cut somewhere."""
    roots = [
        node
        for node in nodes
        if (node in outputs if outputs is not None else _is_output(classes.get(node)))
    ]
    seen: set[str] = set()
    for root in roots or nodes:
        work = [] if root in seen else [(root, _sources(nodes[root]))]
        seen.add(root)
        while work:
            node, sources = work[-1]
            for source in sources:
                if source in nodes and source not in seen:
                    seen.add(source)
                    work.append((source, _sources(nodes[source])))
                    break
            else:
                work.pop()
                yield node


def _is_output(class_type: ClassType | None) -> bool:
    return class_type is None or class_type.output_node


def _sources(inputs: Mapping[str, Any]) -> Iterator[str]:
    return (link.node for value in inputs.values() if (link := followed(value)))
