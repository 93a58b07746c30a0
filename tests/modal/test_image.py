"""The images: their build steps are run on this machine as they were registered."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.engine import install
from tests.jobs_contract import PROBE_YAML

from .local import LocalModal
from .project import WORKFLOWS, Project, write_project

WORKER = "L40sWorker.*"
PICTURE = {"picture": WORKFLOWS["picture"].replace("params:", "packs: [probe_nodes]\nparams:")}
BIN = Path(sys.executable).parent


def steps(modal: LocalModal, app: str, word: str) -> list[str]:
    """Return the registered commands of an image that have a word in them, and what follows them."""
    lines = modal.plane.image_lines(modal.plane.function(app, WORKER).image_id)
    commands = [line.removeprefix("RUN ") for line in lines if line.startswith("RUN ")]
    return [command for command in commands if word in command]


def run(command: str, project: Project, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a step as Docker does; the image's tools are the build's, its Python is this one."""
    for there, here in {"image_build": "image_build", "constraints.txt": "constraints.txt"}.items():
        command = command.replace(f"/opt/{there}", str(project.build / here))
    own = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env=own | {"PATH": f"{BIN}:{os.environ['PATH']}", **(env or {})},
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=e@example.com")
    command = ["git", "-C", str(folder), *who, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def github(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder that git takes for all servers, and the variables that make it do so."""
    root = tmp_path / "github"
    config = tmp_path / "gitconfig"
    config.write_text(
        f'[url "{root}/"]\n\tinsteadOf = https://github.com/\n\tinsteadOf = https://example.com/\n',
        "utf-8",
    )
    return root, {"GIT_CONFIG_GLOBAL": str(config), "GIT_TERMINAL_PROMPT": "0"}


def repository(path: Path, **files: str) -> str:
    """Make a repository with two commits and the tag v0.3.71 on the first, and return that one."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet")
    for name, text in files.items():
        (path / name.replace("_txt", ".txt")).write_text(text, "utf-8")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--allow-empty", "-m", "one")
    git(path, "tag", "v0.3.71")
    first = git(path, "rev-parse", "HEAD")
    git(path, "commit", "--quiet", "--allow-empty", "-m", "two")
    return first


def wheel(folder: Path, name: str, version: str) -> None:
    """Write a wheel with nothing in it."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def test_no_step_can_fail_silently(modal: LocalModal, project: Project) -> None:
    commands = steps(modal, project.app, "")
    assert len(commands) > 5
    for command in commands:
        assert "||" not in command
        assert ";" not in command


@pytest.mark.parametrize("fault", ["", "commit", "requirements"])
def test_comfyui_is_installed_at_its_commit(
    modal: LocalModal, tmp_path: Path, github: tuple[Path, dict[str, str]], fault: str
) -> None:
    """By comfy-cli, as in the image; pip finds packages in a folder here, and puts them into one."""
    root, env = github
    commit = repository(root / "comfyanonymous" / "ComfyUI.git", requirements_txt="einops\n")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in ("torch", "torchvision", "torchaudio"):
        wheel(wheels, name, "9.1")
        wheel(wheels, name, "9.2")
    if fault != "requirements":
        wheel(wheels, "einops", "1.0")
    project = write_project(tmp_path / "it", f"comfyui-{fault}", real=False)
    shutil.rmtree(project.comfyui)
    wanted = "f" * 40 if fault == "commit" else commit
    project.replace("gpu.yaml", ("c55fd7481626d8bee8044ea7512ea996d13a1b90", wanted))
    project.render()
    (project.build / "constraints.txt").write_text("torch==9.1\n", "utf-8")
    modal.deploy(project.folder)
    env |= {
        "HOME": str(tmp_path),
        "PIP_FIND_LINKS": str(wheels),
        "PIP_NO_INDEX": "1",
        "PIP_TARGET": str(tmp_path / "installed"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    [installs] = steps(modal, project.app, "comfy --skip-prompt")
    [asserts] = steps(modal, project.app, f"git -C {project.comfyui} rev-parse")
    status, said = run(installs, project, env)
    if fault == "requirements":
        assert status != 0, said
        return
    assert status == 0, said
    assert (run(asserts, project, env)[0] == 0) == (not fault)
    installed = {path.name for path in (tmp_path / "installed").glob("*.dist-info")}
    assert {"torch-9.1.dist-info", "torchvision-9.2.dist-info", "einops-1.0.dist-info"} <= installed
    assert not (project.comfyui / "custom_nodes" / "ComfyUI-Manager").exists()


def test_packs_are_checked_out_at_their_commits(
    modal: LocalModal, tmp_path: Path, github: tuple[Path, dict[str, str]]
) -> None:
    root, env = github
    first = repository(root / "probe_nodes", requirements_txt="a\n")
    commits = {"good": first, "gone": "1" * 40}
    for name, commit in commits.items():
        project = write_project(
            tmp_path / name,
            f"pack-{name}",
            real=False,
            workflows=PICTURE,
            models=PROBE_YAML.replace("0" * 40, commit),
        )
        shutil.rmtree(project.comfyui / "custom_nodes")
        modal.deploy(project.folder)
        [step] = steps(modal, project.app, "git clone")
        status, said = run(step, project, env)
        assert (status == 0) == (name == "good"), said
        if name == "good":
            folder = project.comfyui / "custom_nodes" / "probe_nodes"
            assert git(folder, "rev-parse", "HEAD") == first


def test_the_classes_are_asserted(modal: LocalModal, tmp_path: Path) -> None:
    """On a real ComfyUI where there is one: it has what the specs need, or the step fails."""
    project = write_project(tmp_path / "it", "classes")
    modal.deploy(project.folder)
    [step] = steps(modal, "classes", "classes.py")
    assert "EmptyImage" in step
    status, said = run(step, project)
    assert (status, "has all" in said) == (0, True), said
    status, said = run(f"{step} InstantIDModelLoader EmptyImagine", project)
    assert status == 1
    last = said.strip().splitlines()[-1]
    assert last == "error: ComfyUI has no node class EmptyImagine, InstantIDModelLoader"
    (project.comfyui / "main.py").write_text('import sys\nsys.exit("no torch")\n', "utf-8")
    status, said = run(step, project)
    assert status == 1
    assert said.strip().splitlines()[-2:] == ["  no torch", "error: ComfyUI does not start"]


def test_a_pack_that_does_not_import_fails_the_build(modal: LocalModal, tmp_path: Path) -> None:
    if not install.folder().is_dir():
        pytest.skip("the preview engine imports no packs")
    project = write_project(tmp_path / "it", "broken-pack")
    modal.deploy(project.folder)
    [step] = steps(modal, "broken-pack", "classes.py")
    assert "ProbeSleep" in step
    pack = project.comfyui / "custom_nodes" / "probe_nodes" / "__init__.py"
    pack.write_text("import a_module_that_nobody_has\n", "utf-8")
    status, said = run(step, project)
    assert status == 1
    assert "a_module_that_nobody_has" in said
    assert said.strip().endswith("error: ComfyUI has no node class ProbeSleep")


def test_a_pack_that_needs_a_gpu_is_asserted_by_the_worker(
    modal: LocalModal, tmp_path: Path
) -> None:
    models = PROBE_YAML + "    needs_gpu_to_import: true\n"
    project = write_project(tmp_path / "it", "gpu-pack", real=True, models=models)
    modal.deploy(project.folder)
    [step] = steps(modal, "gpu-pack", "classes.py")
    assert "EmptyImage" in step
    assert "ProbeSleep" not in step
    manifest = json.loads((project.build / "manifest.json").read_text("utf-8"))
    assert "ProbeSleep" in manifest["routes"]["/slow"]["classes"]
