"""What the gateway makes of a Modal that does not answer."""

import asyncio
from types import SimpleNamespace
from typing import Any

import modal
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from templates.gateway import active_jobs, logs, modal_calls
from templates.gateway.backend import BackendUnavailableError, Failure, Room
from templates.gateway.modal_backend import CallLostError
from templates.gateway.modal_calls import ModalCalls, ModalLists, ModalTable, VolumeFiles

from .test_modal_backend import WORK, MemoryTable

FAULTS = [
    StreamTerminatedError("Connection lost"),
    GRPCError(Status.UNAVAILABLE),
    modal.exception.ConnectionError("no way"),
]


class Failing:
    """An object of Modal's whose methods all raise."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getattr__(self, _: str) -> Any:
        async def method(*_: object, **__: object) -> None:
            raise self.error

        return SimpleNamespace(aio=method)


class Silent:
    """An object of Modal's whose methods never return."""

    def __getattr__(self, _: str) -> Any:
        async def method(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        return SimpleNamespace(aio=method)


class FailingStream:
    """An object of Modal's whose methods all yield nothing, and raise."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, _: str) -> Any:
        async def method(*_: object, **__: object) -> Any:
            for never in list[None]():
                yield never
            raise self.error

        return SimpleNamespace(aio=method)


async def drain(items: Any) -> None:
    async for _ in items:
        pytest.fail("nothing was there")


@pytest.mark.parametrize("error", [*FAULTS, ConnectionResetError(104, "reset")], ids=repr)
def test_a_lost_connection_is_no_fault_of_the_service(error: Exception) -> None:
    one: Any = Failing(error)
    many: Any = FailingStream(error)
    for work in (
        ModalTable(one).get("a"),
        ModalTable(one).put("a", 1),
        ModalTable(one).delete("a"),
        drain(ModalTable(many).items()),
        ModalLists(one).add("a", [1]),
        drain(ModalLists(many).read("a", 0)),
    ):
        with pytest.raises(BackendUnavailableError):
            asyncio.run(work)


def test_a_gateway_has_less_patience_than_modal(monkeypatch: pytest.MonkeyPatch) -> None:
    silent: Any = Silent()
    monkeypatch.setattr(modal_calls, "PATIENCE", 0.05)
    monkeypatch.setattr(modal.FunctionCall, "from_id", lambda _: silent)
    for work in (
        ModalTable(silent, 0.05).get("a"),
        ModalTable(silent, 0.05).put("a", 1),
        ModalTable(silent, 0.05).delete("a"),
        VolumeFiles([silent], 0.05).listing("loras"),
        ModalCalls({}).cancel("fc-1"),
    ):
        with pytest.raises(BackendUnavailableError):
            asyncio.run(asyncio.wait_for(work, 5))


def test_those_who_wait_for_each_other_have_no_more() -> None:
    """As many requests as there may be are answered in the same time as two."""
    silent: Any = Silent()

    async def has_ended(_: str) -> bool:
        return False

    async def enter(active: active_jobs.ActiveJobs) -> None:
        with pytest.raises(BackendUnavailableError):
            await active.enter(WORK, Room(10, 0))

    async def test() -> None:
        active = active_jobs.ActiveJobs(ModalTable(silent, 0.3), has_ended)
        async with asyncio.timeout(1.5):
            await asyncio.gather(*(enter(active) for _ in range(20)))
        # Whoever has given up has left no turn taken.
        active._table = MemoryTable()
        await active.enter(WORK, Room(10, 0))

    asyncio.run(test())


@pytest.mark.parametrize("error", FAULTS, ids=repr)
def test_a_lost_connection_ends_no_job(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker goes on."""
    monkeypatch.setattr(modal.FunctionCall, "from_id", lambda _: Failing(error))
    with pytest.raises(BackendUnavailableError):
        asyncio.run(ModalCalls({}).get("fc-1", 0))


def test_what_a_worker_raises_ends_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modal.FunctionCall, "from_id", lambda _: Failing(OSError("its own")))
    with pytest.raises(CallLostError) as lost:
        asyncio.run(ModalCalls({}).get("fc-1", 0))
    assert isinstance(lost.value.failure, Failure)
    assert lost.value.failure.code == "internal-error"


def test_a_call_that_returns_no_end_ends_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    async def get(timeout: float) -> object:
        return {"timeout": timeout}

    call = SimpleNamespace(get=SimpleNamespace(aio=get))
    monkeypatch.setattr(modal.FunctionCall, "from_id", lambda _: call)
    with pytest.raises(CallLostError) as lost:
        asyncio.run(ModalCalls({}).get("fc-1", 0))
    assert lost.value.failure.code == "internal-error"
    assert lost.value.why == "the worker returned dict, which is no End"


def test_a_result_that_cannot_be_read_ends_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modal has answered; asking again would bring the same bytes."""
    error = modal.exception.DeserializationError("Deserialization failed with the message: no End")
    monkeypatch.setattr(modal.FunctionCall, "from_id", lambda _: Failing(error))
    with pytest.raises(CallLostError) as lost:
        asyncio.run(ModalCalls({}).get("fc-1", 0))
    assert lost.value.failure.code == "internal-error"
    assert str(lost.value.why).startswith("DeserializationError: Deserialization failed")


SAID = "ValueError('no face in a red fox')"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (modal.exception.RemoteError(SAID), "RemoteError: ValueError(…"),
        (modal.exception.RemoteError("the workspace has no budget"), "the workspace has no budget"),
        (modal.exception.InternalFailure("the machine is gone"), "the machine is gone"),
        (modal.exception.ExecutionError(f"it is no pickle:\n{SAID}"), "it is no pickle:"),
        (modal.exception.FunctionTimeoutError("after 660 s"), "after 660 s"),
        (modal.exception.InputCancellation(), "InputCancellation"),
    ],
    ids=repr,
)
def test_why_a_call_was_lost_is_for_the_log(
    error: BaseException, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what Modal says, but nothing that a worker said: that may be of a prompt."""
    monkeypatch.setattr(modal.FunctionCall, "from_id", lambda _: Failing(error))
    with pytest.raises(CallLostError) as lost:
        asyncio.run(ModalCalls({}).get("fc-1", 0))
    assert lost.value.why is not None
    assert lost.value.why.startswith(type(error).__name__)
    assert why in lost.value.why
    assert "fox" not in lost.value.why
    monkeypatch.setattr(logs, "shows_prompts", lambda: True)
    with pytest.raises(CallLostError) as lost:
        asyncio.run(ModalCalls({}).get("fc-1", 0))
    assert str(error) in str(lost.value.why)
