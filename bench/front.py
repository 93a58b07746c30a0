"""What the API costs over a bare client of the same ComfyUI, on a graph without models.

    python -m bench.front [--rounds 10] [--earlier 10000]

One ComfyUI on the CPU (`python -m tests.engine.install`) makes pictures of 512×512, each in a
colour of its own: asked by the API, a rendered service in a process of its own, and by a bare
client, which does without all that the API does: one websocket, the file name from `executed`, the
file from disk. Both are called from here, by the same code, in interleaved rounds: 20 requests one
after the other, then 40 by 8 callers. Then all of it once more after 10,000 earlier outputs, which
lie where each of the two would have left them; the API leaves none.

Prints the medians and two ratios, the medians of the rounds' own. Exits 1 when the API's median
time is above 1.2 times the bare client's, or its requests per second are below 0.9 of them.
"""

import argparse
import asyncio
import io
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self
from uuid import uuid4

import aiohttp
from PIL import Image

from generator.cli import main as generate
from generator.ports import free_port
from templates.utils.comfyui_process import EngineProcess, tied_to_this_process
from tests.engine import install

SEQUENTIAL: Final = 20
CONCURRENT: Final = 40
CALLERS: Final = 8
MOST_TIME: Final = 1.2
LEAST_RATE: Final = 0.9
PATIENCE: Final = 5.0
SIZE: Final = 512
PREFIX: Final = "bench"

SPECS: Final = {
    "gpu.yaml": """\
app: bench
python: "3.11"
comfyui: {version: 0.3.71, commit: c55fd7481626d8bee8044ea7512ea996d13a1b90}
gpus:
  default: l40s
  l40s: {modal: L40S, vram_gb: 48, price_per_second: 0.000542}
""",
    "models.yaml": "models: {}\npacks: {}\n",
    "workflows/tint.yaml": f"""\
params:
  color: {{type: integer}}
graph:
  1:
    class_type: EmptyImage
    inputs: {{width: {SIZE}, height: {SIZE}, batch_size: 1, color: "${{color}}"}}
  2:
    class_type: SaveImage
    inputs: {{images: [1, 0], filename_prefix: {PREFIX}}}
""",
}

Picture = Callable[[int], Awaitable[bytes]]


class Bare:
    """A client of ComfyUI that does what it must, and nothing else."""

    def __init__(self, url: str, output: Path) -> None:
        self._url = url
        self._output = output
        self._client_id = uuid4().hex
        self._waiting: dict[str, asyncio.Future[str]] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(f"{self._url}/ws?clientId={self._client_id}")
        self._listener = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.cancel()
        await asyncio.gather(self._listener, return_exceptions=True)
        await self._socket.close()
        await self._session.close()

    async def picture(self, colour: int) -> bytes:
        """Return a picture of a colour."""
        prompt_id = uuid4().hex
        name = asyncio.get_running_loop().create_future()
        self._waiting[prompt_id] = name
        image = {"width": SIZE, "height": SIZE, "batch_size": 1, "color": colour}
        graph = {
            "1": {"class_type": "EmptyImage", "inputs": image},
            "2": {
                "class_type": "SaveImage",
                "inputs": {"images": ["1", 0], "filename_prefix": PREFIX},
            },
        }
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": self._client_id}
        async with self._session.post(f"{self._url}/prompt", json=body) as response:
            response.raise_for_status()
            await response.read()
        return Path(self._output, await name).read_bytes()

    async def _listen(self) -> None:
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                event = message.json()
                if event["type"] == "executed":
                    [image] = event["data"]["output"]["images"]
                    self._waiting.pop(event["data"]["prompt_id"]).set_result(image["filename"])


class Api:
    """A client of the API."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> Self:
        # Not as long as the server keeps a connection, which would close it under a request.
        connector = aiohttp.TCPConnector(keepalive_timeout=3)
        self._session = aiohttp.ClientSession(connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def picture(self, colour: int) -> bytes:
        """Return a picture of a colour."""
        async with self._session.post(f"{self._url}/tint", json={"color": colour}) as response:
            response.raise_for_status()
            return await response.read()


@dataclass
class Measured:
    """What one of the two has shown: milliseconds and requests per second, by round."""

    times: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


class Bench:
    """Both clients of one engine."""

    def __init__(self, bare: Bare, api: Api, output: Path) -> None:
        self._pictures: dict[str, Picture] = {"bare": bare.picture, "API": api.picture}
        self._output = output
        # No colour comes twice, for what was made before comes faster.
        self._colours = iter(random.sample(range(2**24), 100_000))

    async def measure(self, rounds: int) -> dict[str, Measured]:
        """Return what both show; nothing that they make is left behind."""
        found = {name: Measured() for name in self._pictures}
        earlier = set(self._output.iterdir())
        for number in range(-1, rounds):
            for name in sorted(self._pictures, reverse=number % 2 == 0):
                median = await self._one_by_one(name)
                rate = await self._at_once(name)
                await self._clear(earlier)
                if number >= 0:  # the round before warms both up
                    found[name].times.append(median)
                    found[name].rates.append(rate)
        return found

    async def _one_by_one(self, name: str) -> float:
        """Return the median of what requests take, in milliseconds."""
        times: list[float] = []
        for _ in range(SEQUENTIAL):
            start = time.perf_counter()
            made = await self._ask(name)
            times.append((time.perf_counter() - start) * 1000)
            check(*made)
        return statistics.median(times)

    async def _at_once(self, name: str) -> float:
        """Return how many requests a second are answered to several callers of one."""
        left = iter(range(CONCURRENT))
        made: list[tuple[int, bytes]] = []

        async def call() -> None:
            for _ in left:
                made.append(await self._ask(name))

        start = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(CALLERS)))
        seconds = time.perf_counter() - start
        for each in made:
            check(*each)
        return len(made) / seconds

    async def _ask(self, name: str) -> tuple[int, bytes]:
        colour = next(self._colours)
        return colour, await self._pictures[name](colour)

    async def _clear(self, earlier: set[Path]) -> None:
        """Delete what the bare client leaves; what the API does is to go by itself."""
        limit = time.monotonic() + PATIENCE
        while folders := [path for path in self._output.iterdir() if path.is_dir()]:
            if time.monotonic() > limit:
                raise RuntimeError(f"the API leaves {folders[0]} behind")
            await asyncio.sleep(0.05)
        for path in {*self._output.iterdir()} - earlier:
            path.unlink()


def check(colour: int, data: bytes) -> None:
    """Raise RuntimeError when a reply is not the picture that was asked for."""
    with Image.open(io.BytesIO(data)) as image:
        pixel = (colour >> 16, colour >> 8 & 255, colour & 255)
        if image.size != (SIZE, SIZE) or image.getpixel((0, 0)) != pixel:
            raise RuntimeError("a reply holds another picture than was asked for")


@asynccontextmanager
async def engine(base: Path) -> AsyncIterator[str]:
    """Run a ComfyUI, and yield its URL."""
    for folder in ("input", "output", "temp", "models", "custom_nodes", "user"):
        (base / folder).mkdir(parents=True)
    port = free_port()
    root = install.folder()
    command = [
        *(str(install.python(root)), str(install.main_py(root)), "--cpu"),
        *("--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(base)),
        *("--disable-auto-launch", "--disable-api-nodes", "--disable-all-custom-nodes"),
    ]
    # More threads would wait for each other at full speed, on cores that others need.
    env = {
        **os.environ,
        "PYTHONPATH": str(root / "site"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    process = EngineProcess(command, url=f"http://127.0.0.1:{port}", env=env, cwd=base)
    try:
        await process.start()
        yield process.url
    finally:
        await process.stop()


@asynccontextmanager
async def service(folder: Path, engine_url: str, base: Path) -> AsyncIterator[str]:
    """Render and run the API, and yield its URL."""
    for name, text in SPECS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if generate(["build", "--quiet", "--project", str(folder)]):
        raise RuntimeError("the specs of this benchmark do not build")
    command = [
        *(sys.executable, "-m", "build.api", "--port", "0"),
        *("--comfyui-url", engine_url, "--base-directory", str(base)),
    ]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *tied_to_this_process(command), cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout is not None
        greeting = (await process.stdout.readline()).decode()
        if not greeting.startswith("serving on "):
            raise RuntimeError(f"the API does not start:\n{(folder / 'log').read_text('utf-8')}")
        yield greeting.split()[2]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def add_earlier(output: Path, count: int, picture: bytes) -> None:
    """Put earlier outputs where the bare client leaves its own."""
    for number in range(1, count + 1):
        (output / f"{PREFIX}_{number:05}_.png").write_bytes(picture)


def report(title: str, found: dict[str, Measured]) -> bool:
    """Print what was measured, and return whether it is within the bounds."""
    bare, api = found["bare"], found["API"]
    slower = statistics.median(a / b for a, b in zip(api.times, bare.times, strict=True))
    rate = statistics.median(a / b for a, b in zip(api.rates, bare.rates, strict=True))
    print(f"{title:34}{'bare':>8}{'API':>8}{'ratio':>8}   bound")
    for label, of_bare, of_api, ratio, bound in (
        ("one by one, p50, ms", bare.times, api.times, slower, f"≤ {MOST_TIME}"),
        (f"{CALLERS} callers, requests/s", bare.rates, api.rates, rate, f"≥ {LEAST_RATE}"),
    ):
        medians = f"{statistics.median(of_bare):8.1f}{statistics.median(of_api):8.1f}"
        print(f"  {label:32}{medians}{ratio:8.2f}   {bound}", flush=True)
    return slower <= MOST_TIME and rate >= LEAST_RATE


async def bench(rounds: int, earlier: int) -> bool:
    """Measure, print, and return whether all is within the bounds."""
    with TemporaryDirectory() as folder:
        base, output = Path(folder) / "base", Path(folder) / "base" / "output"
        async with (
            engine(base) as engine_url,
            service(Path(folder) / "app", engine_url, base) as url,
            Bare(engine_url, output) as bare,
            Api(url) as api,
        ):
            both = Bench(bare, api, output)
            good = report("with no earlier outputs", await both.measure(rounds))
            if earlier:
                add_earlier(output, earlier, await api.picture(0))
                good &= report(f"after {earlier} earlier outputs", await both.measure(rounds))
    return good


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.front")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--earlier", type=int, default=10_000, help="0 leaves that part out")
    options: Any = parser.parse_args(arguments)
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    return 0 if asyncio.run(bench(options.rounds, options.earlier)) else 1


if __name__ == "__main__":
    sys.exit(main())
