"""Starts ComfyUI on the CPU and asserts that it has the node classes that the specs need.

    python classes.py COMFYUI_DIRECTORY CLASS ...

Run while the image is built, so that a pack that does not import fails the build and not a request.
Exit status: 0 when all are there, 1 when some are not, or when ComfyUI does not start.
"""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

_START_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 10.0
_TAIL_LINES: Final = 60


def main(arguments: Sequence[str]) -> int:
    """Check, say what is missing and what ComfyUI said, and return the exit status."""
    directory, wanted = Path(arguments[0]), arguments[1:]
    with TemporaryFile() as log:
        found = _classes(directory, log)
        log.seek(0)
        lines = log.read().decode("utf-8", "replace").splitlines()
    if found is None:
        return _refuse("ComfyUI does not start", lines[-_TAIL_LINES:])
    missing = sorted(set(wanted) - set(found))
    if missing:
        # A pack that does not import says why some lines before.
        return _refuse(f"ComfyUI has no node class {', '.join(missing)}", lines[-_TAIL_LINES:])
    sys.stdout.write(f"ComfyUI has all {len(set(wanted))} node classes that are needed\n")
    return 0


def _classes(directory: Path, log: IO[bytes]) -> Any:
    """Return the node classes of a ComfyUI that is started for it; None when it does not start."""
    port = _free_port()
    command = [
        *(sys.executable, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)),
        *("--disable-auto-launch", "--disable-api-nodes"),
    ]
    process = subprocess.Popen(
        command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
    )
    try:
        limit = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < limit:
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/object_info", timeout=60
                ) as answer:
                    return json.load(answer)
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        return None
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _refuse(reason: str, lines: Sequence[str]) -> int:
    sys.stderr.write("ComfyUI said:\n")
    sys.stderr.writelines(f"  {line}\n" for line in lines)
    sys.stderr.write(f"error: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
