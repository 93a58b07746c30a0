"""Ask the rendered API whatever its OpenAPI document allows and forbids, and hold it to its word.

    python -m tests.fuzz_api [--cases 1000] [--examples 20] [--seed 1]

The shipped endpoints with /workflow switched on, served on this machine by a preview engine. The
requests are schemathesis': examples, the edges of every schema, random values, jobs that earlier
replies have told of. There are as many rounds as it takes. Exits 1 when an answer breaks the document.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fastapi import FastAPI

from generator.cli import main as generate

from .api_client import in_thread, own_package, service
from .conftest import ROOT

CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
_SMALLER: Final = {
    "flux": {"default: 1024, maximum: 2048": "default: 64, maximum: 128"},
    "flux-dev": {"default: 1024, maximum: 2048": "default: 64, maximum: 128"},
    "seedvr2": {"default: 1080": "default: 64", "default: 4000": "default: 128"},
    "wan2": {
        "default: 832, maximum: 1280": "default: 64, maximum: 128",
        "default: 480, maximum: 1280": "default: 48, maximum: 128",
        "default: 33": "default: 5",
        "maximum: 161": "maximum: 9",
    },
}


def fuzz(url: str, examples: int, seed: int, folder: Path) -> tuple[int, int]:
    """Return schemathesis' exit status, and how many requests it made."""
    report = folder / f"report-{seed}.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
    command += ["--checks", ",".join(CHECKS), "--seed", str(seed), "--continue-on-failure"]
    command += ["--max-examples", str(examples), "--generation-database", "none", "--no-color"]
    command += ["--report", "json", "--report-json-path", str(report), "--warnings", "off"]
    status = subprocess.run(command, cwd=folder, check=False).returncode
    if not report.exists():
        return status, 0
    return status, int(json.loads(report.read_text("utf-8"))["test_cases"]["generated"])


def small() -> dict[str, str]:
    """Return workflows with small pictures: drawing large ones would take most of the time."""
    texts: dict[str, str] = {}
    for name, changes in _SMALLER.items():
        text = (ROOT / "workflows" / f"{name}.yaml").read_text("utf-8")
        for large, less in changes.items():
            assert large in text, f"{name}.yaml has no {large}"
            text = text.replace(large, less)
        texts[name] = text
    return texts


def main() -> int:
    """Fuzz the API; return 0 when all went well."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_api")
    parser.add_argument("--cases", type=int, default=1000, help="the fewest that will do")
    parser.add_argument(
        "--examples", type=int, default=20, help="random ones of each operation, beside the edges"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the first round; others follow")
    options = parser.parse_args()
    if generate(["build", "--quiet", "--project", str(ROOT)]):
        return 2
    with TemporaryDirectory() as name:
        folder = Path(name)
        package = own_package(folder, "fuzzed_package", **small())

        @asynccontextmanager
        async def app() -> AsyncIterator[FastAPI]:
            async with service(folder / "base", package=package) as found:
                yield found.app

        start, made, seed = time.monotonic(), 0, options.seed
        with in_thread(app()) as url:
            while made < options.cases:
                status, new = fuzz(url, options.examples, seed, folder)
                made += new
                seconds = time.monotonic() - start
                sys.stdout.write(f"{made} requests in {seconds:.0f} s; the seed was {seed}\n")
                if status or not new:
                    return 1
                seed += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
