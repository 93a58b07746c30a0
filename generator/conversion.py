"""Convert files from ComfyUI's UI format to its API format."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .diagnostics import Diagnostic, has_errors
from .graph.catalog import Catalog
from .graph.convert import convert
from .graph_files import fault, parse, placed, read_text


@dataclass(frozen=True, slots=True)
class Converted:
    """A file's graph as JSON, None where an error is among the diagnostics.

    `packs` are those that its classes are of, several where several have the same class.
    """

    path: Path
    text: str | None
    diagnostics: list[Diagnostic]
    packs: tuple[str, ...] = ()


def convert_file(path: Path, catalog: Catalog) -> Converted:
    """Return the graph of a file, and what is wrong with it."""
    name = str(path)
    text, faults = read_text(path, name)
    if text is None:
        return Converted(path, None, faults)
    document, faults = parse(text, name)
    if faults:
        return Converted(path, None, faults)
    made = convert(document, catalog)
    diagnostics = list(placed(made.findings, document, text, name)) if made.findings else []
    if has_errors(diagnostics):
        return Converted(path, None, diagnostics)
    packs = {
        " or ".join(catalog.packs_with(content["class_type"]))
        for content in made.graph.values()
        if content["class_type"] not in catalog.core
    }
    try:
        written = json.dumps(made.graph, indent=2, allow_nan=False) + "\n"
        return Converted(path, written, diagnostics, tuple(sorted(packs - {""})))
    except (RecursionError, ValueError):
        message = "a value nests too deep, or is a number that JSON has not: NaN or Infinity"
        return Converted(path, None, [*diagnostics, fault(name, "bad-number", message)])


def targets(paths: Iterable[Path], folder: Path) -> dict[Path, Path]:
    """Return where the graphs of files go: NAME.json and NAME.ui.json to NAME.api.json.

    Raises:
        ValueError: when two go to one file.
    """
    found: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for path in paths:
        stem = path.name.removesuffix(".json").removesuffix(".ui").removesuffix(".api")
        target = folder / f"{stem}.api.json"
        if taken.setdefault(target, path) != path:
            raise ValueError(f"{taken[target]} and {path} would both become {target}")
        found[path] = target
    return found
