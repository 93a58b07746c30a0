"""bench: what it sends, what it makes of the answers, and how it says so."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

from generator.benchmark import BenchmarkError, benchmark, fault_of, percentile, requests_of
from generator.benchmark_report import document, series
from generator.cli import main
from generator.trial import served

from .conftest import ROOT

PROPERTIES: dict[str, Any] = {
    "prompt": {"type": "string", "examples": ["a fox"], "minLength": 1},
    "width": {"type": "integer", "default": 64},
    "height": {"type": "integer", "default": 32},
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**53 - 1},
}
DOCUMENT: dict[str, Any] = {
    "paths": {
        "/it": {
            "post": {
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/It"},
                            "example": {"prompt": "a fox"},
                        }
                    }
                }
            }
        }
    },
    "components": {"schemas": {"It": {"properties": PROPERTIES, "required": ["prompt"]}}},
}


def picture(width: int = 64, height: int = 32, *, flat: bool = False) -> bytes:
    image = Image.new("RGB", (width, height))
    if not flat:
        image.putpixel((1, 1), (255, 255, 255))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


class Answers(BaseHTTPRequestHandler):
    """Answers the nth request with what `kinds` has for it; `seen` are the bodies."""

    kinds: tuple[str, ...]
    seen: list[dict[str, Any]]

    def do_GET(self) -> None:
        if self.path == "/openapi.json":
            self.answer(200, "application/json", json.dumps(DOCUMENT).encode())
        else:
            cold = self.path.endswith("job_0")
            timings = {"startup": {"seconds": 40.0 if cold else 0.0}, "queue": {"seconds": 0.25}}
            self.answer(200, "application/json", json.dumps({"timings": timings}).encode())

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.seen.append(json.loads(self.rfile.read(length)))
        number = len(self.seen) - 1
        kind = self.kinds[number % len(self.kinds)]
        if kind == "fails":
            problem = {"title": "Out of memory", "detail": "the GPU ran out of memory"}
            self.answer(500, "application/problem+json", json.dumps(problem).encode())
            return
        data = {
            "good": picture(),
            "small": picture(32, 32),
            "flat": picture(flat=True),
            "broken": picture()[:40],
        }[kind]
        self.answer(200, "image/png", data, number)

    def answer(self, status: int, media_type: str, data: bytes, number: int = 0) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": media_type,
            "Content-Length": str(len(data)),
            "X-Job-Id": f"job_{number}",
            "X-Seed": "1",
            "X-Cost-USD": "0.002000",
            "X-Execution-Time-Sec": "3.500",
            "X-Queue-Time-Sec": "0.250",
            "X-GPU-Type": "l40s",
            "X-Engine": "comfyui/0.3.71",
            "X-Output-Count": "1",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[tuple[str, type[Answers]]]:
    handler = type("_Answers", (Answers,), {"kinds": ("good",), "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def bench(
    capsys: pytest.CaptureFixture[str], url: str, *arguments: str
) -> tuple[int, dict[str, Any], str]:
    code = main(["bench", url, "--route", "/it", "--json", *arguments])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else {}, said.err


def test_requests_differ_and_are_the_same_again() -> None:
    bodies = requests_of(DOCUMENT, "/it", {"height": 8}, 7, 40)
    assert len({json.dumps(b, sort_keys=True) for b in bodies}) == 40
    assert len({b["prompt"] for b in bodies}) > 10
    assert all(b["prompt"].startswith("a fox, ") and b["height"] == 8 for b in bodies)
    assert all(0 <= b["seed"] < 2**53 for b in bodies)
    assert bodies == requests_of(DOCUMENT, "/it", {"height": 8}, 7, 40)
    assert bodies != requests_of(DOCUMENT, "/it", {"height": 8}, 8, 40)


@pytest.mark.parametrize(
    ("route", "fixed", "message"),
    [("/other", {}, "there are /it"), ("/it", {"x": 1}, "takes no x")],
)
def test_what_cannot_be_asked(route: str, fixed: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        requests_of(DOCUMENT, route, fixed, 0, 1)


@pytest.mark.parametrize(
    ("data", "media_type", "fault"),
    [
        (picture(), "image/png", ""),
        (picture(32, 32), "image/png", "its width is 32 pixels, not 64"),
        (picture(flat=True), "image/png", "it is flat"),
        (picture()[:40], "image/png", "it cannot be decoded"),
        (b"", "image/png", "it is empty"),
        (b"not a video", "video/mp4", "it cannot be decoded"),
        (b"a text", "text/plain", ""),
    ],
)
def test_every_answer_is_looked_at(data: bytes, media_type: str, fault: str) -> None:
    found = fault_of(data, media_type, {"width": 64, "height": 32})
    assert found.startswith(fault)
    assert bool(found) == bool(fault)


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.9, 0.99, 1.0)] == [
        1.0, 50.0, 90.0, 99.0, 100.0,
    ]  # fmt: skip
    assert percentile([3.0], 0.5) == 3.0


def test_cold_and_warm_are_told_apart(
    service: tuple[str, type[Answers]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, handler = service
    code, found, said = bench(capsys, url, "--requests", "9", "--parallel", "3")
    assert (code, said) == (0, "")
    assert found["succeeded"] == found["requests"] == len(handler.seen) == 9
    assert found["success_rate"] == 1.0
    assert found["cold"]["count"] == 1
    assert found["startup"]["max"] == 40.0
    assert found["warm"]["count"] == 8
    assert found["execution"]["p50"] == 3.5
    assert found["usd_per_request"] == 0.002
    assert found["requests_per_second"] > 0
    assert found["gpu"] == ["l40s"]
    assert [s["number"] for s in found["samples"]] == list(range(9))


def test_wrong_answers_are_no_success(
    service: tuple[str, type[Answers]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, handler = service
    handler.kinds = ("good", "small", "flat", "broken", "fails")
    code, found, said = bench(capsys, url, "--requests", "10")
    assert code == 1
    assert (found["succeeded"], found["success_rate"]) == (2, 0.2)
    assert sum(found["faults"].values()) == 8
    for words in ("its width is 32", "it is flat", "cannot be decoded", "ran out of memory"):
        assert words in said


def test_the_plot_shows_what_the_table_counts(service: tuple[str, type[Answers]]) -> None:
    """Each request once, and the first as warm in neither."""
    url, handler = service
    handler.kinds = ("good", "good", "good", "fails")
    found = benchmark(url, "", "/it", requests=8, parallel=1)
    for measured, counts in (
        (found, {"cold": 1, "warm": 5, "failed": 2}),
        (replace(found, samples=found.samples[1:]), {"first": 1, "warm": 4, "failed": 2}),
    ):
        shown = {name: len(samples) for name, samples in series(measured).items() if samples}
        assert shown == counts
        about = document(measured)
        for name in ("cold", "warm"):
            assert (about[name] or {"count": 0})["count"] == counts.get(name, 0)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_numbers_as_a_picture(
    suffix: str,
    service: tuple[str, type[Answers]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "plots" / f"it.{suffix}"
    url, _ = service
    assert bench(capsys, url, "-n", "4", "--plot", str(file))[0] == 0
    assert file.stat().st_size > 5000
    code, _, said = bench(capsys, url, "-n", "1", "--plot", str(tmp_path / "it.xyz"))
    assert code == 2
    assert "it.xyz cannot be written" in said


def test_the_table(service: tuple[str, type[Answers]], capsys: pytest.CaptureFixture[str]) -> None:
    url, _ = service
    assert main(["bench", url, "--route", "/it", "-n", "3"]) == 0
    shown = capsys.readouterr().out
    for words in ("warm requests", "3 of 3", "0.002000 USD/request", "l40s"):
        assert words in shown
    assert "\033" not in shown


def test_the_only_endpoint_needs_no_name(
    service: tuple[str, type[Answers]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, handler = service
    assert main(["bench", url, "-n", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["route"] == "/it"
    assert len(handler.seen) == 2


def test_of_several_endpoints_one_is_named(
    service: tuple[str, type[Answers]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each request may have its price, so that none is guessed."""
    url, handler = service
    paths = {"/other": DOCUMENT["paths"]["/it"], "/jobs": {"get": {}}, "/loras": {"post": {}}}
    monkeypatch.setitem(DOCUMENT, "paths", DOCUMENT["paths"] | paths)
    assert main(["bench", url, "-n", "2"]) == 2
    assert (
        "there are several endpoints: name one by --route, /it, /other" in capsys.readouterr().err
    )
    assert handler.seen == []
    monkeypatch.setitem(DOCUMENT, "paths", {"/jobs": {"get": {}}})
    assert main(["bench", url, "-n", "2"]) == 2
    assert f"{url} has no endpoints" in capsys.readouterr().err


def test_nothing_answers(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = bench(capsys, "http://127.0.0.1:9", "-n", "1")
    assert code == 2
    assert "http://127.0.0.1:9/openapi.json does not come" in said
    assert "make serve" in said


def test_what_is_served_here(capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped endpoint on the preview engine, at a size of the caller's."""
    with served(ROOT) as url:
        command = ["bench", url, "-n", "4", "-p", "2", "--json"]
        code = main([*command, "--param", "width=256", "--param", "height=128"])
        found = json.loads(capsys.readouterr().out)
        picture = main(["bench", url, "-n", "2", "--json", "--route", "/seedvr2"])
        upscaled = json.loads(capsys.readouterr().out)
    assert code == 0, found["faults"]
    assert picture == 0, upscaled["faults"]
    assert found["succeeded"] == 4
    assert found["engine"] == ["preview"]
