"""The command line: python -m generator COMMAND."""

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from io import TextIOWrapper
from typing import Annotated, Final, ParamSpec

import typer

from . import __version__
from .commands import graphs, measuring, projects, serving, specs
from .console import COULD_NOT_RUN, CouldNotRunError, refuse
from .deployment import commands as deployment

P = ParamSpec("P")

_PROJECTS: Final = "Start"
_SPECS: Final = "Your specs"
_GRAPHS: Final = "Graphs of ComfyUI"
_SERVICE: Final = "On this machine"
_DEPLOYED: Final = "On Modal"

COMMANDS: Final[dict[str, dict[str, Callable[..., int]]]] = {
    _PROJECTS: {"init": projects.init, "new": projects.new},
    _SPECS: {
        "validate": specs.validate,
        "build": specs.build,
        "lock": specs.lock,
        "requirements": specs.requirements,
        "catalog": specs.catalog,
    },
    _GRAPHS: {
        "import": graphs.import_,
        "export": graphs.export,
        "graph": graphs.graph,
        "lint": graphs.lint,
        "convert": graphs.convert,
    },
    _SERVICE: {
        "serve": serving.serve,
        "watch": serving.watch,
        "test": serving.try_all,
        "bench": measuring.bench,
    },
    _DEPLOYED: {
        "plan": deployment.plan,
        "deploy": deployment.deploy,
        "status": deployment.status,
        "logs": deployment.logs,
        "rollback": deployment.rollback,
        "stop": deployment.stop,
        "upload": deployment.upload,
        "key": deployment.key,
    },
}

app: Final = typer.Typer(
    help="From YAML specs to a ComfyUI service on Modal.",
    epilog="Exit codes: 0 clean, 1 errors found, 2 could not run. Reference: docs/workflows.md.",
    rich_markup_mode="markdown",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 clean, 1 errors found, 2 could not run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(arguments, prog_name="python -m generator")
    except CouldNotRunError as error:
        refuse(*error.faults, note=error.note)
        return error.code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else COULD_NOT_RUN
    raise AssertionError("a command line ends with an exit code")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def _ending(command: Callable[P, int]) -> Callable[P, None]:
    """Return a command that ends with its exit code."""

    @wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> None:
        try:
            code = command(*arguments, **options)
        except KeyboardInterrupt:
            refuse("interrupted")
            code = COULD_NOT_RUN
        raise typer.Exit(code)

    return run


for _panel, _commands in COMMANDS.items():
    for _name, _command in _commands.items():
        app.command(_name, rich_help_panel=_panel)(_ending(_command))
