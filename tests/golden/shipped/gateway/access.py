"""Who may ask: callers with a key, or pages and programs of this machine."""

import hashlib
import hmac
from collections.abc import Collection, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from .logs import event
from .problems import Problem

# What anybody may read: what there is, and how to ask for it.
_OPEN_PATHS: Final = frozenset(("/", "/docs", "/health", "/openapi.json"))
_OPEN_FOLDERS: Final = ("/docs/", "/static/")
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="api"'}


class Access(Protocol):
    """Decides who may ask."""

    def owner(self, headers: Headers, *, is_open: bool) -> str:
        """Return the name of who asks; empty where nobody has a name.

        `is_open` says that the path is open to everybody.

        Raises:
            Problem: when the caller may not ask.
        """


class Anyone:
    """Everybody may ask: somebody in front has checked, or it was written into gpu.yaml."""

    def owner(self, headers: Headers, *, is_open: bool) -> str:  # noqa: ARG002
        """Return no name."""
        return ""


class ApiKeys:
    """Callers have keys: `Authorization: Bearer KEY` or `X-API-Key: KEY`.

    `text` is `name:key,name:key`, as in the variable API_KEYS.

    Raises:
        ValueError: when the text holds no key, or not in this form.
    """

    def __init__(self, text: str) -> None:
        self._keys = _pairs(text)

    def owner(self, headers: Headers, *, is_open: bool) -> str:
        """Return the name of the key."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        name = self._name(_digest(key)) if key else None
        if name is not None:
            return name
        if is_open:
            return ""
        detail = "this key is not known" if key else "no key was sent"
        hint = "send it as Authorization: Bearer KEY, or as X-API-Key: KEY"
        raise Problem("unauthorized", f"{detail}; {hint}", headers=_CHALLENGE)

    def _name(self, digest: bytes) -> str | None:
        """Return whose key has a digest; which key it is, if any, makes no difference in time."""
        found = None
        for known, name in self._keys:
            if hmac.compare_digest(known, digest):
                found = name
        return found


class Loopback:
    """Programs and pages of this machine may ask, without a key.

    The server listens on this machine alone, but a browser on it shows pages of others too. Their
    requests carry the name of their own host, or their origin, and are refused: `origins` are those
    that may ask all the same.
    """

    def __init__(self, origins: Collection[str] = ()) -> None:
        self._origins = frozenset(origins)

    def owner(self, headers: Headers, *, is_open: bool) -> str:  # noqa: ARG002
        """Return no name."""
        if not _is_loopback(f"//{headers.get('host', '')}"):
            raise Problem(
                "forbidden-host", "ask for localhost or 127.0.0.1; no other host is served"
            )
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and not _is_loopback(origin):
            raise Problem("forbidden-origin", "pages of other hosts may not ask a local service")
        return ""


def owner_of(request: Request) -> str:
    """Return who asks, as the guard has found out; empty where nobody has a name."""
    return str(request.scope.get("state", {}).get("owner", ""))


class Guard:
    """Lets requests through that may ask; puts the caller's name into `scope["state"]["owner"]`."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "http":
            # An app that is mounted somewhere sees the whole path, and where that is.
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            is_open = path in _OPEN_PATHS or path.startswith(_OPEN_FOLDERS)
            try:
                owner = self._access.owner(Headers(scope=scope), is_open=is_open)
            except Problem as problem:
                event("rejected", code=problem.code, status=problem.status)
                await problem.response()(scope, receive, send)
                return
            scope.setdefault("state", {})["owner"] = owner
        await self._app(scope, receive, send)


def access_of(auth: str, environment: Mapping[str, str]) -> Access:
    """Return what gpu.yaml says with `auth`.

    Raises:
        ValueError: when keys are wanted and the variable API_KEYS has none.
    """
    if auth != "api-key":
        return Anyone()
    try:
        return ApiKeys(environment.get("API_KEYS", ""))
    except ValueError as error:
        raise ValueError(f"the variable API_KEYS: {error}") from error


def _pairs(text: str) -> list[tuple[bytes, str]]:
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if not entries:
        raise ValueError("there is no key; write name:key,name:key")
    pairs: list[tuple[bytes, str]] = []
    for number, entry in enumerate(entries, 1):
        name, colon, key = entry.partition(":")
        if not colon or not name.strip() or not key.strip():
            raise ValueError(f"entry {number} is not name:key")
        pairs.append((_digest(key.strip()), name.strip()))
    if len({digest for digest, _ in pairs}) != len(pairs):
        raise ValueError("two names have the same key")
    return pairs


def _digest(key: str) -> bytes:
    """Return what keys are compared by: of one length, and of no use to whoever reads it."""
    return hmac.digest(b"api-key", key.encode("utf-8", "surrogateescape"), hashlib.sha256)


@lru_cache(maxsize=256)
def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
