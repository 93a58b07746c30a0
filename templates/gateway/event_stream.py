"""GET /jobs/ID/events: what happens to a job, as server-sent events.

Source: HTML, section 9.2, https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing, suppress
from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .access import owner_of
from .backend import END, Backend, BackendUnavailableError, Job, JobEvent, UnknownJobError
from .jobs import found_job, problem_of, root, while_connected
from .openapi import events_operation
from .problems import Problem
from .replies import document
from .service import Gateway, gateway_of

_log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "text/event-stream"
LAST_EVENT_ID: Final = "Last-Event-ID"

# What stands between may cut a connection on which nothing is said.
_HEARTBEAT_SECONDS: Final = 15.0
# Modal ends requests after 150 seconds. Who reads comes back, and goes on where it was.
_LONGEST_STREAM: Final = 140.0
_END_SECONDS: Final = 1.0
_COME_BACK_MILLISECONDS: Final = 1000
_NUMBER: Final = re.compile("[0-9]{1,15}")
_SWITCHES: Final = {"true": True, "false": False}


def add_event_route(app: FastAPI, backend: Backend) -> None:
    """Add GET /jobs/ID/events to an app that `new_app` made."""
    gateway = gateway_of(app)

    async def events(request: Request) -> Response:
        """Tell what happens to a job, from its beginning to its end, as server-sent events."""
        after, previews = _after(request), _previews(request)
        job = await found_job(gateway, backend, request, 0)
        told = backend.events(job.id, after, previews=previews)
        lines = _lines(gateway, root(request), told, after)
        if not job.status.is_final:
            return _EventStream(job.id, lines, gateway.listening.of(owner_of(request)))
        left = [line async for line in lines]
        if not left:
            # Who has the end already is to come back no more.
            return Response(status_code=204)
        return Response(b"".join(left), headers=_headers(job.id), media_type=MEDIA_TYPE)

    app.add_api_route(
        "/jobs/{job}/events",
        events,
        operation_id="job_events",
        tags=["jobs"],
        response_class=Response,
        **events_operation(),
    )


class _EventStream(Response):
    """Sends lines as they come, and a heartbeat when none do, until all are sent or nobody reads.

    It holds a place for as long.
    """

    def __init__(
        self, job: str, lines: AsyncGenerator[bytes, None], place: AbstractContextManager[None]
    ) -> None:
        super().__init__(media_type=MEDIA_TYPE, headers=_headers(job))
        # It is not known yet how much there will be.
        del self.headers["Content-Length"]
        self._lines = lines
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response.

        Raises:
            Problem: when there is no place for it.
        """
        with self._place, suppress(ClientDisconnect):
            await while_connected(Request(scope, receive), self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        try:
            async with asyncio.timeout(_LONGEST_STREAM), aclosing(_beating(self._lines)) as lines:
                await send(_body(b"retry: %d\n\n" % _COME_BACK_MILLISECONDS))
                async for line in lines:
                    await send(_body(line))
        except TimeoutError:
            pass
        except (BackendUnavailableError, UnknownJobError) as error:
            _log.warning("events end early: %s", error)
        # Who has stopped reading is left: the server closes what is not sent to its end.
        with suppress(TimeoutError):
            await asyncio.wait_for(send({"type": "http.response.body", "body": b""}), _END_SECONDS)


def _body(data: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": True}


async def _beating(lines: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield lines, and heartbeats while none come."""
    async with aclosing(lines):
        while True:
            # A task of its own, for a generator that is cancelled goes on no more.
            coming = asyncio.ensure_future(anext(lines, None))
            try:
                while not coming.done():
                    await asyncio.wait({coming}, timeout=_HEARTBEAT_SECONDS)
                    if not coming.done():
                        yield b": still here\n\n"
            finally:
                if not coming.done():
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)
            line = coming.result()
            if line is None:
                return
            yield line


async def _lines(
    gateway: Gateway, root: str, told: AsyncGenerator[JobEvent, None], after: int
) -> AsyncGenerator[bytes, None]:
    """Yield the events of a job as they are sent. The last are its outputs, and the job itself."""
    async with aclosing(told):
        async for event in told:
            if event.name != END:
                yield _line(event.number, event.name, event.data)
                continue
            assert event.number is not None
            assert event.job is not None
            for number, (name, data) in enumerate(_ending(gateway, root, event.job), event.number):
                # An end that comes twice does no harm; one that never comes would.
                if number > after or (name == END and number != after):
                    yield _line(number, name, data)


def _ending(gateway: Gateway, root: str, job: Job) -> list[tuple[str, str]]:
    """Return the last events of a job: an output each, then the job as GET /jobs/ID has it."""
    found = document(job, root, problem_of(gateway, job)).model_dump(mode="json")
    shown = ("node", "kind", "media_type", "url")
    outputs = [
        {"number": number, **{name: output[name] for name in shown}}
        for number, output in enumerate(found["outputs"])
    ]
    # ASCII alone, as `JobEvent.data` has it.
    return [*(("output", json.dumps(o)) for o in outputs), (END, json.dumps(found))]


def _line(number: int | None, name: str, data: str) -> bytes:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {data}\n\n".encode("ascii")


def _headers(job: str) -> dict[str, str]:
    # nginx would keep events back to send them together.
    return {"X-Job-Id": job, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def _after(request: Request) -> int:
    """Return the number of the last event that a caller has; 0 when there is none.

    Raises:
        Problem: when it is no number.
    """
    texts = {
        LAST_EVENT_ID: request.headers.get(LAST_EVENT_ID),
        "after": request.query_params.get("after"),
    }
    for name, text in texts.items():
        if text is not None and not _NUMBER.fullmatch(text):
            detail = f"{name} is the id of an event, a number of 15 digits at most"
            raise Problem("bad-request", detail)
    # The header is a browser's that comes back, with the address that it asked at first.
    return int(texts[LAST_EVENT_ID] or texts["after"] or 0)


def _previews(request: Request) -> bool:
    text = request.query_params.get("previews", "false")
    if text not in _SWITCHES:
        raise Problem("bad-request", "previews is true or false")
    return _SWITCHES[text]
