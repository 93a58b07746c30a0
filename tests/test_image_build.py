"""What installs an image's packages: one resolution for all, and one build of each library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from templates.image_build import requirements

from .conftest import ROOT
from .sources import Sources

ASKED = {
    "ComfyUI": ["torch", "numpy>=1.25", "Pillow"],
    "Faces": ["opencv_python>=4.7", "numpy<2 # old", "onnxruntime"],
    "Masks": ["opencv-contrib-python", "onnxruntime-gpu==1.19.0"],
    "gpu.yaml and models.yaml": ["fastapi==0.115.4", "opencv-python-headless<5"],
}


def test_builds_of_one_library_are_one() -> None:
    """The one that has all that the others have, for a machine without a display, with all bounds."""
    assert requirements.replacements(ASKED) == [
        "onnxruntime-gpu==1.19.0",
        "opencv-contrib-python-headless>=4.7,<5",
    ]
    assert requirements.overrides(ASKED) == [
        "onnxruntime ; sys_platform == 'never'",
        "opencv-contrib-python ; sys_platform == 'never'",
        "opencv-python ; sys_platform == 'never'",
        "opencv-python-headless ; sys_platform == 'never'",
    ]
    assert requirements.clashes(ASKED) == [
        "onnxruntime (Faces), onnxruntime-gpu (Masks): builds of one library; "
        "onnxruntime-gpu is installed for all of them",
        "opencv-python (Faces), opencv-contrib-python (Masks), "
        "opencv-python-headless (gpu.yaml and models.yaml): builds of one library; "
        "opencv-contrib-python-headless is installed for all of them",
    ]


def test_what_nobody_asks_for_is_left_alone() -> None:
    asked = {"ComfyUI": ["torch", "numpy"], "Pack": ["scipy"]}
    assert requirements.replacements(asked) == []
    assert requirements.overrides(asked) == []
    assert requirements.clashes(asked) == []


def test_who_asks_for_what() -> None:
    assert requirements.suspects(ASKED) == ["ComfyUI: numpy>=1.25", "Faces: numpy<2 # old"]


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    """A ComfyUI with two packs, one of which asks for nothing."""
    folder = tmp_path / "ComfyUI"
    for pack in ("Faces", "Silent"):
        (folder / "custom_nodes" / pack).mkdir(parents=True)
    (folder / "requirements.txt").write_text("numpy>=1\n", "utf-8")
    (folder / "custom_nodes" / "Faces" / "more.txt").write_text("onnxruntime\n", "utf-8")
    faces = folder / "custom_nodes" / "Faces" / "requirements.txt"
    faces.write_text("# of faces\n-r more.txt\nopencv-python\nneeds-opencv\n", "utf-8")
    return folder


def install(
    comfyui: Path, sources: Sources, *wanted: str
) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run the script with the real uv, which finds packages in a folder and puts them into one."""
    target = comfyui.parent / "installed"
    tool = comfyui.parent / "bin" / "uv"
    tool.parent.mkdir()
    real = Path(sys.executable).parent / "uv"
    tool.write_text(
        f'#!/bin/sh\nshift 3\nexec {real} pip install --target {target} "$@"\n', "utf-8"
    )
    tool.chmod(0o755)
    done = subprocess.run(
        [sys.executable, ROOT / "templates" / "image_build" / "requirements.py", comfyui, *wanted],
        env={
            "PATH": f"{tool.parent}:{os.environ['PATH']}",
            "HOME": str(comfyui.parent),
            "UV_NO_INDEX": "1",
            "UV_FIND_LINKS": str(sources.wheels),
            "UV_PYTHON": sys.executable,
            "UV_OFFLINE": "1",
            "UV_LINK_MODE": "copy",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done, {path.name.partition(".dist")[0] for path in target.glob("*.dist-info")}


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sources:
    """Wheels that uv finds."""
    found = Sources(tmp_path / "sources", monkeypatch)
    for name in ("opencv-python", "opencv-python-headless", "onnxruntime", "fastapi"):
        found.wheel(name, "4.0")
    found.wheel("numpy", "1.26")
    found.wheel("numpy", "2.0")
    found.wheel("needs-opencv", "1.0", ["opencv-python"])
    return found


def test_one_resolution_installs_all(comfyui: Path, sources: Sources) -> None:
    """What packages ask for by themselves is replaced too."""
    done, installed = install(comfyui, sources, "fastapi==4.0", "numpy<2")
    assert done.returncode == 0, done.stderr
    assert installed == {
        "fastapi-4.0",
        "needs_opencv-1.0",
        "numpy-1.26",
        "onnxruntime-4.0",
        "opencv_python_headless-4.0",
    }


def test_what_excludes_each_other_fails_the_build(comfyui: Path, sources: Sources) -> None:
    """And it is said who asks for what."""
    (comfyui / "requirements.txt").write_text("numpy>=2\n", "utf-8")
    done, installed = install(comfyui, sources, "numpy<2")
    assert done.returncode != 0
    assert installed == set()
    assert done.stderr.endswith(
        "error: no installation has all that is asked for\n"
        "  ComfyUI: numpy>=2\n"
        "  gpu.yaml and models.yaml: numpy<2\n"
    )
