"""What `modal deploy -m build.app` registers, compared with what gpu.yaml says."""

from typing import Any

from .local import LocalModal
from .project import Project

APP = "modal-tests"
WORKER = "L40sWorker.*"


def registered(modal: LocalModal, app: str = APP, tag: str = WORKER) -> dict[str, Any]:
    """Return what a function was registered with, in gpu.yaml's words."""
    function = modal.plane.function_id(app, tag)
    one = modal.plane.functions[function]
    scaling = one.autoscaler_settings
    return {
        "gpus": [gpu for gpu in modal.plane.gpus[function] if gpu],
        "volumes": {v.mount_path: modal.plane.volumes[v.volume_id] for v in one.volume_mounts},
        "secrets": [modal.plane.secrets[secret][0] for secret in one.secret_ids],
        "timeout": one.timeout_secs,
        "startup_timeout": one.startup_timeout_secs,
        "min_containers": scaling.min_containers,
        "max_containers": scaling.max_containers,
        "buffer_containers": scaling.buffer_containers,
        "scaledown": scaling.scaledown_window,
        "max_inputs": one.max_concurrent_inputs,
        "target_inputs": one.target_concurrent_inputs,
        "cpu": one.resources.milli_cpu / 1000,
        "memory_gb": one.resources.memory_mb / 1024,
        "regions": list(one.scheduler_placement.regions),
        "snapshot": one.checkpointing_enabled,
        "proxy": one.webhook_config.requires_proxy_auth,
    }


def check_registered(modal: LocalModal, project: Project) -> None:
    """See that the functions are what the tests' gpu.yaml says."""
    volumes = {
        f"{project.folder}/mnt/models": "ryla-models",
        f"{project.folder}/mnt/cache": "hf-hub-cache",
    }
    assert registered(modal, project.app) == {
        "gpus": ["L40S", "A100-80GB"],
        "volumes": volumes,
        "secrets": [],
        "timeout": 660,
        "startup_timeout": 200,
        "min_containers": 0,
        "max_containers": 3,
        "buffer_containers": 1,
        "scaledown": 120,
        "max_inputs": 8,
        "target_inputs": 2,
        "cpu": 4,
        "memory_gb": 32,
        "regions": ["us-east"],
        "snapshot": False,
        "proxy": False,
    }
    gateway = registered(modal, project.app, "gateway")
    assert (gateway["gpus"], gateway["volumes"], gateway["secrets"]) == ([], {}, ["api-keys"])
    assert (gateway["max_containers"], gateway["max_inputs"]) == (2, 100)
    download = registered(modal, project.app, "download")
    assert (download["gpus"], download["volumes"]) == ([], volumes)
    assert download["secrets"] == ["huggingface"]
    manifest = registered(modal, project.app, "manifest")
    assert (manifest["gpus"], manifest["volumes"], manifest["secrets"]) == ([], {}, [])


def test_what_is_registered(modal: LocalModal, project: Project) -> None:
    check_registered(modal, project)
