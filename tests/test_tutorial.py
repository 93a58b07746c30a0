"""docs/tutorial.md: its commands, run one after the other, print and make what it says."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from generator.ports import HOST, free_port

from .api_client import size
from .conftest import ROOT
from .test_docs import blocks

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
SECONDS = 60
# Of the commands, this one alone stays in the foreground.
SERVE = "make serve\n"


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what the commands read, so that what they write is no change of this repository."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name in ("workflows", "docs"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("gpu.yaml", "models.yaml"):
        shutil.copy(ROOT / name, folder)
    if (ROOT / "generator.lock").exists():
        shutil.copy(ROOT / "generator.lock", folder)
    return folder


def here(command: str, port: int) -> str:
    """Return a command as it runs in the copy: make's targets are commands of the generator."""
    command = command.replace("make setup\n", "").replace(".venv/bin/python", sys.executable)
    validate = f"{sys.executable} -m generator validate --quiet\n"
    return command.replace("make validate\n", validate).replace(":8000/", f":{port}/")


def run(command: str, folder: Path) -> str:
    done = subprocess.run(
        ["/bin/sh", "-ec", command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout)
    return done.stdout


@pytest.fixture(name="served")
def _served(folder: Path) -> Iterator[int]:
    """Serve the copy as `make serve` would, once it is built; yield the port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "generator", "serve", "--port", str(port)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if f"http://{HOST}:{port}" in line:
                break
        else:
            pytest.fail("".join(lines))
        yield port
    finally:
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=SECONDS)


def steps() -> list[tuple[str, str]]:
    """Return the commands in order, each with what the page shows under it."""
    found = re.findall(r"^```sh\n(.*?)^```\n(?:\n```\n(.*?)^```$)?", PAGE, re.MULTILINE | re.DOTALL)
    return [(command, shown) for command, shown in found]


def test_the_page_has_the_steps_that_are_run() -> None:
    assert [command for command, _ in steps()] == blocks(PAGE, "sh")
    assert SERVE in blocks(PAGE, "sh")


@pytest.mark.skipif(shutil.which("curl") is None, reason="the tutorial asks with curl")
def test_the_tutorial(folder: Path, request: pytest.FixtureRequest) -> None:
    start = time.monotonic()
    port = 0
    for command, shown in steps():
        if command == SERVE:
            port = request.getfixturevalue("served")
            continue
        said = run(here(command, port), folder)
        assert [line for line in shown.splitlines() if line not in said.splitlines()] == []
        text = (folder / "workflows" / "poster.yaml").read_text(encoding="utf-8")
        if "--name poster\n" in command:
            for shown_yaml in blocks(PAGE, "yaml"):
                assert shown_yaml in text
        if "--update" in command:
            assert "   # shown in the API's documentation" in text
            assert "maximum: 1024" in text
            assert '"a poster of ${prompt}, flat colours"' in text
    assert size((folder / "poster.png").read_bytes()) == (512, 768)
    before = (folder / "workflows" / "poster.yaml").read_bytes()
    back = "import poster-api.json --name poster --update"
    assert back in PAGE
    assert "up to date" in run(f"{sys.executable} -m generator {back}", folder)
    assert (folder / "workflows" / "poster.yaml").read_bytes() == before
    assert time.monotonic() - start < 600, "it is to take ten minutes at most"
