"""Request bodies: JSON, or the parts of a form, read within a limit."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ..graph.words import show
from .problems import Fault, Problem, pointer

# How long a body may take, and how long nothing of it may come. What stands in front of a deployed
# gateway gives up after 150 seconds.
BODY_SECONDS: Final = 120.0
SILENT_SECONDS: Final = 20.0

_JSON: Final = "application/json"
_FORM: Final = "multipart/form-data"
_CHARSET: Final = re.compile(r"charset\s*\*?\d*\*?=\s*\"?([^\";\s]*)", re.IGNORECASE)
# Far more than any endpoint has params.
_MOST_PARTS: Final = 500
# Python converts longer ones in quadratic time; no param takes a number of that size.
_MOST_DIGITS: Final = 400
# A graph has thousands of nodes at most; each key that is wrong takes its time.
_MOST_KEYS: Final = 10_000
# Commas stand between values; a large graph has tens of thousands, and each value costs memory.
_MOST_COMMAS: Final = 300_000
# Larger texts are parsed in a thread, so that others are answered meanwhile.
_LARGE: Final = 100_000


@dataclass(frozen=True, slots=True)
class Upload:
    """A file in a form; `name` is what the caller calls it, and is never a path here."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """What a request gives. The texts of a form are to be converted, the values of JSON are not.

    `uploads` are the files in a form, by the part's name.
    """

    values: Any
    uploads: dict[str, list[Upload]] = field(default_factory=dict)
    is_form: bool = False


async def read_body(request: Request, max_bytes: int) -> Body:
    """Return the body of a request.

    Raises:
        Problem: when it is too large, of another type, or cannot be read.
    """
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("wrong-media-type", "compressed bodies are not read; send it as it is")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise _too_large(max_bytes)
    charset = _CHARSET.search(content_type)
    if charset and charset[1].lower() not in ("utf-8", "utf8"):
        raise Problem("wrong-media-type", "bodies are UTF-8; no other charset is read")
    stream = _limited(request, max_bytes)
    if media_type == _JSON or (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        data = b"".join([chunk async for chunk in stream])
        parse = asyncio.to_thread(parse_json, data) if len(data) > _LARGE else None
        return Body(await parse if parse else parse_json(data))
    if media_type == _FORM:
        return await _read_form(request, stream, max_bytes)
    given = f"it is {show(media_type)}" if media_type else "it has no Content-Type"
    hint = f"send -H 'content-type: {_JSON}' with a JSON body"
    raise Problem("wrong-media-type", f"the body is to be {_JSON} or {_FORM}; {given}; {hint}")


def parse_json(data: bytes | str) -> Any:
    """Return the value of a JSON text.

    NaN, Infinity and numbers of hundreds of digits come out as floats that are not finite, so that
    whoever checks the value can say which one it is.

    Raises:
        Problem: when it is no JSON in UTF-8, nests too deep, has too many values, or has a key
            twice or too many keys in an object.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        if text.count(",") > _MOST_COMMAS:
            raise Problem("too-large", f"the JSON has more than {_MOST_COMMAS} values")
        return json.loads(text, parse_constant=float, parse_int=_integer, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise Problem(
            "bad-body", f"the body is not UTF-8: byte {error.start} does not fit"
        ) from error
    except RecursionError as error:
        raise Problem("bad-body", "the JSON nests too deep") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        hint = "" if text.strip() else ": it is empty"
        raise Problem("bad-body", f"the body is not JSON{hint}: {error.msg}, {place}") from error


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield a body, which has so many bytes and comes in time."""
    size = 0
    stream = aiter(request.stream())
    clock = asyncio.get_running_loop().time
    end = clock() + BODY_SECONDS
    while True:
        try:
            async with asyncio.timeout_at(min(end, clock() + SILENT_SECONDS)):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            detail = f"a body is to come within {BODY_SECONDS:g} seconds, and"
            detail += f" without a pause of more than {SILENT_SECONDS:g}"
            raise Problem("slow-body", detail, headers={"Connection": "close"}) from error
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> Problem:
    return Problem("too-large", f"at most {max_bytes} bytes are read")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float("inf")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > _MOST_KEYS:
        detail = f"the JSON has {len(pairs)} keys in one object; at most {_MOST_KEYS} are read"
        raise Problem("bad-body", detail)
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        raise Problem("bad-body", f"the JSON has {show(twice[0])} twice in one object")
    return found


class _FormParser(MultiPartParser):
    """Notes whether the form came to its end: one that is cut short parses like a shorter one."""

    has_ended = False

    def on_end(self) -> None:
        self.has_ended = True

    def on_part_end(self) -> None:
        part = self._current_part
        if part.file is not None:
            super().on_part_end()
            return
        try:
            # The parser itself would take what is no UTF-8 for Latin-1.
            self.items.append((part.field_name, part.data.decode("utf-8")))
        except UnicodeDecodeError as error:
            detail = f"it is not UTF-8: byte {error.start} does not fit"
            fault = Fault(pointer(part.field_name), detail)
            raise Problem("bad-params", f"{part.field_name}: {detail}", [fault]) from error

    def close(self) -> None:
        """Close the files of the parts; after most faults the parser itself does not."""
        for file in self._files_to_close_on_error:
            file.close()


async def _read_form(request: Request, stream: AsyncGenerator[bytes, None], max_bytes: int) -> Body:
    parser = _FormParser(request.headers, stream, max_files=_MOST_PARTS, max_fields=_MOST_PARTS)
    parser.max_part_size = max_bytes
    try:
        form = await parser.parse()
        if not parser.has_ended:
            raise MultiPartException("it is cut short")
        return await _body(form)
    except (MultiPartException, ValueError, LookupError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "its parts are damaged"
        raise Problem("bad-body", f"the form cannot be read: {reason}") from error
    finally:
        parser.close()


async def _body(form: FormData) -> Body:
    values: dict[str, str] = {}
    uploads: dict[str, list[Upload]] = {}
    twice: list[str] = []
    for name, value in form.multi_items():
        if not isinstance(value, str):
            uploads.setdefault(name, []).append(Upload(value.filename or "", await value.read()))
        elif name in values:
            twice.append(name)
        else:
            values[name] = value
    twice += [name for name in uploads if name in values]
    if twice:
        faults = [Fault(pointer(name), "given twice") for name in twice]
        raise Problem("bad-params", f"the form has {show(twice[0])} twice", faults)
    return Body(values, uploads, is_form=True)
