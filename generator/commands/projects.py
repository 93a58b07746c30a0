"""Commands that start something: init, new."""

import subprocess
import sys
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from ..console import CLEAN, HERE, CouldNotRunError, Project, Quiet, Shown
from ..graph.words import show


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made if it is not there.")],
    example: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Start with one of our workflows: flux, flux-dev, flux-lora, flux-instantid, "
            "wan2, seedvr2 or workflow.",
            show_default="a small one, Stable Diffusion 1.5",
        ),
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Make a new project: specs of one endpoint, a Makefile, and schemas for your editor.

    What it makes passes validate, build and test as it is. Files that are there stay as they are:
    nothing is written when one of them would have to go.
    """
    from ..starting import StartError, app_name, new_project

    shown = Shown(quiet=quiet)
    try:
        files = new_project(folder, example)
        _write(files)
    except StartError as error:
        raise CouldNotRunError(str(error)) from error
    for path in sorted(files):
        shown.say(f"  {path}")
    shown.say(f"{folder} is a project; its app is {show(app_name(folder))}. Next:")
    where = "" if folder.resolve() == Path.cwd() else f"cd {_pasted(folder)} && "
    python = "" if _makes_venvs("python3") else f" PYTHON={quote(sys.executable)}"
    shown.say(f"  {where}make serve{python}")
    return CLEAN


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the workflow, and its route.")],
    extends: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Start as a variant of this workflow."),
    ] = None,
    project: Project = HERE,
    quiet: Quiet = False,
) -> int:
    """Start a workflow: workflows/NAME.yaml, which answers at /NAME.

    It makes a picture of one colour until you paste a graph; import makes a workflow of a file
    that ComfyUI saved.
    """
    from ..starting import StartError, new_workflow

    shown = Shown(quiet=quiet)
    try:
        files = new_workflow(project, name, extends)
        _write(files)
    except StartError as error:
        raise CouldNotRunError(str(error)) from error
    for path in files:
        shown.say(f"{path} answers at {show('/' + name)}; edit it, then: make validate")
    return CLEAN


def _makes_venvs(python: str) -> bool:
    """Say whether a Python on the PATH is new enough for a project, and has what makes its .venv."""
    script = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
    try:
        done = subprocess.run([python, "-c", script], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _pasted(folder: Path) -> str:
    """Return a folder as a shell takes it; one that begins with a dash is no option then."""
    text = str(folder)
    return quote(f"./{text}" if text.startswith("-") else text)


def _write(files: dict[Path, str]) -> None:
    from ..whole_files import write_all

    try:
        write_all(files)
    except OSError as error:
        raise CouldNotRunError(f"{error.filename}: {error.strerror}") from error
