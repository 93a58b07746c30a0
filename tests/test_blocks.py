"""Every command that README and docs show is run: here, in the tutorial's test or in tests/modal.

They run as they are written, in a copy of the project whose `make setup` has been done; only ports,
ids of jobs and folders below /tmp are others.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from PIL import Image

from generator.ports import HOST, free_port
from templates.client_core import URL_VARIABLE

from .blocks import PAGES, Command, Way, all_commands, commands
from .conftest import ROOT

SECONDS: Final = 120
GRAPH: Final = """\
{"1": {"class_type": "LoadImage", "inputs": {"image": "face.png"}},
 "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}}
"""


def test_it_is_said_of_every_command_how_it_is_run() -> None:
    assert [command for command in all_commands() if command.way is None] == []
    assert {command.way for command in all_commands()} == set(Way)


def test_there_are_no_other_blocks_of_commands() -> None:
    """What is to be typed is marked `sh`, so that it is found."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fences = re.findall(r"^ *```(\S*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
        for language, block in fences:
            assert language not in ("bash", "shell", "console"), page
            if language in ("", "text"):
                assert not re.search(r"^(\$ |make |\.venv/bin/|curl )", block, re.M), (page, block)


@pytest.fixture(scope="module", name="home")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone whose `make setup` has been done, with the files that commands are given."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("workflows", "docs"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("gpu.yaml", "models.yaml", "Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    set_up(folder)
    path = folder / "workflows" / "workflow.yaml"
    path.write_text(path.read_text().replace("enabled: false", "enabled: true"))
    for name in ("small.png", "mine.png"):
        Image.new("RGB", (64, 48), "red").save(folder / name)
    (folder / "graph.json").write_text(GRAPH)
    shutil.copy(ROOT / "docs/examples/poster.json", folder / "my-workflow.json")
    shutil.copytree(ROOT / "docs/examples", folder / "downloads")
    return folder


def set_up(folder: Path) -> None:
    """Do what `make setup` does, with what these tests run on."""
    programs = {"python": f'"{sys.executable}"', "modal": f'"{sys.executable}" -m modal'}
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name, program in programs.items():
        path = folder / ".venv" / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        path.chmod(0o755)
    (folder / ".venv" / ".set-up").touch()


@contextlib.contextmanager
def started(command: Command, folder: Path, home: Path, port: int, path: str) -> Iterator[None]:
    """Run a command that stays in the foreground, once it answers, until it is interrupted."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {here(command, port)}"],
        cwd=folder,
        env=environment(home, port),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        limit = time.monotonic() + SECONDS
        while True:
            assert process.poll() is None, process.communicate()[0].decode()
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://{HOST}:{port}{path}").raise_for_status()
                break
            assert time.monotonic() < limit, "it does not answer"
            time.sleep(0.1)
        yield
    finally:
        # As Ctrl-C does: to all that the command has started.
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=SECONDS)


def environment(home: Path, port: int) -> dict[str, str]:
    return {**os.environ, "HOME": str(home), "PORT": str(port), "NO_COLOR": "1"}


def here(command: Command, port: int, job: str = "") -> str:
    text = re.sub(
        r":8000\b|:8188\b|(?<=--port )8188\b", lambda m: m[0][:-4] + str(port), command.text
    )
    return text.replace("job_…", job).replace("/tmp/preview", "preview-engine")


@pytest.fixture(scope="module", name="port")
def _port(folder: Path, home: Path) -> Iterator[int]:
    """The service of `make serve`, for what asks one."""
    port = free_port()
    with started(Command("README.md", "make serve"), folder, home, port, "/health"):
        yield port


@pytest.fixture(name="engine")
def _engine(home: Path, folder: Path) -> Iterator[int]:
    """An engine that has its models where ComfyUI has them, for what asks one."""
    port = free_port()
    text = f".venv/bin/python -m generator.preview --port {port} --base-directory {home}/ComfyUI"
    with started(Command("", text), folder, home, port, "/system_stats"):
        yield port


WITH_COMMANDS = [
    page.relative_to(ROOT).as_posix()
    for page in PAGES
    if any(command.way is Way.HERE for command in commands(page))
]


@pytest.mark.skipif(shutil.which("curl") is None, reason="pages ask with curl")
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page(
    page: str, folder: Path, home: Path, request: pytest.FixtureRequest
) -> None:
    """One after the other; each ends well."""
    (folder / "workflows" / "poster.yaml").unlink(missing_ok=True)
    for command in commands(ROOT / page):
        if command.way is not Way.HERE:
            continue
        port, job = 0, ""
        if ":8000" in command.text or "build.client" in command.text:
            port = request.getfixturevalue("port")
        if ":8188" in command.text:
            port = request.getfixturevalue("engine")
        if "job_…" in command.text:
            asked = httpx.post(
                f"http://{HOST}:{port}/flux",
                json={"prompt": "a red fox"},
                headers={"Prefer": "respond-async"},
            )
            job = asked.json()["job"]
        text = here(command, port, job)
        if "build.client" in text:
            text = f"{URL_VARIABLE}=http://{HOST}:{port} {text}"
        if "curl " in text:
            text = text.replace("curl ", "curl --silent --show-error --fail-with-body ", 1)
        done = subprocess.run(
            ["/bin/sh", "-ec", text],
            cwd=folder,
            env=environment(home, port),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        for name in re.findall(r"-o (\S+\.png)", text):
            with Image.open(folder / name) as picture:
                picture.load()


@pytest.mark.parametrize(
    "text",
    sorted({command.text for command in all_commands() if command.way is Way.SERVES}),
    ids=lambda text: " ".join(text.split()[:4]),
)
def test_what_stays_in_the_foreground_answers(text: str, folder: Path, home: Path) -> None:
    port = free_port()
    path = "/system_stats" if "generator.preview" in text else "/health"
    with started(Command("", text), folder, home, port, path):
        pass


def test_the_clients_examples(folder: Path, port: int) -> None:
    """Those of docs/api.md, one after the other in one program."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    first, second = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    program = (
        f"{first}\n    job = reply.job\n"
        f"{''.join(f'    {line}' for line in second.splitlines(keepends=True))}"
    ).replace(":8000", f":{port}")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("fox.png ")
    assert re.match(r"\d+ end \{", said[-1])
