"""What commands take alike, and how they speak: on a terminal in colour, elsewhere in plain text.

Standard output is for what was asked for, standard error for what is said beside it.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import Annotated, Final, TextIO

import typer

from .diagnostics import (
    Diagnostic,
    Severity,
    as_github,
    as_json,
    as_text,
    has_errors,
)
from .graph.words import show
from .project import is_project

CLEAN: Final = 0
FAULTS: Final = 1
COULD_NOT_RUN: Final = 2

_COLOURS: Final = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


class Format(StrEnum):
    """How diagnostics are shown."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


_WRITERS: Final[dict[Format, Callable[[Sequence[Diagnostic]], str]]] = {
    Format.TEXT: as_text,
    Format.JSON: as_json,
    Format.GITHUB: as_github,
}


class CouldNotRunError(Exception):
    """A command cannot do what it is asked: each of `faults` is a reason, `code` its exit code."""

    def __init__(self, *faults: str, note: str = "", code: int = COULD_NOT_RUN) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults
        self.note = note
        self.code = code


def _project(folder: Path) -> Path:
    if not is_project(folder):
        raise CouldNotRunError(
            f"{folder.resolve()} holds no project: no gpu.yaml and no workflows/. Run this in a "
            "project's folder, give one with --project, or make one: python -m generator init DIR"
        )
    return folder


_FOLDER: Final = "Folder of the project."
AnyFolder = Annotated[Path, typer.Option("--project", metavar="DIR", help=_FOLDER)]
Project = Annotated[Path, typer.Option("--project", metavar="DIR", help=_FOLDER, callback=_project)]
FormatOption = Annotated[Format, typer.Option("--format", help="How diagnostics are shown.")]
Json = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only, and no summary.")]
HERE: Final = Path()


@dataclass(frozen=True, slots=True)
class Shown:
    """How a command speaks."""

    format: Format = Format.TEXT
    quiet: bool = False

    @classmethod
    def of(cls, format: Format, json: bool, quiet: bool) -> "Shown":
        """Return it from the options."""
        return cls(Format.JSON if json else format, quiet)

    def report(self, diagnostics: Sequence[Diagnostic], stream: TextIO | None = None) -> int:
        """Show the diagnostics, on standard output or elsewhere, and return the exit code."""
        stream = stream or sys.stdout
        if self.quiet:
            diagnostics = [d for d in diagnostics if d.severity is Severity.ERROR]
        if self.format is Format.TEXT and has_colour(stream):
            _show(diagnostics, stream)
        else:
            stream.write(_WRITERS[self.format](diagnostics))
        stream.flush()
        return FAULTS if has_errors(diagnostics) else CLEAN

    def say(self, text: str) -> None:
        """Say something beside what was asked for, unless it is to be quiet."""
        if not self.quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Give a function that takes how much of how much is done; a terminal shows a bar of it."""
        if self.quiet or not has_colour(sys.stderr):
            yield lambda _done, _total: None
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(file=sys.stderr), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def by_name(given: Iterable[str] | None) -> dict[str, str]:
    """Return the values of --param by the names of the params.

    Raises:
        CouldNotRunError: when one is no NAME=VALUE, or two have one name.
    """
    values: dict[str, str] = {}
    for text in given or ():
        name, sign, value = text.partition("=")
        if not sign or name in values:
            raise CouldNotRunError(f"--param {show(text)}: give each param once, as NAME=VALUE")
        values[name] = value
    return values


def has_colour(stream: TextIO) -> bool:
    """Say whether a stream is a terminal that shows colours; NO_COLOR turns them off."""
    # Importing rich takes longer than most commands do.
    if not stream.isatty() and not os.environ.get("FORCE_COLOR"):
        return False
    from rich.console import Console

    console = Console(file=stream)
    return console.is_terminal and not console.no_color and not console.is_dumb_terminal


def refuse(*faults: str, note: str = "") -> None:
    """Say on standard error why nothing was done."""
    if has_colour(sys.stderr):
        from rich.console import Console
        from rich.text import Text

        console = Console(file=sys.stderr, soft_wrap=True, highlight=False)
        for fault in faults:
            console.print(Text("error: ", "bold red").append(Text(fault, "default not bold")))
        if note:
            console.print(Text(note))
        return
    sys.stderr.write("".join(f"error: {fault}\n" for fault in faults) + (note and f"{note}\n"))


def program(name: str) -> str:
    """Return a program beside this Python as it is typed here: its name, or its path."""
    path = Path(sys.executable).parent / name
    if shutil.which(name) == str(path):
        return name
    here = Path.cwd()
    return quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def summary(diagnostics: Sequence[Diagnostic]) -> str:
    """Return how many diagnostics there are of each severity."""
    counts = {s: sum(d.severity is s for d in diagnostics) for s in Severity}
    words = [counted(n, str(s)) for s, n in counts.items() if n]
    return ", ".join(words) or "nothing to report"


def counted(number: int, word: str) -> str:
    """Return a number with its word: 1 model, 2 models."""
    return f"{number} {word}{'s' if number != 1 else ''}"


def _show(diagnostics: Sequence[Diagnostic], stream: TextIO) -> None:
    """Show diagnostics in colour, one line each; a terminal still finds file, line and column."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, soft_wrap=True, highlight=False)
    for diagnostic in diagnostics:
        line = Text(as_text([diagnostic]).rstrip("\n"))
        kind = f": {diagnostic.severity}[{diagnostic.code}]"
        start = line.plain.index(kind)
        line.stylize("bold", 0, start)
        line.stylize(_COLOURS[diagnostic.severity], start + 2, start + len(kind))
        console.print(line)
