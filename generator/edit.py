"""Change single values of a YAML file and leave every other character of it as it is.

A person's comments, order and layout survive: the parser says where each value starts and ends, and
only there is the text replaced. What comes out is loaded again and must say what was asked for.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import yaml

from .dump import INDENT, entry, flow, key_text, scalar
from .load import Escapes, Node, load_text

Path = tuple[str, ...]

_REST_OF_LINE: Final = re.compile(r"[^\r\n]*")
_END_OF_LINE: Final = re.compile(r"\r\n|\r|\n|$")


class EditError(ValueError):
    """The text cannot be changed as asked; the message says why."""


@dataclass(slots=True)
class _Span:
    """A value in the text. `end` of a block is that of the last value in it."""

    start: int
    end: int
    is_inline: bool = True
    is_mapping: bool = False
    entries: "dict[str, _Entry]" = field(default_factory=dict)


@dataclass(slots=True)
class _Entry:
    """A key in the text, from `start` to `key_end`, and the value under it."""

    start: int
    key_end: int
    column: int
    value: _Span


class _Insert(NamedTuple):
    key: str
    value: Any
    comments: Sequence[str]
    after: str | None


class _Change(NamedTuple):
    """Text that takes the place of what stands from `start` to `end`."""

    start: int
    end: int
    text: str


class Editor:
    """One file that is being changed. All paths are those of the text as it was at first."""

    def __init__(self, text: str, name: str) -> None:
        """Read a text; `name` is what errors call it. Raises EditError when it is no mapping."""
        root, faults = load_text(text, name)
        if root is None or faults or not isinstance(root.value, dict):
            raise EditError(f"{name} cannot be read; validate says what is wrong with it")
        self._text = text
        self._name = name
        self._said: Any = _meaning(root)
        self._root = _Parser(text).root()
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._sets: dict[Path, Any] = {}
        self._renames: dict[Path, str] = {}
        self._removed: set[Path] = set()
        self._inserts: dict[Path, list[_Insert]] = {}
        self._changes: list[_Change] = []

    def set(self, path: Path, value: Any) -> None:
        """Give an entry another value; one on one line stays on one. Raises EditError, DumpError."""
        found = self._entry(path)
        self._sets[path] = value
        span = found.value
        if span.is_inline:
            in_flow = self._span(path[:-1]).is_inline
            is_json = in_flow and self._text[found.start] == '"'
            text = _json(value) if is_json else flow(value) if in_flow else scalar(value)
            self._changes.append(_Change(span.start, span.end, text))
        else:
            lines = entry(path[-1], value, found.column)
            text = self._newline.join(lines).lstrip(" ")
            self._changes.append(_Change(found.start, span.end, text))

    def insert(
        self, path: Path, value: Any, comments: Sequence[str] = (), after: str | None = None
    ) -> None:
        """Add an entry to a mapping: behind the entry `after`, or at the end.

        Comments stand above it, but in flow collections. Raises EditError.
        """
        if not self._span(path[:-1]).is_mapping:
            raise EditError(f"{self._name}: {_shown(path[:-1])} is no mapping")
        self._inserts.setdefault(path[:-1], []).append(_Insert(path[-1], value, comments, after))

    def remove(self, path: Path) -> None:
        """Remove an entry, and with it the comments right above it. Raises EditError."""
        self._entry(path)
        self._removed.add(path)

    def rename(self, path: Path, key: str) -> None:
        """Give an entry another key. Raises EditError, DumpError."""
        found = self._entry(path)
        self._renames[path] = key
        is_json = self._text[found.start] == '"'
        self._changes.append(
            _Change(found.start, found.key_end, _json(key) if is_json else key_text(key))
        )

    def comment_above(self, path: Path) -> str:
        """Return the comment in the line right above an entry, empty where there is none."""
        try:
            start = self._text.rfind("\n", 0, self._entry(path).start) + 1
        except EditError:
            return ""
        line = self._text[self._text.rfind("\n", 0, max(0, start - 1)) + 1 : start].strip()
        return line.removeprefix("#").strip() if line.startswith("#") else ""

    def result(self) -> str:
        """Return the changed text.

        Raises:
            EditError: when two changes clash, or when the text is laid out so that it would say
                something else than was asked for.
            DumpError: when a value cannot be written as YAML.
        """
        wanted = self._wanted((), self._said)
        changes = [*self._changes, *dict.fromkeys(self._removals())]
        for path, inserts in self._inserts.items():
            changes += self._insertions(path, inserts)
        text = _applied(self._text, changes)
        if changes:
            root, faults = load_text(text, self._name)
            if root is None or faults or _meaning(root) != wanted:
                raise EditError(
                    f"{self._name} is laid out in a way that cannot be changed without writing it "
                    "anew; make the change by hand"
                )
        return text

    def _wanted(self, path: Path, said: Any) -> Any:
        """Return what a value is to say, of what it says. Raises EditError for keys that clash."""
        if path in self._sets:
            return _meaning(self._sets[path])
        if not isinstance(said, dict):
            return said
        inner = [((*path, key), item) for key, item in said.items()]
        entries = [
            (self._renames.get(one, one[-1]), self._wanted(one, item))
            for one, item in inner
            if one not in self._removed
        ]
        entries += [(one.key, _meaning(one.value)) for one in self._inserts.get(path, ())]
        wanted = dict(entries)
        if len(wanted) != len(entries):
            keys = [key for key, _ in entries]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise EditError(f"{self._name}: {_shown((*path, twice))} is there already")
        return wanted

    def _entry(self, path: Path) -> _Entry:
        found = _Entry(0, 0, 0, self._root)
        for key in path:
            if key not in found.value.entries:
                raise EditError(f"{self._name} has no {_shown(path)}")
            found = found.value.entries[key]
        return found

    def _span(self, path: Path) -> _Span:
        return self._entry(path).value

    def _kept(self, path: Path) -> dict[str, _Entry]:
        entries = self._span(path).entries
        return {key: e for key, e in entries.items() if (*path, key) not in self._removed}

    def _insertions(self, path: Path, inserts: list[_Insert]) -> Iterator[_Change]:
        parent = self._span(path)
        if parent.is_inline and (parent.entries or (path and self._span(path[:-1]).is_inline)):
            yield from self._flow_insertions(path, inserts)
            return
        kept = self._kept(path)
        column = self._entry(path).column + INDENT if path else 0
        if parent.entries:
            column = next(iter(parent.entries.values())).column
        elif parent.is_inline:
            # `models: {}`: the braces go, and what was inside comes below.
            yield _Change(self._after_colon(path), parent.end, "")
        for key, value, comments, after in inserts:
            last = kept[after] if after in kept else next(reversed(kept.values()), None)
            at = last.value.end if last else parent.end if parent.is_inline else self._colon(path)
            lines = [f"{' ' * column}# {comment}" for comment in comments]
            lines += entry(key, value, column)
            at = _end(_REST_OF_LINE, self._text, at)
            yield _Change(at, at, "".join(self._newline + line for line in lines))

    def _flow_insertions(self, path: Path, inserts: list[_Insert]) -> Iterator[_Change]:
        parent, kept = self._span(path), self._kept(path)
        model = next(iter(parent.entries.values()), self._entry(path))
        is_json = self._text[model.start] == '"'
        line = self._text.rfind("\n", 0, model.start) + 1
        indent = self._text[line : model.start]
        gap = " " if indent.strip() else self._newline + indent
        is_first = not kept
        for key, value, _, after in inserts:
            last = kept[after] if after in kept else next(reversed(kept.values()), None)
            at = last.value.end if last else parent.start + 1
            text = f"{_json(key)}: {_json(value)}" if is_json else f"{key_text(key)}: {flow(value)}"
            yield _Change(at, at, text if is_first else f",{gap}{text}")
            is_first = False

    def _removals(self) -> Iterator[_Change]:
        inner = {p for p in self._removed if not any(p[:n] in self._removed for n in range(len(p)))}
        for path in inner:
            parent, kept = self._span(path[:-1]), self._kept(path[:-1])
            gone = parent.entries[path[-1]]
            if parent.is_inline:
                yield _flow_removal(parent, gone, kept)
            elif kept or path[:-1] in self._inserts:
                yield self._block_removal(gone)
            else:
                yield _Change(self._colon(path[:-1]), parent.end, " {}")

    def _block_removal(self, gone: _Entry) -> _Change:
        start = self._text.rfind("\n", 0, gone.start) + 1
        indent = self._text[start : gone.start]
        if indent.strip():
            raise EditError(f"{self._name}: an entry of a list cannot be removed alone")
        while start:
            above = self._text.rfind("\n", 0, start - 1) + 1
            is_comment = self._text.startswith(f"{indent}#", above)
            if not is_comment or above == 0:  # the first line is the file's own
                break
            start = above
        end = _end(_REST_OF_LINE, self._text, gone.value.end)
        return _Change(start, _end(_END_OF_LINE, self._text, end), "")

    def _colon(self, path: Path) -> int:
        return self._text.index(":", self._entry(path).key_end) + 1

    def _after_colon(self, path: Path) -> int:
        return self._colon(path) if path else self._root.start


class _Parser:
    """Finds where the values of a text are; the text must be one that the loader takes."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._escapes = Escapes(text)
        self._parser: Any = yaml.CLoader(self._escapes.hide(text))

    def root(self) -> _Span:
        """Return the span of the document's root."""
        self._next()  # the stream's start
        self._next()  # the document's start
        return self._value(self._next())

    def _next(self) -> Any:
        return self._parser.get_event()

    def _value(self, event: Any) -> _Span:
        start, end = event.start_mark.index, event.end_mark.index
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, start, end)
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        span = _Span(start, end, bool(event.flow_style), is_mapping)
        while not isinstance(inner := self._next(), yaml.CollectionEndEvent):
            if is_mapping:
                key, made = self._entry(inner)
                span.entries[key] = made
                span.end = made.value.end
            else:
                span.end = self._value(inner).end
        if span.is_inline:
            mark: Any = inner.end_mark
            span.end = mark.index
        return span

    def _entry(self, event: Any) -> tuple[str, _Entry]:
        key = self._escapes.restore(event.value, quoted=event.style == '"')
        start, end = event.start_mark, event.end_mark
        return key, _Entry(start.index, end.index, start.column, self._value(self._next()))

    def _scalar(self, event: Any, start: int, end: int) -> _Span:
        if event.style not in ("|", ">"):
            return _Span(start, end)
        written = self._text[start:end]
        if "+" not in written.split("\n", 1)[0]:
            end = start + len(written.rstrip("\r\n"))
        return _Span(start, end, is_inline=False)


def _flow_removal(parent: _Span, gone: _Entry, kept: dict[str, _Entry]) -> _Change:
    """Return the removal of an entry and of the comma that sets it off from those that are kept."""
    if not kept:
        return _Change(parent.start + 1, parent.end - 1, "")
    behind = [one.start for one in kept.values() if one.start > gone.start]
    before = [one.value.end for one in kept.values() if one.start < gone.start]
    if behind:
        return _Change(gone.start, behind[0], "")
    return _Change(before[-1], gone.value.end, "")


def _applied(text: str, changes: list[_Change]) -> str:
    """Return a text with all changes made. Removals may overlap, and swallow changes in them."""
    gone: list[list[int]] = []
    for start, end, _ in sorted(change for change in changes if not change.text):
        if gone and start <= gone[-1][1]:
            gone[-1][1] = max(gone[-1][1], end)
        else:
            gone.append([start, end])
    kept = [
        change
        for change in changes
        if change.text
        and not any(
            s <= change.start and change.end <= e and change.start < change.end for s, e in gone
        )
    ]
    ordered = sorted([*kept, *(_Change(s, e, "") for s, e in gone)], key=lambda c: c.start)
    parts: list[str] = []
    at = 0
    for start, end, new in ordered:
        parts += [text[at : max(at, start)], new]
        at = max(at, end)
    return "".join([*parts, text[at:]])


def _meaning(value: Any) -> Any:
    """Return what a value says, in a form that compares: 1 is not 1.0, and a link names its node."""
    if isinstance(value, Node):
        if isinstance(value.value, list):
            first, *rest = value.items or [value]
            if (
                len(rest) == 1
                and type(rest[0].value) is int
                and not isinstance(first.value, list | dict)
            ):
                return ("link", first.text, rest[0].value)
            return [_meaning(item) for item in value.items]
        value = value.mapping if isinstance(value.value, dict) else value.value
    if isinstance(value, dict):
        return {key: _meaning(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if len(value) == 2 and type(value[1]) is int and not isinstance(value[0], list | dict):
            source = value[0] if isinstance(value[0], str) else scalar(value[0])
            return ("link", source, value[1])
        return [_meaning(item) for item in value]
    return (type(value).__name__, value)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _shown(path: Path) -> str:
    return ".".join(path) or "the file"
