"""Containers of workers that end with jobs in flight: each job ends in one state, with one output set."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.api_client import problem
from tests.jobs_contract import MODELS_YAML, WORKFLOWS

from .api import WORKER, Body, Deployed, new_color, wait_until
from .local import LocalModal
from .project import write_project
from .served import put_model

APP = "stopped"


@pytest.fixture(scope="module")
def api(modal: LocalModal, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """A deployed project on a preview engine that takes its time, with two gateways."""
    project = write_project(
        tmp_path_factory.mktemp(APP) / "it",
        APP,
        real=False,
        workflows=WORKFLOWS,
        models=MODELS_YAML,
        options=("--pace", "0.02"),
    )
    put_model(modal)
    modal.deploy(project.folder)
    api = Deployed(modal, project)
    api.get("/health")
    modal.start(APP, "gateway")
    api.check_picture()
    return api


def slow(api: Deployed, steps: int) -> str:
    return api.start("/slow", {"steps": steps, "seed": new_color()})


def is_final(job: Body) -> bool:
    return job["status"] not in ("queued", "running")


def in_flight(api: Deployed, steps: int = 50) -> list[str]:
    """Start three jobs, and return them when the first is executed and the others wait."""
    api.check_picture()
    [worker] = api.workers()
    # The first takes as long as the others need to come.
    jobs = [slow(api, 10 * steps), slow(api, steps), slow(api, steps)]
    api.until(jobs[0], lambda job: job["progress"] and job["progress"]["value"])
    wait_until(lambda: len(worker.active) == 3, 20, "the worker does not have them all")
    return jobs


def check_ended(api: Deployed, job: str, status: str, code: str | None = None) -> Body:
    """See that a job ends like this, and that it is so for good, at every gateway."""
    found = api.until(job, is_final)
    assert found["status"] == status, found
    assert (found["problem"] or {}).get("code") == code
    assert len(found["outputs"]) == (1 if status == "succeeded" else 0)
    problem(api.ask("DELETE", f"/jobs/{job}"), 409, "job-ended")
    for _ in range(6):
        assert api.get(f"/jobs/{job}").json() == found
    return found


def check_clean(api: Deployed, before: list[int]) -> None:
    """See that the ComfyUI of a container that ended is gone, and that the next one works."""
    wait_until(lambda: not set(before) & set(api.engine_pids()), 5, "its ComfyUI goes on")
    api.check_picture()
    assert api.queued() == 0
    assert len(api.workers()) == 1


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, "engine-lost"),
        (signal.SIGTERM, "engine-lost"),
        # It runs its exit hook then, and tells Modal that it stopped them.
        (signal.SIGINT, "engine-interrupted"),
    ],
)
def test_jobs_fail_with_their_container(api: Deployed, number: int, code: str) -> None:
    """Whoever waits hears of it at once; the next request gets another worker."""
    jobs = in_flight(api, steps=1000)
    [worker], engine = api.workers(), api.engine_pids()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.get, f"/jobs/{jobs[1]}/result", prefer="wait=30")
        api.modal.take_away(worker, number, repeats=False)
        assert waiting.result().json()["code"] == code
    for job in jobs:
        check_ended(api, job, "failed", code)
    check_clean(api, engine)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_jobs_that_modal_runs_again(api: Deployed, number: int) -> None:
    """Each has the outputs of one run; one that is cancelled meanwhile stays cancelled."""
    jobs = in_flight(api)
    [worker], engine = api.workers(), api.engine_pids()
    api.modal.take_away(worker, number, repeats=True)
    reply = api.ask("DELETE", f"/jobs/{jobs[2]}")
    assert reply.json()["status"] == "cancelled"
    for job in jobs[:2]:
        ended = check_ended(api, job, "succeeded")
        assert ended["seconds"] > 0
        assert api.get(f"/jobs/{job}/outputs/0").headers["content-type"] == "image/png"
        problem(api.get(f"/jobs/{job}/outputs/1"), 404, "not-found")
        events = api.get(f"/jobs/{job}/events").text
        assert events.count("event: end\n") == 1
        assert events.count("event: output\n") == 1
    assert api.get(f"/jobs/{jobs[2]}").json()["status"] == "cancelled"
    problem(api.get(f"/jobs/{jobs[2]}/result"), 409, "job-cancelled")
    check_clean(api, engine)


def test_a_worker_is_scaled_down_with_jobs_in_flight(api: Deployed) -> None:
    """It takes no more, ends those that it has, and goes; what comes meanwhile gets another one."""
    jobs = in_flight(api)
    [worker], engine = api.workers(), api.engine_pids()
    assert api.modal.scale_down(APP, WORKER) == [0]
    assert not worker.is_up
    for job in jobs:
        check_ended(api, job, "succeeded")
    check_clean(api, engine)


def test_nothing_is_left_of_runs(api: Deployed) -> None:
    """Neither what they wrote nor what they were sent."""
    api.check_picture()
    folder: Path = api.project.comfyui
    wait_until(lambda: not [*(folder / "output").iterdir()], 5, "outputs are left")
    assert [path for path in (folder / "input").iterdir() if path.is_file()] == []
