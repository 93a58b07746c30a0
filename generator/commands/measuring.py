"""The command that measures a service: bench."""

import json as json_module
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import CLEAN, FAULTS, CouldNotRunError, Quiet, Shown, by_name, refuse


def bench(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of the service, here or deployed.")],
    route: Annotated[
        str | None,
        typer.Option(
            metavar="ROUTE", help="Endpoint to ask.", show_default="the only one, or /flux"
        ),
    ] = None,
    requests: Annotated[int, typer.Option("--requests", "-n", min=1, help="How many.")] = 20,
    parallel: Annotated[
        int, typer.Option("--parallel", "-p", min=1, max=100, help="How many at a time.")
    ] = 1,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="A param for all requests; JSON, else text. May be repeated."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same requests.")] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Picture of the numbers: .svg, .png or .pdf."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    quiet: Quiet = False,
) -> int:
    """Measure an endpoint: seconds, USD, throughput and success rate.

    Sends the example of the endpoint with other texts and seeds: one alone, then the others. Each
    answer is decoded: it must have the asked size, and not be of one colour. Requests that waited
    for a worker to start are counted apart. Every request is paid for where a GPU is.

    The key is read from COMFYUI_API_KEY, for a command line can be read by others.
    """
    from templates.client_core import KEY_VARIABLE

    from ..benchmark import BenchmarkError, benchmark
    from ..benchmark_report import PlotError, document, table
    from ..benchmark_report import plot as draw

    shown = Shown(quiet=quiet)
    fixed = {name: _value(text) for name, text in by_name(param).items()}
    key = os.environ.get(KEY_VARIABLE, "")
    try:
        with shown.progress("asking") as tell:
            found = benchmark(
                url.rstrip("/"),
                key,
                route,
                requests=requests,
                parallel=parallel,
                seed=seed,
                fixed=fixed,
                tell=tell,
            )
        if plot is not None:
            draw(found, plot)
    except (BenchmarkError, PlotError) as error:
        raise CouldNotRunError(str(error)) from error
    about = document(found)
    if json:
        sys.stdout.write(json_module.dumps(about, indent=2) + "\n")
    else:
        from rich.console import Console

        Console(file=sys.stdout, highlight=False).print(table(found))
    if about["faults"]:
        refuse(*(f"{count} times: {fault}" for fault, count in about["faults"].items()))
    return FAULTS if about["faults"] else CLEAN


def _value(text: str) -> Any:
    """Return what a text is as JSON, or the text."""
    try:
        return json_module.loads(text)
    except ValueError:
        return text
