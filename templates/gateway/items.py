"""From a body to an endpoint's request model, and the media that it brings."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, TypeVar, get_origin

from pydantic import ValidationError

from ..graph.words import show
from ..params import SURROGATE, Request, media_fields, number_bounds
from .bodies import Body, Upload, parse_json
from .media import MediaError, MediaFile, MediaReader
from .problems import Fault, Problem, of_validation, pointer

R = TypeVar("R", bound=Request)

FILES: Final = "files"

# Stands for an upload while the params are checked.
_UPLOADED: Final = "upload"


@dataclass(frozen=True, slots=True)
class Uploads:
    """The files of a form: by attribute of the request, and those of a graph by the name in it."""

    media: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def read_item(
    model: type[R],
    body: Body,
    graph_param: str | None = None,
    converted: Callable[[object, str], object] | None = None,
) -> tuple[R, Uploads]:
    """Return the request that a body is, and what was uploaded with it.

    The graph in `graph_param` is first `converted`.

    Raises:
        Problem: when a param is missing, unknown, of another type or out of its bounds.
    """
    values = body.values
    uploads = Uploads()
    if body.is_form:
        values, uploads = _form(model, body)
    if isinstance(values, dict) and (broken := next(filter(SURROGATE.search, values), None)):
        fault = Fault(
            pointer(broken), "Name should be valid Unicode text", {"code": "string_unicode"}
        )
        raise Problem("bad-params", str(fault), [fault])
    if graph_param and converted and isinstance(values, dict) and graph_param in values:
        values = {**values, graph_param: converted(values[graph_param], graph_param)}
    try:
        return model.model_validate(values, strict=not body.is_form), uploads
    except ValidationError as error:
        raise of_validation(error, _names(model).values(), number_bounds(model)) from error


async def read_media(reader: MediaReader, item: R, uploads: Uploads) -> tuple[R, list[MediaFile]]:
    """Return a request whose media are named as files, and these files.

    Raises:
        Problem: when one cannot be fetched, or is not what it should be.
    """
    kinds = {
        name: kind
        for name, kind in media_fields(type(item)).items()
        if getattr(item, name) is not None
    }
    if not kinds:
        return item, []
    names = _names(type(item))
    values = {name: uploads.media.get(name, getattr(item, name)) for name in kinds}
    fetched = reader.allowance()
    files = await _gathered(
        {names[name]: reader.read(kind, values[name], fetched) for name, kind in kinds.items()}
    )
    changes = {name: files[names[name]].name for name in kinds}
    return item.model_copy(update=changes), list(files.values())


async def read_files(
    reader: MediaReader, given: Mapping[str, str], uploads: Uploads
) -> dict[str, MediaFile]:
    """Return the files that come with a graph, by the names that it uses.

    Raises:
        Problem: when one cannot be fetched, or is no picture, video or sound.
    """
    values: dict[str, str | bytes] = {**given, **uploads.files}
    fetched = reader.allowance()
    found = await _gathered(
        {(FILES, name): reader.read_any(value, fetched) for name, value in values.items()}
    )
    return {name: file for (_, name), file in found.items()}


@cache
def _names(model: type[Request]) -> Mapping[str, str]:
    """Return the names that callers use, by attribute."""
    return {name: field.alias or name for name, field in model.model_fields.items()}


async def _gathered(work: Mapping[Any, Any]) -> dict[Any, MediaFile]:
    results = await asyncio.gather(*work.values(), return_exceptions=True)
    faults: list[Fault] = []
    found: dict[Any, MediaFile] = {}
    for name, result in zip(work, results, strict=True):
        if isinstance(result, MediaError):
            path = name if isinstance(name, tuple) else (name,)
            faults.append(Fault(pointer(*path), str(result), {"code": "bad-media"}))
        elif isinstance(result, BaseException):
            raise result
        else:
            found[name] = result
    if faults:
        raise Problem("bad-media", str(faults[0]), faults)
    return found


def _form(model: type[Request], body: Body) -> tuple[dict[str, Any], Uploads]:
    """Return the values of a form, its JSON parsed, and its uploads by what they are for."""
    attributes = {given: name for name, given in _names(model).items()}
    media = media_fields(model)
    values: dict[str, Any] = dict(body.values)
    uploads = Uploads()
    faults: list[Fault] = []
    texts: dict[str, str | bytes] = dict(body.values)
    for name, files in body.uploads.items():
        if name != FILES and len(files) == 1 and _is_json(model, attributes.get(name)):
            texts[name] = files[0].data
    for name, text in texts.items():
        if _is_json(model, attributes.get(name)):
            try:
                values[name] = parse_json(text)
            except Problem as problem:
                faults.append(Fault(pointer(name), problem.detail.replace("the body", "it")))
    for name, files in body.uploads.items():
        if name in texts:
            continue
        if name == FILES and FILES in attributes:
            _take_files(files, values, uploads, faults)
        elif name in attributes and attributes[name] not in media:
            faults.append(Fault(pointer(name), "this param takes no file"))
        elif len(files) > 1:
            faults.append(Fault(pointer(name), f"one file is wanted, not {len(files)}"))
        else:
            values[name] = _UPLOADED
            uploads.media[attributes.get(name, name)] = files[0].data
    if faults:
        raise Problem("bad-params", str(faults[0]), faults)
    return values, uploads


def _is_json(model: type[Request], attribute: str | None) -> bool:
    """Say whether a param of a form is JSON: a graph, or files by name."""
    return attribute is not None and get_origin(model.model_fields[attribute].annotation) is dict


def _take_files(
    files: list[Upload], values: dict[str, Any], uploads: Uploads, faults: list[Fault]
) -> None:
    """Take the parts `files` of a form: each goes by its file name."""
    for file in files:
        if file.name in uploads.files:
            faults.append(Fault(pointer(FILES), f"two files are named {show(file.name)}"))
        uploads.files[file.name] = file.data
    values[FILES] = dict.fromkeys(uploads.files, _UPLOADED)
