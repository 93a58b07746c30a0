"""The engine client against a real ComfyUI: what it makes, refuses, loses and survives."""

import asyncio
import io
import random
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from templates.utils.comfyui import Engine
from templates.utils.comfyui_errors import (
    EngineFailed,
    EngineInterrupted,
    EngineOutputError,
    EngineRefused,
    EngineStartError,
    EngineTimeout,
)
from templates.utils.comfyui_files import Directories
from templates.utils.comfyui_process import EngineProcess
from templates.utils.comfyui_records import (
    Cached,
    Event,
    File,
    NodeOutput,
    NodeStarted,
    NodeText,
    Preview,
    Progress,
    Queued,
    Run,
    Started,
    Text,
)
from tests.engine.conftest import Installed

Graph = dict[str, Any]

# A source of colours that no test shares with another, so that nothing is cached by accident.
colours = iter(random.sample(range(2**24), 5000))


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def empty(colour: int | None = None, size: int = 32) -> dict[str, Any]:
    colour = next(colours) if colour is None else colour
    return node("EmptyImage", width=size, height=size, batch_size=1, color=colour)


def still(colour: int | None = None) -> Graph:
    return {
        "1": empty(colour),
        "2": node("SaveImage", images=["1", 0], filename_prefix="any/where"),
    }


def slow(seconds: float, *, steps: int = 20, preview: bool = False, colour: int = 0) -> Graph:
    return {
        "1": empty(colour),
        "2": node(
            "ProbeSleep", image=["1", 0], steps=steps, seconds=seconds / steps, preview=preview
        ),
        "3": node("SaveImage", images=["2", 0], filename_prefix="slow"),
    }


def go(body: Callable[[], Awaitable[None]]) -> None:
    """Run a test's body, and see that it leaves no task behind."""

    async def main() -> None:
        async with asyncio.timeout(150):
            await body()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left

    asyncio.run(main())


def with_client(engine: Installed, body: Callable[[Engine], Awaitable[None]]) -> None:
    """Run a test's body with a client, and see that nothing of its runs is left on disk."""

    async def main() -> None:
        async with Engine(engine.url, engine.directories) as client:
            await body(client)
        assert not [*engine.directories.output.iterdir()]
        assert not [path for path in engine.directories.input.rglob("*") if path.is_file()]

    go(main)


def picture(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def rgb(colour: int) -> tuple[int, int, int]:
    return colour >> 16, colour >> 8 & 255, colour & 255


def only_file(run: Run) -> File:
    (file,) = run.files
    return file


async def started(events: list[Event]) -> None:
    while not any(isinstance(event, Started) for event in events):
        await asyncio.sleep(0.01)


async def idle(client: Engine) -> None:
    """Wait until the engine's queue is empty, and fail when it stays full."""
    for _ in range(200):
        queue = await client._get("queue")
        if not queue["queue_running"] and not queue["queue_pending"]:
            return
        await asyncio.sleep(0.05)
    pytest.fail("the engine still works")


def test_the_engine_says_what_it_is(engine: Installed) -> None:
    async def body(client: Engine) -> None:
        info = await client.probe()
        assert (info.version, info.device, info.preview) == ("0.3.75", "cpu", False)
        assert info.vram_total > info.vram_free > 0
        classes = await client.classes()
        assert classes["SaveImage"]["output_node"] is True
        assert await client.models("loras") == []
        with pytest.raises(LookupError, match="no model folder 'nothing'"):
            await client.models("nothing")

    with_client(engine, body)


def test_a_png_with_times_and_events(engine: Installed) -> None:
    async def body(client: Engine) -> None:
        events: list[Event] = []
        graph = still(0x336699)
        graph["2"]["_meta"] = {"title": "Save it"}
        run = await client.run(graph, job="job_png", on_event=events.append)
        file = only_file(run)
        assert (file.node, file.kind, file.media_type) == ("2", "images", "image/png")
        assert (file.filename, file.animated) == ("where_00001_.png", False)
        image = picture(file.data)
        assert (image.size, image.getpixel((3, 3))) == ((32, 32), rgb(0x336699))
        assert 0 <= run.execution_seconds < 5
        assert abs(run.started - time.time()) < 60
        assert run.queue_seconds >= 0
        assert events[:2] == [Queued(0), Started(run.started)]
        assert NodeStarted("2", "SaveImage", "Save it") in events
        assert events[-1] == NodeOutput("2", ("images",))
        assert graph["2"]["inputs"]["filename_prefix"] == "any/where"

    with_client(engine, body)


def frames(**save: Any) -> Graph:
    return {
        "1": empty(),
        "2": empty(),
        "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
        "4": node("CreateVideo", images=["3", 0], fps=2.0),
        "5": save,
    }


@pytest.mark.parametrize(
    ("save", "media_type", "extension"),
    [
        (
            node(
                "SaveAnimatedWEBP",
                images=["3", 0],
                filename_prefix="x",
                fps=2.0,
                lossless=True,
                quality=80,
                method="default",
            ),
            "image/webp",
            ".webp",
        ),
        (
            node("SaveVideo", video=["4", 0], filename_prefix="x", format="mp4", codec="h264"),
            "video/mp4",
            ".mp4",
        ),
        (
            node("SaveWEBM", images=["3", 0], filename_prefix="x", codec="vp9", fps=2.0, crf=32.0),
            "video/webm",
            ".webm",
        ),
    ],
)
def test_moving_pictures(
    engine: Installed, save: dict[str, Any], media_type: str, extension: str
) -> None:
    async def body(client: Engine) -> None:
        file = only_file(await client.run(frames(**save), job="job_moves"))
        assert (file.media_type, file.animated, file.kind) == (media_type, True, "images")
        assert file.filename.endswith(extension)
        if media_type == "image/webp":
            assert getattr(picture(file.data), "n_frames", 1) == 2
        else:
            assert len(file.data) > 500

    with_client(engine, body)


def test_a_picture_in(engine: Installed) -> None:
    def png(colour: str) -> bytes:
        data = io.BytesIO()
        Image.new("RGB", (16, 8), colour).save(data, "PNG")
        return data.getvalue()

    graph = {
        "1": node("LoadImage", image="in.png"),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["2", 0], filename_prefix="x"),
    }

    async def body(client: Engine) -> None:
        for number, colour in enumerate(("red", "blue")):
            run = await client.run(graph, job=f"job_in_{number}", files={"in.png": png(colour)})
            image = picture(only_file(run).data)
            expected = {"red": (0, 255, 255), "blue": (255, 255, 0)}[colour]
            assert (image.size, image.getpixel((0, 0))) == ((16, 8), expected)
        with pytest.raises(EngineRefused, match=r"Invalid image file: in\.png"):
            await client.run(graph, job="job_in_gone")

    with_client(engine, body)


def test_a_picture_in_and_out_over_http(engine: Installed) -> None:
    data = io.BytesIO()
    Image.new("RGB", (16, 8), "lime").save(data, "PNG")
    graph = {
        "1": node("LoadImage", image="remote.png"),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }

    async def body() -> None:
        async with Engine(engine.url) as client:
            run = await client.run(graph, job="job_http", files={"remote.png": data.getvalue()})
            assert picture(only_file(run).data).getpixel((0, 0)) == (0, 255, 0)
            with pytest.raises(ValueError, match=r"different file named 'remote\.png'"):
                await client.run(graph, job="job_http2", files={"remote.png": b"another"})

    go(body)
    (engine.directories.input / "remote.png").unlink()
    (engine.directories.input / "remote (1).png").unlink()
    (engine.directories.output / "job_http" / "x_00001_.png").unlink()
    (engine.directories.output / "job_http").rmdir()


def test_several_outputs_in_the_order_of_the_graph(engine: Installed) -> None:
    red, blue = 0xFF0000, 0x0000FF

    async def body(client: Engine) -> None:
        graph = {
            "9": node("SaveImage", images=["7", 0], filename_prefix="same"),
            "4": node("PreviewAny", source="a text"),
            "7": empty(red),
            "5": empty(blue),
            "2": node("PreviewImage", images=["5", 0]),
            "1": node("SaveImage", images=["5", 0], filename_prefix="same"),
        }
        run = await client.run(graph, job="job_several")
        assert [output.node for output in run.outputs] == ["9", "4", "2", "1"]
        assert run.outputs[1] == Text("4", "text", "a text")
        pixels = [picture(file.data).getpixel((0, 0)) for file in run.files]
        assert pixels == [rgb(red), rgb(blue), rgb(blue)]

    with_client(engine, body)


def test_the_same_graph_again_is_made_again(engine: Installed) -> None:
    async def body(client: Engine) -> None:
        graph = still()
        graph["3"] = node("PreviewImage", images=["1", 0])
        graph["4"] = node("PreviewAny", source="text")
        runs = []
        for number in range(3):
            events: list[Event] = []
            runs.append(await client.run(graph, job=f"job_again_{number}", on_event=events.append))
            executed = {event.node for event in events if isinstance(event, NodeOutput)}
            assert executed == {"2", "3", "4"}
            assert {"2", "3", "4"}.isdisjoint(runs[-1].cached)
            # Another process may empty temp/ at any time; the next run must not rely on it.
            for old in engine.directories.temp.iterdir():
                old.unlink()
        assert runs[1].cached == ("1",)
        assert any(isinstance(event, Cached) for event in events)
        assert len({picture(file.data).tobytes() for run in runs for file in run.files}) == 1

    with_client(engine, body)


def test_a_name_may_come_again_at_once(engine: Installed) -> None:
    """The folder of the run before is deleted behind it, and never that of this one."""

    async def body(client: Engine) -> None:
        for _ in range(3):
            colour = next(colours)
            run = await client.run(still(colour), job="job_same")
            assert picture(only_file(run).data).getpixel((0, 0)) == rgb(colour)

    with_client(engine, body)


def test_what_a_node_reports_while_it_works(engine: Installed) -> None:
    async def body(client: Engine) -> None:
        events: list[Event] = []
        await client.run(slow(0.2, steps=4, preview=True), job="job_p", on_event=events.append)
        progress = [event for event in events if isinstance(event, Progress)]
        assert progress == [Progress("2", step, 4) for step in (1, 2, 3, 4)]
        previews = [event for event in events if isinstance(event, Preview)]
        assert previews
        assert all((p.node, p.media_type) == ("2", "image/jpeg") for p in previews)
        assert picture(previews[0].data).size == (8, 8)
        assert NodeText("2", "at work") in events

    with_client(engine, body)


def test_a_node_that_raises(engine: Installed) -> None:
    async def body(client: Engine) -> None:
        # A literal where a link is wanted passes validation.
        graph = {
            "1": empty(),
            "2": node("ImageInvert", image="no image"),
            "3": node("SaveImage", images=["2", 0], filename_prefix="x"),
            "4": node("SaveImage", images=["1", 0], filename_prefix="x"),
        }
        with pytest.raises(EngineFailed) as caught:
            await client.run(graph, job="job_raises")
        error = caught.value
        assert (error.node, error.class_type, error.exception_type) == (
            "2",
            "ImageInvert",
            "TypeError",
        )
        assert str(error).startswith("node 2 (ImageInvert): TypeError: unsupported operand")
        assert "Traceback" not in str(error)
        assert "File" in error.traceback
        assert not error.out_of_memory
        assert only_file(await client.run(still(), job="job_raises")).data

    with_client(engine, body)


def test_a_node_that_blocks_what_depends_on_it(engine: Installed) -> None:
    async def body(client: Engine) -> None:
        graph = still()
        graph["3"] = node("ProbeBlock", image=["1", 0])
        graph["4"] = node("SaveImage", images=["3", 0], filename_prefix="x")
        run = await client.run(graph, job="job_blocked")
        assert [output.node for output in run.outputs] == ["2"]
        (error,) = run.node_errors
        assert (error.type, error.message) == (
            "ExecutionBlocked",
            "Execution Blocked: no face found",
        )

    with_client(engine, body)


def test_outputs_of_an_expanded_node_count_as_its_own(engine: Installed) -> None:
    async def body(client: Engine) -> None:
        graph = {"1": empty(), "2": node("ProbeExpand", image=["1", 0])}
        for number in range(2):
            file = only_file(await client.run(graph, job=f"job_expand_{number}"))
            assert (file.node, file.media_type) == ("2", "image/png")

    with_client(engine, body)


@pytest.mark.parametrize(
    ("subfolder", "filename", "message"),
    [
        ("..", "secret.txt", "outside output/"),
        ("", "../secret.txt", "outside output/"),
        ("", "/etc/passwd", "outside output/"),
        ("", "", "outside output/"),
        ("", "nothing.png", "cannot be read"),
    ],
)
def test_names_that_lead_elsewhere_are_not_read(
    engine: Installed, subfolder: str, filename: str, message: str
) -> None:
    (engine.base / "secret.txt").write_text("secret")

    async def body(client: Engine) -> None:
        graph = {"1": node("ProbeNames", filename=filename, subfolder=subfolder)}
        with pytest.raises(EngineOutputError, match=message):
            await client.run(graph, job="job_names")

    with_client(engine, body)


REFUSED: dict[str, tuple[Graph, str, tuple[str | None, ...]]] = {
    "unknown class": (
        {**still(0), "7": node("NoSuchClass")},
        "NoSuchClass does not exist",
        ("7",),
    ),
    "no class": ({**still(0), "7": {"inputs": {}}}, "missing the class_type", ("7",)),
    "no outputs": ({"1": empty(0)}, "has no outputs", ()),
    "empty": ({}, "has no outputs", ()),
    "not a node": ({"1": 5}, "HTTP 500", ()),
    "dangling link": (
        {"2": node("SaveImage", images=["99", 0], filename_prefix="x")},
        "Exception when validating node",
        ("2",),
    ),
    "slot out of range": (
        {"1": empty(0), "2": node("SaveImage", images=["1", 5], filename_prefix="x")},
        "Exception when validating node",
        ("2",),
    ),
    "cycle": (
        {
            "1": node("ImageInvert", image=["2", 0]),
            "2": node("ImageInvert", image=["1", 0]),
            "3": node("SaveImage", images=["2", 0], filename_prefix="x"),
        },
        "refused",
        (),
    ),
    "wrong type": (
        {"1": node("PrimitiveString", value="a"), "2": node("PreviewImage", images=["1", 0])},
        "Return type mismatch",
        ("2",),
    ),
    "missing input": ({"2": node("SaveImage", filename_prefix="x")}, "missing", ("2",)),
    "too big": (
        {"1": empty(0, size=10**9), "2": node("PreviewImage", images=["1", 0])},
        "bigger than max",
        ("1", "1"),
    ),
    "not offered": (
        {
            "1": node("VAELoader", vae_name="nothing"),
            "2": node("PreviewAny", source=["1", 0]),
        },
        "Value not in list",
        ("1",),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_graph_that_is_refused(engine: Installed, kind: str) -> None:
    graph, message, nodes = REFUSED[kind]

    async def body(client: Engine) -> None:
        with pytest.raises(EngineRefused, match=message) as caught:
            await client.run(graph, job="job_refused")
        assert "Traceback" not in str(caught.value)
        assert caught.value.status == (500 if kind == "not a node" else 400)
        if kind != "cycle":
            assert tuple(error.node for error in caught.value.errors) == nodes
        await idle(client)

    with_client(engine, body)


def test_an_output_that_is_not_valid_refuses_the_whole(engine: Installed) -> None:
    async def body(client: Engine) -> None:
        graph = slow(20)
        graph["9"] = node("SaveImage", images=["99", 0], filename_prefix="x")
        begin = time.monotonic()
        with pytest.raises(EngineRefused) as caught:
            await client.run(graph, job="job_half")
        assert caught.value.status == 200
        assert [error.node for error in caught.value.errors] == ["9"]
        await idle(client)
        assert time.monotonic() - begin < 10

    with_client(engine, body)


def test_a_run_is_stopped_while_it_is_executed(engine: Installed) -> None:
    async def body(client: Engine) -> None:
        events: list[Event] = []
        task = asyncio.create_task(
            client.run(slow(30, steps=100), job="job_stop", on_event=events.append)
        )
        await started(events)
        assert await client.interrupt("job_stop")
        with pytest.raises(EngineInterrupted) as caught:
            await task
        assert caught.value.requested
        assert not await client.interrupt("job_stop")
        await idle(client)
        assert only_file(await client.run(still(), job="job_after")).data

    with_client(engine, body)


def test_a_run_is_stopped_while_it_waits(engine: Installed) -> None:
    async def body(client: Engine) -> None:
        events: list[Event] = []
        first = asyncio.create_task(client.run(slow(1.5), job="job_first"))
        while not client._in_flight():
            await asyncio.sleep(0.01)
        second = asyncio.create_task(client.run(still(), job="job_second", on_event=events.append))
        while not events:
            await asyncio.sleep(0.01)
        assert events == [Queued(1)]
        assert await client.interrupt("job_second")
        with pytest.raises(EngineInterrupted):
            await second
        assert not first.done()
        assert only_file(await first).data
        assert events == [Queued(1)]

    with_client(engine, body)


@pytest.mark.parametrize("wait", [0.0, 0.3])
def test_a_caller_that_leaves_stops_its_run(engine: Installed, wait: float) -> None:
    async def body(client: Engine) -> None:
        task = asyncio.create_task(client.run(slow(30, steps=100), job="job_leaves"))
        await asyncio.sleep(wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await idle(client)

    with_client(engine, body)


def test_the_deadline_stops_a_run(engine: Installed) -> None:
    async def body(client: Engine) -> None:
        with pytest.raises(EngineTimeout, match=r"job_late was not done after 0\.3 s"):
            await client.run(slow(30, steps=100), job="job_late", deadline=0.3)
        await idle(client)

    with_client(engine, body)


def test_a_callback_that_raises_ends_its_own_run_only(engine: Installed) -> None:
    def angry(event: Event) -> None:
        if isinstance(event, Progress):
            raise KeyError("mine")

    async def body(client: Engine) -> None:
        bad = asyncio.create_task(client.run(slow(30, steps=100), job="job_angry", on_event=angry))
        good = asyncio.create_task(client.run(still(), job="job_calm"))
        with pytest.raises(KeyError, match="mine"):
            await bad
        assert only_file(await good).data

    with_client(engine, body)


def test_twenty_at_once_each_gets_its_own(engine: Installed) -> None:
    async def body(client: Engine) -> None:
        pairs = [next(colours) for _ in range(10)] * 2
        runs = await asyncio.gather(
            *(client.run(still(c), job=f"job_{n}") for n, c in enumerate(pairs))
        )
        for run, colour, number in zip(runs, pairs, range(20), strict=True):
            assert run.job == f"job_{number}"
            assert picture(only_file(run).data).getpixel((0, 0)) == rgb(colour)
        spans = sorted((run.started, run.finished) for run in runs)
        assert all(a[1] <= b[0] + 0.002 for a, b in pairwise(spans))

    with_client(engine, body)


def test_names_are_checked_before_anything_is_sent(engine: Installed) -> None:
    async def body(client: Engine) -> None:
        for job in ("", "..", "a/b", "a.b", "x" * 65):
            with pytest.raises(ValueError, match="not a name for a job"):
                await client.run(still(), job=job)
        for name in ("../x.png", "", ".x", "a/b.png"):
            with pytest.raises(ValueError, match="not a name for an input file"):
                await client.run(still(), job="job", files={name: b""})
        task = asyncio.create_task(client.run(slow(0.5), job="job_twice"))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="already in flight"):
            await client.run(still(), job="job_twice")
        await task

    with_client(engine, body)


class Proxy:
    """A TCP proxy in front of an engine, which can cut and mislay connections."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.server: asyncio.Server | None = None
        self.port = 0
        self.pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self.keep_upstream = False

    async def __aenter__(self) -> "Proxy":
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close_upstream()
        self.cut()
        await self.deaf()

    async def listen(self) -> None:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def deaf(self) -> None:
        assert self.server is not None
        self.server.close()
        await asyncio.sleep(0.05)

    def cut(self) -> None:
        for down, up in self.pairs:
            down.transport.abort()
            if not self.keep_upstream:
                up.transport.abort()

    def close_upstream(self) -> None:
        for _, up in self.pairs:
            up.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, down: asyncio.StreamWriter) -> None:
        up_reader, up = await asyncio.open_connection("127.0.0.1", self.target)
        self.pairs.append((down, up))
        await asyncio.gather(self.pump(reader, up), self.pump(up_reader, down))

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            if not self.keep_upstream:
                writer.close()
        except OSError:
            if not self.keep_upstream:
                writer.transport.abort()


@pytest.mark.parametrize("away", [0.0, 1.5])
def test_the_websocket_is_cut_in_mid_run(engine: Installed, away: float) -> None:
    """With `away`, the runs end while nobody listens."""

    async def body() -> None:
        async with (
            Proxy(engine.port) as proxy,
            Engine(f"http://127.0.0.1:{proxy.port}", engine.directories) as client,
        ):
            events: list[Event] = []
            expected = [next(colours) for _ in range(4)]
            tasks = [
                asyncio.create_task(
                    client.run(slow(0.3, colour=colour), job=f"job_cut_{n}", on_event=events.append)
                )
                for n, colour in enumerate(expected)
            ]
            await started(events)
            await proxy.deaf()
            proxy.cut()
            await asyncio.sleep(away)
            await proxy.listen()
            runs = await asyncio.gather(*tasks)
            for run, colour in zip(runs, expected, strict=True):
                assert picture(only_file(run).data).getpixel((0, 0)) == rgb(colour)
                assert run.execution_seconds >= 0.3
                assert run.queue_seconds >= 0
            assert only_file(await client.run(still(), job="job_after_cut")).data

    go(body)
    assert not [*engine.directories.output.iterdir()]


def test_an_engine_that_forgets_the_websocket_is_noticed(engine: Installed) -> None:
    """The end of an old connection takes the new one of the same client with it."""

    async def body() -> None:
        async with (
            Proxy(engine.port) as proxy,
            Engine(f"http://127.0.0.1:{proxy.port}", engine.directories, silence=1) as client,
        ):
            proxy.keep_upstream = True
            proxy.cut()
            while client.connected:
                await asyncio.sleep(0.01)
            while not client.connected:
                await asyncio.sleep(0.01)
            proxy.keep_upstream = False
            proxy.pairs[0][1].transport.abort()
            await asyncio.sleep(0.3)
            events: list[Event] = []
            run = await client.run(slow(0.2), job="job_deaf", on_event=events.append)
            assert only_file(run).data
            assert not any(isinstance(event, Started) for event in events)
            assert only_file(await client.run(still(), job="job_hears")).data

    go(body)


def process_of(engine: Installed) -> EngineProcess:
    return EngineProcess(
        engine.command, url=engine.url, env=engine.env, cwd=engine.base, start_timeout=120
    )


def test_a_start_that_fails_says_why(installed: Installed, engine: Installed) -> None:
    async def body() -> None:
        process = EngineProcess(
            [*installed.command, "--no-such-flag"], url=installed.url, env=installed.env
        )
        with pytest.raises(EngineStartError, match="unrecognized arguments: --no-such-flag") as e:
            await process.start()
        assert e.value.returncode == 2
        assert not process.alive
        with pytest.raises(EngineStartError, match="another engine answers"):
            await EngineProcess(installed.command, url=engine.url).start()

    go(body)


def test_directories_below_a_base() -> None:
    base = Path("base")
    assert Directories.below(base) == Directories(base / "output", base / "input", base / "temp")
