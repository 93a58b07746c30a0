"""Reading a manifest: of a build, of what is deployed, or from a file."""

import json
from pathlib import Path
from typing import Any, Final

from ..graph.words import show
from ..schema import first_fault

Manifest = dict[str, Any]

_TEXTS: Final = {"type": "array", "items": {"type": "string"}}
_NUMBER: Final = {"type": "number"}
_MAYBE_NUMBER: Final = {"type": ["number", "null"]}
_MAYBE_TEXT: Final = {"type": ["string", "null"]}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _map(values: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values}


# What a plan reads.
_SCHEMA: Final = _object(
    spec={"type": "string", "minLength": 1},
    generator={"type": "string"},
    app={"type": "string"},
    routes=_map(
        _object(
            name={"type": "string"},
            enabled={"type": "boolean"},
            gpu={"type": "string"},
            group=_MAYBE_TEXT,
            timeout=_NUMBER,
            reply={"type": "string"},
            media_types=_TEXTS,
            request_schema=_object(
                properties=_map({"type": "object", "required": ["type"]}), required=_TEXTS
            ),
            graph={"type": "string"},
            models=_TEXTS,
            packs=_TEXTS,
        )
    ),
    models=_map(
        _object(
            file={"type": "string"},
            source=_map({"type": "string"}),
            revision=_MAYBE_TEXT,
            sha256=_MAYBE_TEXT,
            size=_MAYBE_NUMBER,
            license=_MAYBE_TEXT,
        )
    ),
    images=_map(_map({"type": "string"})),
    gateway=_object(
        auth={"type": "string"},
        cors_origins=_TEXTS,
        deadline=_NUMBER,
        max_containers=_NUMBER,
        max_body_bytes=_NUMBER,
        max_media_pixels=_NUMBER,
    ),
    scaling=_object(min_containers=_NUMBER, buffer_containers=_NUMBER, scaledown=_NUMBER),
    engine=_object(version={"type": "string"}, commit={"type": "string"}, flags=_TEXTS),
    volumes=_map({"type": "string"}),
    secrets=_map(_TEXTS),
    gpus=_map(
        _object(
            modal={"type": "string"},
            price_per_second=_NUMBER,
            cpu=_MAYBE_NUMBER,
            memory_gb=_MAYBE_NUMBER,
        )
    ),
    prices=_object(
        priced={"type": "string"},
        multiplier=_NUMBER,
        cpu_per_second=_MAYBE_NUMBER,
        memory_per_second=_MAYBE_NUMBER,
    ),
)


class ManifestError(ValueError):
    """What was read is no manifest that can be compared; the text says what is wrong."""


def read_manifest(path: Path) -> Manifest:
    """Return the manifest in a file.

    Raises:
        ManifestError: when it cannot be read, or is none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from error
    return parse_manifest(data, str(path))


def parse_manifest(data: bytes | str, name: str) -> Manifest:
    """Return the manifest that a text holds; `name` says where it comes from.

    Raises:
        ManifestError: when it is none, or of a generator that wrote less.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{name}: this is no JSON: {error}") from error
    return checked_manifest(found, name)


def checked_manifest(found: Any, name: str) -> Manifest:
    """Return what may be a manifest, once it is sure that it is one.

    Raises:
        ManifestError: when it is none, or of a generator that wrote less.
    """
    if not isinstance(found, dict) or not {"spec", "generator", "routes"} <= set(found):
        raise ManifestError(f"{name}: this is no manifest.json of a build")
    if what := first_fault(found, _SCHEMA):
        raise ManifestError(
            f"{name}: the manifest of generator {show(found['generator'])} cannot be compared: "
            f"{show(what)}"
        )
    missing = {r["gpu"] for r in found["routes"].values()} - set(found["gpus"])
    if missing:
        raise ManifestError(f"{name}: the manifest names GPU profiles that it does not describe")
    return found
