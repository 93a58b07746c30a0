"""Requests that come slowly, without an end, or with lengths that are not theirs."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from templates.gateway import serve

from .api_client import FLUX, SECONDS, Api, listening, part, running

BODY = json.dumps(FLUX).encode()
POST = b"POST /flux HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def lengthy(length: object, body: bytes) -> bytes:
    return POST + f"Content-Length: {length}\r\n\r\n".encode() + body


def chunked(body: bytes) -> bytes:
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + body


async def received(reader: asyncio.StreamReader) -> bytes:
    """Return all that comes; who is still sending when the server closes gets a reset behind it."""
    data = b""
    with suppress(ConnectionResetError):
        while chunk := await reader.read(65_536):
            data += chunk
    return data


def told(answer: bytes) -> dict[str, Any]:
    """Return the problem document that is the last answer on a connection."""
    head, _, body = answer[answer.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    status, *lines = head.decode("ascii").split("\r\n")
    headers = dict(line.lower().split(": ") for line in lines)
    assert headers["content-type"] == "application/problem+json"
    assert headers["content-length"] == str(len(body))
    document: dict[str, Any] = json.loads(body)
    if document["code"] in ("bad-request", "slow-head", "large-head"):
        assert headers["connection"] == "close"
    assert status.split()[1] == str(document["status"])
    return document


@dataclass
class Up:
    """A server as `make serve` runs it."""

    api: Api
    url: str
    http: Any

    def ask(self, test: Callable[[Connect], Awaitable[None]], *, starts: int = 0) -> None:
        """Run a test that starts so many jobs; after it, others are still answered."""
        host, port = self.url.removeprefix("http://").split(":")

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection(host, int(port))

        async def run() -> None:
            works = self.api.works
            before = len(works)
            await test(connect)
            assert len(works) == before + starts
            async with httpx.AsyncClient() as client:
                assert (await client.post(f"{self.url}/flux", json=FLUX)).status_code == 200
            assert len(works) == before + starts + 1

        self.api.run(run())

    def answer(self, request: bytes, *, ends: bool = False) -> bytes:
        """Send bytes on one connection, and return all that comes until it is closed.

        `ends` says that the caller sends no more; nothing may be started by it.
        """
        answers: list[bytes] = []

        async def test(connect: Connect) -> None:
            reader, writer = await connect()
            writer.write(request)
            if ends:
                writer.write_eof()
            answers.append(await received(reader))
            writer.close()

        self.ask(test)
        return answers[0]


@pytest.fixture(scope="module")
def module_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    limits: Any = part("build", "gateway.http_limits")
    http = type("Http", (limits.LimitedHttp,), {})
    with running(tmp_path_factory.mktemp("base")) as api:
        stack = AsyncExitStack()
        url = api.run(stack.enter_async_context(listening(api.service.app, http)))
        try:
            yield Up(api, url, http)
        finally:
            api.run(stack.aclose())


@pytest.fixture
def up(module_up: Up, monkeypatch: pytest.MonkeyPatch) -> Up:
    """A server with the limits of `make serve`."""
    monkeypatch.setattr(module_up.http, "head_seconds", 10.0, raising=False)
    return module_up


@pytest.fixture
def impatient(up: Up, monkeypatch: pytest.MonkeyPatch) -> Up:
    """A server that waits 0.3 seconds for a head."""
    monkeypatch.setattr(up.http, "head_seconds", 0.3)
    return up


# Slow


@pytest.mark.parametrize("sent", [b"", b"POST", POST, POST + b"X-Slow: ", b"\r\n\r\n"])
def test_a_head_that_does_not_end_in_time(impatient: Up, sent: bytes) -> None:
    start = time.monotonic()
    found = impatient.answer(sent)
    assert time.monotonic() - start < SECONDS / 2
    # Who has sent nothing of a head is not told why.
    if sent.strip():
        assert told(found)["code"] == "slow-head"
    else:
        assert found == b""


def test_a_head_that_comes_byte_by_byte(impatient: Up) -> None:
    async def test(connect: Connect) -> None:
        reader, writer = await connect()
        reading = asyncio.create_task(received(reader))
        writer.write(GET)
        while not reading.done():
            writer.write(b"X: y\r\n")
            await asyncio.sleep(0.02)
        assert reading.result().startswith(b"HTTP/1.1 408 ")
        writer.close()

    impatient.ask(test)


def test_a_second_head_on_a_connection_has_its_own_time(impatient: Up) -> None:
    async def test(connect: Connect) -> None:
        reader, writer = await connect()
        for pause in (0, 0.2, 0.2):
            await asyncio.sleep(pause)
            writer.write(GET + b"\r\n")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            while b"}" not in await reader.read(10_000):
                pass
        writer.write(b"\r\n")
        assert await reader.read() == b""
        writer.close()

    impatient.ask(test)


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_does_not_come_in_time(
    up: Up, silent: bool, is_chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of it, or a byte now and then."""
    bodies: Any = part("build", "gateway.bodies")
    monkeypatch.setattr(bodies, "BODY_SECONDS", 10 if silent else 0.4)
    monkeypatch.setattr(bodies, "SILENT_SECONDS", 0.3 if silent else 10)

    async def test(connect: Connect) -> None:
        reader, writer = await connect()
        reading = asyncio.create_task(received(reader))
        writer.write(chunked(b"") if is_chunked else lengthy(100_000, b"{"))
        while not reading.done():
            if not silent:
                writer.write(b"1\r\n \r\n" if is_chunked else b" ")
            await asyncio.sleep(0.02)
        assert reading.result().startswith(b"HTTP/1.1 408 ")
        assert b'"code": "slow-body"' in reading.result()
        writer.close()

    up.ask(test)


def test_slow_callers_do_not_keep_others_waiting(up: Up) -> None:
    async def test(connect: Connect) -> None:
        slow = [await connect() for _ in range(100)]
        for number, (_, writer) in enumerate(slow):
            writer.write(lengthy(10_000, b"{") if number % 2 else POST)
        start = time.monotonic()
        reader, writer = await connect()
        writer.write(lengthy(len(BODY), BODY))
        assert b" 200 " in await reader.readline()
        assert time.monotonic() - start < SECONDS / 4
        for _, each in [*slow, (reader, writer)]:
            each.close()

    up.ask(test, starts=1)


# Without an end


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (GET, b"X-Many: y\r\n"),
        (GET + b"X-Long: ", b"y" * 1000),
        (GET, b"Cookie: " + b"y" * 1000 + b"\r\n"),
        (b"GET /", b"y" * 1000),
        (chunked(b""), b"1;" + b"x" * 1000 + b"\r\n{\r\n"),
        (chunked(b"0\r\n"), b"X-Trailer: y\r\n"),
    ],
    ids=["headers", "a header", "cookies", "a path", "extensions of chunks", "trailers"],
)
def test_a_head_without_an_end_is_not_kept(up: Up, start: bytes, more: bytes) -> None:
    sent = 0

    async def test(connect: Connect) -> None:
        nonlocal sent
        reader, writer = await connect()
        writer.write(start)
        try:
            while sent < 10_000_000 and not reader.at_eof():
                writer.write(more * 20)
                sent += len(more) * 20
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        writer.close()

    up.ask(test)
    # What the system holds for both ends comes on top of the limit.
    assert sent < 8_000_000


def test_a_head_that_is_too_large(up: Up) -> None:
    async def test(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(GET + b"X-Long: ")
        await asyncio.sleep(0.1)
        # All of it is read, so nothing resets the connection before the answer is here.
        writer.write(b"y" * (up.http.max_head + 1))
        document = told(await received(reader))
        assert (document["status"], document["code"]) == (431, "large-head")
        writer.close()

    up.ask(test)


@pytest.mark.parametrize("length", [1000, 60_000])
def test_long_heads_are_taken(up: Up, length: int) -> None:
    found = up.answer(GET + b"Connection: close\r\nX: " + b"y" * length + b"\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 200 ")


def test_a_body_of_small_chunks_is_taken(up: Up) -> None:
    """What stands around them is more than a head may have."""

    async def test(connect: Connect) -> None:
        reader, writer = await connect()
        body = BODY + b" " * 200_000
        pieces = [body[n : n + 8] for n in range(0, len(body), 8)]
        writer.write(chunked(b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces)))
        writer.write(b"0\r\n\r\n")
        assert b" 200 " in await reader.readline()
        writer.close()

    up.ask(test, starts=1)


# Lengths that are not theirs


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        # Too short: the rest is no request of its own.
        (lengthy(len(BODY) - 5, BODY), 400),
        (lengthy(0, BODY), 400),
        (lengthy(5, BODY), 400),
        (POST + b"\r\n" + BODY, 400),
        # No length that anybody could mean.
        (lengthy(-1, BODY), 400),
        (lengthy("+5", BODY), 400),
        (lengthy("5, 5", BODY), 400),
        (lengthy("0x10", BODY), 400),
        (lengthy("1e3", BODY), 400),
        (lengthy("", BODY), 400),
        (lengthy("9" * 40, BODY), 400),
        (lengthy(10**15, b"{"), 413),
        # Two lengths, by which a proxy and this server could differ.
        (lengthy(f"{len(BODY)}\r\nContent-Length: 5", BODY), 400),
        (lengthy(f"{len(BODY)}\r\nTransfer-Encoding: chunked", BODY), 400),
        (chunked(b"")[:-2] + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY, 400),
        (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + BODY, 400),
        (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length: 5\r\n Folded: 1\r\n\r\n12345", 400),
        # Chunks that lie.
        (chunked(b"5\r\n" + BODY + b"\r\n0\r\n\r\n"), 400),
        (chunked(b"-1\r\n" + BODY), 400),
        (chunked(b"0x5\r\n12345\r\n0\r\n\r\n"), 400),
        (chunked(b"FFFFFFFFFFFFFFFFF\r\n" + BODY), 400),
        (chunked(b"zz\r\n" + BODY), 400),
        (chunked(b"0\r\n\r\n"), 400),
        # What is no HTTP.
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(100), 400),
        (b"GET /health HTTP/9.9\r\n\r\n", 400),
        (GET + b"X\0: y\r\n\r\n", 400),
    ],
)
def test_a_request_that_lies_starts_nothing(up: Up, request_: bytes, status: int) -> None:
    """The connection is closed, for nobody knows where the next request would begin."""
    found = up.answer(request_, ends=True)
    assert found.startswith(b"HTTP/1.1 ")
    statuses = [int(part.split(b" ")[0]) for part in found.split(b"HTTP/1.1 ")[1:]]
    assert status in statuses
    assert all(each >= 400 for each in statuses)
    assert told(found)["code"] in ("bad-request", "bad-body", "too-large")


@pytest.mark.parametrize("pause", [0, 0.1])
@pytest.mark.parametrize(
    ("behind", "found"),
    [
        (b"garbage\r\n\r\n", [b"/one"]),
        (b"GET /two HTTP/1.1\r\n\r\ngarbage\r\n\r\n", [b"/one", b"/two"]),
        (b"garbage" * 100_000, [b"/one"]),
        # Nobody could tell whose answer it would be.
        (chunked(b"no chunk"), []),
    ],
    ids=["garbage", "a request and garbage", "much garbage", "a body that lies"],
)
def test_what_came_before_garbage_is_answered(
    pause: float, behind: bytes, found: list[bytes]
) -> None:
    """With its own answer, not with what there is to say of the garbage."""

    async def app(scope: Any, _: Any, send: Any) -> None:
        await asyncio.sleep(0.3)
        body = f"[{scope['path']}]".encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def run() -> bytes:
        config = uvicorn.Config(app, http=serve._Http, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        with serve.listen(0) as listener:
            serving = asyncio.create_task(server.serve([listener]))
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET /one HTTP/1.1\r\n\r\n")
            await asyncio.sleep(pause)
            writer.write(behind)
            data = await asyncio.wait_for(received(reader), SECONDS)
            writer.close()
            server.should_exit = True
            await asyncio.wait_for(serving, SECONDS)
        return data

    data = asyncio.run(run())
    assert re.findall(rb"\[(.*?)\]", data) == found
    assert data.count(b"HTTP/1.1 ") == data.count(b"HTTP/1.1 200 ") == len(found)


@pytest.mark.parametrize(
    "request_",
    [lengthy(len(BODY) + 1, BODY), lengthy(10_000, BODY), chunked(b"ff\r\n" + BODY)],
)
def test_a_body_that_ends_too_soon_starts_nothing(up: Up, request_: bytes) -> None:
    """Though it is whole JSON: who sends less than was said has been cut off."""

    async def test(connect: Connect) -> None:
        _, writer = await connect()
        writer.write(request_)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.05)

    up.ask(test)


@pytest.mark.parametrize("request_comes", [True, False])
def test_who_has_come_is_served_before_the_service_ends(request_comes: bool) -> None:
    """A connection that was taken is not closed before it had the time to say what it wants."""

    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def run() -> bytes:
        config = uvicorn.Config(app, http=serve._Http, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        with serve.listen(0) as listener:
            serving = asyncio.create_task(server.serve([listener]))
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            await asyncio.sleep(0.2)
            server.should_exit = True
            await asyncio.sleep(0.2)
            if request_comes:
                writer.write(GET + b"\r\n")
            data = await received(reader)
            writer.close()
            await asyncio.wait_for(serving, SECONDS)
        return data

    assert asyncio.run(run())[:12] == (b"HTTP/1.1 204" if request_comes else b"")
