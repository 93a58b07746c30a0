"""The client in build/, against a small server that speaks the service's side of the contract."""

import base64
import importlib
import inspect
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from build import client_command, client_core
from build.client import Client
from build.client_command import main
from build.client_core import (
    BaseClient,
    OnProgress,
    Progress,
    Reply,
    ServiceError,
    ServiceTimeout,
    ServiceUnreachable,
)
from build.utils import comfyui_protocol
from generator import client as generator_client
from generator.client import argument_names, doc_lines, method_name
from generator.publish import publish
from generator.render import render

from .conftest import GPU_YAML, MODELS_YAML, ROOT, MakeProject, load_and_check
from .test_hostile_text import TEXT

JOB = "job_01jz8v4q6k7m9n2p3r5s8t0w1x"
KEY = "sekrit-0123456789"
WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8 "
DONE_HEADERS = {
    "X-Job-Id": JOB,
    "X-Seed": "7",
    "X-Cost-USD": "0.006504",
    "X-Execution-Time-Sec": "12.000",
    "X-Queue-Time-Sec": "1.500",
    "X-GPU-Type": "L40S",
    "X-Engine": "0.3.71",
    "X-Output-Count": "1",
}
PROBLEM = {
    "type": "urn:problem-type:bad-params",
    "title": "Params are wrong",
    "status": 422,
    "detail": "2 faults in the params: width: wrong; prompt: this param is required",
    "code": "bad-params",
    "errors": [
        {"pointer": "#/width", "detail": "Input should be a multiple of 8", "code": "multiple_of"},
        {"pointer": "#/prompt", "detail": "this param is required", "code": "missing"},
    ],
}
PAGE = b"<html><head><title>502 Bad\x1b Gateway</title></head><body>nginx</body></html>"
ROUTES: dict[str, Any] = json.loads((ROOT / "build" / "manifest.json").read_bytes())["routes"]


OUTPUT = f"/jobs/{JOB}/outputs"
EVENTS = f"GET /jobs/{JOB}/events"


@dataclass(frozen=True)
class Answer:
    """What the server says to one request; `delay` in seconds, `hangs_up` for no answer at all."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hangs_up: bool = False


@dataclass(frozen=True)
class Seen:
    """A request that the server got."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """Gives the answers of a script, by method and path; the last one again and again."""

    def __init__(self) -> None:
        self.script: dict[str, list[Answer]] = {}
        self.seen: list[Seen] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                seen = Seen(self.command, self.path, dict(self.headers), self.rfile.read(length))
                server.seen.append(seen)
                answers = server.script.get(f"{seen.method} {seen.path}", [])
                answer = answers.pop(0) if len(answers) > 1 else next(iter(answers), Answer(404))
                time.sleep(answer.delay)
                self.close_connection = True
                if answer.hangs_up:
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: object) -> None:
                """Print nothing."""

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Print nothing about clients that have gone."""

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def on(self, request: str, *answers: Answer) -> None:
        self.script[request] = list(answers)

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def asked(self) -> list[str]:
        return [f"{seen.method} {seen.path}" for seen in self.seen]


def told(*events: tuple[str, Mapping[str, Any]], start: int = 1, end: bool = True) -> Answer:
    """Return what happens to a job, as a stream that breaks off where it has no end."""
    last = [("end", {"job": JOB, "status": "succeeded"})] if end else []
    lines = ["retry: 1000\n\n"]
    for number, (name, data) in enumerate((*events, *last), start):
        head = "" if name == "preview" else f"id: {number}\n"
        lines.append(f"{head}event: {name}\ndata: {json.dumps(data)}\n\n: still here\n\n")
    headers = {"Content-Type": "text/event-stream; charset=utf-8", "X-Job-Id": JOB}
    return Answer(200, "".join(lines).encode(), headers)


def done(data: bytes = WEBP, **headers: str) -> Answer:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(200, data, {"Content-Type": "image/webp", **DONE_HEADERS, **more})


def job(status: str = "running", code: int = 202, **members: Any) -> Answer:
    document = {"job": JOB, "status": status, "route": "/flux", "position": None, "progress": None}
    headers = {
        "Content-Type": "application/json",
        "Location": f"/jobs/{JOB}",
        "Retry-After": "1",
        "X-Job-Id": JOB,
    }
    return Answer(code, json.dumps(document | members).encode(), headers)


def problem(status: int = 422, **members: Any) -> Answer:
    document = PROBLEM | {"status": status} | members
    headers = {"Content-Type": "application/problem+json"}
    return Answer(status, json.dumps(document).encode(), headers)


def page(status: int, body: bytes = PAGE) -> Answer:
    return Answer(status, body, {"Content-Type": "text/html; charset=utf-8"})


def see(location: str) -> Answer:
    return Answer(303, b"", {"Location": location})


@pytest.fixture(name="server")
def _server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(name="other")
def _other() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(name="client")
def _client(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variables of the machine count, files are saved where nobody sees them, nobody waits."""
    for name in ("COMFYUI_API_URL", "COMFYUI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(client_core, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(client_core, "_SEND_AGAIN_SECONDS", (0.01, 0.01))


@pytest.fixture(name="command")
def _command(server: Server) -> Callable[..., int]:
    """Return a function that runs the command against the server."""
    return lambda *arguments: main(Client, ["--url", server.url, *map(str, arguments)])


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_reply_at_once(server: Server, client: Client) -> None:
    server.on("POST /flux", done())
    reply = client.flux(prompt="a red fox", seed=7)
    assert reply == Reply(WEBP, "image/webp", JOB, 7, 0.006504, 12.0, 1.5, "L40S", "0.3.71", 1)
    (seen,) = server.seen
    assert seen.json == {"prompt": "a red fox", "seed": 7}
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["Prefer"] == "respond-async"
    assert "Authorization" not in seen.headers


def test_reply_without_a_seed(server: Server, client: Client) -> None:
    answer = done(Content_Type="text/plain; charset=utf-8")
    without = {name: value for name, value in answer.headers.items() if name != "X-Seed"}
    server.on("POST /flux", replace(answer, headers=without))
    reply = client.flux(prompt="x")
    assert (reply.seed, reply.media_type, reply.extension) == (None, "text/plain", ".txt")


def test_progress_until_the_result(server: Server, client: Client) -> None:
    server.on("POST /flux", job("queued", position=2))
    server.on(
        EVENTS,
        told(
            ("queued", {"position": None}),
            ("queued", {"position": 2}),
            ("queued", {"position": 0}),
            ("started", {"gpu": "L40S", "engine": "preview"}),
            ("node", {"node": "5", "class_type": "KSampler", "title": "Draw", "done": 0, "of": 1}),
            ("progress", {"node": "5", "value": 3, "max": 20}),
            ("progress", {"node": "6", "value": 1, "max": 2}),
            ("output", {"number": 0}),
            ("of-tomorrow", {}),
        ),
    )
    server.on(f"GET /jobs/{JOB}/result", done())
    seen: list[Progress] = []
    reply = client.flux(prompt="x", on_progress=seen.append)
    assert reply.data == WEBP
    assert server.asked == ["POST /flux", EVENTS, f"GET /jobs/{JOB}/result"]
    assert seen == [
        Progress(JOB, "queued", 2, None, None, None, None),
        Progress(JOB, "queued", 0, None, None, None, None),
        Progress(JOB, "running", None, None, None, None, None),
        Progress(JOB, "running", None, "5", "Draw", None, None),
        Progress(JOB, "running", None, "5", "Draw", 3, 20),
        Progress(JOB, "running", None, "6", None, 1, 2),
    ]


def test_a_job_that_nobody_may_listen_to_is_waited_for(server: Server, client: Client) -> None:
    server.on("POST /flux", job("running"))
    server.on(EVENTS, problem(429, code="too-many-listeners", errors=[], detail="too many"))
    server.on(f"GET /jobs/{JOB}/result", done())
    seen: list[Progress] = []
    assert client.flux(prompt="x", on_progress=seen.append).data == WEBP
    assert [progress.status for progress in seen] == ["running"]
    with pytest.raises(ServiceError, match="too many"):
        list(client.events(JOB))


def test_events(server: Server, client: Client) -> None:
    server.on(
        f"{EVENTS}?previews=true",
        told(("queued", {"position": None}), ("preview", {"node": "5"}), ("started", {})),
    )
    found = list(client.events(JOB, previews=True))
    assert [(event.id, event.name) for event in found] == [
        *((1, "queued"), (None, "preview"), (3, "started"), (4, "end")),
    ]
    assert found[0].data == {"position": None}
    assert "Last-Event-ID" not in server.seen[0].headers
    server.on(EVENTS, told(start=8))
    assert [event.id for event in client.events(JOB, after=7)] == [8]
    assert server.seen[1].headers["Last-Event-ID"] == "7"
    server.on(EVENTS, Answer(204))
    assert list(client.events(JOB, after=8)) == []


def test_events_go_on_after_a_break(server: Server, client: Client) -> None:
    """Of the stream, of the connection, and of what stands in front of the service."""
    broken = told(("started", {}), start=2, end=False)
    cut = replace(broken, headers={**broken.headers, "Transfer-Encoding": "chunked"})
    server.on(
        EVENTS,
        told(("queued", {"position": 0}), end=False),
        Answer(hangs_up=True),
        page(502),
        broken,
        cut,
        told(start=3),
    )
    assert [event.id for event in client.events(JOB)] == [1, 2, 3]
    lasts = [seen.headers.get("Last-Event-ID") for seen in server.seen]
    assert lasts == [None, "1", "1", "1", "2", "2"]


@pytest.mark.parametrize(
    ("answer", "times", "status"),
    [
        (problem(404, code="unknown-job", errors=[], detail="x"), 1, 404),
        (page(200), 1, 200),
        (page(503), 5, 503),
        (Answer(hangs_up=True), 5, None),
    ],
    ids=["unknown", "page", "down", "gone"],
)
def test_events_that_do_not_come(
    server: Server, client: Client, answer: Answer, times: int, status: int | None
) -> None:
    server.on(EVENTS, answer)
    with pytest.raises(ServiceError) as caught:
        list(client.events(JOB))
    assert (caught.value.status, caught.value.job) == (status, JOB)
    assert server.asked == [EVENTS] * times


def test_events_of_a_job_that_does_not_end(server: Server) -> None:
    server.on(EVENTS, told(("queued", {"position": 0}), end=False))
    server.on("POST /flux", job())
    with Client(server.url, timeout=0.1) as client:
        with pytest.raises(ServiceTimeout, match=JOB):
            list(client.events(JOB))
        with pytest.raises(ServiceTimeout, match=JOB):
            client.flux(prompt="x", on_progress=lambda _: None)


def test_without_progress_questions_are_rare(server: Server, client: Client) -> None:
    server.on("POST /flux", job())
    server.on(f"GET /jobs/{JOB}/result", done())
    assert client.flux(prompt="x").job == JOB
    assert server.seen[1].headers["Prefer"] == "wait=10"


def test_pause_between_questions(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that holds nothing back is not asked without end."""
    monkeypatch.setattr(client_core, "_PAUSE_SECONDS", 0.1)
    server.on("POST /flux", job())
    server.on(f"GET /jobs/{JOB}/result", job(), job(), done())
    start = time.monotonic()
    client.flux(prompt="x")
    assert time.monotonic() - start >= 0.2


def test_service_below_a_path(server: Server) -> None:
    server.on("POST /apps/comfy/flux", job())
    server.on(f"GET /apps/comfy/jobs/{JOB}/result", done())
    with Client(f"{server.url}/apps/comfy/", key=KEY) as client:
        assert client.flux(prompt="x").data == WEBP
    assert {seen.headers["Authorization"] for seen in server.seen} == {f"Bearer {KEY}"}


def test_redirects_are_followed_with_get(server: Server) -> None:
    server.on("POST /flux", see("/?__modal_function_call_id=fc-1"))
    server.on("GET /?__modal_function_call_id=fc-1", see("?__modal_function_call_id=fc-2"))
    server.on("GET /?__modal_function_call_id=fc-2", job())
    server.on(f"GET /jobs/{JOB}/result", see(f"{server.url}/r"))
    server.on("GET /r", done())
    with Client(server.url, KEY) as client:
        assert client.flux(prompt="x").data == WEBP
    assert server.asked[0] == "POST /flux"
    assert [seen.body for seen in server.seen[1:]] == [b""] * 4
    assert all(seen.headers["Authorization"] == f"Bearer {KEY}" for seen in server.seen)


def test_another_host_gets_no_key(server: Server, other: Server) -> None:
    server.on("POST /flux", see(f"{other.url}/elsewhere"))
    other.on("GET /elsewhere", see(f"{server.url}/back"))
    server.on("GET /back", done())
    with Client(server.url, KEY) as client:
        assert client.flux(prompt="x").data == WEBP
    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    assert "Authorization" not in other.seen[0].headers
    assert KEY not in str(other.seen)


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("/loop", "answered 303 See Other, .* it leads to /loop"),
        ("", "answered 404"),
        ("ftp://example.com/", "example.com does not answer .*ftp"),
        ("http://a:b/", "does not answer .*Invalid"),
    ],
)
def test_redirects_that_lead_nowhere(
    server: Server, client: Client, location: str, text: str
) -> None:
    server.on("POST /flux", see(location))
    server.on("GET /loop", see("/loop"))
    with pytest.raises(ServiceError, match=text):
        client.flux(prompt="x")
    assert len(server.seen) <= 21


def test_other_redirects_are_shown(server: Server, client: Client) -> None:
    server.on("POST /flux", Answer(308, b"", {"Location": "https://example.com/flux"}))
    with pytest.raises(ServiceError, match=r"308.*it leads to https://example.com/flux"):
        client.flux(prompt="x")


def test_problem_names_each_param(server: Server, client: Client) -> None:
    server.on("POST /flux", problem())
    with pytest.raises(ServiceError) as caught:
        client.flux(prompt="", width=1001)
    error = caught.value
    assert (error.status, error.code, error.job) == (422, "bad-params", None)
    assert error.detail == PROBLEM["detail"]
    assert error.document == PROBLEM
    assert [fault["pointer"] for fault in error.errors] == ["#/width", "#/prompt"]
    assert str(error).splitlines() == [
        "Params are wrong (422 bad-params)",
        "  width: Input should be a multiple of 8",
        "  prompt: this param is required",
    ]


def test_problem_names_the_node(server: Server, client: Client) -> None:
    place = {"node": "5", "class_type": "KSampler", "file": "workflows/flux.yaml", "line": 39}
    server.on("POST /flux", job())
    said = {"title": "A node failed", "code": "node-failed", "detail": "boom\x1b[31m\nbang"}
    fault = {"pointer": "#/workflow/a~1b", "detail": "boom"} | place
    answers = [
        problem(500, **said, **place, errors=[], job=JOB),
        problem(500, **said, errors=[fault], more_errors=3, job=JOB),
    ]
    texts = []
    for answer in answers:
        server.on(f"GET /jobs/{JOB}/result", answer)
        with pytest.raises(ServiceError) as caught:
            client.flux(prompt="x")
        assert caught.value.job == JOB
        texts.append(str(caught.value).splitlines())
    assert texts == [
        [
            "A node failed (500 node-failed): boom\\x1b[31m bang",
            '  at node "5" KSampler, workflows/flux.yaml:39',
            f"  job: {JOB}",
        ],
        [
            "A node failed (500 node-failed)",
            '  workflow/a/b: boom [node "5" KSampler, workflows/flux.yaml:39]',
            "  and 3 more",
            f"  job: {JOB}",
        ],
    ]


def test_a_key_is_asked_for(server: Server, client: Client) -> None:
    server.on("POST /flux", problem(401, code="unauthorized", detail="no key was sent", errors=[]))
    with pytest.raises(ServiceError, match="COMFYUI_API_KEY"):
        client.flux(prompt="x")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            page(502),
            r"answered 502 Bad Gateway, which is no answer of this service: 502 Bad\\x1b G",
        ),
        (page(200), "answered 200 OK, which is no answer of this service: 502 Bad"),
        (page(404, b"<h1>Not<br>Found</h1>"), "answered 404 Not Found.*: Not Found$"),
        (Answer(413), "answered 413 Request Entity Too Large, .* service: it is empty"),
        (Answer(204), "answered 204 No Content"),
        (Answer(400, b'{"x": 1}', {"Content-Type": "application/json"}), 'answered 400 .*"x": 1'),
        (Answer(500, b'{"x": 1}', {"Content-Type": "application/problem+json"}), "answered 500"),
        (Answer(500, b"{", {"Content-Type": "application/problem+json"}), "answered 500"),
        (Answer(202, b"{}", {"Content-Type": "application/json"}), "answered 202"),
        (replace(job(), headers={"X-Job-Id": "../../x"}), "answered 202"),
        (replace(done(), headers={"Content-Type": "image/webp"}), "answered 200"),
        (Answer(500, b"\xff\x1b", {"Content-Type": "text/plain"}), "answered 500.*\\\\x1b"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else "",
)
def test_answers_of_others(server: Server, client: Client, answer: Answer, text: str) -> None:
    """A proxy's page, another server at this address, JSON that is no problem."""
    server.on("POST /flux", answer)
    with pytest.raises(ServiceError, match=text) as caught:
        client.flux(prompt="x")
    assert caught.value.status == answer.status
    assert "\x1b" not in str(caught.value)


def test_nobody_answers() -> None:
    nobody = Client(f"http://127.0.0.1:{closed_port()}")
    with (
        nobody,
        pytest.raises(ServiceUnreachable, match=r"refused.*Does the service run") as caught,
    ):
        nobody.flux(prompt="x")
    assert caught.value.status is None


def test_a_request_is_sent_again_with_its_key(server: Server, client: Client) -> None:
    """Whether it got through the first time is not known; with its key it runs once."""
    for _ in range(2):
        server.on("POST /flux", Answer(hangs_up=True), Answer(hangs_up=True), done())
        assert client.flux(prompt="x").data == WEBP
    keys = [seen.headers["Idempotency-Key"] for seen in server.seen]
    assert len(keys) == 6
    assert len(set(keys[:3])) == len(set(keys[3:])) == 1
    assert keys[0] != keys[3]
    assert all(len(key) == 32 for key in keys)


def test_a_connection_that_fails_for_good(server: Server, client: Client) -> None:
    server.on("POST /flux", Answer(hangs_up=True))
    with pytest.raises(ServiceUnreachable):
        client.flux(prompt="x")
    assert server.asked == ["POST /flux"] * 3


@pytest.mark.parametrize("code", ["queue-full", "idempotency-conflict"])
def test_what_was_answered_is_not_sent_again(server: Server, client: Client, code: str) -> None:
    server.on("POST /flux", problem(429, code=code, errors=[]))
    with pytest.raises(ServiceError, match=code):
        client.flux(prompt="x")
    assert server.asked == ["POST /flux"]


def test_own_idempotency_keys(server: Server, client: Client, command: Callable[..., int]) -> None:
    server.on("POST /flux", done())
    client.flux(prompt="x", idempotency_key="mine")
    assert command("flux", "--prompt", "x", "--idempotency-key", "mine") == 0
    assert command("--idempotency-key", "mine", "flux", "--prompt", "x") == 0
    assert [seen.headers["Idempotency-Key"] for seen in server.seen] == ["mine"] * 3
    for wrong in ("füchse", "a\nb"):
        with pytest.raises(ValueError, match="idempotency key"):
            client.flux(prompt="x", idempotency_key=wrong)
    assert len(server.seen) == 3


def test_what_passes_is_waited_for(server: Server, client: Client) -> None:
    """While a job runs, a lost connection, a proxy's error and a gateway's are tried again."""
    server.on("POST /flux", job())
    server.on(
        f"GET /jobs/{JOB}/result",
        Answer(hangs_up=True),
        page(502),
        problem(503),
        done(),
    )
    assert client.flux(prompt="x").data == WEBP
    assert len(server.seen) == 5


@pytest.mark.parametrize("answer", [Answer(hangs_up=True), page(504)])
def test_what_does_not_pass(server: Server, client: Client, answer: Answer) -> None:
    server.on("POST /flux", job())
    server.on(f"GET /jobs/{JOB}/result", answer)
    with pytest.raises(ServiceError, match=JOB) as caught:
        client.flux(prompt="x")
    assert caught.value.job == JOB
    assert server.asked == ["POST /flux", *[f"GET /jobs/{JOB}/result"] * 5]


def test_failed_job_is_asked_for_once(server: Server, client: Client) -> None:
    """Its problem may have a status that else would pass."""
    server.on("POST /flux", job())
    server.on(f"GET /jobs/{JOB}/result", problem(502, code="engine-lost", errors=[], job=JOB))
    with pytest.raises(ServiceError, match="502 engine-lost"):
        client.flux(prompt="x")
    assert server.asked == ["POST /flux", f"GET /jobs/{JOB}/result"]


def test_own_time_is_over(server: Server) -> None:
    """The job goes on, and the error names it."""
    server.on("POST /flux", job())
    server.on(f"GET /jobs/{JOB}/result", job())
    with Client(server.url, timeout=0.3) as client, pytest.raises(ServiceTimeout) as caught:
        client.flux(prompt="x")
    assert caught.value.job == JOB
    assert str(caught.value).startswith("the job has not ended within 0.3 s, and goes on")
    assert f"DELETE /jobs/{JOB}" not in server.asked


@pytest.mark.parametrize(
    ("path", "error"),
    [("POST /flux", ServiceUnreachable), (f"GET /jobs/{JOB}/result", ServiceTimeout)],
)
def test_own_time_is_over_in_a_request(
    server: Server, path: str, error: type[ServiceError]
) -> None:
    server.on("POST /flux", job())
    server.on(path, Answer(delay=0.4))
    with Client(server.url, timeout=0.3) as hasty, pytest.raises(error):
        hasty.flux(prompt="x")


@pytest.mark.parametrize("reason", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (job("cancelled", 200), f"job {JOB} was cancelled"),
        (problem(409, code="job-ended", detail="x"), f"job {JOB} was not cancelled: x"),
        (page(502), f"job {JOB} was not cancelled: http://127.0.0.1:"),
        (Answer(hangs_up=True), f"job {JOB} was not cancelled: http://127.0.0.1:"),
    ],
    ids=["cancelled", "ended", "refused", "lost"],
)
def test_interrupted_call_cancels_its_job(
    server: Server, reason: type[BaseException], answer: Answer, note: str
) -> None:
    def stop(_: Progress) -> None:
        raise reason

    server.on("POST /flux", job())
    server.on(f"DELETE /jobs/{JOB}", answer)
    with Client(server.url, KEY) as client, pytest.raises(reason) as caught:
        client.flux(prompt="x", on_progress=stop)
    assert caught.value.__notes__[0].startswith(note)
    assert server.asked == ["POST /flux", f"DELETE /jobs/{JOB}"]
    assert server.seen[1].headers["Authorization"] == f"Bearer {KEY}"


def test_jobs_by_id(server: Server, client: Client) -> None:
    server.on(f"GET /jobs/{JOB}", job("running", 200, seed=3))
    server.on(f"GET /jobs/{JOB}/result", job(), done())
    server.on(f"DELETE /jobs/{JOB}", job("cancelled", 200))
    assert client.job(JOB)["seed"] == 3
    assert client.result(JOB).data == WEBP
    assert client.cancel(JOB)["status"] == "cancelled"
    server.on(f"DELETE /jobs/{JOB}", problem(409, code="job-ended", errors=[]))
    with pytest.raises(ServiceError, match="409 job-ended"):
        client.cancel(JOB)
    with pytest.raises(ServiceError, match="404"):
        client.job("a/b?c")
    assert server.asked[-1] == "GET /jobs/a%2Fb%3Fc"


def three_outputs(server: Server) -> None:
    """Answer with a picture that is the first of three outputs."""
    server.on("POST /flux", done(X_Output_Count="3"))
    server.on(f"GET {OUTPUT}/0", done(X_Output_Count="3"))
    server.on(f"GET {OUTPUT}/1", done(b"PNG", X_Output_Count="3", Content_Type="image/png"))
    server.on(f"GET {OUTPUT}/2", done(b"webp", X_Output_Count="3"))


def test_all_outputs(server: Server, client: Client) -> None:
    three_outputs(server)
    reply = client.flux(prompt="x")
    assert reply.outputs == 3
    outputs = client.outputs(reply.job)
    assert [(o.data, o.media_type) for o in outputs] == [
        (WEBP, "image/webp"),
        (b"PNG", "image/png"),
        (b"webp", "image/webp"),
    ]
    assert server.asked == ["POST /flux", *(f"GET {OUTPUT}/{n}" for n in range(3))]
    server.on(f"GET {OUTPUT}/0", problem(404, code="not-found", errors=[], detail="0 outputs"))
    with pytest.raises(ServiceError, match="0 outputs") as caught:
        client.outputs(JOB)
    assert caught.value.job == JOB


def test_interrupted_fetch_cancels_nothing(server: Server, client: Client) -> None:
    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    server.on(f"GET /jobs/{JOB}/result", job())
    with pytest.raises(KeyboardInterrupt):
        client.result(JOB, on_progress=stop)
    assert server.asked == [f"GET /jobs/{JOB}/result"]


def test_address_and_key_come_from_variables(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMFYUI_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("COMFYUI_API_URL", server.url)
    monkeypatch.setenv("COMFYUI_API_KEY", f"{KEY}\n")
    # No proxy stands between a program and its own machine.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server.on("POST /flux", done())
    with Client() as client:
        client.flux(prompt="x")
    with Client(key="") as client:
        client.flux(prompt="x")
    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    assert "Authorization" not in server.seen[1].headers
    monkeypatch.delenv("COMFYUI_API_URL")
    with Client() as client:
        assert str(client._http.base_url) == "http://127.0.0.1:8000"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://a:b"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Client(url)


@pytest.mark.parametrize("key", ["a\nb", "schlüssel", "a\x00"])
def test_keys_that_no_header_carries(key: str) -> None:
    with pytest.raises(ValueError, match="the key holds") as caught:
        Client(key=key)
    assert key not in str(caught.value)


def test_media(server: Server, client: Client, tmp_path: Path) -> None:
    """Files and bytes go as base64, texts as they are."""
    server.on("POST /seedvr2", done())
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG")
    encoded = base64.b64encode(b"\x89PNG").decode()
    given: dict[str | bytes | Path, str] = {
        picture: encoded,
        b"\x89PNG": encoded,
        encoded: encoded,
        "https://example.com/a.png": "https://example.com/a.png",
        "data:image/png;base64,AAAA": "data:image/png;base64,AAAA",
    }
    for media, sent in given.items():
        client.seedvr2(image=media)
        assert server.seen[-1].json == {"image": sent}
    asked = len(server.seen)
    with pytest.raises(FileNotFoundError):
        client.seedvr2(image=tmp_path / "missing.png")
    assert len(server.seen) == asked


def test_graph_with_files(server: Server, client: Client, tmp_path: Path) -> None:
    server.on("POST /workflow", done())
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}
    client.workflow(workflow=graph, files={"a.png": b"A", "b.wav": tmp_path / "b.wav"})
    assert server.seen[0].json == {
        "workflow": graph,
        "files": {"a.png": "QQ==", "b.wav": "UklGRg=="},
    }
    client.workflow(workflow=graph, prompt="x")
    assert server.seen[1].json == {"workflow": graph, "prompt": "x"}


def test_what_no_json_carries(server: Server, client: Client) -> None:
    with pytest.raises(ValueError, match="JSON"):
        client.flux(prompt="x", cfg=float("nan"))
    assert server.seen == []


def models() -> dict[str, type[BaseModel]]:
    """The request models by route."""
    found = {}
    for route, record in ROUTES.items():
        module = importlib.import_module(f"build.handlers.{record['handler']}")
        found[route] = getattr(module, record["request"])
    return found


VALUES: dict[str, Any] = {
    "string": "demo",
    "model": "demo",
    "integer": 17,
    "seed": 17,
    "number": 0.25,
    "image": b"data",
    "graph": {"1": {"class_type": "A", "inputs": {}}},
}


WORDS = {"face_provider": "CUDA", "format": "mp4"}


def values_of(route: str) -> dict[str, Any]:
    """A value for each param of a route."""
    return {name: WORDS.get(name, VALUES[kind]) for name, kind in ROUTES[route]["params"].items()}


@pytest.mark.parametrize("route", ROUTES)
def test_every_method_is_its_request_model(route: str) -> None:
    """Names, types of numbers, which are required and defaults are those of the model it fills."""
    method = getattr(Client, method_name(ROUTES[route]["name"]))
    parameters = dict(inspect.signature(method).parameters)
    _, texts = client_command._documented(method)
    model = models()[route]
    del parameters["self"]
    assert parameters.pop("idempotency_key").default is None
    assert parameters.pop("on_progress").default is None
    assert list(parameters) == list(model.model_fields)
    for name, parameter in parameters.items():
        info = model.model_fields[name]
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is (inspect.Parameter.empty if info.is_required() else None)
        if info.default_factory is None and info.default not in (None, "", PydanticUndefined):
            value = json.dumps(info.default).removesuffix(".0")
            assert texts[name].endswith(f"Default: {value}.")


@pytest.mark.parametrize("route", ROUTES)
def test_every_method_sends_what_it_was_given(route: str, server: Server, client: Client) -> None:
    server.on(f"POST {route}", done())
    method = getattr(client, method_name(ROUTES[route]["name"]))
    fields = models()[route].model_fields
    every = values_of(route)
    required = {name: value for name, value in every.items() if fields[name].is_required()}
    absent = dict.fromkeys(set(every) - set(required))
    for values in (required, every, every | absent):
        method(**values)
        sent = {k: v for k, v in values.items() if v is not None}
        sent = {k: "ZGF0YQ==" if v == b"data" else v for k, v in sent.items()}
        assert server.seen[-1].json == sent
        assert server.seen[-1].path == route


@pytest.mark.parametrize("route", ROUTES)
def test_every_command_sends_what_it_was_given(
    route: str, server: Server, command: Callable[..., int], tmp_path: Path
) -> None:
    """The options give the types that the params have, so that a strict service takes them."""
    name = ROUTES[route]["name"]
    server.on(f"POST {route}", done())
    media = tmp_path / "media.bin"
    media.write_bytes(b"data")
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps(VALUES["graph"]))
    arguments: list[Any] = []
    sent = values_of(route)
    for param, value in sent.items():
        text = media if value == b"data" else graph if isinstance(value, dict) else value
        arguments += [f"--{param.replace('_', '-')}", text]
        sent[param] = "ZGF0YQ==" if value == b"data" else value
    if "files" in inspect.signature(getattr(Client, method_name(name))).parameters:
        arguments += ["--files", f"a={media}", "b=HTTPS://example.com/=?", "--files", "c=data:,x"]
        sent["files"] = {"a": "ZGF0YQ==", "b": "HTTPS://example.com/=?", "c": "data:,x"}
    assert command(name, *arguments) == 0
    assert server.seen[0].json == sent
    assert [type(v) for v in server.seen[0].json.values()] == [type(v) for v in sent.values()]
    assert (tmp_path / f"{name}.webp").read_bytes() == WEBP


def reply(media_type: str = "image/webp", data: bytes = WEBP) -> Reply:
    return Reply(data, media_type, JOB, None, 0.0, 1.0, 0.0, "L40S", "0.3.71", 1)


@pytest.mark.parametrize(
    ("given", "media_type", "saved"),
    [
        ("fox.webp", "image/webp", "fox.webp"),
        ("fox.png", "image/webp", "fox.webp"),
        ("fox.PNG", "image/png", "fox.PNG"),
        ("fox", "image/webp", "fox.webp"),
        ("fox.jpeg", "image/jpeg", "fox.jpeg"),
        ("fox.png", "image/jpeg", "fox.jpg"),
        ("v1.5", "image/webp", "v1.5.webp"),
        ("a.b.png", "video/mp4", "a.b.mp4"),
        (".hidden", "image/png", ".hidden.png"),
        ("fox.png", "application/octet-stream", "fox.png"),
        ("fox", "application/x-unheard-of", "fox"),
        ("words", "text/plain", "words.txt"),
    ],
)
def test_extension_is_that_of_the_content(
    given: str, media_type: str, saved: str, tmp_path: Path
) -> None:
    assert reply(media_type).save(tmp_path / given) == tmp_path / saved
    assert [path.name for path in tmp_path.iterdir()] == [saved]
    assert reply(media_type).save(str(tmp_path / given)) == tmp_path / saved


def test_every_media_type_of_the_engine_has_an_extension() -> None:
    found = {
        *(entry[2] for entry in comfyui_protocol._SIGNATURES),
        *(kind.partition(";")[0] for kind in comfyui_protocol._EXTENSIONS.values()),
        "video/webm",
        "video/x-matroska",
    }
    assert [kind for kind in sorted(found) if not reply(kind).extension] == []


def test_folder_gets_a_file_named_after_the_job(tmp_path: Path) -> None:
    assert reply().save(tmp_path) == tmp_path / f"{JOB}.webp"
    with pytest.raises(FileNotFoundError):
        reply().save(tmp_path / "missing" / "fox.webp")


def test_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "fox.webp"
    target.write_bytes(b"old")

    def full(path: Path, _: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for place in (target, "new.webp"):
        with pytest.raises(OSError, match="No space"):
            reply().save(tmp_path / place)
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"old"


def test_command_says_what_was_made(
    server: Server, command: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    server.on("POST /flux", done())
    assert command("flux", "--prompt", "x", "--seed", "7", "-o", "fox.png") == 0
    out, err = capsys.readouterr()
    assert out == "fox.webp, 16 bytes, image/webp, 12.0 s, $0.006504, L40S, seed 7\n"
    assert err == ""
    assert (tmp_path / "fox.webp").read_bytes() == WEBP
    server.on("POST /flux", done(b"x" * 1_230_000, X_Engine="preview", X_Output_Count="3"))
    assert command("flux", "--prompt", "x", "-o", "fox.webp") == 0
    assert capsys.readouterr().out == (
        "fox.webp, 1,230,000 bytes, image/webp, 12.0 s, $0.006504, L40S, seed 7, one of 3 "
        "outputs (--all saves them all), a placeholder of the preview engine, not a real picture\n"
    )
    assert command("flux", "--prompt", "x", "--quiet", "-o", tmp_path) == 0
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / f"{JOB}.webp").exists()


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ([], ["flux.webp", "flux.png", "flux-2.webp"]),
        (["-o", "fox.jpg"], ["fox.webp", "fox-2.png", "fox-3.webp"]),
        (["-o", "."], [f"{JOB}.webp", f"{JOB}-2.png", f"{JOB}-3.webp"]),
    ],
)
def test_command_saves_all_outputs(
    arguments: list[str],
    files: list[str],
    server: Server,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    three_outputs(server)
    assert command("flux", "--prompt", "x", "--all", *arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{files[0]}, 16 bytes, image/webp, 12.0 s, $0.006504, L40S, seed 7",
        f"{files[1]}, 3 bytes, image/png",
        f"{files[2]}, 4 bytes, image/webp",
    ]
    assert [(tmp_path / file).read_bytes() for file in files] == [WEBP, b"PNG", b"webp"]
    assert len(list(tmp_path.iterdir())) == 3


def test_command_overwrites_only_what_it_was_told_to(
    server: Server, command: Callable[..., int], tmp_path: Path
) -> None:
    server.on("POST /flux", done())
    (tmp_path / "flux.webp").write_bytes(b"old")
    for _ in range(2):
        assert command("flux", "--prompt", "x") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flux-2.webp", "flux-3.webp", "flux.webp"]
    assert (tmp_path / "flux.webp").read_bytes() == b"old"
    assert command("flux", "--prompt", "x", "--output", "flux.webp") == 0
    assert (tmp_path / "flux.webp").read_bytes() == WEBP


def test_command_prints_json(
    server: Server, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("POST /flux", done())
    assert command("flux", "--prompt", "x", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "job": JOB,
        "media_type": "image/webp",
        "seed": 7,
        "cost": 0.006504,
        "seconds": 12.0,
        "queue_seconds": 1.5,
        "gpu": "L40S",
        "engine": "0.3.71",
        "outputs": 1,
        "files": ["flux.webp"],
    }
    server.on("POST /flux", problem())
    assert command("--json", "flux", "--prompt", "x") == 1
    assert json.loads(capsys.readouterr().out) == PROBLEM
    server.on("POST /flux", page(502))
    assert command("--json", "flux", "--prompt", "x") == 1
    assert "502" in json.loads(capsys.readouterr().out)["detail"]


def test_command_for_jobs(
    server: Server, command: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    server.on(f"GET /jobs/{JOB}/result", job(), done())
    server.on(EVENTS, told())
    assert command("job", JOB) == 0
    assert (tmp_path / f"{JOB}.webp").read_bytes() == WEBP
    server.on(f"DELETE /jobs/{JOB}", job("cancelled", 200))
    capsys.readouterr()
    assert command("cancel", JOB) == 0
    assert capsys.readouterr().out == f"{JOB} cancelled\n"
    assert command("cancel", JOB, "--json") == 0
    assert json.loads(capsys.readouterr().out)["status"] == "cancelled"
    assert command("cancel", JOB, "--quiet") == 0
    assert capsys.readouterr().out == ""
    server.on(f"GET /jobs/{JOB}/result", problem(404, code="unknown-job", errors=[]))
    assert command("job", JOB) == 1
    assert "404 unknown-job" in capsys.readouterr().err


def test_command_says_how_to_go_on(
    server: Server, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """When the service is lost while a job runs."""
    server.on("POST /flux", job())
    server.on(f"GET /jobs/{JOB}/result", Answer(hangs_up=True))
    assert command("flux", "--prompt", "x", "--quiet") == 1
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"  job: {JOB}",
        f"  wait for it with `python -m build.client job {JOB}`",
    ]


def test_command_shows_problems_by_param(
    server: Server, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("POST /flux", problem())
    assert command("--key", KEY, "flux", "--prompt", "x", "--width", "1001") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "error: Params are wrong (422 bad-params)\n"
        "  width: Input should be a multiple of 8\n"
        "  prompt: this param is required\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nope"],
        ["flux"],
        ["flux", "--prompt", "x", "--width", "1.5"],
        ["flux", "--prompt", "x", "--width", "9" * 5000],
        ["flux", "--prompt", "x", "--cfg", "nan"],
        ["flux", "--prompt", "x", "--promt", "y"],
        ["flux", "--prompt", "x", "--wid", "64"],
        ["flux", "--prompt", "x\udcff"],
        ["wan2", "--prompt", "x", "--format", "gif"],
        ["seedvr2", "--image", "missing.png"],
        ["seedvr2", "--image", "."],
        ["seedvr2", "--image", "a\0b"],
        ["workflow", "--workflow", "missing.json"],
        ["workflow", "--workflow", "bad.json"],
        ["workflow", "--workflow", "deep.json"],
        ["workflow", "--workflow", "list.json"],
        ["workflow", "--workflow", "nan.json"],
        ["workflow", "--workflow", "graph.json", "--files", "a.png"],
        ["workflow", "--workflow", "graph.json", "--files", "a.png=missing.png"],
        ["flux", "--prompt", "x", "-o", "missing/fox.png"],
        ["flux", "--prompt", "x", "-o", "missing/"],
        ["flux", "--prompt", "x", "-o", "-"],
        ["flux", "--prompt", "x", "-o", "/dev/null"],
        ["flux", "--prompt", "x", "-o", "graph.json/fox.png"],
        ["flux", "--prompt", "x", "--url", "nowhere"],
        ["flux", "--prompt", "x", "--key", f"{KEY} \n{KEY}"],
        ["job"],
    ],
    ids=lambda arguments: " ".join(map(ascii, arguments))[-60:],
)
def test_command_that_sends_nothing(
    arguments: list[str],
    server: Server,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Whatever can be known before is said before, in words; nothing is paid for."""
    (tmp_path / "bad.json").write_bytes(b"\xff{")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "nan.json").write_text('{"a": NaN}')
    (tmp_path / "graph.json").write_text("{}")
    try:
        code: int | str | None = command(*arguments)
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    assert code == 2
    assert "error: " in err
    assert "Traceback" not in err
    assert KEY not in out + err
    assert server.seen == []


def test_output_that_cannot_be_written_is_not_lost(
    server: Server,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    server.on("POST /flux", done())
    monkeypatch.setattr(Path, "write_bytes", full)
    assert command("flux", "--prompt", "x", "-o", "fox.webp") == 2
    err = capsys.readouterr().err
    assert "No space left on device" in err
    assert f"python -m build.client job {JOB} -o FILE" in err


def test_a_link_stays_one(server: Server, command: Callable[..., int], tmp_path: Path) -> None:
    server.on("POST /flux", done())
    (tmp_path / "fox.webp").write_bytes(b"old")
    (tmp_path / "link.webp").symlink_to("fox.webp")
    assert command("flux", "--prompt", "x", "-o", "link.webp") == 0
    assert (tmp_path / "link.webp").is_symlink()
    assert (tmp_path / "fox.webp").read_bytes() == WEBP


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress_script(server: Server) -> None:
    server.on("POST /flux", job("queued", position=12))
    server.on(
        EVENTS,
        told(
            ("queued", {"position": 0}),
            ("started", {}),
            ("node", {"node": "5", "title": "KSampler 画家\x1b[31m"}),
            ("progress", {"node": "5", "value": 3, "max": 20}),
            ("node", {"node": "9", "title": ""}),
        ),
    )
    server.on(f"GET /jobs/{JOB}/result", done())


def test_progress_on_a_terminal(
    server: Server, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line is written over and over, and is gone at the end."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    progress_script(server)
    assert command("flux", "--prompt", "x") == 0
    shown = terminal.getvalue()
    assert "\n" not in shown
    assert [line.rstrip() for line in shown.split("\r\x1b[K")] == [
        "",
        "queued, 12 ahead  0 s",
        "queued, next  0 s",
        "running  0 s",
        "KSampler 画家\\x1b[31m  0 s",
        "KSampler 画家\\x1b[31m  step 3 of 20  0",
        "9  0 s",
        "",
    ]
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    progress_script(server)
    assert command("flux", "--prompt", "x", "--quiet") == 0
    assert terminal.getvalue() == ""


def test_progress_elsewhere(
    server: Server, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    progress_script(server)
    assert command("flux", "--prompt", "x") == 0
    assert capsys.readouterr().err == "queued, 12 ahead\nqueued, next\nrunning\n"


def test_key_is_never_shown(
    server: Server,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COMFYUI_API_KEY", KEY)
    flux = ["flux", "--prompt", "x"]
    for answer in (done(), problem(), problem(401), page(502), Answer(hangs_up=True)):
        server.on("POST /flux", answer)
        for arguments in ([*flux], ["--json", *flux], ["--key", KEY, *flux]):
            command(*arguments)
    with pytest.raises(SystemExit):
        command("flux", "--help")
    assert all(s.headers["Authorization"] == f"Bearer {KEY}" for s in server.seen)
    captured = capsys.readouterr()
    assert KEY not in captured.out + captured.err
    with Client(server.url, KEY) as client:
        assert KEY not in repr(client)


def run_command(server: Server, *arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "build.client", "--url", server.url, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONUTF8": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_process_is_interrupted(server: Server, tmp_path: Path) -> None:
    """Ctrl-C stops the job, and says so."""
    server.on("POST /flux", job())
    server.on(EVENTS, Answer(delay=5))
    server.on(f"DELETE /jobs/{JOB}", job("cancelled", 200))
    run = run_command(server, "flux", "--prompt", "x", cwd=tmp_path)
    deadline = time.monotonic() + 30
    while len(server.seen) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=10)
    assert (run.returncode, out) == (130, "")
    assert err == f"running\njob {JOB} was cancelled\n"
    assert server.asked == ["POST /flux", EVENTS, f"DELETE /jobs/{JOB}"]


def test_process_in_a_copy(server: Server, tmp_path: Path) -> None:
    """The three files work in a package of somebody else's."""
    package = tmp_path / "elsewhere"
    package.mkdir()
    for name in ("client.py", "client_core.py", "client_command.py"):
        (package / name).write_bytes((ROOT / "build" / name).read_bytes())
    server.on("POST /flux", done(X_GPU_Type="L40S"))
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "elsewhere.client", "flux", "--prompt", "x"],
        cwd=tmp_path,
        env={"COMFYUI_API_URL": server.url, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("flux.webp, 16 bytes, image/webp")


_PACKAGES = count()

Rendered = Callable[[Path], tuple[ModuleType, Path]]


@pytest.fixture(name="rendered", scope="module")
def _rendered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rendered]:
    """Return a function that renders a project and imports its client."""
    folder = tmp_path_factory.mktemp("rendered")

    def make(root: Path) -> tuple[ModuleType, Path]:
        checked, diagnostics = load_and_check(root)
        assert checked is not None, diagnostics
        package = f"client_{next(_PACKAGES)}"
        publish(render(checked), folder / package)
        importlib.invalidate_caches()
        return importlib.import_module(f"{package}.client"), folder / package

    sys.path.insert(0, str(folder))
    yield make
    sys.path.remove(str(folder))


def workflow_with(params: Mapping[str, Any], **keys: Any) -> str:
    """A workflow with params that all go into one input."""
    wrapped = {name: f"${{{name}}}" for name in params}
    node = {"class_type": "PreviewAny", "inputs": {"source": wrapped}}
    return json.dumps({"summary": "x", "params": params, "graph": {"1": node}, **keys})


CLASHING = (
    "url key idempotency_key output json quiet all help self on_progress files class class_ str command method job "
    "o h client args kwargs media media_files flag no_flag run"
).split()


@pytest.fixture(name="clashes", scope="module")
def _clashes(
    tmp_path_factory: pytest.TempPathFactory, rendered: Rendered
) -> tuple[ModuleType, Path]:
    """The client of endpoints and params that are called like what the client has itself."""
    params: dict[str, Any] = {name: {"type": "string", "default": "?"} for name in CLASHING}
    params["flag"] = {"type": "boolean", "default": False}
    params["media"] = {"type": "image", "optional": True}
    small = workflow_with({"a": {"type": "string"}})
    names = (
        "job cancel close result outputs str int float bool import client main media media_files "
        "reply base-client graph literal"
    ).split()
    text = json.loads(workflow_with(params))
    text["graph"]["2"] = {"class_type": "LoadImage", "inputs": {"image": "${media}"}}
    text["graph"]["3"] = {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}
    text["graph"]["1"]["inputs"]["source"].pop("media")
    project = tmp_path_factory.mktemp("clashes")
    (project / "workflows").mkdir()
    (project / "gpu.yaml").write_text(GPU_YAML)
    (project / "models.yaml").write_text(MODELS_YAML)
    for name, workflow in (dict.fromkeys(names, small) | {"params": json.dumps(text)}).items():
        (project / "workflows" / f"{name}.yaml").write_text(workflow)
    return rendered(project)


def test_names_that_clash_in_python(clashes: tuple[ModuleType, Path], server: Server) -> None:
    module, _ = clashes
    server.on("POST /params", done())
    arguments = argument_names(CLASHING)
    changed = {name: argument for name, argument in arguments.items() if name != argument}
    assert changed == {
        "self": "self_",
        "idempotency_key": "idempotency_key_",
        "on_progress": "on_progress_",
        "class": "class__",
        "media": "media_",
        "media_files": "media_files_",
    }
    values: dict[str, Any] = {name: f"<{name}>" for name in CLASHING} | {"flag": True}
    with module.Client(server.url) as client:
        client.params(**{arguments[name]: value for name, value in values.items()})
        assert server.seen[0].json == values
        for name in ("job", "cancel", "close", "result", "outputs", "str", "int", "import"):
            server.on(f"POST /{name}", done())
            getattr(client, f"{name}_")(a="x")
            assert server.seen[-1].path == f"/{name}"


def test_names_that_clash_on_the_command_line(
    clashes: tuple[ModuleType, Path], server: Server, tmp_path: Path
) -> None:
    """After the command an option is the endpoint's, before it the client's; -o and -h stay."""
    module, _ = clashes
    run: Callable[..., int] = lambda *arguments: main(module.Client, arguments)  # noqa: E731
    server.on("POST /params", done())
    values = {name: f"<{name}>" for name in CLASHING if name not in ("flag", "class", "media")}
    given = [f"--{name.removesuffix('_').replace('_', '-')}={v}" for name, v in values.items()]
    general = ["--url", server.url, "--key", KEY, "--output", "here", "--quiet"]
    assert run(*general, "params", *given, "--class--=?", "--media=data:,x", "--flag") == 0
    assert server.seen[0].json == {**values, "class": "?", "media": "data:,x", "flag": True}
    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    assert (tmp_path / "here.webp").exists()
    assert run("--url", server.url, "params", "--flag", "false", "-o", "there") == 0
    assert server.seen[1].json == {"flag": False}
    assert (tmp_path / "there.webp").exists()
    with pytest.raises(SystemExit, match="0"):
        run("params", "-h")
    # Two endpoints are called like commands of the client's own.
    server.on("POST /job", done())
    assert run("--url", server.url, "job-", "--a", "x") == 0
    server.on("POST /import", done())
    assert run("--url", server.url, "import", "--a", "x") == 0
    server.on(f"GET /jobs/{JOB}/result", done())
    assert run("job", JOB, "--url", server.url) == 0


def test_clashing_client_is_clean(clashes: tuple[ModuleType, Path]) -> None:
    _, package = clashes
    files = [package / name for name in ("client.py", "client_core.py", "client_command.py")]
    for command in (["ruff", "check", "--no-cache"], ["mypy", "--strict"]):
        run = subprocess.run(
            [sys.executable, "-m", *command, *files],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr


def test_claimed_names_are_those_of_the_client() -> None:
    public = {name for name in dir(BaseClient) if not name.startswith("_")}
    assert public | {"bool", "float", "int", "str"} == generator_client._CLAIMED_BY_CLIENTS
    with BaseClient() as client:
        assert not {name for name in vars(client) if not name.startswith("_")}


def test_graph_called_files(make_project: MakeProject, rendered: Rendered, server: Server) -> None:
    """The param keeps its name in the body, so no media go with the graph."""
    params = {"files": {"type": "graph"}}
    text = json.dumps({"summary": "x", "params": params, "graph": "${files}"})
    module, _ = rendered(make_project({"any": text}))
    server.on("POST /any", done())
    graph = {"1": {"class_type": "A", "inputs": {}}}
    with module.Client(server.url) as client:
        client.any(files=graph)
    assert server.seen[0].json == {"files": graph}


def test_project_without_endpoints_or_params(
    make_project: MakeProject, rendered: Rendered, server: Server
) -> None:
    graph = {"1": {"class_type": "PreviewAny", "inputs": {"source": "x"}}}
    module, _ = rendered(make_project({"nothing": json.dumps({"summary": "x", "graph": graph})}))
    server.on("POST /nothing", done())
    with module.Client(server.url) as client:
        client.nothing()
    assert server.seen[0].json == {}


@pytest.fixture(name="hostile")
def _hostile(rendered: Rendered) -> ModuleType:
    return rendered(ROOT / "tests" / "fixtures" / "hostile")[0]


LONG = "Args: " + "x" * 88


def test_hostile_specs(
    hostile: ModuleType, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their texts come through whole, and neither print nor run as anything else."""
    server.on("POST /hostile/quotes", done())
    with hostile.Client(server.url) as client:
        client.quotes(choice="${y}", class_="x", json="{{ 7*7 }}", ratio=2.25, flag=False)
        doc = inspect.getdoc(client.quotes)
    assert server.seen[0].json == {
        "choice": "${y}",
        "class": "x",
        "json": "{{ 7*7 }}",
        "ratio": 2.25,
        "flag": False,
    }
    assert doc
    assert doc.startswith('""" ends a docstring, {{ 7*7 }} a template, \\ a line')
    arguments = ["--choice", '"quoted"', "--count", "2", "--flag=false", "--json", "j"]
    assert main(hostile.Client, ["--url", server.url, "quotes", *arguments]) == 0
    assert server.seen[1].json == {"choice": '"quoted"', "count": 2, "flag": False, "json": "j"}
    capsys.readouterr()
    for command in ("quotes", "absent"):
        with pytest.raises(SystemExit, match="0"):
            main(hostile.Client, [command, "--help"])
    shown = capsys.readouterr().out
    words = " ".join(shown.split())
    assert "%s" in words
    assert "One of 0.5, 1, 2.25. Default: 1." in words
    assert "Exactly one of left, right is given." in words
    assert all(character.isprintable() or character == "\n" for character in shown)
    with pytest.raises(SystemExit, match="2"):
        main(hostile.Client, ["quotes", "--choice", "\u202e%(prog)s"])
    assert "\u202e" not in capsys.readouterr().err


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(
        (TEXT | st.sampled_from(["%(prog)s %d", "Args:", f"Args: {LONG}", "a: b", "x-" * 80])).map(
            lambda text: " ".join(text.split())
        ),
        min_size=4,
        max_size=4,
    )
)
def test_help_takes_any_text(capsys: pytest.CaptureFixture[str], texts: list[str]) -> None:
    """The command reads the very texts that the generator wrote into a docstring."""
    summary, description, first, second = texts

    def it(
        self: BaseClient,
        *,
        a: Literal["==SUPPRESS==", "\u202e%(prog)s"],
        b: bool | None = None,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Reply:
        raise AssertionError(self, a, b, idempotency_key, on_progress)

    it.__doc__ = "\n        ".join(
        doc_lines(summary or "x", description, {"a": first, "b": second})
    )
    about, arguments = client_command._documented(it)
    assert arguments == {name: text for name, text in (("a", first), ("b", second)) if text}
    assert " ".join(about.split()) == " ".join(f"{summary or 'x'} {description}".split())
    odd: type[BaseClient] = type("Odd", (Client,), {"it": it})
    for command in (["--help"], ["it", "--help"], ["it", "--a", f"{summary}x"]):
        with pytest.raises(SystemExit):
            main(odd, command)
    out, err = capsys.readouterr()
    assert all(character.isprintable() or character == "\n" for character in out + err)
