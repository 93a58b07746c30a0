"""What is logged: lines of JSON without prompts, media and keys, as whoever runs the service sees them."""

import errno
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from generator.cli import main
from templates.gateway import logs

from .conftest import GPU_YAML, ROOT
from .log_contract import KEY, MEDIA, PROMPT, TOKEN, WORKFLOWS, Planted, check, events

SECONDS = 30


# Records


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Configure logging as a service does, and return what it has logged; undone after the test."""
    root, own = logging.getLogger(), logging.getLogger("templates")
    before = root.handlers[:], root.level, own.level
    hook = threading.excepthook

    def configure(*, log_prompts: bool = False) -> Any:
        logs.configure(log_prompts=log_prompts)
        return lambda: [*events(capsys.readouterr().err)]

    yield configure
    logs.configure(log_prompts=False)
    # Other tests look at the records of events.
    logs._Settings.write = None
    root.handlers[:], level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)
    logging.captureWarnings(capture=False)
    threading.excepthook = hook


def broken(prompt: str) -> None:
    raise ValueError(f"no face in {prompt}")


def fault(prompt: str) -> None:
    try:
        broken(prompt)
    except ValueError as error:
        raise RuntimeError(f"{prompt} fails") from error


@pytest.mark.parametrize("name", ["templates.gateway.app", "asyncio"])
def test_exceptions_say_where_and_not_what(lines: Any, name: str) -> None:
    for with_prompts in (False, True):
        read = lines(log_prompts=with_prompts)
        try:
            fault(PROMPT)
        except RuntimeError:
            logging.getLogger(name).exception("this is a fault of the service")
        [found] = read()
        assert found["message"] == "this is a fault of the service"
        assert found["logger"] == name
        outer, inner = found["error"]
        assert (outer["type"], inner["type"]) == ("RuntimeError", "ValueError")
        assert re.search(r"test_logs\.py:\d+ fault$", outer["at"][-1])
        assert inner["at"][-1].endswith(" broken")
        assert outer.get("message") == (f"{PROMPT} fails" if with_prompts else None)


def test_other_packages_say_which_message_it_is(lines: Any) -> None:
    """Whose words nobody here has read may hold anything."""
    for with_prompts in (False, True):
        read = lines(log_prompts=with_prompts)
        logging.getLogger("asyncio").error("a task failed\nfuture: <Task %r>", PROMPT)
        logging.getLogger("urllib3").info("GET %s", KEY)
        [found] = read()
        assert found["message"].startswith("a task failed")
        assert (PROMPT in found["message"]) is with_prompts


def test_nothing_is_written_past_the_log() -> None:
    """Warnings, what ends a thread, and callbacks: they are lines of JSON, and say where."""
    code = """
import asyncio, threading, warnings
from templates.gateway.logs import configure
configure(log_prompts=False)
warnings.warn("a secret")
def fail(text): raise ValueError(text)
thread = threading.Thread(target=fail, args=("a secret",))
thread.start()
thread.join()
async def main():
    asyncio.get_running_loop().call_soon(fail, "a secret")
    await asyncio.sleep(0.01)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "secret" not in done.stderr
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"] for line in found] == ["py.warnings", "templates", "asyncio"]
    assert found[1]["error"][0]["type"] == found[2]["error"][0]["type"] == "ValueError"
    assert found[2]["message"].startswith("Exception in callback fail")


def test_what_happens_is_one_line(lines: Any) -> None:
    read = lines()
    logs.event("finished", job="job_1", route="/füx\n", owner=None, seconds=0.5)
    [found] = read()
    assert {k: v for k, v in found.items() if k != "time"} == {
        "level": "info", "event": "finished", "job": "job_1", "route": "/füx\n", "seconds": 0.5,
    }  # fmt: skip
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["time"])


def test_a_log_that_cannot_be_written_stops_nothing(
    lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", Full())
        lines()
        logs.event("finished", job="job_1")


def test_a_terminal_shows_text(
    lines: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys.stderr, "isatty", lambda: True)
        lines()
        spent: dict[str, Any] = {
            "seconds": 2.345678,
            "startup_seconds": 0.0,
            "queue_seconds": 0.125,
            "usd": 0.0012,
        }
        logs.event("finished", job="job_1", route="/flux", owner=None, **spent)
        logs.event("rejected", route="/a\x1b[2J", owner="ann", code="bad-params")
        logs.event("service-started", url="http://x", engine="preview")
        logging.getLogger("templates.worker").warning("no %s", "face")
        try:
            fault(PROMPT)
        except RuntimeError:
            logging.getLogger("templates.worker").exception("a fault")
    *events, second, third, outer, inner = capsys.readouterr().err.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in events)
    assert [line[9:] for line in events] == [
        "/flux finished job_1 in 2.35 s queue_seconds=0.12 usd=0.0012",
        "/a\\x1b[2J rejected owner=ann code=bad-params",
        "service-started url=http://x engine=preview",
    ]
    assert second.endswith(" warning: no face")
    assert third.endswith(" error: a fault")
    assert re.fullmatch(r"  RuntimeError at .*test_logs\.py:\d+ fault", outer)
    assert re.fullmatch(r"  ValueError at .*test_logs\.py:\d+ broken", inner)


def test_large_graphs_are_not_logged(lines: Any) -> None:
    lines(log_prompts=True)
    small, large = {"1": {"inputs": {"text": "x"}}}, {"1": {"inputs": {"text": "x" * 40_000}}}
    assert logs.prompt_fields(small) == {"graph": small}
    assert logs.prompt_fields(large)["graph_bytes"] > 40_000
    lines()
    assert logs.prompt_fields(small) == {}


# A service


@contextmanager
def serving(folder: Path, *, log_prompts: bool) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Render and serve a project on a preview engine; what both print goes into files."""
    (folder / "workflows").mkdir(parents=True)
    for name, text in WORKFLOWS.items():
        (folder / "workflows" / f"{name}.yaml").write_text(text, "utf-8")
    settings = f"{GPU_YAML}log_prompts: {str(log_prompts).lower()}\n"
    (folder / "gpu.yaml").write_text(settings, "utf-8")
    (folder / "models.yaml").write_text("models: {}\npacks: {}\n", "utf-8")
    assert main(["build", "--quiet", "--project", str(folder)]) == 0
    engine = [sys.executable, "-m", "generator.preview", "--port", "0", "--no-packs"]
    service = [sys.executable, "-m", "build.api", "--port", "0", "--base-directory", "base"]
    with (
        started([*engine, "--base-directory", str(folder / "base")], folder, "engine") as first,
        started([*service, "--comfyui-url", first[0]], folder, "service") as second,
    ):
        yield second


@contextmanager
def started(
    command: list[str], folder: Path, name: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a process that says its URL first; yield that, and the process."""
    out, err = folder / f"{name}.out", folder / f"{name}.err"
    with out.open("wb") as output, err.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}", "HF_TOKEN": TOKEN},
        )
        try:
            limit = time.monotonic() + SECONDS
            while not (said := re.search(r"http://[\d.]+:\d+", out.read_text("utf-8"))):
                assert process.poll() is None, err.read_text("utf-8")
                assert time.monotonic() < limit
                time.sleep(0.02)
            yield said[0], process
        finally:
            process.terminate()
            process.wait(SECONDS)


def test_nothing_of_a_caller_is_logged(tmp_path: Path) -> None:
    """Not by the service, and not by the preview engine either."""
    with serving(tmp_path, log_prompts=False) as (url, process):
        Planted(url, {"X-API-Key": KEY, "Authorization": f"Bearer {KEY}"}).send()
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    check((tmp_path / "service.err").read_text("utf-8"))
    for name in ("service.out", "engine.out", "engine.err"):
        assert "MARK" not in (tmp_path / name).read_text("utf-8"), name
    names = [e["event"] for e in events((tmp_path / "service.err").read_text("utf-8"))]
    assert names[0] == "service-started"
    assert names[-1] == "service-stopped"


def test_prompts_are_logged_where_gpu_yaml_says_so(tmp_path: Path) -> None:
    """Keys, and the names of files, are not."""
    with serving(tmp_path, log_prompts=True) as (url, _):
        Planted(url, {"X-API-Key": KEY}).send()
    text = (tmp_path / "service.err").read_text("utf-8")
    queued = [e for e in events(text) if e["event"] == "queued" and e["route"] == "/say"]
    assert queued[0]["graph"]["3"]["inputs"]["source"] == PROMPT
    assert KEY not in text
    assert TOKEN not in text
    assert MEDIA not in json.dumps(queued)
