"""Names and routes: what clashes, what is reserved, and what names nothing."""

from collections.abc import Callable, Iterable, Iterator
from keyword import iskeyword
from typing import Final

from ..diagnostics import Diagnostic
from ..graph.words import did_you_mean, show
from ..load import Node
from ..names import class_name, function_name, worker_name
from ..spec import Models, Settings, Workflow

# First segments of the paths that the API itself answers.
RESERVED_ROUTES: Final = frozenset(
    "docs events health jobs metrics models openapi outputs ready redoc static usage workflows".split()
)


def check_names(workflows: Iterable[Workflow]) -> list[Diagnostic]:
    """Return reserved routes, and routes and Python names that two workflows share."""
    workflows = list(workflows)
    faults = [
        _place(workflow, "route").error(
            "reserved-route",
            f"route {workflow.route} is reserved: the API answers there itself",
            hint=f"set route: /{workflow.name}-workflow or another",
        )
        for workflow in workflows
        if workflow.route.split("/")[1] in RESERVED_ROUTES
    ]
    faults += [
        _place(workflow, "handler").error(
            "bad-name", f"{workflow.handler} is a word of Python, so it names no module"
        )
        for workflow in workflows
        if iskeyword(workflow.handler)
    ]
    faults += _clashes(workflows, "route", lambda w: w.route, "route-collision")
    faults += _clashes(workflows, "handler", lambda w: function_name(w.name), "name-collision")
    faults += _clashes(workflows, "handler", lambda w: class_name(w.name), "name-collision")
    return faults


def check_workers(workflows: Iterable[Workflow], settings: Settings) -> list[Diagnostic]:
    """Return workflows whose worker class has the name of another profile's or group's."""
    faults: list[Diagnostic] = []
    first: dict[str, tuple[str, str]] = {}
    for workflow in workflows:
        profile, group = workflow.gpu or settings.default_gpu, workflow.group or ""
        name = worker_name(profile, group)
        other, other_group = first.setdefault(name, (profile, group))
        if (other, other_group) != (profile, group):
            message = (
                f"the worker class of {_worker(profile, group)} is {name}, "
                f"and so is that of {_worker(other, other_group)}"
            )
            at = _place(workflow, "group" if group else "gpu")
            hint = "rename the group, or the profile in gpu.yaml"
            faults.append(at.error("name-collision", message, hint=hint))
    return faults


def _worker(profile: str, group: str) -> str:
    of_group = f", group {show(group)}" if group else ""
    return f"GPU profile {show(profile)}{of_group}"


def check_references(
    workflow: Workflow, models: Models | None, settings: Settings | None
) -> list[Diagnostic]:
    """Return models, packs and GPU profiles that a workflow names and nobody declares."""
    faults: list[Diagnostic] = []
    if models:
        faults += _undeclared(workflow.at, "models", models.models, "undeclared-model")
        faults += _undeclared(workflow.at, "packs", models.packs, "undeclared-pack")
    if settings and workflow.gpu and workflow.gpu not in settings.gpus:
        message = f"gpu.yaml has no GPU profile {show(workflow.gpu)}"
        hint = did_you_mean(workflow.gpu, settings.gpus) or _list(settings.gpus)
        faults.append(workflow.at.mapping["gpu"].error("unknown-gpu", message, hint=hint))
    return faults


def _undeclared(at: Node, key: str, known: Iterable[str], code: str) -> list[Diagnostic]:
    named = at.mapping[key].items if key in at.mapping else []
    known = list(known)
    return [
        item.error(
            code,
            f"models.yaml declares no {key.removesuffix('s')} {show(item.text)}",
            hint=did_you_mean(item.text, known) or _list(known),
        )
        for item in named
        if item.text not in known
    ]


def _clashes(
    workflows: list[Workflow], key: str, name: Callable[[Workflow], str], code: str
) -> Iterator[Diagnostic]:
    first: dict[str, Workflow] = {}
    for workflow in workflows:
        other = first.setdefault(name(workflow), workflow)
        if other is not workflow:
            message = f"{other.file} has {name(workflow)} already"
            hint = "give one of them another route" if key == "route" else "rename one of the files"
            yield _place(workflow, key).error(code, message, hint=hint)


def _place(workflow: Workflow, key: str) -> Node:
    """Where the key is written in the workflow's own file, or the start of that file."""
    node = workflow.at.mapping.get(key)
    if node is not None and node.file == workflow.file:
        return node
    return Node(None, workflow.file, 1, 1)


def _list(known: Iterable[str]) -> str | None:
    names = ", ".join(sorted(known))
    return f"declared are {names}" if names else None
