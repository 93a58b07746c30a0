"""Write values as YAML that `load` reads back as the very same values.

Short mappings and lists are written on one line, others as blocks; a text of several lines is a
literal block where that keeps every character of it, else it is quoted.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from .graph.records import Link
from .scalars import MAX_DIGITS, resolve

WIDTH: Final = 100
INDENT: Final = 2
# YAML looks no further for the colon after a key.
MAX_KEY: Final = 1_000

# Everywhere a plain scalar, in flow collections too.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./\\]([A-Za-z0-9_./+()\\ -]|:(?=[A-Za-z0-9/]))*(?<! )")
_SLOT: Final = re.compile(r"\$\{[a-z0-9_|]+\}")
_DIGITS: Final = re.compile(r"[0-9]+")
_NOT_ITSELF: Final = re.compile(
    '["\\\\\x00-\x1f\x7f-\xa0\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff0-\uffff]'
)
_SHORT_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


class DumpError(ValueError):
    """A value that no YAML file can hold; the message says why."""


def entry(key: str, value: Any, indent: int) -> list[str]:
    """Return the lines of a mapping's entry.

    Raises:
        DumpError: for what the loader would not read back: null, numbers that are not finite or too
            long, lone surrogates, keys of over a thousand characters.
    """
    start = f"{' ' * indent}{key_text(key)}:"
    if isinstance(value, str) and (literal := _literal_block(value, indent)):
        return [f"{start} {literal[0]}", *literal[1:]]
    if isinstance(value, Link) or not isinstance(value, Mapping | list | tuple):
        return [f"{start} {scalar(value)}"]
    line = f"{start} {flow(value)}"
    if not value or (len(line) <= WIDTH and not _is_deep(value)):
        return [line]
    return [start, *block(value, indent + INDENT)]


def block(value: Mapping[str, Any] | list[Any] | tuple[Any, ...], indent: int) -> list[str]:
    """Return the lines of a mapping or list, one entry after the other. Raises DumpError."""
    if isinstance(value, Mapping):
        return [line for key, item in value.items() for line in entry(key, item, indent)]
    lines: list[str] = []
    for item in value:
        if isinstance(item, Mapping | list | tuple) and not isinstance(item, Link) and item:
            below = block(item, indent + INDENT)
            lines += [f"{' ' * indent}- {below[0].lstrip(' ')}", *below[1:]]
        else:
            lines.append(f"{' ' * indent}- {scalar(item)}")
    return lines


def flow(value: Any) -> str:
    """Return a value on one line. Raises DumpError."""
    if isinstance(value, Link):
        return f"[{_node_id(value.node)}, {value.output}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key_text(k)}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str):
        return value if _is_plain(value) else quoted(value)
    return scalar(value)


def scalar(value: Any) -> str:
    """Return a scalar, a link or an empty collection after a key and a colon. Raises DumpError."""
    match value:
        case str():
            is_plain = _is_plain(value) or _SLOT.fullmatch(value)
            return value if is_plain else quoted(value)
        case bool():
            return "true" if value else "false"
        case int():
            if abs(value) >= 10 ** (MAX_DIGITS - 1):
                raise DumpError(f"a number of over {MAX_DIGITS - 1} digits")
            return str(value)
        case float():
            if not math.isfinite(value):
                raise DumpError("a number that is not finite")
            return repr(value)
        case None:
            raise DumpError("null")
    return flow(value)


def quoted(text: str) -> str:
    """Return a text in double quotes, on one line. Raises DumpError for lone surrogates."""
    return '"' + _NOT_ITSELF.sub(_escape, text) + '"'


def key_text(key: str) -> str:
    """Return a key. Raises DumpError for one that is too long."""
    if len(key) > MAX_KEY:
        raise DumpError(f"a name of over {MAX_KEY} characters")
    return key if _is_plain(key) or _DIGITS.fullmatch(key) else quoted(key)


def _node_id(node: str) -> str:
    return node if _DIGITS.fullmatch(node) and len(node) < MAX_DIGITS else quoted(node)


def _is_plain(text: str) -> bool:
    """Say whether a text means itself without quotes, in a block and on one line with others."""
    try:
        return bool(_PLAIN.fullmatch(text)) and isinstance(resolve(text), str)
    except ValueError:
        return False


def _is_deep(value: Any) -> bool:
    """Say whether a collection holds another one, links aside, or a text of several lines."""
    items = value.values() if isinstance(value, Mapping) else value
    return any(
        (isinstance(item, Mapping | list | tuple) and not isinstance(item, Link) and bool(item))
        or (isinstance(item, str) and "\n" in item)
        for item in items
    )


def _literal_block(text: str, indent: int) -> list[str] | None:
    """Return a text of several lines as a literal block, None where that would change it."""
    body = text.removesuffix("\n")
    lines = body.split("\n")
    if len(lines) < 2 or not lines[0].strip() or not lines[-1].strip() or lines[0][0] in " \t":
        return None
    if any(_NOT_ITSELF.search(line.replace("\\", "").replace('"', "")) for line in lines):
        return None
    if any(line and not line.strip(" ") for line in lines):
        return None
    mark = "|" if text.endswith("\n") else "|-"
    pad = " " * (indent + INDENT)
    return [mark, *(pad + line if line else "" for line in lines)]


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    if "\ud800" <= char <= "\udfff":
        raise DumpError("half of a surrogate pair, which is no character")
    return _SHORT_ESCAPES.get(char) or f"\\u{ord(char):04x}"
