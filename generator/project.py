"""A project's folder: gpu.yaml, models.yaml and workflows/*.yaml."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import extends, schema
from .diagnostics import Diagnostic, Severity, has_errors, show
from .load import Node, load_file
from .names import WORKFLOW_NAME
from .spec import Models, Settings, Workflow, read_models, read_settings, read_workflow

CATALOGS: Final = Path(__file__).parent / "catalogs"


@dataclass(frozen=True)
class Project:
    """The specs of one app.

    `workflows` holds those that could be read, and `is_whole` says whether that is all of them;
    `models` and `settings` are None when models.yaml or gpu.yaml has faults, and what depends on
    them is then not checked.
    """

    root: Path
    workflows: dict[str, Workflow]
    models: Models | None
    settings: Settings | None
    is_whole: bool


def is_project(root: Path) -> bool:
    """Say whether a folder holds a project."""
    return (root / "gpu.yaml").exists() or (root / "workflows").is_dir()


def load_project(root: Path) -> tuple[Project, list[Diagnostic]]:
    """Load the specs below `root`, with every fault of syntax, schema, slots and `extends`."""
    settings_root, faults = _load(root, "gpu.yaml", "gpu")
    models_root, model_faults = _load(root, "models.yaml", "models")
    workflows, workflow_faults = _load_workflows(root)
    project = Project(
        root,
        workflows,
        read_models(models_root) if models_root else None,
        read_settings(settings_root, schema.schema("gpu")) if settings_root else None,
        is_whole=not has_errors(workflow_faults),
    )
    return project, [*faults, *model_faults, *workflow_faults]


def _load(root: Path, name: str, kind: schema.Kind) -> tuple[Node | None, list[Diagnostic]]:
    if not (root / name).exists():
        message = f"there is no {name} in this folder"
        return None, [Diagnostic(name, 1, 1, Severity.ERROR, "missing-file", message)]
    node, faults = load_file(root / name, name)
    if node is not None:
        faults += schema.validate(node, kind)
    return (None if has_errors(faults) else node), faults


def _load_workflows(root: Path) -> tuple[dict[str, Workflow], list[Diagnostic]]:
    faults: list[Diagnostic] = []
    roots: dict[str, Node] = {}
    names: set[str] = set()
    for path in sorted((root / "workflows").glob("*")):
        if path.suffix.lower() not in (".yaml", ".yml", ".json"):
            continue
        file = f"workflows/{path.name}"
        if path.suffix != ".yaml" or not WORKFLOW_NAME.fullmatch(path.stem):
            message = f"{show(path.name)} is no name of a workflow"
            hint = "lower-case letters, digits and single dashes, then .yaml"
            faults.append(Diagnostic(file, 1, 1, Severity.ERROR, "bad-name", message, hint=hint))
            continue
        names.add(path.stem)
        node, found = load_file(path, file)
        faults += found
        if node is not None and not has_errors(found):
            roots[path.stem] = node
    if not names and not faults:
        message = "no workflow: add a file such as workflows/flux.yaml"
        faults.append(Diagnostic("workflows", 1, 1, Severity.ERROR, "missing-file", message))
    workflows, found = _read_workflows(roots)
    return workflows, [*faults, *extends.check_bases(roots, names), *found]


def _read_workflows(roots: dict[str, Node]) -> tuple[dict[str, Workflow], list[Diagnostic]]:
    """Read the workflows, bases first; what extends a faulty one is checked as a patch alone."""
    faults: list[Diagnostic] = []
    merged: dict[str, Node] = {}
    workflows: dict[str, Workflow] = {}
    for name in extends.bases_first(roots):
        root = roots[name]
        base = extends.base_of(root)
        if "extends" in root.mapping and base not in merged:
            faults += schema.validate(extends.without_nulls(root) if base else root, "workflow")
            continue
        extended = merged[base] if base else None
        nulls = extends.check_nulls(root, extended)
        places = {(fault.line, fault.column) for fault in nulls}
        whole = extends.extended(extended, root) if extended else root
        found = schema.validate(whole, "workflow")
        broken = [*nulls, *(f for f in found if (f.line, f.column) not in places)]
        faults += broken
        if has_errors(broken):
            continue
        merged[name] = whole
        workflows[name], wrong = read_workflow(name, whole, base)
        faults += wrong
    return dict(sorted(workflows.items())), faults
