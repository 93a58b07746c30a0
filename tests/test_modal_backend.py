"""The backend on Modal against calls and a table of this process: how jobs end, and what is known."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from templates.gateway.backend import (
    BackendUnavailableError,
    Failure,
    JobEndedError,
    Result,
    Room,
    Status,
    Step,
    UnknownJobError,
    Work,
    Worker,
)
from templates.gateway.job_store import CANCELLED, End, JobStore, Now, Record
from templates.gateway.modal_backend import CallLostError, CallPendingError, ModalBackend
from templates.gateway.timings import Timings
from templates.utils.comfyui_records import Text

from .api_client import asked, new_app

JOB = "job_0123456789abcdefghjkmnpqrs"
WORK = Work(JOB, "/picture", {}, {}, 7, "l40s", 60.0, "ann")
ROOM = Room(10, 0)
RESULT = Result((Text("1", "text", "made"),), 1.0, 0.0, "L40S", 0.1, "comfyui/0.3.71", False)
SUCCEEDED = End(Status.SUCCEEDED, result=RESULT)
FAILED = End(Status.FAILED, failure=Failure("node-failed", "no face"))
LOST = Failure("engine-lost", "the worker ended in mid-run")

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 10))


class MemoryTable:
    """A table whose operations are as atomic as Modal's."""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}

    async def get(self, key: str) -> Any:
        await asyncio.sleep(0)
        return self.entries.get(key)

    async def put(self, key: str, value: Any, *, skip_if_exists: bool = False) -> bool:
        await asyncio.sleep(0)
        if skip_if_exists and key in self.entries:
            return False
        self.entries[key] = value
        return True


class MemoryLists:
    """Lists as Modal's queues keep them; `error` is what keeps them away."""

    def __init__(self) -> None:
        self.items: dict[str, list[Any]] = {}
        self.reading = 0
        self.error: Exception | None = None

    async def add(self, key: str, items: Sequence[Any]) -> None:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.items.setdefault(key, []).extend(items)

    async def read(self, key: str, seconds: float) -> AsyncGenerator[Any, None]:
        count, limit = 0, time.monotonic() + seconds
        self.reading += 1
        try:
            while True:
                if self.error is not None:
                    raise self.error
                for item in self.items.get(key, [])[count:]:
                    count += 1
                    yield item
                if time.monotonic() >= limit:
                    return
                await asyncio.sleep(0.005)
        finally:
            self.reading -= 1


class MemoryCalls:
    """Calls that end when a test says so."""

    def __init__(self) -> None:
        self.spawned: list[Work] = []
        self.cancelled: list[str] = []
        self.ends: dict[str, End | Exception] = {}
        self.on_get: Callable[[], None] = lambda: None

    async def spawn(self, work: Work) -> str:
        self.spawned.append(work)
        return f"fc-{len(self.spawned)}"

    async def get(self, call: str, seconds: float) -> End:
        for _ in range(2 if seconds else 1):
            await asyncio.sleep(0)
            end = self.ends.get(call)
            if isinstance(end, Exception):
                raise end
            if end is not None:
                return end
            self.on_get()
        raise CallPendingError(call)

    async def cancel(self, call: str) -> None:
        self.cancelled.append(call)


class Modal:
    """A gateway, and its other half: what the worker of a job does."""

    def __init__(self) -> None:
        self.calls, self.table, self.lists = MemoryCalls(), MemoryTable(), MemoryLists()
        self.store = JobStore(self.table)
        self.backend = self.gateway()

    def gateway(self) -> ModalBackend:
        return ModalBackend(
            self.calls,
            self.store,
            self.lists,
            workers=[("l40s", ""), ("a100", "faces")],
            models=["loras/a.pt"],
        )

    async def work(self, end: End) -> End:
        """End the run as a worker does: in the store, then to whoever waits for the call."""
        kept, _ = await self.store.settle(JOB, end)
        self.calls.ends["fc-1"] = kept
        return kept


def test_a_job_from_its_start_to_its_end() -> None:
    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        queued = await modal.backend.wait(JOB, 0)
        assert (queued.status, queued.route, queued.owner) == (Status.QUEUED, "/picture", "ann")
        await modal.store.tell(JOB, Now(Status.RUNNING, step=Step("4", "KSampler", 1, 4)))
        running = await modal.backend.wait(JOB, 0)
        assert (running.status, running.step) == (Status.RUNNING, Step("4", "KSampler", 1, 4))
        await modal.work(SUCCEEDED)
        # Another gateway knows as much.
        for gateway in (modal.backend, modal.gateway()):
            done = await gateway.wait(JOB, 1)
            assert (done.status, done.result, done.seed) == (Status.SUCCEEDED, RESULT, 7)
        with pytest.raises(JobEndedError):
            await modal.backend.cancel(JOB)
        assert modal.calls.cancelled == []

    run(test())


def test_outputs_lie_in_the_call_alone() -> None:
    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        await modal.work(SUCCEEDED)
        assert "made" not in repr(modal.table.entries)

    run(test())


@pytest.mark.parametrize("first", ["worker", "caller"])
def test_who_ends_a_job_first_decides(first: str) -> None:
    """A job that is cancelled as it succeeds is one or the other, for everybody and for good."""

    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        if first == "worker":
            await modal.work(SUCCEEDED)
            with pytest.raises(JobEndedError):
                await modal.backend.cancel(JOB)
            wanted = Status.SUCCEEDED
        else:
            assert (await modal.backend.cancel(JOB)).status is Status.CANCELLED
            assert (await modal.work(SUCCEEDED)).status is Status.CANCELLED
            wanted = Status.CANCELLED
        for gateway in (modal.backend, modal.gateway()):
            found = await gateway.wait(JOB, 0)
            assert (found.status, found.result is None) == (wanted, wanted is Status.CANCELLED)

    run(test())


def test_many_races_have_one_winner_each() -> None:
    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        ends = await asyncio.gather(
            *(modal.store.settle(JOB, end) for end in (CANCELLED, SUCCEEDED, FAILED) * 5)
        )
        assert len({end.status for end, _ in ends}) == 1
        assert [is_first for _, is_first in ends].count(True) == 1

    run(test())


def test_a_result_that_is_on_its_way() -> None:
    """The worker has ended the job in the store, and its call returns a moment later."""

    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        await modal.store.settle(JOB, SUCCEEDED)
        polls: list[None] = []

        def arrive() -> None:
            polls.append(None)
            if len(polls) == 2:
                modal.calls.ends["fc-1"] = SUCCEEDED

        modal.calls.on_get = arrive
        assert (await modal.backend.wait(JOB, 0)).result == RESULT

    run(test())


def test_what_nobody_was_told_of_is_not_cancelled() -> None:
    """The table did not answer when the worker ended the job: its call has what was made."""

    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        modal.calls.ends["fc-1"] = SUCCEEDED
        with pytest.raises(JobEndedError):
            await modal.backend.cancel(JOB)
        assert (await modal.gateway().wait(JOB, 0)).result == RESULT
        assert modal.calls.cancelled == []
        with pytest.raises(JobEndedError):
            await modal.gateway().cancel(JOB)

    run(test())


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_call_that_is_lost(is_cancelled: bool) -> None:
    """It has failed for good, unless the job was cancelled: then that is why."""

    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        if is_cancelled:
            await modal.backend.cancel(JOB)
            assert modal.calls.cancelled == ["fc-1"]
        modal.calls.ends["fc-1"] = CallLostError(LOST)
        found = await modal.backend.wait(JOB, 1)
        assert found.status is (Status.CANCELLED if is_cancelled else Status.FAILED)
        assert found.failure == (None if is_cancelled else LOST)
        if not is_cancelled:
            with pytest.raises(JobEndedError):
                await modal.backend.cancel(JOB)

    run(test())


def test_why_a_call_was_lost_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """With its job, for whoever looks after the service; callers are told no more than before."""

    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        modal.calls.ends["fc-1"] = CallLostError(LOST, "InternalFailure: the machine is gone")
        for gateway in (modal.backend, modal.gateway(), modal.backend):
            assert (await gateway.wait(JOB, 0)).failure == LOST

    with caplog.at_level(logging.INFO, "templates"):
        run(test())
    [told] = [record.__dict__["fields"] for record in caplog.records if record.msg == "failed"]
    assert (told["job"], told["why"]) == (JOB, "InternalFailure: the machine is gone")


@pytest.mark.parametrize(
    ("there", "noted"),
    [(SUCCEEDED, ["finished"]), (None, ["finished"]), (CANCELLED, []), (FAILED, [])],
    ids=["its worker's", "none", "a caller's", "a gateway's"],
)
def test_an_end_that_its_worker_was_in_doubt_of_is_noted_once(
    there: End | None, noted: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It may have been written though the answer was lost; others have noted theirs themselves."""

    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        timings = Timings(1.0, 2.0, 3.0, 0.1, 0.2)
        if there is not None:
            is_own = there is SUCCEEDED
            await modal.store.settle(JOB, replace(there, timings=timings if is_own else None))
        modal.calls.ends["fc-1"] = replace(SUCCEEDED, timings=timings, is_settled=False)
        gateways = [modal.backend, modal.gateway(), modal.gateway()]
        found = await asyncio.gather(*(gateway.wait(JOB, 0) for gateway in gateways * 2))
        assert {job.status for job in found} == {(there or SUCCEEDED).status}

    with caplog.at_level(logging.INFO, "templates"):
        run(test())
    told = [record.msg for record in caplog.records if "fields" in record.__dict__]
    assert [name for name in told if name in ("finished", "failed", "cancelled")] == noted


def test_a_result_that_is_lost_on_its_way() -> None:
    """The worker had ended the job, and died before its call returned: the job has failed."""

    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        await modal.store.settle(JOB, SUCCEEDED)
        modal.calls.ends["fc-1"] = CallLostError(LOST)
        for gateway in (modal.backend, modal.gateway()):
            found = await gateway.wait(JOB, 0)
            assert found.status is Status.FAILED
            assert found.failure is not None
            assert found.failure.code == "output-missing"

    run(test())


def test_a_reason_stays_the_first() -> None:
    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        await modal.store.settle(JOB, FAILED)
        modal.calls.ends["fc-1"] = CallLostError(LOST)
        assert (await modal.backend.wait(JOB, 1)).failure == FAILED.failure

    run(test())


def test_what_is_kept_no_longer() -> None:
    async def test() -> None:
        modal = Modal()
        for job in (JOB, "worker/l40s/", f"{JOB}/end", ""):
            with pytest.raises(UnknownJobError):
                await modal.backend.wait(job, 0)
        await modal.backend.submit(WORK, ROOM)
        modal.calls.ends["fc-1"] = UnknownJobError("fc-1")
        with pytest.raises(UnknownJobError):
            await modal.backend.wait(JOB, 0)

    run(test())


def test_a_failed_job_keeps_its_reason_without_its_call() -> None:
    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        await modal.store.settle(JOB, FAILED)
        found = await modal.backend.wait(JOB, 0)
        assert (found.status, found.failure) == (Status.FAILED, FAILED.failure)

    run(test())


def test_workers_are_known_by_what_they_told() -> None:
    async def test() -> None:
        modal = Modal()
        faces, plain = await modal.backend.workers()
        assert faces == Worker("a100", ready=None, group="faces")
        assert plain == Worker("l40s", ready=None)
        up = replace(faces, ready=True, engine="comfyui/0.3.71", gpu="A100")
        await modal.store.tell_worker(up)
        assert await modal.gateway().workers() == [up, plain]
        assert modal.calls.spawned == []

    run(test())


def test_model_files_are_the_declared_ones_where_nothing_is_uploaded() -> None:
    async def test() -> None:
        modal = Modal()
        assert await modal.backend.models("loras") == ["a.pt"]
        assert await modal.backend.models("vae") == []
        assert await modal.backend.models("configs") is None

    run(test())


def test_a_record_holds_the_call_and_no_job_does() -> None:
    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        record = await modal.store.record(JOB)
        assert isinstance(record, Record)
        assert record.call == "fc-1"
        assert "fc-1" not in repr(await modal.backend.wait(JOB, 0))

    run(test())


@pytest.mark.parametrize("end", [SUCCEEDED, FAILED])
def test_respond_async_is_a_job_however_soon_it_ends(end: End) -> None:
    """A worker may be done before its gateway has noted the job."""

    class InstantBackend(ModalBackend):
        async def submit(self, work: Work, room: Room) -> str:
            job = await super().submit(work, room)
            modal.calls.ends["fc-1"], _ = await modal.store.settle(job, end)
            return job

    modal = Modal()
    modal.backend = InstantBackend(modal.calls, modal.store, modal.lists, workers=[("l40s", "")])

    async def test() -> None:
        async with asked(new_app("build", modal.backend)) as client:
            headers = {"Prefer": "respond-async"}
            reply = await client.post("/flux", json={"prompt": "x"}, headers=headers)
            assert reply.status_code == 202
            assert reply.headers["preference-applied"] == "respond-async"
            document = reply.json()
            assert reply.headers["location"] == f"/jobs/{document['job']}"
            assert document["status"] == end.status
            assert (document["problem"] is not None) == (end is FAILED)
            result = await client.get(f"{reply.headers['location']}/result")
            assert result.status_code == (500 if end is FAILED else 200)

    run(test())


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_job_that_cannot_be_recorded_is_not_run(
    is_cancelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody could ask for it. Where its call cannot be stopped either, the log says so."""

    async def test() -> None:
        modal = Modal()

        put = modal.table.put

        async def refuse(key: str, value: Any, **options: Any) -> bool:
            if key == JOB:
                raise BackendUnavailableError("Modal does not answer")
            return await put(key, value, **options)

        async def refuse_cancel(call: str) -> None:  # noqa: ARG001
            raise BackendUnavailableError("nor does it stop a call")

        modal.table.put = refuse  # type: ignore[method-assign]
        if not is_cancelled:
            modal.calls.cancel = refuse_cancel  # type: ignore[method-assign]
        with pytest.raises(BackendUnavailableError, match="Modal does not answer"):
            await modal.backend.submit(WORK, ROOM)
        assert modal.calls.cancelled == (["fc-1"] if is_cancelled else [])

    run(test())
    said = f"job {JOB}: it may run though nobody can ask for it"
    assert (said in caplog.text) is not is_cancelled
