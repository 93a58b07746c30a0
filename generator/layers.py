"""The layers of each image, from stable to changing, and a digest of what each is made of."""

import ast
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
    build, whose image.py has the commands. The code and data of the app are in no layer: containers
    get them when they start.
    """
    commands, uv = _commands(files["image.py"])
    values = image_values(checked)
    engine = checked.settings.comfyui
    tools = {path: data for path, data in files.items() if path.startswith("image_build/")}
    base = {"base": checked.settings.python, "apt": values["apt"]}
    engine_layers = {
        **base,
        "comfy-cli": [values["comfy_cli"], uv],
        "constraints": _digest(files["constraints.txt"]),
        "ComfyUI": [engine.version, engine.commit, engine.directory, commands["comfyui"]],
        "scripts": {path: _digest(data) for path, data in sorted(tools.items())},
    }
    app = values["gateway"] or values["requirements"]
    made = {"gateway_image": {**base, "requirements": [app, uv]}}
    for image, said in zip(images(checked), values["images"], strict=True):
        made[image.name] = {
            **engine_layers,
            **({"apt of packs": said["apt"]} if said["apt"] else {}),
            **{
                f"pack {pack.name}": [pack.git, pack.commit, commands["pack"]]
                for pack in image.packs
            },
            "requirements": [values["requirements"], said["pip"], commands["requirements"]],
            "classes": [said["classes"], commands["has_classes"]],
        }
    return {
        name: {layer: _digest(json.dumps(data).encode()) for layer, data in parts.items()}
        for name, parts in made.items()
    }


def _commands(image: bytes) -> tuple[dict[str, str], list[str]]:
    """Return what each function of image.py does, without its words, and the versions of uv."""
    tree = ast.parse(image)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    said = {one.name: "\n".join(map(ast.unparse, one.body[1:])) for one in functions}
    keywords = (node for node in ast.walk(tree) if isinstance(node, ast.keyword))
    return said, sorted({ast.unparse(k.value) for k in keywords if k.arg == "uv_version"})


def _digest(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()
