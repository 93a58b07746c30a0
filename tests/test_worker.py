"""The GPU worker without Modal, on a preview engine: what it keeps, what it says, when it makes way."""

import asyncio
import copy
import errno
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from generator.ports import free_port
from templates.gateway.backend import BackendUnavailableError, Key, Room, Status, Work
from templates.gateway.backend import Worker as WorkerState
from templates.gateway.job_store import CANCELLED, End, JobStore, Record
from templates.gateway.modal_backend import ModalBackend
from templates.utils import comfyui_process
from templates.utils.comfyui import Engine
from templates.utils.comfyui_errors import (
    EngineError,
    EngineFailed,
    EngineHung,
    EngineInterrupted,
)
from templates.utils.comfyui_http import Http
from templates.utils.comfyui_process import EngineProcess
from templates.utils.comfyui_records import EngineInfo, Graph
from templates.utils.downloads import ModelFile, Places
from templates.worker import Worker, WorkerSettings
from templates.worker_models import Uploads, Version

from .conftest import ROOT
from .test_modal_backend import MemoryCalls, MemoryLists, MemoryTable

MAIN = f"""\
import os, sys
os.environ["PYTHONPATH"] = {str(ROOT)!r}
port = sys.argv[sys.argv.index("--port") + 1]
here = os.path.dirname(os.path.abspath(__file__))
os.execv(sys.executable, [
    sys.executable, "-m", "generator.preview", "--no-packs", "--base-directory", here,
    "--port", port,
])
"""
JOB = "job_0123456789abcdefghjkmnpqrs"
GRAPH = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 1},
    },
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
WORK = Work(JOB, "/it", GRAPH, {}, None, "l40s", 60.0)


@dataclass
class Container:
    """A worker, and how often it made way."""

    worker: Worker
    jobs: JobStore
    table: MemoryTable
    lists: MemoryLists
    retired: int = 0

    async def retire(self) -> None:
        self.retired += 1

    async def state(self) -> WorkerState:
        """Return what gateways know of the worker."""
        return await self.jobs.worker("l40s", "")


def settings(base: Path, **changes: Any) -> WorkerSettings:
    directory = base / "ComfyUI"
    directory.mkdir(exist_ok=True)
    (directory / "main.py").write_text(MAIN, "utf-8")
    (directory / "models").mkdir(exist_ok=True)
    return replace(
        WorkerSettings(
            "l40s",
            "",
            directory=directory,
            port=free_port(),
            flags=[],
            classes={"EmptyImage", "SaveImage"},
            models=[],
            places=Places(base / "cache", {}),
            prices={"preview": 2.0},
            start_timeout=30,
        ),
        **changes,
    )


async def refuse(*_: object, **__: object) -> bool:
    raise BackendUnavailableError("Modal does not answer")


def work(
    said: WorkerSettings,
    test: Callable[[Container], Awaitable[None]],
    uploads: Uploads | None = None,
    table: MemoryTable | None = None,
) -> None:
    """Start a worker, do something with it, and stop it."""
    table = table or MemoryTable()

    async def run() -> None:
        jobs = JobStore(table)

        async def retire() -> None:
            await container.retire()

        lists = MemoryLists()
        worker = Worker(said, jobs, lists, retire=retire, uploads=uploads)
        container = Container(worker, jobs, table, lists)
        await container.worker.start()
        try:
            await test(container)
        finally:
            await container.worker.stop()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_run(tmp_path: Path) -> None:
    async def test(container: Container) -> None:
        end = await container.worker.run(WORK)
        assert end.status is Status.SUCCEEDED
        assert end.result is not None
        assert (end.result.gpu, end.result.price_per_second) == ("preview", 2.0)
        assert len(end.result.outputs) == 1
        told = [(name, json.loads(data)) for name, data in container.lists.items[JOB]]
        assert [name for name, _ in told] == ["queued", "started", "node", "node"]
        assert told[1][1] == {"gpu": "preview", "engine": "preview"}
        state = await container.state()
        assert (state.ready, state.engine) == (True, "preview")
        assert container.retired == 0

    work(settings(tmp_path), test)


def test_one_of_two_calls_for_a_job_runs(tmp_path: Path) -> None:
    """Two gateways have called for it; so the job knows one of them, or else the first to come."""

    async def test(container: Container) -> None:
        keyed = replace(WORK, key=Key("a", "b"))
        await container.jobs.add(JOB, Record.of(keyed, "fc-2"))
        assert (await container.worker.run(keyed, "fc-1")).status is Status.CANCELLED
        assert (await container.worker.run(keyed, "fc-2")).status is Status.SUCCEEDED
        other = replace(keyed, job=f"{JOB[:-1]}2")
        assert (await container.worker.run(other, "fc-3")).status is Status.SUCCEEDED
        assert (await container.worker.run(other, "fc-4")).status is Status.CANCELLED
        assert (await container.jobs.record(other.job)).call == "fc-3"

    work(settings(tmp_path), test)


def test_a_run_that_may_be_another_s_is_not_run(tmp_path: Path) -> None:
    async def test(container: Container) -> None:
        container.table.put = refuse  # type: ignore[method-assign]
        end = await container.worker.run(replace(WORK, key=Key("a", "b")), "fc-1")
        assert end.failure is not None
        assert end.failure.code == "engine-unreachable"
        assert not end.is_settled

    work(settings(tmp_path), test)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"classes": {"EmptyImage", "Missing"}}, "Missing"),
        ({"models": [ModelFile("m", "vae/m.pt", {"hf": "a/b", "file": "m.pt"})]}, "model m"),
        ({"flags": ["--port", "x"], "directory": Path("/nowhere")}, "No such file"),
    ],
)
def test_a_worker_that_cannot_start(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    """It does not raise; each run says why, and makes way."""

    async def test(container: Container) -> None:
        state = await container.state()
        assert reason in str(state.last_error)
        assert state.ready is False
        for number in (1, 2):
            end = await container.worker.run(replace(WORK, job=f"{JOB[:-1]}{number}"))
            assert end.failure is not None
            assert end.failure.code == "engine-not-started"
            assert reason in end.failure.detail
            assert container.retired == number

    work(settings(tmp_path, **changes), test)


SLOW = "import time\nprint('loading a large pack', flush=True)\ntime.sleep(60)\n"


async def hang(*_: object, **__: object) -> Any:
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("slow", "reason"),
    [
        ("link", "placing model files was not done after"),
        ("main", "placing model files took 0.0 s, starting ComfyUI was not done after"),
        ("connect", "connecting to it was not done after"),
        ("lacking", "checking its classes and model files was not done after"),
    ],
)
def test_a_start_that_takes_too_long_says_what_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str, reason: str
) -> None:
    """All of it has the time of the start, not ComfyUI's answer alone."""
    seconds = 3.0 if slow == "main" else 0.5

    async def start(*_: object) -> EngineInfo:
        return EngineInfo("0.3.71", "cpu", 0, 0, preview=False)

    async def connect(*_: object) -> None:
        pass

    def link(*_: object) -> list[str]:
        time.sleep(seconds + 1)
        return []

    said = settings(tmp_path, start_timeout=seconds)
    match slow:
        case "main":
            (said.directory / "main.py").write_text(SLOW, "utf-8")
        case "link":
            monkeypatch.setattr("templates.worker_models.link", link)
        case "connect":
            monkeypatch.setattr(EngineProcess, "start", start)
            monkeypatch.setattr(Engine, "connect", hang)
        case "lacking":
            monkeypatch.setattr(EngineProcess, "start", start)
            monkeypatch.setattr(Engine, "connect", connect)
            monkeypatch.setattr("templates.worker.lacking", hang)

    async def test(container: Container) -> None:
        error = (await container.state()).last_error
        assert error is not None
        assert error.startswith(f"the start took longer than {seconds:g} s: ")
        assert reason in error
        if slow == "main":
            assert error.endswith(": loading a large pack")
        end = await container.worker.run(WORK)
        assert end.failure is not None
        assert (end.failure.code, end.failure.detail) == ("engine-not-started", error)
        assert container.retired == 1
        assert not container.worker._process.alive

    work(said, test)


def test_a_second_start_that_takes_too_long(tmp_path: Path) -> None:
    """Runs that wait for it are told so."""

    async def test(container: Container) -> None:
        (said.directory / "main.py").write_text(SLOW, "utf-8")
        container.worker._settings = replace(said, start_timeout=1.0)
        pid = container.worker._process.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: container.worker._process.pid != pid)
        end = await container.worker.run(WORK)
        assert end.failure is not None
        assert "starting ComfyUI was not done after 1.0 s" in end.failure.detail

    said = settings(tmp_path)
    work(said, test)


async def until(found: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(30):
        while not found():
            await asyncio.sleep(0.01)


def test_a_container_that_cannot_make_way_answers_all_the_same(tmp_path: Path) -> None:
    async def test(container: Container) -> None:
        async def refuse() -> None:
            raise ConnectionError("Modal is gone")

        container.retire = refuse  # type: ignore[method-assign]
        end = await container.worker.run(WORK)
        assert end.failure is not None
        assert end.failure.code == "engine-not-started"

    work(settings(tmp_path, classes={"Missing"}), test)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineFailed("1", "KSampler", "ValueError", "bad", ""), "node-failed"),
        (
            EngineFailed("1", "SaveImage", "OSError", "[Errno 28] No space left on device", ""),
            "disk-full",
        ),
        (EngineInterrupted("closed", requested=True), "engine-lost"),
        (EngineInterrupted("by another", requested=False), "engine-interrupted"),
    ],
)
def test_what_runs_end_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise error

    async def test(container: Container) -> None:
        pid = container.worker._process.pid
        monkeypatch.setattr(Engine, "run", fail)
        end = await container.worker.run(WORK)
        assert end.failure is not None
        assert end.failure.code == code
        assert (container.retired, container.worker._process.pid) == (0, pid)

    work(settings(tmp_path), test)


def test_an_error_stays_told_of_when_another_container_starts(tmp_path: Path) -> None:
    """Else nobody would see that ComfyUI dies now and then."""
    table = MemoryTable()

    async def failing(container: Container) -> None:
        assert (await container.state()).ready is False

    async def healthy(container: Container) -> None:
        state = await container.state()
        assert state.ready is True
        assert "Missing" in str(state.last_error)
        assert before <= (state.last_error_at or 0) <= time.time()
        assert state.last_start is not None

    before = time.time()
    work(settings(tmp_path, classes={"Missing"}), failing, table=table)
    work(settings(tmp_path), healthy, table=table)


# A ComfyUI that dies, hangs, or is of no use any more


def slow(number: int) -> Work:
    """Return work that takes a second or two."""
    sampler = {"seed": number, "steps": 50, "cfg": 1.0, "sampler_name": "euler"}
    sampler |= {"scheduler": "simple", "denoise": 1.0, "model": ["1", 0], "latent_image": ["3", 0]}
    graph: Graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "3": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1},
        },
        "4": {
            "class_type": "KSampler",
            "inputs": {**sampler, "positive": ["2", 0], "negative": ["2", 0]},
        },
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "x"}},
    }
    return replace(WORK, job=f"{JOB[:-1]}{number}", graph=graph)


def with_model(base: Path) -> WorkerSettings:
    """Return settings of a worker that has the model of `slow`."""
    said = settings(base)
    model = said.directory / "models" / "checkpoints" / "m.safetensors"
    model.parent.mkdir()
    model.touch()
    return said


async def at_work(container: Container, job: str) -> None:
    """Wait until ComfyUI executes a job."""
    while not any(j.name == job and j.executing for j in container.worker._engine._jobs.values()):
        await asyncio.sleep(0.01)


def test_comfyui_is_killed_in_mid_run(tmp_path: Path) -> None:
    """It is started again, and the runs that it had are sent again."""

    async def test(container: Container) -> None:
        runs = [asyncio.create_task(container.worker.run(slow(n))) for n in range(3)]
        await at_work(container, slow(0).job)
        container.worker._process.kill()
        for run in runs:
            assert (await run).status is Status.SUCCEEDED
        assert container.retired == 0
        await until(container.worker._settled.is_set)
        state = await container.state()
        assert state.ready
        assert state.last_error == "ComfyUI ended with status -9, and was started again"

    work(with_model(tmp_path), test)


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_run_that_ends_comfyui_twice(
    is_seen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is lost; those that wait behind it are not, and those to come go to another container.

    Also where it ends ComfyUI again before that is seen to be up.
    """

    async def nothing_yet(_: Http) -> EngineError:
        return EngineError("not yet")

    async def test(container: Container) -> None:
        worker = container.worker
        runs = [asyncio.create_task(worker.run(slow(n))) for n in range(2)]
        for kills in range(2):
            await at_work(container, slow(0).job)
            if not is_seen and kills == 0:
                monkeypatch.setattr(comfyui_process, "_stats", nothing_yet)
            worker._process.kill()
            if kills == 1:
                monkeypatch.undo()
            for connected in (False, True):
                while worker._engine.connected is not connected:
                    await asyncio.sleep(0.01)
        first, second = [await run for run in runs]
        assert first.failure is not None
        assert first.failure.code == "engine-lost"
        assert second.status is Status.SUCCEEDED
        assert container.retired == 1
        await until(worker._settled.is_set)
        worker._process.kill()
        while (state := await container.state()).ready:
            await asyncio.sleep(0.01)
        assert state.last_error == "ComfyUI ended 3 times, the last time with status -9"

    work(with_model(tmp_path), test)


def test_a_worker_without_runs_tells_why_it_goes_before_it_does(tmp_path: Path) -> None:
    """Its container may end as soon as it has made way."""
    told: list[bool | None] = []

    async def test(container: Container) -> None:
        async def retire() -> None:
            told.append((await container.state()).ready)

        container.retire = retire  # type: ignore[method-assign]
        worker = container.worker
        pid = worker._process.pid
        worker._process.kill()
        await until(lambda: worker._process.pid != pid and worker._settled.is_set())
        worker._process.kill()
        await until(lambda: told)
        assert told == [False]

    work(settings(tmp_path), test)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("torch.OutOfMemoryError", "engine-out-of-memory"),
        ("torch.AcceleratorError", "node-failed"),
        ("hung", "engine-hung"),
    ],
)
def test_comfyui_is_of_no_more_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: str
) -> None:
    """It is ended and started again; what else it had is sent again, and may be once more."""
    run = Engine.run
    failed = EngineFailed("4", "KSampler", kind, "CUDA error: an illegal memory access", "")

    async def fail(engine: Engine, graph: Graph, *, job: str, **options: Any) -> Any:
        if job != slow(0).job:
            return await run(engine, graph, job=job, **options)
        while not any(j.executing for j in engine._jobs.values()):
            await asyncio.sleep(0.01)
        raise EngineHung("hung") if kind == "hung" else failed

    async def test(container: Container) -> None:
        monkeypatch.setattr(Engine, "run", fail)
        pid = container.worker._process.pid
        good = asyncio.create_task(container.worker.run(slow(1)))
        end = await container.worker.run(slow(0))
        assert end.failure is not None
        assert end.failure.code == code
        assert (await good).status is Status.SUCCEEDED
        assert container.worker._process.pid != pid
        assert container.retired == 0
        await until(container.worker._settled.is_set)
        assert str((await container.state()).last_error).endswith(", and was started again")

    work(with_model(tmp_path), test)


def test_comfyui_hangs(tmp_path: Path) -> None:
    """The run that it was at ends; the others are sent to the next one."""

    async def test(container: Container) -> None:
        worker = container.worker
        runs = [asyncio.create_task(worker.run(slow(n))) for n in range(2)]
        await at_work(container, slow(0).job)
        assert worker._process.pid is not None
        worker._engine._silence, worker._engine._hung_after = 0.3, 0.7
        os.kill(worker._process.pid, signal.SIGSTOP)
        first, second = [await run for run in runs]
        assert first.failure is not None
        assert first.failure.code == "engine-hung"
        assert second.status is Status.SUCCEEDED
        await until(worker._settled.is_set)
        state = await container.state()
        assert state.last_error == "ComfyUI had stopped answering, and was started again"

    work(with_model(tmp_path), test)


# Runs that are stopped, or run again


class SlowVolume:
    """A Volume whose file takes its time."""

    began = False

    async def files(self) -> dict[str, Version]:
        return {"loras/new.safetensors": (21, 0.0)}

    async def fetch(self, *_: object) -> None:
        self.began = True
        await asyncio.sleep(60)


async def cancelled_soon(container: Container, run: "asyncio.Task[End]", job: str) -> None:
    """Cancel a job as a gateway does, and see that its worker lets go of it in time."""
    await container.jobs.settle(job, CANCELLED)
    start = time.monotonic()
    assert (await run).status is Status.CANCELLED
    assert time.monotonic() - start < 2


def test_a_run_whose_upload_is_being_fetched_is_cancelled(tmp_path: Path) -> None:
    async def test(container: Container) -> None:
        run = asyncio.create_task(container.worker.run(with_lora()))
        await until(lambda: volume.began)
        await cancelled_soon(container, run, JOB)

    volume = SlowVolume()
    work(settings(tmp_path), test, volume)


def test_runs_are_cancelled_while_comfyui_is_started_again(tmp_path: Path) -> None:
    """That which ComfyUI had, and that which came since."""

    async def test(container: Container) -> None:
        worker = container.worker
        had = asyncio.create_task(worker.run(slow(0)))
        await at_work(container, slow(0).job)
        (said.directory / "main.py").write_text(SLOW, "utf-8")
        pid = worker._process.pid
        worker._process.kill()
        await until(lambda: worker._process.pid != pid)
        came = asyncio.create_task(worker.run(slow(1)))
        await asyncio.sleep(0.1)
        await cancelled_soon(container, came, slow(1).job)
        await cancelled_soon(container, had, slow(0).job)

    said = with_model(tmp_path)
    work(said, test)


def test_waiting_for_comfyui_is_a_part_of_a_run_s_time(tmp_path: Path) -> None:
    """Else Modal would end the call before the run can say that it took too long."""

    async def test(container: Container) -> None:
        worker = container.worker
        (said.directory / "main.py").write_text(SLOW, "utf-8")
        pid = worker._process.pid
        worker._process.kill()
        await until(lambda: worker._process.pid != pid)
        end = await worker.run(replace(WORK, timeout=0.5))
        assert end.failure is not None
        assert end.failure.code == "engine-timeout"

    said = settings(tmp_path)
    work(said, test)


def test_a_worker_that_cannot_start_answers_also_when_nobody_can_be_told(tmp_path: Path) -> None:
    async def test(container: Container) -> None:
        async def put(*_: object, **__: object) -> bool:
            raise BackendUnavailableError("Modal does not answer")

        container.table.put = put  # type: ignore[method-assign]
        end = await container.worker.run(WORK)
        assert end.failure is not None
        assert end.failure.code == "engine-not-started"

    work(settings(tmp_path, classes={"Missing"}), test)


def test_a_watch_that_fails_is_a_worker_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would start ComfyUI again; so no run waits for that, and others take what comes."""

    async def watch(_: EngineProcess) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async def test(container: Container) -> None:
        while not container.retired:
            await asyncio.sleep(0.01)
        end = await container.worker.run(WORK)
        assert end.failure is not None
        assert end.failure.code == "engine-not-started"
        assert "Too many open files" in end.failure.detail
        assert (await container.state()).ready is False

    monkeypatch.setattr(EngineProcess, "watch", watch)
    work(settings(tmp_path), test)


def test_a_run_that_modal_repeats_hands_out_what_it_makes(tmp_path: Path) -> None:
    """The container before it had told of its success, and ended before it had returned."""

    async def test(container: Container) -> None:
        await container.jobs.settle(slow(0).job, End(Status.SUCCEEDED))
        end = await container.worker.run(slow(0))
        assert end.status is Status.SUCCEEDED
        assert end.result is not None
        assert len(end.result.outputs) == 1
        # And when it fails this time, nobody gets a success without outputs.
        await container.jobs.settle(JOB, End(Status.SUCCEEDED))
        end = await container.worker.run(replace(WORK, graph={}))
        assert end.failure is not None
        assert end.failure.code == "output-missing"

    work(with_model(tmp_path), test)


def test_a_run_that_was_cancelled_meanwhile(tmp_path: Path) -> None:
    """The store said so first, so that is how the job ended; its outputs go nowhere."""

    async def test(container: Container) -> None:
        await container.jobs.settle(JOB, CANCELLED)
        assert (await container.worker.run(WORK)).status is Status.CANCELLED

    work(settings(tmp_path), test)


def test_comfyui_downloads_no_models(tmp_path: Path) -> None:
    """A model that is missing is an error at the start, not 17 GB in a request."""

    async def test(container: Container) -> None:
        process = container.worker._process
        environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        assert b"HF_HUB_OFFLINE=1" in environment

    work(settings(tmp_path), test)


ROUTE = {"enabled": True, "gpu": "l40s", "group": None, "classes": ["KSampler"], "models": ["a"]}


def write_build(build: Path, routes: dict[str, Any], models: list[dict[str, Any]]) -> None:
    """Write what a worker reads of a build."""
    catalogs = build / "graph" / "catalogs"
    catalogs.mkdir(parents=True)
    shutil.copy(ROOT / "generator/catalogs/comfyui-0.3.71.jsonl", catalogs)
    (build / "manifest.json").write_text(json.dumps({"routes": routes}), "utf-8")
    (build / "models.json").write_text(json.dumps(models), "utf-8")


def settings_of(build: Path, profile: str, group: str) -> WorkerSettings:
    return WorkerSettings.of_build(
        build,
        profile,
        group,
        version="0.3.71",
        directory=Path("/comfyui"),
        port=free_port(),
        flags=[],
        places=Places(build),
        prices={},
        start_timeout=9.0,
    )


def test_the_settings_of_a_build(tmp_path: Path) -> None:
    """A worker needs what its own routes do: those of its profile and group that are on."""
    routes = {
        "/one": ROUTE,
        "/two": ROUTE | {"classes": ["VAEDecode", "KSampler"], "models": ["a", "b"]},
        "/off": ROUTE | {"enabled": False, "classes": ["Off"], "models": ["off"]},
        "/large": ROUTE | {"gpu": "h100", "classes": ["Large"], "models": ["large"]},
        "/apart": ROUTE | {"group": "apart", "classes": ["Apart"], "models": ["b"]},
    }
    models = [
        {"name": name, "path": f"vae/{name}", "source": {"hf": "a/b", "file": name}}
        for name in ("a", "b", "off", "large")
    ]
    write_build(tmp_path, routes, models)

    def of(profile: str, group: str) -> tuple[set[str], set[str]]:
        said = settings_of(tmp_path, profile, group)
        assert said.fault is None
        assert (said.profile, said.group, said.start_timeout) == (profile, group, 9.0)
        assert said.catalog is not None
        assert said.catalog.get("KSampler", ())
        return {*said.classes}, {model.name for model in said.models}

    assert of("l40s", "") == ({"KSampler", "VAEDecode"}, {"a", "b"})
    assert of("l40s", "apart") == ({"Apart"}, {"b"})
    assert of("h100", "") == ({"Large"}, {"large"})


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("manifest.json", "{", "manifest.json of the build cannot be used: JSONDecodeError"),
        ("manifest.json", '{"routes": {"/a": {}}}', "manifest.json of the build cannot be used"),
        ("models.json", None, "models.json of the build cannot be used: FileNotFoundError"),
        ("models.json", '[{"nom": "a"}]', "models.json of the build cannot be used: TypeError"),
        ("graph/catalogs", None, "graph/catalogs of the build cannot be used: FileNotFoundError"),
    ],
)
def test_a_build_that_cannot_be_read(
    tmp_path: Path, file: str, text: str | None, reason: str
) -> None:
    """It is a start that fails as any other: the first call says why, and the container retires."""

    async def test(container: Container) -> None:
        end = await container.worker.run(WORK)
        assert end.failure is not None
        assert (end.failure.code, container.retired) == ("engine-not-started", 1)
        assert reason in end.failure.detail
        assert reason in str((await container.state()).last_error)

    build = tmp_path / "build"
    write_build(build, {"/one": ROUTE | {"models": []}}, [])
    if text is not None:
        (build / file).write_text(text, "utf-8")
    elif (build / file).is_dir():
        shutil.rmtree(build / file)
    else:
        (build / file).unlink()
    work(settings_of(build, "l40s", ""), test)


def test_the_command(tmp_path: Path) -> None:
    said = settings(tmp_path, flags=["--highvram"])
    assert said.command[:2] == [sys.executable, "main.py"]
    assert said.command[-3:] == ["--disable-auto-launch", "--disable-api-nodes", "--highvram"]


class Uploaded:
    """A Volume with one LoRA, which can be out of reach."""

    is_there = True

    async def files(self) -> dict[str, Version]:
        if not self.is_there:
            raise BackendUnavailableError("Modal does not answer")
        return {"loras/new.safetensors": (21, 0.0)}

    async def fetch(self, path: str, target: Path) -> None:
        target.write_text(path)


def with_lora() -> Work:
    """Return work whose LoRA stands in a mapping, as Power Lora Loader takes it."""
    graph: Graph = copy.deepcopy(GRAPH)
    graph["1"]["inputs"]["lora_1"] = {"on": True, "lora": "new.safetensors"}
    return replace(WORK, graph=graph)


def test_uploads_that_stand_in_mappings_are_fetched(tmp_path: Path) -> None:
    async def test(container: Container) -> None:
        assert (await container.worker.run(with_lora())).status is Status.SUCCEEDED

    said = settings(tmp_path)
    work(said, test, Uploaded())
    assert (said.directory / "models/loras/new.safetensors").read_text() == "loras/new.safetensors"


def test_uploads_that_cannot_be_fetched_are_said(tmp_path: Path) -> None:
    async def test(container: Container) -> None:
        end = await container.worker.run(with_lora())
        assert end.failure is not None
        assert end.failure.code == "engine-not-started"
        assert "Modal does not answer" in end.failure.detail

    uploads = Uploaded()
    uploads.is_there = False
    work(settings(tmp_path), test, uploads)


def test_an_upload_that_the_disk_has_no_room_for(tmp_path: Path) -> None:
    class Large(Uploaded):
        async def fetch(self, path: str, target: Path) -> None:
            raise OSError(errno.ENOSPC, f"no room for {path}", str(target))

    async def test(container: Container) -> None:
        end = await container.worker.run(with_lora())
        assert end.failure is not None
        assert end.failure.code == "disk-full"

    work(settings(tmp_path), test, Large())


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_result_that_nobody_can_be_told_of_is_returned(
    tmp_path: Path, is_cancelled: bool
) -> None:
    """Gateways settle it: a job that was told cancelled before the table went away stays so."""

    async def test(container: Container) -> None:
        calls = MemoryCalls()
        backend = ModalBackend(calls, container.jobs, container.lists, workers=[("l40s", "")])
        await backend.submit(WORK, Room(10, 0))
        if is_cancelled:
            assert (await backend.cancel(JOB)).status is Status.CANCELLED
        put = container.table.put
        container.table.put = refuse  # type: ignore[method-assign]
        end = calls.ends["fc-1"] = await container.worker.run(WORK)
        assert end.result is not None
        with pytest.raises(BackendUnavailableError):
            await backend.wait(JOB, 1)
        container.table.put = put  # type: ignore[method-assign]
        wanted = Status.CANCELLED if is_cancelled else Status.SUCCEEDED
        for _ in range(2):
            found = await backend.wait(JOB, 1)
            assert (found.status, found.result is None) == (wanted, is_cancelled)
        ends = [e for e in container.table.entries if e.endswith("/end")]
        assert len(ends) == 1

    work(settings(tmp_path), test)


@pytest.mark.parametrize("lost", [1, 2])
def test_an_end_whose_answer_is_lost_is_noted_once(
    tmp_path: Path, lost: int, caplog: pytest.LogCaptureFixture
) -> None:
    """By the worker, who asks once more, or else by a gateway: no request is without an end."""

    class Late(MemoryTable):
        left = lost

        async def put(self, key: str, value: Any, *, skip_if_exists: bool = False) -> bool:
            done = await super().put(key, value, skip_if_exists=skip_if_exists)
            if key == f"{JOB}/end" and self.left > 0:
                self.left -= 1
                raise BackendUnavailableError("Modal does not answer")
            return done

    async def test(container: Container) -> None:
        calls = MemoryCalls()
        journal = container.worker._journal
        options: Any = {"workers": [("l40s", "")], "journal": journal}
        gateways = [
            ModalBackend(calls, container.jobs, container.lists, **options) for _ in range(2)
        ]
        await gateways[0].submit(WORK, Room(10, 0))
        end = calls.ends["fc-1"] = await container.worker.run(WORK)
        assert end.is_settled is (lost == 1)
        for gateway in gateways:
            assert (await gateway.wait(JOB, 1)).status is Status.SUCCEEDED
        [counts] = (await journal.usage.read()).counts.values()
        assert counts.succeeded == 1
        assert end.timings is not None
        assert counts.execution_seconds == end.timings.execution_seconds

    with caplog.at_level(logging.INFO, "templates"):
        work(settings(tmp_path), test, table=Late())
    told = [record.msg for record in caplog.records if "fields" in record.__dict__]
    noted = [name for name in told if name in ("finished", "stopped")]
    assert noted == (["finished"] if lost == 1 else ["stopped", "finished"])
