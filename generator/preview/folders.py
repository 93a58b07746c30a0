"""ComfyUI's folders: models, input, output and temp below one base directory.

Paths are compared as ComfyUI compares them, by their absolute form and without following links.
"""

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..graph.catalog import CORE_EXTENSIONS

ALIASES: Final = {"clip": "text_encoders", "unet": "diffusion_models", "t2i_adapter": "controlnet"}
CORE_FOLDERS: Final = (
    "checkpoints configs loras vae text_encoders diffusion_models clip_vision style_models "
    "embeddings diffusers vae_approx controlnet gligen upscale_models latent_upscale_models "
    "custom_nodes hypernetworks photomaker classifiers model_patches audio_encoders"
).split()
KINDS: Final = ("input", "output", "temp")
DEMO_LORA: Final = "character-demo.safetensors"

_FLUX_WIDTH: Final = 3072


class FolderError(ValueError):
    """A name that leads out of its folder, or a folder that there is not."""


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders below `base`."""

    base: Path

    def make(self) -> None:
        """Make the folders that ComfyUI makes, and put the demo LoRA in its place."""
        for name in ("models/loras", *KINDS):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        lora = self.base / "models" / "loras" / DEMO_LORA
        if not lora.exists():
            lora.write_bytes(demo_lora())

    def add_model(self, name: str) -> None:
        """Make an empty file `FOLDER/FILE` among the models, unless there is one.

        Raises:
            FolderError: when the name has no folder or leads out of the models.
        """
        path = within(self.base / "models", name)
        if len(path.relative_to(self.base / "models").parts) < 2:
            raise FolderError(f"{name}: a model is named FOLDER/FILE")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def models(self, *folders: str, extensions: frozenset[str] = CORE_EXTENSIONS) -> list[str]:
        """Return the model files of folders and of their aliases, sorted, with forward slashes."""
        wanted = {ALIASES.get(folder, folder) for folder in folders}
        names = wanted | {alias for alias, name in ALIASES.items() if name in wanted}
        found = {
            Path(parent, file).relative_to(root).as_posix()
            for root in (self.base / "models" / name for name in names)
            for parent, _, files in os.walk(root, followlinks=True)
            for file in files
            if Path(file).suffix.lower() in extensions
        }
        return sorted(found)

    def kind(self, name: str) -> Path:
        """Return the folder `input`, `output` or `temp`.

        Raises:
            FolderError: for another name.
        """
        if name not in KINDS:
            raise FolderError(f"no folder of the type {name!r}")
        return self.base / name

    def named(self, name: str) -> Path:
        """Return the file that an input's value names, `a.png` or `a.png [temp]`.

        As in ComfyUI the name may lead anywhere; whoever opens the file decides what it is.
        """
        for kind in KINDS:
            if name.endswith(f"[{kind}]"):
                return Path(os.path.normpath(self.base / kind / name[: -len(kind) - 3]))
        return Path(os.path.normpath(self.base / "input" / name))


def within(folder: Path, name: str) -> Path:
    """Return the path of a file below a folder.

    Raises:
        FolderError: when the name leads out of the folder.
    """
    path = os.path.normpath(folder.absolute() / name)
    if os.path.commonpath((folder.absolute(), path)) != str(folder.absolute()):
        raise FolderError(f"{name!r} leads out of {folder.name}")
    return folder / os.path.relpath(path, folder.absolute())


def demo_lora() -> bytes:
    """Return a LoRA for FLUX.1 of rank 1 that changes nothing: all its weights are zero."""
    tensors: dict[str, tuple[int, ...]] = {}
    for block in (0, 1):
        name = f"lora_unet_double_blocks_{block}_img_attn_proj"
        tensors[f"{name}.alpha"] = ()
        tensors[f"{name}.lora_down.weight"] = (1, _FLUX_WIDTH)
        tensors[f"{name}.lora_up.weight"] = (_FLUX_WIDTH, 1)
    header: dict[str, object] = {
        "__metadata__": {"ss_base_model_version": "flux1", "ss_network_module": "networks.lora"}
    }
    size = 0
    for name, shape in tensors.items():
        end = size + 2 * (max(shape) if shape else 1)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [size, end]}
        size = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(size)
