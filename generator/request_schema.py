"""The JSON Schema of a request: what an endpoint takes, for manifest.json."""

import math
from typing import Any, Final

from .spec import INTEGER_TYPES, MEDIA_TYPES, NUMBER_TYPES, Param, Workflow

_JSON_TYPES: Final = {
    "seed": "integer",
    "image": "string",
    "video": "string",
    "audio": "string",
    "model": "string",
    "graph": "object",
}


def request_schema(workflow: Workflow) -> dict[str, Any]:
    """Return the schema of a request's body, with what JSON Schema has no word for as `x-…`.

    `x-type` is the param's type where JSON has none like it, `x-folder` a model folder, and
    `x-step` start and step of integers that no `multipleOf` describes. A param that may be absent
    takes null too. A workflow's params must have their bounds filled in.
    """
    params = workflow.params.values()
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {param.name: _property(param) for param in params},
        "required": [param.name for param in params if param.required],
    }
    if workflow.graph_param:
        files = {"type": "object", "additionalProperties": {"type": "string"}}
        schema["properties"]["files"] = files
    if workflow.one_of:
        schema["allOf"] = [
            {"oneOf": [{"required": [name]} for name in group]} for group in workflow.one_of
        ]
    return schema


def multiple_of(param: Param) -> int | None:
    """Return what every value of a param is a multiple of: `multipleOf`, and `step` if it is."""
    step = param.step if param.step and not has_offset(param) else None
    multiples = [number for number in (param.multiple_of, step) if number]
    return math.lcm(*multiples) if multiples else None


def has_offset(param: Param) -> bool:
    """Say whether steps are counted from a minimum that is no multiple of the step."""
    return bool(param.step and int(param.minimum or 0) % param.step)


def _property(param: Param) -> dict[str, Any]:
    kind = _JSON_TYPES.get(param.type, param.type)
    found: dict[str, Any] = {"type": [kind, "null"] if param.may_be_absent else kind}
    if param.type in _JSON_TYPES:
        found["x-type"] = param.type
    if param.folder:
        found["x-folder"] = param.folder
    if param.enum:
        found["enum"] = list(param.enum)
    else:
        found |= _bounds(param)
    if param.default is not None and not param.may_be_absent:
        default = str(param.default).strip() if param.strip else param.default
        found["default"] = _number(default, param)
    return found


def _bounds(param: Param) -> dict[str, Any]:
    shortest = 1 if param.type in MEDIA_TYPES else param.min_length
    bounds = {
        "minimum": _number(param.minimum, param),
        "maximum": _number(param.maximum, param),
        "multipleOf": multiple_of(param),
        "x-step": [int(param.minimum or 0), param.step] if has_offset(param) else None,
        "minLength": shortest,
        "maxLength": param.max_length,
        "pattern": param.pattern,
    }
    return {key: value for key, value in bounds.items() if value is not None}


def _number(value: Any, param: Param) -> Any:
    """Return a number as its param's type has it."""
    if value is None or param.type not in NUMBER_TYPES or isinstance(value, str):
        return value
    return int(value) if param.type in INTEGER_TYPES else float(value)
