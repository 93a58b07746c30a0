"""How an endpoint does under load: varied requests, and a look at every answer."""

import io
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

import av
import httpx
from PIL import Image, ImageStat

from templates.client_core import ServiceError

from .deployment.service import ServiceClient, proxy_headers

# Said behind an example of a text, so that no two requests in a row are the same.
_SCENES: Final = (
    "at dawn", "in the rain", "by moonlight", "in autumn", "on a mountain", "under water",
    "in a neon city", "in a meadow", "in fog", "as a woodcut", "in pastel", "seen from above",
)  # fmt: skip
_DEFAULT_ROUTE: Final = "/flux"
_ASK_SECONDS: Final = 30.0
_JOB_SECONDS: Final = 3600.0
# No answer of a picture is that even; one of a dead engine or a broken VAE is.
_FLAT: Final = 1.0


class BenchmarkError(RuntimeError):
    """Nothing can be measured; the text says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. `fault` is empty where the answer is what it should be.

    Seconds: `began` since the first request, `seconds` until the answer was here, `execution`,
    `queue` and `startup` as the job says them, None where it does not. `cost` is in USD. `cold` is
    the one that waited for a worker to start.
    """

    number: int
    began: float
    seconds: float
    fault: str = ""
    execution: float | None = None
    queue: float | None = None
    startup: float | None = None
    cost: float | None = None
    gpu: str = ""
    engine: str = ""
    cold: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a benchmark; `seconds` is how long all but the first request took together."""

    url: str
    route: str
    parallel: int
    samples: tuple[Sample, ...]
    seconds: float

    @property
    def warm(self) -> tuple[Sample, ...]:
        """The samples that did not wait for a start; the first counts as none of them."""
        return tuple(s for s in self.samples[1:] if not s.cold)

    @property
    def cold(self) -> tuple[Sample, ...]:
        """The samples that waited for a worker to start."""
        return tuple(s for s in self.samples if s.cold)


def requests_of(
    document: Mapping[str, Any], route: str, fixed: Mapping[str, Any], seed: int, count: int
) -> list[dict[str, Any]]:
    """Return so many bodies for a route: its example with other texts and seeds, `fixed` as it is.

    The same `seed` gives the same bodies.

    Raises:
        BenchmarkError: when there is no such route, or no example of what it requires.
    """
    routes = _routes(document)
    if route not in routes:
        raise BenchmarkError(f"nothing takes requests at {route}; there are {', '.join(routes)}")
    operation = document["paths"][route]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    schema = _schema(document, content)
    known: Mapping[str, Any] = schema["properties"]
    if unknown := sorted(set(fixed) - set(known)):
        raise BenchmarkError(f"{route} takes no {', '.join(unknown)}")
    example = {**content.get("example", {}), **fixed}
    if missing := sorted(set(schema.get("required", ())) - set(example)):
        raise BenchmarkError(
            f"{route} requires {', '.join(missing)}, of which there is no example: give --param"
        )
    texts = [
        name
        for name, value in example.items()
        if isinstance(value, str) and name not in fixed and known[name].get("type") == "string"
        and "enum" not in known[name] and "pattern" not in known[name]
        and len(value) + 20 <= known[name].get("maxLength", math.inf)
        and known[name].get("examples")
    ]  # fmt: skip
    seeds = [
        name
        for name, about in known.items()
        if about.get("type") == "integer"
        and "default" not in about
        and name not in example
        and name not in schema.get("required", ())
    ]
    draw = random.Random(seed)
    bodies: list[dict[str, Any]] = []
    for number in range(count):
        scene = _SCENES[number % len(_SCENES)]
        varied = {name: f"{example[name]}, {scene}" for name in texts}
        drawn = {
            name: draw.randint(known[name].get("minimum", 0), known[name].get("maximum", 2**32))
            for name in seeds
        }
        bodies.append({**example, **varied, **drawn})
    return bodies


def asked_size(document: Mapping[str, Any], route: str, body: Mapping[str, Any]) -> dict[str, int]:
    """Return the width and height in pixels that a body asks for, as far as it does."""
    content = document["paths"][route]["post"]["requestBody"]["content"]["application/json"]
    schema = _schema(document, content)
    sizes: dict[str, int] = {}
    for name in ("width", "height"):
        about = schema["properties"].get(name, {})
        value = body.get(name, about.get("default"))
        if about.get("type") == "integer" and isinstance(value, int):
            sizes[name] = value
    return sizes


def fault_of(data: bytes, media_type: str, sizes: Mapping[str, int]) -> str:
    """Say what is wrong with an answer: it cannot be decoded, has another size, or is flat.

    Empty when nothing is. Of a video or an animation the first frame is looked at.
    """
    if not data:
        return "it is empty"
    try:
        picture = _first_frame(data, media_type)
    except (OSError, SyntaxError, ValueError, av.FFmpegError) as error:
        return f"it cannot be decoded: {error}"
    if picture is None:
        return ""
    for name, value in sizes.items():
        found = getattr(picture, name)
        if found != value:
            return f"its {name} is {found} pixels, not {value}"
    if max(ImageStat.Stat(picture.convert("RGB")).stddev) < _FLAT:
        return "it is flat: every pixel is the same"
    return ""


def benchmark(
    url: str,
    key: str,
    route: str | None,
    *,
    requests: int,
    parallel: int,
    seed: int = 0,
    fixed: Mapping[str, Any] | None = None,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> Measured:
    """Send requests to an endpoint, and measure: one alone, which may be cold, then the others.

    Without `route` that is the only endpoint, or /flux. `parallel` is how many requests are under way
    at a time. `tell` hears how many of how many are done.

    Raises:
        BenchmarkError: when the service does not say what it takes, or which endpoint is meant.
    """
    document = _document(url)
    route = route or _default_route(url, document)
    bodies = requests_of(document, route, fixed or {}, seed, requests)
    start = time.perf_counter()
    done: list[Sample] = []

    with ServiceClient(url, key, timeout=_JOB_SECONDS) as client:

        def one(number: int) -> Sample:
            sizes = asked_size(document, route, bodies[number])
            return _sample(client, route, bodies[number], sizes, number, start)

        done.append(one(0))
        tell(1, requests)
        began = time.perf_counter()
        with ThreadPoolExecutor(parallel) as threads:
            for sample in threads.map(one, range(1, requests)):
                done.append(sample)
                tell(len(done), requests)
        seconds = time.perf_counter() - began
    return Measured(url, route, parallel, tuple(done), seconds)


def _routes(document: Mapping[str, Any]) -> list[str]:
    """Return the routes that take a request as JSON."""
    return [
        route
        for route, found in document["paths"].items()
        if "application/json" in found.get("post", {}).get("requestBody", {}).get("content", {})
    ]


def _default_route(url: str, document: Mapping[str, Any]) -> str:
    routes = _routes(document)
    if not routes:
        raise BenchmarkError(f"{url} has no endpoints")
    if len(routes) == 1:
        return routes[0]
    if _DEFAULT_ROUTE in routes:
        return _DEFAULT_ROUTE
    raise BenchmarkError(
        f"there are several endpoints: name one by --route, {', '.join(sorted(routes))}"
    )


def _schema(document: Mapping[str, Any], content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a body, which may be one of the document's components."""
    schema: Mapping[str, Any] = content["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _document(url: str) -> dict[str, Any]:
    try:
        reply = httpx.get(f"{url}/openapi.json", headers=proxy_headers(), timeout=_ASK_SECONDS)
        document = reply.raise_for_status().json()
    except httpx.ConnectError as error:
        hint = "is it served? As by make serve"
        raise BenchmarkError(f"{url}/openapi.json does not come: {error}; {hint}") from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise BenchmarkError(f"{url}/openapi.json does not come: {error}") from error
    if not isinstance(document, dict) or "paths" not in document:
        raise BenchmarkError(f"{url}/openapi.json is no OpenAPI document")
    return document


def _sample(
    client: ServiceClient,
    route: str,
    body: Mapping[str, Any],
    sizes: Mapping[str, int],
    number: int,
    start: float,
) -> Sample:
    began = time.perf_counter()
    sample = Sample(number, began - start, 0.0)
    try:
        reply = client.ask(route, body)
    except ServiceError as error:
        return replace(sample, seconds=time.perf_counter() - began, fault=str(error))
    seconds = time.perf_counter() - began
    try:
        timings = client.job(reply.job).get("timings") or {}
    except ServiceError:
        timings = {}
    startup = (timings.get("startup") or {}).get("seconds")
    return replace(
        sample,
        seconds=seconds,
        fault=fault_of(reply.data, reply.media_type, sizes),
        execution=reply.seconds,
        queue=(timings.get("queue") or {}).get("seconds"),
        startup=startup,
        cost=reply.cost,
        gpu=reply.gpu,
        engine=reply.engine,
        cold=bool(startup),
    )


def _first_frame(data: bytes, media_type: str) -> Image.Image | None:
    """Return the picture, or the first one; None for what is none."""
    kind = media_type.partition("/")[0]
    if kind == "image":
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image.copy()
    if kind == "video":
        with av.open(io.BytesIO(data), "r") as container:
            frame = next(container.decode(video=0), None)
            if frame is None:
                raise ValueError("the video has no frame")
            picture: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
            return picture
    return None


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of them (0 to 1) do not exceed: the nearest rank.

    Source: https://en.wikipedia.org/wiki/Percentile#The_nearest-rank_method
    """
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]
