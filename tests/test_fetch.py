"""The fetcher of URLs, with servers on this machine and a DNS that says whatever it is told to."""

import asyncio
import gzip
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from templates.gateway.fetch import Address, Fetcher, FetchError, is_public

# Two addresses of this machine, one of which stands for the internet.
PUBLIC = "127.0.0.1"
PRIVATE = "127.0.0.2"

NOT_PUBLIC = "leads to no host of the public internet"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfile"


def only_public(address: Address) -> bool:
    return str(address) == PUBLIC


def all_allowed(_: Address) -> bool:
    return True


def redirect(place: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()


class Server:
    """Answers paths with bytes, after a pause, and keeps what it was asked."""

    def __init__(self, answers: dict[str, bytes], *, pause: float = 0.0) -> None:
        self.answers = answers
        self.connections = 0
        self.requests: list[str] = []
        self.port = 0
        self.open: set[asyncio.Task[Any] | None] = set()
        self._pause = pause

    def url(self, path: str = "/", host: str = PUBLIC) -> str:
        return f"http://{host}:{self.port}{path}"

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.answer(reader, writer)
        with suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()
        self.open.discard(asyncio.current_task())

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.requests.append(request)
        answer = self.answers.get(request.split()[1], b"")
        for start in range(0, len(answer), 65536):
            await asyncio.sleep(self._pause)
            writer.write(answer[start : start + 65536])
            await writer.drain()


class SilentServer(Server):
    """Never answers."""

    async def answer(self, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()


class PlainServer(Server):
    """Answers in plain text whatever it is sent."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(OK)


@asynccontextmanager
async def serving(server: Server, host: str = PUBLIC) -> AsyncIterator[Server]:
    listener = await asyncio.start_server(server.connected, host, server.port)
    server.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield server
        while server.open:
            await asyncio.sleep(0.001)


async def fetch(url: str, **options: Any) -> bytes:
    defaults: dict[str, Any] = {"max_bytes": 1000, "timeout": 5.0, "allowed": only_public}
    async with Fetcher(**defaults | options) as fetcher:
        return await fetcher.fetch(url)


def fetch_from(answers: dict[str, bytes], path: str = "/", **options: Any) -> bytes:
    async def run() -> bytes:
        async with serving(Server(answers)) as server:
            return await fetch(server.url(path), **options)

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def dns(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """The answers of the DNS by name, of which each is given once and the last ever after.

    What else is asked for is resolved only if it is an address.
    """
    names: dict[str, list[list[str]]] = {}

    real = socket.getaddrinfo

    def getaddrinfo(
        host: str, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Sequence[Any]:
        answers = names.get(host, [[host]])
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        numeric = flags | socket.AI_NUMERICHOST
        return [
            info
            for address in addresses
            for info in real(address, port, family, type, proto, numeric)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "100.127.255.255",
        "127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.169.254", "172.16.0.1",
        "172.31.255.255", "192.0.0.1", "192.0.0.8", "192.0.0.170", "192.0.0.192", "192.0.2.1",
        "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1",
        "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        "::ffff:8.8.8.8", "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b::808:808",
        "64:ff9b:1::a00:1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1",
        "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1",
        "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1",
        "192.167.255.255", "192.0.1.1", "223.255.255.255", "2001:4860:4860::8888",
        "2606:4700:4700::1111", "2a00:1450:4001:81b::200e",
    ],
)  # fmt: skip
def test_an_address_that_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.ip_addresses(v=4))
def test_no_form_of_an_ipv4_address_in_ipv6_is_public(address: Any) -> None:
    number = int(address)
    for prefix, shift in (
        ("::ffff:0:0", 0), ("::", 0), ("64:ff9b::", 0), ("64:ff9b:1::", 0), ("2002::", 80),
    ):  # fmt: skip
        assert not is_public(IPv6Address(int(IPv6Address(prefix)) | number << shift))


# Hosts


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.1.", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001",
        "0177.0.0.1", "127.0.0.01", "0.0.0.0", "0", "[::1]", "[::]", "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]", "[::127.0.0.1]", "[fe80::1%25lo]", "[fe80::1%lo]", "[::1%25lo]",
        "１２７.0.0.1", "①②⑦.⓪.⓪.①", "127。0。0。1", "LOCALHOST", "localhost", "localhost.",
        "inside.test", "Inside.Test", "ínside.test", "%31%32%37.0.0.1", "127.0.0.1%2f",
    ],
)  # fmt: skip
def test_nothing_is_sent_to_an_address_that_is_not_public(
    host: str, dns: dict[str, list[list[str]]]
) -> None:
    for name in ("localhost", "localhost.", "inside.test", "xn--nside-2sa.test"):
        dns[name] = [[PUBLIC]]

    async def run() -> None:
        async with serving(Server({"/": OK})) as server:
            for allowed in (is_public, lambda _: False):
                with pytest.raises(FetchError, match=r"public|valid|properly"):
                    await fetch(server.url(host=host), allowed=allowed)
            assert server.connections == 0

    asyncio.run(run())


def test_a_name_is_fetched_from_and_its_case_and_trailing_dot_do_not_matter(
    dns: dict[str, list[list[str]]],
) -> None:
    dns["files.test"] = dns["files.test."] = dns["xn--bcher-kva.test"] = [[PUBLIC]]

    async def run() -> None:
        async with serving(Server({"/": OK})) as server:
            for host in ("files.test", "FILES.test", "files.test.", "bücher.test", PUBLIC):
                assert await fetch(server.url(host=host)) == b"file"

    asyncio.run(run())


@pytest.mark.parametrize("answer", [[PUBLIC, PRIVATE], [PRIVATE, PUBLIC], [PRIVATE]])
def test_a_name_with_one_address_that_is_not_allowed_is_refused(
    answer: list[str], dns: dict[str, list[list[str]]]
) -> None:
    dns["mixed.test"] = [answer]

    async def run() -> None:
        async with serving(Server({"/": OK})) as server:
            with pytest.raises(FetchError, match=NOT_PUBLIC):
                await fetch(server.url(host="mixed.test"))
            assert server.connections == 0

    asyncio.run(run())


def test_a_name_that_changes_its_address_is_connected_to_where_it_was_checked(
    dns: dict[str, list[list[str]]],
) -> None:
    dns["rebind.test"] = [[PUBLIC], [PRIVATE]]

    async def run() -> None:
        async with serving(Server({"/": OK})) as outside:
            inside = Server({"/": OK})
            inside.port = outside.port
            async with (
                serving(inside, PRIVATE),
                Fetcher(max_bytes=1000, allowed=only_public) as fetcher,
            ):
                url = outside.url(host="rebind.test")
                assert await fetcher.fetch(url) == b"file"
                with pytest.raises(FetchError, match=NOT_PUBLIC):
                    await fetcher.fetch(url)
            assert (outside.connections, inside.connections) == (1, 0)

    asyncio.run(run())


def test_a_name_that_does_not_exist_is_told_as_one_that_is_refused() -> None:
    for host in ("nowhere.test", "a" * 64 + ".test", ".", "..", "a b", "-.-", "a\0b"):
        with pytest.raises(FetchError, match=NOT_PUBLIC):
            asyncio.run(fetch(f"http://{host}/"))


# URLs


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "neither http nor https"),
        ("file:///etc/passwd", "neither http nor https"),
        ("ftp://files.test/", "neither http nor https"),
        ("gopher://127.0.0.1:70/_", "neither http nor https"),
        ("ws://files.test/", "neither http nor https"),
        ("unix:///run/docker.sock", "neither http nor https"),
        ("//files.test/", "neither http nor https"),
        ("/etc/passwd", "neither http nor https"),
        ("http:", "not valid"),
        ("http://", "not valid"),
        ("http:///path", "not valid"),
        ("http:files.test", "not valid"),
        ("http://[::1", "not valid"),
        ("http://[]@", "not valid"),
        ("http://files.test:99999/", "not valid"),
        ("http://files.test:80:80/", "not valid"),
        ("http://files.test\\@127.0.0.1/", "not valid"),
        ("http://\ud800/", "not valid"),
        ("http://user@files.test/", "user name or a password"),
        ("http://user:password@files.test/", "user name or a password"),
        ("http://:@files.test/", "user name or a password"),
        ("http://files.test@127.0.0.1/", "user name or a password"),
        ("http://files.test/" + "x" * 100_000, "more than 8192 characters"),
        ("http://" + "x" * 100_000, "more than 8192 characters"),
    ],
)
def test_a_url_that_is_not_fetched(url: str, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        asyncio.run(fetch(url, allowed=all_allowed))


PIECES = ["http://", "HTTPS://", "//", "@", ":", "/", "?", "#", "%", "[", "]", "[::1]", "..", "\\"]
PIECES += ["127.0.0.1", "a.test", "0x7f.1", ":80", ":-1", " ", "\0", "\r\n", "\ud800", "ü", "１"]


@given(st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PIECES), max_size=8).map("".join)))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_as_a_url_raises_nothing_but_fetch_errors(text: str) -> None:
    async def run() -> None:
        async with Fetcher(max_bytes=1000, allowed=lambda _: False) as fetcher:
            for url in (text, "http://" + text, "https://" + text + "/"):
                with pytest.raises(FetchError) as caught:
                    await fetcher.fetch(url)
                message = str(caught.value)
                assert message.isascii()
                assert message.isprintable()
                assert len(message) < 120

    asyncio.run(run())


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("place", ["/file", "file", "http://{host}/file", "//{host}/file"])
def test_a_redirect_is_followed(status: int, place: str) -> None:
    async def run() -> None:
        async with serving(Server({"/file": OK})) as server:
            host = f"{PUBLIC}:{server.port}"
            server.answers["/"] = redirect(place.format(host=host), status)
            assert await fetch(server.url()) == b"file"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("http://{private}/", NOT_PUBLIC),
        ("//{private}/", NOT_PUBLIC),
        ("http://inside.test:{port}/", NOT_PUBLIC),
        ("http://2130706434:{port}/", "properly"),
        ("http://0x7f000002:{port}/", NOT_PUBLIC),
        ("http://[::ffff:127.0.0.2]:{port}/", NOT_PUBLIC),
        ("/hop", NOT_PUBLIC),
        ("http://user:password@{public}/", "redirects to one that holds a user name"),
        ("file:///etc/passwd", "redirects to one that is neither http nor https"),
        ("ftp://{public}/", "redirects to one that is neither http nor https"),
        ("data:text/plain,file", "redirects to one that is neither http nor https"),
        ("http://[::1", "redirects to one that is not valid"),
    ],
)
def test_a_redirect_is_checked_as_the_url_itself(
    place: str, message: str, dns: dict[str, list[list[str]]]
) -> None:
    dns["inside.test"] = [[PRIVATE]]

    async def run() -> None:
        async with serving(Server({})) as outside:
            inside = Server({"/": OK})
            inside.port = port = outside.port
            private = f"{PRIVATE}:{port}"
            target = place.format(private=private, public=f"{PUBLIC}:{port}", port=port)
            outside.answers = {"/": redirect(target), "/hop": redirect(f"http://{private}/")}
            async with serving(inside, PRIVATE):
                with pytest.raises(FetchError, match=message):
                    await fetch(outside.url())
            assert inside.connections == 0

    asyncio.run(run())


def test_the_number_of_redirects_is_limited() -> None:
    answers = {f"/{n}": redirect(f"/{n + 1}") for n in range(5)} | {"/5": OK}
    assert fetch_from(answers, "/0", max_redirects=5) == b"file"
    with pytest.raises(FetchError, match="redirects more than 4 times"):
        fetch_from(answers, "/0", max_redirects=4)
    with pytest.raises(FetchError, match="redirects more than 5 times"):
        fetch_from({"/": redirect("/")})


@pytest.mark.parametrize("place", ["/" + "x" * 8200, "http://files.test/" + "x" * 8190])
def test_a_redirect_that_is_too_long_is_refused(place: str) -> None:
    with pytest.raises(FetchError, match=r"more than 8192 characters|properly"):
        fetch_from({"/": redirect(place)})


def test_a_redirect_to_nowhere_is_an_answer() -> None:
    with pytest.raises(FetchError, match="status 302"):
        fetch_from({"/": b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"})


# Requests


def test_a_request_tells_nothing_of_the_caller_or_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, dns: dict[str, list[list[str]]]
) -> None:
    # Cookies of hosts without a name are never kept.
    dns["files.test"] = [[PUBLIC]]
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.2:9/")

    async def run() -> None:
        head = b"HTTP/1.1 302 Found\r\nSet-Cookie: id=1; Path=/\r\nLocation: /file\r\n\r\n"
        async with serving(Server({"/": head, "/file": OK})) as server:
            assert await fetch(server.url("/#fragment", "files.test")) == b"file"
            assert server.connections == 2
            for request in server.requests:
                lines = request.lower().split("\r\n")
                assert {line.partition(":")[0] for line in lines[1:] if line} == {
                    "host", "accept", "accept-encoding", "user-agent", "connection",
                }  # fmt: skip
                assert "accept-encoding: identity" in lines
                assert "fragment" not in request

    asyncio.run(run())


def test_line_breaks_in_a_url_add_no_header() -> None:
    async def run() -> None:
        async with serving(Server({})) as server:
            for path in ("/\r\nX-Added: 1", "/%0d%0aX-Added:%201", "/?a\r\nX-Added: 1\r\n\r\n"):
                with pytest.raises(FetchError):
                    await fetch(server.url(path))
            assert server.requests
            assert not any("\nx-added" in request.lower() for request in server.requests)

    asyncio.run(run())


# Answers


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 401, 404, 418, 500, 503])
def test_only_status_200_is_taken(status: int) -> None:
    answer = f"HTTP/1.1 {status} Secret\r\nContent-Length: 0\r\n\r\n".encode()
    with pytest.raises(FetchError, match=f"with status {status}, not 200$"):
        fetch_from({"/": answer})


def with_length(length: object, body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + body


def chunked(*chunks: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


@pytest.mark.parametrize(
    "answer",
    [
        with_length(10, b"x" * 10),
        chunked(b"x" * 6, b"x" * 4, b""),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10,
        b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 10,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\n\r\n" + b"x" * 10,
    ],
)
def test_a_body_comes_in_full_up_to_the_limit(answer: bytes) -> None:
    assert fetch_from({"/": answer}, max_bytes=10) == b"x" * 10
    with pytest.raises(FetchError, match="at most 9 bytes"):
        fetch_from({"/": answer}, max_bytes=9)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (with_length(10**15, b""), "at most 1000 bytes"),
        (with_length(1001, b""), "at most 1000 bytes"),
        (with_length(10**40, b""), "at most 1000 bytes|properly"),
        (with_length(-1, b"x"), "properly"),
        (with_length("ten", b"x"), "properly"),
        (with_length("", b"x"), "properly"),
        (with_length("1\r\nContent-Length: 2", b"xx"), "properly"),
        (with_length(10, b"x" * 9), "properly"),
        (chunked(b"x" * 9), "properly"),
        (chunked(b"x") + b"zz\r\n", "properly"),
        (b"", "properly"),
        (b"garbage\r\n\r\n", "properly"),
        (b"\0" * 500, "properly"),
        (b"HTTP/9.9 200 OK\r\n\r\n", "properly"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n", "properly"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "properly"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"x", mtime=0),
            "compressed",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\nx", "compressed"),
    ],
)
def test_an_answer_that_is_not_taken(answer: bytes, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        fetch_from({"/": answer})


def test_a_file_that_is_compressed_in_itself_stays_as_it_is() -> None:
    bomb = gzip.compress(b"x" * 10_000_000, 9, mtime=0)
    answers = {"/": with_length(len(bomb), bomb)}
    assert fetch_from(answers, max_bytes=len(bomb)) == bomb


def test_a_body_without_an_end_is_left_when_it_is_too_large() -> None:
    async def run() -> None:
        async with serving(Server({"/": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5_000_000})) as server:
            with pytest.raises(FetchError, match="at most 1000 bytes"):
                await fetch(server.url())

    asyncio.run(run())


@given(st.binary(max_size=200))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_answer_is_a_file_or_an_error(data: bytes) -> None:
    for answer in (data, b"HTTP/1.1 200 OK\r\n" + data, b"HTTP/1.1 200 OK\r\n\r\n" + data):
        try:
            assert data.endswith(fetch_from({"/": answer}))
        except FetchError:
            continue


# Time


def test_a_slow_body_takes_too_long() -> None:
    async def run() -> None:
        slow = Server({"/": with_length(10_000_000, b"x" * 10_000_000)}, pause=0.05)
        async with serving(slow) as server:
            with pytest.raises(FetchError, match=r"too long: at most 0\.2 seconds"):
                await fetch(server.url(), timeout=0.2, max_bytes=10_000_000)

    asyncio.run(run())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_host_that_never_answers_takes_too_long(scheme: str) -> None:
    async def run() -> None:
        async with serving(SilentServer({})) as server:
            with pytest.raises(FetchError, match="too long"):
                await fetch(f"{scheme}://{PUBLIC}:{server.port}/", timeout=0.2)

    asyncio.run(run())


def test_the_time_is_for_all_redirects_together() -> None:
    async def run() -> None:
        answers = {f"/{n}": redirect(f"/{n + 1}") for n in range(50)}
        async with serving(Server(answers, pause=0.1)) as server:
            with pytest.raises(FetchError, match="too long"):
                await fetch(server.url("/0"), timeout=0.3, max_redirects=50)
            assert server.connections > 1

    asyncio.run(run())


def test_a_name_server_that_never_answers_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        over.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        with pytest.raises(FetchError, match="too long"):
            asyncio.run(fetch("http://files.test/", timeout=0.1))
    finally:
        over.set()


# Connections


def test_a_host_that_is_not_there_or_speaks_no_tls() -> None:
    async def run() -> None:
        async with serving(PlainServer({})) as server:
            url = f"https://{PUBLIC}:{server.port}/"
            with pytest.raises(FetchError, match="properly"):
                await fetch(url)
        with pytest.raises(FetchError, match="properly"):
            await fetch(url)

    asyncio.run(run())


def test_connections_are_not_used_again() -> None:
    async def run() -> None:
        async with (
            serving(Server({"/": OK})) as server,
            Fetcher(max_bytes=1000, allowed=only_public) as fetcher,
        ):
            for _ in range(3):
                assert await fetcher.fetch(server.url()) == b"file"
            assert server.connections == 3

    asyncio.run(run())


def test_the_check_is_made_for_each_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Address] = []
    connected: list[Any] = []
    connect: Callable[..., Any] = asyncio.SelectorEventLoop.sock_connect

    async def sock_connect(self: Any, sock: socket.socket, address: Any) -> None:
        connected.append(address[0])
        await connect(self, sock, address)

    def allowed(address: Address) -> bool:
        checked.append(address)
        return True

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", sock_connect)
    assert fetch_from({"/": OK}, allowed=allowed) == b"file"
    assert connected == [str(address) for address in checked] == [PUBLIC]


def test_a_fetcher_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="not open"):
        asyncio.run(Fetcher(max_bytes=1).fetch("http://files.test/"))


def test_fetch_error_is_a_value_error() -> None:
    assert issubclass(FetchError, ValueError)
