"""Files that callers name by URL, fetched from the public internet and nowhere else.

A URL may lead anywhere: to this machine, to its neighbours, to the metadata of the cloud. So
the addresses of a name are checked where it is resolved, and the address of each socket once
more before it is made, for the URL itself as for all that it redirects to.
"""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

Address = IPv4Address | IPv6Address

# Nothing else is handed out to hosts of the public internet that have IPv6.
_GLOBAL_UNICAST = ip_network("2000::/3")

# What `is_global` lets pass, in some version of Python at least.
_NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        "168.63.129.16/32",  # the platform of Azure
        "192.0.0.0/24",  # protocols
        "192.88.99.0/24",  # relays of 6to4
        "2001::/23",  # Teredo and other protocols
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_MAX_URL = 8192
_MAX_LOOKUPS = 8


class FetchError(ValueError):
    """Why a URL was not fetched, in words that are safe to show to a caller."""


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to one host of the public internet.

    IPv6 addresses that stand for IPv4 ones are refused, whichever these are: mapped and
    compatible ones, 6to4, Teredo and NAT64.
    """
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    if address.is_multicast or not address.is_global:
        return False
    return not any(address in network for network in _NOT_PUBLIC)


class Allowance:
    """How many bytes may be fetched for one request, of all its files together."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._left = max_bytes

    def take(self, count: int) -> None:
        """Count bytes that have come.

        Raises:
            FetchError: when they are too many.
        """
        self._left -= count
        if self._left < 0:
            raise FetchError(
                "the files at the URLs are too large together: "
                f"at most {self._max_bytes} bytes are accepted"
            )


class Fetcher:
    """Fetches files over http and https, as an asynchronous context manager.

    A file has at most `max_bytes` bytes and takes at most `timeout` seconds, with all the
    `max_redirects` on the way to it. `allowed` tells which addresses may be connected to.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        timeout: float = 20.0,
        max_redirects: int = 5,
        allowed: Callable[[Address], bool] = is_public,
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._max_redirects = max_redirects
        self._allowed = allowed
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_Resolver(self._check),
                socket_factory=self._socket,
                use_dns_cache=False,
                force_close=True,
            ),
            # One limit holds for all requests on the way.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session.

        Raises:
            RuntimeError: outside of the fetcher's context.
        """
        if self._session is None:
            raise RuntimeError("the fetcher is not open")
        return self._session

    async def fetch(self, url: str, allowance: Allowance | None = None) -> bytes:
        """Return the file at a URL, which takes of the allowance.

        Raises:
            FetchError: when the URL is not valid, or too long, or holds a user name; when it
                leads to an address that is not allowed; when it is not answered in time, in
                full, with status 200 and without compression; when the file is too large.
        """
        session = self.session
        try:
            async with asyncio.timeout(self._timeout):
                return await self._follow(session, _parsed(url), allowance)
        except FetchError:
            raise
        except TimeoutError as error:
            raise FetchError(
                f"the URL takes too long: at most {self._timeout:g} seconds are allowed"
            ) from error
        except Exception as error:
            raise FetchError("the host that the URL leads to does not answer properly") from error

    async def _follow(
        self, session: aiohttp.ClientSession, url: URL, allowance: Allowance | None
    ) -> bytes:
        for _ in range(self._max_redirects + 1):
            async with session.get(url, allow_redirects=False) as response:
                place = response.headers.get("Location")
                if response.status not in _REDIRECTS or place is None:
                    return await self._body(response, allowance)
                url = _parsed(place, url)
        raise FetchError(f"the URL redirects more than {self._max_redirects} times")

    async def _body(self, response: aiohttp.ClientResponse, allowance: Allowance | None) -> bytes:
        if response.status != 200:
            raise FetchError(f"the URL is answered with status {response.status}, not 200")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise FetchError("the URL is answered with compressed data")
        self._check_size(response.content_length or 0)
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            self._check_size(len(body))
            if allowance:
                allowance.take(len(chunk))
        return bytes(body)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise FetchError(
                f"the file at the URL is too large: at most {self._max_bytes} bytes are accepted"
            )

    def _check(self, address: str) -> None:
        if not self._allowed(ip_address(address)):
            raise _not_public()

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """Return a socket for an address, which is the one that it will be connected to."""
        family, kind, protocol, _, (host, *_) = address
        self._check(str(host))
        return socket.socket(family, kind, protocol)


class _Resolver(AbstractResolver):
    """Resolves names of which all addresses pass a check, in threads of its own.

    A name server may take its time, and nobody can stop it: other work must not wait for it.
    """

    def __init__(self, check: Callable[[str], None]) -> None:
        self._threads = ThreadPoolExecutor(_MAX_LOOKUPS, thread_name_prefix="names")
        self._check = check

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        except (OSError, ValueError) as error:
            # Told apart from a refusal, it would say which names a private network has.
            raise _not_public() from error
        results: list[ResolveResult] = []
        for kind, _, protocol, _, address in found:
            self._check(str(address[0]))
            results.append(
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=port,
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        return results

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _parsed(text: str, base: URL | None = None) -> URL:
    """Return the URL in a text, or that a redirect at `base` leads to."""
    what = "the URL" if base is None else "the URL redirects to one that"
    if len(text) > _MAX_URL:
        raise FetchError(f"{what} has more than {_MAX_URL} characters")
    try:
        url = base.join(URL(text)) if base else URL(text)
        host, authority = url.raw_host, url.raw_authority
    except Exception as error:
        # Among others an IndexError, for http://[]@
        raise FetchError(f"{what} is not valid") from error
    if url.scheme not in ("http", "https"):
        raise FetchError(f"{what} is neither http nor https")
    if not host:
        raise FetchError(f"{what} is not valid")
    if "@" in authority:
        raise FetchError(f"{what} holds a user name or a password")
    return url


def _not_public() -> FetchError:
    return FetchError("the URL leads to no host of the public internet")
