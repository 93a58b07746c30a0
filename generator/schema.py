"""Validate loaded files against the JSON Schemas of the three kinds of file."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from .diagnostics import Diagnostic
from .graph.words import did_you_mean, nearest, show
from .load import Node

Kind = Literal["workflow", "models", "gpu"]

SCHEMAS: Final = Path(__file__).parent / "schemas"

_TYPES: Final = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


def validate(root: Node, kind: Kind) -> list[Diagnostic]:
    """Return every place where a file breaks its schema."""
    errors = list(_validator(kind).iter_errors(root.plain))
    mistyped = {tuple(e.absolute_path) for e in errors if e.validator == "type"}
    errors = [
        error
        for error in errors
        if error.validator == "type" or tuple(error.absolute_path) not in mistyped
    ]
    extras = {
        tuple(error.absolute_path): _extras(error)
        for error in errors
        if error.validator == "additionalProperties"
    }
    faults: list[Diagnostic] = []
    for error in errors:
        faults += _faults(error, root, extras.get(tuple(error.absolute_path), []))
    return faults


def fits(document: Any, kind: Kind) -> bool:
    """Say whether a document, as `json.loads` returns one, keeps to its schema."""
    return bool(_validator(kind).is_valid(document))


def first_fault(document: Any, schema: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a document that has no positions, by its path; None if nothing."""
    faults = sorted(Draft7Validator(schema).iter_errors(document), key=lambda f: list(f.path))
    if not faults:
        return None
    place = "/".join(map(str, faults[0].path))
    return f"{place}: {faults[0].message}" if place else faults[0].message


def schema(kind: Kind) -> dict[str, Any]:
    """Return the JSON Schema (draft-07) of a kind of file."""
    loaded: dict[str, Any] = json.loads((SCHEMAS / f"{kind}.schema.json").read_bytes())
    return loaded


@cache
def _validator(kind: Kind) -> Any:
    make: Any = extend  # untyped in jsonschema
    types = Draft7Validator.TYPE_CHECKER.redefine("integer", _is_integer)
    whole = schema(kind)
    inlined = _inlined(whole, whole.get("definitions", {}))
    return make(Draft7Validator, {"pattern": _pattern}, type_checker=types)(inlined)


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a schema with definitions in the place of references, which take long to follow."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items()}


def _is_integer(_: Any, value: Any) -> bool:
    """Take no 1.0 for an integer, as JSON Schema does: it would go on as a float."""
    return type(value) is int


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    """As JSON Schema says: `$` is the end, where Python's also stands before a last newline."""
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), value):
        yield ValidationError("pattern")


def _faults(error: ValidationError, root: Node, extras: list[str]) -> list[Diagnostic]:
    """Return what to say of an error; `extras` are the unknown keys of the same mapping."""
    node, at_name = _find(root, list(error.absolute_path))
    if error.validator == "required":
        missing = [key for key in _missing(error) if key not in _misspelt(error, extras)]
        if not missing:
            return []
        message = f"missing {', '.join(show(key) for key in missing)}"
        hint = _description(error, missing[0]) or _schema_at(error).get("description")
        return [node.error("missing-key", message, hint=hint, at_key=at_name)]
    if error.validator == "additionalProperties":
        known = _schema_at(error).get("properties", {})
        required = _schema_at(error).get("required", [])
        return [
            node.mapping[key].error(
                "unknown-key",
                f"unknown key {show(key)}",
                hint=did_you_mean(key, required) or _known(key, known),
                at_key=True,
            )
            for key in extras
        ]
    message, hint = _message(error)
    if "propertyNames" in error.absolute_schema_path:
        names = [entry for key, entry in node.mapping.items() if key == error.instance]
        return [entry.error("bad-name", message, hint=hint, at_key=True) for entry in names]
    return [node.error("schema", message, hint=hint)]


def _missing(error: ValidationError) -> list[str]:
    """Return the keys that a mapping must have and has not."""
    required: Any = error.validator_value
    present: Any = error.instance
    return [key for key in required if key not in present]


def _misspelt(error: ValidationError, extras: list[str]) -> set[str | None]:
    """Return the missing keys that an unknown key comes near to: that one is reported."""
    return {nearest(key, _missing(error)) for key in extras}


def _extras(error: ValidationError) -> list[str]:
    """Return the keys of a mapping that its schema does not know."""
    known = _schema_at(error).get("properties", {})
    present: Any = error.instance
    return [key for key in present if key not in known]


def _find(root: Node, path: list[str | int]) -> tuple[Node, bool]:
    node = root
    for step in path:
        node = node.mapping[str(step)] if isinstance(node.value, dict) else node.items[int(step)]
    return node, bool(path) and isinstance(path[-1], str)


def _known(key: str, known: dict[str, Any]) -> str:
    return did_you_mean(key, known) or f"known are {', '.join(sorted(known))}"


def _message(error: ValidationError) -> tuple[str, str | None]:
    """Return what to tell the user; the schema's description of the place is the hint."""
    limit: Any = error.validator_value
    value: Any = error.instance
    hint = _schema_at(error).get("description")
    match error.validator:
        case "type":
            types = [limit] if isinstance(limit, str) else [t for t in limit if t != "null"]
            expected = " or ".join(_TYPES[t] for t in types)
            found = "nothing" if value is None else _kind_of(value)
            return f"expected {expected}, found {found}", hint
        case "enum":
            options = ", ".join(map(str, limit))
            near = did_you_mean(value, map(str, limit)) if isinstance(value, str) else None
            return f"{show(value)} is none of {options}", near
        case "pattern":
            return f"{show(value)} does not match {limit}", hint
        case "minimum" | "exclusiveMinimum":
            word = "at least" if error.validator == "minimum" else "more than"
            return f"{show(value)} is too small: {word} {limit}", hint
        case "maximum":
            return f"{show(value)} is too large: at most {limit}", hint
        case "minLength" | "minItems" | "minProperties":
            return f"too short: at least {limit}", hint
        case "maxLength" | "maxProperties" | "maxItems":
            return f"too long: at most {limit}", hint
        case "uniqueItems":
            return "an item stands here twice", hint
        case "oneOf":
            choices = " or ".join(" with ".join(choice["required"]) for choice in limit)
            return f"needs exactly one of {choices}", hint
    return f"{show(value)} breaks {error.validator} {show(limit)}", hint


def _schema_at(error: ValidationError) -> Mapping[str, Any]:
    return error.schema if isinstance(error.schema, Mapping) else {}


def _description(error: ValidationError, key: str) -> str | None:
    described = _schema_at(error).get("properties", {}).get(key, {})
    found: str | None = described.get("description")
    return found


def _kind_of(value: Any) -> str:
    match value:
        case bool() | int() | float():
            return str(value).lower()
        case str():
            return show(value)
        case list():
            return "a list"
    return "a mapping"
