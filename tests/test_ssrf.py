"""URLs that lead back inside, given to the API: no socket is connected to what is not public.

Every connection that the service tries is counted: at listeners of this machine, and where the event
loop makes it, for addresses that nobody here can listen on.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any

import pytest

from .api_client import Api, own_package, png, pointers, problem, running
from .test_fetch import Server, redirect, serving

Dns = dict[str, list[str]]

# An address of the internet, which nobody here can reach.
PUBLIC = "93.184.215.14"
METADATA = "169.254.169.254"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    package = own_package(tmp_path_factory.mktemp("own"))
    with running(tmp_path_factory.mktemp("base"), package=package) as found:
        yield found


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Dns:
    """The answers of the DNS by name, one after the other; other names are resolved as ever."""
    names: Dns = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Any:
        answers = names.get(host, [host])
        return real(answers.pop(0) if len(answers) > 1 else answers[0], *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


@pytest.fixture
def dialled(own: Api, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a connection was tried to; only those of this machine can be had."""
    found: list[str] = []
    loop: Any = type(own.runner.get_loop())
    real = loop.sock_connect

    async def sock_connect(self: Any, sock: socket.socket, address: Any) -> None:
        found.append(address[0])
        if not ip_address(address[0]).is_loopback:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        await real(self, sock, address)

    monkeypatch.setattr(loop, "sock_connect", sock_connect)
    return found


def refused(own: Api, url: str) -> str:
    """Send a URL in each place that takes one, and return why it is refused."""
    before = len(own.works)
    found: set[str] = set()
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    for route, body, place in (
        ("/seedvr2", {"image": url}, "#/image"),
        ("/workflow", {"workflow": graph, "files": {"x.png": url}}, "#/files/x.png"),
    ):
        document = problem(own.post(route, body), 422, "bad-media")
        assert pointers(document) == [place]
        found.add(document["errors"][0]["detail"])
    assert len(own.works) == before
    assert len(found) == 1
    return found.pop()


HOSTS = {
    "this machine": ["127.0.0.1", "127.1", "127.0.0.2", "0.0.0.0", "0", "[::1]", "[::]"],
    "by its name": ["localhost", "LOCALHOST", "localhost.", "inside.test", "ｌｏｃａｌｈｏｓｔ"],
    "as a number": ["2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.0.1"],
    "IPv4 in IPv6": [
        f"[::ffff:{METADATA}]",
        "[::ffff:a9fe:a9fe]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[::ffff:0:7f00:1]",
    ],
    "IPv6 of networks": ["[fe80::1%25lo]", "[fe80::1%lo]", "[fd00:ec2::254]", "[fec0::1]"],
    "metadata of clouds": [
        METADATA,
        "2852039166",
        "0xa9fea9fe",
        "100.100.100.200",
        "168.63.129.16",
    ],
    "IDNA dots": ["127。0。0。1", "127．0．0．1", "127｡0｡0｡1", "①②⑦.⓪.⓪.①", "１２７.0.0.1"],
    "percent": ["%31%32%37.0.0.1", "127.0.0.1%2f", "127.0.0.1%00.example.com"],
    "user names": [
        "example.com@127.0.0.1",
        "example.com:80@127.0.0.1",
        "127.0.0.1#@example.com",
        "127.0.0.1\\@example.com",
        "example.com%40127.0.0.1",
        "@127.0.0.1",
    ],
    "white space": ["127.0.0.1\t", "\n127.0.0.1", "127.0.0.1 .example.com", "127.0.0.1\0"],
    "private": ["10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "224.0.0.1", "240.0.0.1"],
}


@pytest.mark.parametrize("way", sorted(HOSTS))
def test_no_way_of_writing_a_host_leads_inside(
    own: Api, way: str, dns: Dns, dialled: list[str]
) -> None:
    dns["inside.test"] = ["127.0.0.1"]

    with listening("127.0.0.1") as (port, four), listening("::1", port) as (_, six):
        for host in HOSTS[way]:
            for form in ("http://{}:{}/x.png", "https://{}:{}/x.png"):
                refused(own, form.format(host, port))
            refused(own, f"http://{host}/x.png")
        assert connections(four) == 0
        assert connections(six) == 0
    assert dialled == []


@contextmanager
def listening(host: str, port: int = 0) -> Iterator[tuple[int, socket.socket]]:
    """Listen at an address of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        listener.setblocking(False)
        yield listener.getsockname()[1], listener


def connections(listener: socket.socket) -> int:
    count = 0
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


@pytest.mark.parametrize("port", [22, 2375, 3306, 6379, 8188, 9200])
def test_no_port_of_this_machine_is_asked(own: Api, port: int, dialled: list[str]) -> None:
    refused(own, f"http://127.0.0.1:{port}/")
    refused(own, f"http://localhost:{port}/")
    assert dialled == []


@pytest.mark.parametrize(
    "answers",
    [[PUBLIC, "127.0.0.1"], [PUBLIC, METADATA], [PUBLIC, "::1"]],
    ids=["this machine", "metadata", "IPv6"],
)
def test_a_name_that_changes_is_asked_where_it_was_checked(
    own: Api, answers: list[str], dns: Dns, dialled: list[str]
) -> None:
    """A resolver that answers with a public address first, and with one inside ever after."""
    for _ in range(3):
        dns["rebind.test"] = list(answers)
        with listening("127.0.0.1") as (port, listener):
            document = problem(own.post("/seedvr2", {"image": f"http://rebind.test:{port}/"}), 422)
            assert document["code"] == "bad-media"
            problem(own.post("/seedvr2", {"image": f"http://rebind.test:{port}/"}), 422)
            assert connections(listener) == 0
    assert dialled == [PUBLIC] * 3


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("hops", [1, 3])
def test_a_redirect_inside_is_not_followed(
    own: Api, status: int, hops: int, dialled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a host that may be asked: 127.0.0.1 stands for the internet, 127.0.0.2 for inside."""
    fetcher = own.service.app.state.gateway.media._fetcher
    monkeypatch.setattr(fetcher, "_allowed", lambda address: str(address) == "127.0.0.1")
    with listening("127.0.0.2") as (port, inside):
        targets = [
            f"http://127.0.0.2:{port}/",
            f"//127.0.0.2:{port}/",
            f"http://[::ffff:127.0.0.2]:{port}/",
            f"http://2130706434:{port}/",
            f"http://0x7f.2:{port}/",
            f"http://[::1]:{port}/",
            f"http://{METADATA}/latest/meta-data/",
            f"http://[::ffff:{METADATA}]/",
            f"http://127.0.0.1@127.0.0.2:{port}/",
            f"gopher://127.0.0.2:{port}/",
            "file:///etc/passwd",
        ]

        async def ask(target: str) -> None:
            chain = {f"/{n}": redirect(f"/{n + 1}", status) for n in range(1, hops)}
            server = Server(chain | {f"/{hops}": redirect(target, status)})
            async with serving(server):
                body = {"image": server.url("/1")}
                problem(await own.service.client.post("/seedvr2", json=body), 422, "bad-media")
            assert server.connections == hops

        for target in targets:
            own.run(ask(target))
        assert connections(inside) == 0
    assert dialled == ["127.0.0.1"] * hops * len(targets)


def test_a_public_host_is_asked(
    own: Api, dns: Dns, dialled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the other tests would see it."""
    fetcher = own.service.app.state.gateway.media._fetcher
    monkeypatch.setattr(fetcher, "_allowed", lambda address: str(address) == "127.0.0.1")
    dns["files.test"] = ["127.0.0.1"]
    data = png()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode()

    async def ask() -> None:
        async with serving(Server({"/x.png": head + data})) as server:
            body = {"image": server.url("/x.png", "files.test"), "resolution": 16}
            assert (await own.service.client.post("/seedvr2", json=body)).status_code == 200
            assert server.connections == 1

    own.run(ask())
    assert "127.0.0.1" in dialled


def test_files_at_urls_are_bounded_together(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short request of 16 URLs brings no more than a body could: 1 MB."""
    fetcher = own.service.app.state.gateway.media._fetcher
    monkeypatch.setattr(fetcher, "_allowed", lambda address: str(address) == "127.0.0.1")
    data = bytes(100_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    graph: dict[str, Any] = {
        str(n): {"class_type": "LoadImage", "inputs": {"image": f"{n}.png"}} for n in range(16)
    }

    async def ask() -> None:
        async with serving(Server({"/x.png": head + data})) as server:
            files = {f"{n}.png": server.url("/x.png") for n in range(16)}
            reply = await own.service.client.post(
                "/workflow", json={"workflow": graph, "files": files}
            )
            document = problem(reply, 422, "bad-media")
            words = [error["detail"] for error in document["errors"]]
            assert sum("too large together: at most 1000000 bytes" in text for text in words) == 6

    own.run(ask())
