"""How long `python -m generator build` takes, against importing what it is made of.

    python -m bench.build

Prints the medians of interleaved rounds and their ratio; exits 1 when the ratio is above 4.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROUNDS = 10
LIMIT = 4.0


def seconds(*arguments: str) -> float:
    """Return the wall time of one Python process, in seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, cwd=Path(__file__).parent.parent)
    return time.perf_counter() - start


def main() -> int:
    """Measure, print, and return the exit code."""
    imports: list[float] = []
    builds: list[float] = []
    for _ in range(ROUNDS):
        imports.append(seconds("-c", "import yaml, jsonschema, jinja2, pydantic"))
        with TemporaryDirectory() as folder:
            builds.append(
                seconds("-m", "generator", "build", "--quiet", "--out", f"{folder}/build")
            )
    imported, built = statistics.median(imports), statistics.median(builds)
    print(f"imports {imported:.3f} s, build {built:.3f} s: {built / imported:.2f} times")
    return built / imported > LIMIT


if __name__ == "__main__":
    sys.exit(main())
