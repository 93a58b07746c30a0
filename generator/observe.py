"""Make a catalog of node schemas from a ComfyUI that runs.

/object_info says what each class takes. Which model folders an input lists, and which kinds of
uploads, it does not say: that is found by putting an empty marker file into each folder and seeing
which lists it.
"""

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx

from .catalogs.compact import compact

_TIMEOUT: Final = 60.0
_PACK: Final = re.compile(r"custom_nodes\.([A-Za-z0-9_][A-Za-z0-9._ -]*)")
_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]*")
# What a list of files holds, where no marker told which files those are.
_FILE: Final = re.compile(
    r".+\.(?:bin|ckpt|gguf|onnx|pkl|pt2?|pth|safetensors|sft"
    r"|avif|bmp|gif|jpe?g|png|tiff?|webp|avi|m4v|mkv|mov|mp4|webm|aac|flac|m4a|mp3|ogg|opus|wav"
    r"|glb|gltf|obj)",
    re.IGNORECASE,
)
# What an input's settings say that a catalog keeps.
_SETTINGS: Final = (
    "allow_batch", "animated_image_upload", "audio_upload", "control_after_generate", "default",
    "dynamicPrompts", "file_upload", "forceInput", "image_folder", "image_upload", "max", "min",
    "multi_select", "multiline", "remote", "socketless", "step", "video_upload", "widgetType",
)  # fmt: skip
# Markers by the kinds of files that are uploaded.
_KINDS: Final = ("png", "mp4", "mp3", "glb")
# Where models lay before; ComfyUI still reads them there, and names them nowhere.
_OLD_FOLDERS: Final = frozenset(("clip", "t2i_adapter", "unet"))
# Markers by their extensions; the first stands for all that ComfyUI's own folders list.
_EXTENSIONS: Final = (".safetensors", ".gguf", ".onnx")


class ObserveError(RuntimeError):
    """No catalog can be made; the text says why."""


def observe(
    url: str, models: Path | None, commits: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return what a ComfyUI says of its classes: its own ones, then those of each pack.

    Each item has the keys comfyui (the version), commit, nodes, and pack if it is one; `commits`
    are those that are known, by pack. With `models`, ComfyUI's models folder on this machine,
    marker files are put into its folders for a moment, and into the folder input beside it.

    Raises:
        ObserveError: when it does not answer as ComfyUI does, or a marker cannot be written.
    """
    try:
        client = httpx.Client(base_url=url.rstrip("/"), timeout=_TIMEOUT)
    except httpx.InvalidURL as error:
        raise ObserveError(f"{url} is no URL: {error}") from error
    with client:
        stats = _get(client, "/system_stats")
        version = stats["system"].get("comfyui_version") if "system" in stats else None
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise ObserveError(f"{url} is no ComfyUI: it does not say which version it is")
        plain = _get(client, "/object_info")
        marked, markers = plain, {}
        if models is not None:
            with _markers(client, models) as markers:
                marked = _get(client, "/object_info")
    sources: dict[str, dict[str, Any]] = {"": {"comfyui": version, "commit": "", "nodes": {}}}
    for name, info in plain.items():
        pack = _PACK.fullmatch(str(info.get("python_module", "")))
        key = pack[1] if pack else ""
        if key not in sources:
            commit = (commits or {}).get(key, "")
            sources[key] = {
                "comfyui": version,
                "pack": key,
                "repo": "",
                "commit": commit,
                "nodes": {},
            }
        reduced = _reduced(info, marked.get(name, info), markers)
        sources[key]["nodes"][name] = reduced
    return [sources[key] for key in sorted(sources)]


def without_known(
    sources: Iterable[dict[str, Any]], versions: Iterable[str]
) -> list[dict[str, Any]]:
    """Return the sources without ComfyUI's own classes of a version that there are schemas of.

    Theirs tell which model folders the inputs list; what was observed without markers does not.
    """
    known = set(versions)
    return [s for s in sources if "pack" in s or s["comfyui"] not in known]


def write_catalogs(sources: Iterable[dict[str, Any]], target: Path) -> dict[Path, int]:
    """Write catalog files, and return how many classes each has."""
    written: dict[Path, int] = {}
    for source in sources:
        pack = source.get("pack")
        name = f"packs/{pack}.jsonl" if pack else f"comfyui-{source['comfyui']}.jsonl"
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(compact(source), encoding="utf-8")
        written[path] = len(source["nodes"])
    return written


class Marker(NamedTuple):
    """What a marker file stands for: files of an extension in a model folder, or uploads of a kind."""

    folder: str | None
    kind: str


@contextmanager
def _markers(client: httpx.Client, models: Path) -> Iterator[dict[str, Marker]]:
    """Put empty files into every model folder, and yield what they stand for, by their names."""
    token = secrets.token_hex(8)
    if not models.is_dir():
        raise ObserveError(f"{models} is no folder; give ComfyUI's models folder")
    folders = {str(folder) for folder in _get(client, "/models")}
    folders |= {path.name for path in models.iterdir() if path.is_dir()}
    folders |= _OLD_FOLDERS
    placed: dict[Path, Marker] = {}
    for number, folder in enumerate(sorted(folders)):
        for extension in _EXTENSIONS:
            path = models / folder / f"marker-{token}-{number}{extension}"
            placed[path] = Marker(folder, extension)
    for kind in _KINDS:
        placed[models.parent / "input" / f"marker-{token}.{kind}"] = Marker(None, kind)
    made: list[Path] = []
    try:
        for path in placed:
            # It stays: ComfyUI fails where a folder is gone that it has once seen.
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
            made.append(path)
        yield {path.name: meaning for path, meaning in placed.items()}
    except OSError as error:
        raise ObserveError(f"{error.filename} cannot be written: {error.strerror}") from error
    finally:
        for path in made:
            path.unlink(missing_ok=True)


def _reduced(
    info: Mapping[str, Any], marked: Mapping[str, Any], markers: Mapping[str, Marker]
) -> dict[str, Any]:
    """Return a class as a catalog has it."""
    inputs: dict[str, Any] = {}
    for group in ("required", "optional"):
        for name, config in (info["input"].get(group) or {}).items():
            seen = ((marked["input"].get(group) or {}).get(name)) or config
            inputs[name] = _input(config, seen, markers, is_optional=group == "optional")
    names = info.get("output_name") or info["output"]
    outputs = [
        {"name": str(name), "type": _type_name(kind)}
        for name, kind in zip(names, info["output"], strict=False)
    ]
    found: dict[str, Any] = {"category": info.get("category", "")}
    found |= {key: True for key in ("api_node", "deprecated", "output_node") if info.get(key)}
    return found | {"inputs": inputs, "outputs": outputs}


def _input(
    config: list[Any], seen: list[Any], markers: Mapping[str, Marker], *, is_optional: bool
) -> dict[str, Any]:
    kind, options = _choice(config)
    settings = config[1] if len(config) > 1 and isinstance(config[1], dict) else {}
    found: dict[str, Any] = {
        key: settings[key] for key in _SETTINGS if settings.get(key) is not None
    }
    if options is not None:
        listed = _choice(seen)[1] or []
        seen_markers = [
            markers[name] for name in listed if isinstance(name, str) and name in markers
        ]
        folders = sorted({m.folder for m in seen_markers if m.folder is not None})
        extensions = sorted({m.kind for m in seen_markers if m.folder is not None})
        media = sorted(m.kind for m in seen_markers if m.folder is None)
        found["options"] = [o for o in options if not (isinstance(o, str) and _FILE.fullmatch(o))]
        found |= {"folders": folders} if folders else {}
        found |= {"extensions": extensions} if folders and extensions != [_EXTENSIONS[0]] else {}
        found |= {"input_files": media} if media else {}
        if isinstance(config[0], list):
            found["checked"] = True  # the older form, whose options the engine insists on
    if is_optional:
        found["optional"] = True
    return {"type": kind, **found}


def _choice(config: list[Any]) -> tuple[str, list[Any] | None]:
    """Return an input's type, and its options where it is a choice."""
    if isinstance(config[0], list):
        return "COMBO", config[0]
    if config[0] == "COMBO":
        settings = config[1] if len(config) > 1 and isinstance(config[1], dict) else {}
        return "COMBO", list(settings.get("options") or [])
    return _type_name(config[0]), None


def _type_name(kind: Any) -> str:
    return kind if isinstance(kind, str) else "COMBO"


def _get(client: httpx.Client, path: str) -> Any:
    try:
        return client.get(path).raise_for_status().json()
    except (httpx.HTTPError, httpx.InvalidURL, json.JSONDecodeError) as error:
        raise ObserveError(f"{client.base_url} does not answer as ComfyUI does: {error}") from error
