"""Format rendered Python with ruff, so that it reads like the code that people write."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from ruff import find_ruff_bin

_OPTIONS: Final = ("--isolated", "--no-cache", "--line-length", "100")


class FormatError(RuntimeError):
    """Rendered Python that ruff does not read: a fault of a template, not of a spec."""


def formatted(sources: Mapping[str, str]) -> dict[str, bytes]:
    """Return Python files, formatted, by their path.

    Raises:
        FormatError: when one of them is no Python.
    """
    with TemporaryDirectory(prefix="generator-") as name:
        folder = Path(name)
        for path, source in sources.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(source, encoding="utf-8", newline="\n")
        command = [find_ruff_bin(), "format", *_OPTIONS, "--target-version", "py311", name]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise FormatError(run.stderr.replace(name, "build").strip())
        return {path: (folder / path).read_bytes() for path in sources}
