"""A real ComfyUI for the tests of this folder, which are collected only when they are named."""

import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from generator.ports import free_port
from templates.utils.comfyui_files import Directories
from tests.engine import install

HERE = Path(__file__).parent
START_SECONDS = 180


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave this folder out unless the command line names it or something in it."""
    start = config.invocation_params.dir
    named = any((start / arg.split("::")[0]).resolve().is_relative_to(HERE) for arg in config.args)
    return None if named else True


@dataclass(frozen=True)
class Installed:
    """A ComfyUI that can be started, with a base folder of its own."""

    root: Path
    base: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def directories(self) -> Directories:
        return Directories.below(self.base)

    @property
    def command(self) -> list[str]:
        return [
            str(install.python(self.root)),
            str(install.main_py(self.root)),
            *("--cpu", "--listen", "127.0.0.1", "--port", str(self.port)),
            *("--disable-auto-launch", "--disable-api-nodes", "--base-directory", str(self.base)),
            *("--disable-all-custom-nodes", "--whitelist-custom-nodes", "probe_nodes"),
        ]

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root / "site"), "HF_HUB_OFFLINE": "1"}


def prepare(base: Path) -> Installed:
    pack = base / "custom_nodes" / "probe_nodes"
    pack.mkdir(parents=True)
    for folder in ("input", "output", "temp", "models", "user"):
        (base / folder).mkdir()
    shutil.copy(HERE / "probe_nodes.py", pack / "__init__.py")
    return Installed(install.folder(), base, free_port())


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    """A ComfyUI that the test itself starts."""
    return prepare(tmp_path / "base")


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """A running ComfyUI, shared by the tests."""
    engine = prepare(tmp_path_factory.mktemp("engine") / "base")
    log = engine.base.parent / "engine.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            engine.command,
            env=engine.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_until_up(engine, process, log)
            yield engine
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_up(engine: Installed, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{engine.url}/system_stats", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    tail = log.read_text(errors="replace")[-3000:]
    pytest.fail(f"ComfyUI does not start (status {process.poll()}):\n{tail}")


def open_sockets() -> int:
    """Return how many sockets this process has."""
    return sum(
        str(path.readlink()).startswith("socket:")
        for path in Path("/proc/self/fd").iterdir()
        if path.is_symlink()
    )


@pytest.fixture(autouse=True)
def _no_sockets_left() -> Iterator[None]:
    before = open_sockets()
    yield
    assert open_sockets() == before
