"""How tests ask a deployed app."""

import io
import itertools
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from .local import LocalModal
from .project import Project

SECONDS = 60
WORKER = "L40sWorker.*"
ASYNC = {"Prefer": "respond-async"}

Body = dict[str, Any]

_colors = itertools.count(1)


def new_color() -> int:
    """Return a colour that no other run has, for ComfyUI does not run the same graph twice."""
    return next(_colors)


def pixel(data: bytes) -> int:
    """Return the colour of a picture of one colour."""
    with Image.open(io.BytesIO(data)) as image:
        red, green, blue = image.convert("RGB").getpixel((0, 0))  # type: ignore[misc]
    return int(red) << 16 | int(green) << 8 | int(blue)


def wait_until(found: Callable[[], object], seconds: float, failure: str) -> None:
    """Wait until something is so."""
    limit = time.monotonic() + seconds
    while not found():
        if time.monotonic() >= limit:
            pytest.fail(failure)
        time.sleep(0.02)


@dataclass(frozen=True)
class Deployed:
    """A deployed project that a test asks."""

    modal: LocalModal
    project: Project
    key: str = "secret-of-ann"

    @property
    def url(self) -> str:
        return self.modal.url(self.project.app)

    @property
    def port(self) -> int:
        """The port of ComfyUI, which is this machine's here."""
        found = re.search(r"port: (\d+)", (self.project.folder / "gpu.yaml").read_text("utf-8"))
        assert found
        return int(found[1])

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
        named = {"x-api-key": self.key} | {k.replace("_", "-"): v for k, v in headers.items()}
        return httpx.request(method, self.url + path, json=body, headers=named, timeout=SECONDS)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        return self.ask("POST", path, body, **headers)

    def start(self, path: str, body: object) -> str:
        """Start a job, and return its id."""
        reply = self.post(path, body, prefer="respond-async")
        assert reply.status_code == 202, reply.text
        job: str = reply.json()["job"]
        return job

    def until(self, job: str, wanted: Callable[[Body], object]) -> Body:
        """Return a job once it is as wanted."""
        limit = time.monotonic() + SECONDS
        while time.monotonic() < limit:
            found: Body = self.get(f"/jobs/{job}").json()
            if wanted(found):
                return found
            time.sleep(0.05)
        pytest.fail(f"the job stays as it is: {found}")

    def check_picture(self) -> httpx.Response:
        """See that a request comes back as the picture that it asks for, and return the reply."""
        color = new_color()
        reply = self.post("/picture", {"color": color})
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-type"] == "image/png"
        assert reply.headers["x-engine"] == self.project.engine
        if self.project.is_real:
            assert pixel(reply.content) == color
        return reply

    def workers(self) -> list[Any]:
        """Return the worker containers that are up and take calls."""
        return [task for task in self.tasks() if task.is_up and not task.retiring]

    def tasks(self) -> list[Any]:
        """Return all worker containers that there have been."""
        return self.modal.tasks(self.project.app, WORKER)

    def log(self, tag: str) -> str:
        """Return what the containers of a function have printed."""
        return self.modal.log(self.project.app, tag)

    def worker_state(self) -> Body:
        """Return what /health says of the workers."""
        [state] = self.get("/health").json()["workers"]
        found: Body = state
        return found

    def queued(self) -> int:
        """Return how many runs ComfyUI has, executed or waiting."""
        queue = httpx.get(f"http://127.0.0.1:{self.port}/queue", timeout=SECONDS).json()
        return len(queue["queue_running"]) + len(queue["queue_pending"])

    def engine_pids(self) -> list[int]:
        """Return the processes of ComfyUI."""
        wanted = f"--port\0{self.port}\0".encode()
        found: list[int] = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if wanted in path.read_bytes():
                    found.append(int(path.parent.name))
            except OSError:
                continue  # it has just ended
        return found

    def kill_engine(self) -> None:
        """Kill ComfyUI as the kernel does when memory runs out."""
        [pid] = self.engine_pids()
        os.kill(pid, signal.SIGKILL)
