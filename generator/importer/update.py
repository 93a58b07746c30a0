"""Bring the changes of a newer save into a workflow: its params, slots and comments stay.

The canvas decides on nodes, links and values; the file on everything that only a file can say.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..check.classes import resolve_classes
from ..check.variants import left_out
from ..diagnostics import Severity
from ..dump import DumpError
from ..edit import EditError, Editor
from ..edit import Path as EditPath
from ..graph.catalog import Catalog
from ..graph.records import Graph, Link, followed, links, needed
from ..graph.words import show
from ..load import Node, load_text
from ..project import Project
from ..slots import Template
from ..spec import GraphNode, InputValue, Models, Output, Workflow
from .match import Matcher, same
from .needs import Needs, find_needs
from .new import MODELS, Imported, checked_texts, models_text_of, with_needs
from .notes import Note, placed
from .source import Source, choose_output, kept_nodes, read_source
from .suggest import Place, Suggestion, suggest
from .write import WriteError, as_written, comment_text, node_lines, title_comment, with_slots


class UpdateError(ValueError):
    """The workflow cannot be updated; the message says why, and what to do."""


def import_update(
    path: Path, name: str, project: Project, catalog: Catalog, *, take_defaults: bool = False
) -> Imported:
    """Return what updating a workflow by a file makes; nothing is written here.

    Raises:
        UpdateError: when the workflow is not there, has faults, or holds no graph of its own.
    """
    file = f"workflows/{name}.yaml"
    workflow = project.workflows.get(name)
    if workflow is None:
        is_there = (project.root / file).exists()
        hint = "validate shows faults in it: mend them first" if is_there else "import it first"
        raise UpdateError(f"{file} cannot be updated; {hint}")
    if workflow.graph_param:
        raise UpdateError(f"{file} holds no graph: its callers send one")
    declared = project.models or Models({}, {})
    source, faults = read_source(path, str(path), catalog, declared.packs)
    if source is None:
        return Imported(diagnostics=faults)
    try:
        text = (project.root / file).read_bytes().decode("utf-8-sig")
        editor = None if workflow.extends else Editor(text, file)
        update = _Update(workflow, source, catalog, declared, editor, take_defaults)
        update.make()
        needs = update.needs
        models_before = models_text_of(project)
        models_text = with_needs(models_before, needs)
        made = editor.result() if editor else text
        checked = checked_texts(name, made, models_text, project) if editor else []
    except (EditError, DumpError, WriteError, OSError, UnicodeDecodeError) as error:
        return Imported(
            diagnostics=[placed(Note("unwritable", str(error), severity=Severity.ERROR), file)]
        )
    notes = [*source.notes, *update.notes]
    if workflow.extends and update.is_changed:
        message = f"this file extends {workflow.extends}: make the changes by hand, here or there"
        notes.append(Note("unwritable", message, severity=Severity.ERROR))
        return Imported(diagnostics=[placed(note, file) for note in notes])
    root, _ = load_text(made, file)
    diagnostics = [placed(note, file, root) for note in notes]
    diagnostics += checked
    files = {MODELS: models_text} if models_text != models_before else {}
    if made != text:
        files[file] = made
    return Imported(
        files,
        diagnostics,
        list(update.params),
        len(update.graph),
        list(needs.models),
        list(needs.packs),
        sum(note.code == "undecided" for note in notes),
    )


@dataclass
class _Update:
    """One workflow that is being updated; `editor` holds its text, `notes` what is changed.

    Without an editor, which a file that extends another has none of, changes are only noted.
    `params` are the workflow's and those that come, as records or as they are written.
    `graph` is what becomes of the workflow's graph, by the file's ids and with the file's values.
    """

    workflow: Workflow
    source: Source
    catalog: Catalog
    declared: Models
    editor: Editor | None
    take_defaults: bool
    notes: list[Note] = field(default_factory=list)
    graph: Graph = field(default_factory=dict)
    needs: Needs = field(default_factory=Needs)
    params: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    is_changed: bool = False

    @property
    def classes(self) -> dict[str, Any]:
        """The classes of the graph's nodes, where they are known."""
        return {n: self.source.classes[n] for n in self.graph if n in self.source.classes}

    def make(self) -> None:
        """Find all changes and make them. Raises EditError, WriteError."""
        self.params = dict(self.workflow.params)
        titles = {
            node: title
            for node, content in self.source.graph.items()
            if (title := title_comment(content, self.source.canvas.get(node)))
        }
        old_titles = {
            node.id: comment
            for node in self.workflow.graph.values()
            if (comment := node.title or self._comment_above(node.id))
        }
        pairs = Matcher(
            self.workflow.graph, self.source.graph, self.workflow.params, old_titles, titles
        ).match()
        absent = [node for node in self.workflow.graph if node not in pairs]
        kept, kept_inputs = self._explained(absent)
        output = self._output(pairs, kept)
        self.graph = self._wanted(pairs, output)
        for node, content in self.graph.items():
            node_lines(node, with_slots(node, content, ()))  # says which value cannot be written
        fed = self._update_nodes(pairs, kept_inputs)
        for node in absent:
            if node in kept:
                self.notes.append(Note("kept", "not in the file, but for other params", node))
                self._follow_links(node, pairs)
            else:
                self._note("went", f"{self.workflow.graph[node].class_type} is gone", node)
                self._remove(("graph", node))
        came = [node for node in self.graph if node not in set(pairs.values())]
        self.needs = find_needs(
            self.graph,
            self.classes,
            self.source.canvas,
            self.source.listed,
            self.declared,
            self.catalog,
        )
        fed |= self._add(came, pairs, titles, fed)
        self._report_unfed(fed, kept)

    def _note(self, code: str, message: str, node: str, input: str | None = None) -> None:
        self.is_changed = True
        self.notes.append(Note(code, message, node, input))

    def _comment_above(self, node: str) -> str:
        return self.editor.comment_above(("graph", node)) if self.editor else ""

    def _set(self, path: EditPath, value: Any) -> None:
        if self.editor:
            self.editor.set(path, value)

    def _insert(
        self, path: EditPath, value: Any, comments: Sequence[str] = (), after: str | None = None
    ) -> None:
        if self.editor:
            self.editor.insert(path, value, comments, after)

    def _remove(self, path: EditPath) -> None:
        if self.editor:
            self.editor.remove(path)

    def _rename(self, node: str, new: str) -> None:
        if self.editor:
            self.editor.rename(("graph", node), new)

    def _explained(self, absent: Collection[str]) -> tuple[set[str], set[tuple[str, str]]]:
        """Return the absent nodes and inputs that a run may lack by the params that it was given.

        An export holds one output of several, and nothing that only an absent param feeds.
        """
        workflow = self.workflow
        nodes: set[str] = set()
        inputs: set[tuple[str, str]] = set()
        classes, _ = resolve_classes(workflow, self.catalog, self.declared)
        for param in workflow.params.values():
            if not param.may_be_absent:
                continue
            gone = left_out(workflow, classes, param.name)
            if gone.nodes and set(gone.nodes) <= set(absent):
                nodes |= set(gone.nodes)
            inputs |= set(gone.inputs)
        if workflow.output and workflow.output.param:
            plain = {
                node.id: {
                    "inputs": {
                        name: list(value.value) if isinstance(value.value, Link) else None
                        for name, value in node.inputs.items()
                    }
                }
                for node in workflow.graph.values()
            }
            outputs = set(workflow.output.nodes.values()) & plain.keys()
            here = [node for node in outputs if node not in absent]
            if here:
                nodes |= needed(plain, *(outputs - set(here))).keys() - needed(plain, *here).keys()
        return nodes & set(absent), inputs

    def _output(self, pairs: Mapping[str, str], kept: Collection[str]) -> Output | None:
        """Follow the output's node; where it is gone, choose anew."""
        output = self.workflow.output
        if output is None:
            return None
        nodes: dict[str, str] = {}
        for value, node in output.nodes.items():
            path = ("output", "nodes", value) if output.param else ("output",)
            new = pairs.get(node, node if node in kept else None)
            if new is None and not output.param:
                new, between = choose_output(self.source)
                if new is None:
                    ids = " or ".join(between) or "no node"
                    message = f"output: node {node} is gone; which is it now, {ids}?"
                    self.notes.append(Note("undecided", message, severity=Severity.WARNING))
            if new is not None and new != node:
                self._set(path, int(new) if new.isdecimal() else new)
                self.is_changed = True
            if new is not None:
                nodes[value] = new
        return Output(nodes, output.at, output.param)

    def _follow_links(self, node: str, pairs: Mapping[str, str]) -> None:
        """Let a node that is kept link to nodes under their new ids."""
        for name, value in self.workflow.graph[node].inputs.items():
            link = value.value
            if isinstance(link, Link) and pairs.get(link.node, link.node) != link.node:
                self._set(("graph", node, "inputs", name), Link(pairs[link.node], link.output))

    def _wanted(self, pairs: Mapping[str, str], output: Output | None) -> Graph:
        """Return the part of the file's graph that the workflow is to hold."""
        graph = self.source.graph
        ends = [n for n in output.nodes.values() if n in graph] if output else []
        keep = {*needed(graph, *ends)} if ends else {*kept_nodes(self.source, None)}
        # What somebody kept in the workflow stays whole, though no output needs it.
        pending = [node for node in pairs.values() if node not in keep]
        while pending:
            node = pending.pop()
            if node in graph and node not in keep:
                keep.add(node)
                pending += [link.node for _, link in links(graph[node]["inputs"])]
        return {node: content for node, content in graph.items() if node in keep}

    def _update_nodes(
        self, pairs: Mapping[str, str], kept_inputs: Collection[tuple[str, str]]
    ) -> set[str]:
        """Change the nodes that are still there; return the params that feed them."""
        fed: set[str] = set()
        for node in self.workflow.graph.values():
            if node.id not in pairs:
                continue
            new = pairs[node.id]
            if new != node.id:
                self._note("moved", f"this was node {show(node.id)}", new)
                self._rename(node.id, new)
            inputs = self.graph[new]["inputs"]
            for name, value in node.inputs.items():
                place = ("graph", node.id, "inputs", name)
                if name not in inputs:
                    if (node.id, name) in kept_inputs:
                        fed |= _names(value)
                        continue
                    self._note("went", f"was {_said(value)}", new, name)
                    self._remove(place)
                elif value.slots:
                    fed |= self._update_slots(node, new, name, value, inputs[name])
                elif not _is_same(value.value, inputs[name]):
                    message = f"{_said(value)} becomes {_shown(inputs[name])}"
                    self._note("changed", message, new, name)
                    self._set(place, as_written(inputs[name]))
            self._add_inputs(node, new, inputs)
        return fed

    def _add_inputs(self, node: GraphNode, new: str, inputs: Mapping[str, Any]) -> None:
        added = {name: value for name, value in inputs.items() if name not in node.inputs}
        for name, value in added.items():
            self._note("came", f"is {_shown(value)}", new, name)
            if "inputs" in node.at.mapping:
                self._insert(("graph", node.id, "inputs", name), as_written(value))
        if added and "inputs" not in node.at.mapping:
            written = {name: as_written(value) for name, value in added.items()}
            self._insert(("graph", node.id, "inputs"), written)

    def _update_slots(
        self, node: GraphNode, new: str, name: str, value: InputValue, theirs: Any
    ) -> set[str]:
        """Keep an input's slots, unless a link comes in their place."""
        place = ("graph", node.id, "inputs", name)
        if followed(theirs):
            self._note("changed", f"{_said(value)} becomes {_shown(theirs)}", new, name)
            self._set(place, as_written(theirs))
            return set()
        slot = value.value.whole if isinstance(value.value, Template) else None
        param = self.workflow.params.get(slot.names[0]) if slot and len(slot.names) == 1 else None
        if param and param.default is not None and not same(param.default, theirs):
            if param.prefix or param.suffix or param.strip:
                return _names(value)
            taken = self.defaults.get(param.name)
            if self.take_defaults and taken is None and type(param.default) in _kinds(theirs):
                self._note(
                    "changed", f"the default of {param.name} becomes {show(theirs)}", new, name
                )
                default = float(theirs) if type(param.default) is float else theirs
                self.defaults[param.name] = default
                self._set(("params", param.name, "default"), default)
            elif taken is None or not same(taken, theirs):
                now = show(param.default if taken is None else taken)
                message = f"{_said(value)} stays, with {now}; the file has "
                self.notes.append(Note("differs", message + show(theirs), new, name))
        return _names(value)

    def _add(
        self,
        came: list[str],
        pairs: Mapping[str, str],
        titles: Mapping[str, str],
        fed: Collection[str],
    ) -> set[str]:
        """Add the nodes that came, with params as an import suggests them; return those."""
        slots = {
            Place(pairs[node.id], name): slot.names[0]
            for node in self.workflow.graph.values()
            if node.id in pairs
            for name, value in node.inputs.items()
            if isinstance(value.value, Template) and (slot := value.value.whole)
        }
        suggestions = []
        for suggestion in suggest(self.graph, self.classes):
            places = tuple(place for place in suggestion.places if place.node in came)
            if not places:
                continue
            used = {slots[place] for place in suggestion.places if place in slots}
            name = self._param_for(suggestion, used, fed)
            suggestions.append(Suggestion(name, suggestion.type, places, suggestion.default))
        new_params = {n: p for n, p in self.params.items() if n not in self.workflow.params}
        if "params" in self.workflow.at.mapping:
            for name, schema in new_params.items():
                self._insert(("params", name), schema)
        elif new_params:
            self._insert(("params",), new_params, (), "summary")
        after = {new: old for old, new in pairs.items()}
        last = next(reversed(self.workflow.graph), None)
        for node in came:
            content = self.graph[node]
            comments = [titles[node]] if node in titles else []
            for todo in (u for u in self.needs.undecided if u.node == node):
                comments.append(f"TODO {comment_text(todo.message)}")
                self.notes.append(Note("undecided", todo.message, node, severity=Severity.WARNING))
            sources = [
                after[link.node] for _, link in links(content["inputs"]) if link.node in after
            ]
            order = list(self.workflow.graph)
            behind = max(sources, key=order.index, default=last)
            self._note("came", content["class_type"], node)
            self._insert(("graph", node), with_slots(node, content, suggestions), comments, behind)
        return {suggestion.name for suggestion in suggestions}

    def _param_for(
        self, suggestion: Suggestion, used: Collection[str], fed: Collection[str]
    ) -> str:
        """Return the param for inputs that came: the one of the same value, or one that is free."""
        if len(used) == 1:
            return next(iter(used))
        name = suggestion.name
        if name in self.workflow.params and name not in fed:
            return name
        number = 2
        while name in self.params:
            name = f"{suggestion.name}_{number}"
            number += 1
        self.params[name] = suggestion.schema
        return name

    def _report_unfed(self, fed: Collection[str], kept: Collection[str]) -> None:
        output = self.workflow.output
        for node in kept:
            fed = {*fed, *(n for v in self.workflow.graph[node].inputs.values() for n in _names(v))}
        for name in self.workflow.params:
            if name not in fed and not (output and output.param == name):
                message = f"nothing uses param {show(name)} any more: remove it, or give it a slot"
                self.notes.append(Note("unfed", message, severity=Severity.WARNING))


def _names(value: InputValue) -> set[str]:
    return {name for slot, _ in value.slots for name in slot.names}


def _is_same(mine: Any, theirs: Any) -> bool:
    link = followed(theirs)
    if isinstance(mine, Link) or link:
        return bool(mine == link)
    return same(mine, theirs)


def _kinds(value: Any) -> tuple[type, ...]:
    return (int, float) if type(value) is int else (type(value),)


def _said(value: InputValue) -> str:
    written: Node = value.at
    return _shown(value.value) if isinstance(value.value, Link) else show(written.plain)


def _shown(value: Any) -> str:
    link = value if isinstance(value, Link) else followed(value)
    return f"output {link.output} of node {link.node}" if link else show(value)
