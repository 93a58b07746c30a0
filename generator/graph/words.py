"""The words that findings use: values as a message may quote them, and names that come near."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches
from functools import lru_cache
from reprlib import Repr
from typing import Any, Final

_SHOWN_LENGTH: Final = 80
_SHOWN_OPTIONS: Final = 8
# How alike a misspelt name is, and how many letters are wrong in it; two that changed places are 2.
_SLIP: Final = 0.8
_MOST_SLIPS: Final = 2
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


def misspelt(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a wrong one is, but for a slip or two; None when it is another.

    A longer name that starts with a known one is another: packs call their own version of a class
    so.
    """
    return _misspelt(name[:200].casefold(), tuple(known))


@lru_cache(maxsize=256)
def _misspelt(written: str, known: tuple[str, ...]) -> str | None:
    choices = {candidate.casefold(): candidate for candidate in known}
    for near in get_close_matches(written, choices, cutoff=_SLIP):
        steps = SequenceMatcher(None, near, written, autojunk=False).get_opcodes()
        slips = sum(max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in steps if tag != "equal")
        rest = written.removeprefix(near)
        if slips <= _MOST_SLIPS and (
            rest == written or not rest or (len(rest) == 1 and rest.isalpha())
        ):
            return choices[near]
    return None


def printable(text: str) -> str:
    """Return a text with everything escaped that does not print as itself on one line."""
    return _UNPRINTABLE.sub(lambda m: m[0] if m[0].isprintable() else repr(m[0])[1:-1], text)
