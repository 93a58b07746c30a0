"""A project's folder: gpu.yaml, models.yaml and workflows/*.yaml."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import extends, schema
from .diagnostics import Diagnostic, Severity, has_errors
from .graph.words import show
from .load import Node, load_file
from .lock import Lock, read_lock
from .names import WORKFLOW_NAME
from .spec import Models, Settings, Workflow, read_models, read_settings, read_workflow

# What people mean as a workflow; that it is named .yaml is checked.
SPEC_SUFFIXES: Final = frozenset((".yaml", ".yml", ".json"))
CATALOGS: Final = Path(__file__).parent / "catalogs"


@dataclass(frozen=True)
class Project:
    """The specs of one app.

    `workflows` holds those that could be read, and `is_whole` says whether that is all of them;
    `models` and `settings` are None when models.yaml or gpu.yaml has faults, and what depends on
    them is then not checked. `lock` is None without a generator.lock that can be read.
    """

    root: Path
    workflows: dict[str, Workflow]
    models: Models | None
    settings: Settings | None
    is_whole: bool
    lock: Lock | None = None

    @property
    def catalogs(self) -> tuple[Path, ...]:
        """Where node schemas are: those that come with the generator, then the project's own."""
        return (CATALOGS, self.root / "catalogs")


def is_project(root: Path) -> bool:
    """Say whether a folder holds a project."""
    return (root / "gpu.yaml").exists() or (root / "workflows").is_dir()


def load_project(root: Path) -> tuple[Project, list[Diagnostic]]:
    """Load the specs below `root`, with every fault of syntax, schema, slots and `extends`."""
    settings_root, faults = _load(root, "gpu.yaml", "gpu")
    models_root, model_faults = _load(root, "models.yaml", "models")
    workflows, workflow_faults = _load_workflows(root)
    lock, lock_faults = read_lock(root)
    project = Project(
        root,
        workflows,
        read_models(models_root) if models_root else None,
        read_settings(settings_root, schema.schema("gpu")) if settings_root else None,
        is_whole=not has_errors(workflow_faults),
        lock=None if lock_faults else lock,
    )
    return project, [*faults, *model_faults, *workflow_faults, *lock_faults]


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
    # Unlike rglob, it bears with folders that go meanwhile.
    walked = os.walk(root / "workflows")
    for path in sorted(Path(at, name) for at, folders, files in walked for name in folders + files):
        if path.suffix.lower() not in SPEC_SUFFIXES:
            continue
        name = path.relative_to(root / "workflows").as_posix()
        file = f"workflows/{name}"
        if name != f"{path.stem}.yaml" or not WORKFLOW_NAME.fullmatch(path.stem):
            message = f"{show(name)} is no name of a workflow"
            hint = "a lower-case letter, then letters, digits and single dashes, and .yaml"
            if WORKFLOW_NAME.fullmatch(path.stem.lower()):
                hint = f"rename it to workflows/{path.stem.lower()}.yaml"
            faults.append(Diagnostic(file, 1, 1, Severity.ERROR, "bad-name", message, hint=hint))
            continue
        names.add(path.stem)
        node, found = load_file(path, file)
        if node is not None and not has_errors(found):
            if foreign := _foreign_format(node):
                found.append(foreign)
            else:
                roots[path.stem] = node
        faults += found
    if not names and not faults:
        message = "no workflow: add a file such as workflows/flux.yaml"
        faults.append(Diagnostic("workflows", 1, 1, Severity.ERROR, "missing-file", message))
    workflows, found = _read_workflows(roots)
    return workflows, [*faults, *extends.check_bases(roots, names), *found]


def _foreign_format(root: Node) -> Diagnostic | None:
    """Recognise what people paste: other formats than the one that goes under `graph:`."""
    graph = root.mapping.get("graph")
    for node in (root, graph):
        if node and {"nodes", "links"} <= set(node.mapping):
            message = "this is ComfyUI's UI format, which no engine takes"
            hint = (
                "make a workflow of the file that ComfyUI saved: "
                "python -m generator import FILE --name NAME"
            )
            return node.error("other-format", message, hint=hint, at_key=True)
    if _is_graph(root):
        message = "this is a graph alone"
        return root.error("other-format", message, hint="put it under graph:, indented")
    if graph and _is_graph(graph.mapping.get("prompt")):
        message = "this is what clients send to ComfyUI: the graph is below prompt"
        return graph.error("other-format", message, hint="remove the outer prompt", at_key=True)
    if graph and graph.text.lstrip().startswith("{"):
        message = "this graph is a text"
        return graph.error("other-format", message, hint="remove the | or the quotes around it")
    return None


def _is_graph(node: Node | None) -> bool:
    entries = node.mapping.values() if node else ()
    return bool(entries) and all("class_type" in entry.mapping for entry in entries)


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
