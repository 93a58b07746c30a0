"""The engine client without an engine: its pure parts, and what a real engine does only by chance.

What a real one can be made to show is in tests/engine.
"""

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from aiohttp import web

from generator.ports import free_port
from templates.utils.comfyui import Engine
from templates.utils.comfyui_errors import (
    EngineError,
    EngineFailed,
    EngineInterrupted,
    EngineLost,
    EngineOutputError,
    EngineStartError,
    EngineUnreachable,
    NodeError,
)
from templates.utils.comfyui_files import Directories, path_inside
from templates.utils.comfyui_process import EngineProcess
from templates.utils.comfyui_protocol import Frame, isolate, media_type, parse_frame, refusal
from templates.utils.comfyui_records import EngineInfo, Event, File, Preview, Queued, Text

# Prefixes and cache markers


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("ComfyUI", "J/ComfyUI"),
        ("video/ComfyUI", "J/ComfyUI"),
        ("../../etc/passwd", "J/passwd"),
        ("C:\\pictures\\fox", "J/fox"),
        ("", "J/ComfyUI"),
        ("a/", "J/ComfyUI"),
        ("..", "J/ComfyUI"),
        ("/", "J/ComfyUI"),
        ("fox %width%x%height%", "J/fox %width%x%height%"),
        ("f\0o\nx", "J/f_o_x"),
        ("füchse", "J/f_chse"),
        ("x" * 500, "J/" + "x" * 60),
        (["7", 0], "J/ComfyUI"),
        (5, "J/ComfyUI"),
        (None, "J/ComfyUI"),
    ],
)
def test_a_prefix_leads_into_the_folder_of_the_job(prefix: Any, expected: str) -> None:
    graph = {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": prefix}}}
    assert isolate(graph, "J", {"SaveImage"})["1"]["inputs"] == {"filename_prefix": expected}


def test_only_output_nodes_without_a_prefix_are_marked_and_the_graph_is_not_changed() -> None:
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8}, "_meta": {"title": "t"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "3": {"class_type": "VHS_VideoCombine", "inputs": {"save_prefix": "a/b"}},
        "4": "not a node",
        "5": {"class_type": "PreviewImage", "inputs": None},
    }
    before = json.dumps(graph)
    sent = isolate(graph, "J", {"PreviewImage", "VHS_VideoCombine"})
    assert json.dumps(graph) == before
    assert sent["1"] == graph["1"]
    assert sent["2"]["inputs"] == {"images": ["1", 0], "_job": "J"}
    assert sent["3"]["inputs"] == {"save_prefix": "J/b"}
    assert (sent["4"], sent["5"]) == (graph["4"], graph["5"])


# Paths


def test_a_path_inside(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "near").symlink_to(tmp_path / "a")
    assert path_inside(tmp_path, "", "x.png") == tmp_path.resolve() / "x.png"
    assert path_inside(tmp_path, "near", "x.png") == tmp_path.resolve() / "a" / "x.png"
    for subfolder, filename in [
        ("", ""),
        ("", ".."),
        ("..", "x"),
        ("a/../..", "x"),
        ("", "/etc/passwd"),
        ("/etc", "passwd"),
        ("link", "passwd"),
        ("", "x\0y"),
    ]:
        with pytest.raises(EngineOutputError):
            path_inside(tmp_path, subfolder, filename)


@pytest.mark.parametrize(
    ("data", "filename", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n...", "x.jpg", "image/png"),
        (b"\xff\xd8\xff\xe0", "x", "image/jpeg"),
        (b"RIFF\0\0\0\0WEBPVP8X", "x", "image/webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", "x", "audio/wav"),
        (b"\0\0\0\x20ftypisom", "x", "video/mp4"),
        (b"\0\0\0\x20ftypM4A ", "x", "audio/mp4"),
        (b"\x1a\x45\xdf\xa3....webm", "x.webm", "video/webm"),
        (b"\x1a\x45\xdf\xa3....matroska", "x", "video/x-matroska"),
        (b"fLaC", "x.flac", "audio/flac"),
        (b"\xff\xfb\x90", "x.MP3", "audio/mpeg"),
        (b"glTF\2", "x.glb", "model/gltf-binary"),
        (b"v 0 0 0", "x.obj", "model/obj"),
        (b"<html>", "x.html", "application/octet-stream"),
        (b"", "", "application/octet-stream"),
    ],
)
def test_media_types(data: bytes, filename: str, expected: str) -> None:
    assert media_type(data, filename) == expected


# Binary messages


def test_frames() -> None:
    assert parse_frame(b"\0\0\0\1\0\0\0\1jpeg") == Frame(None, None, "image/jpeg", b"jpeg")
    assert parse_frame(b"\0\0\0\1\0\0\0\2png") == Frame(None, None, "image/png", b"png")
    assert parse_frame(b"\0\0\0\3\0\0\0\2" + b"12text") == Frame(None, "12", "text/plain", b"text")
    metadata = json.dumps(
        {"prompt_id": "p", "node_id": "5.0", "display_node_id": "5", "image_type": "image/png"}
    ).encode()
    frame = struct.pack(">II", 4, len(metadata)) + metadata + b"png"
    assert parse_frame(frame) == Frame("p", "5", "image/png", b"png")
    assert parse_frame(b"\0\0\0\x63anything") is None
    for cut in (b"", b"\0\0", b"\0\0\0\1", frame[:20], b"\0\0\0\4\0\0\0\2[]"):
        with pytest.raises(ValueError, match=r"cut short|no object"):
            parse_frame(cut)


# Refusals and other exceptions


def test_a_refusal_carries_what_the_engine_says_of_each_node() -> None:
    error = {
        "type": "value_bigger_than_max",
        "message": "Value 9 bigger than max of 8",
        "details": "width",
        "extra_info": {"input_name": "width", "traceback": ["secret"]},
    }
    body = {
        "error": {"type": "prompt_outputs_failed_validation", "message": "Failed", "details": ""},
        "node_errors": {"5": {"errors": [error], "class_type": "EmptyImage"}},
    }
    found = refusal(400, json.dumps(body).encode())
    assert found.errors == (
        NodeError(
            "5",
            "EmptyImage",
            "value_bigger_than_max",
            "Value 9 bigger than max of 8",
            "width",
            "width",
        ),
    )
    assert str(found) == (
        "the engine refused the graph: Failed: "
        "node 5 (EmptyImage): Value 9 bigger than max of 8: width"
    )


def test_a_refusal_without_nodes_names_the_one_in_the_text() -> None:
    body = {
        "error": {"type": "invalid_prompt", "message": "No class.", "details": "Node ID '#57:8'"},
        "node_errors": {},
    }
    assert refusal(400, json.dumps(body).encode()).errors == (
        NodeError("57:8", None, "invalid_prompt", "No class.", ""),
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "text"}', b"\xff"])
def test_a_refusal_of_any_form_is_one(body: bytes) -> None:
    found = refusal(502, body)
    assert (found.status, found.errors) == (502, ())
    assert str(found).startswith("the engine refused the graph: ")


def test_a_failure_tells_when_memory_ran_out() -> None:
    full = EngineFailed("3", "KSampler", "torch.OutOfMemoryError", "x" * 5000, "File …")
    assert full.out_of_memory
    assert len(str(full)) == 1000
    assert not EngineFailed("3", "KSampler", "ValueError", "OutOfMemoryError", "").out_of_memory


@pytest.mark.parametrize("stats", [None, [], {}, {"system": {}, "devices": []}, {"devices": 5}])
def test_stats_that_are_not_an_engine_s(stats: Any) -> None:
    with pytest.raises(EngineError, match="not ComfyUI's"):
        EngineInfo.of(stats)


# A scripted engine

Answer = Callable[["Fake", dict[str, Any]], Awaitable[web.StreamResponse]]
STATS = {
    "system": {"comfyui_version": "0.3.71"},
    "devices": [{"name": "cuda:0", "vram_total": 2, "vram_free": 1}],
    "preview": True,
}


class Fake:
    """An engine that answers as its test says, and counts what it is asked."""

    def __init__(self, on_prompt: Answer | None = None) -> None:
        self.on_prompt = on_prompt or accept
        self.sockets: list[web.WebSocketResponse] = []
        self.client_ids: list[str] = []
        self.asked: list[str] = []
        self.posted: list[tuple[str, Any]] = []
        self.queue: dict[str, Any] = {"queue_running": [], "queue_pending": []}
        self.history: dict[str, Any] = {}
        self.prompts: list[dict[str, Any]] = []
        self.url = ""

    async def __aenter__(self) -> "Fake":
        app = web.Application()
        app.router.add_get("/ws", self.serve_socket)
        app.router.add_post("/prompt", self.serve_prompt)
        app.router.add_route("*", "/{path:.*}", self.serve)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.cut()
        await self.runner.cleanup()

    async def serve_socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(timeout=0.1)
        await socket.prepare(request)
        self.sockets.append(socket)
        self.client_ids.append(request.query["clientId"])
        async for _ in socket:
            pass
        return socket

    async def serve_prompt(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asking = request
        self.prompts.append(body)
        return await self.on_prompt(self, body)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        self.asked.append(path)
        if request.method == "POST":
            self.posted.append((path, await request.json()))
            return web.Response()
        answers = {
            "object_info": {"SaveImage": {"output_node": True}},
            "history": self.history,
            "queue": self.queue,
            "system_stats": STATS,
        }
        if path.startswith("history/"):
            found = self.history.get(path.removeprefix("history/"))
            return web.json_response({path.removeprefix("history/"): found} if found else {})
        return web.json_response(answers[path])

    async def say(self, kind: str, **data: Any) -> None:
        await self.sockets[-1].send_json({"type": kind, "data": data})

    async def send(self, data: bytes) -> None:
        await self.sockets[-1].send_bytes(data)

    async def cut(self) -> None:
        for open_socket in self.sockets:
            if open_socket._req is not None and open_socket._req.transport is not None:
                open_socket._req.transport.abort()
        await asyncio.sleep(0)


async def accept(fake: Fake, body: dict[str, Any]) -> web.Response:  # noqa: ARG001
    return web.json_response({"prompt_id": body["prompt_id"], "node_errors": {}})


def stamp(seconds: float) -> int:
    return int(1_700_000_000_000 + seconds * 1000)


async def perform(fake: Fake, prompt: str, output: Any, *, seconds: float = 2) -> None:
    """Say what an engine says of a run with one output node."""
    await fake.say("execution_start", prompt_id=prompt, timestamp=stamp(0))
    await fake.say("executing", prompt_id=prompt, node="1", display_node="1")
    await fake.say("executed", prompt_id=prompt, node="1", display_node="1", output=output)
    await fake.say("execution_success", prompt_id=prompt, timestamp=stamp(seconds))
    await fake.say("executing", prompt_id=prompt, node=None)


def entry(output: Any, *messages: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "prompt": [0, "id", {}, {"create_time": stamp(-1)}, []],
        "outputs": {"1": output},
        "meta": {"1": {"display_node": "1"}},
        "status": {"status_str": "success", "completed": True, "messages": [*messages]},
    }


DONE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("execution_start", {"timestamp": stamp(0)}),
    ("execution_cached", {"nodes": ["7"], "timestamp": stamp(0)}),
    ("execution_success", {"timestamp": stamp(2)}),
)
GRAPH = {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}}
TEXT = {"text": ["hello"]}


def go(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await body()
        # Connections of the fake engine take a moment to end.
        for _ in range(100):
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if not left:
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"tasks are left: {left}")

    asyncio.run(main())


def sent_by(fake: Fake) -> list[str]:
    """Return the names of the jobs whose graphs came, in their order."""
    return [sent["prompt"]["1"]["inputs"]["filename_prefix"].split("/")[0] for sent in fake.prompts]


def client_of(fake: Fake, directories: Directories | None = None) -> Engine:
    return Engine(fake.url, directories, connect_timeout=2, patience=2, silence=0.3, hung_after=0.5)


def test_messages_may_come_before_the_answer_and_others_are_not_ours() -> None:
    async def answer(fake: Fake, body: dict[str, Any]) -> web.StreamResponse:
        await fake.say("execution_interrupted", prompt_id="another", timestamp=stamp(0))
        await fake.say("status", status={"exec_info": {"queue_remaining": 1}})
        await fake.say("executing", node="1")
        await fake.sockets[-1].send_str("{")
        await fake.sockets[-1].send_str("[]")
        await fake.send(b"\0")
        await perform(fake, body["prompt_id"], TEXT)
        await asyncio.sleep(0.05)
        return await accept(fake, body)

    async def body() -> None:
        async with Fake(answer) as fake, client_of(fake) as client:
            events: list[Event] = []
            run = await client.run(GRAPH, job="job", on_event=events.append)
            assert run.outputs == (Text("1", "text", "hello"),)
            assert run.execution_seconds == 2
            assert not any(isinstance(event, Queued) for event in events)
            assert fake.asked == ["object_info"]
            sent = fake.prompts[0]
            assert sent["prompt"]["1"]["inputs"] == {"filename_prefix": "job/x"}
            assert sent["client_id"] == fake.client_ids[0]
            assert (await client.probe()).preview

    go(body)


def test_a_preview_without_ids_belongs_to_the_run_that_is_executed() -> None:
    async def body() -> None:
        async with Fake() as fake, client_of(fake) as client:
            first: list[Event] = []
            second: list[Event] = []
            one = asyncio.create_task(client.run(GRAPH, job="a", on_event=first.append))
            two = asyncio.create_task(client.run(GRAPH, job="b", on_event=second.append))
            while len(fake.prompts) < 2:
                await asyncio.sleep(0.01)
            jobs = {p["prompt"]["1"]["inputs"]["filename_prefix"]: p for p in fake.prompts}
            running, waiting = jobs["b/x"]["prompt_id"], jobs["a/x"]["prompt_id"]
            await fake.send(b"\0\0\0\1\0\0\0\1nobody")
            await fake.say("execution_start", prompt_id=running, timestamp=stamp(0))
            await fake.say("executing", prompt_id=running, node="1")
            await fake.send(b"\0\0\0\1\0\0\0\1picture")
            await perform(fake, running, TEXT)
            await perform(fake, waiting, {"text": ["other"]})
            assert (await two).outputs == (Text("1", "text", "hello"),)
            assert (await one).outputs == (Text("1", "text", "other"),)
            assert [e for e in second if isinstance(e, Preview)] == [
                Preview("1", "image/jpeg", b"picture")
            ]
            assert not [e for e in first if isinstance(e, Preview)]

    go(body)


def test_every_key_of_an_output_is_read(tmp_path: Path) -> None:
    directories = Directories.below(tmp_path)
    (directories.output / "job").mkdir(parents=True)
    (directories.output / "other").mkdir()
    (directories.temp / "job").mkdir(parents=True)
    (directories.output / "job" / "a.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    (directories.temp / "job" / "b.glb").write_bytes(b"glTF")
    output = {
        "gifs": [{"filename": "a.mp4", "subfolder": "job", "type": "output"}],
        "3d": [{"filename": "b.glb", "subfolder": "job", "type": "temp"}],
        "result": ["x.glb", {"camera": 1}, None],
        "animated": [True],
        "seed": 5,
    }

    async def answer(fake: Fake, body: dict[str, Any]) -> web.StreamResponse:
        await perform(fake, body["prompt_id"], output)
        return await accept(fake, body)

    async def body() -> None:
        async with Fake(answer) as fake, client_of(fake, directories) as client:
            run = await client.run(GRAPH, job="job")
            assert run.outputs == (
                File("1", "gifs", "a.mp4", "video/mp4", b"\0\0\0\x20ftypisom", True),
                File("1", "3d", "b.glb", "model/gltf-binary", b"glTF", True),
                Text("1", "result", "x.glb"),
                Text("1", "result", '{"camera": 1}'),
                Text("1", "result", "null"),
                Text("1", "seed", "5"),
            )

    go(body)
    assert [path.name for path in directories.output.iterdir()] == ["other"]
    assert not [*directories.temp.iterdir()]


def test_a_folder_that_cannot_be_deleted_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directories = Directories.below(tmp_path)
    kept = tmp_path / "kept"
    kept.mkdir()
    directories.output.mkdir()
    (directories.output / "job").symlink_to(kept)

    async def answer(fake: Fake, body: dict[str, Any]) -> web.StreamResponse:
        await perform(fake, body["prompt_id"], TEXT)
        return await accept(fake, body)

    async def body() -> None:
        async with Fake(answer) as fake, client_of(fake, directories) as client:
            assert (await client.run(GRAPH, job="job")).outputs

    go(body)
    assert kept.is_dir()
    assert "job is left behind" in caplog.text


def test_input_files_are_shared_and_never_overwritten(tmp_path: Path) -> None:
    directories = Directories.below(tmp_path)
    directories.input.mkdir()
    (directories.input / "old.png").write_bytes(b"old")

    async def body() -> None:
        async with Fake() as fake, client_of(fake, directories) as client:
            runs = [
                asyncio.create_task(client.run(GRAPH, job=job, files={"new.png": b"1"}))
                for job in ("a", "b")
            ]
            while len(fake.prompts) < 2:
                await asyncio.sleep(0.01)
            with pytest.raises(ValueError, match="another run uses a different file"):
                await client.run(GRAPH, job="c", files={"new.png": b"2"})
            with pytest.raises(ValueError, match="holds a different file"):
                await client.run(GRAPH, job="c", files={"old.png": b"2"})
            await perform(fake, fake.prompts[0]["prompt_id"], TEXT)
            await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
            assert (directories.input / "new.png").read_bytes() == b"1"
            await perform(fake, fake.prompts[1]["prompt_id"], TEXT)
            await asyncio.gather(*runs)

    go(body)
    assert [path.name for path in directories.input.iterdir()] == ["old.png"]


@pytest.mark.parametrize("known", ["finished", "forgotten", "failed", "interrupted", "garbled"])
def test_what_happened_while_the_socket_was_down(known: str) -> None:
    async def body() -> None:
        async with Fake() as fake, client_of(fake) as client:
            task = asyncio.create_task(client.run(GRAPH, job="job"))
            while not fake.prompts:
                await asyncio.sleep(0.01)
            prompt = fake.prompts[0]["prompt_id"]
            error = {
                "node_id": "1",
                "node_type": "SaveImage",
                "exception_type": "ValueError",
                "exception_message": "no\n",
                "traceback": ["File"],
                "timestamp": stamp(1),
            }
            last: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
                "finished": DONE,
                "failed": (*DONE[:2], ("execution_error", error)),
                "interrupted": (*DONE[:2], ("execution_interrupted", {"timestamp": stamp(1)})),
            }
            if known == "garbled":
                fake.history[prompt] = {"nothing": 1}
            elif known != "forgotten":
                fake.history[prompt] = entry(TEXT, *last[known])
            await fake.cut()
            if known == "finished":
                run = await task
                assert run.outputs == (Text("1", "text", "hello"),)
                assert (run.execution_seconds, run.queue_seconds) == (2, 1)
                assert run.cached == ("7",)
                assert len(set(fake.client_ids)) == 1
            elif known == "forgotten":
                with pytest.raises(EngineLost, match="no longer knows it"):
                    await task
                # Once because it only waited, once more because that may have been a mishap.
                assert len({asked["prompt_id"] for asked in fake.prompts}) == 3
            elif known == "failed":
                with pytest.raises(EngineFailed, match=r"node 1 \(SaveImage\): ValueError: no$"):
                    await task
            elif known == "garbled":
                with pytest.raises(EngineError, match="not ComfyUI's"):
                    await task
            else:
                with pytest.raises(EngineInterrupted) as caught:
                    await task
                assert not caught.value.requested

    go(body)


def test_a_run_that_still_waits_after_a_cut_is_read_from_the_history_once() -> None:
    async def body() -> None:
        async with Fake() as fake, client_of(fake) as client:
            task = asyncio.create_task(client.run(GRAPH, job="job"))
            while not fake.prompts:
                await asyncio.sleep(0.01)
            prompt = fake.prompts[0]["prompt_id"]
            fake.queue["queue_running"] = [[0, prompt, {}, {}, []]]
            await fake.cut()
            while len(fake.sockets) < 2 or not client.connected:
                await asyncio.sleep(0.01)
            # What it said of its outputs is lost, so its success is not enough.
            await fake.say("execution_success", prompt_id=prompt, timestamp=stamp(2))
            await asyncio.sleep(0.05)
            assert not task.done()
            fake.history[prompt] = entry(TEXT, *DONE)
            fake.queue["queue_running"] = []
            await fake.say("executing", prompt_id=prompt, node=None)
            await fake.say("execution_success", prompt_id=prompt, timestamp=stamp(9))
            run = await task
            assert run.outputs == (Text("1", "text", "hello"),)
            assert fake.asked.count(f"history/{prompt}") == 1

    go(body)


def test_silence_is_looked_into() -> None:
    async def body() -> None:
        async with Fake() as fake, client_of(fake) as client:
            task = asyncio.create_task(client.run(GRAPH, job="job"))
            while not fake.prompts:
                await asyncio.sleep(0.01)
            prompt = fake.prompts[0]["prompt_id"]
            fake.queue["queue_pending"] = [[0, prompt, {}, {}, []]]
            await asyncio.sleep(0.7)
            assert (len(fake.sockets), task.done()) == (1, False)
            fake.queue["queue_pending"] = []
            fake.history[prompt] = entry(TEXT, *DONE)
            assert (await task).outputs == (Text("1", "text", "hello"),)
            assert len(fake.sockets) == 2

    go(body)


@pytest.mark.parametrize("arrived", [True, False])
def test_the_connection_breaks_while_a_graph_is_sent(arrived: bool) -> None:
    async def answer(fake: Fake, body: dict[str, Any]) -> web.StreamResponse:
        if arrived:
            fake.history[body["prompt_id"]] = entry(TEXT, *DONE)
        broken = fake.asking.transport
        assert broken is not None
        broken.abort()
        return await accept(fake, body)

    async def body() -> None:
        async with Fake(answer) as fake, client_of(fake) as client:
            if arrived:
                run = await client.run(GRAPH, job="job")
                assert run.outputs == (Text("1", "text", "hello"),)
            else:
                with pytest.raises(EngineLost):
                    await client.run(GRAPH, job="job")
            assert len(fake.prompts) == (1 if arrived else 2)

    go(body)


def test_runs_are_sent_in_the_order_in_which_they_were_asked_for() -> None:
    """One at a time, for two requests at once may arrive in either order."""
    names = [f"job{number}" for number in range(8)]
    under_way = 0

    async def answer(fake: Fake, body: dict[str, Any]) -> web.StreamResponse:
        nonlocal under_way
        under_way += 1
        await asyncio.sleep(0.01)
        assert under_way == 1
        under_way -= 1
        return await accept(fake, body)

    async def body() -> None:
        async with Fake(answer) as fake, client_of(fake) as client:
            positions: dict[str, list[Event]] = {name: [] for name in names}
            tasks = [
                asyncio.create_task(client.run(GRAPH, job=name, on_event=positions[name].append))
                for name in names
            ]
            while len(fake.prompts) < len(names):
                await asyncio.sleep(0.01)
            assert sent_by(fake) == names
            # An engine in its place knows none of them.
            await fake.cut()
            while len(fake.prompts) < 2 * len(names):
                await asyncio.sleep(0.01)
            assert sent_by(fake) == names * 2
            await client.close()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert [found[0] for found in positions.values()] == [
                Queued(position) for position in range(len(names))
            ]

    go(body)


def test_what_was_lost_goes_before_what_came_later() -> None:
    async def body() -> None:
        async with Fake() as fake, client_of(fake) as client:
            tasks = [asyncio.create_task(client.run(GRAPH, job=name)) for name in ("a", "b")]
            while len(fake.prompts) < 2:
                await asyncio.sleep(0.01)
            await fake.cut()
            while client.connected:
                await asyncio.sleep(0)
            tasks += [asyncio.create_task(client.run(GRAPH, job=name)) for name in ("c", "d")]
            while len(fake.prompts) < 6:
                await asyncio.sleep(0.01)
            assert sent_by(fake) == ["a", "b", "a", "b", "c", "d"]
            await client.close()
            await asyncio.gather(*tasks, return_exceptions=True)

    go(body)


def test_nobody_waits_for_the_files_of_another(tmp_path: Path) -> None:
    """But who has waited for its own goes before those that came later."""

    async def body() -> None:
        async def answer(fake: Fake, body: dict[str, Any]) -> web.StreamResponse:
            while len(fake.prompts) == 1 and len(client._line._jobs) < 4:
                await asyncio.sleep(0.01)
            return await accept(fake, body)

        async with Fake(answer) as fake, client_of(fake, Directories.below(tmp_path)) as client:
            first = asyncio.create_task(client.run(GRAPH, job="a", files={"a.png": b"png"}))
            tasks = [asyncio.create_task(client.run(GRAPH, job=name)) for name in ("b", "c", "d")]
            while len(fake.prompts) < 4:
                await asyncio.sleep(0.01)
            assert sent_by(fake) == ["b", "a", "c", "d"]
            await client.close()
            await asyncio.gather(first, *tasks, return_exceptions=True)

    go(body)


def test_who_waits_behind_a_graph_that_is_being_sent_can_leave() -> None:
    async def answer(fake: Fake, body: dict[str, Any]) -> web.StreamResponse:
        await release.wait()
        return await accept(fake, body)

    release = asyncio.Event()

    async def body() -> None:
        async with Fake(answer) as fake, client_of(fake) as client:
            first, second, third = (
                asyncio.create_task(client.run(GRAPH, job=name)) for name in ("1", "2", "3")
            )
            while not fake.prompts:
                await asyncio.sleep(0.01)
            await client.interrupt("2")
            with pytest.raises(EngineInterrupted):
                await second
            release.set()
            while len(fake.prompts) < 2:
                await asyncio.sleep(0.01)
            assert sent_by(fake) == ["1", "3"]
            await client.close()
            await asyncio.gather(first, third, return_exceptions=True)

    go(body)


def test_an_interrupt_that_the_engine_forgets_is_sent_again() -> None:
    async def body() -> None:
        async with Fake() as fake, client_of(fake) as client:
            task = asyncio.create_task(client.run(GRAPH, job="job"))
            while not fake.prompts:
                await asyncio.sleep(0.01)
            prompt = fake.prompts[0]["prompt_id"]
            fake.queue["queue_running"] = [[0, prompt, {}, {}, []]]
            assert await client.interrupt("job")
            while len(fake.posted) < 6:
                await asyncio.sleep(0.01)
            assert fake.posted[:2] == [
                ("queue", {"delete": [prompt]}),
                ("interrupt", {"prompt_id": prompt}),
            ]
            await fake.say("execution_interrupted", prompt_id=prompt, timestamp=stamp(1))
            with pytest.raises(EngineInterrupted) as caught:
                await task
            assert caught.value.requested

    go(body)


def test_close_ends_what_is_in_flight() -> None:
    async def body() -> None:
        async with Fake() as fake:
            client = client_of(fake)
            await client.connect()
            task = asyncio.create_task(client.run(GRAPH, job="job"))
            while not fake.prompts:
                await asyncio.sleep(0.01)
            await client.close()
            with pytest.raises(EngineInterrupted):
                await task
            assert not client.connected
            assert ("queue", {"delete": [fake.prompts[0]["prompt_id"]]}) in fake.posted

    go(body)


def test_an_engine_that_changes_the_id_is_not_usable() -> None:
    async def answer(fake: Fake, body: dict[str, Any]) -> web.StreamResponse:  # noqa: ARG001
        return web.json_response({"prompt_id": "mine", "node_errors": {}})

    async def body() -> None:
        async with Fake(answer) as fake, client_of(fake) as client:
            with pytest.raises(EngineError, match="does not keep the prompt_id"):
                await client.run(GRAPH, job="job")

    go(body)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_graph_that_is_not_json_is_not_sent(value: float) -> None:
    async def body() -> None:
        async with Fake() as fake, client_of(fake) as client:
            with pytest.raises(ValueError, match="JSON"):
                await client.run({"1": {"class_type": "A", "inputs": {"a": value}}}, job="job")
            assert not fake.prompts

    go(body)


def test_nobody_answers() -> None:
    async def body() -> None:
        begin = time.monotonic()
        client = Engine(f"http://127.0.0.1:{free_port()}", connect_timeout=0.3)
        with pytest.raises(EngineUnreachable, match="does not answer: Cannot connect"):
            await client.connect()
        assert time.monotonic() - begin < 2

    go(body)


# Processes


SERVER = f"""\
import http.server, signal, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = {json.dumps(json.dumps(STATS))}.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "1000"])
print("child", child.pid, flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def server(port: int) -> EngineProcess:
    command = [sys.executable, "-c", SERVER, str(port)]
    return EngineProcess(command, url=f"http://127.0.0.1:{port}", stop_timeout=0.3)


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def gone(*pids: int) -> None:
    for _ in range(300):
        if not any(map(runs, pids)):
            return
        await asyncio.sleep(0.01)
    pytest.fail("a process is left")


def test_stop_ends_the_whole_group_even_when_it_will_not() -> None:
    async def body() -> None:
        process = server(free_port())
        assert not process.alive
        await process.stop()
        info = await process.start()
        assert (info.version, info.device, info.preview) == ("0.3.71", "cuda:0", True)
        assert process.alive
        assert process.pid is not None
        with pytest.raises(RuntimeError, match="runs already"):
            await process.start()
        child = int(process.output[0].split()[1])
        await process.stop()
        assert not process.alive
        await gone(process.pid, child)
        await process.start()
        await process.stop()

    go(body)


def test_a_process_that_ends_at_once_shows_what_it_said() -> None:
    async def body() -> None:
        script = "import sys; print('step 1\\rstep 2', flush=True); sys.exit('no GPU')"
        process = EngineProcess([sys.executable, "-c", script], url="http://127.0.0.1:9")
        with pytest.raises(EngineStartError) as caught:
            await process.start()
        assert str(caught.value) == (
            "the engine ended with status 1 before it answered; its last output was:"
            "\n  step 2\n  no GPU"
        )
        assert caught.value.returncode == 1
        assert not process.alive

    go(body)


def test_a_character_may_come_in_two_pieces() -> None:
    async def body() -> None:
        script = (
            "import os, time; os.write(1, b'caf\\xc3'); time.sleep(0.3); os.write(1, b'\\xa9\\n')"
        )
        process = EngineProcess([sys.executable, "-c", script], url="http://127.0.0.1:9")
        with pytest.raises(EngineStartError):
            await process.start()
        assert process.output == ("café",)

    go(body)


def test_stop_signals_an_ended_process_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its group's id may be another's by then."""

    async def body() -> None:
        process = EngineProcess(["true"], url="http://127.0.0.1:9")
        with pytest.raises(EngineStartError):
            await process.start()
        signalled: list[int] = []
        monkeypatch.setattr("os.killpg", lambda group, _: signalled.append(group))
        await process.stop()
        assert signalled == []

    go(body)


def test_a_run_that_waits_for_the_connection_can_be_interrupted() -> None:
    async def body() -> None:
        async with Fake() as fake:
            client = client_of(fake)
            await client.connect()
            await fake.__aexit__(None, None, None)
            while client.connected:
                await asyncio.sleep(0.01)
            task = asyncio.create_task(client.run(GRAPH, job="job"))
            await asyncio.sleep(0.05)
            assert await client.interrupt("job")
            with pytest.raises(EngineInterrupted):
                await task
            await client.close()

    go(body)


def test_a_process_that_never_answers_is_ended() -> None:
    async def body() -> None:
        script = "print('x' * 100_000, flush=True); import time; time.sleep(1000)"
        process = EngineProcess(
            [sys.executable, "-c", script], url=f"http://127.0.0.1:{free_port()}", start_timeout=0.8
        )
        with pytest.raises(EngineStartError, match=r"did not answer within 0\.8 s") as caught:
            await process.start()
        assert [len(line) for line in caught.value.output] == [1000]
        assert process.pid is not None
        await gone(process.pid)

    go(body)


def test_a_program_that_is_missing_and_a_port_that_is_taken() -> None:
    async def body() -> None:
        with pytest.raises(EngineStartError, match="No such file or directory: '/no/such/program'"):
            await EngineProcess(["/no/such/program"], url="http://127.0.0.1:9").start()
        async with Fake() as fake:
            with pytest.raises(EngineStartError, match="another engine answers"):
                await EngineProcess(["true"], url=fake.url).start()

    go(body)


def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    async def body() -> None:
        process = EngineProcess(["sleep", "1000"], url=f"http://127.0.0.1:{free_port()}")
        task = asyncio.create_task(process.start())
        while process.pid is None:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone(process.pid)

    go(body)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
def test_the_engine_dies_with_a_parent_that_is_killed() -> None:
    script = (
        "import asyncio\n"
        "from templates.utils.comfyui_process import EngineProcess\n"
        "async def main():\n"
        "    process = EngineProcess(['sleep', '1000'], url='http://127.0.0.1:9')\n"
        "    task = asyncio.create_task(process.start())\n"
        "    while process.pid is None: await asyncio.sleep(0.01)\n"
        "    await asyncio.sleep(0.3)\n"
        "    print(process.pid, flush=True)\n"
        "    await task\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        with parent.stdout:
            pid = int(parent.stdout.readline())
        assert runs(pid)
    finally:
        parent.kill()
        parent.wait()
    try:
        asyncio.run(gone(pid))
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
