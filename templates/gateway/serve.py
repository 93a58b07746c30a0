"""Serve an app on this machine, until it is told to stop."""

import argparse
import asyncio
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import uvicorn
import uvloop
from fastapi import FastAPI

from ..utils.comfyui_errors import EngineError, EngineUnreachable
from ..utils.comfyui_files import Directories
from ..utils.comfyui_needs import Needs
from .access import Access, Loopback
from .backend import Backend
from .http_limits import LimitedHttp
from .local import LocalBackend
from .logs import configure, event
from .openapi import example_body
from .service import gateway_of

_log = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"

_GRACE_SECONDS: Final = 5
# How long a connection that was taken before the service ends may take to say what it wants.
_LATE_SECONDS: Final = 0.5
# Far fewer than a process may have files.
_MOST_CONNECTIONS: Final = 500
_SUFFIXES: Final = {
    "audio/flac": ".flac",
    "image/png": ".png",
    "image/webp": ".webp",
    "video/mp4": ".mp4",
    "video/webm": ".webm",
}

CreateApi = Callable[[Backend, Access], FastAPI]


class PortTakenError(OSError):
    """Something else listens on the port."""


def listen(port: int) -> socket.socket:
    """Return a socket that listens on a port of this machine; port 0 is any that is free.

    Raises:
        PortTakenError: when the port is taken.
    """
    # With the protocol named, asyncio sends small replies at once.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise PortTakenError(
            f"port {port} is taken; give another one, as in make serve PORT=8001"
        ) from error
    return listener


class _WholeReplies(asyncio.Transport):
    """Writes a reply's head and body together: sent apart, they wake the caller twice.

    A part that none follows goes out at the end of the event loop's turn.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes | bytearray | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._parts.append(data)
        if len(self._parts) > 1:
            self._flush()
        else:
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts:
            self._transport.writelines(parts)


class _Http(LimitedHttp):
    """HTTP whose replies are sent whole; who has just come is served before the service ends."""

    _is_ending = False

    def shutdown(self) -> None:
        if self.cycle is None and not self._is_ending:
            self._is_ending = True
            self.loop.call_later(_LATE_SECONDS, self.shutdown)
        else:
            super().shutdown()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_WholeReplies(transport, self.loop))


class _Server(uvicorn.Server):
    """Ends when told to, and the process goes on: uvicorn's own would let SIGTERM end that too."""

    def __init__(
        self, config: uvicorn.Config, stop: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        super().__init__(config)
        self._stop = stop
        self._stopping: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self._end, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _end(self, number: int) -> None:
        """Stop the jobs first, so that whoever waits for one is answered."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        self.handle_exit(number, None)


async def serve(
    create_api: CreateApi,
    backend: LocalBackend,
    listener: socket.socket,
    origins: Sequence[str] = (),
) -> None:
    """Serve the API of a backend without keys, to this machine alone, until SIGINT or SIGTERM.

    Pages of `origins` may ask too. Once requests are answered, standard output is told how to send
    one.
    """
    app = create_api(backend, Loopback(origins))
    config = uvicorn.Config(
        app,
        http=_Http,
        limit_concurrency=_MOST_CONNECTIONS,
        log_config=None,
        # Its lines hold queries, and say less than the events of jobs.
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ws="none",
    )
    server = _Server(config, backend.stop)
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        engine = next((w.engine for w in await backend.workers() if w.engine), "none")
        missing = await _missing(app, backend)
        for route, needs in missing.items():
            _log.warning("%s cannot run on this ComfyUI, which has no %s", route, needs)
        sys.stdout.write(greeting(app, url, engine, missing))
        sys.stdout.flush()
        event("service-started", url=url, engine=engine)
    await serving
    event("service-stopped")


def main(
    create_api: CreateApi,
    prices: dict[str, float],
    origins: Sequence[str],
    arguments: Sequence[str] | None = None,
    *,
    log_prompts: bool = False,
) -> int:
    """Serve against a ComfyUI that is up; return 0 when told to stop, 2 when it cannot serve."""
    options = _parser().parse_args(arguments)
    configure(log_prompts=log_prompts)
    directories = Directories.below(options.base_directory) if options.base_directory else None

    async def run() -> None:
        with socket.socket(fileno=options.fd) if options.fd else listen(options.port) as listener:
            async with LocalBackend(
                _engine_url(options.comfyui_url), directories, prices=prices
            ) as backend:
                await serve(create_api, backend, listener, origins)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
    except (EngineError, PortTakenError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


async def _missing(app: FastAPI, backend: LocalBackend) -> dict[str, Needs]:
    """Return what the engine lacks, by the routes that need it."""
    gateway = gateway_of(app)
    models = json.loads((gateway.graphs.build / "models.json").read_text("utf-8"))
    paths = {model["name"]: model["path"] for model in models}
    needs = {
        route: Needs(
            frozenset(about["classes"]), frozenset(paths[name] for name in about["models"])
        )
        for route, about in gateway.routes.items()
        if about["enabled"]
    }
    try:
        lacks = await backend.lacking(sum(needs.values(), start=Needs()))
    except EngineError as error:
        _log.warning("it is not known what the engine lacks: %s", error)
        return {}
    return {route: found for route, wanted in needs.items() if (found := wanted & lacks)}


def greeting(app: FastAPI, url: str, engine: str, missing: Collection[str] = ()) -> str:
    """Return what to tell whoever has started the service: where it is, and a request that works.

    The routes in `missing` do not.
    """
    endpoints = [
        endpoint
        for route, endpoint in gateway_of(app).endpoints.items()
        if endpoint.enabled and not endpoint.graph and route not in missing
    ]
    examples = ((endpoint, example_body(endpoint)) for endpoint in endpoints)
    lines = [
        f"serving on {url} (engine: {engine}), docs at {url}/docs; Ctrl-C stops it",
        f"open {url} in a browser to try it",
    ]
    for endpoint, body in examples:
        if body is not None:
            suffix = _SUFFIXES.get(endpoint.media_types[0], "")
            request = f"curl -X POST {url}{endpoint.route} -H 'content-type: application/json'"
            data = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
            lines.append(f"try: {request} -d '{data}' -o {endpoint.name}{suffix} -D -")
            break
    return "\n".join(lines) + "\n"


def _engine_url(text: str) -> str:
    """Return a URL; an address alone is meant as one.

    Raises:
        EngineUnreachable: when it is none of HTTP.
    """
    url = text if "://" in text else f"http://{text}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EngineUnreachable(f"{text!r} is no URL such as http://127.0.0.1:8188")
    return url


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m build.api",
        description="Serve the API on 127.0.0.1, against a ComfyUI that is up.",
    )
    parser.add_argument(
        "--comfyui-url",
        required=True,
        metavar="URL",
        help="such as http://127.0.0.1:8188",
    )
    parser.add_argument(
        "--base-directory",
        type=Path,
        metavar="DIR",
        help="of a ComfyUI on this machine: files are then read from disk, not over HTTP",
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="0 is any that is free (default: 8000)"
    )
    parser.add_argument(
        "--fd",
        type=int,
        metavar="NUMBER",
        help="a socket that listens already, and is inherited, instead of a port",
    )
    return parser
