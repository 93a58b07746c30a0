"""The deployed service, asked over HTTP: is it what was deployed, and do its endpoints answer?"""

import io
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import httpx
from PIL import Image

from templates.client_core import BaseClient, Reply, ServiceError

from .manifest import Manifest

# The token of Modal's proxy, by the names of its headers (https://modal.com/docs/guide/webhook-proxy-auth).
PROXY_VARIABLES: Final = {"MODAL_KEY": "Modal-Key", "MODAL_SECRET": "Modal-Secret"}

_ASK_SECONDS: Final = 20.0
_PAUSE_SECONDS: Final = 1.0
# What a reply of an endpoint may be that is tried: other kinds take minutes of a GPU.
_CHEAP: Final = frozenset(("image/png", "image/svg+xml", "text/plain"))
_SMOKE_SECONDS: Final = 1800.0


class ServiceFault(RuntimeError):  # noqa: N818 - the service's fault
    """The service does not do what it should; the text says what. Waiting may mend it, or not."""

    def __init__(self, text: str, *, may_pass: bool = True) -> None:
        super().__init__(text)
        self.may_pass = may_pass


@dataclass(frozen=True, slots=True)
class Tried:
    """A request that was answered, with what its run says of itself."""

    route: str
    media_type: str
    size: int
    seconds: float
    gpu: str
    engine: str
    cost: float


def proxy_headers() -> dict[str, str]:
    """Return the headers that Modal's proxy wants, from the environment."""
    return {
        header: os.environ[variable]
        for variable, header in PROXY_VARIABLES.items()
        if os.environ.get(variable)
    }


def health(url: str) -> dict[str, Any]:
    """Return what /health of a service says.

    Raises:
        ServiceFault: when it does not answer as it should.
    """
    try:
        reply = httpx.get(f"{url}/health", headers=proxy_headers(), timeout=_ASK_SECONDS)
    except httpx.HTTPError as error:
        raise ServiceFault(f"{url}/health does not answer: {error}") from error
    if reply.status_code == 401:
        names = " and ".join(PROXY_VARIABLES)
        text = f"{url}/health takes no other token of Modal's proxy than the right one: see {names}"
        raise ServiceFault(text, may_pass=False)
    if reply.status_code != 200:
        raise ServiceFault(f"{url}/health answers {reply.status_code}")
    try:
        found = reply.json()
    except ValueError as error:
        raise ServiceFault(f"{url}/health answers with no JSON") from error
    if not isinstance(found, dict) or "spec" not in found:
        raise ServiceFault(f"{url}/health is not this project's")
    return found


def wait_for(
    url: str, spec: str, seconds: float, say: Callable[[float, str], None]
) -> dict[str, Any]:
    """Ask /health until it names a spec hash, and return what it says then.

    `say` is told after each answer how long it has taken, and what the answer was.

    Raises:
        ServiceFault: when that has not come within `seconds`; the text holds the last answer.
    """
    start = time.monotonic()
    while True:
        try:
            found = health(url)
            if found["spec"] == spec:
                return found
            last = f"{url}/health says spec {str(found['spec'])[:12]}, not {spec[:12]}"
        except ServiceFault as error:
            if not error.may_pass:
                raise
            last = str(error)
        passed = time.monotonic() - start
        if passed >= seconds:
            raise ServiceFault(f"{last}, after {passed:.0f} s")
        say(passed, last)
        time.sleep(_PAUSE_SECONDS)


def examples(url: str) -> dict[str, Any]:
    """Return a request's body for each endpoint that the service's OpenAPI document has one of.

    Raises:
        ServiceFault: when that document does not come.
    """
    try:
        reply = httpx.get(f"{url}/openapi.json", headers=proxy_headers(), timeout=_ASK_SECONDS)
        paths = reply.raise_for_status().json()["paths"]
        bodies = {
            route: operations["post"]["requestBody"]["content"]["application/json"]
            for route, operations in paths.items()
            if "requestBody" in operations.get("post", {})
        }
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ServiceFault(f"{url}/openapi.json does not come: {error}") from error
    return {route: body["example"] for route, body in bodies.items() if "example" in body}


def not_cheap(manifest: Manifest, bodies: Mapping[str, Any]) -> dict[str, str]:
    """Return the routes that no request is sent to, with why: off, dear, or without an example."""
    left_out: dict[str, str] = {}
    for route, about in manifest["routes"].items():
        if not about["enabled"]:
            left_out[route] = "it is off"
        elif not set(about["media_types"]) <= _CHEAP:
            left_out[route] = f"it may make {' or '.join(about['media_types'])}"
        elif route not in bodies:
            left_out[route] = "a param that it requires has no example"
    return left_out


def try_endpoint(
    url: str, key: str, route: str, body: Mapping[str, Any], manifest: Manifest
) -> Tried:
    """Send one request to an endpoint, wait for its reply, and check that it is what it should be.

    Raises:
        ServiceFault: when it is not.
    """
    with ServiceClient(url, key, timeout=_SMOKE_SECONDS) as client:
        try:
            reply = client.ask(route, body)
        except ServiceError as error:
            raise ServiceFault(f"POST {route}: {error}") from error
        except (KeyError, ValueError) as error:
            raise ServiceFault(f"POST {route} replies without the header {error}") from error
    media_types = manifest["routes"][route]["media_types"]
    if reply.media_type not in media_types:
        raise ServiceFault(
            f"POST {route} replies with {reply.media_type}, not {' or '.join(media_types)}"
        )
    if not reply.data:
        raise ServiceFault(f"POST {route} replies with nothing")
    if reply.media_type == "image/png":
        try:
            with Image.open(io.BytesIO(reply.data)) as image:
                image.load()
        except OSError as error:
            raise ServiceFault(f"POST {route} replies with a picture that is damaged") from error
    return Tried(
        route,
        reply.media_type,
        len(reply.data),
        reply.seconds,
        reply.gpu,
        reply.engine,
        reply.cost,
    )


def entry_of(tried: Tried) -> dict[str, Any]:
    """Return what seconds.json keeps of a request that was tried."""
    return {
        "seconds": round(tried.seconds, 3),
        "gpu": tried.gpu,
        "date": datetime.now(UTC).date().isoformat(),
    }


class ServiceClient(BaseClient):
    """Asks any endpoint, by its route; behind Modal's proxy too."""

    def __init__(self, url: str, key: str, timeout: float) -> None:
        super().__init__(url, key, timeout)
        self._http.headers.update(proxy_headers())

    def ask(self, route: str, body: Mapping[str, Any]) -> Reply:
        """Return the reply of a run. Raises ServiceError."""
        return self._run(route, body, None)
