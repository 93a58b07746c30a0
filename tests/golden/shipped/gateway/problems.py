"""What goes wrong, as problem documents (RFC 9457)."""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.responses import Response

from ..graph.words import did_you_mean, printable
from ..params import Bounds

MEDIA_TYPE: Final = "application/problem+json"

# Callers read them; a body with a thousand faults needs no thousand lines.
_MOST_FAULTS: Final = 20
_LONGEST_TEXT: Final = 500
_LONGEST_NAME: Final = 80


class Kind(NamedTuple):
    """A kind of problem: its HTTP status and what it is called."""

    status: int
    title: str


KINDS: Final[Mapping[str, Kind]] = {
    "bad-body": Kind(400, "The body cannot be read"),
    "bad-request": Kind(400, "The request cannot be read"),
    "unauthorized": Kind(401, "A key is needed"),
    "forbidden-host": Kind(403, "This host may not ask"),
    "forbidden-origin": Kind(403, "Pages of this origin may not ask"),
    "workflow-off": Kind(403, "This endpoint is switched off"),
    "not-found": Kind(404, "There is nothing here"),
    "unknown-job": Kind(404, "There is no such job"),
    "unknown-model": Kind(404, "There is no such model file"),
    "wrong-method": Kind(405, "This method does not work here"),
    "slow-body": Kind(408, "The body does not come in time"),
    "slow-head": Kind(408, "The head does not come in time"),
    "job-cancelled": Kind(409, "The job was cancelled"),
    "job-ended": Kind(409, "The job has ended"),
    "idempotency-conflict": Kind(409, "The idempotency key was used for another request"),
    "too-large": Kind(413, "The body is too large"),
    "wrong-media-type": Kind(415, "The body is of a type that is not read here"),
    "bad-params": Kind(422, "Params are wrong"),
    "bad-media": Kind(422, "A picture, video or sound cannot be used"),
    "bad-model": Kind(422, "A model file cannot be used"),
    "bad-graph": Kind(422, "The graph is wrong"),
    "too-many-requests": Kind(429, "Too many requests"),
    "too-many-jobs": Kind(429, "Too many jobs have not ended"),
    "queue-full": Kind(429, "The queue is full"),
    "too-many-listeners": Kind(429, "Too many requests listen to jobs"),
    "large-head": Kind(431, "The head is too large"),
    "internal-error": Kind(500, "This is a fault of the service"),
    "node-failed": Kind(500, "A node failed"),
    "engine-out-of-memory": Kind(500, "The GPU ran out of memory"),
    "engine-refused": Kind(500, "The engine refused the graph"),
    "output-missing": Kind(500, "An output is missing"),
    "engine-error": Kind(502, "The engine gave an answer that makes no sense"),
    "engine-interrupted": Kind(502, "The engine stopped the run"),
    "engine-lost": Kind(502, "The engine ended in mid-run"),
    "engine-not-started": Kind(503, "The engine does not start"),
    "engine-unreachable": Kind(503, "The engine does not answer"),
    "engine-hung": Kind(504, "The engine has stopped answering"),
    "engine-timeout": Kind(504, "The run took too long"),
    "disk-full": Kind(507, "The disk is full"),
}

# Seconds until it is worth asking again, where nothing more is known.
RETRY_AFTER: Final = {
    "too-many-requests": 60, "too-many-jobs": 5, "queue-full": 5,
    "too-many-listeners": 5,
    "engine-unreachable": 5, "engine-not-started": 30,
}  # fmt: skip

# What pydantic calls it, and what a caller of an HTTP API does.
_PLAIN: Final = {
    "missing": "this param is required",
    "extra_forbidden": "there is no such param",
    "model_type": "the body should be an object",
    "model_attributes_type": "the body should be an object",
    "dict_type": "this should be an object",
}

# How many faults the sentence about a body tells; its list has them all.
_MOST_TOLD: Final = 3
# Of these pydantic tells the first alone.
_NUMBERS: Final = frozenset(("greater_than_equal", "less_than_equal", "multiple_of"))


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where in the body, as a JSON pointer, and what."""

    pointer: str
    detail: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        place = self.pointer.removeprefix("/")
        return f"{place}: {self.detail}" if place else self.detail

    def as_json(self) -> dict[str, Any]:
        """Return it as a member of a problem's `errors`."""
        return {"pointer": f"#{self.pointer}", "detail": shortened(self.detail), **self.extra}


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """Ends a request with a problem document of a kind in KINDS.

    `status` takes the place of the kind's own. `extra` are further members.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        faults: Sequence[Fault] = (),
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = shortened(detail)
        self.faults = tuple(faults)
        self.status = status or KINDS[code].status
        self.headers = dict(headers or {})
        self.extra = extra

    def document(self) -> dict[str, Any]:
        """Return the problem as JSON."""
        members: dict[str, Any] = {
            "type": f"urn:problem-type:{self.code}",
            "title": KINDS[self.code].title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.faults:
            members["errors"] = [fault.as_json() for fault in self.faults[:_MOST_FAULTS]]
        if len(self.faults) > _MOST_FAULTS:
            members["more_errors"] = len(self.faults) - _MOST_FAULTS
        return members | self.extra

    def response(self) -> Response:
        """Return the HTTP response."""
        headers = dict(self.headers)
        if self.code in RETRY_AFTER:
            headers.setdefault("Retry-After", str(RETRY_AFTER[self.code]))
        # What cannot be UTF-8, a lone surrogate in a name, comes out escaped.
        body = json.dumps(self.document(), ensure_ascii=True, allow_nan=False).encode()
        return Response(body, self.status, headers, MEDIA_TYPE)


def of_validation(
    error: ValidationError, names: Collection[str], bounds: Mapping[str, Bounds]
) -> Problem:
    """Return what is wrong with the params of a request: `names` and `bounds` are of all of them."""
    details = error.errors(include_url=False)
    # Names are compared for those that will be read; that takes its time.
    faults = [_fault(d, names if i < _MOST_FAULTS else (), bounds) for i, d in enumerate(details)]
    count = f"{len(faults)} faults" if len(faults) > 1 else "one fault"
    return Problem("bad-params", f"{count} in the params: {_first(faults)}", faults)


def of_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """Return the problem for a status that the framework answers with."""
    codes = {
        400: "bad-request", 401: "unauthorized", 404: "not-found", 405: "wrong-method",
        413: "too-large", 415: "wrong-media-type",
    }  # fmt: skip
    code = codes.get(status, "bad-request" if status < 500 else "internal-error")
    return Problem(code, detail or HTTPStatus(status).phrase, status=status, headers=headers)


def pointer(*path: str | int) -> str:
    """Return a JSON pointer (RFC 6901) that holds no more of a caller's text than it needs."""
    return "".join(f"/{_escaped(str(part))}" for part in path)


def shortened(text: str) -> str:
    """Return a text on one line, printable and not too long."""
    text = printable(text[: _LONGEST_TEXT + 1])
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _fault(detail: ErrorDetails, names: Collection[str], bounds: Mapping[str, Bounds]) -> Fault:
    kind = detail["type"]
    message = _PLAIN.get(kind, detail["msg"])
    if kind == "extra_forbidden" and names:
        near = did_you_mean(str(detail["loc"][-1]), names)
        message += f"; {near}" if near else ""
    if kind in _NUMBERS and (value := _number(detail["input"])) is not None:
        ends = bounds.get(str(detail["loc"][-1]), Bounds())
        message = ends.fault(value) or message
    return Fault(pointer(*detail["loc"]), message, {"code": kind})


def _number(value: object) -> float | None:
    """Return the number that a param of a body, or the text of one in a form, is."""
    if isinstance(value, str):
        for read in (int, float):
            with suppress(ValueError):
                return read(value)
    return value if isinstance(value, int | float) else None


def _first(faults: Sequence[Fault]) -> str:
    more = len(faults) - _MOST_TOLD
    told = "; ".join(shortened(str(fault)) for fault in faults[:_MOST_TOLD])
    return told if more <= 0 else f"{told}; and {more} more"


def _escaped(part: str) -> str:
    part = printable(part[:_LONGEST_NAME])
    return part.replace("~", "~0").replace("/", "~1")
