"""Models against gpu.yaml: whether they can be fetched, and fit the GPU's memory."""

from collections.abc import Iterable
from typing import Final

from ..diagnostics import Diagnostic, Severity
from ..graph.words import show
from ..spec import Model, Models, Settings, Workflow
from .models import Uses

_TOKEN: Final = "HF_TOKEN"
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


def _size(model: Model) -> int:
    return model.size or 0


def _shown(size: int) -> str:
    return f"{size / _GB:.1f} GB"
