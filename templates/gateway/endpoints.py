"""Endpoints: a request is checked, becomes a graph, and runs as a job."""

import asyncio

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from ..graph.convert import is_ui
from ..graph.prompt import NoPositiveTextError
from ..params import media_fields
from .access import owner_of
from .backend import Backend, Work, new_job_id
from .bodies import Body, read_body
from .items import FILES, read_files, read_item, read_media
from .jobs import reply, while_connected
from .media import MediaFile
from .openapi import endpoint_operation
from .problems import Fault, Problem, pointer
from .service import Endpoint, Gateway, gateway_of


def add_endpoint(app: FastAPI, backend: Backend, endpoint: Endpoint) -> None:
    """Add POST ROUTE to an app that `new_app` made."""
    gateway = gateway_of(app)
    gateway.endpoints[endpoint.route] = endpoint
    takes_media = bool(endpoint.graph or media_fields(endpoint.request))

    async def run(request: Request) -> Response:
        if not endpoint.enabled:
            hint = f"its owner can set enabled: true in {endpoint.file}"
            raise Problem("workflow-off", f"{endpoint.route} is switched off; {hint}")
        body = await read_body(request, gateway.max_body_bytes)
        making = _work(gateway, backend, endpoint, request, body)
        # Media take their time, and are fetched for nobody who has gone.
        work = await (while_connected(request, making) if takes_media else making)
        await backend.submit(work)
        return await reply(gateway, backend, request, work.job)

    app.add_api_route(
        endpoint.route,
        run,
        methods=["POST"],
        response_class=Response,
        **endpoint_operation(endpoint),
    )


async def _work(
    gateway: Gateway, backend: Backend, endpoint: Endpoint, request: Request, body: Body
) -> Work:
    """Return what a request wants done; nothing has been started yet.

    Raises:
        Problem: when it cannot be done.
    """
    if param := endpoint.graph_param:
        _check_wrapped(body.values, param)
        # A graph may be large; others are answered while it is read and checked.
        reading = asyncio.to_thread(
            read_item, endpoint.request, body, param, gateway.graphs.converted
        )
        item, uploads = await reading
    else:
        item, uploads = read_item(endpoint.request, body)
    item, files = await read_media(gateway.media, item, uploads)
    graph_files: dict[str, MediaFile] = {}
    if endpoint.graph:
        graph_files = await read_files(gateway.media, getattr(item, FILES), uploads)
    try:
        graph = endpoint.build(item)
    except NoPositiveTextError as error:
        raise Problem("bad-graph", str(error), [Fault(pointer("prompt"), str(error))]) from error
    if param := endpoint.graph_param:
        names = {name: file.name for name, file in graph_files.items()}
        graph = gateway.graphs.placed(graph, param, names)
        await gateway.graphs.check_whole(graph, param, backend)
    else:
        await gateway.graphs.check_models(endpoint.route, graph, item, backend)
    return Work(
        job=new_job_id(),
        route=endpoint.route,
        graph=graph,
        files={file.name: file.data for file in (*files, *graph_files.values())},
        seed=getattr(item, endpoint.seed) if endpoint.seed else None,
        profile=endpoint.profile,
        group=endpoint.group,
        timeout=endpoint.timeout,
        owner=owner_of(request),
    )


def _check_wrapped(values: object, param: str) -> None:
    """Refuse a body that is a graph itself, with how to send it."""
    if isinstance(values, dict) and param not in values:
        nodes = [v for v in values.values() if isinstance(v, dict) and "class_type" in v]
        if nodes or is_ui(values):
            detail = f"this looks like a graph alone; send it as the param {param}"
            raise Problem("bad-params", detail, [Fault(pointer(param), "this param is required")])
