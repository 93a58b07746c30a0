"""Which worker classes and images an app has, and what each of them needs."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from templates.image_build.requirements import name_of

from .check import Checked, CheckedWorkflow
from .check.image import COMFY_CLI
from .check.secrets import DOWNLOAD_VARIABLES, GATEWAY_VARIABLES
from .lock import GATEWAY
from .names import worker_name
from .pycode import Source, docstring, identifier, literal
from .spec import CACHE_VOLUME, Gpu, GraphNode, Pack, Settings

# After a job's own time, for handing out what it made and for saying that it took too long.
_GRACE_SECONDS = 60
_LONGEST_TIMEOUT = 86_400


@dataclass(frozen=True)
class Image:
    """An image of workers: what a group of workflows needs besides ComfyUI; "" is no group."""

    group: str
    packs: tuple[Pack, ...]
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name in image.py."""
        return f"{self.group}_worker_image" if self.group else "worker_image"


@dataclass(frozen=True)
class WorkerClass:
    """A worker class: the workflows of one GPU profile and group."""

    gpu: Gpu
    group: str
    workflows: tuple[CheckedWorkflow, ...]

    @property
    def name(self) -> str:
        """Its name in app.py."""
        return worker_name(self.gpu.name, self.group)

    def timeout(self, settings: Settings) -> int:
        """Seconds after which Modal ends a call: when the longest job has ended by itself."""
        longest = max(w.workflow.timeout or settings.scaling.timeout for w in self.workflows)
        return min(longest + _GRACE_SECONDS, _LONGEST_TIMEOUT)


def worker_classes(checked: Checked) -> list[WorkerClass]:
    """Return the worker classes that the workflows which are on need, in the order of their names."""
    found: dict[tuple[str, str], list[CheckedWorkflow]] = {}
    for one in checked.on:
        profile = one.workflow.gpu or checked.settings.default_gpu
        found.setdefault((profile, one.workflow.group or ""), []).append(one)
    return [
        WorkerClass(checked.settings.gpus[profile], group, tuple(workflows))
        for (profile, group), workflows in sorted(found.items())
    ]


def images(checked: Checked) -> list[Image]:
    """Return the images of workers, one for each group."""
    return [_image(checked, group, packs) for group, packs in checked.groups.items()]


def app_values(checked: Checked) -> dict[str, Any]:
    """Return the values of app.py's template."""
    settings = checked.settings
    by_group = {image.group: image for image in images(checked)}
    return {
        "images": [
            identifier(name)
            for name in sorted(["gateway_image", *(i.name for i in by_group.values())])
        ],
        "workers": [_worker(w, by_group[w.group], settings) for w in worker_classes(checked)],
        "cache": literal(CACHE_VOLUME),
        "snapshot": settings.scaling.snapshot,
        "gateway_secrets": _secrets(settings, GATEWAY_VARIABLES)
        if settings.auth == "api-key"
        else Source("[]"),
        "download_secrets": _secrets(settings, DOWNLOAD_VARIABLES),
        "worker_secrets": _other_secrets(settings),
        "proxy": literal(settings.auth == "proxy"),
    }


def image_values(checked: Checked) -> dict[str, Any]:
    """Return the values of image.py's template."""
    tools = [r for r in checked.settings.requirements if name_of(r) == COMFY_CLI]
    app = [r for r in checked.settings.requirements if r not in tools]
    return {
        "apt": literal(list(checked.settings.apt)),
        "comfy_cli": literal(tools[0]),
        "requirements": literal(app),
        "gateway": literal(list(checked.lock.pinned(GATEWAY))) if checked.lock else None,
        "images": [_image_values(image, checked) for image in images(checked)],
    }


def _image(checked: Checked, group: str, packs: tuple[Pack, ...]) -> Image:
    workflows = [one for one in checked.on if (one.workflow.group or "") == group]
    late = {pack.name for pack in packs if pack.needs_gpu_to_import}
    # The image is built without a GPU. Classes of nobody knows which pack may be one of theirs.
    is_unknown = bool(late - set(checked.catalog.packs))
    classes = classes_of(workflows, without={*late, *([None] if is_unknown else [])})
    return Image(group, packs, tuple(sorted(classes)))


def classes_of(
    workflows: Iterable[CheckedWorkflow], without: Collection[str | None] = ()
) -> set[str]:
    """Return the node classes in the graphs of workflows, without those of some packs.

    None among these stands for the packs that there are no schemas of.
    """
    return {
        node.class_type
        for one in workflows
        for node in one.workflow.graph.values()
        if _pack_of(node, one) not in without
    }


def _pack_of(node: GraphNode, one: CheckedWorkflow) -> str | None:
    """Return the pack of a node, "" for ComfyUI itself, None where there are no schemas of it."""
    found = one.classes.get(node.id)
    return None if found is None else found.pack or ""


def _worker(worker: WorkerClass, image: Image, settings: Settings) -> dict[str, Any]:
    gpus = [worker.gpu.modal, *(settings.gpus[name].modal for name in worker.gpu.fallback)]
    routes = ", ".join(one.workflow.route for one in worker.workflows)
    return {
        "name": identifier(worker.name),
        "doc": docstring(f"ComfyUI on {worker.gpu.modal}.", f"It runs {routes}."),
        "image": identifier(image.name),
        "gpu": literal(gpus if len(gpus) > 1 else gpus[0]),
        "cpu": None if worker.gpu.cpu is None else literal(worker.gpu.cpu),
        # GiB here, MiB at Modal.
        "memory": None if worker.gpu.memory_gb is None else literal(worker.gpu.memory_gb * 1024),
        "timeout": literal(worker.timeout(settings)),
        "profile": literal(worker.gpu.name),
        "group": literal(worker.group),
    }


def _image_values(image: Image, checked: Checked) -> dict[str, Any]:
    lock = checked.lock
    apt = {name for pack in image.packs for name in pack.apt} - set(checked.settings.apt)
    declared = dict.fromkeys(name for pack in image.packs for name in pack.pip)
    return {
        "name": identifier(image.name),
        "apt": literal(sorted(apt)) if apt else None,
        "packs": [
            {"name": literal(p.name), "git": literal(p.git), "commit": literal(p.commit)}
            for p in image.packs
        ],
        "pip": literal(list(lock.pinned(image.group) if lock else declared)),
        "classes": literal(list(image.classes)),
    }


def _secrets(settings: Settings, variables: frozenset[str]) -> Source:
    """Return the secrets that hold some variables, as source."""
    names = {n: keys for n, keys in settings.secrets.items() if variables.intersection(keys)}
    return Source("[" + ", ".join(_secret(name, keys) for name, keys in names.items()) + "]")


def _other_secrets(settings: Settings) -> Source:
    known = DOWNLOAD_VARIABLES | GATEWAY_VARIABLES
    names = {n: keys for n, keys in settings.secrets.items() if not known.intersection(keys)}
    return Source("[" + ", ".join(_secret(name, keys) for name, keys in names.items()) + "]")


def _secret(name: str, keys: tuple[str, ...]) -> str:
    return f"modal.Secret.from_name({literal(name)}, required_keys={literal(list(keys))})"
