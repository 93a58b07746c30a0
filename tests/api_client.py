"""The rendered API on a preview engine, and clients of it: in this process, or through a socket."""

import asyncio
import contextlib
import importlib
import io
import shutil
import sys
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
from fastapi import FastAPI
from PIL import Image

from generator.graph.catalog import open_catalog
from generator.preview.folders import Folders
from generator.preview.schemas import Schemas
from generator.preview.server import Server, serving
from generator.project import load_project
from generator.publish import publish
from generator.render import render

from .conftest import GPU_YAML, ROOT, load_and_check

SECONDS = 20
PRICE = 2.5
# What a preview engine calls its device.
GPU = "preview"

CATALOG = open_catalog(ROOT / "generator" / "catalogs", version="0.3.71")
_PROJECT, _ = load_project(ROOT)
assert _PROJECT.models is not None
MODELS = sorted(model.destination for model in _PROJECT.models.models.values())
SMALL = {"width": 64, "height": 64, "steps": 1}
FLUX = {"prompt": "a red fox in the snow", **SMALL}
JSON = {"Accept": "application/json"}
AS_JSON = {"Content-Type": "application/json"}
AS_FORM = {"Content-Type": "multipart/form-data; boundary=B"}

# Everything that the shipped project has off or larger than a test wants.
OWN_GPU = (
    GPU_YAML
    + """\
gateway: {deadline: 100, cors_origins: ["https://app.example.com"]}
limits: {body_mb: 1, media_pixels: 1000000}
"""
)

T = TypeVar("T")


class Recorder:
    """A backend that notes what is submitted, and leaves the work to another."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.works: list[Any] = []

    async def submit(self, work: Any, room: Any) -> str:
        self.works.append(work)
        job: str = await self.backend.submit(work, room)
        return job

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


@dataclass
class Service:
    """An API that can be asked through `client`; `engine` is None where another process is it."""

    app: FastAPI
    backend: Recorder
    client: httpx.AsyncClient
    engine: Server | None = None

    async def until(
        self, job: str, found: str | Callable[[dict[str, Any]], bool], **options: Any
    ) -> dict[str, Any]:
        """Return a job as JSON once it has a status, or is as wanted."""
        async with asyncio.timeout(SECONDS):
            while True:
                reply = await self.client.get(f"/jobs/{job}", **options)
                assert reply.status_code == 200, reply.text
                document: dict[str, Any] = reply.json()
                if document["status"] == found or (callable(found) and found(document)):
                    return document
                await asyncio.sleep(0.005)

    async def started(self, path: str, body: object, **headers: str) -> str:
        """Start a job and return its id."""
        prefer = {"Prefer": "respond-async"}
        reply = await self.client.post(path, json=body, headers=prefer | headers)
        assert reply.status_code == 202, reply.text
        job: str = reply.json()["job"]
        return job


@dataclass
class Api:
    """A service in an event loop of its own, which stands still between the calls."""

    runner: asyncio.Runner
    service: Service
    works: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.works = self.service.backend.works

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(asyncio.wait_for(work, SECONDS))

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.run(self.service.client.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, body: object = None, **options: Any) -> httpx.Response:
        if body is not None:
            options["json"] = body
        return self.request("POST", path, **options)


def part(package: str, module: str) -> Any:
    """Return a module of a rendered package."""
    return importlib.import_module(f"{package}.{module}")


@contextlib.asynccontextmanager
async def engine(
    base: Path, *, pace: float = 0, models: Sequence[str] = MODELS, previews: bool = False
) -> AsyncIterator[tuple[Server, str]]:
    """Serve a preview engine that has some models, and yield it and its URL."""
    folders = Folders(base)
    folders.make()
    for model in models:
        folders.add_model(model)
    server = Server(Schemas(CATALOG, folders), folders, pace=pace, previews=previews)
    async with serving(server) as url:
        yield server, url


@contextlib.asynccontextmanager
async def asked(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Run an app, and yield a client that calls it in this process."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://localhost", timeout=SECONDS
        ) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def service(
    base: Path,
    *,
    package: str = "build",
    pace: float = 0,
    models: Sequence[str] = MODELS,
    previews: bool = False,
    access: Any = None,
    **options: Any,
) -> AsyncIterator[Service]:
    """Run a package's API on a preview engine; the options are those of its LocalBackend."""
    options.setdefault("prices", {GPU: PRICE})
    directories = part(package, "utils.comfyui_files").Directories.below(base)
    async with engine(base, pace=pace, models=models, previews=previews) as (server, url):
        local = part(package, "gateway.local").LocalBackend(url, directories, **options)
        async with local as backend:
            recorder = Recorder(backend)
            app = new_app(package, recorder, access)
            async with asked(app) as client:
                yield Service(app, recorder, client, server)


def new_app(package: str, backend: Any, access: Any = None) -> FastAPI:
    """Return a package's API; anyone may ask unless something else is said."""
    anyone = part(package, "gateway.access").Anyone()
    app: FastAPI = part(package, "api").create_api(backend, access or anyone)
    return app


@contextlib.contextmanager
def running(base: Path, **options: Any) -> Iterator[Api]:
    """Run a service for tests that call it one request at a time."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        started = runner.run(stack.enter_async_context(service(base, **options)))
        try:
            yield Api(runner, started)
        finally:
            runner.run(stack.aclose())


def serve(base: Path, test: Callable[[Service], Awaitable[None]], **options: Any) -> None:
    """Run a test with a service of its own."""

    async def run() -> None:
        async with service(base, **options) as found, asyncio.timeout(SECONDS):
            await test(found)

    asyncio.run(run())


@contextlib.asynccontextmanager
async def listening(app: FastAPI, http: Any = "auto") -> AsyncIterator[str]:
    """Serve an app that runs on a free port of 127.0.0.1, and yield its URL."""
    config = uvicorn.Config(
        app, port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=1, http=http
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not task.done(), "the server does not start"
            await asyncio.sleep(0.005)
        [listener] = server.servers[0].sockets
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@contextlib.contextmanager
def in_thread(app: contextlib.AbstractAsyncContextManager[FastAPI]) -> Iterator[str]:
    """Serve an app in a thread of its own, and yield its URL."""
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        async with app as found, listening(found) as url:
            started.set_result((url, asyncio.get_running_loop(), stop))
            await stop.wait()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(asyncio.run, run())

        def give_up(_: object) -> None:
            # What fails before it is served is said by `running`.
            if not started.done():
                started.set_exception(OSError())

        running.add_done_callback(give_up)
        try:
            url, loop, stop = started.result(SECONDS)
        except OSError:
            running.result()
            raise
        try:
            yield url
        finally:
            loop.call_soon_threadsafe(stop.set)
            running.result()


def own_package(folder: Path, name: str = "own_package", **files: str) -> str:
    """Render the shipped project with OWN_GPU and /workflow on; return its name, to import by.

    `files` are workflows to add, by their names.
    """
    if name not in sys.modules:
        project = folder / "project"
        shutil.copytree(ROOT / "workflows", project / "workflows")
        shutil.copy(ROOT / "models.yaml", project)
        (project / "gpu.yaml").write_text(OWN_GPU, encoding="utf-8")
        graphs = project / "workflows" / "workflow.yaml"
        text = graphs.read_text(encoding="utf-8")
        assert "enabled: false" in text
        graphs.write_text(text.replace("enabled: false", "enabled: true"), encoding="utf-8")
        for stem, content in files.items():
            (project / "workflows" / f"{stem}.yaml").write_text(content, encoding="utf-8")
        import_rendered(project, folder / name)
    return name


def import_rendered(project: Path, target: Path) -> None:
    """Render a project into a folder, and make that importable by its name."""
    checked, diagnostics = load_and_check(project)
    assert checked is not None, diagnostics
    publish(render(checked), target)
    sys.path.insert(0, str(target.parent))
    try:
        importlib.import_module(target.name)
    finally:
        sys.path.remove(str(target.parent))


def problem(reply: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Return the problem document that a reply must be, without anything of Python's in it."""
    assert reply.status_code == status, (reply.status_code, reply.text[:500])
    assert reply.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = reply.json()
    assert document["status"] == status
    assert document["type"].startswith("urn:problem-type:")
    assert document["title"]
    assert document["detail"]
    assert all(word not in reply.text for word in ("Traceback", 'File "', "site-packages"))
    if code is not None:
        assert document["code"] == code, document
        assert document["type"] == f"urn:problem-type:{code}"
    return document


def pointers(document: Mapping[str, Any]) -> list[str]:
    """Return where a problem says that something is wrong."""
    return [error["pointer"] for error in document.get("errors", ())]


def multipart(*parts: tuple[str, bytes], end: bytes = b"--B--\r\n") -> bytes:
    """Return a form with the boundary B, from the heads and contents of its parts.

    By hand, for a client library sends no damaged forms, and only the last part of a path.
    """
    head = b"--B\r\nContent-Disposition: form-data; "
    return b"".join(head + h.encode() + b"\r\n\r\n" + data + b"\r\n" for h, data in parts) + end


def png(width: int = 64, height: int = 48, color: str = "red") -> bytes:
    """Return a picture."""
    output = io.BytesIO()
    Image.new("RGB", (width, height), color).save(output, "PNG")
    return output.getvalue()


def size(data: bytes) -> tuple[int, int]:
    """Return the size of a picture, which must decode."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.size
