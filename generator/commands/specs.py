"""Commands on the specs of a project: validate, build, lock, requirements, catalog."""

import gc
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..check import Checked, check
from ..console import (
    CLEAN,
    FAULTS,
    HERE,
    AnyFolder,
    CouldNotRunError,
    Format,
    FormatOption,
    Json,
    Project,
    Quiet,
    Shown,
    counted,
    summary,
)
from ..diagnostics import Diagnostic, Severity, has_errors, sorted_once
from ..graph.catalog import versions
from ..lock import LOCK_FILE, Lock, read_lock, write_lock
from ..project import CATALOGS, load_project
from ..publish import PublishError, publish
from ..python_format import FormatError


def validate(
    project: Project = HERE,
    format: FormatOption = Format.TEXT,
    json: Json = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show infos too, which else are counted.")
    ] = False,
    quiet: Quiet = False,
) -> int:
    """Check gpu.yaml, models.yaml and workflows/*.yaml.

    Reports everything that is wrong, in one run, each with its file, line and column.
    --format github makes annotations of it. docs/diagnostics.md explains every code.
    """
    shown = Shown.of(format, json, quiet)
    checked, diagnostics = check_project(project)
    counts = summary(diagnostics)
    told = diagnostics
    infos = [d.code for d in diagnostics if d.severity is Severity.INFO]
    if infos and not verbose and shown.format is Format.TEXT:
        told = [d for d in diagnostics if d.severity is not Severity.INFO]
        codes = ", ".join(dict.fromkeys(infos))
        counts += f" ({codes}; --verbose shows {'it' if len(infos) == 1 else 'them'})"
    counts += _what_is_left(checked)
    code = shown.report(told)
    if checked:
        parts = (
            counted(len(checked.workflows), "workflow"),
            counted(len(checked.models.models), "model"),
            counted(len(checked.models.packs), "pack"),
        )
        counts = f"{', '.join(parts)}: {counts}"
    shown.say(counts)
    return code


def build(
    project: Project = HERE,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder to render into.", show_default="build in the project"
        ),
    ] = None,
    format: FormatOption = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Check the specs, then render them into build/.

    Nothing is written when a spec has an error; a build that is up to date stays as it is; files
    in the folder that the generator did not make are kept.
    """
    shown = Shown.of(format, json, quiet)
    code, _ = render_project(project, out or project / "build", shown)
    return code


def lock(
    project: Project = HERE,
    update: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Lock this model or Python package anew; may be repeated."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say whether the lock fits the specs; asks nobody.")
    ] = False,
    format: FormatOption = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Pin models, packs and requirements in generator.lock.

    Asks Hugging Face, git and the package index what the specs stand for, and writes that into
    generator.lock: revision, size and SHA-256 of every model, the commit of every pack, the
    version of every Python package. What is locked stays, unless its spec has changed.
    """
    shown = Shown.of(format, json, quiet)
    old, _ = read_lock(project)
    checked, diagnostics = check_project(project)
    errors = [d for d in diagnostics if d.severity is Severity.ERROR]
    path = project / LOCK_FILE
    if check:
        if old is None:
            raise CouldNotRunError(f"there is no {path}; run make lock", code=FAULTS)
        code = shown.report(errors)
        if code == CLEAN:
            shown.say(f"{path} fits the specs")
        return code
    # What is wrong with the lock is mended by this.
    errors = [d for d in errors if d.code not in ("bad-lock", "lock-drift")]
    if errors or checked is None:
        shown.report(errors)
        shown.say(f"nothing locked: {summary(errors)}")
        return FAULTS
    from ..resolve import UnknownNameError, resolve

    try:
        with shown.progress("asking") as tell:
            found, faults = resolve(checked, old or Lock(), project, update or (), tell)
        changed = not faults and write_lock(found, project)
    except UnknownNameError as error:
        raise CouldNotRunError(str(error)) from error
    except OSError as error:
        raise CouldNotRunError(f"cannot write {path}: {error.strerror}") from error
    code = shown.report(_in_project(project, faults))
    done = f"{path} {'written' if changed else 'is up to date'}: {found.summary}"
    shown.say(done if code == CLEAN else f"nothing locked: {summary(faults)}")
    return code


def requirements(
    project: Project = HERE,
    format: FormatOption = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Print the Python requirements of the app, one a line, as pip reads them.

    What is wrong with gpu.yaml is said on standard error.
    """
    loaded, diagnostics = load_project(project)
    if loaded.settings is None:
        faults = [d for d in sorted_once(diagnostics) if d.file == "gpu.yaml"]
        return Shown.of(format, json, quiet).report(faults, sys.stderr)
    typer.echo("\n".join(loaded.settings.requirements))
    return CLEAN


def catalog(
    url: Annotated[str, typer.Option(metavar="URL", help="Such as http://127.0.0.1:8188.")],
    project: AnyFolder = HERE,
    models: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="ComfyUI's models folder, when it is on this machine: empty marker files are put "
            "into its folders for a moment, to see which input lists which folder.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder to write to.", show_default="catalogs in the project"
        ),
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Make node schemas from a ComfyUI that runs.

    Writes what the classes of a running ComfyUI take into catalogs/ of the project, where
    validate, lint and the preview engine find it: one file for ComfyUI, one for each pack.
    """
    from ..observe import ObserveError, observe, without_known, write_catalogs

    shown = Shown(quiet=quiet)
    loaded, _ = load_project(project)
    commits = {p.name: p.commit for p in loaded.models.packs.values()} if loaded.models else {}
    try:
        sources = observe(url, models, commits)
        if models is None:
            sources = without_known(sources, versions(CATALOGS))
        written = write_catalogs(sources, out or project / "catalogs")
    except (ObserveError, OSError) as error:
        raise CouldNotRunError(str(error)) from error
    for path, count in written.items():
        shown.say(f"{path}: {count} classes")
    if models is None:
        hint = "without --models it is not known which model folder an input lists"
        shown.say(f"warning: {hint}; a file's name may be refused there")
    return CLEAN


def check_project(root: Path) -> tuple[Checked | None, list[Diagnostic]]:
    """Load and check a project; the diagnostics name files as they are from here."""
    # Specs are trees without cycles; the collector would walk all of them, again and again.
    was_on = gc.isenabled()
    gc.disable()
    try:
        project, faults = load_project(root)
        checked, found = check(project)
    finally:
        if was_on:
            gc.enable()
    return checked, _in_project(root, [*faults, *found])


def checked_project(root: Path, shown: Shown) -> tuple[int, Checked | None]:
    """Check the specs; standard output stays free for a command's own when they can be rendered."""
    checked, diagnostics = check_project(root)
    if has_errors(diagnostics) or checked is None:
        return shown.report(diagnostics), None
    warnings = [d for d in diagnostics if d.severity is Severity.WARNING]
    if not shown.quiet:
        Shown().report(warnings, sys.stderr)
    return CLEAN, checked


def render_project(root: Path, target: Path, shown: Shown) -> tuple[int, Checked | None]:
    """Check the specs and render them, and return the exit code and what was checked."""
    checked, diagnostics = check_project(root)
    told = [d for d in diagnostics if d.severity is not Severity.INFO]
    code = shown.report(told)
    if code != CLEAN or checked is None:
        shown.say(f"nothing rendered: {summary(told)}{_what_is_left(checked)}")
        return code, None
    from ..render import render

    try:
        changed = publish(render(checked), target)
    except (FormatError, PublishError) as error:
        raise CouldNotRunError(str(error)) from error
    routes = " ".join(
        c.workflow.route + ("" if c.workflow.enabled else " (off)") for c in checked.workflows
    )
    shown.say(f"{target}/ {'rendered' if changed else 'is up to date'}: {routes}")
    return CLEAN, checked


def _what_is_left(checked: Checked | None) -> str:
    """Return what to add to a summary when a file's form kept its meaning from being checked."""
    return "" if checked and checked.is_whole else "; more is checked once these are mended"


def _in_project(root: Path, diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return the diagnostics sorted, each once, with the names of files as they are from here."""
    return [replace(d, file=(root / d.file).as_posix()) for d in sorted_once(diagnostics)]
