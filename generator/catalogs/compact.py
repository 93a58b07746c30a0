"""Turn node schemas as collected from a running ComfyUI into the catalog's compact form.

    python -m generator.catalogs.compact SOURCE

SOURCE holds comfyui-VERSION.json and packs/NAME.json; the catalog files beside this module are
written anew. What the engine does not report is added from amendments.py.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from .amendments import EXTENSIONS, FOLDERS, LOADS, MEDIA, MORE, OPEN

# Folders that ComfyUI still reads under their old names; models go to the other one.
_OLD_FOLDERS: Final = ("clip", "unet")
_CANVAS: Final = frozenset(
    ("dynamicPrompts", "image_folder", "multi_select", "remote", "socketless", "widgetType")
)
_DROPPED: Final = {"lazy", "multiselect", "rawLink", "round"}


def compact(source: dict[str, Any]) -> str:
    """Return one source file as JSON Lines: the header, then the classes by name."""
    nodes = dict(sorted(source["nodes"].items()))
    header = {key: source[key] for key in ("comfyui", "pack", "repo", "commit") if key in source}
    lines = [header | {"classes": list(nodes)}]
    lines += [_class(name, node) for name, node in nodes.items()]
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def _class(name: str, node: dict[str, Any]) -> dict[str, Any]:
    inputs = {key: _input(name, key, value) for key, value in node["inputs"].items()}
    outputs = [[output["name"], output["type"]] for output in node["outputs"]]
    found = node | {"inputs": inputs, "outputs": outputs}
    if name in OPEN or "inputcount" in inputs:
        found |= {"open": True}
    found |= {"more": MORE[name]} if name in MORE else {}
    return found | ({"loads": LOADS[name]} if name in LOADS else {})


def _input(name: str, key: str, value: dict[str, Any]) -> dict[str, Any]:
    found = {k: v for k, v in value.items() if k not in _DROPPED}
    if folders := FOLDERS.get((name, key), value.get("folders")):
        found["folders"] = sorted(folders, key=_OLD_FOLDERS.__contains__)
    if (name, key) in EXTENSIONS:
        found["extensions"] = EXTENSIONS[name, key]
    if (name, key) in MEDIA:
        found["input_files"] = MEDIA[name, key]
    return found


def main(source: Path, target: Path) -> None:
    """Write every catalog file of `source` to `target`."""
    for path in sorted(source.glob("**/*.json")):
        written = (target / path.relative_to(source)).with_suffix(".jsonl")
        written.parent.mkdir(parents=True, exist_ok=True)
        found = json.loads(path.read_bytes())
        if written.is_file():
            _keep_order(found["nodes"], written)
        written.write_text(compact(found), encoding="utf-8")


def _keep_order(nodes: dict[str, dict[str, Any]], written: Path) -> None:
    """Give inputs the order that they have in a catalog, and what it alone says of the canvas.

    Sources may have inputs by name, and have left out what only ComfyUI's frontend reads.
    """
    header, *lines = written.read_text(encoding="utf-8").splitlines()
    for name, line in zip(json.loads(header)["classes"], lines, strict=True):
        before = json.loads(line)["inputs"]
        inputs = nodes[name]["inputs"] if name in nodes else {}
        if inputs.keys() == before.keys():
            nodes[name]["inputs"] = {
                key: inputs[key] | {k: v for k, v in before[key].items() if k in _CANVAS}
                for key in before
            }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent)
