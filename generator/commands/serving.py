"""Commands that run the app on this machine: serve, watch, test."""

from typing import Annotated

import typer

from ..console import (
    CLEAN,
    FAULTS,
    HERE,
    CouldNotRunError,
    Format,
    FormatOption,
    Json,
    Project,
    Quiet,
    Shown,
    counted,
    refuse,
)
from ..names import no_such
from .specs import render_project

Port = Annotated[
    int,
    typer.Option(min=0, max=65535, metavar="PORT", help="0 is any that is free."),
]
ComfyuiUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="A ComfyUI that is up.", show_default="a preview engine"),
]


def serve(
    project: Project = HERE,
    port: Port = 8000,
    comfyui_url: ComfyuiUrl = None,
    format: FormatOption = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Build, then serve the API on this machine.

    Serves on 127.0.0.1 until Ctrl-C. Without --comfyui-url a preview engine answers with
    placeholders of the right kind and size: no GPU, no weights.
    """
    code, checked = render_project(project, project / "build", Shown.of(format, json, quiet))
    if code != CLEAN or checked is None:
        return code
    from ..serve import ServeError
    from ..serve import serve as serve_build

    try:
        return serve_build(checked, project, port=port, comfyui_url=comfyui_url)
    except ServeError as error:
        raise CouldNotRunError(str(error)) from error


def watch(
    project: Project = HERE,
    port: Port = 8000,
    comfyui_url: ComfyuiUrl = None,
    format: FormatOption = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Serve the API on this machine, anew with each spec that you save.

    Each change is checked and rendered; what has an error is reported, and what was served before
    goes on. What is new waits until the runs under way have ended, 10 seconds at most; then they are
    stopped, and jobs forgotten. Requests that come while the API changes wait for the new one.
    """
    from ..check import Checked
    from ..serve import ServeError
    from ..watch import watch as watch_project

    shown = Shown.of(format, json, quiet)

    def render() -> Checked | None:
        try:
            return render_project(project, project / "build", shown)[1]
        except CouldNotRunError as error:
            refuse(*error.faults, note=error.note)
            return None

    try:
        return watch_project(render, project, port=port, comfyui_url=comfyui_url)
    except ServeError as error:
        raise CouldNotRunError(str(error)) from error


def try_all(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Of workflows.", show_default="all of them"),
    ] = None,
    project: Project = HERE,
    comfyui_url: ComfyuiUrl = None,
    format: FormatOption = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Send a request to each endpoint, or to some, on this machine; look at what comes back.

    The requests are the examples of the params. Each reply must have a media type of its endpoint,
    and what it says must be true of its bytes. Endpoints that are off, and those with a required
    param that has no example, are left out, and named.
    """
    from ..trial import TrialError, trial

    shown = Shown.of(format, json, quiet)
    code, checked = render_project(project, project / "build", shown)
    if code != CLEAN or checked is None:
        return code
    known = [one.workflow.name for one in checked.workflows]
    if unknown := [name for name in names or () if name not in known]:
        raise CouldNotRunError(*(no_such("workflow", name, known) for name in unknown))
    try:
        found = trial(checked, project, comfyui_url, names or ())
    except TrialError as error:
        raise CouldNotRunError(str(error)) from error
    for line in found.passed:
        shown.say(f"ok    {line}")
    for line in found.left_out:
        shown.say(f"left  {line}")
    if found.failed:
        refuse(*found.failed)
    shown.say(f"{counted(len(found.passed), 'endpoint')} answered, {len(found.failed)} failed")
    return FAULTS if found.failed else CLEAN
