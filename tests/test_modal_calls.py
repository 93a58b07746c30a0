"""What the gateway makes of a Modal that does not answer."""

import asyncio
from types import SimpleNamespace
from typing import Any

import modal
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from templates.gateway.backend import BackendUnavailableError, Failure
from templates.gateway.modal_backend import CallLostError
from templates.gateway.modal_calls import ModalCalls, ModalLists, ModalTable

FAULTS = [
    StreamTerminatedError("Connection lost"),
    GRPCError(Status.UNAVAILABLE),
    modal.exception.ConnectionError("no way"),
]


class Failing:
    """An object of Modal's whose methods all raise."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, _: str) -> Any:
        async def method(*_: object, **__: object) -> None:
            raise self.error

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
