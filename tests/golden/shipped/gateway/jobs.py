"""Jobs: waiting for one, answering with it, and the routes below /jobs."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Final, TypeVar

from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from .access import owner_of
from .backend import (
    Backend,
    BackendUnavailableError,
    Job,
    JobEndedError,
    Status,
    UnknownJobError,
    is_job_id,
)
from .openapi import job_operations
from .problems import Fault, Problem, pointer
from .replies import (
    first_output,
    job_response,
    media_type_of,
    output_response,
    result_response,
    wants_json,
)
from .service import Gateway, gateway_of

T = TypeVar("T")

# A request that is not answered for longer is cut by what stands in front of the app.
_LONGEST_WAIT: Final = 60.0
NO_JOB: Final = "there is no such job, or it is kept no longer"


def add_job_routes(app: FastAPI, backend: Backend) -> None:
    """Add the routes below /jobs to an app that `new_app` made."""
    gateway = gateway_of(app)

    async def get(request: Request) -> Response:
        """Return the job as JSON; with `Prefer: wait=10`, once it has ended or after 10 s."""
        job = await _awaited(gateway, backend, request)
        return job_response(job, root(request), problem_of(gateway, job))

    async def result(request: Request) -> Response:
        """Return what the request itself would have got."""
        job = await _awaited(gateway, backend, request)
        return await answer(gateway, request, job)

    async def output(request: Request) -> Response:
        """Return the bytes of an output; they are numbered from 0."""
        job = await found_job(gateway, backend, request, 0)
        outputs = job.result.outputs if job.result else ()
        number = request.path_params["number"]
        if number not in map(str, range(len(outputs))):
            raise Problem("not-found", f"this job has {len(outputs)} outputs, numbered from 0")
        return await output_response(job, int(number))

    async def cancel(request: Request) -> Response:
        """Stop the job, and return it once it has stopped."""
        job = await found_job(gateway, backend, request, 0)
        try:
            stopped = await backend.cancel(job.id)
        except JobEndedError as error:
            ended = await backend.wait(job.id, 0)
            raise Problem("job-ended", f"the job has {ended.status} already") from error
        status = 200 if stopped.status.is_final else 202
        return job_response(stopped, root(request), problem_of(gateway, stopped), status)

    operations = job_operations()
    routes: dict[str, tuple[str, str, Callable[[Request], Awaitable[Response]]]] = {
        "get": ("GET", "/jobs/{job}", get),
        "result": ("GET", "/jobs/{job}/result", result),
        "output": ("GET", "/jobs/{job}/outputs/{number}", output),
        "cancel": ("DELETE", "/jobs/{job}", cancel),
    }
    for name, (method, path, function) in routes.items():
        app.add_api_route(
            path,
            function,
            methods=[method],
            operation_id=f"job_{name}",
            tags=["jobs"],
            response_class=Response,
            **operations[name],
        )


async def reply(
    gateway: Gateway, backend: Backend, request: Request, job: str, *, is_new: bool
) -> Response:
    """Wait for a job as long as its caller does, and answer with it.

    When the last of those who want it goes away, it is cancelled. Whoever asks for one that is not
    new listens to it, and does not wait where a key listens to too many already.

    Raises:
        Problem: when the job failed, or it cannot be told how it is; it goes on then.
    """
    try:
        return await _reply(gateway, backend, request, job, is_new)
    except BackendUnavailableError as error:
        gateway.listeners.keep(job)
        headers = {"X-Job-Id": job}
        raise Problem("engine-unreachable", str(error), headers=headers, job=job) from error


async def _reply(
    gateway: Gateway, backend: Backend, request: Request, job: str, is_new: bool
) -> Response:
    is_async, seconds = preference(request)
    if is_async:
        gateway.listeners.keep(job)
        # With 202 even if it has ended by now: the caller is not to wonder which of two it gets.
        found = await backend.wait(job, 0)
        response = job_response(found, root(request), problem_of(gateway, found), 202)
        response.headers["Preference-Applied"] = "respond-async"
        return response
    limit = gateway.deadline
    place: AbstractContextManager[None] = nullcontext()
    if not is_new:
        owner = owner_of(request)
        if gateway.listening.is_full(owner):
            limit = 0.0
        else:
            place = gateway.listening.of(owner)
    wait = backend.wait(job, limit if seconds is None else min(seconds, limit))
    try:
        with place, gateway.listeners.of(job):
            found = await while_connected(request, wait)
    except ClientDisconnect:
        if not gateway.listeners.want(job):
            with suppress(JobEndedError, UnknownJobError):
                await backend.cancel(job)
        raise
    if not found.status.is_final:
        gateway.listeners.keep(job)
    return await answer(gateway, request, found)


async def answer(gateway: Gateway, request: Request, job: Job) -> Response:
    """Return the reply of a job: its first output, or all as JSON; 202 while it runs.

    Raises:
        Problem: when the job failed.
    """
    problem = problem_of(gateway, job)
    if problem is not None:
        raise problem
    if not job.status.is_final:
        return job_response(job, root(request), None, 202)
    assert job.result is not None
    first = first_output(job.result.outputs)
    if wants_json(request.headers.get("accept", "*/*"), media_type_of(job.result.outputs[first])):
        return await result_response(job, root(request))
    return await output_response(job, first)


def problem_of(gateway: Gateway, job: Job) -> Problem | None:
    """Return why a job has no result, with the place in the YAML files where a node is at fault."""
    if job.status is Status.CANCELLED:
        return Problem("job-cancelled", "the job was cancelled", job=job.id)
    if job.failure is None:
        return None
    failure = job.failure
    endpoint = gateway.endpoints.get(job.route)
    param = endpoint.graph_param if endpoint else None
    # A graph that the caller sent is the caller's fault.
    status = 422 if param and failure.code == "engine-refused" else None
    faults: list[Fault] = []
    if not failure.errors:
        if param and status:
            faults.append(Fault(pointer(param), failure.detail))
        return Problem(failure.code, failure.detail, faults, status=status, job=job.id)
    for error in failure.errors:
        detail = error.message + (f": {error.details}" if error.details else "")
        inside = ("inputs", error.input) if error.input else ()
        place = pointer(param, error.node, *inside) if param else ""
        extra = {
            "node": error.node,
            "class_type": error.class_type,
            "input": error.input,
            **gateway.graphs.place(job.route, error.node, error.input),
        }
        given = {k: v for k, v in extra.items() if v is not None}
        faults.append(Fault(place, detail, given))
    first = {k: v for k, v in faults[0].extra.items() if k != "input"}
    return Problem(failure.code, failure.detail, faults, status=status, job=job.id, **first)


def preference(request: Request) -> tuple[bool, float | None]:
    """Return whether the caller wants 202 at once, and for how many seconds they would wait.

    Source: RFC 7240, sections 4.1 and 4.3.
    """
    is_async, seconds = False, None
    for part in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = part.partition(";")[0].partition("=")
        match name.strip().lower():
            case "respond-async":
                is_async = True
            case "wait" if value.strip(' "').isascii() and value.strip(' "').isdigit():
                seconds = float(value.strip(' "')[:9])
    return is_async and seconds is None, seconds


def root(request: Request) -> str:
    """Return the path that the app is mounted at, without a slash at the end."""
    return str(request.scope.get("root_path", "")).rstrip("/")


async def _awaited(gateway: Gateway, backend: Backend, request: Request) -> Job:
    """Return the job that a path names, after as long as the caller would wait for its end."""
    _, seconds = preference(request)
    return await found_job(gateway, backend, request, min(seconds or 0, _LONGEST_WAIT))


async def found_job(gateway: Gateway, backend: Backend, request: Request, seconds: float) -> Job:
    """Return the job that a path names; a job of another owner is not there.

    Whoever listens to too many already does not wait.
    """
    name = str(request.path_params["job"])
    owner = owner_of(request)
    if not is_job_id(name):
        # The table that jobs are kept in is asked for nothing else.
        raise Problem("unknown-job", NO_JOB)
    try:
        job = await backend.wait(name, 0)
        if job.owner == owner and not job.status.is_final:
            # Whoever asks for it by its id may do so again.
            gateway.listeners.keep(name)
            if seconds and not gateway.listening.is_full(owner):
                with gateway.listening.of(owner):
                    job = await while_connected(request, backend.wait(name, seconds))
    except UnknownJobError as error:
        raise Problem("unknown-job", NO_JOB) from error
    if job.owner != owner:
        raise Problem("unknown-job", NO_JOB)
    return job


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Wait for something, but no longer than the caller does.

    Raises:
        ClientDisconnect: when the caller has gone.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        # It ends by itself; whoever has a result does not wait for that.
        leaving.cancel()
        if not working.done():
            working.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
