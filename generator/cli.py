"""The command line: python -m generator COMMAND."""

import argparse
import gc
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import Final

from . import __version__
from .check import Checked, check
from .deployment.commands import add_commands
from .diagnostics import (
    Diagnostic,
    Severity,
    as_github,
    as_json,
    as_text,
    has_errors,
    sorted_once,
)
from .graph.catalog import open_catalog, versions
from .graph.words import show
from .lock import LOCK_FILE, Lock, read_lock, write_lock
from .ports import parse_port
from .project import CATALOGS, is_project, load_project
from .publish import PublishError, publish
from .python_format import FormatError
from .spec import Models

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
    if options.needs_project and not is_project(root):
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
    except KeyboardInterrupt:
        return _refuse("interrupted")


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
    serve = _add(
        commands,
        "serve",
        _serve,
        "build, then serve the API on this machine",
        "Builds, then serves the API on 127.0.0.1 until Ctrl-C. Without --comfyui-url a preview "
        "engine answers with placeholders of the right kind and size: no GPU, no weights.",
    )
    serve.add_argument(
        "--port", type=parse_port, default=8000, help="0 is any that is free (default: 8000)"
    )
    serve.add_argument(
        "--comfyui-url", metavar="URL", help="a ComfyUI that is up (default: a preview engine)"
    )
    lock = _add(
        commands,
        "lock",
        _lock,
        "pin models, packs and requirements in generator.lock",
        "Asks Hugging Face, git and the package index what the specs stand for, and writes that into "
        "generator.lock: revision, size and SHA-256 of every model, the commit of every pack, the "
        "version of every Python package. What is locked stays, unless its spec has changed.",
    )
    lock.add_argument(
        "--update",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="lock these models and Python packages anew",
    )
    lock.add_argument(
        "--check", action="store_true", help="say whether the lock fits the specs; asks nobody"
    )
    lint = _add(
        commands,
        "lint",
        _lint,
        "check graphs in ComfyUI's API or UI format",
        "Checks files that ComfyUI saves or exports, by the rules of validate. "
        "Models and packs are those of the project; with --no-models no project is needed.",
    )
    lint.set_defaults(needs_project=False)
    lint.add_argument("files", nargs="+", metavar="FILE", type=Path, help="a graph as JSON")
    where = lint.add_mutually_exclusive_group()
    where.add_argument(
        "--models",
        metavar="DIR",
        type=Path,
        help="look for files in ComfyUI's models folder, and read of which family they are",
    )
    where.add_argument(
        "--no-models",
        action="store_true",
        help="do not ask whether files are declared, only whether a model folder can list them; "
        "all packs with node schemas count as installed",
    )
    lint.add_argument(
        "--allow-api-nodes",
        action="store_true",
        help="accept nodes that call the paid service of a vendor",
    )
    convert = _add(
        commands,
        "convert",
        _convert,
        "turn workflows in ComfyUI's UI format into graphs in API format",
        "Converts what ComfyUI's canvas saves as its own Workflow > Export (API) does. One file goes "
        "to standard output, others into a folder; files in API format stay as they are. A file "
        "with an error is not written.",
    )
    convert.set_defaults(needs_project=False)
    convert.add_argument("files", nargs="+", metavar="FILE", type=Path, help="a workflow as JSON")
    convert.add_argument(
        "-o", "--out", metavar="DIR", type=Path, help="write NAME.json to DIR/NAME.api.json"
    )
    importing = _add(
        commands,
        "import",
        _import,
        "make a workflow of a file saved in ComfyUI",
        "Writes workflows/NAME.yaml, and what is missing in models.yaml, from a workflow or graph that "
        "ComfyUI saved: JSON, or a PNG, WebP, MP4 or WebM file that carries it. What cannot be "
        "decided is a TODO in the file. With --update, the changes of a newer save go into the "
        "workflow, and its params, slots and comments stay.",
    )
    importing.add_argument("file", metavar="FILE", type=Path)
    importing.add_argument("--name", required=True, metavar="NAME", help="of the workflow")
    importing.add_argument(
        "--update", action="store_true", help="bring the file's changes into workflows/NAME.yaml"
    )
    importing.add_argument(
        "--take-defaults",
        action="store_true",
        help="with --update: the file's values become the defaults of the params",
    )
    exporting = _add(
        commands,
        "export",
        _export,
        "print the graph that an endpoint sends",
        "Prints the graph of workflows/NAME.yaml in ComfyUI's API format, as its endpoint sends it "
        "for the given params; params without a default must be given. A seed that is not given "
        "is the smallest one.",
    )
    exporting.add_argument("name", metavar="NAME", help="of the workflow")
    exporting.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a param's value, as in a form; of a picture, video or sound the name of a file",
    )
    catalog = _add(
        commands,
        "catalog",
        _catalog,
        "make node schemas from a ComfyUI that runs",
        "Writes what the classes of a running ComfyUI take into catalogs/ of the project, where "
        "validate, lint and the preview engine find it: one file for ComfyUI, one for each pack.",
    )
    catalog.add_argument("--url", required=True, help="such as http://127.0.0.1:8188")
    catalog.add_argument(
        "--models",
        metavar="DIR",
        type=Path,
        help="ComfyUI's models folder, when it is on this machine: empty marker files are put into "
        "its folders for a moment, to see which input lists which folder",
    )
    catalog.add_argument(
        "--out", metavar="DIR", type=Path, help="(default: catalogs in the project)"
    )
    _add(
        commands,
        "requirements",
        _requirements,
        "print the Python requirements of the app",
        "Prints the requirements of gpu.yaml, one a line, as pip reads them.",
    )
    add_commands(commands, _add, _validated)
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    command: Callable[[Path, argparse.Namespace], int],
    summary: str,
    description: str,
    formats: Collection[str] = tuple(_FORMATS),
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=description)
    parser.set_defaults(command=command, needs_project=True)
    parser.add_argument(
        "--project", metavar="DIR", default=".", help="folder of the project (default: this one)"
    )
    parser.add_argument(
        "--format", choices=formats, default="text", help="how to show diagnostics (default: text)"
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
    code, _ = _render(root, Path(options.out) if options.out else root / "build", options)
    return code


def _serve(root: Path, options: argparse.Namespace) -> int:
    code, checked = _render(root, root / "build", options)
    if code != CLEAN or checked is None:
        return code
    from .serve import ServeError, serve

    try:
        return serve(checked, root, port=options.port, comfyui_url=options.comfyui_url)
    except ServeError as error:
        return _refuse(str(error))


def _render(root: Path, target: Path, options: argparse.Namespace) -> tuple[int, Checked | None]:
    """Check the specs and render them, and return the exit code and what was checked."""
    checked, diagnostics = _check(root)
    shown = [d for d in diagnostics if d.severity is not Severity.INFO]
    code = _report(shown, options)
    if code != CLEAN or checked is None:
        if not options.quiet:
            print(f"nothing rendered: {_summary(shown)}", file=sys.stderr)
        return code, None
    from .render import render

    try:
        changed = publish(render(checked), target)
    except (FormatError, PublishError) as error:
        return _refuse(str(error)), None
    if not options.quiet:
        routes = " ".join(
            c.workflow.route + ("" if c.workflow.enabled else " (off)") for c in checked.workflows
        )
        print(f"{target}/ {'rendered' if changed else 'is up to date'}: {routes}", file=sys.stderr)
    return CLEAN, checked


def _lock(root: Path, options: argparse.Namespace) -> int:
    old, _ = read_lock(root)
    checked, diagnostics = _check(root)
    errors = [d for d in diagnostics if d.severity is Severity.ERROR]
    if options.check:
        if old is None:
            print(f"error: there is no {root / LOCK_FILE}; run make lock", file=sys.stderr)
            return FAULTS
        code = _report(errors, options)
        if code == CLEAN and not options.quiet:
            print(f"{root / LOCK_FILE} fits the specs", file=sys.stderr)
        return code
    # What is wrong with the lock is mended by this.
    errors = [d for d in errors if d.code not in ("bad-lock", "lock-drift")]
    if errors or checked is None:
        _report(errors, options)
        if not options.quiet:
            print(f"nothing locked: {_summary(errors)}", file=sys.stderr)
        return FAULTS
    from .resolve import UnknownNameError, resolve

    try:
        lock, faults = resolve(checked, old or Lock(), root, options.update)
        changed = not faults and write_lock(lock, root)
    except UnknownNameError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"cannot write {root / LOCK_FILE}: {error.strerror}")
    code = _report(_in_project(root, faults), options)
    if not options.quiet:
        done = f"{root / LOCK_FILE} {'written' if changed else 'is up to date'}: {lock.summary}"
        print(done if code == CLEAN else f"nothing locked: {_summary(faults)}", file=sys.stderr)
    return code


def _lint(root: Path, options: argparse.Namespace) -> int:
    from .lint import Rules, lint

    models: Models | None = None
    catalogs: tuple[Path, ...] = (CATALOGS,)
    version = versions(*catalogs)[-1]
    if is_project(root):
        project, faults = load_project(root)
        catalogs = project.catalogs
        if project.models is None or project.settings is None:
            broken = [d for d in sorted_once(faults) if d.file in ("gpu.yaml", "models.yaml")]
            _report(broken, options)
            return COULD_NOT_RUN
        models, version = project.models, project.settings.comfyui.version
    elif not options.no_models and options.models is None:
        return _refuse(
            f"{root.resolve()} holds no project, so nobody has declared models: "
            "give one with --project, say where they are with --models DIR, "
            "or ask nothing about them with --no-models"
        )
    if version not in versions(*catalogs):
        return _refuse(f"there are no node schemas of ComfyUI {version}")
    rules = Rules(
        open_catalog(*catalogs, version=version),
        None if options.no_models or options.models else models,
        options.models,
        allow_api_nodes=options.allow_api_nodes,
    )
    diagnostics = sorted_once(d for path in options.files for d in lint(path, str(path), rules))
    code = _report(diagnostics, options)
    if not options.quiet:
        count = f"{len(options.files)} file{'s' if len(options.files) != 1 else ''}"
        print(f"{count}: {_summary(diagnostics)}", file=sys.stderr)
    return code


def _convert(root: Path, options: argparse.Namespace) -> int:
    from .conversion import convert_file, targets
    from .whole_files import write_all

    if options.out is None and len(options.files) > 1:
        return _refuse("several files go into a folder: give one with -o DIR")
    catalogs: tuple[Path, ...] = (CATALOGS,)
    version = versions(*catalogs)[-1]
    if is_project(root):
        project, _ = load_project(root)
        catalogs = project.catalogs
        if project.settings is not None and project.settings.comfyui.version in versions(*catalogs):
            version = project.settings.comfyui.version
    catalog = open_catalog(*catalogs, version=version)
    try:
        places = targets(options.files, options.out) if options.out is not None else {}
    except ValueError as error:
        return _refuse(str(error))
    diagnostics: list[Diagnostic] = []
    for path in options.files:
        converted = convert_file(path, catalog)
        diagnostics += converted.diagnostics
        if converted.text is None:
            continue
        if converted.packs and not options.quiet:
            print(f"{path} needs {', '.join(converted.packs)}", file=sys.stderr)
        if not places:
            sys.stdout.write(converted.text)
            continue
        try:
            write_all({places[path]: converted.text})
        except OSError as error:
            return _refuse(f"{places[path]} cannot be written: {error.strerror}")
    diagnostics = sorted_once(diagnostics)
    if options.quiet:
        diagnostics = [d for d in diagnostics if d.severity is Severity.ERROR]
    sys.stderr.write(_FORMATS[options.format](diagnostics))
    return FAULTS if has_errors(diagnostics) else CLEAN


def _import(root: Path, options: argparse.Namespace) -> int:
    from .importer import ImportRefusedError, import_workflow

    if options.take_defaults and not options.update:
        return _refuse("--take-defaults belongs to --update")
    try:
        found = import_workflow(
            options.file,
            options.name,
            root,
            update=options.update,
            take_defaults=options.take_defaults,
        )
    except ImportRefusedError as error:
        return _refuse(str(error))
    code = _report(found.diagnostics, options)
    if not options.quiet:
        for line in found.said:
            print(line, file=sys.stderr)
    return code or (FAULTS if found.undecided else CLEAN)


def _export(root: Path, options: argparse.Namespace) -> int:
    from .export import ExportError, as_json, export

    values: dict[str, str] = {}
    for given in options.param:
        name, sign, value = given.partition("=")
        if not sign or name in values:
            return _refuse(f"--param {show(given)}: give each param once, as NAME=VALUE")
        values[name] = value
    code, checked = _validated(root, options)
    if checked is None:
        return code
    try:
        graph = export(checked, options.name, values)
    except ExportError as error:
        for fault in error.faults:
            print(f"error: {fault}", file=sys.stderr)
        return COULD_NOT_RUN
    sys.stdout.write(as_json(graph))
    return CLEAN


def _catalog(root: Path, options: argparse.Namespace) -> int:
    from .observe import ObserveError, observe, without_known, write_catalogs

    project, _ = load_project(root)
    commits = {p.name: p.commit for p in project.models.packs.values()} if project.models else {}
    target = options.out or root / "catalogs"
    try:
        sources = observe(options.url, options.models, commits)
        if options.models is None:
            sources = without_known(sources, versions(CATALOGS))
        written = write_catalogs(sources, target)
    except (ObserveError, OSError) as error:
        return _refuse(str(error))
    if not options.quiet:
        for path, count in written.items():
            print(f"{path}: {count} classes", file=sys.stderr)
        if options.models is None:
            hint = "without --models it is not known which model folder an input lists"
            print(f"warning: {hint}; a file's name may be refused there", file=sys.stderr)
    return CLEAN


def _requirements(root: Path, options: argparse.Namespace) -> int:
    project, diagnostics = load_project(root)
    if project.settings is None:
        return _report([d for d in sorted_once(diagnostics) if d.file == "gpu.yaml"], options)
    print("\n".join(project.settings.requirements))
    return CLEAN


def _check(root: Path) -> tuple[Checked | None, list[Diagnostic]]:
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


def _in_project(root: Path, diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return the diagnostics sorted, each once, with the names of files as they are from here."""
    return [replace(d, file=(root / d.file).as_posix()) for d in sorted_once(diagnostics)]


def _validated(root: Path, options: argparse.Namespace) -> tuple[int, Checked | None]:
    """Check the specs; standard output stays free for a command's own when they can be rendered."""
    checked, diagnostics = _check(root)
    if has_errors(diagnostics) or checked is None:
        return _report(diagnostics, options), None
    if not options.quiet:
        sys.stderr.write(as_text([d for d in diagnostics if d.severity is Severity.WARNING]))
        sys.stderr.flush()
    return CLEAN, checked


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
