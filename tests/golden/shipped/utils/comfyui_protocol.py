"""What the engine is sent, and what its answers and binary messages mean; no I/O.

A graph is sent so that the files of its run go below a folder of their own, and that its output
nodes are executed although an equal graph was before.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from .comfyui_errors import EngineRefused, NodeError
from .comfyui_records import Graph

_PREFIX_INPUTS: Final = ("filename_prefix", "save_prefix")
# Engines ignore inputs that a class doesn't have, but count them in a node's cache key.
_MARKER_INPUT: Final = "_job"
_DEFAULT_PREFIX: Final = "ComfyUI"
_PREFIX_LENGTH: Final = 60
_UNSAFE_IN_PREFIX: Final = re.compile(r"[^\w.%() -]", re.ASCII)
_NODE_IN_DETAILS: Final = re.compile(r"Node ID '#(.*)'")

# Kinds of binary messages, and the picture formats of those that hold no metadata.
_PREVIEW: Final = 1
_TEXT: Final = 3
_PREVIEW_WITH_METADATA: Final = 4
_PICTURES: Final = {1: "image/jpeg", 2: "image/png"}


def isolate(graph: Graph, job: str, output_classes: Collection[str]) -> dict[str, Any]:
    """Return a copy of a graph whose files go below `JOB/` and whose outputs are made anew.

    Prefixes become `JOB/` and their last part, so a save node's inputs differ from any earlier
    run's, and the engine can't answer with the names of old files. Nodes of `output_classes`
    without a prefix get an input that no class has, to the same end. The original is not changed.
    """
    return {key: _isolated(node, job, output_classes) for key, node in graph.items()}


def to_be_run(
    graph: Graph, output_classes: Collection[str], cached: Collection[str]
) -> tuple[str, ...]:
    """Return the nodes that outputs need and that are not `cached`, in the graph's order."""
    nodes = {key: node for key, node in graph.items() if isinstance(node, Mapping)}
    ahead = [key for key, node in nodes.items() if node.get("class_type") in output_classes]
    found: set[str] = set()
    while ahead:
        key = ahead.pop()
        if key in nodes and key not in found and key not in cached:
            found.add(key)
            inputs = nodes[key].get("inputs")
            values = inputs.values() if isinstance(inputs, Mapping) else ()
            ahead += [str(v[0]) for v in values if isinstance(v, list) and len(v) == 2]
    return tuple(key for key in graph if key in found)


def _isolated(node: Any, job: str, output_classes: Collection[str]) -> Any:
    if not isinstance(node, Mapping) or not isinstance(node.get("inputs"), Mapping):
        return node
    inputs = dict(node["inputs"])
    prefixes = [name for name in _PREFIX_INPUTS if name in inputs]
    for name in prefixes:
        inputs[name] = f"{job}/{_plain_prefix(inputs[name])}"
    if not prefixes and node.get("class_type") in output_classes:
        inputs[_MARKER_INPUT] = job
    return {**node, "inputs": inputs}


def _plain_prefix(prefix: Any) -> str:
    if not isinstance(prefix, str):
        return _DEFAULT_PREFIX
    last = re.split(r"[/\\]", prefix)[-1]
    return _UNSAFE_IN_PREFIX.sub("_", last)[:_PREFIX_LENGTH].strip(". ") or _DEFAULT_PREFIX


_SIGNATURES: Final = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (8, b"AVI ", "video/x-msvideo"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypavis", "image/avif"),
    (4, b"ftypM4A ", "audio/mp4"),
    (4, b"ftypqt  ", "video/quicktime"),
    (4, b"ftyp", "video/mp4"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"glTF", "model/gltf-binary"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"\x76\x2f\x31\x01", "image/x-exr"),
)
_EXTENSIONS: Final = {
    ".gltf": "model/gltf+json",
    ".json": "application/json",
    ".mp3": "audio/mpeg",
    ".obj": "model/obj",
    ".stl": "model/stl",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


def media_type(data: bytes, filename: str) -> str:
    """Return the media type that the first bytes show, else the one of the extension.

    What is unknown either way is `application/octet-stream`.
    """
    for start, signature, found in _SIGNATURES:
        if data.startswith(signature, start):
            return found
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"webm" in data[:64] else "video/x-matroska"
    return _EXTENSIONS.get(PurePosixPath(filename.lower()).suffix, "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Frame:
    """A binary message: a preview or, with media type text/plain, a line of text.

    `prompt_id` and `node` are None where the frame doesn't hold them.
    """

    prompt_id: str | None
    node: str | None
    media_type: str
    data: bytes


def parse_frame(frame: bytes) -> Frame | None:
    """Read a binary message; None when its type is not known.

    Raises:
        ValueError: when it is cut short or holds no valid metadata.
    """
    kind, rest = _number(frame)
    if kind == _PREVIEW:
        picture, data = _number(rest)
        return Frame(None, None, _PICTURES.get(picture) or media_type(data, ""), data)
    if kind == _TEXT:
        node, data = _counted(rest)
        return Frame(None, node.decode(), "text/plain", data)
    if kind == _PREVIEW_WITH_METADATA:
        text, data = _counted(rest)
        metadata = json.loads(text)
        if not isinstance(metadata, dict):
            raise ValueError("the metadata is no object")
        return Frame(
            prompt_id=text_or_none(metadata.get("prompt_id")),
            node=text_or_none(metadata.get("display_node_id") or metadata.get("node_id")),
            media_type=str(metadata.get("image_type") or media_type(data, "")),
            data=data,
        )
    return None


def _number(data: bytes) -> tuple[int, bytes]:
    if len(data) < 4:
        raise ValueError("the frame is cut short")
    return int.from_bytes(data[:4], "big"), data[4:]


def _counted(data: bytes) -> tuple[bytes, bytes]:
    length, rest = _number(data)
    if len(rest) < length:
        raise ValueError("the frame is cut short")
    return rest[:length], rest[length:]


def refusal(status: int, body: bytes) -> EngineRefused:
    """Return what the engine's answer to a graph says against it, as an exception."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        text = body[:200].decode("utf-8", "replace").strip()
        return EngineRefused(status, "http_error", f"HTTP {status}: {text}", ())
    error = answer.get("error")
    error = error if isinstance(error, dict) else {"message": error}
    errors = _node_errors(answer.get("node_errors"))
    kind = str(error.get("type") or "node_errors")
    message = str(error.get("message") or "some output nodes are not valid")
    details = str(error.get("details") or "")
    named = _NODE_IN_DETAILS.search(details)
    if not errors and named is not None:
        errors = [NodeError(named[1], None, kind, message, "")]
    elif not errors and details:
        message = f"{message}: {details}"
    return EngineRefused(status, kind, message, errors)


def _node_errors(found: Any) -> list[NodeError]:
    if not isinstance(found, dict):
        return []
    return [
        NodeError(
            node=node,
            class_type=text_or_none(of_node.get("class_type")),
            type=str(error.get("type")),
            message=str(error.get("message")),
            details=str(error.get("details") or ""),
            input=text_or_none((error.get("extra_info") or {}).get("input_name")),
        )
        for node, of_node in found.items()
        for error in of_node.get("errors", ())
    ]


def text_or_none(value: Any) -> str | None:
    """Return a value as text, or None for None."""
    return None if value is None else str(value)
