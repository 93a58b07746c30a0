"""The layers of each image, from stable to changing, and a digest of what each is made of."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .check import Checked
from .workers import image_values, images

Layers = dict[str, str]


def layers(checked: Checked, files: Mapping[str, bytes]) -> dict[str, Layers]:
    """Return a digest for each layer of each image, in the order in which image.py builds them.

    A layer whose digest differs is built again, and every layer after it. `files` are those of the
    build. The code and data of the app are in no layer: containers get them when they start.
    """
    values = image_values(checked)
    engine = checked.settings.comfyui
    tools = {path: data for path, data in files.items() if path.startswith("image_build/")}
    base = {"base": checked.settings.python, "apt": values["apt"]}
    engine_layers = {
        **base,
        "comfy-cli": values["comfy_cli"],
        "constraints": _digest(files["constraints.txt"]),
        "ComfyUI": [engine.version, engine.commit, engine.directory],
        "scripts": {path: _digest(data) for path, data in sorted(tools.items())},
    }
    made = {"gateway_image": {**base, "requirements": values["gateway"] or values["requirements"]}}
    for image, said in zip(images(checked), values["images"], strict=True):
        made[image.name] = {
            **engine_layers,
            **({"apt of packs": said["apt"]} if said["apt"] else {}),
            **{f"pack {pack.name}": [pack.git, pack.commit] for pack in image.packs},
            "requirements": [values["requirements"], said["pip"]],
            "classes": said["classes"],
        }
    return {
        name: {layer: _digest(json.dumps(data).encode()) for layer, data in parts.items()}
        for name, parts in made.items()
    }


def _digest(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()
