"""Import a file as a new workflow."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ..check import check
from ..diagnostics import Diagnostic, Severity, as_text, has_errors
from ..dump import DumpError
from ..edit import EditError, Editor
from ..graph.catalog import Catalog
from ..graph.records import Graph
from ..graph.words import show
from ..load import Node, load_text
from ..project import Project
from ..schema import validate
from ..spec import Models, read_models, read_workflow
from .needs import Needs, Undecided, find_needs
from .notes import Note, placed
from .source import Source, choose_output, kept_nodes, read_source
from .suggest import Suggestion, suggest
from .write import (
    MODELS_FIRST_LINE,
    WriteError,
    comment_text,
    in_reading_order,
    title_comment,
    workflow_text,
)

MODELS: Final = "models.yaml"

_NO_MODELS: Final = f"{MODELS_FIRST_LINE}\nmodels: {{}}\npacks: {{}}\n"
_SUFFIXES: Final = re.compile(r"(\.(api|ui|workflow))+$", re.IGNORECASE)
# A person who reads a TODO needs no second word on the same thing.
_SAID_BY_TODO: Final = frozenset(
    ("implicit-model", "undeclared-model", "undeclared-pack", "unknown-class")
)


@dataclass(frozen=True)
class Imported:
    """The texts to write, by file in the project, and what is to be told.

    Nothing is to be written when a diagnostic of FILE itself is an error: `files` is empty then.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    diagnostics: Sequence[Diagnostic] = ()
    params: Sequence[str] = ()
    nodes: int = 0
    models: Sequence[str] = ()
    packs: Sequence[str] = ()
    undecided: int = 0


def import_new(path: Path, name: str, project: Project, catalog: Catalog) -> Imported:
    """Return what importing a file as workflow `name` makes; nothing is written here."""
    declared = project.models or Models({}, {})
    source, faults = read_source(path, str(path), catalog, declared.packs)
    if source is None:
        return Imported(diagnostics=faults)
    output, between = choose_output(source)
    graph = in_reading_order(kept_nodes(source, output), source.canvas)
    classes = {node: source.classes[node] for node in graph if node in source.classes}
    needs = find_needs(graph, classes, source.canvas, source.listed, declared, catalog)
    undecided = list(needs.undecided)
    if between:
        ids = " or ".join(between)
        undecided.append(
            Undecided(f"output: {ids}? without one all run, and the reply is the first file")
        )
    notes = [*source.notes, *left_out(source, graph)]
    notes += [Note("undecided", u.message, u.node, severity=Severity.WARNING) for u in undecided]
    suggestions = suggest(graph, classes)
    try:
        models_text = with_needs(models_text_of(project), needs)
        text, checked = _proved(
            name, path, suggestions, graph, source, undecided, output, models_text, project
        )
    except (WriteError, EditError, DumpError) as error:
        fault = Note("unwritable", str(error), severity=Severity.ERROR)
        return Imported(diagnostics=[placed(fault, str(path))])
    file = f"workflows/{name}.yaml"
    root, _ = load_text(text, file)
    said = {u.node for u in undecided}
    diagnostics = [placed(note, file, root) for note in notes]
    diagnostics += [d for d in checked if not (d.code in _SAID_BY_TODO and d.node in said)]
    params = root.mapping["params"].mapping if root and "params" in root.mapping else {}
    files = {file: text}
    if models_text != models_text_of(project):
        files[MODELS] = models_text
    return Imported(
        files, diagnostics, list(params), len(graph), list(needs.models), list(needs.packs),
        len(undecided),
    )  # fmt: skip


def models_text_of(project: Project) -> str:
    """Return the text of the project's models.yaml, or that of an empty one. Raises EditError."""
    path = project.root / MODELS
    try:
        return path.read_bytes().decode("utf-8-sig") if path.exists() else _NO_MODELS
    except (OSError, UnicodeDecodeError) as error:
        raise EditError(f"{MODELS} cannot be read: {error}") from error


def with_needs(text: str, needs: Needs) -> str:
    """Return models.yaml with what is needed added, and all else as it was.

    Raises:
        EditError: when the file is laid out so that nothing can be added.
    """
    if not needs.models and not needs.packs:
        return text
    editor = Editor(text, MODELS)
    root, _ = load_text(text, MODELS)
    present = root.mapping if root else {}
    for key, entries in (("models", needs.models), ("packs", needs.packs)):
        if entries and key not in present:
            editor.insert((key,), dict(entries))
            continue
        for name, content in entries.items():
            editor.insert((key, name), content)
    return editor.result()


def checked_texts(name: str, text: str, models_text: str, project: Project) -> list[Diagnostic]:
    """Return what validate will say of a workflow's text, with a text for models.yaml.

    Raises:
        WriteError: when it is no workflow at all: too many nodes, a class without a name.
    """
    file = f"workflows/{name}.yaml"
    root, faults = load_text(text, file)
    models_root, wrong = load_text(models_text, MODELS)
    faults += wrong
    if root is not None and models_root is not None:
        faults += [*validate(root, "workflow"), *validate(models_root, "models")]
    if root is None or models_root is None or has_errors(faults):
        raise WriteError(as_text(faults).rstrip("\n"))
    workflow, wrong = read_workflow(name, root, None)
    alone = replace(
        project, workflows={name: workflow}, models=read_models(models_root), is_whole=False
    )
    _, found = check(alone)
    return [d for d in (*faults, *wrong, *found) if d.file == file]


def left_out(source: Source, graph: Graph) -> list[Note]:
    """Return a note on the nodes of a file that no output needs."""
    gone = [node for node in source.graph if node not in graph]
    if not gone:
        return []
    shown = [f"{node} {source.graph[node]['class_type']}" for node in gone[:8]]
    more = f" and {len(gone) - 8} more" if len(gone) > 8 else ""
    count = "1 node" if len(gone) == 1 else f"{len(gone)} nodes"
    return [Note("left-out", f"{count} that the output does not need: {', '.join(shown)}{more}")]


def _proved(
    name: str,
    path: Path,
    suggestions: Sequence[Suggestion],
    graph: Graph,
    source: Source,
    undecided: Sequence[Undecided],
    output: str | None,
    models_text: str,
    project: Project,
) -> tuple[str, list[Diagnostic]]:
    """Return the workflow's text and what its check says; params that do not pass are withdrawn."""
    comments = {node: _comments(node, graph, source, undecided) for node in graph}
    todo = [f"TODO {comment_text(u.message)}" for u in undecided if u.node is None]
    kept = list(suggestions)
    while True:
        text = workflow_text(_summary(path), kept, graph, comments, output, todo)
        checked = checked_texts(name, text, models_text, project)
        root, _ = load_text(text, name)
        bad = _at_params(root, checked)
        if not bad:
            return text, checked
        kept = [suggestion for suggestion in kept if suggestion.name not in bad]


def _at_params(root: Node | None, diagnostics: Sequence[Diagnostic]) -> set[str]:
    """Return the params that errors point to, or whose slots they point to."""
    params = root.mapping["params"].mapping if root and "params" in root.mapping else {}
    starts = {name: (node.key or (0, 0))[0] for name, node in params.items()}
    found: set[str] = set()
    for d in diagnostics:
        if d.severity is not Severity.ERROR:
            continue
        if d.code == "param-type":
            found |= {name for name in params if show(name) in d.message}
        elif d.code.startswith("param-"):
            above = [name for name, line in starts.items() if line <= d.line]
            found |= {above[-1]} if above else set()
    return found


def _comments(node: str, graph: Graph, source: Source, undecided: Sequence[Undecided]) -> list[str]:
    title = title_comment(graph[node], source.canvas.get(node))
    todos = [f"TODO {comment_text(u.message)}" for u in undecided if u.node == node]
    return ([title] if title else []) + todos


def _summary(path: Path) -> str:
    """Return a line that says what the endpoint makes: all that is known is the file's name."""
    words = re.sub(r"[\W_]+", " ", _SUFFIXES.sub("", path.stem)).strip() or "Imported workflow"
    return words[:1].upper() + words[1:]
