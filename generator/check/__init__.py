"""Checks: from specs to specs that are proved to fit, and to diagnostics."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..diagnostics import Diagnostic
from ..graph.catalog import Catalog, ClassType, open_catalog, versions
from ..graph.families import Known
from ..lock import Lock, with_lock
from ..project import Project
from ..spec import Models, Pack, Settings, Workflow
from .classes import UNCLEAR, check_links, resolve_classes
from .fit import check_access, check_licenses, check_memory
from .graphs import WRONG_LINKS, check_graphs
from .lock import check_lock, check_resolved, packs_by_group
from .models import check_declarations, check_unlocked, check_unused, families_of
from .names import check_names, check_references, check_workers
from .params import check_params, with_text_limit
from .reach import sent_nodes
from .settings import check_settings, check_timeout
from .sizes import check_sizes
from .uses import Uses, check_uses
from .variants import LeftOut, check_variants

__all__ = ["Checked", "CheckedWorkflow", "check"]


@dataclass(frozen=True)
class CheckedWorkflow:
    """A workflow with what the checks found out about it.

    `workflow.params` have their bounds filled in; `unchecked` are the classes that may be of packs
    without node schemas; `left_out` says what each param that may be absent leaves out of the graph.
    """

    workflow: Workflow
    classes: Mapping[str, ClassType]
    unchecked: frozenset[str]
    left_out: Mapping[str, LeftOut]
    uses: Uses


@dataclass(frozen=True)
class Checked:
    """A project that can be rendered; `lock` is None where there is no generator.lock.

    `is_whole` says whether `workflows` are all that there are: others could not be read.
    """

    workflows: tuple[CheckedWorkflow, ...]
    models: Models
    settings: Settings
    catalog: Catalog
    is_whole: bool
    lock: Lock | None = None

    @property
    def on(self) -> tuple[CheckedWorkflow, ...]:
        """The workflows that are not switched off: what is installed and downloaded is for them."""
        return tuple(one for one in self.workflows if one.workflow.enabled)

    @property
    def groups(self) -> dict[str, tuple[Pack, ...]]:
        """The packs in the image of each group of workflows that are on; "" is no group."""
        return packs_by_group(((one.workflow, one.uses) for one in self.on), self.models)


def check(project: Project) -> tuple[Checked | None, list[Diagnostic]]:
    """Check a project; what comes back can be rendered if no diagnostic is an error.

    None comes back when models.yaml or gpu.yaml could not be read.
    """
    settings, lock = project.settings, project.lock
    models = with_lock(project.models, lock) if project.models else None
    known = versions(*project.catalogs)
    faults = check_names(project.workflows.values())
    if settings:
        faults += check_settings(settings, models, known)
        faults += check_workers(project.workflows.values(), settings)
    version = settings.comfyui.version if settings else known[-1]
    if version not in known:
        return None, faults
    catalog = open_catalog(*project.catalogs, version=version)
    families = families_of(models) if models else {}
    checked: list[CheckedWorkflow] = []
    seen: dict[str, list[Diagnostic]] = {}
    for name, workflow in project.workflows.items():
        one, seen[name] = _check_workflow(workflow, models, settings, catalog, families)
        checked.append(one)
    for name, workflow in project.workflows.items():
        faults += _explained(workflow, seen[name], seen)
    if models is None or settings is None:
        return None, faults
    named = {name for workflow in project.workflows.values() for name in workflow.models}
    unchecked = frozenset[str]().union(*(one.unchecked for one in checked))
    faults += check_declarations(models, catalog, named, unchecked)
    faults += check_access(models, settings)
    used = [(one.workflow, one.uses) for one in checked]
    faults += check_memory(used, models, settings) + check_licenses(used, models)
    unclear = UNCLEAR | WRONG_LINKS
    is_clear = not any(fault.code in unclear for found in seen.values() for fault in found)
    is_clear &= project.is_whole
    if is_clear:
        faults += check_unused(models, (one.uses for one in checked), catalog)
    found = Checked(tuple(checked), models, settings, catalog, project.is_whole, lock)
    faults += check_lock(lock, models) if lock else check_unlocked(models)
    if lock and is_clear:
        faults += check_resolved(lock, settings, found.groups)
    return found, faults


def _check_workflow(
    workflow: Workflow,
    models: Models | None,
    settings: Settings | None,
    catalog: Catalog,
    families: Known,
) -> tuple[CheckedWorkflow, list[Diagnostic]]:
    classes, faults = resolve_classes(workflow, catalog, models)
    unclear = {fault.node for fault in faults}
    unchecked = {
        node.class_type for node in workflow.graph.values() if node.id not in {*classes, *unclear}
    }
    faults += check_links(workflow, classes)
    faults += check_references(workflow, models, settings)
    faults += check_timeout(workflow, settings)
    if settings:
        workflow = with_text_limit(workflow, settings.limits.text_characters)
    written = workflow
    params, of_params = check_params(written, classes, sent_nodes(written))
    workflow = replace(written, params=params)
    if settings:
        faults += check_sizes(workflow, settings.limits)
    is_clear = not any(fault.code == "bad-param" for fault in of_params)
    left_out, wrong = check_variants(workflow, classes)
    # What may be absent is not known of params that contradict themselves.
    faults += [fault for fault in wrong if is_clear or fault.code != "no-output"]
    of_graphs = check_graphs(workflow, classes, left_out, catalog, families)
    if any(fault.code in WRONG_LINKS for fault in (*faults, *of_graphs)):
        # What no output needs is not known while a link is wrong: that is said once it is right.
        of_graphs = [fault for fault in of_graphs if fault.code != "unreachable"]
        _, of_params = check_params(written, classes, written.graph)
    faults += of_params + of_graphs
    uses = Uses((), ())
    if models:
        uses, wrong = check_uses(workflow, classes, models, catalog)
        faults += wrong
    return CheckedWorkflow(workflow, classes, frozenset(unchecked), left_out, uses), faults


def _explained(
    workflow: Workflow, found: list[Diagnostic], seen: Mapping[str, list[Diagnostic]]
) -> list[Diagnostic]:
    """Leave out the faults that the base has too; say of others in its file who sees them."""
    own = [fault for fault in found if fault.file == workflow.file]
    inherited = set(seen.get(workflow.extends or "", ()))
    others = [
        replace(fault, message=f"{fault.message} (in {workflow.file}, which extends this)")
        for fault in found
        if fault.file != workflow.file and fault not in inherited
    ]
    return own + others
