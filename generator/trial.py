"""One request to each endpoint of a project, served on this machine for that."""

import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from .check import Checked
from .deployment.manifest import read_manifest
from .deployment.service import ServiceFault, examples, try_endpoint

_STOP_SECONDS: Final = 15.0
_URL: Final = re.compile(r"http://\S+")


class TrialError(RuntimeError):
    """Nothing could be tried; the text says why."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of the requests: a line for each endpoint."""

    passed: tuple[str, ...]
    failed: tuple[str, ...]
    left_out: tuple[str, ...]


def trial(
    checked: Checked, root: Path, comfyui_url: str | None = None, names: Collection[str] = ()
) -> Trial:
    """Serve `root`/build and send the example of each endpoint, or of some by name, to it.

    Raises:
        TrialError: when the service does not start.
    """
    manifest = read_manifest(root / "build" / "manifest.json")
    passed: list[str] = []
    failed: list[str] = []
    left_out: list[str] = []
    with served(root, comfyui_url) as url:
        try:
            bodies = examples(url)
        except ServiceFault as error:
            raise TrialError(str(error)) from error
        for one in checked.workflows:
            if names and one.workflow.name not in names:
                continue
            route = one.workflow.route
            if not one.workflow.enabled:
                left_out.append(f"{route}: it is off (enabled: false)")
            elif route not in bodies:
                left_out.append(
                    f"{route}: a param that it requires has no example; write examples:"
                )
            else:
                try:
                    tried = try_endpoint(url, "", route, bodies[route], manifest)
                except ServiceFault as error:
                    failed.append(f"{error}; the request was {json.dumps(bodies[route])[:300]}")
                else:
                    passed.append(f"{route}: {tried.media_type}, {tried.size:,} bytes")
    return Trial(tuple(passed), tuple(failed), tuple(left_out))


@contextmanager
def served(root: Path, comfyui_url: str | None = None) -> Iterator[str]:
    """Serve a project on a free port, and give the URL.

    Raises:
        TrialError: when the service does not start; the text says why.
    """
    command = [sys.executable, "-m", "generator", "serve", "--quiet", "--port", "0"]
    command += ["--project", str(root)]
    if comfyui_url:
        command += ["--comfyui-url", comfyui_url]
    with (
        TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as service,
    ):
        assert service.stdout is not None
        try:
            found = _URL.search(service.stdout.readline())
            if found is None:
                service.wait(_STOP_SECONDS)
                said.seek(0)
                raise TrialError(f"the service does not start: {said.read().strip()[-1000:]}")
            yield found[0]
        finally:
            service.terminate()
            try:
                service.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                service.kill()
