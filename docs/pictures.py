"""Make the pictures of README and docs: `python -m docs.pictures`."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx

from .drawings import draw

IMAGES: Final = Path(__file__).parent / "images"
REQUESTS: Final = {"fox.png": ("/flux", {"prompt": "a red fox", "seed": 2398982695762587})}


def main() -> None:
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
    draw(IMAGES)
    main()
