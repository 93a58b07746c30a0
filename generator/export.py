"""A workflow as the graph that its endpoint would send: ComfyUI's API format."""

import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from .check import Checked, CheckedWorkflow
from .graph.words import show
from .names import class_name, function_name, no_such
from .publish import publish
from .render import render

_NUMBERS: Final = count()


class ExportError(ValueError):
    """The graph cannot be made; each of `faults` says what is wrong with one value."""

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def export(checked: Checked, name: str, values: Mapping[str, str]) -> dict[str, Any]:
    """Return the graph that a workflow's endpoint sends for some params.

    The params are texts, as in a form; media are names of files. A seed that is not given is the
    smallest one, so that the same values give the same graph. The rendered code makes the graph.

    Raises:
        ExportError: when there is no such workflow, when it holds no graph of its own, or when the
            endpoint would refuse the values.
    """
    one = _find(checked, name)
    seeds = {
        param.name: str(int(param.minimum or 0))
        for param in one.workflow.params.values()
        if param.type == "seed"
    }
    with _rendered(replace(checked, workflows=(one,))) as package:
        handler = _module(package, f"handlers.{one.workflow.handler}")
        items = _module(package, "gateway.items")
        bodies = _module(package, "gateway.bodies")
        problems = _module(package, "gateway.problems")
        body = bodies.Body({**seeds, **values}, is_form=True)
        try:
            item, _ = items.read_item(getattr(handler, class_name(name)), body)
        except problems.Problem as problem:
            raise ExportError(*_said(problem.faults or [problem])) from problem
        graph: dict[str, Any] = getattr(handler, function_name(name))(item)
        return graph


def as_json(graph: Mapping[str, Any]) -> str:
    """Return a graph as ComfyUI's own export writes it."""
    return json.dumps(graph, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _find(checked: Checked, name: str) -> CheckedWorkflow:
    known = {one.workflow.name: one for one in checked.workflows}
    if name not in known:
        raise ExportError(no_such("workflow", name, known))
    if known[name].workflow.graph_param:
        raise ExportError(f"{show(name)} holds no graph: its callers send one")
    return known[name]


@contextmanager
def _rendered(checked: Checked) -> Iterator[str]:
    """Render a project beside everything else, and yield the package to import it from."""
    package = f"_exported_{next(_NUMBERS)}"
    with TemporaryDirectory(prefix="export-") as folder:
        publish(render(checked), Path(folder) / package)
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield package
        finally:
            sys.path.remove(folder)
            for module in [m for m in sys.modules if m.partition(".")[0] == package]:
                del sys.modules[module]


def _module(package: str, name: str) -> Any:
    try:
        return importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        raise ExportError(
            f"{error.name} is not installed: install the requirements of gpu.yaml "
            "(python -m generator requirements prints them)"
        ) from error


def _said(faults: Sequence[Any]) -> Iterator[str]:
    for fault in faults:
        name = getattr(fault, "pointer", "").removeprefix("/")
        yield f"param {show(name)}: {fault.detail}" if name else fault.detail
