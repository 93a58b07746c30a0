"""Events on Modal against lists, calls and a table of this process: who reads, and what is left."""

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from templates.gateway import events, modal_events
from templates.gateway.backend import (
    BackendUnavailableError,
    JobEvent,
    Status,
    UnknownJobError,
)
from templates.gateway.events import Narrator
from templates.gateway.modal_backend import CallLostError, ModalBackend
from templates.gateway.modal_events import EventWriter
from templates.utils.comfyui_records import Event, NodeStarted, Preview, Progress, Queued, Started

from .test_modal_backend import FAILED, JOB, LOST, ROOM, SUCCEEDED, WORK, Modal, run

PICTURES = [Preview("4", "image/jpeg", b"\xff\xd8\xff" + bytes([n])) for n in range(3)]
RUN: list[Event] = [Queued(0), Started(1.0), NodeStarted("4", "A", "A"), Progress("4", 1.0, 2.0)]
NAMES = ["queued", "queued", "started", "node", "progress", "end"]


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TELL_SECONDS", "_PREVIEW_SECONDS", "_RETRY_SECONDS", "_HOLD_SECONDS"):
        monkeypatch.setattr(modal_events, name, 0.01)
    monkeypatch.setattr(events, "_PREVIEW_SECONDS", 0.01)


def writer(modal: Modal) -> EventWriter:
    return EventWriter(modal.lists, modal.store, JOB, Narrator(lambda: None, {}))


async def heard(backend: ModalBackend, after: int = 0, *, previews: bool = False) -> list[JobEvent]:
    async with aclosing(backend.events(JOB, after, previews=previews)) as events:
        return [event async for event in events]


def names(events: list[JobEvent]) -> list[str]:
    return [event.name for event in events]


async def until(found: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not found():
            await asyncio.sleep(0.002)


def tasks() -> list[str]:
    """Return the tasks of events."""
    found = [repr(task.get_coro()) for task in asyncio.all_tasks()]
    return [task for task in found if "Event" in task or "Lists" in task]


def test_all_gateways_tell_the_same_and_read_once_each() -> None:
    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        one, other = modal.backend, modal.gateway()
        early = [asyncio.create_task(heard(gateway)) for gateway in (one, one, other) * 10]
        teller = writer(modal)
        for event in RUN[:2]:
            teller.take(event)
        await until(lambda: modal.lists.items.get(JOB))
        late = asyncio.create_task(heard(other, 2))
        await asyncio.sleep(0.05)
        assert modal.lists.reading == 2
        for event in RUN[2:]:
            teller.take(event)
        await teller.finish()
        await modal.work(SUCCEEDED)
        first, *others = await asyncio.gather(*early)
        assert names(first) == NAMES
        assert [event.number for event in first] == [1, 2, 3, 4, 5, 6]
        assert first[-1].job is not None
        assert first[-1].job.result == SUCCEEDED.result
        assert all(events == first for events in others)
        assert await late == first[2:]
        # Afterwards too, by whoever asks.
        assert await heard(modal.gateway()) == first
        await until(lambda: not tasks())
        assert modal.lists.reading == 0

    run(test())


def test_who_leaves_leaves_nothing_behind() -> None:
    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        listening = [
            asyncio.create_task(heard(modal.backend, previews=previews))
            for previews in (False, True, True)
        ]
        await until(lambda: modal.lists.reading == 1)
        assert len(tasks()) >= 3
        for one in listening:
            one.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        await until(lambda: not tasks())
        assert modal.lists.reading == 0
        # Whoever comes then is told all the same.
        await modal.work(FAILED)
        assert names(await heard(modal.backend)) == ["queued", "end"]

    run(test())


@pytest.mark.parametrize("end", ["lost", "cancelled", "failed"])
def test_the_end_comes_whatever_became_of_the_worker(end: str) -> None:
    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        teller = writer(modal)
        teller.take(RUN[0])
        listening = asyncio.create_task(heard(modal.backend))
        await until(lambda: modal.lists.items.get(JOB))
        teller.stop()
        if end == "lost":
            modal.calls.ends["fc-1"] = CallLostError(LOST)
        elif end == "cancelled":
            await modal.backend.cancel(JOB)
        else:
            await modal.work(FAILED)
        *_, last = await listening
        assert last.job is not None
        wanted = Status.CANCELLED if end == "cancelled" else Status.FAILED
        assert (last.name, last.job.status) == ("end", wanted)
        if end == "lost":
            assert last.job.failure == LOST

    run(test())


def test_a_job_whose_events_are_kept_no_longer() -> None:
    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        await modal.work(SUCCEEDED)
        for after, wanted in ((0, ["queued", "end"]), (1, ["end"]), (40, ["end"])):
            assert names(await heard(modal.backend, after)) == wanted

    run(test())


def test_unknown_jobs() -> None:
    async def test() -> None:
        modal = Modal()
        with pytest.raises(UnknownJobError):
            await heard(modal.backend)
        await until(lambda: not tasks())

    run(test())


def test_lists_that_do_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    """What is not told then is told later, if not too late; no run and no end suffers from it."""

    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        teller = writer(modal)
        listening = asyncio.create_task(heard(modal.backend))
        modal.lists.error = BackendUnavailableError("Modal does not answer")
        teller.take(RUN[0])
        await until(lambda: "not all of it is told" in caplog.text)
        await until(lambda: "is not known now" in caplog.text)
        modal.lists.error = None
        teller.take(RUN[1])
        await until(lambda: modal.lists.items.get(JOB))
        modal.lists.error = BackendUnavailableError("Modal does not answer")
        teller.take(RUN[2])
        await teller.finish()
        await modal.work(SUCCEEDED)
        # It listens until then, or it reads what is there at the end.
        assert names(await listening) in (["queued", "queued", "started", "end"], ["queued", "end"])
        await until(lambda: not tasks())

    run(test())


def test_a_backend_that_does_not_answer() -> None:
    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        modal.calls.ends["fc-1"] = BackendUnavailableError("Modal does not answer")
        with pytest.raises(BackendUnavailableError):
            await heard(modal.backend)
        await until(lambda: not tasks())
        del modal.calls.ends["fc-1"]
        await modal.work(SUCCEEDED)
        assert names(await heard(modal.backend)) == ["queued", "end"]

    run(test())


def test_previews_are_told_to_whoever_wants_them_and_not_kept() -> None:
    async def test() -> None:
        modal = Modal()
        await modal.backend.submit(WORK, ROOM)
        teller = writer(modal)
        plain = asyncio.create_task(heard(modal.backend))
        teller.take(PICTURES[0])
        await asyncio.sleep(0.1)
        assert f"{JOB}/preview" not in modal.table.entries
        shown = asyncio.create_task(heard(modal.backend, previews=True))
        await until(lambda: f"{JOB}/watched" in modal.table.entries)
        for picture in PICTURES:
            teller.take(picture)
            await until(lambda: modal.table.entries.get(f"{JOB}/preview") == picture)  # noqa: B023
            await asyncio.sleep(0.05)
        await teller.finish()
        assert modal.table.entries[f"{JOB}/preview"] is None
        await modal.work(SUCCEEDED)
        pictures = [event for event in await shown if event.name == "preview"]
        assert len(pictures) == len(PICTURES)
        assert {event.number for event in pictures} == {None}
        data: dict[str, Any] = json.loads(pictures[-1].data)
        assert (data["node"], data["media_type"], data["data"]) == ("4", "image/jpeg", "/9j/Ag==")
        assert names(await plain) == ["queued", "end"]
        await until(lambda: not tasks())

    run(test())


def test_steps_are_told_together() -> None:
    """A request of Modal for each would take longer than the steps do."""

    async def test() -> None:
        modal = Modal()
        adds: list[int] = []
        add = modal.lists.add

        async def counted(key: str, items: Any) -> None:
            adds.append(len(items))
            await add(key, items)

        modal.lists.add = counted  # type: ignore[method-assign]
        teller = writer(modal)
        for number in range(50):
            teller.take(NodeStarted(str(number), "A", "A"))
        await teller.finish()
        assert adds == [50]

    run(test())
