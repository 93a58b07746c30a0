"""The page in a real browser, for tests that are collected only when they are named."""

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from playwright._impl._driver import compute_driver_executable
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.api_client import in_thread, new_app, own_package, part, service

from .chromium import launched

HERE = Path(__file__).parent
# However slow the machine.
MILLISECONDS = 20_000
expect.set_options(timeout=MILLISECONDS)
KEY = "a key'\"$"
PREFIX = "/behind/a prefix"
PROXIED = "/proxied"
CROWDED = "/crowded"
MODAL_KEY = {"Modal-Key": "wk-1", "Modal-Secret": "ws-1"}

ALL_KINDS = """\
summary: A picture, a sound and a text, from params of all kinds
description: "For the tests: <b>not bold</b>."
params:
  class: {type: string, enum: [small, large]}
  text: {type: string, default: "", maxLength: 200}
  color: {type: integer, default: 255, minimum: 0, maximum: 1000}
  batch: {type: integer, minimum: 1, maximum: 9, step: 4, default: 5}
  picture: {type: image, optional: true}
  sound: {type: audio, optional: true}
  note: {type: string, optional: true}
graph:
  1:
    class_type: EmptyImage
    inputs: {width: 64, height: 48, batch_size: 1, color: "${color}"}
  2:
    class_type: SaveImage
    inputs: {filename_prefix: "${class}", images: [1, 0]}
  3:
    class_type: PreviewAny
    inputs: {source: "${text} ${batch}"}
  4:
    class_type: LoadAudio
    inputs: {audio: "${sound}"}
  5:
    class_type: PreviewAny
    inputs: {source: [4, 0]}
  6:
    class_type: LoadImage
    inputs: {image: "${picture}"}
  7:
    class_type: SaveImage
    inputs: {filename_prefix: picture, images: [6, 0]}
  8:
    class_type: PreviewAny
    inputs: {source: "${note}"}
  9:
    class_type: EmptyAudio
    inputs: {duration: 0.5, sample_rate: 44100, channels: 2}
  10:
    class_type: SaveAudio
    inputs: {filename_prefix: sound, audio: [9, 0]}
"""


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave this folder out unless the command line names it or something in it."""
    start = config.invocation_params.dir
    named = any((start / arg.split("::")[0]).resolve().is_relative_to(HERE) for arg in config.args)
    return None if named else True


@dataclass
class Watched:
    """A page, and what it did that it must not.

    `expected` are statuses that a test asks for: the browser notes them as errors, and, where it is
    `cut_off`, requests that fail.
    """

    page: Page
    url: str
    expected: set[int] = field(default_factory=set)
    cut_off: bool = False
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.faults.append(f"raised: {error}"))
        self.page.on("request", self._on_request)

    def open(self, workflow: str = "", path: str = "/") -> Page:
        """Open the page, and return it once its form is there."""
        self.page.goto(self.url + path + (f"#{workflow}" if workflow else ""))
        if path == "/":
            self.page.locator("#fields .field").first.wait_for()
            self.page.locator("#run:enabled").wait_for()
        return self.page

    def _on_console(self, message: ConsoleMessage) -> None:
        allowed = [f"status of {status} " for status in self.expected]
        allowed += ["net::ERR_FAILED"] if self.cut_off else []
        is_fault = message.type in ("error", "warning")
        if is_fault and not any(text in message.text for text in allowed):
            self.faults.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.url}/", "blob:", "data:")):
            self.faults.append(f"asked {request.url}")


@pytest.fixture(scope="session")
def works() -> list[Any]:
    """What was submitted, of all tests."""
    return []


@pytest.fixture(scope="session")
def places() -> list[Any]:
    """The places of those who listen to jobs at CROWDED, as the only member."""
    return []


@pytest.fixture(scope="session")
def url(
    tmp_path_factory: pytest.TempPathFactory, works: list[Any], places: list[Any]
) -> Iterator[str]:
    """All endpoints on a preview engine, and again with a key, behind Modal's edge, and at CROWDED."""
    folder = tmp_path_factory.mktemp("browser")
    package = own_package(folder, "page_package", kinds=ALL_KINDS)

    @asynccontextmanager
    async def app() -> AsyncIterator[Any]:
        base = folder / "base"
        async with service(base, package=package, pace=0.02, previews=True) as found:
            found.backend.works = works
            access = part(package, "gateway.access").ApiKeys(f"ann:{KEY}")
            with_key: FastAPI = new_app(package, found.backend, access)
            crowded = new_app(package, found.backend)
            places.append(part(package, "gateway.service").gateway_of(crowded).listening)
            mounts: dict[str, ASGIApp] = {
                PREFIX: with_key,
                PROXIED: edge(found.app),
                CROWDED: crowded,
                "/": found.app,
            }
            yield Starlette(routes=[Mount(path, one) for path, one in mounts.items()])

    with in_thread(app()) as found:
        yield found


def edge(app: ASGIApp) -> ASGIApp:
    """Return an app that refuses as Modal's edge does: whoever lacks the tokens, and in plain text."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        given = {name: Headers(scope=scope).get(name) for name in MODAL_KEY}
        words = "modal-http: missing credentials for proxy authorization"
        answer = app if given == MODAL_KEY else PlainTextResponse(words, status_code=401)
        await answer(scope, receive, send)

    return guarded


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


NewContext = Callable[..., BrowserContext]


@pytest.fixture
def watch(browser: Browser, url: str) -> Iterator[Callable[..., Watched]]:
    """Return a function that opens an empty browser; at the end it must have done nothing wrong."""
    contexts: list[BrowserContext] = []
    watched: list[Watched] = []

    def new(**options: Any) -> Watched:
        options.setdefault("viewport", {"width": 1280, "height": 860})
        context = browser.new_context(**options)
        context.set_default_timeout(MILLISECONDS)
        contexts.append(context)
        watched.append(Watched(context.new_page(), url))
        return watched[-1]

    yield new
    faults = [fault for one in watched for fault in one.faults]
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def watched(watch: Callable[..., Watched]) -> Watched:
    return watch()


@pytest.fixture
def crowd(url: str, places: list[Any]) -> Iterator[None]:
    """Let others take all places to listen at CROWDED."""
    del url
    with ExitStack() as taken:
        while not places[0].is_full(""):
            taken.enter_context(places[0].of(""))
        yield


@pytest.fixture(scope="session")
def node() -> str:
    """Return Node.js: the one that is installed, else the one that Playwright is driven by."""
    return shutil.which("node") or compute_driver_executable()[0]
