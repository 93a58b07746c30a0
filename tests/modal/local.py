"""Modal on this machine: the control plane, its containers, and HTTP in front of them.

All of it runs in a thread with an event loop of its own, so that tests are plain functions.
"""

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp.web
import grpclib.server
from modal._utils.grpc_utils import custom_detail_codec

from generator.ports import HOST, free_port

from .containers import Containers, Task
from .plane import Plane, new_plane

SECONDS: Final = 120
# What Modal's edge asks of callers of an app with requires_proxy_auth.
PROXY_KEYS: Final = {"Modal-Key": "wk-test", "Modal-Secret": "ws-test"}

_LARGEST_BODY: Final = 2**30

T = TypeVar("T")


@dataclass(frozen=True)
class LocalModal:
    """A Modal that a test deploys to and asks."""

    plane: Plane
    containers: Containers
    grpc_url: str
    http_url: str
    folder: Path
    loop: asyncio.AbstractEventLoop
    python: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead Modal's client here."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(("MODAL_", "PYTEST"))}
        return own | {
            "MODAL_SERVER_URL": self.grpc_url,
            "MODAL_TOKEN_ID": "ak-test",
            "MODAL_TOKEN_SECRET": "as-test",
            "MODAL_CONFIG_PATH": str(self.folder / "no-modal.toml"),
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def cli(self, *arguments: str, cwd: Path, check: bool = True) -> str:
        """Run Modal's own command line, and return what it prints."""
        run = subprocess.run(
            [str(self.python), "-m", "modal", *arguments],
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        said = run.stdout + run.stderr
        assert not check or run.returncode == 0, said
        return said

    def deploy(self, project: Path) -> str:
        """Deploy build/ of a project, and return what the command prints."""
        return self.cli("deploy", "-m", "build.app", cwd=project)

    def url(self, app: str, tag: str = "gateway") -> str:
        """Return the address of a deployed web function."""
        return f"{self.http_url}/{app}/{tag}"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the event loop of the plane."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(SECONDS)

    def tasks(self, app: str, tag: str) -> list[Task]:
        """Return all containers that a function of an app has had."""
        function = self.plane.function_id(app, tag)
        return [task for task in self.containers.tasks.values() if task.function == function]

    def start(self, app: str, tag: str) -> Task:
        """Start a container more."""
        return self.run(self.containers.start(self.plane.function_id(app, tag)))

    def scale_down(self, app: str, tag: str) -> list[int]:
        """Stop the containers of a function as Modal does, and return their exit statuses."""
        tasks = [task for task in self.tasks(app, tag) if task.is_up]
        return [self.run(self.containers.stop(task)) for task in tasks]

    def take_away(self, task: Task, number: int, *, repeats: bool) -> int:
        """End a container by a signal, and return its exit status; see Containers."""
        return self.run(self.containers.take_away(task, number, repeats=repeats))

    def log(self, app: str, tag: str) -> str:
        """Return what the containers of a function have printed."""
        tasks = self.tasks(app, tag)
        return "\n".join(task.log.read_text("utf-8", "replace") for task in tasks)


@contextmanager
def local_modal(
    folder: Path,
    secrets: Mapping[str, Mapping[str, str]] | None = None,
    python: Path = Path(sys.executable),
) -> Iterator[LocalModal]:
    """Run a Modal in a thread, with its files in a folder; it and its containers end with the block.

    `secrets` are the Secrets that exist: their variables with their values, by name. `python` runs
    Modal's command line and the containers.
    """
    loop = asyncio.new_event_loop()

    async def serve(started: Callable[[LocalModal], None], stop: asyncio.Event) -> None:
        grpc_port, http_port = free_port(), free_port()
        plane = new_plane(folder, secrets or {})
        plane.http = f"http://{HOST}:{http_port}"
        grpc_url = f"http://{HOST}:{grpc_port}"
        containers = Containers(plane, folder / "containers", grpc_url, python)
        server = grpclib.server.Server([plane], status_details_codec=custom_detail_codec)
        await server.start(HOST, grpc_port)
        runner = await _serve_http(plane, containers, http_port)
        started(LocalModal(plane, containers, grpc_url, plane.http, folder, loop, python))
        await stop.wait()
        await containers.close()
        await runner.cleanup()
        server.close()
        await server.wait_closed()

    stop = asyncio.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting: list[LocalModal] = []
        running = pool.submit(loop.run_until_complete, serve(waiting.append, stop))
        limit = time.monotonic() + SECONDS
        while not waiting:
            assert not running.done(), running.result()
            assert time.monotonic() < limit
            time.sleep(0.01)
        try:
            yield waiting[0]
        finally:
            loop.call_soon_threadsafe(stop.set)
            running.result(SECONDS)
            loop.close()


async def _serve_http(plane: Plane, containers: Containers, port: int) -> aiohttp.web.AppRunner:
    """Serve blobs, and /APP/FUNCTION/… for web functions."""

    async def blob(request: aiohttp.web.Request) -> aiohttp.web.Response:
        name = request.match_info["blob"]
        if request.method == "PUT":
            plane.blobs[name] = await request.read()
            digest = hashlib.md5(plane.blobs[name]).hexdigest()
            return aiohttp.web.Response(headers={"ETag": f'"{digest}"'})
        return aiohttp.web.Response(body=plane.blobs[name])

    async def web(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        app, tag = request.match_info["app"], request.match_info["tag"]
        function = plane.function_id(app, tag)
        if plane.functions[function].webhook_config.requires_proxy_auth and any(
            request.headers.get(name) != value for name, value in PROXY_KEYS.items()
        ):
            return aiohttp.web.Response(status=401, text="missing credentials for proxy auth")
        return await _answer(request, containers, function)

    app = aiohttp.web.Application(client_max_size=_LARGEST_BODY)
    app.router.add_route("*", "/_blob/{blob}", blob)
    app.router.add_route("*", "/{app}/{tag}/{path:.*}", web)
    # A client that goes away is noticed.
    runner = aiohttp.web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, HOST, port).start()
    return runner


async def _answer(
    request: aiohttp.web.Request, containers: Containers, function: str
) -> aiohttp.web.StreamResponse:
    raw = request.raw_path.split("/", 3)
    path, _, _ = raw[3].partition("?")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": request.method,
        "path": f"/{request.match_info['path']}",
        "raw_path": f"/{path}".encode(),
        "query_string": request.query_string.encode(),
        "headers": [(k.lower().encode(), v.encode()) for k, v in request.headers.items()],
        "client": (HOST, 1),
    }
    response = aiohttp.web.StreamResponse()
    async with aclosing(containers.asgi(function, scope, await request.read())) as messages:
        async for message in messages:
            if message["type"] == "http.response.start":
                response.set_status(message["status"])
                _set_headers(response, message["headers"])
                await response.prepare(request)
            elif message["type"] == "http.response.body":
                await response.write(message.get("body") or b"")
    await response.write_eof()
    return response


def _set_headers(
    response: aiohttp.web.StreamResponse, headers: Sequence[tuple[bytes, bytes]]
) -> None:
    for key, value in headers:
        response.headers.add(key.decode(), value.decode())
