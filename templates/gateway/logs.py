"""What is logged: one line of JSON for each event, on standard error; readable text on a terminal.

No prompt, no media and nothing else of a caller's is in it, unless gpu.yaml says `log_prompts: true`;
keys never are. So messages of this package are written to hold none, of other packages' no more is
shown than which message it is, and of exceptions where they came from, not what they say.
"""

import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

_PACKAGE: Final = __name__.partition(".")[0]
_log = logging.getLogger(_PACKAGE)

# They bring handlers of their own, whose lines are text.
_HANDLED: Final = ("modal-client", "modal-utils", "uvicorn", "uvicorn.error", "uvicorn.access")
_encode: Final = json.JSONEncoder(default=str).encode
# Enough to find the place; a recursion has thousands.
_MOST_FRAMES: Final = 30
# A graph of a caller's may be as large as a body.
_MOST_PROMPT_BYTES: Final = 32_000


class _Settings:
    """What `configure` was told."""

    with_prompts = False


def configure(*, log_prompts: bool) -> None:
    """Log to standard error from now on, and nowhere else."""
    _Settings.with_prompts = log_prompts
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Text() if sys.stderr.isatty() else _Json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _log.setLevel(logging.INFO)
    for name in _HANDLED:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log an event; fields that are None are left out."""
    if _log.isEnabledFor(level):
        # Handed over as it is: where in the code an event comes from, nobody needs to look up.
        record = logging.LogRecord(_log.name, level, "", 0, name, None, None)
        record.fields = {key: value for key, value in fields.items() if value is not None}
        _log.handle(record)


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
        found["message"] = str(record.msg).partition("\n")[0].strip()
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        found["error"] = [*_errors(error)]
    return found


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


class _Json(logging.Formatter):
    """A record as a JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        head = {"time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
        members = head | {"level": record.levelname.lower()} | _fields(record)
        return _encode(members)


class _Text(logging.Formatter):
    """A record for whoever looks at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        name = fields.pop("event")
        words = [datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")]
        if name == "log":
            errors: Any = fields.get("error", [])
            places = [
                f"\n  {e['type']}: {e.get('message', '')} at {(e['at'] or ['?'])[-1]}"
                for e in errors
            ]
            words += [f"{record.levelname.lower()}:", str(fields["message"]), *places]
        else:
            words += [str(name), *(f"{key}={value}" for key, value in fields.items())]
        return " ".join(words)
