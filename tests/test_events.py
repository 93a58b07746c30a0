"""What callers hear of jobs: what is told and left out, and what listeners cost and leave behind."""

import asyncio
import gc
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
)
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from build.client import Client
from build.client_core import Progress as Shown
from generator.ports import free_port
from generator.preview.folders import Folders
from generator.preview.schemas import Schemas
from generator.preview.server import Server, serving
from templates.gateway.backend import JobEvent
from templates.gateway.events import EventLog, Narrator, Told
from templates.utils.comfyui_protocol import to_be_run
from templates.utils.comfyui_records import (
    Cached,
    EngineInfo,
    Event,
    NodeOutput,
    NodeStarted,
    NodeText,
    Planned,
    Preview,
    Progress,
    Queued,
    Started,
)

from .api_client import (
    CATALOG,
    MODELS,
    SECONDS,
    Service,
    asked,
    listening,
    new_app,
    part,
    serve,
)

INFO = EngineInfo("0.3.71", "cuda:0 NVIDIA L40S : cudaMallocAsync", 1, 1, preview=False)
PICTURE = Preview("4", "image/jpeg", b"\xff\xd8\xff")
SLOW = {"prompt": "a red fox", "width": 64, "height": 64, "steps": 50}
Body = dict[str, Any]


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def narrator(clock: Clock | None = None, info: EngineInfo | None = INFO) -> Narrator:
    return Narrator(lambda: info, {"L40S": 0.1}, step_seconds=0.25, clock=clock or Clock())


def told(events: list[Event], teller: Narrator | None = None) -> list[tuple[str, Body]]:
    teller = teller or narrator()
    lines = [line for event in events if (line := teller.tell(event))]
    return [(line.name, json.loads(line.data)) for line in lines]


# What is told


def test_what_callers_are_told_of_a_run() -> None:
    events: list[Event] = [
        *(Queued(1), Started(5.0), Cached(("1",)), Planned(("2", "3"))),
        *(NodeStarted("2", "KSampler", "Füchse"), Progress("2", 1.0, 4.0)),
        *(PICTURE, NodeText("2", "at work"), NodeOutput("3", ("images",))),
        *(NodeStarted("3", "SaveImage", "SaveImage"), NodeStarted("3.0.1", "", "3.0.1")),
    ]
    fox = {"node": "2", "class_type": "KSampler", "title": "Füchse", "done": 0, "of": 2}
    assert told(events) == [
        ("queued", {"position": 1}),
        ("started", {"gpu": "L40S", "engine": "comfyui/0.3.71"}),
        ("cached", {"nodes": ["1"]}),
        ("node", fox),
        ("progress", {"node": "2", "value": 1, "max": 4}),
        (
            "node",
            {**dict.fromkeys(("class_type", "title"), "SaveImage"), "node": "3"}
            | {"done": 1, "of": 2},
        ),
        # A node that another expands to was in nobody's plan.
        ("node", {"node": "3.0.1", "class_type": "", "title": "3.0.1", "done": 2, "of": 3}),
    ]


def test_what_is_not_known_is_null() -> None:
    events: list[Event] = [Started(1.0), NodeStarted("1", "A", "A")]
    started, node = told(events, narrator(info=None))
    assert started == ("started", {"gpu": None, "engine": None})
    assert node[1]["of"] is None


def test_a_run_that_starts_again_counts_anew() -> None:
    begun: list[Event] = [Started(1.0), Planned(("1", "2")), NodeStarted("1", "A", "A")]
    nodes = [data for name, data in told([*begun, *begun]) if name == "node"]
    assert [node["done"] for node in nodes] == [0, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e308, 0.5])
def test_odd_numbers_are_json(value: float) -> None:
    line = narrator().tell(Progress("1", value, 4.0))
    assert line is not None
    json.loads(line.data, parse_constant=pytest.fail)


@pytest.mark.parametrize("text", ["a\nb", "\r\n\r\nid: 9", "\u2028", "\x85", "\ud800", "é"])
def test_no_text_of_a_node_ends_a_line(text: str) -> None:
    line = narrator().tell(NodeStarted(text, text, text))
    assert line is not None
    assert line.data.isascii()
    assert len(line.data.splitlines()) == 1
    assert json.loads(line.data)["title"] == text


def test_fast_steps_are_left_out_but_the_last() -> None:
    clock = Clock()
    teller = narrator(clock)
    values: list[int] = []
    for step in range(1, 101):
        clock.now += 0.02
        if line := teller.tell(Progress("4", step, 100)):
            values.append(json.loads(line.data)["value"])
    assert values[0] == 1
    assert values[-1] == 100
    assert all(b - a >= 12 for a, b in pairwise(values[:-1]))
    # Another node's first is told at once.
    assert teller.tell(Progress("5", 1, 100)) is not None


def test_slow_steps_are_all_told() -> None:
    clock = Clock()
    teller = narrator(clock)
    for step in range(1, 51):
        clock.now += 1.0
        assert teller.tell(Progress("4", step, 50)) is not None


@pytest.mark.parametrize("hostile", ["steps", "restarts", "nodes", "queued"])
def test_no_run_has_more_events_than_modal_keeps(hostile: str) -> None:
    """A day of ten steps a second, and runs that tell without end."""
    clock = Clock()
    teller = narrator(clock)
    count = 0
    for number in range(864_000 if hostile == "steps" else 20_000):
        clock.now += 0.1
        event: Event = Progress("4", number, 1_000_000)
        if hostile == "restarts":
            event = Progress("4", number % 2, 1)
        elif hostile == "nodes":
            event = NodeStarted(str(number), "A", "A")
        elif hostile == "queued":
            event = Queued(number)
        count += teller.tell(event) is not None
    assert 1000 < count < 5000


def test_names_of_callers_do_not_make_a_log_large() -> None:
    """A caller chooses the ids of the nodes of its graph, and each step is told with one."""
    clock, log = Clock(), EventLog()
    teller = narrator(clock)
    for number in range(1000):
        clock.now += 1
        if line := teller.tell(Progress("x" * 100_000, number, 1000)):
            log.add(line)
    assert 10 < len(log) < 25
    assert 1_000_000 < log.size < 2_010_000


GRAPH: Body = {
    "1": {"class_type": "Load", "inputs": {"name": "x", "size": [1, 2, 3]}},
    "2": {"class_type": "Encode", "inputs": {"clip": ["1", 1]}},
    "3": {"class_type": "Encode", "inputs": {"clip": ["1", 1]}},
    "4": {"class_type": "Sample", "inputs": {"positive": ["2", 0], "noise": ["9", 0]}},
    "5": {"class_type": "Save", "inputs": {"images": ["4", 0], "with": {"a": ["3", 0]}}},
    "6": {"class_type": "Save"},
}


@pytest.mark.parametrize(
    ("cached", "wanted"),
    [
        ([], "12456"),
        (["1"], "2456"),
        # What only a cached node needs is not run.
        (["2"], "456"),
        (["4", "3"], "56"),
        (list("123456"), ""),
    ],
)
def test_which_nodes_are_to_be_run(cached: list[str], wanted: str) -> None:
    assert to_be_run(GRAPH, {"Save"}, cached) == tuple(wanted)


def test_a_long_or_circular_graph_is_no_trouble() -> None:
    graph = {str(n): {"class_type": "A", "inputs": {"x": [str(n + 1), 0]}} for n in range(10_000)}
    graph["9999"]["inputs"] = {"x": ["0", 0]}
    graph["0"]["class_type"] = "Save"
    assert len(to_be_run(graph, {"Save"}, ())) == 10_000
    assert to_be_run({"1": "no node"}, {"Save"}, ()) == ()


# Listeners


def log_of(*values: int) -> EventLog:
    log = EventLog()
    for value in values:
        log.add(Told("progress", str(value)))
    return log


async def heard(log: EventLog, after: int = 0, *, previews: bool = False) -> list[JobEvent]:
    async with aclosing(log.listen(after, previews=previews)) as events:
        return [event async for event in events]


def test_late_listeners_hear_what_early_ones_heard() -> None:
    async def test() -> None:
        log = log_of(1)
        early = [asyncio.create_task(heard(log, after)) for after in (0, 1, 3, 99)]
        await asyncio.sleep(0)
        for value in (2, 3):
            log.add(Told("progress", str(value)))
            await asyncio.sleep(0)
        log.close()
        whole = await heard(log)
        assert [event.number for event in whole] == [1, 2, 3, 4]
        assert [await task for task in early] == [whole, whole[1:], whole[3:], []]

    asyncio.run(test())


def test_a_slow_listener_costs_no_memory() -> None:
    """It reads what all read, at its own pace; of previews it gets the newest."""

    async def test() -> None:
        log = EventLog()
        async with aclosing(log.listen(0, previews=True)) as events:
            await anext(events)
            for number in range(100):
                log.show(Preview("4", "image/jpeg", bytes(100_000) + str(number).encode()))
            gc.collect()
            kept = [found for found in gc.get_objects() if isinstance(found, Preview)]
            assert sum(len(preview.data) > 10_000 for preview in kept) == 1
            shown = await anext(events)
            assert shown.number is None
            assert b64decode(json.loads(shown.data)["data"]).endswith(b"99")
            log.show(Preview("4", "image/jpeg", bytes(500_001)))
            log.add(Told("progress", "1"))
            assert (await anext(events)).name == "progress"
            log.close()
            assert [event async for event in events] == []

    asyncio.run(test())


def test_previews_come_no_faster_than_they_can_be_seen() -> None:
    async def test() -> None:
        log = EventLog()
        listening = [asyncio.create_task(heard(log, previews=True)) for _ in range(2)]
        for number in range(50):
            log.show(Preview("4", "image/jpeg", bytes([number])))
            await asyncio.sleep(0.01)
        # The newest comes when it is due, though nothing else happens.
        await asyncio.sleep(0.3)
        log.close()
        for task in listening:
            pictures = [json.loads(e.data) for e in await task if e.name == "preview"]
            assert 3 <= len(pictures) <= 6
            assert pictures[-1]["data"] == b64encode(bytes([49])).decode()

    asyncio.run(test())


def test_a_listener_leaves_nothing_behind() -> None:
    async def test() -> None:
        log = EventLog()
        tasks = [asyncio.create_task(heard(log)) for _ in range(50)]
        await asyncio.sleep(0.01)
        assert len(log._wakers) == 50
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not log._wakers

    asyncio.run(test())


# The stream


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], None]:
    """Return a function that sets one of the stream's times."""

    def change(name: str, seconds: float) -> None:
        monkeypatch.setattr(part("build", "gateway.event_stream"), name, seconds)

    return change


@asynccontextmanager
async def open_stream(client: httpx.AsyncClient, job: str) -> AsyncIterator[AsyncIterator[str]]:
    async with client.stream("GET", f"/jobs/{job}/events") as reply:
        assert reply.status_code == 200
        yield reply.aiter_lines()


def with_server(
    base: Path, test: Callable[[Service, httpx.AsyncClient], Any], **options: Any
) -> None:
    """Run a test with a service, and a client that asks it through a socket."""

    async def run(service: Service) -> None:
        async with (
            listening(service.app) as url,
            httpx.AsyncClient(base_url=url, timeout=SECONDS) as client,
        ):
            await test(service, client)

    serve(base, run, **options)


def names(lines: list[str]) -> list[str]:
    return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]


def log_of_job(service: Service, job: str) -> Any:
    return service.backend.backend._entry(job).log


def tasks_of_requests() -> list[str]:
    """Return the tasks of requests that are not answered yet, by what they do."""
    parts = ("run_asgi", "_gone", "_send_all", "async_generator", "anext")
    tasks = [repr(task.get_coro()) for task in asyncio.all_tasks()]
    return [task for task in tasks if any(part in task for part in parts)]


async def left_by_listeners(log: EventLog) -> None:
    """Wait until nobody listens, and nothing of those who did is left."""
    async with asyncio.timeout(SECONDS / 2):
        while log._wakers or tasks_of_requests():
            await asyncio.sleep(0.01)


def test_heartbeats(tmp_path: Path, stream: Callable[[str, float], None]) -> None:
    """A comment while nothing happens, which no reader takes for an event."""
    stream("_HEARTBEAT_SECONDS", 0.05)

    async def test(service: Service, client: httpx.AsyncClient) -> None:
        first = await service.started("/flux", SLOW)
        second = await service.started("/flux", SLOW)
        async with open_stream(client, second) as lines:
            beats = 0
            async for line in lines:
                beats += line == ": still here"
                if beats == 3:
                    break
        for job in (first, second):
            await client.delete(f"/jobs/{job}")

    with_server(tmp_path, test, pace=0.3)


def test_a_stream_ends_and_is_gone_on_with(
    tmp_path: Path, stream: Callable[[str, float], None]
) -> None:
    stream("_LONGEST_STREAM", 0.3)

    async def test(service: Service, client: httpx.AsyncClient) -> None:
        job = await service.started("/flux", SLOW)
        parts: list[list[str]] = []
        while not parts or names(parts[-1])[-1:] != ["end"]:
            ids = [line for lines in parts for line in lines if line.startswith("id: ")]
            after = ids[-1].removeprefix("id: ") if ids else "0"
            reply = await client.get(f"/jobs/{job}/events", headers={"Last-Event-ID": after})
            parts.append(reply.text.splitlines())
        assert len(parts) > 2
        again = await client.get(f"/jobs/{job}/events")
        wanted = names(again.text.splitlines())
        assert [name for lines in parts for name in names(lines)] == wanted

    with_server(tmp_path, test, pace=0.02)


def test_the_client_listens(tmp_path: Path) -> None:
    """Of the service that is rendered with it: the events as they come, and progress from them."""

    async def test(service: Service, client: httpx.AsyncClient) -> None:
        job = await service.started("/flux", SLOW)
        seen: list[Shown] = []

        def listen() -> tuple[list[Any], Any]:
            with Client(str(client.base_url)) as own:
                events = list(own.events(job, previews=True))
                reply = own.flux(prompt="a fox", width=64, height=64, on_progress=seen.append)
                return events, reply

        events, reply = await asyncio.to_thread(listen)
        assert reply.media_type == "image/png"
        assert {"queued", "started", "node", "progress", "preview", "output"} < {
            event.name for event in events
        }
        ids = [event.id for event in events if event.id is not None]
        assert ids == list(range(1, len(ids) + 1))
        found = (await client.get(f"/jobs/{job}")).json()
        assert (events[-1].name, events[-1].data) == ("end", found)
        assert [progress.status for progress in seen[:1]] == ["queued"]
        assert seen[-1].status == "running"
        assert any(progress.value == progress.max for progress in seen if progress.value)

    with_server(tmp_path, test, pace=0.02, previews=True)


def test_a_run_that_is_sent_again_is_told_again(tmp_path: Path) -> None:
    """An engine that ends in mid-run is no end of the job."""
    folders = Folders(tmp_path)
    folders.make()
    for model in MODELS:
        folders.add_model(model)
    port = free_port()

    def engine() -> AbstractAsyncContextManager[str]:
        return serving(Server(Schemas(CATALOG, folders), folders, pace=0.05), port)

    async def test() -> None:
        backend = part("build", "gateway.local").LocalBackend(f"http://127.0.0.1:{port}")
        async with AsyncExitStack() as first, asyncio.timeout(SECONDS):
            await first.enter_async_context(engine())
            async with backend, asked(new_app("build", backend)) as client:
                prefer = {"Prefer": "respond-async"}
                job = (await client.post("/flux", json=SLOW, headers=prefer)).json()["job"]
                async with aclosing(backend.events(job, 0)) as events:
                    while (await anext(events)).name != "progress":
                        pass
                    await first.aclose()
                    async with engine():
                        told = [event.name async for event in events]
                assert told.count("started") == 1
                assert (told.count("end"), told[-1]) == (1, "end")
                reply = await client.get(f"/jobs/{job}")
                assert reply.json()["status"] == "succeeded"

    asyncio.run(test())


def test_fifty_listeners_and_what_they_leave_behind(tmp_path: Path) -> None:
    """All of them leave in the midst; the service is then as it was, and the job goes on."""

    async def test(service: Service, client: httpx.AsyncClient) -> None:
        job = await service.started("/flux", {**SLOW, "steps": 100})
        await service.until(job, "running")
        log = log_of_job(service, job)
        all_listen = asyncio.Barrier(50)

        async def listen() -> None:
            async with open_stream(client, job) as lines:
                async for line in lines:
                    if line == "event: progress":
                        await all_listen.wait()
                        return

        await asyncio.gather(*(listen() for _ in range(50)))
        await left_by_listeners(log)
        assert (
            part("build", "gateway.service").gateway_of(service.app).listening._taken.total() == 0
        )
        assert (await client.get(f"/jobs/{job}")).json()["status"] == "running"
        await client.delete(f"/jobs/{job}")

    with_server(tmp_path, test, pace=0.3)


def test_who_leaves_while_nothing_happens_leaves_nothing(tmp_path: Path) -> None:
    async def test(service: Service, client: httpx.AsyncClient) -> None:
        job = await service.started("/flux", SLOW)
        second = await service.started("/flux", SLOW)
        log = log_of_job(service, second)
        async with (
            httpx.AsyncClient(base_url=client.base_url) as own,
            open_stream(own, second) as lines,
        ):
            async for line in lines:
                if line == 'data: {"position": 1}':
                    break
            assert len(log._wakers) == 1
            assert len(tasks_of_requests()) >= 3
        await left_by_listeners(log)
        for one in (second, job):
            await client.delete(f"/jobs/{one}")

    with_server(tmp_path, test, pace=1)


def test_who_does_not_read_is_left(tmp_path: Path, stream: Callable[[str, float], None]) -> None:
    """A connection that stays open and full is given up when the stream's time is over."""
    stream("_LONGEST_STREAM", 1.0)

    async def test(service: Service, client: httpx.AsyncClient) -> None:
        job = await service.started("/flux", SLOW)
        log = log_of_job(service, job)
        for _ in range(4000):
            log.add(Told("node", json.dumps({"title": "x" * 4000})))
        host, port = client.base_url.host, client.base_url.port
        _, writer = await asyncio.open_connection(host, port, limit=1024)
        writer.write(b"GET /jobs/%s/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % job.encode())
        async with asyncio.timeout(SECONDS / 2):
            while not log._wakers:
                await asyncio.sleep(0.01)
        assert tasks_of_requests()
        await left_by_listeners(log)
        writer.transport.abort()
        # Its other end is closed a moment later.
        await asyncio.sleep(0.1)
        await client.delete(f"/jobs/{job}")

    with_server(tmp_path, test, pace=1)


@pytest.fixture(autouse=True)
def _no_warnings_from_the_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing of a listener that goes is a fault; only of one that does not read uvicorn complains."""
    yield
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert set(said) <= {"ASGI callable returned without completing response."}
