"""ComfyUI's HTTP and websocket protocol over an engine."""

import asyncio
import contextlib
import hashlib
import io
import json
import mimetypes
import os
import platform
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import BodyPartReader, WSMsgType, web
from PIL import Image, UnidentifiedImageError

from .engine import Engine, Prompt
from .folders import KINDS, FolderError, Folders, within
from .schemas import Schemas, class_info
from .validation import validate

_MAX_UPLOAD: Final = 100 * 1024 * 1024
_HOST: Final = "127.0.0.1"
_MEMORY: Final = 16 * 1024**3
# What a browser would run, or take style from, is sent as mere bytes.
_ACTIVE_TYPES: Final = frozenset(
    ("text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css")
)
_PREVIEW_FORMATS: Final = ("webp", "jpeg")
_WELCOME: Final = (
    "<!doctype html><title>preview engine</title><p>This is the preview engine: it speaks "
    "ComfyUI's protocol and draws placeholders. It has no user interface."
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """The protocol over one engine; `app` is what is served."""

    def __init__(
        self,
        schemas: Schemas,
        folders: Folders,
        *,
        pace: float = 0.02,
        previews: bool = False,
    ) -> None:
        """Make the server; `pace` and `previews` are the engine's."""
        self._schemas = schemas
        self._folders = folders
        self._number = 0
        self._sockets: dict[str, _Socket] = {}
        self.engine = Engine(
            schemas,
            folders,
            send=self._send,
            send_bytes=self._send_bytes,
            pace=pace,
            previews=previews,
        )
        self.app = web.Application(client_max_size=_MAX_UPLOAD, middlewares=[_guard])
        self.app.cleanup_ctx.append(self._working)
        self.app.on_shutdown.append(self._close)
        self._route()

    def _route(self) -> None:
        add = [
            ("GET", "/prompt", self._get_prompt),
            ("POST", "/prompt", self._post_prompt),
            ("GET", "/queue", self._get_queue),
            ("POST", "/queue", self._post_queue),
            ("POST", "/interrupt", self._interrupt),
            ("GET", "/history", self._get_history),
            ("POST", "/history", self._post_history),
            ("GET", "/history/{id}", self._get_history),
            ("GET", "/view", self._view),
            ("POST", "/upload/image", self._upload),
            ("GET", "/object_info", self._object_info),
            ("GET", "/object_info/{name}", self._object_info),
            ("GET", "/models", self._models),
            ("GET", "/models/{folder}", self._models),
            ("GET", "/embeddings", self._embeddings),
            ("GET", "/extensions", self._extensions),
            ("GET", "/features", self._features),
            ("GET", "/system_stats", self._system_stats),
            ("POST", "/free", self._free),
            ("GET", "/ws", self._websocket),
        ]
        for method, path, handler in add:
            for prefix in ("", "/api"):
                self.app.router.add_route(method, prefix + path, handler)
        self.app.router.add_get("/", self._welcome)
        # Also of what only takes POST: there ComfyUI looks for a file of its user interface.
        self.app.router.add_get("/{path:.*}", self._nothing)

    async def _working(self, _: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self.engine.work())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _close(self, _: web.Application) -> None:
        for socket in list(self._sockets.values()):
            await socket.close()

    async def _get_prompt(self, _: web.Request) -> web.Response:
        return web.json_response(self.engine.status()["status"])

    async def _post_prompt(self, request: web.Request) -> web.Response:
        body = await _json(request)
        number: float = self._number
        if "number" in body:
            number = _number(body["number"], "number")
        else:
            if body.get("front"):
                number = -number
            self._number += 1
        if "prompt" not in body:
            error = _error("no_prompt", "No prompt provided", "No prompt provided")
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        graph = body["prompt"]
        targets = body.get("partial_execution_targets")
        extra_data = body.get("extra_data", {})
        # ComfyUI answers 500 to these; a client is served better by being told.
        if not isinstance(graph, dict):
            raise _bad("prompt must be an object of nodes")
        if targets is not None and not isinstance(targets, (list, str)):
            raise _bad("partial_execution_targets must be a list of node ids")
        if not isinstance(extra_data, dict):
            raise _bad("extra_data must be an object")
        verdict = await asyncio.to_thread(validate, graph, self._schemas, self._folders, targets)
        if verdict.error is not None:
            answer = {"error": verdict.error, "node_errors": verdict.node_errors}
            return web.json_response(answer, status=400)
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        extra_data["create_time"] = int(time.time() * 1000)
        prompt_id = str(body.get("prompt_id", uuid.uuid4()))
        self.engine.submit(Prompt(number, prompt_id, graph, extra_data, verdict.outputs))
        return web.json_response(
            {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}
        )

    async def _get_queue(self, _: web.Request) -> web.Response:
        running, pending = self.engine.queue()
        return web.json_response(
            {
                "queue_running": [prompt.as_json() for prompt in running],
                "queue_pending": [prompt.as_json() for prompt in pending],
            }
        )

    async def _post_queue(self, request: web.Request) -> web.Response:
        body = await _json(request)
        if body.get("clear"):
            self.engine.delete()
        if "delete" in body:
            self.engine.delete(_ids(body["delete"]))
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        # Without a body, or with one that is no JSON, whatever runs is meant.
        try:
            body = json.loads(await request.read())
        except (ValueError, RecursionError):
            body = {}
        if not isinstance(body, dict):
            raise _bad("the body must be an object")
        prompt_id = body.get("prompt_id")
        self.engine.interrupt(None if prompt_id is None else str(prompt_id))
        return web.Response()

    async def _get_history(self, request: web.Request) -> web.Response:
        if "id" in request.match_info:
            wanted = request.match_info["id"]
            entry = self.engine.history.get(wanted)
            return web.json_response({} if entry is None else {wanted: entry})
        entries = list(self.engine.history.items())
        limit = int(_number(request.query.get("max_items", len(entries)), "max_items"))
        offset = int(_number(request.query.get("offset", -1), "offset"))
        if offset < 0:
            offset = max(len(entries) - max(limit, 0), 0)
        return web.json_response(dict(entries[offset : offset + max(limit, 0)]))

    async def _post_history(self, request: web.Request) -> web.Response:
        body = await _json(request)
        if body.get("clear"):
            self.engine.history.clear()
        for prompt_id in _ids(body.get("delete", [])):
            self.engine.history.pop(prompt_id, None)
        return web.Response()

    async def _view(self, request: web.Request) -> web.StreamResponse:
        path = self._viewed(request)
        if path is None:
            return web.Response(status=404)
        disposition = {"Content-Disposition": f'filename="{path.name}"'}
        if "preview" in request.query or request.query.get("channel") in ("rgb", "a"):
            try:
                data, media_type = await asyncio.to_thread(_converted, path, dict(request.query))
            except (UnidentifiedImageError, OSError, ValueError):
                return web.Response(status=400)
            return web.Response(body=data, content_type=media_type, headers=disposition)
        media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if media_type in _ACTIVE_TYPES:
            media_type = "application/octet-stream"
        return web.FileResponse(path, headers={**disposition, "Content-Type": media_type})

    def _viewed(self, request: web.Request) -> Path | None:
        """Return the file that is asked for, None when there is none.

        Raises:
            web.HTTPException: for names that lead elsewhere.
        """
        if "filename" not in request.query:
            return None
        name = request.query["filename"]
        kind = request.query.get("type", "output")
        for annotated in KINDS:
            if name.endswith(f" [{annotated}]"):
                name, kind = name[: -len(annotated) - 3], annotated
        if not name or name[0] == "/" or ".." in name:
            raise web.HTTPBadRequest(text="")
        try:
            folder = self._folders.kind(kind)
        except FolderError as error:
            raise web.HTTPBadRequest(text="") from error
        try:
            folder = within(folder, request.query.get("subfolder", ""))
        except (FolderError, ValueError) as error:
            raise web.HTTPForbidden(text="") from error
        path = folder / os.path.basename(name)  # noqa: PTH119 as the protocol has it: the last part
        try:
            return path if path.is_file() else None
        except ValueError:
            return None

    async def _upload(self, request: web.Request) -> web.Response:
        name, data, fields = await _form(request)
        kind = fields.get("type", "input")
        subfolder = fields.get("subfolder", "")
        try:
            folder = within(self._folders.kind(kind), subfolder)
            path = within(folder, name)
            path.relative_to(folder)
        except (FolderError, ValueError) as error:
            raise web.HTTPBadRequest(text="") from error
        overwrite = fields.get("overwrite") in ("1", "true")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = await asyncio.to_thread(_store, path, data, overwrite=overwrite)
        except (OSError, ValueError) as error:
            raise web.HTTPBadRequest(text="") from error
        stored = path.relative_to(folder).as_posix()
        return web.json_response({"name": stored, "subfolder": subfolder, "type": kind})

    async def _object_info(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name")
        names = self._schemas.names() if name is None else [name]
        info = await asyncio.to_thread(
            lambda: {
                each: class_info(self._schemas, class_type)
                for each in names
                for class_type in (self._schemas.get(each),)
                if class_type is not None
            }
        )
        return web.json_response(info)

    async def _models(self, request: web.Request) -> web.Response:
        folder = request.match_info.get("folder")
        if folder is None:
            return web.json_response(self._schemas.model_folders)
        if folder not in self._schemas.model_folders:
            return web.Response(status=404)
        return web.json_response(self._folders.models(folder))

    async def _embeddings(self, _: web.Request) -> web.Response:
        names = self._folders.models("embeddings")
        return web.json_response([os.path.splitext(name)[0] for name in names])  # noqa: PTH122

    async def _extensions(self, _: web.Request) -> web.Response:
        return web.json_response([])

    async def _features(self, _: web.Request) -> web.Response:
        return web.json_response(_FEATURES)

    async def _system_stats(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "system": {
                    "os": os.name,
                    "ram_total": _MEMORY,
                    "ram_free": _MEMORY,
                    "comfyui_version": self._schemas.version,
                    "required_frontend_version": None,
                    "installed_templates_version": None,
                    "required_templates_version": None,
                    "python_version": platform.python_version(),
                    "pytorch_version": "none",
                    "embedded_python": False,
                    "argv": [],
                },
                "devices": [
                    {
                        "name": "preview",
                        "type": "cpu",
                        "index": None,
                        "vram_total": _MEMORY,
                        "vram_free": _MEMORY,
                        "torch_vram_total": _MEMORY,
                        "torch_vram_free": _MEMORY,
                    }
                ],
                "preview": True,
            }
        )

    async def _free(self, request: web.Request) -> web.Response:
        body = await _json(request)
        if body.get("free_memory"):
            self.engine.forget()
        return web.Response()

    async def _welcome(self, _: web.Request) -> web.Response:
        return web.Response(text=_WELCOME, content_type="text/html")

    async def _nothing(self, _: web.Request) -> web.Response:
        return web.Response(status=404)

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        client = request.query.get("clientId") or uuid.uuid4().hex
        socket = _Socket(response)
        self._sockets[client] = socket
        socket.send("status", self.engine.status() | {"sid": client})
        node = self.engine.running_node(client)
        if node is not None:
            socket.send("executing", {"node": node})
        writer = asyncio.create_task(socket.write())
        try:
            async for message in response:
                if message.type is WSMsgType.TEXT:
                    socket.receive(message.data)
        finally:
            # As in ComfyUI the client is gone with any of its sockets, the newest too.
            self._sockets.pop(client, None)
            writer.cancel()
        return response

    def _send(self, event: str, data: Any, client: str | None) -> None:
        for socket in self._addressed(client):
            socket.send(event, data)

    def _send_bytes(self, plain: bytes, with_metadata: bytes, client: str) -> None:
        for socket in self._addressed(client):
            socket.send_bytes(with_metadata if socket.takes_metadata else plain)

    def _addressed(self, client: str | None) -> list["_Socket"]:
        if client is None:
            return list(self._sockets.values())
        return [self._sockets[client]] if client in self._sockets else []


_FEATURES: Final = {"supports_preview_metadata": True, "max_upload_size": _MAX_UPLOAD}


@contextlib.asynccontextmanager
async def serving(server: Server, port: int = 0) -> AsyncIterator[str]:
    """Serve on 127.0.0.1 and yield the URL; port 0 takes any that is free.

    Raises:
        OSError: when the port is taken.
    """
    runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, _HOST, port)
        await site.start()
        yield f"http://{_HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class _Socket:
    """One client's websocket, with what waits to be written to it."""

    def __init__(self, response: web.WebSocketResponse) -> None:
        self._response = response
        self._waiting: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.takes_metadata = False

    def send(self, event: str, data: Any) -> None:
        self._waiting.put_nowait(json.dumps({"type": event, "data": data}))

    def send_bytes(self, data: bytes) -> None:
        self._waiting.put_nowait(data)

    def receive(self, text: str) -> None:
        """Take a client's message; only feature flags mean anything, the rest is passed over."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return
        if isinstance(message, dict) and message.get("type") == "feature_flags":
            flags = message.get("data")
            if isinstance(flags, dict):
                self.takes_metadata = flags.get("supports_preview_metadata") is True
            self.send("feature_flags", _FEATURES)

    async def write(self) -> None:
        """Write what waits, until the socket is gone."""
        with contextlib.suppress(ConnectionError):
            while True:
                data = await self._waiting.get()
                if isinstance(data, bytes):
                    await self._response.send_bytes(data)
                else:
                    await self._response.send_str(data)

    async def close(self) -> None:
        await self._response.close()


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse requests that another site's page makes, as ComfyUI does."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.host.lower():
        return web.Response(status=403)
    return await handler(request)


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise _bad("the body is no JSON") from error
    if not isinstance(body, dict):
        return {}
    return body


def _error(type: str, message: str, details: str = "") -> dict[str, Any]:
    return {"type": type, "message": message, "details": details, "extra_info": {}}


def _bad(message: str) -> web.HTTPBadRequest:
    body = {"error": _error("invalid_request", message), "node_errors": {}}
    return web.HTTPBadRequest(text=json.dumps(body), content_type="application/json")


def _number(value: object, name: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
        int(number)
    except (TypeError, ValueError, OverflowError) as error:
        raise _bad(f"{name} must be a number") from error
    return number


def _ids(value: object) -> set[str]:
    if not isinstance(value, (list, str)):
        raise _bad("delete must be a list of prompt ids")
    return {each for each in value if isinstance(each, str)}


async def _form(request: web.Request) -> tuple[str, bytes, dict[str, str]]:
    """Return the name and bytes of the part `image`, and the other fields."""
    if not request.content_type.startswith("multipart/"):
        raise web.HTTPBadRequest(text="")
    name, data, fields = "", b"", {}
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue
            if part.name == "image":
                name, data = part.filename or "", bytes(await part.read())
            elif part.name is not None:
                fields[part.name] = await part.text()
    except ValueError as error:
        raise web.HTTPBadRequest(text="") from error
    if not name:
        raise web.HTTPBadRequest(text="")
    return name, data, fields


def _store(path: Path, data: bytes, *, overwrite: bool) -> Path:
    """Write an upload; one of the same name and other bytes becomes `name (1).png`."""
    wanted, count = path, 0
    while not overwrite and path.exists():
        if hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(data).digest():
            return path
        count += 1
        path = wanted.with_name(f"{wanted.stem} ({count}){wanted.suffix}")
    path.write_bytes(data)
    return path


def _converted(path: Path, query: dict[str, str]) -> tuple[bytes, str]:
    """Return a picture in another format, or one part of it, and its media type."""
    output = io.BytesIO()
    with Image.open(path) as image:
        if "preview" in query:
            wanted, _, quality = query["preview"].partition(";")
            kind = wanted if wanted in _PREVIEW_FORMATS else "webp"
            picture = image if kind == "webp" else image.convert("RGB")
            picture.save(output, kind, quality=int(quality) if quality.isdigit() else 90)
            return output.getvalue(), f"image/{kind}"
        if query["channel"] == "rgb":
            image.convert("RGB").save(output, "PNG")
        else:
            alpha = image.convert("RGBA").getchannel("A")
            mask = Image.new("RGBA", image.size)
            mask.putalpha(alpha)
            mask.save(output, "PNG")
    return output.getvalue(), "image/png"
