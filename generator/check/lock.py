"""The specs against generator.lock."""

from collections.abc import Iterable, Mapping
from typing import Final

from ..diagnostics import Diagnostic, Severity
from ..graph.words import show
from ..load import Node
from ..lock import (
    COMFYUI,
    GATEWAY,
    LOCK_FILE,
    Inputs,
    Lock,
    LockedModel,
    LockedPack,
    inputs_of_images,
    source_of,
)
from ..spec import Model, Models, Pack, Settings, Workflow
from .uses import Uses

_RUN: Final = "run make lock"


def packs_by_group(
    used: Iterable[tuple[Workflow, Uses]], models: Models
) -> dict[str, tuple[Pack, ...]]:
    """Return the packs in the image of each group of workflows that are on; "" is no group.

    Where callers may send graphs of their own, those are all that are declared.
    """
    names: dict[str, set[str]] = {}
    for workflow, uses in used:
        group = names.setdefault(workflow.group or "", set())
        group |= set(models.packs) if workflow.graph_param else set(uses.packs)
    return {
        group: tuple(pack for name, pack in sorted(models.packs.items()) if name in names[group])
        for group in sorted(names)
    }


def check_lock(lock: Lock, models: Models) -> list[Diagnostic]:
    """Return the models and packs that the lock does not have as models.yaml declares them."""
    faults: list[Diagnostic] = []
    wanted = {("pack", name) for name in models.packs}
    for name, model in models.models.items():
        if "volume" not in model.source:
            wanted.add(("model", name))
            faults += _check_model(model, lock.models.get(name))
    for name, pack in models.packs.items():
        faults += _check_pack(pack, lock.packs.get(name))
    return faults + [
        _stale(line, f"models.yaml declares no {kind} {show(name)}")
        for (kind, name), line in lock.lines.items()
        if (kind, name) not in wanted
    ]


def check_resolved(
    lock: Lock, settings: Settings, groups: Mapping[str, tuple[Pack, ...]]
) -> list[Diagnostic]:
    """Return what has changed since the requirements of each image were resolved.

    `groups` are the packs in the workers' images, by group.
    """
    faults: list[Diagnostic] = []
    for group, now in inputs_of_images(settings, groups).items():
        packs = groups.get(group, ())
        faults += _check_inputs(lock.resolved.get(group), now, group, settings, packs)
    return faults + [
        _stale(
            1, f"it has requirements of the group {show(group)}, which no workflow that is on names"
        )
        for group in lock.resolved
        if group not in groups and group not in (GATEWAY, COMFYUI)
    ]


def _check_model(model: Model, locked: LockedModel | None) -> list[Diagnostic]:
    at = model.at.mapping["source"]
    if locked is None:
        return [_drift(at, f"{LOCK_FILE} has no model {show(model.name)}")]
    if locked.source != source_of(model):
        return [_drift(at, f"{LOCK_FILE} has model {show(model.name)} from elsewhere")]
    faults = [
        _drift(at.mapping[key], f"{LOCK_FILE} has another {key} of model {show(model.name)}")
        for key, value in (("revision", locked.revision), ("sha256", locked.sha256))
        if model.source.get(key, value) != value
    ]
    if locked.gated and not model.gated:
        hint = "add gated: true to the model"
        faults.append(_drift(at, f"{locked.source['hf']} is gated", hint))
    return faults


def _check_pack(pack: Pack, locked: LockedPack | None) -> list[Diagnostic]:
    if locked is None:
        return [_drift(pack.at.mapping["git"], f"{LOCK_FILE} has no pack {show(pack.name)}")]
    return [
        _drift(pack.at.mapping[key], f"{LOCK_FILE} has another {key} of pack {show(pack.name)}")
        for key in ("git", "commit")
        if getattr(pack, key) != getattr(locked, key)
    ]


def _check_inputs(
    locked: Inputs | None, now: Inputs, group: str, settings: Settings, packs: tuple[Pack, ...]
) -> list[Diagnostic]:
    root = settings.at.mapping
    requirements = root.get("requirements", settings.at)
    if locked is None:
        images = {
            "": "the workers' image",
            GATEWAY: "the gateway's image",
            COMFYUI: "ComfyUI alone",
        }
        image = images.get(group, f"the image of group {show(group)}")
        return [_drift(requirements, f"{LOCK_FILE} has no requirements of {image}")]
    faults: list[Diagnostic] = []
    if now.python != locked.python:
        message = f"{LOCK_FILE} was made for Python {locked.python}"
        faults.append(_drift(root["python"], message))
    if now.comfyui != locked.comfyui:
        message = f"{LOCK_FILE} was made for ComfyUI at commit {locked.comfyui}"
        faults.append(_drift(root["comfyui"].mapping["commit"], message))
    if now.requirements != locked.requirements:
        faults.append(_drift(requirements, f"{LOCK_FILE} was made with other requirements"))
    if now.packs != locked.packs:
        at = packs[0].at if packs else settings.at
        message = f"{LOCK_FILE} was made for other packs, or other requirements of packs"
        faults.append(_drift(at, message))
    return faults


def _drift(at: Node, message: str, hint: str = _RUN) -> Diagnostic:
    return at.error("lock-drift", message, hint=hint)


def _stale(line: int, message: str) -> Diagnostic:
    return Diagnostic(LOCK_FILE, line, 1, Severity.ERROR, "lock-drift", message, hint=_RUN)
