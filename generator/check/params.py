"""Params against the inputs that they feed: types, bounds, options, and what nobody uses."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from pydantic_core import SchemaError, SchemaValidator, core_schema

from ..diagnostics import Diagnostic, did_you_mean, show
from ..graph.catalog import ClassType, Input, is_listed_name
from ..load import Node
from ..slots import Slot, Template
from ..spec import (
    INTEGER_TYPES,
    MEDIA_TYPES,
    NUMBER_TYPES,
    TEXT_TYPES,
    GraphNode,
    InputValue,
    Param,
    Workflow,
)
from .reach import sent_nodes

# The largest integer that every JSON reader keeps exact (RFC 8259, section 6).
MAX_SEED: Final = 2**53 - 1

_APPLIES_TO: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(("minimum", "maximum"), NUMBER_TYPES),
    **dict.fromkeys(("multipleOf", "step"), frozenset(("integer",))),
    **dict.fromkeys(("minLength", "maxLength", "pattern"), TEXT_TYPES),
    **dict.fromkeys(("prefix", "suffix", "strip"), frozenset(("string",))),
    "enum": frozenset(("string", "integer", "number")),
    "folder": frozenset(("model",)),
    "default": NUMBER_TYPES | TEXT_TYPES | {"boolean"},
    "examples": NUMBER_TYPES | TEXT_TYPES | MEDIA_TYPES | {"boolean"},
}
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


def check_params(
    workflow: Workflow, classes: Mapping[str, ClassType]
) -> tuple[dict[str, Param], list[Diagnostic]]:
    """Return the params with their bounds filled in, and what is wrong with them.

    Only nodes that are sent count: a param that feeds none of them is unused.
    """
    faults: list[Diagnostic] = []
    feeds = _feeds(workflow, classes, faults)
    faults += _check_groups(workflow)
    resolved: dict[str, Param] = {}
    output = workflow.output
    for name, param in workflow.params.items():
        if output and output.param == name and param.type == "string" and not param.enum:
            param = replace(param, enum=tuple(output.nodes))
        wrong = _misapplied(param)
        if not wrong:
            param, wrong = _resolve(param, feeds[name])
        if not feeds[name] and not _used_otherwise(workflow, name):
            message = f"nothing uses param {show(name)}"
            hint = "write ${" + name + "} in an input, or remove the param"
            wrong.append(param.at.error("unused-param", message, hint=hint, at_key=True))
        faults += wrong
        resolved[name] = param
    return resolved, faults + _check_graph_param(workflow)


def _feeds(
    workflow: Workflow, classes: Mapping[str, ClassType], faults: list[Diagnostic]
) -> dict[str, list[Feed]]:
    feeds: dict[str, list[Feed]] = {name: [] for name in workflow.params}
    sent = sent_nodes(workflow)
    for node in workflow.graph.values():
        schemas = classes[node.id].inputs if node.id in classes else {}
        for name, value in node.inputs.items():
            for slot, whole in value.slots:
                faults += _check_slot(workflow, slot, value, node.id, name)
                for param in slot.names:
                    if param in feeds and node.id in sent:
                        schema = schemas.get(name)
                        place = _place(whole, value)
                        feeds[param].append(Feed(node, name, value.at, place, schema))
    return feeds


def _check_slot(
    workflow: Workflow, slot: Slot, value: InputValue, node: str, input: str
) -> Iterator[Diagnostic]:
    at = value.at
    for name in slot.names:
        if name not in workflow.params:
            message = f"no param {show(name)}"
            hint = did_you_mean(name, workflow.params) or f"add {name}: under params"
            yield at.error("unknown-param", message, node=node, input=input, hint=hint)
            return
        param = workflow.params[name]
        if param.type == "graph":
            message = f"{slot} is a graph: it stands for the whole graph, not for a value"
            yield at.error("misplaced-slot", message, node=node, input=input)
        elif param.may_be_absent and slot.names == (name,) and slot in value.nested_slots:
            message = f"param {show(name)} may be absent, so it is no item of a list or mapping"
            yield at.error("optional-inside", message, node=node, input=input)
    if len(slot.names) > 1 and set(slot.names) not in [set(group) for group in workflow.one_of]:
        message = f"{slot} stands for one of several params, which one_of must list"
        hint = f"add one_of: [[{', '.join(slot.names)}]]"
        yield at.error("not-one-of", message, node=node, input=input, hint=hint)


def _check_groups(workflow: Workflow) -> list[Diagnostic]:
    faults: list[Diagnostic] = []
    seen: set[str] = set()
    groups = workflow.at.mapping["one_of"].items if workflow.one_of else []
    for item in (item for group in groups for item in group.items):
        name = item.text
        param = workflow.params.get(name)
        if param is None:
            hint = did_you_mean(name, workflow.params)
            faults.append(item.error("unknown-param", f"no param {show(name)}", hint=hint))
        elif name in seen:
            faults.append(item.error("bad-param", f"param {show(name)} is in two groups"))
        elif param.optional or param.default is not None or param.type in ("seed", "graph"):
            message = "one of several params has no default, is not optional, no seed and no graph"
            faults.append(param.at.error("bad-param", message, at_key=True))
        seen.add(name)
    return faults


def _used_otherwise(workflow: Workflow, name: str) -> bool:
    if workflow.output and workflow.output.param == name:
        return True
    return workflow.graph_param is not None and name in (workflow.graph_param, "prompt")


def _check_graph_param(workflow: Workflow) -> list[Diagnostic]:
    at = workflow.at.mapping["graph"]
    name = workflow.graph_param
    faults: list[Diagnostic] = []
    for param in workflow.params.values():
        if param.type == "graph" and param.name != name:
            message = "a param of type graph is the whole graph"
            faults.append(param.at.error("bad-param", message, at_key=True))
    if name is None:
        return faults
    if name not in workflow.params:
        hint = did_you_mean(name, workflow.params)
        faults.append(at.error("unknown-param", f"no param {show(name)}", hint=hint))
    elif workflow.params[name].type != "graph" or not workflow.params[name].required:
        message = f"param {show(name)} must be of type graph, and required"
        faults.append(at.error("bad-param", message))
    prompt = workflow.params.get("prompt")
    if prompt and not (prompt.type == "string" and prompt.optional):
        message = "beside a graph, prompt replaces its positive text: an optional string"
        faults.append(prompt.at.error("bad-param", message, at_key=True))
    return faults


def _misapplied(param: Param) -> list[Diagnostic]:
    """Return keys that mean nothing for the param's type, or beside another key."""
    faults = [
        param.at.mapping[key].error(
            "bad-param", f"{key} means nothing for type {param.type}", at_key=True
        )
        for key, types in _APPLIES_TO.items()
        if key in param.at.mapping and param.type not in types
    ]
    if param.strip and param.enum:
        message = "strip means nothing beside enum, whose texts are given as they are"
        faults.append(param.at.mapping["strip"].error("bad-param", message, at_key=True))
    if param.optional and param.default is not None:
        message = "an optional param has no default: what is absent is left out"
        faults.append(param.at.mapping["default"].error("bad-param", message, at_key=True))
    if param.optional and param.type in ("seed", "graph"):
        message = f"a {param.type} cannot be optional"
        faults.append(param.at.mapping["optional"].error("bad-param", message, at_key=True))
    if param.pattern is not None and (problem := _pattern_problem(param.pattern)):
        message = f"this pattern does not compile: {problem}"
        hint = "patterns are of Rust's regex crate: no look-around, no back-references"
        faults.append(param.at.mapping["pattern"].error("bad-param", message, hint=hint))
    return faults


def _pattern_problem(pattern: str) -> str | None:
    """Ask the engine that the request models run with."""
    try:
        SchemaValidator(core_schema.str_schema(pattern=pattern))
    except SchemaError as error:
        return " ".join(str(error).split())
    return None


def _resolve(param: Param, feeds: list[Feed]) -> tuple[Param, list[Diagnostic]]:
    faults = [
        _wrong_type(param, feed)
        for feed in feeds
        if feed.schema and not _accepts(feed.schema, param, feed.place)
    ]
    if faults:
        return param, faults
    bounding = [feed for feed in feeds if feed.place == "whole" and feed.schema]
    if param.type in NUMBER_TYPES:
        is_known = all(feed.schema for feed in feeds)
        param, faults = _resolve_range(param, bounding, is_known)
    if param.type in ("string", "integer", "number"):
        param, wrong = _resolve_options(param, bounding)
        faults += wrong
    if param.type == "model":
        param, wrong = _resolve_folder(param, bounding)
        faults += wrong
    if param.strip and param.enum and "enum" not in param.at.mapping:
        message = "strip means nothing where the input has options"
        faults.append(param.at.mapping["strip"].error("bad-param", message, at_key=True))
    if not faults and _fits_nothing(param):
        message = f"no value fits param {show(param.name)}"
        hint = f"it is at least {param.minimum} and at most {param.maximum}"
        at_least = hint if param.type in NUMBER_TYPES else None
        faults.append(param.at.error("param-bounds", message, hint=at_least, at_key=True))
    return param, faults or list(_check_values(param))


def _place(whole: bool, value: InputValue) -> Place:
    if whole:
        return "whole"
    return "text" if isinstance(value.value, Template) else "nested"


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
            return "STRING" in types or ("COMBO" in types and takes)
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


def _wrong_type(param: Param, feed: Feed) -> Diagnostic:
    assert feed.schema is not None
    wanted = feed.schema.type
    if wanted == "COMBO" and not feed.schema.is_open:
        wanted = f"one of {_some(feed.schema.options)}"
    what = "text around a slot" if feed.place == "text" else f"a param of type {param.type}"
    message = f"{feed.node.class_type} takes {wanted} here, not {what} ({show(param.name)})"
    return feed.at.error("param-type", message, node=feed.node.id, input=feed.input)


def _resolve_range(
    param: Param, feeds: list[Feed], is_known: bool
) -> tuple[Param, list[Diagnostic]]:
    lows = [
        (feed.schema.minimum, feed)
        for feed in feeds
        if feed.schema and feed.schema.minimum is not None
    ]
    highs = [
        (feed.schema.maximum, feed)
        for feed in feeds
        if feed.schema and feed.schema.maximum is not None
    ]
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
    if param.multiple_of:
        first = -(-first // param.multiple_of) * param.multiple_of
    return first > param.maximum


def _resolve_options(param: Param, feeds: list[Feed]) -> tuple[Param, list[Diagnostic]]:
    closed = [
        feed
        for feed in feeds
        if feed.schema and feed.schema.type == "COMBO" and not feed.schema.is_open
    ]
    if not closed or param.prefix or param.suffix:
        return param, []
    faults: list[Diagnostic] = []
    if param.enum:
        at = param.at.mapping["enum"].items
        for feed in closed:
            assert feed.schema is not None
            for item in (item for item in at if item.value not in feed.schema.options):
                message = f"{show(item.value)} is no option of {feed}"
                hint = _nearest_option(item.value, feed.schema.options)
                faults.append(item.error("param-options", message, hint=hint))
        return param, faults
    shared = [
        option
        for option in _options(closed[0].schema or Input(""), param)
        if all(feed.schema and option in feed.schema.options for feed in closed)
    ]
    if not shared:
        message = f"the inputs of param {show(param.name)} have no option in common"
        faults.append(param.at.error("param-options", message, at_key=True))
    return replace(param, enum=tuple(shared)), faults


def _resolve_folder(param: Param, feeds: list[Feed]) -> tuple[Param, list[Diagnostic]]:
    listing = [feed for feed in feeds if feed.schema and feed.schema.folders]
    shared = [
        folder
        for folder in (listing[0].schema.folders if listing and listing[0].schema else ())
        if all(feed.schema and folder in feed.schema.folders for feed in listing)
    ]
    if param.folder is None:
        if len(shared) == 1:
            return replace(param, folder=shared[0]), []
        message = "say which model folder the file is in"
        hint = f"folder: {' or '.join(shared)}" if shared else None
        return param, [param.at.error("param-folder", message, hint=hint, at_key=True)]
    if listing and param.folder not in shared:
        message = f"folder {show(param.folder)} is not what {listing[0]} reads"
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


def misfit(value: Any, param: Param) -> str | None:
    """Return why the request model would refuse a value, or None when it takes it."""
    if param.type in INTEGER_TYPES and type(value) is not int:
        return f"type {param.type} is a whole number"
    if param.type == "number" and type(value) not in (int, float):
        return "type number is a number"
    if param.type == "boolean" and type(value) is not bool:
        return "type boolean is true or false"
    if param.type in TEXT_TYPES | MEDIA_TYPES and type(value) is not str:
        return f"type {param.type} is a text, so quote it"
    if param.type in NUMBER_TYPES:
        return _misfit_number(value, param)
    return _misfit_text(value, param) if param.type in TEXT_TYPES else None


def _misfit_number(value: float, param: Param) -> str | None:
    if param.enum and value not in param.enum:
        return _not_an_option(value, param.enum)
    if param.minimum is not None and value < param.minimum:
        return f"the minimum is {param.minimum}"
    if param.maximum is not None and value > param.maximum:
        return f"the maximum is {param.maximum}"
    if param.multiple_of is not None and value % param.multiple_of:
        return f"it is no multiple of {param.multiple_of}"
    if param.step is not None and (value - (param.minimum or 0)) % param.step:
        return f"it is not {param.minimum} plus a multiple of {param.step}"
    return None


def _misfit_text(value: str, param: Param) -> str | None:
    if param.type == "model" and not is_listed_name(value):
        return "it is no file that a model folder lists"
    if param.strip:
        value = value.strip()
    if param.enum and value not in param.enum:
        return _not_an_option(value, param.enum)
    if param.min_length is not None and len(value) < param.min_length:
        return f"it has under {param.min_length} characters"
    if param.max_length is not None and len(value) > param.max_length:
        return f"it has over {param.max_length} characters"
    if param.pattern is not None:
        matcher = SchemaValidator(core_schema.str_schema(pattern=param.pattern))
        if not matcher.isinstance_python(value):
            return f"it does not match {show(param.pattern)}"
    return None


def _not_an_option(value: Any, options: Iterable[Any]) -> str:
    options = tuple(options)
    near = did_you_mean(value, map(str, options)) if isinstance(value, str) else None
    return near or f"it is none of {_some(options)}"


def _nearest_option(value: Any, options: tuple[Any, ...]) -> str:
    near = did_you_mean(value, map(str, options)) if isinstance(value, str) else None
    return near or f"options are {_some(options)}"


def _some(options: tuple[Any, ...]) -> str:
    shown = ", ".join(show(option) for option in options[:8])
    return shown if len(options) <= 8 else f"{shown} and {len(options) - 8} more"
