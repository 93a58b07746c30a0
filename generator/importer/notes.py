"""What an import tells: diagnostics before they have a place in a file."""

from typing import NamedTuple

from ..diagnostics import Diagnostic, Severity
from ..graph.check import Finding
from ..load import Node


class Note(NamedTuple):
    """Something to tell of a node; `code` is documented in docs/diagnostics.md."""

    code: str
    message: str
    node: str | None = None
    input: str | None = None
    severity: Severity = Severity.INFO
    hint: str | None = None


def of_finding(finding: Finding) -> Note:
    """Return a finding of a graph's check as a note."""
    return Note(
        finding.code,
        finding.message,
        finding.node,
        finding.input,
        Severity(finding.severity),
        finding.hint,
    )


def placed(note: Note, file: str, root: Node | None = None) -> Diagnostic:
    """Return a note as a diagnostic: at its node in a workflow's file, else at the file's start."""
    line, column = 1, 1
    graph = root.mapping.get("graph") if root else None
    at = graph.mapping.get(note.node or "") if graph else None
    if at is not None:
        line, column = at.key or (at.line, at.column)
    return Diagnostic(
        file, line, column, note.severity, note.code, note.message, note.node, note.input, note.hint
    )
