"""The command line: python -m generator COMMAND."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import Final

from . import __version__
from .check import Checked, check
from .diagnostics import (
    Diagnostic,
    Severity,
    as_github,
    as_json,
    as_text,
    has_errors,
    sorted_once,
)
from .project import is_project, load_project
from .publish import PublishError, publish
from .python_format import FormatError

CLEAN: Final = 0
FAULTS: Final = 1
COULD_NOT_RUN: Final = 2

_FORMATS: Final[dict[str, Callable[[Sequence[Diagnostic]], str]]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 clean, 1 errors found, 2 could not run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    root = Path(options.project)
    if not is_project(root):
        return _refuse(
            f"{root.resolve()} holds no project: no gpu.yaml and no workflows/. "
            "Run this in a project's folder, or give one with --project."
        )
    command: Callable[[Path, argparse.Namespace], int] = options.command
    try:
        return command(root, options)
    except BrokenPipeError:
        sys.stderr.close()
        return COULD_NOT_RUN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m generator",
        description="From YAML specs to a ComfyUI service on Modal.",
        epilog="Exit codes: 0 clean, 1 errors found, 2 could not run. Reference: docs/workflows.md.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(
        commands,
        "validate",
        _validate,
        "check gpu.yaml, models.yaml and workflows/*.yaml",
        "Checks every spec and reports everything that is wrong with it, in one run.",
    )
    build = _add(
        commands,
        "build",
        _build,
        "check the specs, then render them into build/",
        "Renders the app. Nothing is written when a spec has an error; a build that is up to date "
        "stays as it is; files in the folder that the generator did not make are kept.",
    )
    build.add_argument(
        "--out",
        metavar="DIR",
        help="folder to render into, from this one (default: build in the project)",
    )
    _add(
        commands,
        "requirements",
        _requirements,
        "print the Python requirements of the app",
        "Prints the requirements of gpu.yaml, one a line, as pip reads them.",
    )
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    command: Callable[[Path, argparse.Namespace], int],
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=description)
    parser.set_defaults(command=command)
    parser.add_argument(
        "--project", metavar="DIR", default=".", help="folder of the project (default: this one)"
    )
    parser.add_argument(
        "--format", choices=_FORMATS, default="text", help="how to show diagnostics (default: text)"
    )
    parser.add_argument("--quiet", action="store_true", help="show errors only, and no summary")
    return parser


def _validate(root: Path, options: argparse.Namespace) -> int:
    checked, diagnostics = _check(root)
    code = _report(diagnostics, options)
    if checked and not options.quiet:
        counts = (
            ("workflow", len(checked.workflows)),
            ("model", len(checked.models.models)),
            ("pack", len(checked.models.packs)),
        )
        counted = ", ".join(f"{n} {word}{'s' if n != 1 else ''}" for word, n in counts)
        print(f"{counted}: {_summary(diagnostics)}", file=sys.stderr)
    elif not options.quiet:
        print(_summary(diagnostics), file=sys.stderr)
    return code


def _build(root: Path, options: argparse.Namespace) -> int:
    checked, diagnostics = _check(root)
    code = _report([d for d in diagnostics if d.severity is not Severity.INFO], options)
    if code != CLEAN or checked is None:
        if not options.quiet:
            print(f"nothing rendered: {_summary(diagnostics)}", file=sys.stderr)
        return code
    from .render import render

    target = Path(options.out) if options.out else root / "build"
    try:
        changed = publish(render(checked), target)
    except (FormatError, PublishError) as error:
        return _refuse(str(error))
    if not options.quiet:
        routes = " ".join(c.workflow.route for c in checked.workflows)
        print(f"{target}/ {'rendered' if changed else 'is up to date'}: {routes}", file=sys.stderr)
    return CLEAN


def _requirements(root: Path, options: argparse.Namespace) -> int:
    project, diagnostics = load_project(root)
    if project.settings is None:
        return _report([d for d in sorted_once(diagnostics) if d.file == "gpu.yaml"], options)
    print("\n".join(project.settings.requirements))
    return CLEAN


def _check(root: Path) -> tuple[Checked | None, list[Diagnostic]]:
    project, faults = load_project(root)
    checked, found = check(project)
    diagnostics = sorted_once([*faults, *found])
    return checked, [replace(d, file=(root / d.file).as_posix()) for d in diagnostics]


def _report(diagnostics: list[Diagnostic], options: argparse.Namespace) -> int:
    """Show the diagnostics on standard output and return the exit code."""
    if options.quiet:
        diagnostics = [d for d in diagnostics if d.severity is Severity.ERROR]
    sys.stdout.write(_FORMATS[options.format](diagnostics))
    sys.stdout.flush()
    return FAULTS if has_errors(diagnostics) else CLEAN


def _summary(diagnostics: list[Diagnostic]) -> str:
    counts = {s: sum(d.severity is s for d in diagnostics) for s in Severity}
    words = [f"{n} {s}{'s' if n != 1 else ''}" for s, n in counts.items() if n]
    return ", ".join(words) or "nothing to report"


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return COULD_NOT_RUN
