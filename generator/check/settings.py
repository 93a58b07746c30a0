"""gpu.yaml against itself."""

from collections.abc import Iterable
from typing import Final

from ..diagnostics import Diagnostic, Severity
from ..graph.words import did_you_mean, show
from ..load import Node
from ..spec import CACHE, CACHE_VOLUME, Gpu, Models, Settings, Workflow
from .image import check_image
from .secrets import check_secrets

# The GPUs of https://modal.com/docs/guide/gpu in July 2026, and the older name of A10.
_GPUS: Final = (
    "T4", "L4", "A10", "A10G", "L40S", "A100", "A100-40GB", "A100-80GB", "RTX-PRO-6000",
    "H100", "H200", "B200",
)  # fmt: skip
# Modal mounts no Volume there (https://modal.com/docs/guide/volumes).
_UNMOUNTABLE: Final = ("/root", "/tmp")
_KEYS: Final = "API_KEYS"


def check_settings(
    settings: Settings, models: Models | None, versions: Iterable[str]
) -> list[Diagnostic]:
    """Return what gpu.yaml names and does not declare, and values that exclude each other."""
    at = settings.at.mapping
    faults: list[Diagnostic] = []
    version = settings.comfyui.version
    if version not in versions:
        message = f"there are no node schemas of ComfyUI {version}"
        hint = f"there are some of {', '.join(versions)}"
        place = at["comfyui"].mapping["version"]
        faults.append(place.error("unknown-version", message, hint=hint))
    gpus = at["gpus"].mapping
    named = [gpus["default"]]
    named += [item for gpu in settings.gpus.values() for item in _fallbacks(gpus[gpu.name])]
    faults += [
        item.error(
            "unknown-gpu",
            f"there is no GPU profile {show(item.text)}",
            hint=did_you_mean(item.text, settings.gpus),
        )
        for item in named
        if item.text not in settings.gpus
    ]
    faults += [
        item.error("unknown-gpu", "a GPU profile is no fallback of itself")
        for gpu in settings.gpus.values()
        for item in _fallbacks(gpus[gpu.name])
        if item.text == gpu.name
    ]
    faults += _check_gpus(settings)
    faults += _check_prices(settings) + _check_auth(settings) + _check_deadline(settings)
    faults += check_secrets(settings) + check_image(settings)
    return faults + _check_scaling(settings) + _check_volumes(settings, models)


def check_timeout(workflow: Workflow, settings: Settings | None) -> list[Diagnostic]:
    """Return a timeout that is out of order: a request waits for less than a job may take.

    That a worker outlasts its jobs is seen to where it is rendered.
    """
    if settings is None or workflow.timeout is None:
        return []
    deadline = settings.gateway.deadline
    if workflow.timeout > deadline:
        return []
    message = f"timeout {workflow.timeout} is not above gateway.deadline {deadline}: no job goes on"
    hint = f"give it more, or lower gateway.deadline in gpu.yaml below {workflow.timeout}"
    return [workflow.at.mapping["timeout"].error("timeout-order", message, hint=hint)]


def _check_deadline(settings: Settings) -> list[Diagnostic]:
    limit, deadline = settings.scaling.timeout, settings.gateway.deadline
    if deadline < limit:
        return []
    at = settings.at.mapping
    place = at["scaling"].mapping.get("timeout") if "scaling" in at else None
    place = place or at["gateway"].mapping["deadline"]
    message = f"gateway.deadline {deadline} is not below scaling.timeout {limit}: no job goes on"
    return [place.error("timeout-order", message, hint="a request waits for less than a job takes")]


def _fallbacks(gpu: Node) -> list[Node]:
    return gpu.mapping["fallback"].items if "fallback" in gpu.mapping else []


def _check_gpus(settings: Settings) -> list[Diagnostic]:
    """Only a warning: Modal may have got GPUs since the list was made."""
    known = {name.lower() for name in _GPUS}
    places = settings.at.mapping["gpus"].mapping
    return [
        places[gpu.name]
        .mapping["modal"]
        .report(
            Severity.WARNING,
            "unlisted-gpu",
            f"Modal had no GPU {show(gpu.modal)} in July 2026",
            hint=did_you_mean(gpu.modal, _GPUS) or f"it had {', '.join(_GPUS)}",
        )
        for gpu in settings.gpus.values()
        if gpu.modal.lower() not in known
    ]


def _check_prices(settings: Settings) -> list[Diagnostic]:
    """One GPU has one price; Modal's names are the same in upper and lower case."""
    faults: list[Diagnostic] = []
    first: dict[str, Gpu] = {}
    for gpu in settings.gpus.values():
        other = first.setdefault(gpu.modal.lower(), gpu)
        if (other.modal, other.price_per_second) != (gpu.modal, gpu.price_per_second):
            message = f"profile {other.name} has {other.modal} at {other.price_per_second}"
            hint = "give both the same modal and price_per_second"
            faults.append(gpu.at.error("gpu-price", message, hint=hint, at_key=True))
    return faults


def _check_auth(settings: Settings) -> list[Diagnostic]:
    """Without keys the gateway lets nobody in, so it does not start."""
    if settings.auth != "api-key" or any(_KEYS in names for names in settings.secrets.values()):
        return []
    at = settings.at.mapping
    message = f"auth is api-key, and no secret brings {_KEYS}"
    hint = f"add to secrets: api-keys: [{_KEYS}]"
    place = at["auth"] if "auth" in at else at["secrets"]
    return [place.error("auth-without-secret", message, hint=hint, at_key=True)]


def _check_scaling(settings: Settings) -> list[Diagnostic]:
    at, scaling = settings.at.mapping.get("scaling"), settings.scaling
    if at is None:
        return []
    faults: list[Diagnostic] = []
    if scaling.min_containers > scaling.max_containers:
        message = f"min_containers {scaling.min_containers} is above max_containers"
        faults.append(at.error("bad-scaling", f"{message} {scaling.max_containers}"))
    if scaling.target_inputs > scaling.max_inputs:
        message = f"target_inputs {scaling.target_inputs} is above max_inputs"
        faults.append(at.error("bad-scaling", f"{message} {scaling.max_inputs}"))
    return faults


def _in_the_way(name: str, path: str, settings: Settings) -> str:
    """Return what a Volume at a path would hide, or what would hide it; empty for nothing."""
    image = {"ComfyUI": settings.comfyui.directory, "the app itself": "/root/build"}
    for what, place in image.items():
        if _is_within(path, place) or _is_within(place, path):
            return f"{what} is at {place}, and a Volume at {path} hides it"
    for other, place in settings.volumes.items():
        if other != name and place != path and _is_within(path, place):
            return f"volume {show(other)} is mounted at {place}, and this one inside of it"
    return ""


def _is_within(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/")


def _check_cache(settings: Settings) -> list[Diagnostic]:
    """Downloaded models have a Volume of their own, at /cache where none is declared."""
    written = settings.at.mapping.get("volumes")
    if written is None or CACHE_VOLUME in settings.volumes:
        return []
    message = f"volume {CACHE_VOLUME}, of the models that are downloaded, is at {CACHE}"
    hint = f"choose another path, or add {CACHE_VOLUME}: /OTHER"
    return [
        at.error("bad-volume", message, hint=hint)
        for at in written.mapping.values()
        if _is_within(at.text, CACHE) or _is_within(CACHE, at.text)
    ]


def _check_volumes(settings: Settings, models: Models | None) -> list[Diagnostic]:
    faults: list[Diagnostic] = []
    seen: dict[str, str] = {}
    written = settings.at.mapping.get("volumes")
    for name, at in written.mapping.items() if written else ():
        path = at.text
        other = seen.setdefault(path, name)
        if other != name:
            faults.append(at.error("bad-volume", f"volume {show(other)} is mounted there already"))
        if path in _UNMOUNTABLE:
            faults.append(at.error("bad-volume", f"Modal mounts no Volume at {path}"))
        elif what := _in_the_way(name, path, settings):
            faults.append(at.error("bad-volume", what, hint="choose another path"))
    faults += _check_cache(settings)
    for model in models.models.values() if models else ():
        volume = model.source.get("volume")
        if volume is not None and volume not in settings.volumes:
            message = f"gpu.yaml has no volume {show(volume)}"
            hint = did_you_mean(volume, settings.volumes)
            at = model.at.mapping["source"].mapping["volume"]
            faults.append(at.error("unknown-volume", message, hint=hint))
    return faults
