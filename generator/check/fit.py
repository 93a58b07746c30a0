"""Models in use: whether they can be fetched and fit the GPU's memory, and their licences."""

from collections.abc import Iterable
from typing import Final

from ..diagnostics import Diagnostic, Severity
from ..graph.words import show
from ..spec import Model, Models, Settings, Workflow
from .uses import Uses

_TOKEN: Final = "HF_TOKEN"
_SHOWN: Final = 8
_GB: Final = 10**9
_GIB: Final = 2**30


def check_access(models: Models, settings: Settings) -> list[Diagnostic]:
    """Return the gated models that no secret of gpu.yaml opens."""
    if any(_TOKEN in names for names in settings.secrets.values()):
        return []
    hint = f"add to secrets: in gpu.yaml: huggingface: [{_TOKEN}]"
    return [
        model.at.mapping["gated"].error(
            "gated-without-secret",
            f"model {show(model.name)} is gated, and no secret brings {_TOKEN}",
            hint=hint,
        )
        for model in models.models.values()
        if model.gated
    ]


def check_memory(
    used: Iterable[tuple[Workflow, Uses]], models: Models, settings: Settings
) -> list[Diagnostic]:
    """Return the workflows whose models do not fit the memory of their GPU.

    One model that does not fit is a warning; all together are an info, for ComfyUI moves models
    out of the GPU's memory when they are not needed.
    """
    faults: list[Diagnostic] = []
    for workflow, uses in used:
        gpu = settings.gpus.get(workflow.gpu or settings.default_gpu)
        sized = [m for m in map(models.models.get, uses.models) if m is not None and m.size]
        if gpu is None or not sized:
            continue
        room = gpu.vram_gb * _GIB
        largest = max(sized, key=_size)
        total = sum(map(_size, sized))
        memory = f"the {gpu.vram_gb} GiB of {gpu.modal}"
        if _size(largest) > room:
            message = f"model {show(largest.name)} has {_shown(_size(largest))}, more than {memory}"
            hint = "choose a GPU with more memory, with gpu:, or a quantized model"
            faults.append(workflow.at.report(Severity.WARNING, "model-memory", message, hint=hint))
        elif total > room:
            message = (
                f"the models have {_shown(total)}, more than {memory}: "
                "ComfyUI swaps them during a run, which takes time"
            )
            faults.append(workflow.at.report(Severity.INFO, "models-memory", message))
    return faults


def check_licenses(used: Iterable[tuple[Workflow, Uses]], models: Models) -> list[Diagnostic]:
    """Return the licences of the models in use, each once, and which models declare none.

    What lies on a Volume is the user's own affair.
    """
    workflows: dict[str, list[str]] = {}
    for workflow, uses in used:
        for name in uses.models:
            workflows.setdefault(name, []).append(workflow.name)
    by_license: dict[str | None, list[Model]] = {}
    for name, model in models.models.items():
        if name in workflows and (model.license or "volume" not in model.source):
            by_license.setdefault(model.license, []).append(model)
    faults: list[Diagnostic] = []
    for terms, group in by_license.items():
        names = _listed(model.name for model in group)
        users = _listed(sorted({user for model in group for user in workflows[model.name]}))
        if terms is None:
            message = f"no licence is declared of {names}, which {users} need"
            hint = "look it up, and add license:"
            at = group[0].at
            faults.append(at.report(Severity.INFO, "no-license", message, hint=hint, at_key=True))
        else:
            message = f"{names}, for {users}: {show(terms)}"
            at = group[0].at.mapping.get("license", group[0].at)
            faults.append(at.report(Severity.INFO, "license", message))
    return faults


def _listed(names: Iterable[str]) -> str:
    names = tuple(names)
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _size(model: Model) -> int:
    return model.size or 0


def _shown(size: int) -> str:
    return f"{size / _GB:.1f} GB"
