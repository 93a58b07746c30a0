"""watch: a change that is saved is served, one with an error is reported, and nothing is left over."""

import asyncio
import errno
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from watchfiles import awatch

from generator import watch as watch_module
from generator.cli import main
from generator.ports import HOST, free_port
from generator.serve import ServeError
from templates.gateway.serve import listen

from .conftest import ROOT, MakeProject, goes_when_it_is_read
from .test_cli import GOOD

SECONDS = 60.0


class Watched:
    """A project that is watched, and what the command says."""

    def __init__(self, root: Path, *, waits: bool = True) -> None:
        self.root = root
        self.said = root.with_name(f"{root.name} said.txt")
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "generator", "watch", "--port", "0"],
                cwd=root,
                env={"PYTHONPATH": str(ROOT), "PATH": ""},
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        self.url = ""
        if waits:
            try:
                self.url = self.wait(r"serving on (\S+)")
            except AssertionError:
                self.process.kill()
                self.process.wait()
                raise

    def wait(self, pattern: str, count: int = 1) -> str:
        """Wait until the command has said something so many times, and return the last of it."""
        limit = time.monotonic() + SECONDS
        while time.monotonic() < limit:
            found = re.findall(pattern, self.said.read_text())
            if len(found) >= count:
                return str(found[-1])
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in: {self.said.read_text()}")

    def write(self, text: str) -> None:
        (self.root / "workflows" / "it.yaml").write_text(text)

    def default(self) -> int:
        """Return the default of the endpoint's param, as the API says it."""
        [endpoint] = httpx.get(f"{self.url}/workflows", timeout=SECONDS).json()
        found = endpoint["params"]["properties"]["color"]["default"]
        assert isinstance(found, int)
        return found


@pytest.fixture
def watched(make_project: MakeProject) -> Iterator[Watched]:
    found = Watched(make_project({"it": GOOD}))
    yield found
    found.process.kill()
    found.process.wait()


def test_what_is_saved_is_served(watched: Watched) -> None:
    assert watched.default() == 0
    watched.write(GOOD.replace("default: 0", "default: 7"))
    watched.wait(r"serves it after", 2)
    assert watched.default() == 7
    reply = httpx.post(f"{watched.url}/it", json={}, timeout=SECONDS)
    assert reply.headers["content-type"] == "image/png"
    # A name of its own that takes the file's place, as many editors save.
    new = watched.root / "workflows" / ".it.yaml.swp"
    new.write_text(GOOD.replace("default: 0", "default: 8"))
    new.replace(watched.root / "workflows" / "it.yaml")
    watched.wait(r"serves it after", 3)
    assert watched.default() == 8


def test_an_error_is_reported_and_the_last_build_goes_on(watched: Watched) -> None:
    watched.write(GOOD.replace("default: 0", "default: x"))
    watched.wait(r"it.yaml:1:\d+: error\[")
    watched.wait(r"goes on with what it had")
    assert watched.default() == 0
    watched.write(GOOD.replace("default: 0", "default: 3"))
    watched.wait(r"serves it after", 2)
    assert watched.default() == 3


def test_no_request_is_lost_while_the_api_changes(watched: Watched) -> None:
    for number in range(1, 4):
        watched.write(GOOD.replace("default: 0", f"default: {number}"))
        limit = time.monotonic() + SECONDS
        while (default := watched.default()) != number:
            assert default == number - 1
            assert time.monotonic() < limit, watched.said.read_text()


def test_what_is_saved_while_it_starts_counts(make_project: MakeProject) -> None:
    root = make_project({"it": GOOD})
    early = Watched(root, waits=False)
    try:
        early.wait("build/ rendered")
        early.write(GOOD.replace("default: 0", "default: 5"))
        early.url = early.wait(r"serving on (\S+)")
        early.wait("serves it after", 2)
        assert early.default() == 5
    finally:
        early.process.kill()
        early.process.wait()


def test_folders_that_come_later_are_watched(make_project: MakeProject) -> None:
    root = make_project({})
    shutil.rmtree(root / "workflows")
    late = Watched(root, waits=False)
    try:
        late.wait("no workflow")
        (root / "workflows").mkdir()
        late.write(GOOD)
        late.url = late.wait(r"serving on (\S+)")
        late.wait("serves it after")
        # As when a branch is checked out that has none, and then one that has.
        (root / "workflows").rename(root / "put-by")
        late.wait("goes on with what it had")
        shutil.copytree(root / "put-by", root / "workflows")
        late.write(GOOD.replace("default: 0", "default: 4"))
        late.wait("serves it after", 2)
        assert late.default() == 4
        (root / "catalogs").mkdir()
        before = late.said.read_text().count("build/ is up to date")
        (root / "catalogs" / "broken.json").write_text("{")
        late.wait("build/ is up to date", before + 1)
    finally:
        late.process.kill()
        late.process.wait()


def test_a_folder_with_a_misplaced_file_is_watched(watched: Watched) -> None:
    folder = watched.root / "workflows" / "more"
    folder.mkdir()
    (folder / "it.yml").write_text(GOOD)
    watched.wait(r"more/it.yml:1:1: error\[bad-name\]")
    (folder / "it.yml").unlink()
    watched.wait("build/ is up to date")


async def first_change(root: Path) -> None:
    async for _ in watch_module._changes(root, asyncio.Event()):
        break


def test_a_folder_that_goes_while_it_looks(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_project({"it": GOOD})
    gone = goes_when_it_is_read(root / "workflows" / "gone", monkeypatch)
    asyncio.run(first_change(root))
    assert not gone.exists()


def test_a_folder_that_goes_before_it_is_watched(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_project({"it": GOOD})
    gone = root / "workflows" / "gone"
    gone.mkdir()
    watched: list[tuple[Path, ...]] = []

    async def going(*folders: Path, **options: Any) -> AsyncIterator[object]:
        watched.append(folders)
        if gone.exists():
            gone.rmdir()
        async for changes in awatch(*folders, **options):
            yield changes

    monkeypatch.setattr(watch_module, "awatch", going)

    async def two_turns() -> None:
        turns = 0
        async for _ in watch_module._changes(root, asyncio.Event()):
            turns += 1
            if turns == 2:
                break

    asyncio.run(two_turns())
    assert watched == [(root, root / "workflows", gone), (root, root / "workflows")]


def test_it_ends_when_its_project_goes(watched: Watched) -> None:
    shutil.rmtree(watched.root)
    assert watched.process.wait(SECONDS) == 2
    said = watched.said.read_text()
    assert "Traceback" not in said
    assert said.endswith(f"error: {watched.root} is gone\n"), said


def test_what_is_new_waits_for_the_runs_under_way(tmp_path: Path) -> None:
    root = tmp_path / "it"
    assert main(["init", str(root), "--quiet"]) == 0
    path = root / "workflows" / "picture.yaml"
    text = path.read_text().replace("maximum: 60", "maximum: 500")
    path.write_text(text)
    watched = Watched(root)
    try:
        body = {"prompt": "x", "steps": 150, "width": 64, "height": 64}
        with ThreadPoolExecutor() as threads:
            run = threads.submit(httpx.post, f"{watched.url}/picture", json=body, timeout=SECONDS)
            watched.wait('"event": "started"')
            path.write_text(text.replace("summary: A picture", "summary: Another picture"))
            watched.wait("1 run under way; what is new waits, 10 s at most")
            watched.wait("serves it after", 2)
            reply = run.result()
        assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
    finally:
        watched.process.kill()
        watched.process.wait()


UNDER_WAY = {
    "rows": [
        {"requests": 3, "rejected": 1, "repeated": 0, "succeeded": 0, "failed": 0, "cancelled": 0}
    ]
}


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[str]:
    """Answer every GET with that."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()
        thread.join()


def wait_for_runs(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_RUNS_SECONDS", 0.3)
    with listen(0) as listener:
        served = watch_module._Served(folder, folder, listener, "http://x", asyncio.Event())
        served.url = url
        asyncio.run(served._runs_end())


def test_it_waits_for_no_run_without_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    with answering(json.dumps(UNDER_WAY).encode()) as url:
        wait_for_runs(url, tmp_path, monkeypatch)
    assert 0.3 <= time.monotonic() - started < 5
    assert "2 runs under way" in capsys.readouterr().err


def test_it_waits_behind_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that knows nothing of this machine's ports, or is away, is not asked for them."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{HOST}:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with answering(json.dumps(UNDER_WAY).encode()) as url:
        wait_for_runs(url, tmp_path, monkeypatch)
    assert capsys.readouterr().err == "2 runs under way; what is new waits, 0 s at most\n"


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{}", 500), (b"<html>", 200), (b"[]", 200), (b'{"rows": [{"requests": 1}]}', 200)],
)
def test_it_says_when_it_cannot_ask_for_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    body: bytes,
    status: int,
) -> None:
    with answering(body, status) as url:
        wait_for_runs(url, tmp_path, monkeypatch)
        said = capsys.readouterr().err
        start = (
            f"warning: {url}/usage does not say which runs are under way, and none is waited for: "
        )
        assert said.startswith(start)
        assert said.count("\n") == 1
    wait_for_runs(url, tmp_path, monkeypatch)
    assert capsys.readouterr().err.startswith(start)


def test_one_process_waits_for_the_next_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However soon that comes."""
    started = 0

    class Process:
        returncode = None

    async def start(*_: str, **__: object) -> Process:
        nonlocal started
        started += 1
        await asyncio.sleep(0.01)
        return Process()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)

    async def prepare(served: watch_module._Served) -> None:
        first = served._prepare()
        assert await served._prepare() is await first

    with listen(0) as listener:
        asyncio.run(
            prepare(watch_module._Served(tmp_path, tmp_path, listener, None, asyncio.Event()))
        )
    assert started == 1


def test_a_process_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error of that change, not of the next ones, and not of the end."""
    start = asyncio.create_subprocess_exec
    served_by = "import sys; sys.stdin.readline(); print('serving', flush=True); sys.stdin.read()"
    fails = False

    async def sometimes(*_: str, **options: Any) -> asyncio.subprocess.Process:
        if fails:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return await start(sys.executable, "-c", served_by, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", sometimes)

    async def changes(served: watch_module._Served) -> None:
        nonlocal fails
        fails = True
        with pytest.raises(ServeError, match=r"the API does not start: .*temporarily unavailable"):
            await served._start_api()
        served._prepare()
        await asyncio.sleep(0)
        fails = False
        api = served._api = await served._start_api()
        fails = True
        served._prepare()
        await served.stop()
        assert api.returncode is not None

    with listen(0) as listener:
        asyncio.run(
            changes(watch_module._Served(tmp_path, tmp_path, listener, "http://x", asyncio.Event()))
        )


def test_it_ends_with_all_that_it_started(watched: Watched) -> None:
    watched.process.send_signal(signal.SIGTERM)
    assert watched.process.wait(SECONDS) == 0
    with pytest.raises(httpx.ConnectError):
        watched.default()
    mark = f"--catalogs\0{watched.root}/catalogs"
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if mark in p.read_text("latin-1")]
    assert not left


def test_a_port_that_is_taken(watched: Watched) -> None:
    port = watched.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "generator", "watch", "--port", port],
        cwd=watched.root,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"port {port} is taken" in done.stderr
