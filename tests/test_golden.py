"""The rendered projects, compared byte for byte; `make golden` writes them anew."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from generator.render import render

from .conftest import ROOT, MakeProject, load_and_check

GOLDEN = Path(__file__).parent / "golden"
PROJECTS = {"shipped": ROOT, "hostile": ROOT / "tests" / "fixtures" / "hostile"}
TEMPLATE_MARKERS = ("{{", "{%", "{#")


def rendered(name: str) -> dict[str, bytes]:
    checked, diagnostics = load_and_check(PROJECTS[name])
    assert checked is not None, diagnostics
    return render(checked)


@pytest.mark.parametrize("name", PROJECTS)
def test_render_is_the_golden_one(name: str, request: pytest.FixtureRequest) -> None:
    """Every file is as it was; a wanted change is written with `make golden` and reviewed.

    `shipped` is the whole render; beside it lies only what differs from it.
    """
    files = rendered(name)
    if name != "shipped":
        copied = rendered("shipped")
        files = {path: data for path, data in files.items() if copied.get(path) != data}
    folder = GOLDEN / name
    if request.config.getoption("--update-golden"):
        shutil.rmtree(folder, ignore_errors=True)
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
    golden = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sorted(files) == sorted(golden)
    assert [path for path in files if files[path] != golden[path]] == []


@pytest.mark.parametrize("name", PROJECTS)
def test_render_is_deterministic(name: str) -> None:
    """The hash seed of the process, and with it the order of sets, changes nothing."""
    program = (
        "import hashlib, pathlib, sys; from generator.check import check;"
        "from generator.project import load_project; from generator.render import render;"
        "checked = check(load_project(pathlib.Path(sys.argv[1]))[0])[0];"
        "print(hashlib.sha256(repr(render(checked)).encode()).hexdigest())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program, str(PROJECTS[name])],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            cwd=ROOT,
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(hashes) == 1


@pytest.mark.parametrize("name", PROJECTS)
@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--no-cache", "--config", "pyproject.toml"],
        ["ruff", "format", "--check", "--no-cache", "--config", "pyproject.toml"],
        ["mypy", "--strict", "--no-error-summary"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_rendered_python_is_clean(name: str, command: list[str], tmp_path: Path) -> None:
    """Rendered code passes the checks that the project's own code passes."""
    for path, data in rendered(name).items():
        (tmp_path / "build" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "build" / path).write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-m", *command, str(tmp_path / "build")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_no_template_marker_is_left() -> None:
    """The shipped specs hold no braces of templates, so their render holds none either."""
    left = [
        (path, marker)
        for path, data in rendered("shipped").items()
        for marker in TEMPLATE_MARKERS
        if marker.encode() in data
    ]
    assert left == []


def test_rendered_config_is_short() -> None:
    """config.py is values only, and a reader sees them on a page or two."""
    assert len(rendered("shipped")["config.py"].splitlines()) < 100


def test_rendered_app_is_short(make_project: MakeProject) -> None:
    """app.py is a thin shell: a worker class more is a decorator, its docstring and two names."""
    picture = """\
group: {group}
graph:
  1: {{class_type: EmptyImage, inputs: {{width: 16, height: 16, batch_size: 1, color: 0}}}}
  2: {{class_type: SaveImage, inputs: {{images: [1, 0], filename_prefix: x}}}}
"""
    groups = [f"g{number}" for number in range(6)]
    folder = make_project({group: picture.format(group=group) for group in groups})
    checked, diagnostics = load_and_check(folder)
    assert checked is not None, diagnostics
    lines = render(checked)["app.py"].decode().splitlines()
    assert sum(line.startswith("class ") and "(WorkerHooks)" in line for line in lines) == 6
    assert len(lines) < 300
