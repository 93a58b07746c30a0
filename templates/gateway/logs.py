"""What is logged: one line of JSON for each event, on standard error; readable text on a terminal.

No prompt, no media and nothing else of a caller's is in it, unless gpu.yaml says `log_prompts: true`;
keys never are. So messages of this package are written to hold none, of other packages' no more is
shown than which message it is, and of exceptions where they came from, not what they say.
"""

import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from ..graph.words import printable

_PACKAGE: Final = __name__.partition(".")[0]
_log = logging.getLogger(_PACKAGE)

# They bring handlers of their own, whose lines are text.
_HANDLED: Final = ("modal-client", "modal-utils", "uvicorn", "uvicorn.error", "uvicorn.access")
_LEVELS: Final = {logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}
_encode: Final = json.JSONEncoder(default=str).encode
# Enough to find the place; a recursion has thousands.
_MOST_FRAMES: Final = 30
# A graph of a caller's may be as large as a body.
_MOST_PROMPT_BYTES: Final = 32_000


class _Settings:
    """What `configure` was told. `write` writes an event without the detour of a record."""

    with_prompts = False
    write: Callable[[str], object] | None = None


def configure(*, log_prompts: bool) -> None:
    """Log to standard error from now on, and nowhere else."""
    _Settings.with_prompts = log_prompts
    is_terminal = sys.stderr.isatty()
    _Settings.write = None if is_terminal else sys.stderr.write
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Text() if is_terminal else _Json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _log.setLevel(logging.INFO)
    for name in _HANDLED:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # They would be written as they are, with what they say.
    logging.captureWarnings(capture=True)
    threading.excepthook = _log_thread


def _log_thread(ended: threading.ExceptHookArgs) -> None:
    """Log what has ended a thread, as any exception."""
    if ended.exc_type is not SystemExit and ended.exc_value is not None:
        _log.error("a thread has failed", exc_info=ended.exc_value)


def event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log an event; fields that are None are left out."""
    if _Settings.write is not None:
        head = {"time": _iso(time.time()), "level": _LEVELS[level], "event": name}
        line = _encode(head | {k: v for k, v in fields.items() if v is not None})
        # A log that is closed, or on a disk that is full, is no reason for a job to fail.
        with suppress(OSError, ValueError):
            _Settings.write(f"{line}\n")
    elif _log.isEnabledFor(level):
        known = {key: value for key, value in fields.items() if value is not None}
        _log.log(level, name, extra={"fields": known})


def shows_prompts() -> bool:
    """Say whether prompts may be logged."""
    return _Settings.with_prompts


def prompt_fields(graph: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a log may say of a graph: nothing, unless prompts may be logged."""
    if not shows_prompts():
        return {}
    written = len(json.dumps(graph))
    return {"graph": graph} if written <= _MOST_PROMPT_BYTES else {"graph_bytes": written}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what a record says, beside its time and level."""
    fields: dict[str, object] | None = getattr(record, "fields", None)
    if fields is not None:
        return {"event": record.msg, **fields}
    found: dict[str, object] = {"event": "log", "logger": record.name}
    is_own = record.name.partition(".")[0] == _PACKAGE
    if is_own or shows_prompts():
        found["message"] = record.getMessage()
    else:
        found["message"] = _kind_of_message(record)
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        found["error"] = [*_errors(error)]
    return found


def _kind_of_message(record: logging.LogRecord) -> str:
    """Return which message of another package a record is."""
    if record.name == "py.warnings":
        # It says the place, the category and then the words of whoever warns.
        return ": ".join(record.getMessage().split(": ")[:2])
    message = str(record.msg).partition("\n")[0].strip()
    # asyncio says with which arguments a callback failed.
    return message.partition("(")[0] if record.name == "asyncio" else message


def _errors(error: BaseException) -> Iterator[dict[str, object]]:
    """Yield an exception and those that it came from: what they are, and where they were raised."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = traceback.extract_tb(current.__traceback__)[-_MOST_FRAMES:]
        found: dict[str, object] = {
            "type": type(current).__qualname__,
            "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
        }
        if shows_prompts():
            found["message"] = str(current)
        yield found
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)


def _iso(seconds: float) -> str:
    """Return a time, in seconds since the epoch, as text."""
    whole = int(seconds)
    return f"{_to_the_second(whole)}.{int((seconds - whole) * 1000):03}Z"


@lru_cache(maxsize=2)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class _Json(logging.Formatter):
    """A record as a JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _iso(record.created), "level": record.levelname.lower()}
        return _encode(head | _fields(record))


class _Text(logging.Formatter):
    """A record for whoever looks at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        name = fields["event"]
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        if name != "log":
            return f"{clock} {printable(_said(str(name), fields))}"
        errors: Any = fields.get("error", [])
        places = [f"\n  {_place(error)}" for error in errors]
        return f"{clock} {record.levelname.lower()}: {fields['message']}{''.join(places)}"


def _said(name: str, fields: Mapping[str, object]) -> str:
    """Return an event as a line: where, what and how long come first, and nothing that is 0."""
    words = [str(fields["route"]), name] if "route" in fields else [name]
    if "job" in fields:
        words.append(str(fields["job"]))
    seconds = fields.get("seconds")
    if isinstance(seconds, float):
        words.append(f"in {seconds:.2f} s")
    for key, value in fields.items():
        if value and key not in ("event", "route", "seconds", "job"):
            is_time = isinstance(value, float) and key != "usd"
            words.append(f"{key}={value:.2f}" if is_time else f"{key}={value}")
    return " ".join(words)


def _place(error: Mapping[str, Any]) -> str:
    """Return where an exception was raised, in a line."""
    said = f": {error['message']}" if "message" in error else ""
    return f"{error['type']}{said} at {(error['at'] or ['?'])[-1]}"
