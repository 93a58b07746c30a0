"""The rendered API against a real ComfyUI: a service in a process of its own, asked over HTTP."""

import asyncio
import base64
import io
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from av.video.frame import VideoFrame
from PIL import Image, ImageChops

from generator.publish import publish
from generator.render import render
from templates.utils.comfyui_files import Directories
from tests.api_client import problem
from tests.conftest import load_and_check
from tests.engine.conftest import Installed
from tests.engine.test_comfyui_client import (
    REFUSED,
    Graph,
    colours,
    empty,
    node,
    picture,
    rgb,
    still,
)

SPECS = Path(__file__).parent / "specs"
PACKAGE = "rendered_for_engine_tests"
SECONDS = 60
JSON = {"Accept": "application/json"}
ASYNC = {"Prefer": "respond-async"}

Body = dict[str, Any]


@dataclass(frozen=True)
class Api:
    """A service and the engine that it asks; `local` says that it reads the engine's files."""

    url: str
    engine: Installed
    local: bool

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return httpx.request(method, self.url + path, timeout=SECONDS, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, body: object = None, **options: Any) -> httpx.Response:
        return self.request("POST", path, json=body, **options)

    def queued(self) -> int:
        """Return how many runs the engine has, executed or waiting."""
        queue = httpx.get(f"{self.engine.url}/queue", timeout=SECONDS).json()
        return len(queue["queue_running"]) + len(queue["queue_pending"])

    def until(self, job: str, wanted: Callable[[Body], bool]) -> Body:
        """Return a job once it is as wanted."""
        limit = time.monotonic() + SECONDS
        while time.monotonic() < limit:
            found: Body = self.get(f"/jobs/{job}").json()
            if wanted(found):
                return found
            time.sleep(0.02)
        pytest.fail(f"the job stays as it is: {found}")

    def start(self, path: str, body: Body) -> str:
        """Start a job, and return its id."""
        reply = self.post(path, body, headers=ASYNC)
        assert reply.status_code == 202, reply.text
        assert reply.headers["preference-applied"] == "respond-async"
        job: str = reply.json()["job"]
        assert reply.headers["location"] == f"/jobs/{job}"
        return job

    def works(self) -> None:
        """See that the engine makes pictures."""
        colour = next(colours)
        assert pixel(good(self.post("/picture", {"color": colour}))) == rgb(colour)


def wait_until(found: Callable[[], bool], seconds: float, failure: str) -> None:
    limit = time.monotonic() + seconds
    while not found():
        if time.monotonic() >= limit:
            pytest.fail(failure)
        time.sleep(0.02)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The specs of this folder, rendered."""
    checked, diagnostics = load_and_check(SPECS)
    assert checked is not None, diagnostics
    target = tmp_path_factory.mktemp("rendered") / PACKAGE
    publish(render(checked), target)
    return target


@contextmanager
def serving(package: Path, engine: Installed, *, local: bool) -> Iterator[Api]:
    """Run the service as `python -m PACKAGE.api` does."""
    command = [sys.executable, "-W", "error", "-m", f"{package.name}.api"]
    command += ["--port", "0", "--comfyui-url", engine.url]
    command += ["--base-directory", str(engine.base)] if local else []
    log = package.parent / f"{engine.port}-{local}.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, cwd=package.parent, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        try:
            assert process.stdout is not None
            greeting = process.stdout.readline().decode()
            found = re.match(r"serving on (http://127\.0\.0\.1:\d+) ", greeting)
            assert found, log.read_text(errors="replace")
            yield Api(found[1], engine, local)
        finally:
            process.terminate()
            assert process.wait(20) == 0, log.read_text(errors="replace")
    assert "Traceback" not in log.read_text(errors="replace")


@pytest.fixture(scope="session")
def _local(package: Path, engine: Installed) -> Iterator[Api]:
    with serving(package, engine, local=True) as api:
        yield api


@pytest.fixture(scope="session")
def _remote(package: Path, engine: Installed) -> Iterator[Api]:
    with serving(package, engine, local=False) as api:
        yield api


def files_of(directories: Directories) -> list[Path]:
    return [*directories.output.iterdir(), *directories.input.rglob("*.*")]


@pytest.fixture
def api(_local: Api) -> Iterator[Api]:
    """A service that reads the engine's files; it must leave none behind."""
    assert not files_of(_local.engine.directories)
    yield _local
    wait_until(lambda: not _local.queued(), 5, "the engine still works")
    wait_until(lambda: not files_of(_local.engine.directories), 5, "files are left behind")


@pytest.fixture
def remote(_remote: Api) -> Iterator[Api]:
    """A service that has nothing but the engine's URL."""
    yield _remote
    directories = _remote.engine.directories
    for path in directories.output.iterdir():
        shutil.rmtree(path)
    for path in directories.input.rglob("*.*"):
        path.unlink()


@pytest.fixture(params=["local", "remote"])
def either(request: pytest.FixtureRequest) -> Api:
    """Each of the two in turn."""
    found: Api = request.getfixturevalue("api" if request.param == "local" else "remote")
    return found


def good(reply: httpx.Response, media_type: str = "image/png") -> bytes:
    """Return the bytes of a reply that must be an output."""
    assert reply.status_code == 200, reply.text[:2000]
    assert reply.headers["content-type"] == media_type
    return reply.content


def pixel(data: bytes) -> Any:
    return picture(data).getpixel((0, 0))


def alike(data: bytes, expected: Image.Image) -> bool:
    """Say whether a picture is another, but for ComfyUI's rounding: it computes in fractions."""
    found = picture(data)
    if (found.size, found.mode) != (expected.size, expected.mode):
        return False
    extrema: Any = ImageChops.difference(found, expected).getextrema()
    return all(most <= 1 for _, most in extrema)


def without_metadata(data: bytes) -> bytes:
    """Return a PNG without its texts: this engine writes the graph there, job and all."""
    if not data.startswith(b"\x89PNG"):
        return data
    kept, rest = data[:8], data[8:]
    while rest:
        length = 12 + int.from_bytes(rest[:4], "big")
        kept += b"" if rest[4:8] == b"tEXt" else rest[:length]
        rest = rest[length:]
    return kept


def near(found: Any, colour: int) -> bool:
    """Say whether a pixel has a colour, but for what a video codec does to it."""
    return all(abs(a - b) < 12 for a, b in zip(found, rgb(colour), strict=True))


def noise(width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.randbytes(3 * width * height))


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    output = io.BytesIO()
    image.save(output, format, **options)
    return output.getvalue()


def video(*frames: int) -> bytes:
    """Return an MP4 whose frames have these colours."""
    output = io.BytesIO()
    with av.open(output, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for colour in frames:
            frame = VideoFrame(64, 48, "rgb24")
            frame.planes[0].update(bytes(rgb(colour)) * (64 * 48))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return output.getvalue()


def line_of(workflow: str, text: str) -> int:
    """Return the line of a spec that holds a text."""
    lines = (SPECS / "workflows" / f"{workflow}.yaml").read_text(encoding="utf-8").splitlines()
    [found] = [number for number, line in enumerate(lines, 1) if text in line]
    return found


# Replies


def test_a_picture(either: Api) -> None:
    colour = next(colours)
    reply = either.post("/picture", {"width": 800, "height": 600, "color": colour})
    image = picture(good(reply))
    assert image.size == (800, 600)
    assert image.getcolors() == [(800 * 600, rgb(colour))]
    headers = reply.headers
    assert re.fullmatch(r"job_[0-9a-z]{26}", headers["x-job-id"])
    assert (headers["x-gpu-type"], headers["x-engine"]) == ("cpu", "comfyui/0.3.75")
    assert (headers["x-cost-usd"], headers["x-output-count"]) == ("0.000000", "1")
    assert 0 < float(headers["x-execution-time-sec"]) < 5
    assert 0 <= float(headers["x-queue-time-sec"]) < 5
    assert (
        headers["content-disposition"]
        == f'inline; filename="{headers["x-job-id"]}_picture_00001_.png"'
    )


@pytest.mark.parametrize("format", ["webp", "mp4", None])
def test_the_format_is_chosen(either: Api, format: str | None) -> None:
    frames = {"first": next(colours), "second": next(colours)}
    reply = either.post("/moving", frames | ({"format": format} if format else {}))
    if format == "mp4":
        with av.open(io.BytesIO(good(reply, "video/mp4")), "r") as container:
            found = [
                frame.to_image()  # type: ignore[no-untyped-call]
                for frame in container.decode(video=0)
            ]
        assert [image.size for image in found] == [(64, 48)] * 2
        for image, colour in zip(found, frames.values(), strict=True):
            assert near(image.getpixel((9, 9)), colour)
        return
    data = good(reply, "image/webp")
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 2
        for number, colour in enumerate(frames.values()):
            image.seek(number)
            assert image.convert("RGB").getpixel((9, 9)) == rgb(colour)


SENDERS: dict[str, Callable[[Api, bytes], httpx.Response]] = {
    "base64": lambda api, data: api.post("/inverted", {"image": base64.b64encode(data).decode()}),
    "data URI": lambda api, data: api.post(
        "/inverted", {"image": f"data:image/png;base64,{base64.b64encode(data).decode()}"}
    ),
    "form": lambda api, data: api.request(
        "POST", "/inverted", files={"image": ("../any name.png", data, "image/png")}
    ),
}


@pytest.mark.parametrize("way", SENDERS)
def test_a_picture_in(either: Api, way: str) -> None:
    image = noise(37, 21)
    reply = SENDERS[way](either, encoded(image, "PNG"))
    assert alike(good(reply), ImageChops.invert(image))


def test_a_turned_photograph_arrives_upright(api: Api) -> None:
    image = Image.new("RGB", (32, 16), "red")
    image.paste((0, 0, 255), (16, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what is left comes to the top
    data = encoded(image, "JPEG", quality=95, subsampling=0, exif=exif)
    found = picture(good(SENDERS["base64"](api, data)))
    assert found.size == (16, 32)
    assert near(found.getpixel((8, 4)), 0x00FFFF)
    assert near(found.getpixel((8, 28)), 0xFFFF00)


def test_a_video_in(either: Api) -> None:
    frames = [0xFF0000, 0x00FF00, 0x0000FF]
    body = {"video": base64.b64encode(video(*frames)).decode()}
    reply = either.post("/frames", body, headers=JSON)
    assert reply.status_code == 200, reply.text
    outputs = reply.json()["outputs"]
    assert len(outputs) == len(frames)
    for output, colour in zip(outputs, frames, strict=True):
        assert (output["width"], output["height"]) == (64, 48)
        assert near(pixel(base64.b64decode(output["data"])), colour)


def test_several_outputs(either: Api) -> None:
    colour = next(colours)
    body = {"color": colour, "text": "ein Text"}
    reply = either.post("/several", body, headers=JSON)
    assert reply.status_code == 200, reply.text
    document = reply.json()
    assert (document["status"], document["engine"]) == ("succeeded", "comfyui/0.3.75")
    assert (document["gpu"], document["cost"], document["problem"]) == ("cpu", 0.0, None)
    outputs = document["outputs"]
    assert [(o["node"], o["kind"], o["media_type"]) for o in outputs] == [
        ("8", "images", "image/png"),
        ("7", "text", "text/plain"),
        ("5", "images", "image/png"),
        ("4", "images", "image/png"),
    ]
    for number, output in enumerate(outputs):
        assert output["url"] == f"/jobs/{document['job']}/outputs/{number}"
        found = either.get(output["url"])
        assert found.status_code == 200
        assert found.headers["content-type"].partition(";")[0] == output["media_type"]
        assert found.content == base64.b64decode(output["data"])
        assert len(found.content) == output["bytes"]
        if output["kind"] == "images":
            expected = rgb(colour if output["node"] == "8" else 0xFFFFFF - colour)
            assert (output["width"], output["height"]) == (40, 24)
            assert alike(found.content, Image.new("RGB", (40, 24), expected))
        else:
            assert found.text == "ein Text"
    assert either.get(f"/jobs/{document['job']}/outputs/4").status_code == 404


@pytest.mark.parametrize("way", ["JSON", "form"])
def test_a_long_prompt_comes_back_as_it_was(api: Api, way: str) -> None:
    characters = "abc é漢🐋 \t\n\"'\\${x} {} <b> %2F /* */"
    prompt = "".join(itertools.islice(itertools.cycle(characters), 9_980)) + os.urandom(10).hex()
    assert len(prompt) == 10_000
    if way == "JSON":
        reply = api.post("/text", {"prompt": prompt})
    else:
        reply = api.request("POST", "/text", files={"prompt": (None, prompt)})
    assert good(reply, "text/plain; charset=utf-8").decode() == prompt


def test_the_same_request_again_gives_the_same_again(api: Api) -> None:
    """ComfyUI would run nothing, and name files that are gone."""
    body = {"color": next(colours), "text": "again"}
    first = api.post("/several", body, headers=JSON).json()
    for path in api.engine.directories.temp.iterdir():
        path.unlink()  # as anybody may at any time
    second = api.post("/several", body, headers=JSON).json()
    assert first["job"] != second["job"]
    assert len(first["outputs"]) == 4
    for one, other in zip(first["outputs"], second["outputs"], strict=True):
        assert one["bytes"] > 4
        found = [base64.b64decode(output["data"]) for output in (one, other)]
        assert without_metadata(found[0]) == without_metadata(found[1])


# Faults


def test_a_node_that_raises(api: Api) -> None:
    message = f'a "quoted" \\ reason {next(colours)}'
    reply = api.post("/failing", {"message": message, "color": next(colours)})
    document = problem(reply, 500, "node-failed")
    assert document["detail"] == f"no face: {message}"
    assert (document["node"], document["class_type"]) == ("2", "ProbeRaise")
    assert document["file"] == "workflows/failing.yaml"
    assert document["line"] == line_of("failing", "ProbeRaise")
    assert document["params"] == ["message"]
    [error] = document["errors"]
    assert error["detail"] == f"no face: {message}"
    job = api.get(f"/jobs/{document['job']}").json()
    assert (job["status"], job["outputs"]) == ("failed", [])
    assert job["problem"] == document
    api.works()


@pytest.mark.parametrize(
    ("kind", "status", "code", "words"),
    [
        ("memory", 500, "engine-out-of-memory", "CUDA out of memory. Tried to allocate 20.00 GiB."),
        ("disk", 507, "disk-full", "[Errno 28] No space left on device"),
    ],
)
def test_a_node_that_uses_something_up(
    api: Api, kind: str, status: int, code: str, words: str
) -> None:
    document = problem(api.post("/used-up", {"kind": kind, "color": next(colours)}), status, code)
    assert document["detail"].startswith(words)
    assert (document["node"], document["class_type"]) == ("2", "ProbeFail")
    assert document["line"] == line_of("used-up", "ProbeFail")
    api.works()


def test_an_output_that_is_missing(api: Api) -> None:
    document = problem(api.post("/missing", {"filename": "nothing.png"}), 500, "output-missing")
    assert api.get(f"/jobs/{document['job']}").json()["outputs"] == []
    api.works()


@pytest.mark.parametrize("kind", REFUSED)
def test_a_graph_that_the_engine_would_refuse(api: Api, kind: str) -> None:
    runs = len(httpx.get(f"{api.engine.url}/history", timeout=SECONDS).json())
    graph, _, _ = REFUSED[kind]
    reply = api.post("/workflow", {"workflow": graph})
    document = problem(reply, 422)
    assert document["code"] in ("bad-params", "bad-graph", "unknown-model")
    assert len(httpx.get(f"{api.engine.url}/history", timeout=SECONDS).json()) == runs


HANGING: dict[str, Graph] = {
    "a node without inputs that nothing needs": {**still(0), "3": {"class_type": "EmptyImage"}},
    "an unknown input from a node that is not there": {
        "1": empty(0),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x", zork=["99", 0]),
    },
}


@pytest.mark.parametrize("kind", HANGING)
def test_a_graph_that_would_stop_the_engine_for_good(api: Api, kind: str) -> None:
    problem(api.post("/workflow", {"workflow": HANGING[kind]}), 422)
    assert not api.queued()
    api.works()


# Any graph


def test_any_graph(either: Api) -> None:
    colour = next(colours)
    reply = either.post("/workflow", {"workflow": still(colour)})
    assert pixel(good(reply)) == rgb(colour)


@pytest.mark.parametrize("way", ["JSON", "form"])
def test_any_graph_with_files(api: Api, way: str) -> None:
    first, second = noise(24, 18), noise(24, 18)
    files = {"a.png": encoded(first, "PNG"), "b c.png": encoded(second, "PNG")}
    graph = {
        "1": node("LoadImage", image="a.png"),
        "2": node("LoadImage", image="b c.png"),
        "3": node("ImageInvert", image=["2", 0]),
        "4": node("SaveImage", images=["1", 0], filename_prefix="x"),
        "5": node("SaveImage", images=["3", 0], filename_prefix="x"),
    }
    if way == "JSON":
        sent = {name: base64.b64encode(data).decode() for name, data in files.items()}
        reply = api.post("/workflow", {"workflow": graph, "files": sent}, headers=JSON)
    else:
        parts: list[Any] = [("files", (name, data)) for name, data in files.items()]
        parts.append(("workflow", (None, httpx.Request("POST", api.url, json=graph).content)))
        reply = api.request("POST", "/workflow", files=parts, headers=JSON)
    assert reply.status_code == 200, reply.text
    found = [base64.b64decode(output["data"]) for output in reply.json()["outputs"]]
    assert len(found) == 2
    assert alike(found[0], first)
    assert alike(found[1], ImageChops.invert(second))


def test_a_file_that_was_not_sent(api: Api) -> None:
    graph = {
        "1": node("LoadImage", image="absent.png"),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    document = problem(api.post("/workflow", {"workflow": graph}), 422, "bad-graph")
    assert document["errors"][0]["pointer"] == "#/workflow/1/inputs/image"


def test_a_prompt_replaces_the_positive_text(api: Api) -> None:
    """The engine's history has the graph as it arrived; without weights it fails at the loader."""
    checkpoints = api.engine.base / "models" / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    name = f"none-{next(colours)}.safetensors"
    graph = {
        "1": node("CheckpointLoaderSimple", ckpt_name=name),
        "2": node("CLIPTextEncode", text="old", clip=["1", 1]),
        "3": node("CLIPTextEncode", text="bad", clip=["1", 1]),
        "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "5": node(
            "KSampler",
            seed=1,
            steps=1,
            cfg=1.0,
            sampler_name="euler",
            denoise=1.0,
            scheduler="simple",
            model=["1", 0],
            positive=["2", 0],
            negative=["3", 0],
            latent_image=["4", 0],
        ),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="x"),
    }
    body = {"workflow": graph, "prompt": "a blue whale"}
    document = problem(api.post("/workflow", body), 422, "bad-graph")
    assert document["errors"][0]["code"] == "unknown-model"
    (checkpoints / name).touch()
    try:
        document = problem(api.post("/workflow", body), 500, "node-failed")
    finally:
        (checkpoints / name).unlink()
    assert (document["node"], document["class_type"]) == ("1", "CheckpointLoaderSimple")
    assert document["errors"][0]["pointer"] == "#/workflow/1"
    history = httpx.get(f"{api.engine.url}/history?max_items=1", timeout=SECONDS).json()
    [entry] = history.values()
    texts = [entry["prompt"][2][place]["inputs"]["text"] for place in ("2", "3")]
    assert texts == ["a blue whale", "bad"]


# Jobs


def test_a_run_is_cancelled_while_it_is_executed(either: Api) -> None:
    job = either.start("/slow", {"color": next(colours)})
    running = either.until(job, lambda found: bool((found["progress"] or {}).get("value")))
    assert running["status"] == "running"
    progress = running["progress"]
    assert (progress["node"], progress["title"], progress["max"]) == ("2", "Take time", 300)
    begin = time.monotonic()
    stopped = either.request("DELETE", f"/jobs/{job}")
    assert (stopped.status_code, stopped.json()["status"]) == (200, "cancelled")
    assert time.monotonic() - begin < 5
    assert not either.queued()
    problem(either.get(f"/jobs/{job}/result"), 409, "job-cancelled")
    again = either.request("DELETE", f"/jobs/{job}")
    assert (again.status_code, again.json()) == (200, stopped.json())
    either.works()


def test_a_run_is_cancelled_while_it_waits(api: Api) -> None:
    first = api.start("/slow", {"color": next(colours), "steps": 15})
    api.until(first, lambda found: found["status"] == "running")
    second = api.start("/picture", {"color": next(colours)})
    waiting = api.until(second, lambda found: found["position"] is not None)
    assert (waiting["status"], waiting["position"]) == ("queued", 1)
    stopped = api.request("DELETE", f"/jobs/{second}").json()
    assert (stopped["status"], stopped["outputs"]) == ("cancelled", [])
    assert api.get(f"/jobs/{first}").json()["status"] == "running"
    assert good(api.get(f"/jobs/{first}/result", headers={"Prefer": "wait=20"}))
    problem(api.request("DELETE", f"/jobs/{first}"), 409, "job-ended")
    problem(api.get(f"/jobs/{second}/result"), 409, "job-cancelled")


@asynccontextmanager
async def asking(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=api.url, timeout=SECONDS, limits=limits) as client:
        yield client


def go(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(150):
            await body()

    asyncio.run(main())


def test_a_caller_that_goes_away_takes_the_run_along(api: Api) -> None:
    async def body() -> None:
        async with asking(api) as client:
            tasks = [
                asyncio.create_task(client.post("/slow", json={"color": next(colours)}))
                for _ in range(2)
            ]
            while await asyncio.to_thread(api.queued) < 2:
                await asyncio.sleep(0.02)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    go(body)
    wait_until(lambda: not api.queued(), 5, "the engine works on for nobody")
    api.works()


# Many at once


def test_twenty_at_once_each_gets_its_own(api: Api) -> None:
    wanted = [next(colours) for _ in range(20)]

    async def body() -> None:
        async with asking(api) as client:
            begin = time.monotonic()
            replies = await asyncio.gather(
                *(client.post("/picture", json={"width": 300, "color": c}) for c in wanted)
            )
            wall = time.monotonic() - begin
        assert [pixel(good(reply)) for reply in replies] == [rgb(colour) for colour in wanted]
        assert len({reply.headers["x-job-id"] for reply in replies}) == 20
        seconds = [float(reply.headers["x-execution-time-sec"]) for reply in replies]
        assert 0 < sum(seconds) <= wall

    go(body)


def test_equal_requests_at_once_are_runs_of_their_own(api: Api) -> None:
    wanted = [next(colours) for _ in range(10)]

    async def body() -> None:
        async with asking(api) as client:
            replies = await asyncio.gather(
                *(
                    client.post("/picture", json={"color": colour})
                    for colour in wanted
                    for _ in range(2)
                )
            )
        for colour, one, other in zip(wanted, replies[::2], replies[1::2], strict=True):
            assert pixel(good(one)) == rgb(colour)
            assert without_metadata(good(one)) == without_metadata(good(other))
        assert len({reply.headers["x-job-id"] for reply in replies}) == 20

    go(body)


def test_the_same_picture_in_many_requests_at_once(api: Api) -> None:
    """They share the engine's input file, which goes with the last of them."""
    image = noise(64, 64)
    body = {"image": base64.b64encode(encoded(image, "PNG")).decode()}

    async def ask() -> None:
        async with asking(api) as client:
            replies = await asyncio.gather(*(client.post("/inverted", json=body) for _ in range(5)))
        assert all(alike(good(reply), ImageChops.invert(image)) for reply in replies)

    go(ask)
