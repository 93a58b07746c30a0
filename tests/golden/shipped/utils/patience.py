"""Servers that are busy and connections that break: asking again, but not for ever."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

import httpx

Value = TypeVar("Value")

# Tries in a row that bring nothing, and seconds between them. What a server asks to wait is
# waited, unless it is longer than LONGEST_WAIT.
TRIES: Final = 5
FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 300.0

_BUSY: Final = frozenset((408, 429, 500, 502, 503, 504))


class FetchFailed(Exception):  # noqa: N818 - named by what happened
    """Why something cannot be had from a server; the text holds no token."""


class CutOff(Exception):  # noqa: N818
    """Fewer bytes came than the server had said, or others than those that were there."""


def _broken(error: httpx.TransportError) -> str:
    host = error.request.url.host
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return f"{host} cannot be reached"
    return f"the connection to {host} broke ({type(error).__name__})"


class _Busy(Exception):  # noqa: N818
    """The server answers that it is busy; `seconds` is what it asks to wait, if it does."""

    def __init__(self, status: int, seconds: float | None) -> None:
        super().__init__(f"{_host_is_busy(status)} (status {status})")
        self.seconds = seconds


def _host_is_busy(status: int) -> str:
    return "the server wants fewer requests" if status == 429 else "the server is busy"


def refuse_busy(response: httpx.Response) -> None:
    """Raise what `patiently` waits for when a server is busy; a hook of an httpx client."""
    if response.status_code in _BUSY:
        asked = response.headers.get("Retry-After", "")
        raise _Busy(response.status_code, float(asked) if asked.isdecimal() else None)


def check_token(name: str, token: str) -> None:
    """See that a token can be sent; `name` is that of its variable.

    Raises:
        FetchFailed: when it holds what no header does, or only encoded.
    """
    for number, letter in enumerate(token, 1):
        if not "!" <= letter <= "~":
            place = f"character {number} of {len(token)}"
            raise FetchFailed(
                f"{name} is no token: {place} is none that a token has; copy it again"
            )


def patiently(ask: Callable[[], Value], progress: Callable[[], int] = lambda: 0) -> Value:
    """Return what `ask` returns, and ask again when the connection breaks or the server is busy.

    A try that moved `progress` on does not count as one in vain.

    Raises:
        FetchFailed: when it was asked often enough, or the server asks to wait too long.
    """
    failures = 0
    while True:
        before = progress()
        try:
            return ask()
        except _Busy as error:
            reason, seconds = str(error), error.seconds
        except CutOff as error:
            reason, seconds = str(error), None
        except httpx.TransportError as error:
            reason, seconds = _broken(error), None
        failures = 1 if progress() > before else failures + 1
        if failures >= TRIES:
            raise FetchFailed(f"{reason}, {failures} times in a row")
        if seconds is not None and seconds > LONGEST_WAIT:
            raise FetchFailed(f"{reason}, and asks to wait {seconds:g} seconds: try again later")
        time.sleep(FIRST_WAIT * 2 ** (failures - 1) if seconds is None else seconds)
