"""Seconds that runs took, in seconds.json of a project: by route, with the GPU that they ran on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft7Validator

from ..graph.words import show

FILE: Final = "seconds.json"

_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["seconds", "gpu"],
        "properties": {
            "seconds": {"type": "number", "minimum": 0},
            "gpu": {"type": "string", "minLength": 1},
            "date": {"type": "string"},
            "by": {"type": "string"},
        },
        "additionalProperties": False,
    },
}

Recorded = dict[str, dict[str, Any]]


class RecordError(ValueError):
    """seconds.json cannot be read; the text says what is wrong."""


def read_recorded(root: Path) -> Recorded:
    """Return what a project's seconds.json says; nothing where there is none.

    Raises:
        RecordError: when it cannot be read.
    """
    path = root / FILE
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: this is no JSON: {error}") from error
    faults = sorted(Draft7Validator(_SCHEMA).iter_errors(found), key=lambda fault: list(fault.path))
    if faults:
        place = "/".join(map(str, faults[0].path))
        what = f"{place}: {faults[0].message}" if place else faults[0].message
        raise RecordError(
            f'{path}: {show(what)}; write {{"/flux": {{"seconds": 3.5, "gpu": "L40S"}}}}'
        )
    return dict(found)


def record(root: Path, entries: Mapping[str, Mapping[str, Any]], by: str) -> None:
    """Add entries to seconds.json; those that somebody else has written stay.

    Raises:
        RecordError: when it cannot be read or written.
    """
    known = read_recorded(root)
    fresh = {
        route: {**entry, "by": by}
        for route, entry in entries.items()
        if known.get(route, {}).get("by") == by or route not in known
    }
    path = root / FILE
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        part.write_text(
            json.dumps(dict(sorted({**known, **fresh}.items())), indent=2) + "\n", "utf-8"
        )
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RecordError(f"{path}: {error.strerror}") from error
