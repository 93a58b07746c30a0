"""Fixtures shared by the tests. The shipped specs are rendered into build/ before any test."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from generator.check import Checked, check
from generator.cli import main
from generator.diagnostics import Diagnostic, sorted_once
from generator.project import load_project
from generator.starting import EXAMPLES

ROOT = Path(__file__).parent.parent

GPU_YAML = """\
app: test-app
python: "3.11"
comfyui: {version: 0.3.71, commit: c55fd7481626d8bee8044ea7512ea996d13a1b90}
gpus:
  default: l40s
  l40s: {modal: L40S, vram_gb: 48, price_per_second: 0.000542}
"""
MODELS_YAML = "models: {}\npacks: {}\n"

MakeProject = Callable[..., Path]
CheckProject = Callable[[Path], tuple[Checked | None, list[Diagnostic]]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name files in the ids of tests by what they are: their bytes may differ from run to run."""
    return "bytes" if isinstance(val, bytes) and len(val) > 20 else None


def pytest_configure(config: pytest.Config) -> None:
    """Render before collection, for tests import from `build` as a user does."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell does that to what it runs in the background, and the tests' own children inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    own = {path.stem for path in (ROOT / "workflows").glob("*.yaml")} - {*EXAMPLES}
    if own:
        raise pytest.UsageError(
            f"workflows/ holds {', '.join(sorted(own))}, of which the tests know nothing: they hold the "
            "shipped specs against records of them; run them in a clone of its own, and see "
            "`python -m generator test` for what is yours"
        )
    if not hasattr(config, "workerinput") and main(["build", "--quiet", "--project", str(ROOT)]):
        raise pytest.UsageError("the shipped specs do not build")


def goes_when_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder that goes between being found and being read, and return it."""
    folder.mkdir()
    scandir = os.scandir

    def going(path: Any = ".") -> Any:
        if Path(path) == folder and folder.exists():
            folder.rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", going)
    return folder


@pytest.fixture
def make_project(tmp_path: Path) -> MakeProject:
    """Return a function that writes a project of the given workflows and returns its folder."""

    def make(
        workflows: Mapping[str, str], *, models: str = MODELS_YAML, gpu: str = GPU_YAML
    ) -> Path:
        (tmp_path / "workflows").mkdir()
        (tmp_path / "gpu.yaml").write_text(gpu, encoding="utf-8")
        (tmp_path / "models.yaml").write_text(models, encoding="utf-8")
        for name, text in workflows.items():
            (tmp_path / "workflows" / f"{name}.yaml").write_text(text, encoding="utf-8")
        return tmp_path

    return make


@pytest.fixture
def check_project() -> CheckProject:
    """Return a function that loads and checks a project."""
    return load_and_check


def without_licenses(found: list[Diagnostic]) -> list[Diagnostic]:
    """Leave out what is said of the licences of models, whatever else is right or wrong."""
    return [d for d in found if d.code not in ("license", "no-license")]


def load_and_check(root: Path) -> tuple[Checked | None, list[Diagnostic]]:
    project, faults = load_project(root)
    checked, found = check(project)
    return checked, sorted_once([*faults, *found])
