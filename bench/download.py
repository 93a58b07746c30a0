"""How long 8 files take from a server that limits each connection, 8 at a time and one by one.

    python -m bench.download

The server is one of the tests', on this machine. Prints the medians of interleaved rounds and their
ratio; exits 1 when 8 at a time take more than a quarter of the time.
"""

import os
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from templates.utils.downloads import ModelFile, Places, download
from tests.hub_server import HubServer, hub_server

ROUNDS = 3
FILES = 8
SIZE = 2_000_000
# Bytes per second of a connection: small enough that the machine has nothing to do.
RATE = 2_000_000
LIMIT = 0.25


def seconds(models: list[ModelFile], parallel: int) -> float:
    """Return the wall time of a download into an empty cache, in seconds."""
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        download(models, Places(Path(folder)), parallel=parallel)
        return time.perf_counter() - start


def served(hub: HubServer) -> list[ModelFile]:
    """Serve the files, and return their models; without a lock, the server says so."""
    repo = "some/models"
    hub.add(repo, {f"{number}.safetensors": os.urandom(SIZE) for number in range(FILES)})
    return [
        ModelFile(file, f"vae/{file}", {"hf": repo, "file": file}, revision)
        for revision, files in hub.repos[repo].revisions.items()
        for file in files
    ]


def main() -> int:
    """Measure, print, and return the exit code."""
    with hub_server() as hub:
        os.environ["HF_ENDPOINT"] = hub.url
        models = served(hub)
        hub.rate = RATE
        parallel: list[float] = []
        single: list[float] = []
        for _ in range(ROUNDS):
            parallel.append(seconds(models, FILES))
            single.append(seconds(models, 1))
    together, one_by_one = statistics.median(parallel), statistics.median(single)
    ratio = together / one_by_one
    print(f"8 at a time {together:.2f} s, one by one {one_by_one:.2f} s: {ratio:.2f} times")
    return ratio > LIMIT


if __name__ == "__main__":
    sys.exit(main())
