"""Whether a request model would take a value: for defaults, examples and options."""

from collections.abc import Iterable
from typing import Any

from pydantic_core import SchemaValidator, core_schema

from ..graph.catalog import is_listed_name
from ..graph.words import did_you_mean, show, some
from ..spec import INTEGER_TYPES, MEDIA_TYPES, NUMBER_TYPES, TEXT_TYPES, Param


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
    return near or f"it is none of {some(options)}"
