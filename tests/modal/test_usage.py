"""What a deployed app logs and counts: starts, restarts, several gateways, and none of its callers'."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.engine import install
from tests.log_contract import (
    KEY,
    MARKS,
    PROMPT,
    REAL_WORKFLOWS,
    WORKFLOWS,
    Planted,
    check,
    events,
)

from .api import WORKER, Deployed, new_color, wait_until
from .local import LocalModal
from .project import GPU_YAML, write_project
from .project import WORKFLOWS as PROJECT_WORKFLOWS

SECONDS = 60


def deployed(modal: LocalModal, folder: Path, app: str, *, log_prompts: bool) -> Deployed:
    """Deploy a project that is fit for marks, with a real ComfyUI where there is one."""
    is_real = install.folder().is_dir()
    workflows = (REAL_WORKFLOWS if is_real else WORKFLOWS) | {
        "picture": PROJECT_WORKFLOWS["picture"]
    }
    # So that the GPU that is found here has a price.
    price = "  here: {{modal: cpu, vram_gb: 1, price_per_second: 2.0}}\n"
    gpu = f"{GPU_YAML}log_prompts: {str(log_prompts).lower()}\n".replace(
        "price_multiplier",
        f"{price if is_real else price.replace('cpu', 'preview')}price_multiplier",
    )
    project = write_project(folder / "it", app, workflows=workflows, gpu=gpu)
    modal.deploy(project.folder)
    return Deployed(modal, project)


@pytest.fixture(scope="module")
def api(modal: LocalModal, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """A deployed project that nobody has asked yet."""
    return deployed(modal, tmp_path_factory.mktemp("usage"), "usage", log_prompts=False)


def rows(api: Deployed) -> dict[str, Any]:
    """Return the rows of /usage by route."""
    return {row["route"]: row for row in api.get("/usage").json()["rows"]}


def counted(api: Deployed, route: str, wanted: dict[str, int]) -> Any:
    """Return the row of a route once it counts what is wanted; worker and gateway write by turns."""
    limit = time.monotonic() + 20
    while True:
        row = rows(api).get(route, {})
        if {name: row.get(name) for name in wanted} == wanted:
            return row
        assert time.monotonic() < limit, row
        time.sleep(0.2)


def test_the_first_job_bears_the_start(api: Deployed) -> None:
    """The container is billed while ComfyUI starts; the next job finds it up."""
    first = api.until(
        api.start("/picture", {"color": new_color()}), lambda job: job["status"] == "succeeded"
    )
    took = first["timings"]
    assert took["startup"]["seconds"] > 0.3
    assert took["startup"]["usd"] == pytest.approx(took["startup"]["seconds"] * 3, abs=1e-5)
    assert took["execution"] == {"seconds": first["seconds"], "usd": first["cost"]}
    assert first["cost"] == pytest.approx(first["seconds"] * 3, abs=1e-5)
    second = api.check_picture()
    took_next = api.get(f"/jobs/{second.headers['x-job-id']}").json()["timings"]
    assert took_next["startup"] == {"seconds": 0, "usd": 0}
    row = counted(api, "/picture", {"requests": 2, "succeeded": 2})
    assert row["seconds"]["startup"] == took["startup"]["seconds"]
    assert row["usd"]["startup"] == took["startup"]["usd"]
    [started] = [e for e in events(api.log(WORKER)) if e["event"] == "worker-started"]
    assert started["seconds"] == pytest.approx(took["startup"]["seconds"], abs=0.01)
    assert started["usd"] == pytest.approx(started["seconds"] * 3, abs=1e-5)


def test_counts_outlive_gateways_and_add_up(api: Deployed) -> None:
    before = rows(api)["/picture"]["succeeded"]
    for _ in range(2):
        api.modal.start(api.project.app, "gateway")
    for _ in range(10):
        api.check_picture()
    total = {"requests": before + 10, "succeeded": before + 10}
    counted(api, "/picture", total)
    assert api.modal.scale_down(api.project.app, "gateway") == [0, 0, 0]
    counted(api, "/picture", total)


def test_a_restart_of_comfyui_is_told(api: Deployed) -> None:
    api.check_picture()
    api.kill_engine()
    reply = api.post("/picture", {"color": new_color()})
    wait_until(lambda: "engine-restarted" in api.log(WORKER), SECONDS, "nothing is said of it")
    if reply.status_code != 200:
        # It had been handed to the engine that was killed.
        assert reply.status_code in (502, 503), reply.text
    names = [event["event"] for event in events(api.log(WORKER))]
    assert names.index("engine-lost") < names.index("engine-restarted")


def test_nothing_of_a_caller_is_logged(api: Deployed) -> None:
    """Not by gateway or worker; what ComfyUI says is read by the worker, and goes no further."""
    planted = Planted(api.url, {"x-api-key": api.key}, is_real=api.project.is_real)
    planted.send()
    planted.refused()
    text = "\n".join(api.log(tag) for tag in ("gateway", WORKER))
    text = "".join(line for line in text.splitlines(keepends=True) if line.strip())
    assert api.key not in text
    said = [*events(text)]
    assert {"queued", "rejected"} <= {event["event"] for event in events(api.log("gateway"))}
    assert any(event.get("code") == "unauthorized" for event in said)
    for mark in MARKS:
        assert mark not in text
    routes = {"/say", "/fail", "/workflow", "/raise", "/name"}
    lines = [line for line, event in zip(text.splitlines(), said, strict=True)
             if event.get("route") in routes]  # fmt: skip
    check("\n".join(lines))


def test_a_worker_says_when_it_stops(api: Deployed) -> None:
    assert api.modal.scale_down(api.project.app, WORKER) == [0]
    assert [*events(api.log(WORKER))][-1]["event"] == "worker-stopped"


def test_prompts_are_logged_where_gpu_yaml_says_so(modal: LocalModal, tmp_path: Path) -> None:
    api = deployed(modal, tmp_path, "prompts", log_prompts=True)
    planted = Planted(api.url, {"x-api-key": api.key})
    planted.post("/say", 200, json={"prompt": PROMPT})
    planted.refused()
    text = api.log("gateway") + api.log(WORKER)
    [queued] = [e for e in events(api.log("gateway")) if e["event"] == "queued"]
    assert queued["graph"]["3"]["inputs"]["source"] == PROMPT
    for key in (KEY, api.key):
        assert key not in text
