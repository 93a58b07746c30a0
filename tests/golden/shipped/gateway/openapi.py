"""What /openapi.json says: every endpoint, its params, replies and problems."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field, ValidationError

from ..params import media_fields
from .events import EVENTS
from .idempotency import HEADER, PATTERN
from .problems import KINDS, MEDIA_TYPE, RETRY_AFTER
from .replies import HEADERS, JSON, JobDocument
from .service import Endpoint, gateway_of
from .usage_report import UsageDocument

_SCHEMAS: Final = "#/components/schemas/"
_FORM: Final = "multipart/form-data"

# What any request may end with, and what only one that runs something may.
_COMMON: Final = ("bad-request", "unauthorized", "forbidden-host", "internal-error")
_OTHERS: Final = frozenset(
    (
        "not-found",
        "unknown-job",
        "job-ended",
        "wrong-method",
        "workflow-off",
        "too-many-listeners",
        # Of a server, which knows no endpoints yet.
        "slow-head",
        "large-head",
    )
)
_REFUSED: Final = ("idempotency-conflict", "too-many-requests", "too-many-jobs", "queue-full")
_RUNNING: Final = tuple(code for code in KINDS if code not in _OTHERS)


class FaultDocument(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str = Field(description="Where in the body, as a JSON pointer.")
    detail: str
    code: str | None = None
    node: str | None = None
    class_type: str | None = None
    input: str | None = None
    file: str | None = None
    line: int | None = None
    params: list[str] | None = None


class ProblemDocument(BaseModel):
    """A problem (RFC 9457). Where a node of a graph is at fault, it says which, and where it is written."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="One of those in docs/api.md.")
    errors: list[FaultDocument] | None = None
    job: str | None = None
    node: str | None = None
    class_type: str | None = None
    file: str | None = None
    line: int | None = None
    params: list[str] | None = None


def endpoint_operation(endpoint: Endpoint) -> dict[str, Any]:
    """Return what `add_api_route` is to say of an endpoint."""
    name = endpoint.request.__name__
    body = {
        JSON: {"schema": {"$ref": _SCHEMAS + name}, **_example(endpoint)},
        _FORM: {"schema": _form_schema(endpoint)},
    }
    return {
        "operation_id": endpoint.name,
        "summary": endpoint.summary or endpoint.name,
        "description": endpoint.description,
        "tags": ["endpoints"],
        "openapi_extra": {
            "requestBody": {"required": True, "content": body},
            "parameters": [_PREFER, _IDEMPOTENCY_KEY],
        },
        "responses": {
            200: _reply("The first output, or the job with all of them.", endpoint.media_types)
            | {"links": _LINKS},
            202: _job("It runs on: ask for the job.", {"Location": "The job."}) | {"links": _LINKS},
            **_problems(*_RUNNING, *(() if endpoint.enabled else ("workflow-off",))),
        },
    }


def job_operations() -> dict[str, dict[str, Any]]:
    """Return what `add_api_route` is to say of the routes below /jobs, by name."""
    running = {202: _job("It runs still.", {"Location": "The job."})}
    unknown = _problems("unknown-job")
    return {
        "get": {
            "summary": "A job",
            "openapi_extra": {"parameters": [_job_parameter(), _PREFER]},
            "responses": {200: _job("The job as it is."), **unknown},
        },
        "result": {
            "summary": "The result of a job",
            "openapi_extra": {"parameters": [_job_parameter(), _PREFER]},
            "responses": {
                200: _reply("What the request itself would have got.", ["*/*"]),
                **running,
                **_problems("unknown-job", *(c for c in _RUNNING if c not in _REFUSED)),
            },
        },
        "output": {
            "summary": "An output of a job",
            "openapi_extra": {
                "parameters": [
                    _job_parameter(),
                    {
                        "name": "number",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "integer", "minimum": 0},
                    },
                ]
            },
            "responses": {200: _reply("The output.", ["*/*"]), **_problems("unknown-job")},
        },
        "cancel": {
            "summary": "Cancel a job",
            "openapi_extra": {"parameters": [_job_parameter()]},
            "responses": {
                200: _job("The job, which has stopped."),
                202: _job("It is told to stop, and has not yet.", {"Location": "The job."}),
                **_problems("unknown-job", "job-ended", "engine-unreachable"),
            },
        },
    }


def events_operation() -> dict[str, Any]:
    """Return what `add_api_route` is to say of GET /jobs/ID/events."""
    number = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
    stream = {"schema": _EVENT, "example": _EVENTS}
    return {
        "summary": "What happens to a job",
        "openapi_extra": {
            "parameters": [
                _job_parameter(),
                _optional("after", "query", "Leave out the events up to this id.", number),
                _optional("Last-Event-ID", "header", "As `after`, and before it.", number),
                _optional("previews", "query", "Show pictures on their way.", {"type": "boolean"}),
            ]
        },
        "responses": {
            200: {
                "description": "Server-sent events; after `end` no more come.",
                "headers": _headers({"X-Job-Id": HEADERS["X-Job-Id"]}),
                "content": {"text/event-stream": stream},
            },
            204: {"description": "The job has ended, and the caller has all of its events."},
            **_problems("unknown-job", "too-many-listeners", "engine-unreachable"),
        },
    }


def usage_operation() -> dict[str, Any]:
    """Return what `add_api_route` is to say of GET /usage."""
    schema = {"schema": {"$ref": _SCHEMAS + UsageDocument.__name__}}
    return {
        "operation_id": "usage",
        "summary": "How the endpoints were used",
        "responses": {
            200: {"description": "By route and key.", "content": {JSON: schema}},
            **_problems("engine-unreachable"),
        },
    }


def example_body(endpoint: Endpoint) -> dict[str, Any] | None:
    """Return a body that an endpoint takes: what it requires, by the first examples.

    None when something that is required has no example.
    """
    schema = endpoint.request.model_json_schema()
    body: dict[str, Any] = {}
    for name in (*schema.get("required", ()), *(group[0] for group in endpoint.request.ONE_OF)):
        about = schema["properties"][name]
        # An optional param is described beside null.
        described = [about, *about.get("anyOf", ())]
        if any(one.get("x-media") == "image" for one in described):
            body[name] = _PICTURE
        elif about.get("examples"):
            body[name] = about["examples"][0]
        else:
            return None
    try:
        endpoint.request.model_validate(body)
    except ValidationError:
        return None
    return body


def page_operations(model_files: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Return what `add_api_route` is to say of the routes in page.py, by name."""
    svg: dict[str, Any] = {"image/svg+xml": {"schema": {"type": "string"}}}
    return {
        "workflow_graph": {
            "summary": "The graph of an endpoint as a picture",
            "openapi_extra": {"parameters": [_path_parameter("name")]},
            "responses": {
                200: {"description": "The picture.", "content": svg},
                **_problems("not-found"),
            },
        },
        "model_files": {
            "summary": "The files of a model folder",
            "openapi_extra": {"parameters": [_path_parameter("folder")]},
            "responses": {
                200: {"description": "The files.", "model": model_files},
                **_problems("not-found", "engine-unreachable"),
            },
        },
    }


def describe(app: FastAPI, description: str, version: str, *, with_keys: bool) -> None:
    """Make an app's OpenAPI document say what its routes cannot: bodies, and keys if it has any."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=version,
                description=description,
                routes=app.routes,
                tags=_TAGS,
            )
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for model in (ProblemDocument, JobDocument, UsageDocument):
                _add(schemas, model, "serialization")
            for endpoint in gateway_of(app).endpoints.values():
                _add(schemas, endpoint.request, "validation")
            if with_keys:
                document["components"]["securitySchemes"] = _KEYS
                document["security"] = [{name: []} for name in _KEYS]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add(schemas: dict[str, Any], model: type[BaseModel], mode: Any) -> None:
    schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}", mode=mode)
    schemas |= schema.pop("$defs", {})
    schemas[model.__name__] = schema


def _example(endpoint: Endpoint) -> dict[str, Any]:
    body = example_body(endpoint)
    return {} if body is None else {"example": body}


def _form_schema(endpoint: Endpoint) -> dict[str, Any]:
    """Return the schema of a form: as that of the JSON body, with files for media."""
    schema = endpoint.request.model_json_schema(ref_template=_SCHEMAS + "{model}")
    binary = {"type": "string", "format": "binary"}
    for attribute in media_fields(endpoint.request):
        name = endpoint.request.model_fields[attribute].alias or attribute
        schema["properties"][name] |= binary
    if endpoint.graph:
        schema["properties"]["files"] = {"type": "array", "items": binary}
    return schema


# In the order that /docs shows them.
_TAGS: Final[list[dict[str, Any]]] = [
    {"name": "endpoints", "description": "What makes pictures and videos."},
    {"name": "jobs", "description": "Runs under way, and what came of them."},
    {"name": "about", "description": "What is served, and how it is."},
]
# Eight pixels by eight, from red above to blue below: what is made of one colour looks broken.
_PICTURE: Final = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mO8U2HDgA2wvGCQGEISAPZdCK4xrD8UAAAAAElFTkSuQmCC"
)
_KEYS: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "A request that is sent again with the key of the first gets the first's job.",
    "schema": {"type": "string", "pattern": PATTERN},
}
_PREFER: Final[dict[str, Any]] = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`respond-async`: answer with the job at once. `wait=10`: after 10 seconds.",
    "schema": {"type": "string", "examples": ["respond-async", "wait=5"]},
}
# Where the job of a reply can be asked for.
_LINKS: Final = {
    f"job_{name}": {
        "operationId": f"job_{name}",
        "parameters": {"job": "$response.header.X-Job-Id"} | more,
    }
    for name, more in {"get": {}, "result": {}, "output": {"number": 0}, "cancel": {}}.items()
}


# One event of a stream, as tools for OpenAPI read it.
_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$", "description": "Previews have none."},
        "event": {"enum": [*EVENTS]},
        "data": {"type": "string", "contentMediaType": JSON},
    },
    "required": ["event", "data"],
}
_EVENTS: Final = """\
id: 3
event: node
data: {"node": "4", "class_type": "KSampler", "title": "KSampler", "done": 3, "of": 6}

id: 4
event: progress
data: {"node": "4", "value": 3, "max": 20}

"""


def _optional(name: str, place: str, description: str, schema: Any) -> dict[str, Any]:
    about = {"description": description, "schema": schema}
    return {"name": name, "in": place, "required": False, **about}


def _job_parameter() -> dict[str, Any]:
    return {"name": "job", "in": "path", "required": True, "schema": {"type": "string"}}


def _headers(texts: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {"description": text, "schema": {"type": "string"}} for name, text in texts.items()
    }


def _reply(description: str, media_types: Any) -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    content: dict[str, Any] = dict.fromkeys(media_types, binary)
    content[JSON] = {"schema": {"$ref": _SCHEMAS + "JobDocument"}}
    return {"description": description, "headers": _headers(HEADERS), "content": content}


def _job(description: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {
        "description": description,
        "headers": _headers(headers or {}),
        "content": {JSON: {"schema": {"$ref": _SCHEMAS + "JobDocument"}}},
    }


def _problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    found: dict[int, list[str]] = {}
    headers: dict[int, dict[str, str]] = {}
    for code in (*_COMMON, *codes):
        status = KINDS[code].status
        found.setdefault(status, []).append(KINDS[code].title)
        if code in RETRY_AFTER:
            headers[status] = {"Retry-After": "Seconds until it is worth asking again."}
    return {
        status: {
            "description": " · ".join(dict.fromkeys(titles)),
            "headers": _headers(headers.get(status, {})),
            "content": {MEDIA_TYPE: {"schema": {"$ref": _SCHEMAS + "ProblemDocument"}}},
        }
        for status, titles in sorted(found.items())
    }


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
