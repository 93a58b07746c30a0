"""The page at `/`, and what it asks for beside the endpoints: pictures of graphs, model files.

The page is static files, the same for every service. It asks with relative URLs, so that it works
behind any prefix, and of this host alone, which its Content-Security-Policy makes sure of.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ..graph.words import did_you_mean, show
from ..params import model_folders
from .backend import Backend
from .openapi import page_operations
from .problems import Problem
from .replies import JSON
from .service import Endpoint, gateway_of

_FOLDER: Final = "playground"
_FILES: Final = "/static/playground/{name}"
_INDEX: Final = "index.html"
_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Pictures and videos are fetched with the caller's key, and shown as blobs.
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob: data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_GRAPH_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Kept, and asked for again with its tag: a new version shows at once.
    "Cache-Control": "no-cache",
}


class ModelFiles(BaseModel):
    """The files of a model folder."""

    folder: str
    files: list[str] | None = Field(description="By name; null where nobody here can list them.")


@dataclass(frozen=True, slots=True)
class _File:
    """A static file; its tag changes with its bytes."""

    data: bytes
    media_type: str
    tag: str

    @classmethod
    def read(cls, path: Path) -> "_File":
        data = path.read_bytes()
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        return cls(data, _MEDIA_TYPES[path.suffix], tag)

    def response(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Return the file, or 304 when the caller has it."""
        headers = {**headers, "ETag": self.tag}
        given = [tag.strip().removeprefix("W/") for tag in _given_tags(request)]
        if self.tag in given or "*" in given:
            return Response(status_code=304, headers=headers)
        return Response(self.data, headers=headers, media_type=self.media_type)


def add_page(app: FastAPI, build: Path, backend: Backend) -> None:
    """Add the page, its files, and the routes that it needs to an app that `new_app` made."""
    folder = build / _FOLDER
    files = {p.name: _File.read(p) for p in folder.iterdir() if p.suffix in _MEDIA_TYPES}
    graphs = {p.stem: _File.read(p) for p in (folder / "graphs").glob("*.svg")}

    async def index(request: Request) -> Response:
        return files[_INDEX].response(request, _HEADERS)

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            raise Problem("not-found", f"the page has no file {show(name)}")
        return files[name].response(request, _HEADERS)

    async def graph(request: Request) -> Response:
        """Return the graph of an endpoint as a picture, its nodes marked with `data-node`."""
        name = request.path_params["name"]
        if name not in graphs:
            near = did_you_mean(name, graphs)
            detail = f"no endpoint {show(name)} has a graph of its own"
            raise Problem("not-found", f"{detail}; {near}" if near else detail)
        headers = {**_HEADERS, "Content-Security-Policy": _GRAPH_POLICY}
        return graphs[name].response(request, headers)

    async def models(request: Request) -> Response:
        """List the files of a model folder that a param names files of."""
        name = request.path_params["folder"]
        known = _folders(gateway_of(app).endpoints)
        if name not in known:
            near = did_you_mean(name, known)
            detail = f"no param names files of a folder {show(name)}"
            raise Problem("not-found", f"{detail}; {near}" if near else detail)
        listed = await backend.models(name)
        found = ModelFiles(folder=name, files=None if listed is None else sorted(listed))
        return Response(found.model_dump_json(), media_type=JSON)

    operations = page_operations(ModelFiles)
    routes = {
        "workflow_graph": ("/workflows/{name}/graph", graph),
        "model_files": ("/models/{folder}", models),
    }
    app.add_api_route("/", index, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route(_FILES, static, methods=["GET", "HEAD"], include_in_schema=False)
    for operation, (path, function) in routes.items():
        app.add_api_route(
            path,
            function,
            methods=["GET"],
            response_class=Response,
            tags=["about"],
            operation_id=operation,
            **operations[operation],
        )


def _folders(endpoints: Mapping[str, Endpoint]) -> frozenset[str]:
    return frozenset(f for e in endpoints.values() for f in model_folders(e.request).values())


def _given_tags(request: Request) -> list[str]:
    return ",".join(request.headers.getlist("if-none-match")).split(",")
