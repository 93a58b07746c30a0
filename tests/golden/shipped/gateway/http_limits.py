"""HTTP with an end: heads of requests, and what stands between bytes of a body, may be so large and
take so long.

uvicorn itself waits for a head for ever, and keeps whatever comes of it. On Modal its own servers
stand in front.
"""

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .problems import Problem


class LimitedHttp(HttpToolsProtocol):
    """Closes connections of which a head takes more than `head_seconds`, or `max_head` bytes, to come.

    What a request has beside its body counts as its head, but for what has come with its beginning in
    one read; what stands between chunks may be as long as they are.
    """

    head_seconds: float = 10.0
    max_head: int = 65_536

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting: asyncio.TimerHandle | None = None
        self._is_in_head = False
        # Whether what comes is no HTTP any more.
        self._is_broken = False
        self._received = 0
        self._body = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return
        if self.cycle is None or self.cycle.response_complete:
            # Line breaks before a head end uvicorn's patience with idle connections.
            self._wait()
        self._received += len(data)
        super().data_received(data)
        if self._is_broken or self.transport.is_closing():
            return
        if self._received - 2 * self._body > self.max_head:
            self._end("large-head", f"a head has {self.max_head:,} bytes at most")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._received = self._body = 0
        self._wait()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(
                self.head_seconds, self._end, "slow-head", "the head was not complete in time"
            )

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def send_400_response(self, msg: str) -> None:
        """Close the connection: once the requests that came before are answered, else say why."""
        self._stop_waiting()
        self._is_broken = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            cycle.keep_alive = False
            return
        is_answering = cycle is not None and cycle.response_started and not cycle.response_complete
        if not is_answering and not self.pipeline:
            self.transport.write(_written(Problem("bad-request", msg)))
        self.transport.close()

    def _end(self, code: str, detail: str) -> None:
        """Close the connection, and say why where a head is on its way and nothing else."""
        self._stop_waiting()
        if self._is_in_head and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(_written(Problem(code, detail)))
        self.transport.close()


def _written(problem: Problem) -> bytes:
    """Return a problem as the last answer on a connection."""
    response = problem.response()
    status = HTTPStatus(response.status_code)
    headers = {**response.headers, "connection": "close"}
    lines = [f"HTTP/1.1 {status} {status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + bytes(response.body)
