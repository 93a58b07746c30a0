"""Commands on graphs: import, export, graph, lint, convert."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..check import check
from ..console import (
    CLEAN,
    COULD_NOT_RUN,
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
    by_name,
    counted,
    summary,
)
from ..diagnostics import Diagnostic, sorted_once
from ..graph.catalog import open_catalog, versions
from ..graph.words import show
from ..names import no_such
from ..project import CATALOGS, is_project, load_project
from ..spec import Models
from .specs import checked_project

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the workflow: workflows/NAME.yaml.")]


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON, PNG, WebP, MP4 or WebM.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the workflow.")],
    update: Annotated[
        bool,
        typer.Option("--update", help="Bring the file's changes into workflows/NAME.yaml."),
    ] = False,
    take_defaults: Annotated[
        bool,
        typer.Option(
            "--take-defaults",
            help="With --update: the file's values become the defaults of the params.",
        ),
    ] = False,
    project: Project = HERE,
    format: FormatOption = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Make a workflow of a file saved in ComfyUI.

    Writes workflows/NAME.yaml, and what is missing in models.yaml, from a workflow or graph that
    ComfyUI saved: JSON, or a PNG, WebP, MP4 or WebM file that carries it. What cannot be decided
    is a TODO in the file. With --update, the changes of a newer save go into the workflow, and
    its params, slots and comments stay.
    """
    from ..importer import ImportRefusedError, import_workflow

    shown = Shown.of(format, json, quiet)
    if take_defaults and not update:
        raise CouldNotRunError("--take-defaults belongs to --update")
    try:
        found = import_workflow(file, name, project, update=update, take_defaults=take_defaults)
    except ImportRefusedError as error:
        raise CouldNotRunError(str(error)) from error
    code = shown.report(found.diagnostics)
    for line in found.said:
        shown.say(line)
    return code or (FAULTS if found.undecided else CLEAN)


def export(
    name: Name,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A param's value, as in a form; of a picture, video or sound the name of a file. "
            "May be repeated.",
        ),
    ] = None,
    project: Project = HERE,
    format: FormatOption = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Print the graph that an endpoint sends, in ComfyUI's API format.

    Params without a default must be given. A seed that is not given is the smallest one.
    """
    from ..export import ExportError, as_json
    from ..export import export as graph_of

    values = by_name(param)
    code, checked = checked_project(project, Shown.of(format, json, quiet))
    if checked is None:
        return code
    try:
        graph = graph_of(checked, name, values)
    except ExportError as error:
        of_params = any(fault.startswith("param ") for fault in error.faults)
        note = "params are given as --param NAME=VALUE" if of_params and not param else ""
        raise CouldNotRunError(*error.faults, note=note) from error
    sys.stdout.write(as_json(graph))
    return CLEAN


def graph(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Of workflows: workflows/NAME.yaml."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="SVG file; or a folder, for NAME.svg of each.",
            show_default="standard output",
        ),
    ] = None,
    project: Project = HERE,
    format: FormatOption = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Draw the graphs of workflows as SVG.

    Nodes say which params feed them; links have the colours of what they carry. One picture goes to
    standard output or a file, several into a folder.
    """
    from ..picture import as_svg
    from ..whole_files import write_all

    shown = Shown.of(format, json, quiet)
    if len(names) > 1 and (out is None or out.is_file()):
        raise CouldNotRunError("several pictures go into a folder: give one with -o DIR")
    loaded, diagnostics = load_project(project)
    unread = [name for name in names if name not in loaded.workflows]
    specs = {f"workflows/{name}.yaml" for name in unread}
    if faults := [d for d in sorted_once(diagnostics) if d.file in specs]:
        return shown.report(faults)
    if unread:
        raise CouldNotRunError(*(no_such("workflow", name, loaded.workflows) for name in unread))
    workflows = [loaded.workflows[name] for name in dict.fromkeys(names)]
    for workflow in workflows:
        if not workflow.graph:
            name = show(workflow.name)
            raise CouldNotRunError(f"workflow {name} holds no graph of its own: callers send it")
    checked, _ = check(loaded)
    known = {one.workflow.name: one.classes for one in checked.workflows} if checked else {}
    pictures = [as_svg(workflow, known.get(workflow.name)) for workflow in workflows]
    if out is None:
        sys.stdout.writelines(pictures)
        return CLEAN
    is_folder = len(workflows) > 1 or out.is_dir()
    files = [out / f"{workflow.name}.svg" if is_folder else out for workflow in workflows]
    try:
        write_all(dict(zip(files, pictures, strict=True)))
    except OSError as error:
        raise CouldNotRunError(f"{out} cannot be written: {error.strerror}") from error
    for file, workflow in zip(files, workflows, strict=True):
        shown.say(f"{file}: {counted(len(workflow.graph), 'node')}")
    return CLEAN


def lint(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Graphs as JSON.")],
    project: AnyFolder = HERE,
    models: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Look for files in ComfyUI's models folder, and read of which family they are.",
        ),
    ] = None,
    no_models: Annotated[
        bool,
        typer.Option(
            "--no-models",
            help="Do not ask whether files are declared, only whether a model folder can list "
            "them; all packs with node schemas count as installed.",
        ),
    ] = False,
    allow_api_nodes: Annotated[
        bool,
        typer.Option(
            "--allow-api-nodes", help="Accept nodes that call the paid service of a vendor."
        ),
    ] = False,
    format: FormatOption = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Check graphs in ComfyUI's API or UI format.

    Checks files that ComfyUI saves or exports, by the rules of validate. Models and packs are
    those of the project; with --no-models no project is needed.
    """
    from ..lint import Rules
    from ..lint import lint as lint_file

    shown = Shown.of(format, json, quiet)
    if no_models and models is not None:
        raise CouldNotRunError("--models and --no-models: give one of them")
    declared: Models | None = None
    catalogs: tuple[Path, ...] = (CATALOGS,)
    version = versions(*catalogs)[-1]
    if is_project(project):
        loaded, faults = load_project(project)
        catalogs = loaded.catalogs
        if loaded.models is None or loaded.settings is None:
            shown.report([d for d in sorted_once(faults) if d.file in ("gpu.yaml", "models.yaml")])
            return COULD_NOT_RUN
        declared, version = loaded.models, loaded.settings.comfyui.version
    elif not no_models and models is None:
        raise CouldNotRunError(
            f"{project.resolve()} holds no project, so nobody has declared models: "
            "give one with --project, say where they are with --models DIR, "
            "or ask nothing about them with --no-models"
        )
    if version not in versions(*catalogs):
        raise CouldNotRunError(f"there are no node schemas of ComfyUI {version}")
    rules = Rules(
        open_catalog(*catalogs, version=version),
        None if no_models or models else declared,
        models,
        allow_api_nodes=allow_api_nodes,
    )
    found: list[Diagnostic] = []
    with shown.progress("checking") as tell:
        for done, path in enumerate(files):
            tell(done, len(files))
            found += lint_file(path, str(path), rules)
    diagnostics = sorted_once(found)
    code = shown.report(diagnostics)
    shown.say(f"{counted(len(files), 'file')}: {summary(diagnostics)}")
    return code


def convert(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Workflows as JSON.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Write NAME.json to DIR/NAME.api.json."),
    ] = None,
    project: AnyFolder = HERE,
    format: FormatOption = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Turn workflows in ComfyUI's UI format into graphs in API format.

    Converts what ComfyUI's canvas saves as its own Workflow > Export (API) does. One file goes to
    standard output, others into a folder; files in API format stay as they are. A file with an
    error is not written.
    """
    from ..conversion import convert_file, targets
    from ..whole_files import write_all

    shown = Shown.of(format, json, quiet)
    if out is None and len(files) > 1:
        raise CouldNotRunError("several files go into a folder: give one with -o DIR")
    catalogs: tuple[Path, ...] = (CATALOGS,)
    version = versions(*catalogs)[-1]
    if is_project(project):
        loaded, _ = load_project(project)
        catalogs = loaded.catalogs
        if loaded.settings is not None and loaded.settings.comfyui.version in versions(*catalogs):
            version = loaded.settings.comfyui.version
    catalog = open_catalog(*catalogs, version=version)
    try:
        places = targets(files, out) if out is not None else {}
    except ValueError as error:
        raise CouldNotRunError(str(error)) from error
    diagnostics: list[Diagnostic] = []
    for path in files:
        converted = convert_file(path, catalog)
        diagnostics += converted.diagnostics
        if converted.text is None:
            continue
        if converted.packs:
            shown.say(f"{path} needs {', '.join(converted.packs)}")
        if not places:
            sys.stdout.write(converted.text)
            continue
        try:
            write_all({places[path]: converted.text})
        except OSError as error:
            raise CouldNotRunError(f"{places[path]} cannot be written: {error.strerror}") from error
    return shown.report(sorted_once(diagnostics), sys.stderr)
