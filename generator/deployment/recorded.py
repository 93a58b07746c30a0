"""Seconds that runs took, in seconds.json of a project: by route, with the GPU that they ran on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..graph.words import show
from ..schema import first_fault
from ..whole_files import write_all

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
    if what := first_fault(found, _SCHEMA):
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
    text = json.dumps(dict(sorted({**known, **fresh}.items())), indent=2) + "\n"
    try:
        write_all({path: text})
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from error
