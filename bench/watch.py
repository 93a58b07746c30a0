"""How long it takes from a save until `generator watch` serves the change.

    python -m bench.watch [--saves 9]

Works on a copy of the shipped specs, all endpoints of them. Counted is the time from writing a file
to the first answer of the API that has the change. Prints the median and the longest; exits 1 when the
median is above a second.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx

LIMIT: Final = 1.0
PATIENCE: Final = 60.0
_ROOT: Final = Path(__file__).parent.parent
_DEFAULT: Final = "steps: {type: integer, default: 4,"


def served_default(url: str) -> int:
    """Return the default of a param of /flux, as the API says it."""
    endpoints = httpx.get(f"{url}/workflows", timeout=PATIENCE).json()
    flux = next(one for one in endpoints if one["name"] == "flux")
    default: int = flux["params"]["properties"]["steps"]["default"]
    return default


def save(root: Path, url: str, number: int) -> float:
    """Change the default, and return how many seconds it took until it was served."""
    path = root / "workflows" / "flux.yaml"
    text = (_ROOT / "workflows" / "flux.yaml").read_text("utf-8")
    assert _DEFAULT in text
    start = time.perf_counter()
    path.write_text(text.replace(_DEFAULT, _DEFAULT.replace("4", str(number))), "utf-8")
    while served_default(url) != number:
        if time.perf_counter() - start > PATIENCE:
            raise TimeoutError("the change is not served")
        time.sleep(0.005)
    return time.perf_counter() - start


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--saves", type=int, default=9)
    saves = parser.parse_args().saves
    with TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(_ROOT / "workflows", root / "workflows")
        for name in ("gpu.yaml", "models.yaml"):
            shutil.copy(_ROOT / name, root)
        command = [sys.executable, "-m", "generator", "watch", "--quiet", "--port", "0"]
        with subprocess.Popen(
            [*command, "--project", str(root)],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as watched:
            assert watched.stdout is not None
            try:
                found = re.search(r"http://\S+", watched.stdout.readline())
                assert found is not None, "the service does not start"
                # The next API waits with all imported, as it does when somebody edits.
                times = []
                for number in range(saves):
                    time.sleep(2)
                    times.append(save(root, found[0], 5 + number))
            finally:
                watched.terminate()
    median = statistics.median(times)
    print(
        f"served {median:.2f} s after the save (median of {saves}; the longest {max(times):.2f} s)"
    )
    return median > LIMIT


if __name__ == "__main__":
    sys.exit(main())
