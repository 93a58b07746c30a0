"""HTTP requests to one engine, which end in an answer or in an `EngineError`."""

import json
from typing import Any, Self

import aiohttp
from yarl import URL

from .comfyui_errors import EngineError, EngineUnreachable


class Http:
    """A session with the engine at `url`; each request may take `timeout` seconds."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def open(self) -> None:
        """Open the session, in the event loop that is to use it."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            connector=aiohttp.TCPConnector(limit=0),
        )

    async def close(self) -> None:
        """Close the session and its connections."""
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session.

        Raises:
            RuntimeError: when it was never opened.
        """
        if self._session is None:
            raise RuntimeError("the client is not connected")
        return self._session

    async def get(self, path: str, timeout: float | None = None) -> Any:
        """Return the JSON at a path.

        Raises:
            EngineUnreachable: when the engine does not answer.
            EngineError: when it answers with something else.
        """
        return parsed(path, *await self.request("GET", path, timeout=timeout))

    async def post(self, path: str, body: dict[str, Any], timeout: float | None = None) -> None:
        """Send JSON to a path whose answer is of no interest.

        Raises:
            EngineUnreachable: when the engine does not answer.
            EngineError: when it answers that it failed.
        """
        data = json.dumps(body).encode()
        _check(path, *await self.request("POST", path, data, timeout))

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | aiohttp.FormData | None = None,
        timeout: float | None = None,
    ) -> tuple[int, bytes]:
        """Return the status and body of an answer; `body` is JSON when it is bytes.

        `timeout` takes the place of the session's own.

        Raises:
            EngineUnreachable: when there is none.
        """
        headers = {"Content-Type": "application/json"} if isinstance(body, bytes) else None
        url = URL(f"{self.url}/{path}", encoded=True)
        limit = aiohttp.ClientTimeout(total=timeout or self._timeout)
        try:
            async with self.session.request(
                method, url, data=body, headers=headers, timeout=limit
            ) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineUnreachable(f"{self.url} does not answer: {reason(error)}") from error


def parsed(path: str, status: int, body: bytes) -> Any:
    """Return the JSON of an answer.

    Raises:
        EngineError: when the answer is another.
    """
    _check(path, status, body)
    try:
        return json.loads(body)
    except ValueError as error:
        raise EngineError(f"/{path} did not answer in JSON") from error


def reason(error: BaseException) -> str:
    """Return an exception's text, or its name where it has none."""
    return str(error) or type(error).__name__


def timed_out(error: EngineUnreachable) -> bool:
    """Say whether no answer came in time, good or bad."""
    return isinstance(error.__cause__, TimeoutError)


def refused(error: EngineUnreachable) -> bool:
    """Say whether there was no connection, so that nothing can have arrived."""
    return isinstance(error.__cause__, aiohttp.ClientConnectorError)


def _check(path: str, status: int, body: bytes) -> None:
    if status != 200:
        raise EngineError(f"/{path} answered {status}: {body[:200]!r}")
