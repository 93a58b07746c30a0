"""From what people save in ComfyUI to a workflow's YAML file, and its changes too."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..diagnostics import Diagnostic, has_errors, sorted_once
from ..graph.catalog import open_catalog, versions
from ..graph.words import show
from ..lock import LOCK_FILE
from ..names import WORKFLOW_NAME
from ..project import load_project
from ..whole_files import write_all
from .new import MODELS, Imported, import_new
from .update import UpdateError, import_update

__all__ = ["Import", "ImportRefusedError", "import_workflow"]

_LONGEST_NAME = 100


class ImportRefusedError(RuntimeError):
    """The import could not run; the message says why, and what to do. Nothing was written."""


@dataclass(frozen=True)
class Import:
    """What an import did: diagnostics, lines for a person, and how much it left undecided."""

    diagnostics: list[Diagnostic]
    said: list[str]
    undecided: int


def import_workflow(
    path: Path, name: str, root: Path, *, update: bool = False, take_defaults: bool = False
) -> Import:
    """Import a file into a project, and write what changed: all of it, or nothing.

    With `update` the changes of the file go into the workflow that is there; `take_defaults` then
    takes the file's values as the defaults of params.

    Raises:
        ImportRefusedError: when the project or the name does not allow it, or the disk refuses.
    """
    if not WORKFLOW_NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        hint = "lower-case letters and digits, a letter first, with single - or _ between"
        raise ImportRefusedError(f"{show(name)} is no name of a workflow: {hint}")
    project, faults = load_project(root)
    broken = [d for d in sorted_once(faults) if d.file in ("gpu.yaml", MODELS)]
    broken = [d for d in broken if not (d.file == MODELS and d.code == "missing-file")]
    if has_errors(broken):
        return Import(_in(root, broken), ["nothing written: mend these files first"], 0)
    version = project.settings.comfyui.version if project.settings else ""
    if version not in versions(*project.catalogs):
        raise ImportRefusedError(f"there are no node schemas of ComfyUI {version}")
    catalog = open_catalog(*project.catalogs, version=version)
    target = root / "workflows" / f"{name}.yaml"
    if update:
        try:
            found = import_update(path, name, project, catalog, take_defaults=take_defaults)
        except UpdateError as error:
            raise ImportRefusedError(str(error)) from error
    elif target.exists():
        raise ImportRefusedError(
            f"{target} is there already: with --update the file's changes go into it"
        )
    else:
        found = import_new(path, name, project, catalog)
    if found.files:
        try:
            write_all({root / file: text for file, text in found.files.items()})
        except OSError as error:
            raise ImportRefusedError(f"nothing written: {error}") from error
    return Import(
        _in(root, sorted_once(found.diagnostics)), _said(root, name, found), found.undecided
    )


def _in(root: Path, diagnostics: list[Diagnostic]) -> list[Diagnostic]:
    """Return diagnostics with the names of the project's files as they are from here."""
    return [
        replace(d, file=(root / d.file).as_posix()) if d.file.endswith(".yaml") else d
        for d in diagnostics
    ]


def _said(root: Path, name: str, found: Imported) -> list[str]:
    if has_errors(found.diagnostics) and not found.files:
        return ["nothing written"]
    file = f"workflows/{name}.yaml"
    params = ", ".join(found.params) or "none"
    lines = [f"{(root / file).as_posix()}: {found.nodes} nodes; params: {params}"]
    if file not in found.files:
        lines = [f"{(root / file).as_posix()} is up to date"]
    if added := [*found.models, *found.packs]:
        lines.append(f"{(root / MODELS).as_posix()}: added {', '.join(added)}")
        if (root / LOCK_FILE).exists():
            lines.append(f"run make lock: {LOCK_FILE} does not have them yet")
    if found.undecided:
        lines.append(f"{found.undecided} TODO: decide what the file could not tell")
    return lines
