"""Make the pictures of README and docs: `python -m docs.pictures`.

docs/diagrams/*.dot are drawn by Graphviz, graphs by `generator graph`, and the placeholders are
what the preview engine answers. What a browser shows is saved by its tests.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
import pygraphviz

from generator.cli import main as generator

HERE: Final = Path(__file__).parent
IMAGES: Final = HERE / "images"
DIAGRAMS: Final = HERE / "diagrams"
GRAPHS: Final = {"flux-graph.svg": "flux"}
REQUESTS: Final = {"fox.png": ("/flux", {"prompt": "a red fox", "seed": 2398982695762587})}


def main() -> int:
    """Write the pictures."""
    draw(IMAGES)
    _ask()
    return 0


def draw(folder: Path) -> None:
    """Write what is drawn from files of this project: diagrams, and graphs of workflows."""
    for path in sorted(DIAGRAMS.glob("*.dot")):
        graph = pygraphviz.AGraph(filename=str(path))
        graph.draw(str(folder / f"{path.stem}.svg"), format="svg", prog="dot")
    for name, workflow in GRAPHS.items():
        command = ["graph", workflow, "-o", str(folder / name), "--quiet"]
        if generator([*command, "--project", str(HERE.parent)]):
            raise RuntimeError(f"{workflow} is not drawn")


def _ask() -> None:
    """Serve on a preview engine, and save what it answers."""
    command = [sys.executable, "-m", "generator", "serve", "--quiet", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        try:
            found = re.search(r"http://\S+", service.stdout.readline())
            assert found is not None, "the service does not start"
            for name, (route, body) in REQUESTS.items():
                reply = httpx.post(found[0] + route, json=body, timeout=60).raise_for_status()
                (IMAGES / name).write_bytes(reply.content)
        finally:
            os.kill(service.pid, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
