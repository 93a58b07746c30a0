"""The words that findings use: values as a message may quote them, and names that come near."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from reprlib import Repr
from typing import Any, Final

_SHOWN_LENGTH: Final = 80
_SHOWN_OPTIONS: Final = 8
_UNPRINTABLE: Final = re.compile(r"[^ -~]")
_SHORT: Final = Repr()
_SHORT.maxother = _SHORT.maxlong = _SHORT.maxstring = _SHOWN_LENGTH


def show(value: object) -> str:
    """Return a value as a message may quote it: on one line, printable, shortened.

    Control characters, bidirectional marks and lone surrogates come out escaped, so that a spec
    cannot repaint the terminal that shows its faults.
    """
    if isinstance(value, str):
        is_long = len(value) > _SHOWN_LENGTH
        return f'"{printable(value[: _SHOWN_LENGTH - 1] + "…" if is_long else value)}"'
    try:
        return printable(_SHORT.repr(value))
    except ValueError:
        return "a number of thousands of digits"


def some(options: tuple[Any, ...]) -> str:
    """Return the first options, and how many more there are."""
    shown = ", ".join(show(option) for option in options[:_SHOWN_OPTIONS])
    more = len(options) - _SHOWN_OPTIONS
    return shown if more <= 0 else f"{shown} and {more} more"


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return a hint that names the nearest known name, or None when nothing is near."""
    near = nearest(name, known)
    return None if near is None else f"did you mean {show(near)}?"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is nearest to a wrong one, or None when nothing is near."""
    return _nearest(name[:200].casefold(), tuple(known))


# One mistake is often made on many nodes, and each comparison takes its time.
@lru_cache(maxsize=256)
def _nearest(name: str, known: tuple[str, ...]) -> str | None:
    choices = {candidate.casefold(): candidate for candidate in known}
    near = get_close_matches(name, choices, n=1)
    return choices[near[0]] if near else None


def printable(text: str) -> str:
    """Return a text with everything escaped that does not print as itself on one line."""
    return _UNPRINTABLE.sub(lambda m: m[0] if m[0].isprintable() else repr(m[0])[1:-1], text)
