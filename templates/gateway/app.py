"""The app around the endpoints: who may ask, health, what there is, and how problems look."""

import json
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from ..graph.words import did_you_mean, show
from ..utils.comfyui_errors import FULL_DISK
from .access import Access, ApiKeys, Guard, owner_of
from .backend import Backend, BackendUnavailableError, NotTakenError, UnknownJobError
from .event_stream import add_event_route
from .fetch import Fetcher
from .graphs import Graphs
from .jobs import NO_JOB, add_job_routes
from .limits import Limits, Places, Rate
from .media import MediaReader
from .openapi import describe, usage_operation
from .page import add_page
from .problems import Problem, of_status
from .recovery import Recovery, fault
from .replies import HEADERS, JSON
from .service import Endpoint, Gateway, gateway_of
from .usage_report import usage_document

_log = logging.getLogger(__name__)

_DESCRIPTION: Final = """\
Each endpoint runs a ComfyUI graph and answers with its first output; `Accept: application/json`
asks for all of them. What takes longer than the deadline is answered with 202 and a job.
"""
# A client that went away gets no answer; proxies log this status for it.
_CLIENT_GONE: Final = 499


@dataclass(frozen=True, slots=True)
class Settings:
    """What gpu.yaml says of the gateway.

    `deadline` is in seconds. `operators` are the names of keys that see the usage of all keys.
    """

    name: str
    comfyui_version: str
    deadline: float
    max_body_bytes: int
    max_media_pixels: int
    limits: Limits
    cors_origins: Sequence[str] = ()
    operators: Collection[str] = ()


def new_app(build: Path, settings: Settings, backend: Backend, access: Access) -> FastAPI:
    """Return an app without endpoints; `build` is the folder that holds manifest.json."""
    manifest: dict[str, Any] = json.loads((build / "manifest.json").read_text("utf-8"))
    fetcher = Fetcher(max_bytes=settings.max_body_bytes)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with fetcher:
            yield
        await backend.journal.usage.close()

    app = FastAPIOffline(
        title=settings.name,
        version=manifest["generator"],
        docs_url="/docs",
        redoc_url=None,
        static_url="/static/docs",
        swagger_ui_parameters={"validatorUrl": None, "tryItOutEnabled": True},
        lifespan=lifespan,
    )
    app.state.gateway = Gateway(
        graphs=Graphs(build, settings.comfyui_version, manifest["families"]),
        media=MediaReader(
            fetcher, max_bytes=settings.max_body_bytes, max_pixels=settings.max_media_pixels
        ),
        deadline=settings.deadline,
        max_body_bytes=settings.max_body_bytes,
        routes=manifest["routes"],
        limits=settings.limits,
        rate=Rate(settings.limits.requests_per_minute),
        listening=Places(settings.limits.listeners_per_key),
    )
    _add_guards(app, access, settings.cors_origins)
    _add_problems(app)
    _add_about(app, manifest, settings, backend)
    add_page(app, build, backend)
    add_job_routes(app, backend)
    add_event_route(app, backend)
    has_keys = isinstance(access, ApiKeys)
    describe(app, _DESCRIPTION, manifest["generator"], with_keys=has_keys)
    return app


def _add_guards(app: FastAPI, access: Access, origins: Sequence[str]) -> None:
    app.add_middleware(Recovery)
    app.add_middleware(Guard, access=access)
    if origins:
        # In front of the guard, for a browser asks without a key whether it may ask.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=[*HEADERS, "Location", "Retry-After"],
        )


def _add_problems(app: FastAPI) -> None:
    async def on_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def on_status(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = error.detail
        if error.status_code == 404:
            near = did_you_mean(request.url.path, gateway_of(app).endpoints)
            detail = f"nothing answers at {show(request.url.path)}; " + (near or "see /workflows")
        elif error.status_code == 405:
            works = (error.headers or {}).get("Allow")
            detail = f"{request.method} does not work at {show(request.url.path)}"
            detail += f"; {works} does" if works else ""
        return of_status(error.status_code, detail, error.headers).response()

    async def on_unavailable(_: Request, error: Exception) -> Response:
        return Problem("engine-unreachable", str(error)).response()

    async def on_not_taken(_: Request, error: Exception) -> Response:
        assert isinstance(error, NotTakenError)
        return Problem(error.code, str(error)).response()

    async def on_unknown_job(_: Request, __: Exception) -> Response:
        return Problem("unknown-job", NO_JOB).response()

    async def on_gone(_: Request, __: Exception) -> Response:
        return Response(status_code=_CLIENT_GONE)

    async def on_os_error(_: Request, error: Exception) -> Response:
        if not isinstance(error, OSError) or error.errno not in FULL_DISK:
            raise error
        _log.error("the disk is full: %s", error)
        return Problem("disk-full", "there is no room for what was sent").response()

    async def on_fault(_: Request, __: Exception) -> Response:
        # Of what stands in front of the app; its own faults do not come this far.
        return fault().response()

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_status)
    app.add_exception_handler(BackendUnavailableError, on_unavailable)
    app.add_exception_handler(NotTakenError, on_not_taken)
    app.add_exception_handler(UnknownJobError, on_unknown_job)
    app.add_exception_handler(ClientDisconnect, on_gone)
    app.add_exception_handler(OSError, on_os_error)
    app.add_exception_handler(Exception, on_fault)


def _add_about(
    app: FastAPI, manifest: dict[str, Any], settings: Settings, backend: Backend
) -> None:
    """Add what tells about the service; none of it starts a worker."""

    async def health() -> Response:
        """Say what runs here, and how its workers are. The service itself is up if this answers."""
        workers = await backend.workers()
        return JSONResponse(
            {
                "status": "ok",
                "app": settings.name,
                "spec": manifest["spec"],
                "generator": manifest["generator"],
                "comfyui": settings.comfyui_version,
                "fastapi": version("fastapi"),
                "workers": [asdict(worker) for worker in workers],
            }
        )

    async def ready() -> Response:
        """Say whether a request would be taken now; if not, the answer is 503."""
        unready = [w for w in await backend.workers() if w.ready is False]
        if unready:
            reasons = "; ".join(f"{w.profile}: {w.last_error or 'no engine'}" for w in unready)
            raise Problem("engine-unreachable", reasons)
        return JSONResponse({"ready": True})

    async def usage(request: Request) -> Response:
        """Say how many requests there were, how they ended, and what they took and cost.

        A caller sees those of its own key; the `operators` of gpu.yaml see all.
        """
        found = await backend.journal.usage.read()
        document = usage_document(found, owner_of(request), settings.operators)
        headers = {"Cache-Control": "no-store"}
        return Response(document.model_dump_json(), 200, headers, JSON)

    async def workflows() -> Response:
        """List the endpoints, and what each takes."""
        return JSONResponse([_about(e) for e in gateway_of(app).endpoints.values()])

    app.add_api_route("/usage", usage, response_class=Response, tags=["about"], **usage_operation())
    for path, function, summary in (
        ("/health", health, "How the service and its workers are"),
        ("/ready", ready, "Whether a request would be taken now"),
        ("/workflows", workflows, "The endpoints, and what each takes"),
    ):
        app.add_api_route(
            path, function, response_class=JSONResponse, tags=["about"], summary=summary
        )
        # For uptime checks, which want no body; the server leaves it out.
        app.add_api_route(path, function, methods=["HEAD"], include_in_schema=False)


def _about(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "route": endpoint.route,
        "summary": endpoint.summary,
        "description": endpoint.description,
        "enabled": endpoint.enabled,
        "media_types": list(endpoint.media_types),
        "gpu": endpoint.profile,
        "seed": endpoint.seed_param,
        "graph": endpoint.graph_param,
        "params": endpoint.request.model_json_schema(),
    }
