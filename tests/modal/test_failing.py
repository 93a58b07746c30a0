"""Workers that cannot start, deployments one after another, and Modal's own keys."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.api_client import problem

from .api import WORKER, Deployed, new_color, wait_until
from .local import LocalModal
from .project import WORKFLOWS, Project, write_project

DOWNLOADED = """\
models:
  model:
    source: {hf: acme/model, file: model.safetensors}
    folder: checkpoints
packs: {}
"""
LOADER = """\
params: {color: {type: integer}}
graph:
  1: {class_type: CheckpointLoaderSimple, inputs: {ckpt_name: model.safetensors}}
  2: {class_type: EmptyImage, inputs: {width: 32, height: 32, batch_size: 1, color: "${color}"}}
  3: {class_type: VAEEncode, inputs: {pixels: [2, 0], vae: [1, 2]}}
  4: {class_type: VAEDecode, inputs: {samples: [3, 0], vae: [1, 2]}}
  5: {class_type: SaveImage, inputs: {images: [4, 0], filename_prefix: loaded}}
"""


def deployed(modal: LocalModal, project: Project) -> Deployed:
    modal.deploy(project.folder)
    return Deployed(modal, project)


def break_engine(project: Project) -> None:
    (project.comfyui / "main.py").write_text('import sys\nsys.exit("no CUDA device")\n')


def lack_class(project: Project) -> None:
    project.replace("build/manifest.json", ('"EmptyImage"', '"EmptyImageX"'))


def lack_entry(project: Project) -> None:
    """Break the manifest where gateways do not look."""
    project.replace("build/manifest.json", ('"models": []', '"model": []'))


def lack_model(project: Project) -> None:
    """Declare one, which nobody has downloaded."""
    (project.folder / "models.yaml").write_text(DOWNLOADED, "utf-8")
    (project.folder / "workflows" / "loader.yaml").write_text(LOADER, "utf-8")
    project.render()


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (break_engine, "no CUDA device"),
        (lack_class, "EmptyImageX"),
        (lack_entry, "manifest.json of the build cannot be used: KeyError: 'models'"),
        (lack_model, "model model"),
    ],
)
def test_a_worker_that_cannot_start_says_why(
    modal: LocalModal, tmp_path: Path, plant: Callable[[Project], None], reason: str
) -> None:
    """The request gets 503 with the reason, the container retires, and the next one may do better."""
    project = write_project(tmp_path / "it", plant.__name__.replace("_", "-"), real=False)
    healthy = (project.comfyui / "main.py").read_text("utf-8")
    plant(project)
    api = deployed(modal, project)
    document = problem(api.post("/picture", {"color": 1}), 503, "engine-not-started")
    assert reason in document["detail"]
    [worker] = api.tasks()
    wait_until(lambda: not worker.is_up, 20, "the container does not retire")
    assert worker.process.returncode == 0
    assert api.engine_pids() == []
    state = api.worker_state()
    assert state["ready"] is False
    assert reason in (reason_told := state["last_error"])
    assert reason in problem(api.get("/ready"), 503)["detail"]
    if plant is break_engine:
        (project.comfyui / "main.py").write_text(healthy, "utf-8")
        api.check_picture()
        assert api.get("/ready").json() == {"ready": True}
        after = api.worker_state()
        assert after["ready"] is True
        assert (after["last_error"], after["last_error_at"]) == (
            reason_told,
            state["last_error_at"],
        )


def test_one_deployment_after_another(modal: LocalModal, tmp_path: Path) -> None:
    """The new one answers at the same URL, and knows the jobs of the one before."""
    project = write_project(tmp_path / "it", "again", real=False)
    api = deployed(modal, project)
    job = api.start("/picture", {"color": new_color()})
    api.until(job, lambda job: job["status"] == "succeeded")
    before, spec = api.get(f"/jobs/{job}/outputs/0").content, api.get("/health").json()["spec"]
    [worker] = api.workers()
    project.replace("workflows/picture.yaml", ("default: 32", "default: 64"))
    project.render()
    modal.deploy(project.folder)
    wait_until(lambda: not worker.is_up, 20, "the worker of the deployment before goes on")
    assert api.get("/health").json()["spec"] != spec
    assert api.get(f"/jobs/{job}/outputs/0").content == before
    api.check_picture()
    assert api.workers() != [worker]


def test_proxy_auth(modal: LocalModal, tmp_path: Path) -> None:
    """Modal's edge asks for its own keys; the app then asks for none, and is given none."""
    project = write_project(tmp_path / "it", "behind-proxy", auth="proxy", real=False)
    api = deployed(modal, project)
    assert modal.plane.function("behind-proxy", "gateway").webhook_config.requires_proxy_auth
    assert list(modal.plane.function("behind-proxy", "gateway").secret_ids) == []
    assert api.get("/health").status_code == 401
    assert api.modal.tasks("behind-proxy", "gateway") == []
    headers = {"Modal-Key": "wk-test", "Modal-Secret": "ws-test"}
    reply = httpx.post(f"{api.url}/picture", json={"color": 1}, headers=headers, timeout=60)
    assert reply.status_code == 200


def test_workers_from_a_snapshot(modal: LocalModal, tmp_path: Path) -> None:
    """What needs no GPU comes before the snapshot, ComfyUI after it."""
    project = write_project(tmp_path / "it", "snapshot", real=False)
    project.replace("gpu.yaml", ("  region:", "  snapshot: true\n  region:"))
    project.render()
    api = deployed(modal, project)
    assert modal.plane.function("snapshot", WORKER).checkpointing_enabled
    api.check_picture()
    [worker] = api.tasks()
    assert worker.restore.exists()
    assert api.modal.scale_down("snapshot", WORKER) == [0]


def test_profiles_and_groups_have_workers_of_their_own(modal: LocalModal, tmp_path: Path) -> None:
    """Each with its GPU, its packs and its state; a request goes to the one that it is for."""
    picture = WORKFLOWS["picture"]
    workflows = {
        "picture": picture,
        "large": f"gpu: a100\n{picture}",
        "apart": f"group: apart\npacks: [probe_nodes]\n{picture}",
    }
    project = write_project(tmp_path / "it", "several", real=False, workflows=workflows)
    api = deployed(modal, project)
    tags = {"L40sWorker.*", "L40sApartWorker.*", "A100Worker.*"}
    assert {tag for tag in modal.plane.app("several").functions if tag.endswith(".*")} == tags
    images = {tag: modal.plane.function("several", tag).image_id for tag in tags}
    assert images["L40sWorker.*"] == images["A100Worker.*"] != images["L40sApartWorker.*"]
    assert modal.plane.gpus[modal.plane.function_id("several", "A100Worker.*")] == ["A100-80GB"]
    reply = api.post("/large", {"color": new_color()})
    assert reply.status_code == 200, reply.text
    counts = {tag: len(modal.tasks("several", tag)) for tag in tags}
    assert counts == {"A100Worker.*": 1, "L40sWorker.*": 0, "L40sApartWorker.*": 0}
    states = api.get("/health").json()["workers"]
    known = {(state["profile"], state["group"]): state["ready"] for state in states}
    assert known == {("a100", ""): True, ("l40s", ""): None, ("l40s", "apart"): None}


@pytest.mark.parametrize(
    "workflows", [{"picture": WORKFLOWS["picture"]}, {}], ids=["one on", "none on"]
)
def test_what_is_off_keeps_no_worker_from_starting(
    modal: LocalModal, tmp_path: Path, workflows: dict[str, str]
) -> None:
    """Its model is declared and nowhere, and it has no worker."""
    name = f"off-{len(workflows)}"
    off = {"loader": f"enabled: false\n{LOADER}", "large": f"gpu: a100\nenabled: false\n{LOADER}"}
    project = write_project(
        tmp_path / "it", name, real=False, workflows=workflows | off, models=DOWNLOADED
    )
    api = deployed(modal, project)
    workers = [tag for tag in modal.plane.app(name).functions if tag.endswith(".*")]
    assert workers == ["L40sWorker.*"] * len(workflows)
    assert problem(api.post("/loader", {"color": 1}), 403)["code"] == "workflow-off"
    assert len(api.get("/health").json()["workers"]) == len(workflows)
    if workflows:
        api.check_picture()
