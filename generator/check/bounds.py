"""Params and the inputs that they feed: types, bounds, options, folders."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from ..diagnostics import Diagnostic
from ..graph.catalog import Input
from ..graph.words import did_you_mean, show, some
from ..load import Node
from ..spec import INTEGER_TYPES, NUMBER_TYPES, GraphNode, Param
from .values import misfit

# The largest integer that every JSON reader keeps exact (RFC 8259, section 6).
MAX_SEED: Final = 2**53 - 1

_MEDIA_KINDS: Final = {"image": "png", "video": "mp4", "audio": "mp3"}

Place = Literal["whole", "text", "nested"]


@dataclass(frozen=True)
class Feed:
    """An input that a param feeds: as all of its value, within a text, or in a list or mapping."""

    node: GraphNode
    input: str
    at: Node
    place: Place
    schema: Input | None

    def __str__(self) -> str:
        return f'node {show(self.node.id)} {self.node.class_type} input "{self.input}"'


# Inputs whose whole value is the param, with their schemas: they say what it may be.
Bounding = list[tuple[Feed, Input]]


def resolve(param: Param, feeds: list[Feed]) -> tuple[Param, list[Diagnostic]]:
    """Return a param with its bounds filled in from the inputs that it feeds.

    Then its default, examples and options are checked against them.
    """
    faults = [
        _wrong_type(param, feed, feed.schema)
        for feed in feeds
        if feed.schema and not _accepts(feed.schema, param, feed.place)
    ]
    if faults:
        return param, faults
    bounding = [(feed, feed.schema) for feed in feeds if feed.place == "whole" and feed.schema]
    if param.type in NUMBER_TYPES:
        is_known = all(feed.schema for feed in feeds)
        param, faults = _resolve_range(param, bounding, is_known)
    if param.type in ("string", "integer", "number"):
        param, wrong = _resolve_options(param, bounding)
        faults += wrong
    if param.type == "model":
        param, wrong = _resolve_folder(param, bounding)
        faults += wrong
    if param.strip and param.enum:
        message = "strip means nothing beside options, which are given as they are"
        faults.append(param.at.mapping["strip"].error("bad-param", message, at_key=True))
    if not faults and _fits_nothing(param):
        message = f"no value fits param {show(param.name)}"
        hint = f"it is at least {param.minimum} and at most {param.maximum}"
        at_least = hint if param.type in NUMBER_TYPES else None
        faults.append(param.at.error("param-bounds", message, hint=at_least, at_key=True))
    return param, faults or list(_check_values(param))


def _accepts(schema: Input, param: Param, place: Place) -> bool:
    """Say whether an input takes values of a param's type."""
    types = set(schema.type.split(","))
    if "*" in types or place == "nested":
        return True
    if place == "text" or param.prefix or param.suffix:
        return "STRING" in types or ("COMBO" in types and schema.is_open)
    if "COMBO" in types and not schema.is_open:
        return bool(_options(schema, param))
    match param.type:
        case "seed" | "integer":
            return bool(types & {"INT", "FLOAT"})
        case "number":
            return "FLOAT" in types
        case "boolean":
            return "BOOLEAN" in types
        case "image" | "video" | "audio":
            kinds = schema.media
            takes = not schema.folders and (not kinds or _MEDIA_KINDS[param.type] in kinds)
            is_path = "STRING" in types and not schema.multiline
            return is_path or ("COMBO" in types and takes)
        case "string":
            takes = not schema.folders or bool(param.enum)
            return "STRING" in types or ("COMBO" in types and takes and not schema.media)
    return "STRING" in types or ("COMBO" in types and not schema.media)


def _options(schema: Input, param: Param) -> list[Any]:
    """Return the options that are of the param's type."""
    kinds: tuple[type, ...] = {
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
        "string": (str,),
    }.get(param.type, ())
    return [
        o
        for o in schema.options
        if isinstance(o, kinds) and isinstance(o, bool) == (kinds == (bool,))
    ]


def _wrong_type(param: Param, feed: Feed, schema: Input) -> Diagnostic:
    wanted = schema.type
    if wanted == "COMBO" and schema.folders:
        wanted = "the name of a model file (type: model)"
    elif wanted == "COMBO" and schema.media:
        wanted = "the name of an uploaded file (type: image, video or audio)"
    elif wanted == "COMBO" and not schema.is_open:
        wanted = f"one of {some(schema.options)}"
    what = "text around a slot" if feed.place == "text" else f"a param of type {param.type}"
    message = f"{feed.node.class_type} takes {wanted} here, not {what} ({show(param.name)})"
    return feed.at.error("param-type", message, node=feed.node.id, input=feed.input)


def _resolve_range(param: Param, feeds: Bounding, is_known: bool) -> tuple[Param, list[Diagnostic]]:
    lows = [(schema.minimum, feed) for feed, schema in feeds if schema.minimum is not None]
    highs = [(schema.maximum, feed) for feed, schema in feeds if schema.maximum is not None]
    low = max(lows, key=lambda pair: pair[0], default=None)
    high = min(highs, key=lambda pair: pair[0], default=None)
    faults: list[Diagnostic] = []
    if low and param.minimum is not None and param.minimum < low[0]:
        message = f"minimum {param.minimum} is below {low[0]}, the least that {low[1]} takes"
        faults.append(param.at.mapping["minimum"].error("param-bounds", message))
    if high and param.maximum is not None and param.maximum > high[0]:
        message = f"maximum {param.maximum} is above {high[0]}, the most that {high[1]} takes"
        faults.append(param.at.mapping["maximum"].error("param-bounds", message))
    minimum = param.minimum if param.minimum is not None else low and low[0]
    maximum = param.maximum if param.maximum is not None else high and high[0]
    if param.type in INTEGER_TYPES:
        minimum = None if minimum is None else math.ceil(minimum)
        maximum = None if maximum is None else math.floor(maximum)
    if param.type == "seed":
        faults += _check_seed(param)
        minimum = max(0, minimum or 0)
        maximum = MAX_SEED if maximum is None else min(MAX_SEED, maximum)
    if param.step is not None and minimum is None and is_known:
        message = "step counts from minimum, and neither the param nor its inputs have one"
        faults.append(param.at.mapping["step"].error("param-bounds", message))
    return replace(param, minimum=minimum, maximum=maximum), faults


def _check_seed(param: Param) -> Iterator[Diagnostic]:
    if param.minimum is not None and param.minimum < 0:
        message = "a seed is not negative"
        yield param.at.mapping["minimum"].error("param-bounds", message)
    if param.maximum is not None and param.maximum > MAX_SEED:
        message = f"a seed is at most {MAX_SEED}, which every JSON reader keeps exact"
        yield param.at.mapping["maximum"].error("param-bounds", message)


def _fits_nothing(param: Param) -> bool:
    """Say whether the bounds of a param leave no value at all."""
    if param.min_length is not None and param.max_length is not None:
        return param.min_length > param.max_length
    if param.minimum is None or param.maximum is None:
        return False
    first = param.minimum
    if param.multiple_of and param.step:
        common = math.gcd(param.step, param.multiple_of)
        if first % common:
            return True
        turn = param.multiple_of // common
        first += -(first // common) * pow(param.step // common, -1, turn) % turn * param.step
    elif param.multiple_of:
        first = -(-first // param.multiple_of) * param.multiple_of
    return first > param.maximum


def _resolve_options(param: Param, feeds: Bounding) -> tuple[Param, list[Diagnostic]]:
    closed = [
        (feed, schema) for feed, schema in feeds if schema.type == "COMBO" and not schema.is_open
    ]
    if not closed or param.prefix or param.suffix:
        return param, []
    faults: list[Diagnostic] = []
    if param.enum:
        at = param.at.mapping["enum"].items
        for feed, schema in closed:
            for item in (item for item in at if item.value not in schema.options):
                message = f"{show(item.value)} is no option of {feed}"
                hint = _nearest_option(item.value, schema.options)
                faults.append(item.error("param-options", message, hint=hint))
        return param, faults
    shared = [
        option
        for option in _options(closed[0][1], param)
        if all(option in schema.options for _, schema in closed)
    ]
    if not shared:
        message = f"the inputs of param {show(param.name)} have no option in common"
        faults.append(param.at.error("param-options", message, at_key=True))
    return replace(param, enum=tuple(shared)), faults


def _resolve_folder(param: Param, feeds: Bounding) -> tuple[Param, list[Diagnostic]]:
    listing = [(feed, schema.folders) for feed, schema in feeds if schema.folders]
    shared = [
        folder
        for folder in (listing[0][1] if listing else ())
        if all(folder in folders for _, folders in listing)
    ]
    if param.folder is None:
        if len(shared) == 1:
            return replace(param, folder=shared[0]), []
        message = "say which model folder the file is in"
        hint = f"folder: {' or '.join(shared)}" if shared else None
        return param, [param.at.error("param-folder", message, hint=hint, at_key=True)]
    if listing and param.folder not in shared:
        message = f"folder {show(param.folder)} is not what {listing[0][0]} reads"
        hint = f"it reads {' and '.join(shared)}" if shared else None
        return param, [param.at.mapping["folder"].error("param-folder", message, hint=hint)]
    return param, []


def _check_values(param: Param) -> Iterator[Diagnostic]:
    """Check the default, the examples and the options against everything else."""
    entries = param.at.mapping
    for item in entries["enum"].items if "enum" in entries else []:
        if problem := misfit(item.value, replace(param, enum=())):
            yield item.error("param-options", f"option {show(item.value)}: {problem}")
    if param.default is not None and (problem := misfit(param.default, param)):
        yield entries["default"].error("param-default", f"default {show(param.default)}: {problem}")
    for item in entries["examples"].items if "examples" in entries else []:
        if problem := misfit(item.value, param):
            yield item.error("param-example", f"example {show(item.value)}: {problem}")


def _nearest_option(value: Any, options: tuple[Any, ...]) -> str:
    near = did_you_mean(value, map(str, options)) if isinstance(value, str) else None
    return near or f"options are {some(options)}"
