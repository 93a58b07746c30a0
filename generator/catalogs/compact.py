"""Turn node schemas as collected from a running ComfyUI into the catalog's compact form.

    python -m generator.catalogs.compact SOURCE

SOURCE holds comfyui-VERSION.json and packs/NAME.json; the catalog files beside this module are
written anew. What the engine does not report is amended here, from the packs' own code.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

# Folders that ComfyUI still reads under their old names; models go to the other one.
_OLD_FOLDERS: Final = ("clip", "unet")
_DROPPED: Final = {"lazy", "multiselect", "rawLink", "round"}

# Classes that read inputs beyond their schema: by kwargs, by a format's own widgets, by count.
_OPEN: Final = {
    "Any Switch (rgthree)",
    "Power Lora Loader (rgthree)",
    "Power Primitive (rgthree)",
    "Power Puter (rgthree)",
    "VHS_VideoCombine",
}
# Files that classes load though no input names them, as graph.catalog.Loads has them. insightface
# downloads what is missing, and unpacks antelopev2 into a folder in which it then finds nothing.
_ANTELOPE: Final = {
    "files": [
        f"insightface/models/antelopev2/{name}.onnx"
        for name in ("1k3d68", "2d106det", "genderage", "glintr100", "scrfd_10g_bnkps")
    ],
    "hf": "DIAMONIK7777/antelopev2",
}
_BUFFALO: Final = {
    "files": [
        f"insightface/models/buffalo_l/{name}.onnx"
        for name in ("1k3d68", "2d106det", "det_10g", "genderage", "w600k_r50")
    ],
}
_BY_PRESET: Final = {"files": ["clip_vision/*", "ipadapter/*"]}
_LOADS: Final = {
    "InstantIDFaceAnalysis": [_ANTELOPE],
    "PulidFluxInsightFaceLoader": [_ANTELOPE],
    "IPAdapterInsightFaceLoader": [
        {**_ANTELOPE, "when": {"model_name": "antelopev2"}},
        {**_BUFFALO, "when": {"model_name": "buffalo_l"}},
    ],
    "IPAdapterUnifiedLoader": [_BY_PRESET],
    "IPAdapterUnifiedLoaderCommunity": [_BY_PRESET],
    "IPAdapterUnifiedLoaderFaceID": [_BY_PRESET, _BUFFALO],
}
# Texts that are the name of a file of some kind, which no schema says.
_MEDIA: Final = {
    ("Preview3D", "model_file"): ["glb"],
    ("Preview3DAnimation", "model_file"): ["glb"],
}
# Inputs that list fixed file names and read them from a model folder all the same.
_FOLDERS: Final = {("SeedVR2LoadVAEModel", "model"): ["SEEDVR2"]}


def compact(source: dict[str, Any]) -> str:
    """Return one source file as JSON Lines: the header, then the classes by name."""
    nodes = dict(sorted(source["nodes"].items()))
    header = {key: source[key] for key in ("comfyui", "pack", "repo", "commit") if key in source}
    lines = [header | {"classes": list(nodes)}]
    lines += [_class(name, node) for name, node in nodes.items()]
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def _class(name: str, node: dict[str, Any]) -> dict[str, Any]:
    inputs = {
        key: {k: v for k, v in value.items() if k not in _DROPPED}
        | _folders(name, key, value)
        | ({"input_files": _MEDIA[name, key]} if (name, key) in _MEDIA else {})
        for key, value in node["inputs"].items()
    }
    outputs = [[output["name"], output["type"]] for output in node["outputs"]]
    found = node | {"inputs": inputs, "outputs": outputs}
    if name in _OPEN or "inputcount" in inputs:
        found |= {"open": True}
    return found | ({"loads": _LOADS[name]} if name in _LOADS else {})


def _folders(name: str, key: str, value: dict[str, Any]) -> dict[str, Any]:
    folders = _FOLDERS.get((name, key), value.get("folders", []))
    return {"folders": sorted(folders, key=_OLD_FOLDERS.__contains__)} if folders else {}


def main(source: Path, target: Path) -> None:
    """Write every catalog file of `source` to `target`."""
    for path in sorted(source.glob("**/*.json")):
        written = (target / path.relative_to(source)).with_suffix(".jsonl")
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(compact(json.loads(path.read_bytes())), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent)
