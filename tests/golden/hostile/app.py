"""The Modal app: a gateway that answers HTTP on a CPU, and workers that run graphs on a GPU.

`modal deploy -m build.app` deploys it. This module says what Modal is to run, and on what; what that
does is in the modules beside it, which know little or nothing of Modal.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modal

from . import config
from .image import gateway_image, worker_image

# Every container imports this module, so what one of them needs is imported there.
if TYPE_CHECKING:
    from fastapi import FastAPI

    from .gateway.backend import Work
    from .gateway.job_store import End
    from .gateway.journal import Journal
    from .utils.downloads import Places
    from .worker import Worker

HERE = Path(__file__).parent

# The images hold this package already, with its data.
app = modal.App(config.APP_NAME, include_source=False)

# One Volume holds what is downloaded, the others what is uploaded; they outlive every deployment.
cache = modal.Volume.from_name("hf-hub-cache", create_if_missing=True)
uploads = {name: modal.Volume.from_name(name, create_if_missing=True) for name in config.UPLOADS}
volumes: Any = {config.CACHE: cache} | {config.UPLOADS[name]: uploads[name] for name in uploads}

# What gateways and workers tell each other of jobs. Modal drops what nobody asks for in 7 days.
jobs = modal.Dict.from_name(config.JOBS, create_if_missing=True)
# What happens to each job, for those who listen. Modal drops it after a day.
events = modal.Queue.from_name(config.EVENTS, create_if_missing=True)
# And what each of them counts, for GET /usage.
usage = modal.Dict.from_name(config.USAGE, create_if_missing=True)

# What all workers have in common. Each class says its image, its GPU (or several, of which it takes the
# first that is free; utils/cost_tracker.py has the prices) and a timeout: that of its longest job and a
# minute more, so that a job that takes too long can say so itself.
worker_options: Any = {
    "volumes": volumes,
    "secrets": [],
    "startup_timeout": config.STARTUP_TIMEOUT,
    "scaledown_window": config.SCALEDOWN_WINDOW,
    "min_containers": config.MIN_CONTAINERS,
    "max_containers": config.MAX_CONTAINERS,
    "buffer_containers": config.BUFFER_CONTAINERS,
    "region": config.REGIONS,
    "enable_memory_snapshot": config.SNAPSHOT,
}
# ComfyUI runs one graph at a time; the others wait in its queue.
concurrent = modal.concurrent(max_inputs=config.MAX_INPUTS, target_inputs=config.TARGET_INPUTS)


class WorkerHooks:
    """What Modal calls of a worker. `profile` and `group` say whose work it takes."""

    profile: str
    group: str

    @modal.enter(snap=True)
    def load(self) -> None:
        """Import what a worker needs, for the snapshot; ComfyUI needs the GPU, so it comes after."""
        from . import worker  # noqa: F401

    @modal.enter()
    async def start(self) -> None:
        """Start ComfyUI. What goes wrong is kept, and the first call says it."""
        self.worker = new_worker(self.profile, self.group)
        await self.worker.start()

    @modal.method()
    async def run(self, work: "Work") -> "End":
        """Run a graph. A call that is cancelled interrupts it."""
        return await self.worker.run(work, modal.current_function_call_id() or "")

    @modal.exit()
    async def stop(self) -> None:
        """End ComfyUI before the container goes."""
        await self.worker.stop()


@app.cls(
    **worker_options,
    image=worker_image,
    gpu=["L4", "A100-80GB"],
    cpu=2.5,
    memory=16384,
    timeout=1860,
)
@concurrent
class SmallWorker(WorkerHooks):
    """ComfyUI on L4.

    It runs /absent, /hostile/quotes.
    """

    profile, group = "small", ""


@app.function(
    image=gateway_image,
    secrets=[],
    max_containers=config.GATEWAY_MAX_CONTAINERS,
    # A request is answered by its deadline, and Modal itself ends it after 150 seconds.
    timeout=300,
)
@modal.concurrent(max_inputs=100)
@modal.asgi_app(requires_proxy_auth=False)
def gateway() -> "FastAPI":
    """Answer for all endpoints, at one URL. Only a job that was checked calls a worker."""
    from .api import create_api
    from .gateway import logs
    from .gateway.job_store import JobStore
    from .gateway.modal_backend import ModalBackend
    from .gateway.modal_calls import PATIENCE, ModalCalls, ModalLists, ModalTable, VolumeFiles
    from .utils.downloads import read_models

    logs.configure(log_prompts=config.LOG_PROMPTS)
    runs: dict[tuple[str, str], Any] = {
        ("small", ""): SmallWorker().run,
    }
    backend = ModalBackend(
        ModalCalls(runs),
        JobStore(ModalTable(jobs, PATIENCE)),
        ModalLists(events),
        workers=runs.keys(),
        models=[model.path for model in read_models(HERE / "models.json")],
        uploads=VolumeFiles([*uploads.values()], PATIENCE),
        journal=new_journal(),
    )
    return create_api(backend)


@app.function(
    image=gateway_image,
    volumes=volumes,
    # Nothing else sees these tokens.
    secrets=[],
    timeout=24 * 60 * 60,
)
def download() -> None:
    """Fetch the declared models that are not there yet: `modal run -m build.app::download`."""
    from .utils.downloads import ProgressLines, download, read_models

    try:
        download(
            read_models(HERE / "models.json"),
            places(),
            hf_token=os.environ.get("HF_TOKEN", ""),
            civitai_key=os.environ.get("CIVITAI_API_KEY", ""),
            on_progress=ProgressLines(),
        )
    finally:
        # What is whole stays, also when another file cannot be had.
        cache.commit()


@app.function(image=gateway_image)
def manifest() -> Any:
    """Return what is deployed, as manifest.json has it."""
    return json.loads((HERE / "manifest.json").read_text("utf-8"))


def new_worker(profile: str, group: str) -> "Worker":
    """Return the worker of a GPU profile and a group, with what its routes need."""
    from .gateway import logs
    from .gateway.job_store import JobStore
    from .gateway.modal_calls import ModalLists, ModalTable, VolumeFiles, take_no_more_calls
    from .utils.cost_tracker import PRICES, price_per_second
    from .worker import Worker, WorkerSettings

    logs.configure(log_prompts=config.LOG_PROMPTS)
    settings = WorkerSettings.of_build(
        HERE,
        profile,
        group,
        version=config.COMFYUI_VERSION,
        directory=Path(config.COMFYUI_DIRECTORY),
        port=config.COMFYUI_PORT,
        flags=config.COMFYUI_FLAGS,
        places=places(),
        prices={gpu: price_per_second(gpu) for gpu in PRICES},
        # Less than Modal's own, so that a start that takes too long can say so.
        start_timeout=config.STARTUP_TIMEOUT * 0.9,
    )
    return Worker(
        settings,
        JobStore(ModalTable(jobs)),
        ModalLists(events),
        retire=take_no_more_calls,
        uploads=VolumeFiles([*uploads.values()]),
        journal=new_journal(),
    )


def new_journal() -> "Journal":
    """Return what this container tells its events to."""
    from .gateway.journal import Journal
    from .gateway.modal_calls import ModalTable
    from .gateway.usage import Usage

    return Journal(Usage(ModalTable(usage)))


def places() -> "Places":
    """Return where the model files are."""
    from .utils.downloads import Places

    return Places(Path(config.CACHE), {name: Path(path) for name, path in config.UPLOADS.items()})
