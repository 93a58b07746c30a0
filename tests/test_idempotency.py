"""Idempotency keys on Modal: who runs a job when gateways race, stall or die. And fingerprints."""

import asyncio
import base64
import json
import time
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from templates.gateway.backend import (
    BackendUnavailableError,
    Key,
    NotTakenError,
    Room,
    Status,
    Work,
    new_job_id,
)
from templates.gateway.claims import Claims
from templates.gateway.job_store import End, JobStore, Record
from templates.gateway.modal_backend import CallLostError, ModalBackend

from .api_client import FLUX, SMALL, Api, own_package, png, problem, running
from .test_modal_backend import LOST, SUCCEEDED, WORK, MemoryCalls, MemoryLists, MemoryTable, T

ROOM: Final = Room(10, 0)
KEY: Final = Key("a-key", "what is wanted")
OTHER: Final = Key("a-key", "something else")
LEASE: Final = 0.3


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 20))


class Stalling(MemoryCalls):
    """Calls of a gateway that stops on its way to a worker until it is let go."""

    def __init__(self, calls: MemoryCalls) -> None:
        super().__init__()
        self.calls = calls
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def spawn(self, work: Work) -> str:
        self.reached.set()
        await self.go_on.wait()
        return await self.calls.spawn(work)

    async def cancel(self, call: str) -> None:
        await self.calls.cancel(call)


class Modal:
    """The table and the calls that the gateways of an app share."""

    def __init__(self) -> None:
        self.calls, self.table = MemoryCalls(), MemoryTable()
        self.store = JobStore(self.table)

    def gateway(self, calls: MemoryCalls | None = None) -> ModalBackend:
        backend = ModalBackend(
            calls or self.calls, self.store, MemoryLists(), workers=[("l40s", "")]
        )
        backend._claims = Claims(self.store, lease=LEASE)
        return backend

    def runs(self) -> list[str]:
        """Return the jobs of the calls that nobody cancelled."""
        return [
            work.job
            for number, work in enumerate(self.calls.spawned, 1)
            if f"fc-{number}" not in self.calls.cancelled
        ]


def keyed(key: Key = KEY, owner: str = "ann") -> Work:
    """Return work as a request has it: each with an id of its own."""
    return replace(WORK, job=new_job_id(), key=key, owner=owner, created=time.time())


def test_gateways_that_race_run_one_job() -> None:
    async def test() -> None:
        modal = Modal()
        gateways = [modal.gateway() for _ in range(4)]
        jobs = await asyncio.gather(*(g.submit(keyed(), ROOM) for g in gateways for _ in range(5)))
        assert len(set(jobs)) == 1
        assert modal.runs() == [jobs[0]]
        for gateway in gateways:
            assert await gateway.keyed("ann", KEY) == jobs[0]
            assert await gateway.keyed("bob", KEY) is None
            with pytest.raises(NotTakenError) as refused:
                await gateway.keyed("ann", OTHER)
            assert refused.value.code == "idempotency-conflict"
            with pytest.raises(NotTakenError):
                await gateway.submit(keyed(OTHER), ROOM)
        assert await gateways[0].submit(keyed(owner="bob"), ROOM) != jobs[0]

    run(test())


async def died(modal: Modal) -> str:
    """Let a gateway take the key and die before it calls a worker; return its job."""
    stalling = Stalling(modal.calls)
    dying = asyncio.create_task(modal.gateway(stalling).submit(keyed(), ROOM))
    await stalling.reached.wait()
    before = dict(modal.table.entries)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    # A process that is killed tidies nothing up.
    modal.table.entries = before
    [claim] = [value for name, value in before.items() if name.startswith("key/")]
    job: str = claim.job
    return job


def test_a_gateway_that_dies_is_followed_by_one_other() -> None:
    """After its lease, which others wait for."""

    async def test() -> None:
        modal = Modal()
        job = await died(modal)
        start = time.monotonic()
        gateways = [modal.gateway() for _ in range(3)]
        jobs = await asyncio.gather(*(g.submit(keyed(), ROOM) for g in gateways for _ in range(3)))
        assert LEASE / 2 < time.monotonic() - start < 10 * LEASE
        assert set(jobs) == {job}
        assert len(modal.calls.spawned) == 1

    run(test())


def test_two_that_die_one_after_the_other() -> None:
    async def test() -> None:
        modal = Modal()
        first = await died(modal)
        stalling = Stalling(modal.calls)
        second = asyncio.create_task(modal.gateway(stalling).submit(keyed(), ROOM))
        await stalling.reached.wait()
        third = asyncio.create_task(modal.gateway().submit(keyed(), ROOM))
        assert await third == first
        # The second was alive after all.
        stalling.go_on.set()
        assert await second == first
        assert len(modal.runs()) == 1
        assert len(modal.calls.spawned) == 2

    run(test())


def test_a_key_of_a_dead_gateway_stands_for_its_request() -> None:
    async def test() -> None:
        modal = Modal()
        await died(modal)
        assert await modal.gateway().keyed("ann", OTHER) is None
        with pytest.raises(NotTakenError) as refused:
            await modal.gateway().submit(keyed(OTHER), ROOM)
        assert refused.value.code == "idempotency-conflict"

    run(test())


@pytest.mark.parametrize("skew", [3600.0, -3600.0])
def test_clocks_that_differ(skew: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease is never longer than it should be."""

    async def test() -> None:
        modal = Modal()
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + skew)
        job = await died(modal)
        monkeypatch.setattr(time, "time", now)
        start = time.monotonic()
        assert await modal.gateway().submit(keyed(), ROOM) == job
        assert time.monotonic() - start < 10 * LEASE

    run(test())


def test_a_gateway_that_cannot_call_lets_go_of_the_key() -> None:
    """The next request need not wait for the lease; it starts the same job."""

    async def test() -> None:
        modal = Modal()

        class Failing(MemoryCalls):
            async def spawn(self, work: Work) -> str:  # noqa: ARG002
                raise BackendUnavailableError("Modal does not answer")

        modal.calls.spawned = []
        work = keyed()
        with pytest.raises(BackendUnavailableError):
            await modal.gateway(Failing()).submit(work, ROOM)
        assert modal.table.entries["jobs/active"] == []
        start = time.monotonic()
        assert await modal.gateway().submit(keyed(), ROOM) == work.job
        assert time.monotonic() - start < LEASE / 2

    run(test())


class Late(MemoryTable):
    """A table that says of the first writes of a job that Modal does not answer."""

    def __init__(self, times: int, *, writes: bool) -> None:
        super().__init__()
        self.times = times
        self.writes = writes

    async def put(self, key: str, value: Any, *, skip_if_exists: bool = False) -> bool:
        is_late = key.startswith("job_") and "/" not in key and self.times > 0
        done = False
        if self.writes or not is_late:
            done = await super().put(key, value, skip_if_exists=skip_if_exists)
        if is_late:
            self.times -= 1
            raise BackendUnavailableError("Modal does not answer")
        return done


def test_a_job_whose_record_was_late_is_run() -> None:
    """The record was written; without its call, the key would stand for a failure."""

    async def test() -> None:
        modal = Modal()
        modal.table = Late(1, writes=True)
        modal.store = JobStore(modal.table)
        gateway, work = modal.gateway(), keyed()
        assert await gateway.submit(work, ROOM) == work.job
        assert modal.runs() == [work.job]
        assert await gateway.keyed("ann", KEY) == work.job

    run(test())


@pytest.mark.parametrize("writes", [True, False])
def test_a_job_that_nobody_is_told_of_is_found_by_its_key(writes: bool) -> None:
    """Its caller gets 503; it keeps its place and its call, and asking again brings no other run."""

    async def test() -> None:
        modal = Modal()
        modal.table = Late(2, writes=writes)
        modal.store = JobStore(modal.table)
        work = keyed()
        with pytest.raises(BackendUnavailableError):
            await modal.gateway().submit(work, ROOM)
        assert [entry[0] for entry in modal.table.entries["jobs/active"]] == [work.job]
        # Its worker notes it first.
        assert await modal.store.add(work.job, Record.of(work, "fc-1"))
        for gateway in (modal.gateway(), modal.gateway()):
            assert await gateway.keyed("ann", KEY) == work.job
            assert await gateway.submit(keyed(), ROOM) == work.job
            assert (await gateway.wait(work.job, 0)).status is Status.QUEUED
        assert modal.runs() == [work.job]
        assert modal.calls.cancelled == []

    run(test())


def test_a_job_that_may_run_keeps_its_key() -> None:
    """Also when asking again is refused: another request would get its outputs."""

    async def test() -> None:
        modal = Modal()
        modal.table = Late(2, writes=False)
        modal.store = JobStore(modal.table)
        gateway, work = modal.gateway(), keyed()
        with pytest.raises(BackendUnavailableError):
            await gateway.submit(work, ROOM)
        modal.table.entries["jobs/active"] = [("job_other", "ann", time.time())]
        with pytest.raises(NotTakenError) as refused:
            await gateway.submit(keyed(), Room(1, 0))
        assert refused.value.code == "queue-full"
        with pytest.raises(NotTakenError) as refused:
            await gateway.submit(keyed(OTHER), ROOM)
        assert refused.value.code == "idempotency-conflict"
        assert await gateway.submit(keyed(), ROOM) == work.job

    run(test())


def test_a_second_call_that_cannot_be_stopped(caplog: pytest.LogCaptureFixture) -> None:
    """Its worker turns it away; the job runs elsewhere, keeps its place, and is no 503."""

    class Unstoppable(Stalling):
        async def cancel(self, call: str) -> None:
            raise BackendUnavailableError(f"Modal does not answer for {call}")

    async def test() -> None:
        modal = Modal()
        stalling = Unstoppable(modal.calls)
        first = asyncio.create_task(modal.gateway(stalling).submit(keyed(), ROOM))
        await stalling.reached.wait()
        job = await modal.gateway().submit(keyed(), ROOM)
        stalling.go_on.set()
        assert await first == job
        assert [entry[0] for entry in modal.table.entries["jobs/active"]] == [job]
        assert (await modal.store.record(job)).call == "fc-1"

    run(test())
    assert "its second call is left to be turned away: Modal does not answer for" in caplog.text


def test_what_is_refused_leaves_the_key() -> None:
    async def test() -> None:
        modal = Modal()
        gateway = modal.gateway()
        await gateway.submit(replace(WORK, owner="ann"), Room(1, 0))
        with pytest.raises(NotTakenError) as refused:
            await gateway.submit(keyed(), Room(1, 0))
        assert refused.value.code == "queue-full"
        work = keyed(OTHER)
        assert await gateway.submit(work, ROOM) == work.job

    run(test())


def test_a_key_that_is_refused_often_is_as_quick() -> None:
    """Callers are told to ask again with the same key."""

    class Counting(MemoryTable):
        reads = 0

        async def get(self, key: str) -> Any:
            self.reads += 1
            return await super().get(key)

    async def test() -> None:
        modal = Modal()
        modal.table = table = Counting()
        modal.store = JobStore(table)
        gateway = modal.gateway()
        first = replace(WORK, owner="ann", job=new_job_id())
        await gateway.submit(first, Room(1, 0))
        reads: list[int] = []
        for _ in range(30):
            before = table.reads
            assert await gateway.keyed("ann", KEY) is None
            with pytest.raises(NotTakenError):
                await gateway.submit(keyed(), Room(1, 0))
            reads.append(table.reads - before)
        assert max(reads[2:]) == reads[2]
        work = keyed()
        assert await gateway.submit(work, ROOM) == work.job
        assert await gateway.keyed("ann", KEY) == work.job
        with pytest.raises(NotTakenError):
            await gateway.keyed("ann", OTHER)
        # Another gateway, and one that was told nothing of it.
        assert await modal.gateway().submit(keyed(), ROOM) == work.job
        [late] = [name for name in table.entries if name.endswith("/last")]
        del table.entries[late]
        assert await modal.gateway().submit(keyed(), ROOM) == work.job

    run(test())


def test_a_key_is_free_once_its_job_is_kept_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        modal = Modal()
        gateway = modal.gateway()
        first = await gateway.submit(keyed(), ROOM)
        now = time.time() + 7 * 24 * 3600 + 1
        monkeypatch.setattr(time, "time", lambda: now)
        assert await gateway.keyed("ann", KEY) is None
        second = await gateway.submit(replace(keyed(OTHER), created=now), ROOM)
        assert second != first
        assert await gateway.keyed("ann", OTHER) == second

    run(test())


# Places


@pytest.mark.parametrize("end", [SUCCEEDED, CallLostError(LOST)])
def test_a_job_gives_its_place_back(end: End | Exception) -> None:
    """Also one whose worker died, and could not say so."""

    async def test() -> None:
        modal = Modal()
        room = Room(2, 0)
        gateways = [modal.gateway(), modal.gateway()]
        for gateway in gateways:
            await gateway.submit(keyed(Key(new_job_id(), "")), room)
        with pytest.raises(NotTakenError):
            await gateways[0].submit(keyed(), room)
        modal.calls.ends["fc-1"] = end
        assert await gateways[1].submit(keyed(), room)
        with pytest.raises(NotTakenError):
            await modal.gateway().submit(keyed(OTHER._replace(text="b")), room)

    run(test())


def test_a_place_that_was_never_used() -> None:
    """Its gateway died before it called a worker; after a minute somebody else has it."""

    async def test() -> None:
        modal = Modal()
        room = Room(1, 0)
        modal.table.entries["jobs/active"] = [(new_job_id(), "ann", time.time())]
        with pytest.raises(NotTakenError):
            await modal.gateway().submit(WORK, room)
        [entry] = modal.table.entries["jobs/active"]
        modal.table.entries["jobs/active"] = [(*entry[:2], time.time() - 61)]
        assert await modal.gateway().submit(WORK, room) == WORK.job

    run(test())


def test_many_requests_to_one_gateway_count_exactly() -> None:
    async def test() -> None:
        modal = Modal()
        gateway = modal.gateway()
        works = [replace(WORK, job=new_job_id(), owner=owner) for owner in ("ann", "bob") * 20]
        results = await asyncio.gather(
            *(gateway.submit(work, Room(10, 4)) for work in works), return_exceptions=True
        )
        taken = [
            work.owner for work, found in zip(works, results, strict=True) if found == work.job
        ]
        assert sorted(taken) == ["ann"] * 4 + ["bob"] * 4
        found = await gateway.wait(modal.calls.spawned[0].job, 0)
        assert found.status is Status.QUEUED

    run(test())


# Fingerprints


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("idempotency")
    own = own_package(folder, "idempotent_package")
    with running(folder / "base", package=own) as found:
        yield found


def ask(api: Api, path: str, key: str, **sent: Any) -> Any:
    return api.post(path, headers={"Idempotency-Key": key, "Prefer": "respond-async"}, **sent)


def test_uploads_count_by_their_bytes(api: Api) -> None:
    red, blue = png(), png(color="blue")
    body = {"resolution": "64"}

    def upscaled(data: bytes, name: str = "a.png") -> Any:
        return ask(api, "/seedvr2", "picture", files={"image": (name, data)}, data=body)

    first, again = upscaled(red), upscaled(red, "another-name.png")
    assert first.status_code == 202, first.text
    assert again.json()["job"] == first.json()["job"]
    problem(upscaled(blue), 409, "idempotency-conflict")


def test_files_of_a_graph_count(api: Api) -> None:
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }

    def sent(data: bytes) -> Any:
        files = [
            ("workflow", ("graph.json", json.dumps(graph).encode())),
            ("files", ("a.png", data)),
        ]
        return ask(api, "/workflow", "graph", files=files)

    first, again = sent(png()), sent(png())
    assert first.status_code == 202, first.text
    assert again.json()["job"] == first.json()["job"]
    problem(sent(png(color="blue")), 409, "idempotency-conflict")


def test_a_url_is_not_fetched_again(api: Api) -> None:
    """What it leads to may be gone by then; nothing answers at this one at all."""
    url = "http://127.0.0.1:1/picture.png"
    problem(ask(api, "/seedvr2", "url", body={"image": url}), 422, "bad-media")
    made = ask(api, "/seedvr2", "text", body={"image": _data_uri()})
    assert made.status_code == 202
    works = len(api.works)
    again = ask(api, "/seedvr2", "text", body={"image": _data_uri()})
    assert again.json()["job"] == made.json()["job"]
    assert len(api.works) == works


def test_params_count_as_they_are_given(api: Api) -> None:
    first = ask(api, "/flux", "flux", body=FLUX)
    for body in (
        {**FLUX, "cfg": 2},
        {**FLUX, "seed": first.json()["seed"]},
        {**SMALL, "prompt": ""},
    ):
        reply = ask(api, "/flux", "flux", body=body)
        assert reply.status_code in (409, 422), reply.text
    number = ask(api, "/flux", "cfg", body={**FLUX, "cfg": 1})
    again = ask(api, "/flux", "cfg", body={**FLUX, "cfg": 1.0})
    assert again.json()["job"] == number.json()["job"]


def test_a_key_is_kept_as_long_as_its_job(tmp_path: Path) -> None:
    with running(tmp_path, keep_jobs=2) as api:
        body = {**FLUX, "seed": 1}
        headers = {"Idempotency-Key": "kept"}
        first = api.post("/flux", body, headers=headers)
        assert (
            api.post("/flux", body, headers=headers).headers["x-job-id"]
            == (first.headers["x-job-id"])
        )
        for seed in (2, 3):
            api.post("/flux", {**FLUX, "seed": seed})
        other = api.post("/flux", {**FLUX, "seed": 9}, headers=headers)
        assert other.status_code == 200
        problem(api.get(f"/jobs/{first.headers['x-job-id']}"), 404, "unknown-job")


def _data_uri() -> str:
    return "data:image/png;base64," + base64.b64encode(png()).decode()
