"""The preview engine over HTTP and websocket: events, queue, cache, files and placeholders."""

import asyncio
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import av
import pytest
from PIL import Image

from build.handlers.flux import build_flux_dev_workflow, build_flux_workflow
from build.handlers.instantid import build_flux_instantid_workflow
from build.handlers.lora import build_flux_lora_workflow
from build.handlers.seedvr2 import build_seedvr2_workflow
from build.handlers.wan2 import build_wan2_workflow
from generator.graph.catalog import open_catalog
from generator.preview.folders import Folders
from generator.preview.schemas import Schemas
from generator.preview.server import Server, serving

from .conftest import ROOT

CATALOG = open_catalog(ROOT / "generator" / "catalogs", version="0.3.71")
MODELS = """
checkpoints/flux1-schnell-fp8.safetensors checkpoints/sd_xl_base_1.0.safetensors
diffusion_models/flux1-dev.safetensors diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors
vae/ae.safetensors vae/wan_2.1_vae.safetensors
text_encoders/clip_l.safetensors text_encoders/t5xxl_fp16.safetensors
text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors
instantid/ip-adapter.bin controlnet/instantid-controlnet.safetensors
SEEDVR2/seedvr2_ema_7b_fp16.safetensors SEEDVR2/ema_vae_fp16.safetensors
""".split()
ENDS = ("execution_success", "execution_error", "execution_interrupted")
SECONDS = 20

Graph = dict[str, Any]


class Client:
    """A client with a websocket; `events` are those received, pictures as bytes."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session
        self.id = uuid.uuid4().hex
        self.events: list[Any] = []

    async def read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            is_text = message.type is aiohttp.WSMsgType.TEXT
            self.events.append(json.loads(message.data) if is_text else message.data)

    async def get(self, path: str) -> Any:
        async with self.session.get(self.url + path) as response:
            assert response.status == 200, path
            return await response.json()

    async def status(self, path: str) -> int:
        async with self.session.get(self.url + path) as response:
            return response.status

    async def file(self, output: dict[str, str]) -> bytes:
        async with self.session.get(f"{self.url}/view", params=output) as response:
            assert response.status == 200, output
            return await response.read()

    async def post(self, path: str, body: object = None) -> None:
        async with self.session.post(self.url + path, json=body) as response:
            assert response.status == 200, path

    async def prompt(self, graph: Graph, **more: object) -> tuple[int, Any]:
        body = {"prompt": graph, "client_id": self.id, **more}
        async with self.session.post(f"{self.url}/prompt", json=body) as response:
            return response.status, await response.json()

    async def queued(self, graph: Graph) -> str:
        status, answer = await self.prompt(graph)
        assert status == 200, answer
        prompt_id: str = answer["prompt_id"]
        return prompt_id

    async def upload(self, name: str, data: bytes, **fields: str) -> tuple[int, Any]:
        # Written by hand, for a client library would escape the names that are tried.
        parts = [f'name="image"; filename="{name}"\r\nContent-Type: image/png'.encode(), data]
        for key, value in fields.items():
            parts += [f'name="{key}"'.encode(), value.encode()]
        body = b"".join(
            b"--B\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + content + b"\r\n"
            for head, content in zip(parts[::2], parts[1::2], strict=True)
        )
        headers = {"Content-Type": "multipart/form-data; boundary=B"}
        async with self.session.post(
            f"{self.url}/upload/image", data=body + b"--B--\r\n", headers=headers
        ) as response:
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else None

    async def wait(self, found: Callable[[Any], bool]) -> Any:
        """Return the first event that is found, now or later."""
        limit = time.monotonic() + SECONDS
        while time.monotonic() < limit:
            for event in self.events:
                if found(event):
                    return event
            await asyncio.sleep(0.005)
        raise AssertionError(f"not among {self.events}")

    async def end(self, prompt_id: str) -> list[Any]:
        """Wait for the end of a run and return its events, binary frames left out."""
        await self.wait(
            lambda e: (
                not isinstance(e, bytes)
                and e["type"] == "executing"
                and e["data"]["node"] is None
                and e["data"]["prompt_id"] == prompt_id
            )
        )
        return [
            event
            for event in self.events
            if not isinstance(event, bytes) and event["data"].get("prompt_id") == prompt_id
        ]

    async def run(self, graph: Graph) -> list[Any]:
        """Run a graph and return its events."""
        return await self.end(await self.queued(graph))

    async def outputs(self, graph: Graph) -> dict[str, Any]:
        """Run a graph, which must succeed, and return what its nodes show."""
        events = await self.run(graph)
        assert said(events)[-2][0] == "execution_success", events
        return {e["data"]["node"]: e["data"]["output"] for e in events if e["type"] == "executed"}


def said(events: list[Any]) -> list[tuple[str, Any]]:
    """Return events as their type and node, progress left out."""
    return [(e["type"], e["data"].get("node")) for e in events if e["type"] != "progress_state"]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """Connect a client to an engine."""
    async with aiohttp.ClientSession() as session:
        client = Client(url, session)
        async with session.ws_connect(f"{url}/ws?clientId={client.id}", max_msg_size=0) as socket:
            reader = asyncio.create_task(client.read(socket))
            yield client
            reader.cancel()


def serve(
    base: Path,
    test: Callable[[Client], Awaitable[None]],
    *,
    pace: float = 0,
    previews: bool = False,
) -> None:
    """Run a test with a client of a preview engine."""

    async def run() -> None:
        folders = Folders(base)
        folders.make()
        for model in MODELS:
            folders.add_model(model)
        server = Server(Schemas(CATALOG, folders), folders, pace=pace, previews=previews)
        async with serving(server) as url, connected(url) as client:
            await test(client)

    asyncio.run(run())


def saved(color: int = 1, prefix: str = "x", **inputs: int) -> Graph:
    """Return a graph without models."""
    image = {"width": 64, "height": 48, "batch_size": 1, "color": color, **inputs}
    return {
        "1": {"class_type": "EmptyImage", "inputs": image},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": prefix, "images": ["2", 0]}},
    }


def sampled(seed: int = 1, steps: int = 4, **latent: int) -> Graph:
    """Return a graph that samples."""
    size = {"width": 128, "height": 96, **latent}
    return build_flux_workflow({"prompt": "a fox", "seed": seed, "steps": steps, **size})


def png(width: int = 70, height: int = 50, color: str = "red") -> bytes:
    output = io.BytesIO()
    Image.new("RGB", (width, height), color).save(output, "PNG")
    return output.getvalue()


def test_events_of_a_run(tmp_path: Path) -> None:
    """They come in ComfyUI's order; a run of the same graph runs nothing and names the old file."""

    async def test(client: Client) -> None:
        hello = await client.wait(lambda e: e["type"] == "status")
        assert hello["data"]["sid"] == client.id
        events = await client.run(saved())
        assert said(events) == [
            ("execution_start", None),
            ("execution_cached", None),
            ("executing", "1"),
            ("executing", "2"),
            ("executing", "9"),
            ("executed", "9"),
            ("execution_success", None),
            ("executing", None),
        ]
        assert events[0]["data"]["timestamp"] == pytest.approx(time.time() * 1000, abs=60_000)
        states = [e["data"]["nodes"] for e in events if e["type"] == "progress_state"]
        assert states[0]["1"]["state"] == "running"
        assert {node: state["state"] for node, state in states[-1].items()} == {
            "1": "finished",
            "2": "finished",
            "9": "finished",
        }
        again = await client.run(saved())
        assert again[1]["data"]["nodes"] == ["1", "2", "9"]
        assert said(again)[2:] == [
            ("executed", "9"),
            ("execution_success", None),
            ("executing", None),
        ]
        named = {"images": [{"filename": "x_00001_.png", "subfolder": "", "type": "output"}]}
        assert again[2]["data"]["output"] == named
        [entry] = (await client.get(f"/history/{again[0]['data']['prompt_id']}")).values()
        assert entry["outputs"] == {"9": named}
        assert entry["status"]["completed"] is True
        await client.run(saved(color=2))
        evicted = await client.run(saved())
        assert evicted[1]["data"]["nodes"] == []
        assert (await client.outputs(saved(prefix="y")))["9"]["images"][0]["filename"].startswith(
            "y"
        )
        await client.post("/free", {"free_memory": True})
        assert (await client.run(saved(prefix="y")))[1]["data"]["nodes"] == []

    serve(tmp_path, test)


def test_cache_looks_into_files(tmp_path: Path) -> None:
    """A file uploaded anew under its old name is another input."""
    graph: Graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a", "images": ["1", 0]}},
    }

    async def test(client: Client) -> None:
        for color in ("red", "blue"):
            await client.upload("a.png", png(color=color), overwrite="true")
            [image] = (await client.outputs(graph))["2"]["images"]
            shown = Image.open(io.BytesIO(await client.file(image)))
            assert shown.tobytes() == Image.new("RGB", (70, 50), color).tobytes()

    serve(tmp_path, test)


def test_samplers_tell_their_steps(tmp_path: Path) -> None:
    """k of n as `progress`, with pictures when previews are on, at the pace that is set."""

    async def test(client: Client) -> None:
        start = time.monotonic()
        events = await client.run(sampled(steps=5))
        assert time.monotonic() - start > 5 * 0.02
        progress = [e["data"] for e in events if e["type"] == "progress"]
        assert [(p["value"], p["max"], p["node"]) for p in progress] == [
            (step, 5, "5") for step in range(1, 6)
        ]
        pictures = [event for event in client.events if isinstance(event, bytes)]
        assert len(pictures) == 5
        assert struct.unpack(">II", pictures[0][:8]) == (1, 1)
        assert Image.open(io.BytesIO(pictures[0][8:])).size == (128, 96)

    serve(tmp_path, test, pace=0.02, previews=True)


def test_previews_with_metadata(tmp_path: Path) -> None:
    """A client that says that it takes metadata gets it."""

    async def test(client: Client) -> None:
        async with client.session.ws_connect(f"{client.url}/ws?clientId=other") as socket:
            flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
            await socket.send_json(flags)
            assert (await socket.receive_json())["type"] == "status"
            assert (await socket.receive_json())["type"] == "feature_flags"
            await client.prompt(sampled(steps=1), client_id="other")
            while (message := await socket.receive()).type is not aiohttp.WSMsgType.BINARY:
                pass
        kind, length = struct.unpack(">II", message.data[:8])
        assert kind == 4
        assert json.loads(message.data[8 : 8 + length])["node_id"] == "5"
        assert Image.open(io.BytesIO(message.data[8 + length :])).format == "JPEG"

    serve(tmp_path, test, previews=True)


def test_interrupt_and_delete(tmp_path: Path) -> None:
    """What runs is interrupted at once, what waits is deleted without a trace."""

    async def test(client: Client) -> None:
        first = await client.queued(sampled(seed=1))
        second = await client.queued(sampled(seed=2))
        third = await client.queued(saved())
        await client.wait(lambda e: e["type"] == "executing" and e["data"]["node"] == "5")
        queue = await client.get("/queue")
        assert [prompt[1] for prompt in queue["queue_running"]] == [first]
        assert [prompt[1] for prompt in queue["queue_pending"]] == [second, third]
        assert await client.get("/prompt") == {"exec_info": {"queue_remaining": 3}}
        await client.post("/interrupt", {"prompt_id": second})
        await client.post("/queue", {"delete": [first, second]})
        await client.post("/interrupt", {"prompt_id": first})
        events = await client.end(first)
        interrupted = events[-2]
        assert interrupted["type"] == "execution_interrupted"
        assert interrupted["data"]["node_id"] == "5"
        assert interrupted["data"]["node_type"] == "KSampler"
        assert interrupted["data"]["executed"]
        [entry] = (await client.get(f"/history/{first}")).values()
        assert entry["status"]["status_str"] == "error"
        assert entry["status"]["messages"][-1][0] == "execution_interrupted"
        assert said(await client.end(third))[-2][0] == "execution_success"
        assert await client.get(f"/history/{second}") == {}
        await client.post("/interrupt")
        other = await client.queued(sampled(seed=3))
        await client.queued(sampled(seed=4))
        await client.post("/queue", {"clear": True})
        await client.post("/interrupt")
        assert (await client.end(other))[-2]["type"] == "execution_interrupted"
        assert await client.get("/queue") == {"queue_running": [], "queue_pending": []}

    start = time.monotonic()
    serve(tmp_path, test, pace=10)
    assert time.monotonic() - start < 8


def test_stops_in_mid_run(tmp_path: Path) -> None:
    """The server does not wait for what runs."""

    async def test(client: Client) -> None:
        await client.queued(sampled())
        await client.wait(lambda e: e["type"] == "executing" and e["data"]["node"] == "5")

    start = time.monotonic()
    serve(tmp_path, test, pace=30)
    assert time.monotonic() - start < 8


def test_twenty_at_once(tmp_path: Path) -> None:
    """They run one after another, each with a file of its own, and an earlier number first."""

    async def test(client: Client) -> None:
        ids = await asyncio.gather(*(client.queued(saved(color=n * 1000)) for n in range(20)))
        runs = [await client.end(prompt_id) for prompt_id in ids]
        names = {
            event["data"]["output"]["images"][0]["filename"]
            for events in runs
            for event in events
            if event["type"] == "executed"
        }
        assert len(names) == 20
        started = [
            e["data"]["prompt_id"] for e in client.events if e["type"] in ("execution_start", *ENDS)
        ]
        assert started[::2] == started[1::2]

    serve(tmp_path, test)


def test_front_of_the_queue(tmp_path: Path) -> None:
    """`front` overtakes what waits; numbers and ids may be given."""

    async def test(client: Client) -> None:
        running = await client.queued(sampled(steps=2))
        await client.wait(lambda e: e["type"] == "executing" and e["data"]["node"] == "5")
        _, last = await client.prompt(saved(), prompt_id="last", number=7)
        _, first = await client.prompt(saved(color=3), prompt_id="first", front=True)
        assert (last["prompt_id"], last["number"]) == ("last", 7)
        assert first["number"] < 0
        await client.end("last")
        started = [e["data"]["prompt_id"] for e in client.events if e["type"] == "execution_start"]
        assert started == [running, "first", "last"]

    serve(tmp_path, test, pace=0.1)


def test_other_clients_see_the_queue_only(tmp_path: Path) -> None:
    """Events go to the client that asked; a run without a client tells all of its progress."""

    async def test(client: Client) -> None:
        async with connected(client.url) as other:
            await client.run(saved())
            assert {e["type"] for e in other.events} == {"status"}
            async with client.session.post(
                f"{client.url}/prompt", json={"prompt": saved(color=2)}
            ) as response:
                prompt_id = (await response.json())["prompt_id"]
            while not await client.get(f"/history/{prompt_id}"):
                await asyncio.sleep(0.01)
            assert {e["type"] for e in other.events} == {"status", "progress_state"}

    serve(tmp_path, test)


@pytest.mark.parametrize("prefix", ["../../z", "/etc/z", "a/../../z"])
def test_prefix_outside_is_refused(prefix: str, tmp_path: Path) -> None:
    """The node raises, as ComfyUI's does."""

    async def test(client: Client) -> None:
        events = await client.run(saved(prefix=prefix))
        error = events[-2]
        assert error["type"] == "execution_error"
        assert error["data"]["node_id"] == "9"
        assert "outside the output folder" in error["data"]["exception_message"]
        assert error["data"]["executed"] == ["1", "2"]

    serve(tmp_path / "base", test)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


@pytest.mark.parametrize(
    ("graph", "node", "message"),
    [
        ({**saved(), "2": {"class_type": "ImageInvert", "inputs": {"image": "no link"}}}, "2", "link"),
        (
            {
                **saved(),
                "8": {
                    "class_type": "SaveGLB",
                    "inputs": {"mesh": ["7", 0], "filename_prefix": "m", "image": ""},
                },
                "7": {"class_type": "VoxelToMesh", "inputs": {
                    "voxel": ["6", 0], "algorithm": "basic", "threshold": 0.5}},
                "6": {"class_type": "VAEDecodeHunyuan3D", "inputs": {
                    "samples": ["5", 0], "vae": ["4", 0], "num_chunks": 8000,
                    "octree_resolution": 256}},
                "5": {"class_type": "EmptyLatentImage", "inputs": {
                    "width": 64, "height": 64, "batch_size": 1}},
                "4": {"class_type": "VAELoader", "inputs": {"vae_name": "ae.safetensors"}},
            },
            "8",
            "the preview engine draws no SaveGLB",
        ),
        (
            {
                **saved(),
                "9": {"class_type": "SaveImage", "inputs": {
                    "filename_prefix": "x", "images": ["2", 0], "more": ["1", 0]}},
            },
            "9",
            "unexpected keyword argument 'more'",
        ),
    ],
    ids=["literal-for-link", "undrawn-output", "unknown-link"],
)  # fmt: skip
def test_nodes_that_raise(graph: Graph, node: str, message: str, tmp_path: Path) -> None:
    """A node that cannot run ends the run with an execution_error, and the next one runs."""

    async def test(client: Client) -> None:
        events = await client.run(graph)
        error = events[-2]
        assert error["type"] == "execution_error"
        assert error["data"]["node_id"] == node
        assert error["data"]["node_type"] == graph[node]["class_type"]
        assert message in error["data"]["exception_message"]
        [entry] = (await client.get(f"/history/{events[0]['data']['prompt_id']}")).values()
        assert entry["status"]["status_str"] == "error"
        assert await client.outputs(saved(color=5))

    serve(tmp_path, test)


def test_one_good_output_runs(tmp_path: Path) -> None:
    """The answer is 200 with node_errors, and only the good output is made."""
    graph = saved()
    graph["8"] = {
        "class_type": "SaveImage",
        "inputs": {"filename_prefix": "y", "images": ["77", 0]},
    }

    async def test(client: Client) -> None:
        status, answer = await client.prompt(graph)
        assert status == 200
        assert list(answer["node_errors"]) == ["8"]
        await client.end(answer["prompt_id"])
        [entry] = (await client.get(f"/history/{answer['prompt_id']}")).values()
        assert list(entry["outputs"]) == ["9"]
        status, answer = await client.prompt({"8": graph["8"]})
        assert (status, answer["error"]["type"]) == (400, "prompt_outputs_failed_validation")

    serve(tmp_path, test)


def test_files_are_numbered(tmp_path: Path) -> None:
    """Folders and numbers are ComfyUI's: one count for a prefix, whatever the extension."""

    async def test(client: Client) -> None:
        graph = saved(prefix="a/%width%x%height%", batch_size=3)
        images = (await client.outputs(graph))["9"]["images"]
        assert [image["filename"] for image in images] == [f"64x48_0000{n}_.png" for n in (1, 2, 3)]
        assert {image["subfolder"] for image in images} == {"a"}
        graph["10"] = {
            "class_type": "SaveAnimatedWEBP",
            "inputs": {
                "filename_prefix": "a/64x48",
                "images": ["2", 0],
                "fps": 8.0,
                "lossless": False,
                "quality": 80,
                "method": "default",
            },
        }
        assert (await client.outputs(graph))["10"]["images"][0]["filename"] == "64x48_00004_.webp"
        preview = {"9": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}}
        [image] = (await client.outputs({**saved(), **preview}))["9"]["images"]
        assert image["type"] == "temp"
        assert Image.open(io.BytesIO(await client.file(image))).size == (64, 48)

    serve(tmp_path, test)


def test_uploads(tmp_path: Path) -> None:
    """A name with other bytes gets a number, unless it is to be overwritten; names lead nowhere."""

    async def test(client: Client) -> None:
        async def stored(name: str, data: bytes, **fields: str) -> Any:
            status, answer = await client.upload(name, data, **fields)
            return answer["name"] if status == 200 else status

        assert await stored("a.png", png()) == "a.png"
        assert await stored("a.png", png()) == "a.png"
        assert await stored("a.png", png(8, 8)) == "a (1).png"
        assert await stored("a.png", png(9, 9), overwrite="true") == "a.png"
        assert await stored("t.png", png(), type="temp", subfolder="s/t") == "t.png"
        assert (tmp_path / "base" / "temp" / "s" / "t" / "t.png").is_file()
        for name in ("../../x.png", "/etc/x.png", "..", ""):
            assert await stored(name, png()) == 400, name
        for subfolder in ("../..", "/etc"):
            assert await stored("x.png", png(), subfolder=subfolder) == 400
        assert await stored("x.png", png(), type="models") == 400
        async with client.session.post(f"{client.url}/upload/image", data=b"x") as response:
            assert response.status == 400

    serve(tmp_path / "base", test)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_view(tmp_path: Path) -> None:
    """Files are given as they are, or converted; names lead nowhere."""

    async def test(client: Client) -> None:
        await client.outputs(saved(prefix="sub/x"))
        (tmp_path / "output" / "page.html").write_text("<script>")
        statuses = {
            "filename=x_00001_.png&subfolder=sub": 200,
            "filename=x_00001_.png&subfolder=../output/sub": 200,
            "filename=x_00001_.png": 404,
            "filename=x_00001_.png&subfolder=sub&type=temp": 404,
            "filename=x_00001_.png&subfolder=sub&type=models": 400,
            "filename=": 400,
            "": 404,
            "filename=../../etc/passwd": 400,
            "filename=/etc/passwd": 400,
            "filename=passwd&subfolder=../../etc": 403,
            "filename=passwd&subfolder=/etc": 403,
            "filename=%00": 404,
            "filename=sub": 404,
        }
        for query, status in statuses.items():
            assert await client.status(f"/view?{query}") == status, query
        name = {"filename": "x_00001_.png", "subfolder": "sub"}
        plain = await client.file(name)
        assert Image.open(io.BytesIO(plain)).info == {}
        webp = await client.file({**name, "preview": "webp;50"})
        assert Image.open(io.BytesIO(webp)).format == "WEBP"
        async with client.session.get(f"{client.url}/view?filename=page.html") as response:
            assert response.content_type == "application/octet-stream"

    serve(tmp_path, test)


def test_descriptions(tmp_path: Path) -> None:
    """What there is: classes, models, the machine; other sites' pages are refused."""

    async def test(client: Client) -> None:
        stats = await client.get("/system_stats")
        assert (stats["preview"], stats["system"]["comfyui_version"]) == (True, "0.3.71")
        info = await client.get("/object_info")
        assert len(info) > 500
        assert info["SaveImage"]["input_order"]["required"] == ["images", "filename_prefix"]
        loader = (await client.get("/api/object_info/CheckpointLoaderSimple")).popitem()[1]
        assert loader["input"]["required"]["ckpt_name"][0] == [
            "flux1-schnell-fp8.safetensors",
            "sd_xl_base_1.0.safetensors",
        ]
        assert loader["output"] == ["MODEL", "CLIP", "VAE"]
        assert await client.get("/object_info/Zork") == {}
        assert "SEEDVR2" in await client.get("/models")
        assert await client.get("/models/loras") == ["character-demo.safetensors"]
        assert await client.status("/models/zork") == 404
        assert await client.get("/history?max_items=2") == {}
        headers = {"Origin": "http://example.com"}
        async with client.session.get(f"{client.url}/prompt", headers=headers) as response:
            assert response.status == 403

    serve(tmp_path, test)


def video(data: bytes) -> tuple[str, int, int, float, int]:
    """Return codec, size, frames per second and the number of frames."""
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        rate = float(stream.average_rate or 0)
        return stream.codec_context.name, stream.width, stream.height, rate, frames


def webp(data: bytes) -> tuple[int, int, float, int]:
    """Return size, frames per second and the number of frames of an animated WebP."""
    with Image.open(io.BytesIO(data)) as image:
        frames = getattr(image, "n_frames", 1)
        image.seek(frames - 1)
        image.load()
        return image.width, image.height, 1000 / float(image.info["duration"]), frames


REFERENCE = "reference.png"
SHIPPED: list[tuple[str, Graph, str, tuple[int, ...]]] = [
    ("flux", build_flux_workflow({"prompt": "a fox", "seed": 1}), "9", (1024, 1024)),
    (
        "flux-size",
        build_flux_workflow({"prompt": "a fox", "seed": 1, "width": 640, "height": 360}),
        "9",
        (640, 360),
    ),
    ("flux-dev", build_flux_dev_workflow({"prompt": "a fox", "seed": 1}), "9", (1024, 1024)),
    (
        "flux-lora",
        build_flux_lora_workflow({"prompt": "a fox", "seed": 1, "lora_id": "demo"}),
        "9",
        (1024, 1024),
    ),
    (
        "flux-instantid",
        build_flux_instantid_workflow(
            {"prompt": "a fox", "seed": 1, "reference_image": REFERENCE, "width": 768}
        ),
        "9",
        (768, 1024),
    ),
    ("wan2", build_wan2_workflow({"prompt": "a fox", "seed": 1}), "28", (832, 480, 16, 33)),
    (
        "wan2-mp4",
        build_wan2_workflow({"prompt": "a fox", "seed": 1, "format": "mp4", "length": 17, "fps": 8}),
        "50",
        (832, 480, 8, 17),
    ),
    ("seedvr2", build_seedvr2_workflow({"image": REFERENCE, "seed": 1}), "5", (1728, 1080)),
    (
        "seedvr2-limit",
        build_seedvr2_workflow({"image": REFERENCE, "seed": 1, "max_resolution": 800}),
        "5",
        (800, 500),
    ),
]  # fmt: skip


def test_shipped_workflows(tmp_path: Path) -> None:
    """Each gives its kind of file, of its size and length."""

    async def test(client: Client) -> None:
        await client.upload(REFERENCE, png(640, 400))
        for name, graph, node, size in SHIPPED:
            [output] = (await client.outputs(graph))[node]["images"]
            data = await client.file(output)
            if name == "wan2":
                width, height, fps, frames = webp(data)
                assert (width, height, frames) == (size[0], size[1], size[3]), name
                assert fps == pytest.approx(size[2], rel=0.02)
            elif name == "wan2-mp4":
                assert video(data) == ("h264", *size), name
            else:
                image = Image.open(io.BytesIO(data))
                assert (image.format, image.size, image.info) == ("PNG", size, {}), name
            if name.startswith("seedvr2"):
                assert image.convert("RGB").getpixel((5, 5)) == (255, 0, 0)

    serve(tmp_path, test)


def test_placeholders_follow_the_seed(tmp_path: Path) -> None:
    """The same seed gives the same pixels, another one others; a batch gives several pictures."""

    async def test(client: Client) -> None:
        async def drawn(seed: int, **more: int) -> list[bytes]:
            await client.post("/free", {"free_memory": True})
            images = (await client.outputs({**sampled(seed), **batch(**more)}))["9"]["images"]
            return [await client.file(image) for image in images]

        def batch(batch_size: int = 1) -> Graph:
            size = {"width": 128, "height": 96, "batch_size": batch_size}
            return {"3": {"class_type": "EmptySD3LatentImage", "inputs": size}}

        first, again, other = await drawn(1), await drawn(1), await drawn(2)
        assert first == again != other
        assert len(set(await drawn(1, batch_size=3))) == 3

    serve(tmp_path, test)


@pytest.mark.parametrize(
    ("nodes", "size"),
    [
        ({"3": ("ImageScale", {"image": ["1", 0], "upscale_method": "bicubic", "width": 100,
                "height": 0, "crop": "disabled"})}, (100, 75)),
        ({"3": ("ImageScaleBy", {"image": ["1", 0], "upscale_method": "bicubic",
                "scale_by": 2.5})}, (160, 120)),
        ({"3": ("ImageBatch", {"image1": ["1", 0], "image2": ["1", 0]})}, (64, 48)),
        ({"2": ("PrimitiveInt", {"value": 40}), "3": ("EmptyImage", {"width": ["2", 0],
                "height": 33, "batch_size": 1, "color": 0})}, (40, 33)),
        ({"3": ("ImagePadForOutpaint", {"image": ["1", 0], "left": 8, "top": 0, "right": 8,
                "bottom": 16, "feathering": 4})}, (80, 64)),
    ],
    ids=["scale", "scale-by", "batch", "primitive", "pad"],
)  # fmt: skip
def test_sizes_upstream(
    nodes: dict[str, tuple[str, Any]], size: tuple[int, int], tmp_path: Path
) -> None:
    """The size is found by following the links."""
    graph = saved()
    graph |= {
        node: {"class_type": name, "inputs": inputs} for node, (name, inputs) in nodes.items()
    }
    graph["9"]["inputs"]["images"] = ["3", 0]

    async def test(client: Client) -> None:
        image = (await client.outputs(graph))["9"]["images"][0]
        assert Image.open(io.BytesIO(await client.file(image))).size == size

    serve(tmp_path, test)


def test_other_media(tmp_path: Path) -> None:
    """WebM, animated PNG, sound and text."""
    graph: Graph = {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 64, "height": 48, "batch_size": 5, "color": 9},
        },
        "2": {
            "class_type": "SaveWEBM",
            "inputs": {
                "images": ["1", 0], "filename_prefix": "v", "codec": "vp9",
                "fps": 8.0, "crf": 32.0,
            },
        },
        "3": {
            "class_type": "SaveAnimatedPNG",
            "inputs": {"images": ["1", 0], "filename_prefix": "p", "fps": 8.0, "compress_level": 4},
        },
        "4": {"class_type": "PreviewAny", "inputs": {"source": {"a": 1}}},
        "5": {"class_type": "EmptyAudio", "inputs": {
            "duration": 1.5, "sample_rate": 44100, "channels": 2}},
        "6": {"class_type": "SaveAudio", "inputs": {"audio": ["5", 0], "filename_prefix": "s"}},
    }  # fmt: skip

    async def test(client: Client) -> None:
        outputs = await client.outputs(graph)
        assert outputs["2"]["animated"] == [True]
        data = await client.file(outputs["2"]["images"][0])
        assert video(data) == ("vp9", 64, 48, 8.0, 5)
        assert outputs["4"] == {"text": ['{\n    "a": 1\n}']}
        with av.open(io.BytesIO(await client.file(outputs["6"]["audio"][0])), "r") as container:
            stream = container.streams.audio[0]
            samples = sum(frame.samples for frame in container.decode(stream))
        assert (stream.codec_context.name, samples) == ("flac", 66150)

    serve(tmp_path, test)


def test_command(tmp_path: Path) -> None:
    """It prints its URL, serves on the loopback and stops when told to, leaving with 0."""
    command = [sys.executable, "-m", "generator.preview"]
    told = subprocess.run([*command, "--help"], cwd=ROOT, check=True, capture_output=True)
    assert b"--pace SECONDS" in told.stdout
    model = "checkpoints/a.safetensors"
    process = subprocess.Popen(
        [*command, "--port", "0", "--base-directory", str(tmp_path), "--model", model],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    with process, process.stdout:
        url = process.stdout.readline().decode().split()[-1]
        assert url.startswith("http://127.0.0.1:")

        async def models() -> Any:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{url}/models/checkpoints") as response,
            ):
                return await response.json()

        assert asyncio.run(models()) == ["a.safetensors"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--model", "../x.safetensors"],
        ["--model", "x.safetensors"],
        ["--pack", "no-such-pack"],
        ["--pace", "-1"],
        ["--port", "99999"],
    ],
)
def test_command_refuses(options: list[str], tmp_path: Path) -> None:
    """What cannot be served is said in a line, with exit code 2."""
    run = subprocess.run(
        [sys.executable, "-m", "generator.preview", "--base-directory", str(tmp_path), *options],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
