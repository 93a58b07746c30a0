"""Endpoints: a request is checked, becomes a graph, and runs as a job."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..graph.convert import is_ui
from ..graph.prompt import NoPositiveTextError
from ..params import Request as Item
from ..params import media_fields
from ..utils.comfyui_errors import FULL_DISK
from .access import owner_of
from .backend import (
    Backend,
    BackendUnavailableError,
    Key,
    NotTakenError,
    Status,
    Work,
    new_job_id,
)
from .bodies import Body, read_body
from .idempotency import fingerprint, key_of
from .items import FILES, Uploads, read_files, read_item, read_media
from .jobs import reply, while_connected
from .journal import Journal, Subject
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
        owner = owner_of(request)
        with _noted(backend.journal, endpoint.route, owner):
            job, is_new = await submitted(request, owner)
        return await reply(gateway, backend, request, job, is_new=is_new)

    async def marked(item: Item, uploads: Uploads) -> str:
        if takes_media:
            # Files and graphs may be large; others are answered meanwhile.
            return await asyncio.to_thread(fingerprint, endpoint.route, item, uploads)
        return fingerprint(endpoint.route, item, uploads)

    async def submitted(request: Request, owner: str) -> tuple[str, bool]:
        """Return the job that a request becomes, or became before by the same key; is it new?"""
        gateway.rate.take(owner)
        if not endpoint.enabled:
            hint = f"its owner can set enabled: true in {endpoint.file}"
            raise Problem("workflow-off", f"{endpoint.route} is switched off; {hint}")
        text = key_of(request)
        body = await read_body(request, gateway.max_body_bytes)
        item, uploads = await _item(gateway, endpoint, body)
        key = Key(text, await marked(item, uploads)) if text else None
        job, is_new = await backend.keyed(owner, key) if key else None, False
        if job is None:
            making = _work(gateway, backend, endpoint, item, uploads)
            # Media take their time, and are fetched for nobody who has gone.
            work = await (while_connected(request, making) if takes_media else making)
            work = replace(work, owner=owner, key=key)
            job = await backend.submit(work, gateway.limits.room)
            is_new = job == work.job
            if is_new:
                backend.journal.queued(work)
        if not is_new:
            backend.journal.repeated(Subject(job, endpoint.route, owner))
        if key:
            # Who has sent a key may ask again with it.
            gateway.listeners.keep(job)
        return job, is_new

    app.add_api_route(
        endpoint.route,
        run,
        methods=["POST"],
        response_class=Response,
        **endpoint_operation(endpoint),
    )


async def _item(gateway: Gateway, endpoint: Endpoint, body: Body) -> tuple[Item, Uploads]:
    """Return the params of a request, and what was uploaded with it.

    Raises:
        Problem: when a param is wrong.
    """
    param = endpoint.graph_param
    if param is None:
        return read_item(endpoint.request, body)
    _check_wrapped(body.values, param)
    # A graph may be large; others are answered while it is read and checked.
    return await asyncio.to_thread(
        read_item, endpoint.request, body, param, gateway.graphs.converted
    )


@contextmanager
def _noted(journal: Journal, route: str, owner: str) -> Iterator[None]:
    """Note why a request becomes no job."""
    try:
        yield
    except (NotTakenError, Problem) as error:
        journal.refused(route, owner, None, error.code)
        raise
    except BackendUnavailableError:
        journal.refused(route, owner, None, "engine-unreachable")
        raise
    except ClientDisconnect:
        journal.refused(route, owner, Status.CANCELLED, "client-gone")
        raise
    except Exception as error:
        is_full = isinstance(error, OSError) and error.errno in FULL_DISK
        code = "disk-full" if is_full else "internal-error"
        journal.refused(route, owner, Status.FAILED, code)
        raise


async def _work(
    gateway: Gateway, backend: Backend, endpoint: Endpoint, item: Item, uploads: Uploads
) -> Work:
    """Return what a request wants done; nothing has been started yet.

    Raises:
        Problem: when it cannot be done.
    """
    item, files = await read_media(gateway.media, item, uploads)
    graph_files: dict[str, MediaFile] = {}
    if endpoint.graph:
        graph_files = await read_files(gateway.media, getattr(item, FILES), uploads)
    try:
        graph = endpoint.build(item)
    except NoPositiveTextError as error:
        raise Problem("bad-graph", str(error), [Fault(pointer("prompt"), str(error))]) from error
    gateway.graphs.check_size(endpoint.route, graph, endpoint.graph_param, gateway.limits)
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
    )


def _check_wrapped(values: object, param: str) -> None:
    """Refuse a body that is a graph itself, with how to send it."""
    if isinstance(values, dict) and param not in values:
        nodes = [v for v in values.values() if isinstance(v, dict) and "class_type" in v]
        if nodes or is_ui(values):
            detail = f"this looks like a graph alone; send it as the param {param}"
            raise Problem("bad-params", detail, [Fault(pointer(param), "this param is required")])
