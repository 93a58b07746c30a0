"""Python source for values of specs. Templates print nothing else of them.

`Source` marks text that is Python: what the functions here return, and identifiers that were
checked. The renderer refuses to print any other text, so that no YAML value can become code.
"""

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from .graph.records import Link
from .slots import Slot, Template

_WRAP_FROM: Final = 60
_WRAP_WIDTH: Final = 72
_DOC_WIDTH: Final = 92
_WRAP_UP_TO: Final = 2_000
_SPECIAL: Final = re.compile(r'["\\]|[^ -~]')
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Source(str):
    """Text that is Python source."""

    __slots__ = ()


def identifier(name: str) -> Source:
    """Return a name as source. Raises ValueError for what is no ASCII identifier."""
    if not _IDENTIFIER.fullmatch(name):
        raise ValueError(f"{name!r} is no identifier")
    return Source(name)


def literal(value: Any) -> Source:
    """Return the literal of a scalar, or of a list or mapping of them."""
    return expression(value, _no_slot, _no_slot)


def prose(text: str) -> Source:
    """Return a text literal, over several lines when it is long."""
    if not _WRAP_FROM < len(text) <= _WRAP_UP_TO:
        return literal(text)
    lines = textwrap.wrap(
        text, _WRAP_WIDTH, expand_tabs=False, replace_whitespace=False, drop_whitespace=False
    )
    if len(lines) == 1 or "".join(lines) != text:
        return literal(text)
    return Source("(" + " ".join(map(literal, lines)) + ")")


def docstring(first: str, rest: str = "") -> Source:
    """Return a docstring: a line, and under it more text on wrapped lines."""
    return docstring_of([first, *(["", *textwrap.wrap(rest, _DOC_WIDTH), ""] if rest else [])])


def docstring_of(lines: Iterable[str]) -> Source:
    """Return a docstring of lines; one that ends below its first line needs an empty last one."""
    escaped = [_escaped(line).replace('\\"', '"').replace('"""', '\\"\\"\\"') for line in lines]
    if escaped[-1].endswith('"'):
        escaped.append("")
    return Source('"""' + "\n".join(escaped) + '"""')


def expression(value: Any, typed: Callable[[Slot], str], as_text: Callable[[Slot], str]) -> Source:
    """Return source for an input's value.

    `typed` gives the expression for a slot that is the whole value, `as_text` the one for a slot
    inside a longer text.
    """
    match value:
        case Template():
            if value.whole:
                return Source(typed(value.whole))
            parts = (
                "{" + as_text(part) + "}"
                if isinstance(part, Slot)
                else _escaped(part).replace("{", "{{").replace("}", "}}")
                for part in value.parts
            )
            return Source('f"' + "".join(parts) + '"')
        case Link():
            return Source(f"[{literal(value.node)}, {value.output}]")
        case str():
            return Source(f'"{_escaped(value)}"')
        case Mapping():
            entries = (
                f"{literal(key)}: {expression(item, typed, as_text)}" for key, item in value.items()
            )
            return Source("{" + ", ".join(entries) + "}")
        case list():
            items = (expression(item, typed, as_text) for item in value)
            return Source("[" + ", ".join(items) + "]")
        case tuple():
            items = (expression(item, typed, as_text) for item in value)
            return Source("(" + ", ".join(items) + ("," if len(value) == 1 else "") + ")")
        case bool() | int() | float() | None:
            return Source(repr(value))
    raise TypeError(f"no literal for {type(value).__name__}")


def _escaped(text: str) -> str:
    """Escape what ends a literal, and whatever does not print as itself."""
    return _SPECIAL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else repr(char)[1:-1]


def _no_slot(slot: Slot) -> str:
    raise TypeError(f"{slot} is no literal")
