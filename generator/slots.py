"""Slots: `${param}` in the text of an input's value."""

import re
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_NAMES: Final = re.compile(r"[a-z][a-z0-9_]*(\|[a-z][a-z0-9_]*)*")


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a param's value; with several names, for the one that the caller gave."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return "${" + "|".join(self.names) + "}"


@dataclass(frozen=True, slots=True)
class Template:
    """Text with slots. A template of one slot and no text stands for the typed value."""

    parts: tuple[str | Slot, ...]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The slots, in order."""
        return tuple(part for part in self.parts if isinstance(part, Slot))

    @property
    def whole(self) -> Slot | None:
        """The slot that is the whole value, if it is."""
        return self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], Slot) else None


def has_slot(text: str) -> bool:
    """Say whether a text holds anything that looks like a slot."""
    return "${" in text


def parse(text: str) -> str | Template:
    """Return the text with `$${` read as `${`, or a template when it holds slots.

    Raises:
        ValueError: when a `${` starts no slot.
    """
    parts: list[str | Slot] = []
    literal = ""
    end = 0
    for token in _TOKEN.finditer(text):
        literal += text[end : token.start()]
        end = token.end()
        if token[0] == "$${":
            literal += "${"
            continue
        if token[1] is None or not _NAMES.fullmatch(token[1]):
            raise ValueError(f"{token[0]} is no slot")
        parts += [literal] if literal else []
        parts.append(Slot(tuple(token[1].split("|"))))
        literal = ""
    literal += text[end:]
    if not parts:
        return literal
    return Template((*parts, literal) if literal else tuple(parts))
