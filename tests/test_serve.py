"""`serve` as a user starts it: a process that says where it is, and leaves nothing behind."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from generator.cli import main
from generator.ports import free_port

from .api_client import FLUX, JSON, MODELS, SECONDS, import_rendered, new_app, part, problem, size
from .conftest import ROOT, MakeProject

# What runs is found by a mark in its environment, which /proc shows.
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

Factory = pytest.TempPathFactory

SERVE = [sys.executable, "-m", "generator", "serve"]
# As SERVE, with other times: that an engine must have lived to be started again without end, and
# after which it has hung.
PATCHED = """\
import functools, sys, generator.serve, templates.utils.comfyui_process as process
from generator.cli import main
generator.serve._SHORTEST_LIFE = float(sys.argv[1])
generator.serve.EngineProcess = functools.partial(process.EngineProcess, hung_after=1)
process._WATCH_SECONDS = 0.5
sys.exit(main(["serve", *sys.argv[2:]]))
"""


class Served:
    """A process of a user's, with all that it starts."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        mark = uuid.uuid4().hex
        self._mark = f"SERVED={mark}"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, "TMPDIR": str(self.temporary), "SERVED": mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        # So that a test that waits for a line ends, even if it does not come.
        self._limit = threading.Timer(4 * SECONDS, self.kill)
        self._limit.start()

    @property
    def text(self) -> str:
        """What it has said, as far as it was read."""
        return "".join(self._lines)

    def read(self, pattern: str) -> "re.Match[str]":
        """Return the next line that fits, once it is there."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no {pattern} in {self.text}")

    def url(self) -> str:
        return self.read(r"^serving on (http://127\.0\.0\.1:\d+) ")[1]

    def end(self, number: signal.Signals | None = None) -> int:
        """Wait for the end, and return the exit code; a signal is sent before."""
        if number is not None:
            self.process.send_signal(number)
        assert self.process.stdout is not None
        self._lines += self.process.stdout
        return self.process.wait(SECONDS)

    def running(self) -> dict[int, str]:
        """Return what runs of it: process ids and command lines."""
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and self._mark in (entry / "environ").read_text("latin-1"):
                    command = (entry / "cmdline").read_text("latin-1").replace("\0", " ")
                    if command:
                        found[int(entry.name)] = command
        return found

    def engine(self) -> int:
        """Return the process id of its preview engine."""
        [number] = [n for n, command in self.running().items() if "generator.preview" in command]
        return number

    def check_gone(self, url: str | None = None, *, suddenly: bool = False) -> None:
        """Check that nothing is left: no process, no server and, unless killed, no folder."""
        limit = time.monotonic() + SECONDS
        while (left := self.running()) and time.monotonic() < limit:
            time.sleep(0.01)
        assert not left
        assert suddenly or [*self.temporary.iterdir()] == []
        assert "Traceback" not in self.text
        if url is not None:
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", int(url.rpartition(":")[2])))
                listener.listen()

    def kill(self) -> None:
        """End it and all of its own."""
        self._limit.cancel()
        for number in self.running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture(scope="module")
def started(tmp_path_factory: Factory) -> Iterator[dict[str, Served]]:
    """One process for each test that needs one, all started at once: that takes them seconds."""
    port, busy = free_port(), socket.create_server(("127.0.0.1", 0))
    busy_port = busy.getsockname()[1]
    patched = [sys.executable, "-c", PATCHED]
    commands = {
        "SIGINT": [*SERVE, "--port", "0"],
        "SIGKILL": [*SERVE, "--port", "0", "--quiet"],
        "make": ["make", "-o", ".venv/.set-up", "serve", f"PORT={port}"],
        "restarted after SIGKILL": [*patched, "0", "--port", "0"],
        "restarted after SIGSTOP": [*patched, "0", "--port", "0"],
        "stopped": [*SERVE, "--port", "0", "--quiet"],
        "ended": [*patched, "60", "--port", "0"],
        "busy": [*SERVE, "--port", str(busy_port), "--quiet"],
        # It looks for a ComfyUI for ten seconds.
        "nowhere": [*SERVE, "--port", "0", "--comfyui-url", f"http://127.0.0.1:{free_port()}"],
    }
    found: dict[str, Served] = {}
    with busy:
        try:
            for name, command in commands.items():
                found[name] = Served(command, tmp_path_factory.mktemp(name))
            yield found
        finally:
            for served in found.values():
                served.kill()


# Starting and stopping


def test_what_it_prints_works_and_ctrl_c_ends_it(
    started: dict[str, Served], tmp_path: Path
) -> None:
    served = started["SIGINT"]
    url = served.url()
    assert "(engine: preview)" in served.text
    assert f"docs at {url}/docs" in served.text
    assert "<title>Playground</title>" in httpx.get(url).text
    assert httpx.get(f"{url}/docs").status_code == 200
    command = served.read(r"^try: (curl .*)$")[1]
    if shutil.which("curl"):
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("HTTP/1.1 200 OK")
        assert "x-engine: preview" in done.stdout
        picture = (tmp_path / "flux.png").read_bytes()
    else:
        picture = sent(command).content
    assert size(picture) == (1024, 1024)
    assert len(served.running()) == 3
    assert served.end(signal.SIGINT) == 0
    served.check_gone(url)


def sent(command: str) -> httpx.Response:
    """Send what a curl command would send."""
    _, _, _, url, _, header, _, data, *_ = shlex.split(command)
    name, _, value = header.partition(": ")
    reply = httpx.post(url, content=data.encode(), headers={name: value}, timeout=SECONDS)
    assert reply.status_code == 200
    return reply


def test_nothing_runs_on_after_a_sudden_end(started: dict[str, Served]) -> None:
    """Nobody can tidy up after SIGKILL, but the system ends what was started."""
    served = started["SIGKILL"]
    url = served.url()
    assert len(served.running()) == 3
    assert served.end(signal.SIGKILL) == -signal.SIGKILL
    served.check_gone(url, suddenly=True)


def test_make_serve(started: dict[str, Served]) -> None:
    """As the README has it; Ctrl-C reaches make too."""
    if not (shutil.which("make") and (ROOT / ".venv" / "bin" / "python").exists()):
        pytest.skip("needs make and .venv")
    served = started["make"]
    url = served.url()
    assert f"PORT={url.rpartition(':')[2]}" in " ".join(served.running().values())
    assert sent(served.read(r"^try: (curl .*)$")[1]).headers["content-type"] == "image/png"
    os.killpg(served.process.pid, signal.SIGINT)
    served.end()
    assert "rror" not in served.text
    served.check_gone(url)


@contextlib.contextmanager
def own_engine(folder: Path, *options: str) -> Iterator[tuple[Served, str]]:
    """Run a preview engine, and the API for it; yield what serves, and the engine's URL."""
    command = [sys.executable, "-m", "generator.preview", "--port", "0", *options]
    with subprocess.Popen(
        [*command, "--base-directory", str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as engine:
        try:
            assert engine.stdout is not None
            engine_url = engine.stdout.readline().split()[-1]
            command = [sys.executable, "-m", "build.api", "--port", "0"]
            served = Served([*command, "--comfyui-url", engine_url], folder)
            try:
                yield served, engine_url
            finally:
                served.kill()
        finally:
            engine.terminate()


def test_an_engine_of_ones_own(tmp_path: Path) -> None:
    """It is used as it is, told to stop what is in flight, and left running."""
    models = [f"--model={model}" for model in MODELS]
    with own_engine(tmp_path, "--pace", "10", *models) as (served, engine_url):
        url = served.url()
        body, prefer = {**FLUX, "steps": 100}, {"Prefer": "respond-async"}
        assert httpx.post(f"{url}/flux", json=body, headers=prefer).status_code == 202
        while not httpx.get(f"{engine_url}/queue").json()["queue_running"]:
            time.sleep(0.01)
        assert served.end(signal.SIGTERM) == 0
        served.check_gone(url)
        left = httpx.get(f"{engine_url}/queue").json()
        assert left == {"queue_running": [], "queue_pending": []}


def test_what_an_engine_of_ones_own_lacks_is_said(tmp_path: Path) -> None:
    """It is said at the start, by route; the request that is shown is one that works."""
    models = [f"--model={model}" for model in MODELS if "schnell" not in model]
    with own_engine(tmp_path, "--no-packs", *models) as (served, _):
        served.url()
        assert served.read(r"^try: curl -X POST \S+/flux-dev ")
        lacking = re.findall(r'"(\S+) cannot run .* has no (.*)"', served.text)
        assert dict(lacking) == {
            "/flux": "model file checkpoints/flux1-schnell-fp8.safetensors",
            "/flux-instantid": "node class ApplyInstantIDAdvanced, InstantIDFaceAnalysis, "
            "InstantIDModelLoader",
            "/seedvr2": "node class SeedVR2LoadDiTModel, SeedVR2LoadVAEModel, SeedVR2VideoUpscaler",
        }
        served.end(signal.SIGTERM)


# Engines that end


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_engine_that_ended_or_hung_is_started_again(
    started: dict[str, Served], number: signal.Signals
) -> None:
    """Nothing is lost: what it was asked for is sent again."""
    served = started[f"restarted after {number.name}"]
    url = served.url()
    first = served.engine()
    assert httpx.post(f"{url}/flux", json=FLUX, timeout=SECONDS).status_code == 200
    with ThreadPoolExecutor() as pool:
        body = {**FLUX, "steps": 50}
        replies = [
            pool.submit(
                httpx.post,
                f"{url}/flux",
                json={**body, "seed": seed},
                headers=JSON,
                timeout=SECONDS,
            )
            for seed in range(3)
        ]
        time.sleep(0.5)
        os.kill(first, number)
        served.read(r"preview engine ended \(status -9\); starting it again")
        assert [reply.result().status_code for reply in replies] == [200] * 3
    # They have waited for the start.
    took = [reply.result().json()["timings"]["startup"]["seconds"] for reply in replies]
    assert min(took) > 0
    assert served.engine() != first
    assert httpx.get(f"{url}/ready").status_code == 200
    assert served.end(signal.SIGTERM) == 0
    assert '"event": "engine-back"' in served.text
    served.check_gone(url)


def test_an_engine_that_ends_too_soon(started: dict[str, Served]) -> None:
    """Four times in a row: a run that takes it down does so twice, and is no reason to end."""
    served = started["ended"]
    url = served.url()
    killed: set[int] = set()
    while served.process.poll() is None:
        with contextlib.suppress(ValueError, ProcessLookupError):
            # Between two there is none; and one that does not answer yet has not been started.
            if served.engine() not in killed and httpx.get(f"{url}/ready").status_code == 200:
                killed.add(served.engine())
                os.kill(served.engine(), signal.SIGKILL)
        time.sleep(0.05)
    assert served.end() == 2
    assert len(killed) == 4
    assert "error: the preview engine does not stay up (status -9)" in served.text
    served.check_gone(url)


def test_it_is_stopped_with_jobs_in_flight(started: dict[str, Served]) -> None:
    """Whoever waits is told; nothing is left."""
    served = started["stopped"]
    url = served.url()
    with ThreadPoolExecutor() as pool:
        body = {**FLUX, "steps": 100}
        replies = [
            pool.submit(httpx.post, f"{url}/flux", json={**body, "seed": seed}, timeout=SECONDS)
            for seed in range(3)
        ]
        prefer = {"Prefer": "respond-async"}
        job = httpx.post(f"{url}/flux", json=body, headers=prefer, timeout=SECONDS).json()["job"]
        listening = pool.submit(httpx.get, f"{url}/jobs/{job}/events", timeout=SECONDS)
        time.sleep(0.5)
        assert served.end(signal.SIGTERM) == 0
        for reply in replies:
            problem(reply.result(), 503, "engine-unreachable")
        *_, name, data = listening.result().text.strip().splitlines()
        assert name == "event: end"
        assert json.loads(data.removeprefix("data: "))["problem"]["code"] == "engine-unreachable"
    served.check_gone(url)


# What cannot be served


def test_a_port_that_is_taken(started: dict[str, Served]) -> None:
    served = started["busy"]
    assert served.end() == 2
    assert re.fullmatch(
        r"error: port \d+ is taken; give another one, as in make serve PORT=8001\n", served.text
    )
    served.check_gone()


def test_no_comfyui_at_the_url(started: dict[str, Served]) -> None:
    served = started["nowhere"]
    assert served.end() == 2
    assert "serving" not in served.text
    error = served.text.splitlines()[-1]
    assert error.startswith("error: http://127.0.0.1:")
    assert "does not answer" in error
    served.check_gone()


@pytest.mark.parametrize("kind", ["silent", "text", "no URL", "no scheme", "other scheme"])
def test_what_is_no_comfyui(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that says nothing, or something else, and what is no address at all."""
    local = part("build", "gateway.local")
    monkeypatch.setattr(local, "Engine", partial(local.Engine, connect_timeout=0.3))
    run = part("build", "gateway.serve").main
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        urls = {"no URL": "x y", "no scheme": address, "other scheme": f"ftp://{address}"}
        if kind == "text":
            threading.Thread(target=greet, args=(server,), daemon=True).start()
        url = urls.get(kind, f"http://{address}")
        arguments = ["--port=0", "--comfyui-url", url]
        assert run(part("build", "api").create_api, {}, [], arguments) == 2
        server.shutdown(socket.SHUT_RDWR)
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert ("is no URL" if kind == "other scheme" else "does not answer") in shown.err
    assert shown.out == ""


def greet(server: socket.socket) -> None:
    """Answer whoever connects, and not as an HTTP server would."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"220 welcome\r\n")


@pytest.mark.parametrize("port", ["x", "-1", "65536", "", "8000.5", "9" * 30])
def test_what_is_no_port(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", f"--port={port}"]) == 2
    assert "Invalid value for '--port'" in capsys.readouterr().err


def test_faults_in_the_specs(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are shown, and nothing is started."""
    text = (ROOT / "workflows" / "seedvr2.yaml").read_text(encoding="utf-8")
    project = make_project({"bad": text.replace("${image}", "${imag}")})
    monkeypatch.setattr("generator.serve.serve", lambda *_, **__: pytest.fail("was started"))
    assert main(["serve", "--port", "0", "--project", str(project)]) == 1
    shown = capsys.readouterr()
    assert 'did you mean "image"?' in shown.out
    assert re.search(r"nothing rendered: \d errors?$", shown.err, re.MULTILINE)
    assert not (project / "build").exists()


# What it prints


QUOTED = """\
summary: A picture
params:
  prompt: {type: string, examples: ["it's $(id) `id` \\"x\\" \\\\ ü\\n!"]}
  width: {type: integer, default: 64}
graph:
  1: {class_type: EmptyImage, inputs: {width: "${width}", height: 8, batch_size: 1, color: 0}}
  2: {class_type: PrimitiveString, inputs: {value: "${prompt}"}}
  3: {class_type: PreviewAny, inputs: {source: [2, 0]}}
  4: {class_type: SaveImage, inputs: {images: [1, 0], filename_prefix: x}}
"""


def greeting(project: Path, package: Path) -> str:
    """Return what is printed for a project."""
    import_rendered(project, package)
    app = new_app(package.name, None)
    text: str = part(package.name, "gateway.serve").greeting(app, "http://127.0.0.1:1", "preview")
    return text


def test_the_command_survives_a_shell(make_project: MakeProject, tmp_path: Path) -> None:
    """Whatever an example holds, it arrives as it was, and nothing of it is run."""
    text = greeting(make_project({"quoted": QUOTED}), tmp_path / "quoted_package")
    [command] = re.findall(r"^try: curl (.*)$", text, re.MULTILINE)
    command = f"printf '%s\\0' {command}"
    shown = subprocess.run(command, shell=True, capture_output=True, check=True, timeout=SECONDS)
    words = shown.stdout.decode().split("\0")
    body = json.loads(words[words.index("-d") + 1])
    assert body == {"prompt": 'it\'s $(id) `id` "x" \\ ü\n!'}


def test_no_command_is_printed_that_may_not_work(make_project: MakeProject, tmp_path: Path) -> None:
    """Without an example, nobody knows what is taken."""
    plain = re.sub(r"examples: \[.*\]", "minLength: 1", QUOTED)
    text = greeting(make_project({"plain": plain}), tmp_path / "plain_package")
    assert "serving on" in text
    assert "curl" not in text
