"""Answers where the app itself fails, inside all that adds headers to answers."""

import logging
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from .problems import Problem

_log = logging.getLogger(__name__)


class BrokenOffError(RuntimeError):
    """A reply that had begun cannot be completed; the connection is to be cut."""


class Recovery:
    """Turns what the app raises into a problem document.

    The framework's own handler would answer outside of everything else, without what lets a page of
    another origin read the answer, and hand the exception, with what it says, on to the server.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            _log.exception("this is a fault of the service")
            if has_begun:
                raise BrokenOffError("a reply broke off") from None
            await fault().response()(scope, receive, send)


def fault() -> Problem:
    """Return what callers are told of a fault of the service."""
    return Problem("internal-error", "this is a fault of the service; its log says more")
