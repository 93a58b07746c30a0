"""Diagnostics: what is wrong, where, and what to do about it.

Checks return diagnostics instead of raising; the command line sorts them and shows them once.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import groupby
from typing import Final

from .graph.words import printable, show


class Severity(StrEnum):
    """How bad a diagnostic is; only errors stop a build."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding.

    `file` is relative to the project's folder, with forward slashes; `line` and `column` count
    from 1, in characters. `code` is stable and documented in docs/diagnostics.md.
    """

    file: str
    line: int
    column: int
    severity: Severity
    code: str
    message: str
    node: str | None = None
    input: str | None = None
    hint: str | None = None


_ORDER: Final = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


def sorted_once(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return the diagnostics by file, place and severity, each of them once."""
    return sorted(
        set(diagnostics),
        key=lambda d: (
            d.file,
            d.line,
            d.column,
            _ORDER[d.severity],
            d.code,
            d.message,
            d.node or "",
            d.input or "",
            d.hint or "",
        ),
    )


def has_errors(diagnostics: Iterable[Diagnostic]) -> bool:
    """Say whether any of the diagnostics is an error."""
    return any(d.severity is Severity.ERROR for d in diagnostics)


def as_text(diagnostics: Sequence[Diagnostic]) -> str:
    """Return one line per diagnostic, as compilers print them; "" when there are none."""
    return "".join(
        f"{printable(d.file)}:{d.line}:{d.column}: {d.severity}[{d.code}] {_sentence(d)}\n"
        for d in diagnostics
    )


def as_json(diagnostics: Sequence[Diagnostic]) -> str:
    """Return a JSON list with one object per file: `{"file": …, "diagnostics": [ … ]}`."""
    by_file = [
        {
            "file": file,
            "diagnostics": [
                {key: value for key, value in asdict(d).items() if key != "file"} for d in group
            ],
        }
        for file, group in groupby(diagnostics, key=lambda d: d.file)
    ]
    return json.dumps(by_file, indent=2) + "\n"


def as_github(diagnostics: Sequence[Diagnostic]) -> str:
    """Return workflow commands that GitHub shows as annotations on the changed lines.

    The format: https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
    """
    level = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
    return "".join(
        f"::{level[d.severity]} file={_property(printable(d.file))},line={d.line},col={d.column}"
        f",title={_property(d.code)}::{_data(_sentence(d))}\n"
        for d in diagnostics
    )


def _sentence(d: Diagnostic) -> str:
    place = "" if d.node is None else f"node {show(d.node)}"
    if d.input is not None:
        place = f"{place} input {show(d.input)}".lstrip()
    start = f"{place}: " if place else ""
    return f"{start}{d.message}" + (f"; {d.hint}" if d.hint else "")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
