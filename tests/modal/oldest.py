"""Installs the oldest Modal SDK that pyproject.toml allows, beside what the app and generator need.

    python -m tests.modal.oldest

prints its folder.
"""

import re
import sys
import tomllib
from pathlib import Path

from generator.schema import schema
from tests.cached import call, folder_for, installed, new_environment
from tests.conftest import ROOT


def version() -> str:
    """Return the oldest version that pyproject.toml allows."""
    [found] = [one for name in _dependencies() for one in re.findall(r"^modal>=([\d.]+)", name)]
    return str(found)


def install() -> Path:
    """Install it where it isn't yet, and return its folder.

    Raises:
        subprocess.CalledProcessError: when a package can't be installed.
    """
    others = [one for one in _dependencies() if not one.startswith("modal>=")]
    pins = [*schema("gpu")["properties"]["requirements"]["default"], f"modal=={version()}"]
    wanted = [*others, *(pin for pin in pins if not pin.startswith("comfy-cli="))]

    def fill(stage: Path) -> None:
        call(*new_environment(stage), *wanted)

    return installed(folder_for("modal", "\n".join(wanted)), fill)


def _dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return [str(one) for one in project["dependencies"]]


if __name__ == "__main__":
    sys.stdout.write(f"{install()}\n")
