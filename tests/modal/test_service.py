"""A deployed app, asked over HTTP: gateway, worker and ComfyUI are processes of their own."""

import io
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageChops, ImageOps

from tests.api_client import problem

from .api import WORKER, Deployed, new_color, wait_until
from .conftest import HF_TOKEN, KEYS
from .local import LocalModal
from .project import Project, write_project

# Within which a run must have stopped once that is asked for.
STOP_SECONDS = 2.0


@pytest.fixture(scope="module")
def api(modal: LocalModal, project: Project) -> Deployed:
    """The deployed project, with a worker that is up."""
    deployed = Deployed(modal, project)
    deployed.check_picture()
    return deployed


@pytest.fixture(scope="module")
def idle(modal: LocalModal, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """A deployed project that no good request has reached."""
    project = write_project(tmp_path_factory.mktemp("idle") / "it", "idle")
    modal.deploy(project.folder)
    return Deployed(modal, project)


def test_a_picture(api: Deployed) -> None:
    reply = api.check_picture()
    assert reply.headers["x-gpu-type"] == ("cpu" if api.project.is_real else "preview")
    assert float(reply.headers["x-execution-time-sec"]) > 0
    assert float(reply.headers["x-queue-time-sec"]) >= 0
    assert reply.headers["x-cost-usd"] == "0.000000"
    assert reply.headers["x-output-count"] == "1"
    assert reply.headers["x-job-id"].startswith("job_")


def test_a_large_picture_of_the_caller(api: Deployed) -> None:
    """Files and outputs larger than a message go another way, through the workspace's storage."""
    size = (1600, 1200)
    noise = Image.frombytes("RGB", size, random.Random(0).randbytes(size[0] * size[1] * 3))
    file = io.BytesIO()
    noise.save(file, "PNG")
    reply = httpx.post(
        f"{api.url}/inverted",
        files={"image": ("noise.png", file.getvalue(), "image/png")},
        headers={"x-api-key": api.key},
        timeout=60,
    )
    assert reply.status_code == 200, reply.text
    if api.project.is_real:
        assert len(reply.content) > 4 * 2**20
        with Image.open(io.BytesIO(reply.content)) as image:
            apart = ImageChops.difference(image.convert("RGB"), ImageOps.invert(noise))
        # ComfyUI reckons in floats and cuts them off.
        assert max(most for _, most in apart.getextrema()) <= 1  # type: ignore[misc]


def test_eight_at_once(api: Deployed) -> None:
    """One worker takes them all, and each reply is its own."""
    with ThreadPoolExecutor(8) as threads:
        replies = [*threads.map(lambda _: api.check_picture(), range(8))]
    assert len({reply.headers["x-job-id"] for reply in replies}) == 8
    assert len(api.tasks()) == 1


def test_nothing_wakes_a_worker_but_a_good_request(idle: Deployed) -> None:
    document = problem(httpx.post(f"{idle.url}/picture", json={"color": 1}), 401, "unauthorized")
    assert document["detail"]
    problem(idle.ask("POST", "/picture", {"color": 1}, x_api_key="wrong"), 401, "unauthorized")
    problem(idle.post("/picture", {"color": "1"}), 422, "bad-params")
    problem(idle.post("/nothing", {}), 404, "not-found")
    problem(idle.get("/jobs/job_0123456789abcdefghjkmnpqrs"), 404, "unknown-job")
    problem(idle.get("/jobs/worker%2Fl40s%2F"), 404)
    for path in ("/docs", "/openapi.json", "/workflows"):
        assert idle.get(path).status_code == 200
    assert idle.get("/ready").json() == {"ready": True}
    with httpx.Client(base_url=idle.url) as client:
        for _ in range(1000):
            assert client.get("/health").status_code == 200
    assert idle.worker_state()["last_start"] is None
    assert idle.tasks() == []


def test_jobs_end_once(api: Deployed) -> None:
    """A job that has succeeded is not cancelled; nothing of Modal's is shown."""
    job = api.start("/picture", {"color": new_color()})
    found = api.until(job, lambda job: job["status"] == "succeeded")
    assert "fc-" not in str(found)
    problem(api.ask("DELETE", f"/jobs/{job}"), 409, "job-ended")
    assert api.get(f"/jobs/{job}").json() == found
    reply = api.get(f"/jobs/{job}/outputs/0")
    assert reply.headers["content-type"] == "image/png"
    other = api.ask("GET", f"/jobs/{job}", x_api_key="secret-of-bob")
    problem(other, 404, "unknown-job")


def test_cancelling_interrupts(api: Deployed) -> None:
    """The run that is executed is interrupted, the one that waits is deleted."""
    running, waiting = (api.start("/slow", {"color": new_color()}) for _ in range(2))
    found = api.until(running, lambda job: job["progress"] and job["progress"]["value"])
    assert (found["status"], found["progress"]["title"]) == ("running", "Take time")
    api.until(waiting, lambda job: job["position"] == 1)
    assert api.queued() == 2
    for job in (waiting, running):
        start = time.monotonic()
        reply = api.ask("DELETE", f"/jobs/{job}")
        assert (reply.status_code, reply.json()["status"]) == (200, "cancelled")
        assert time.monotonic() - start < STOP_SECONDS
    wait_until(lambda: api.queued() == 0, STOP_SECONDS, "ComfyUI goes on")
    [worker] = api.workers()
    wait_until(lambda: not worker.active, STOP_SECONDS, "the worker's method goes on")
    for job in (running, waiting):
        assert api.get(f"/jobs/{job}").json()["status"] == "cancelled"
        problem(api.get(f"/jobs/{job}/result"), 409, "job-cancelled")
    api.check_picture()


def test_a_caller_that_leaves_cancels(api: Deployed) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{api.url}/slow",
            json={"color": new_color()},
            headers={"x-api-key": api.key},
            timeout=3,
        )
    wait_until(lambda: api.queued() == 0, STOP_SECONDS, "ComfyUI goes on")


def test_two_gateways(api: Deployed) -> None:
    """Each answers for the jobs of the other."""
    first = api.modal.tasks(api.project.app, "gateway")[0]
    second = api.modal.start(api.project.app, "gateway")
    job = api.start("/picture", {"color": new_color()})
    api.until(job, lambda job: job["status"] == "succeeded")
    wait_until(
        lambda: api.get(f"/jobs/{job}").status_code == 200 and second.inputs > 5,
        20,
        "the second gateway takes nothing",
    )
    before = first.inputs, second.inputs
    bodies = {api.get(f"/jobs/{job}/outputs/0").content for _ in range(20)}
    assert len(bodies) == 1
    assert first.inputs > before[0]
    assert second.inputs > before[1]


def test_the_manifest_can_be_asked_for(api: Deployed) -> None:
    program = (
        "import json, modal;"
        f"found = modal.Function.from_name({api.project.app!r}, 'manifest').remote();"
        "print(json.dumps(found))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=api.modal.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip().startswith('{"spec": ')
    assert api.get("/health").json()["spec"] in run.stdout


def test_nothing_secret_is_logged_or_shown(api: Deployed) -> None:
    """And the token of the download function is in no other container."""
    problem(api.ask("POST", "/picture", {"color": 1}, x_api_key="a-wrong-key"), 401)
    shown = [api.log(tag) for tag in ("gateway", WORKER)]
    shown += [path.read_text("utf-8") for path in api.project.build.rglob("*.json")]
    shown += [api.get(path).text for path in ("/health", "/openapi.json", "/workflows")]
    for secret in (HF_TOKEN, "a-wrong-key", *(pair.partition(":")[2] for pair in KEYS.split(","))):
        assert not [text for text in shown if secret in text]
    for tag in ("gateway", WORKER):
        for task in api.modal.tasks(api.project.app, tag):
            if task.is_up:
                environment = Path(f"/proc/{task.process.pid}/environ").read_bytes()
                assert HF_TOKEN.encode() not in environment
                assert (KEYS.encode() in environment) == (tag == "gateway")


def test_modal_deprecates_nothing(api: Deployed) -> None:
    for tag in ("gateway", WORKER):
        assert "deprecat" not in api.log(tag).lower()


def test_a_dead_comfyui_is_started_again_once(api: Deployed) -> None:
    """After that the container retires, and another one takes what comes."""
    api.check_picture()
    [worker] = api.workers()
    api.kill_engine()
    wait_until(lambda: api.worker_state()["last_error"], 60, "the worker says nothing")
    assert "was started again" in api.worker_state()["last_error"]
    api.check_picture()
    assert api.workers() == [worker]
    api.kill_engine()
    wait_until(lambda: not worker.is_up, 30, "the container does not retire")
    assert not api.get("/health").json()["workers"][0]["ready"]
    api.check_picture()
    assert api.workers() != [worker]
    assert api.worker_state()["ready"] is True


def test_scaling_down_ends_comfyui(api: Deployed) -> None:
    api.check_picture()
    assert api.engine_pids()
    assert api.modal.scale_down(api.project.app, WORKER) == [0]
    assert api.engine_pids() == []
