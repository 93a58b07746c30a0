"""Load YAML files as trees of nodes that know where they stand.

Only what JSON can say is accepted: mappings with text keys, sequences and scalars of the YAML 1.2
core schema. Anchors, aliases, merge keys, tags and duplicate keys are errors, and JSON itself is
read as it is.
"""

import re
from codecs import BOM_UTF8
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from .diagnostics import Diagnostic, Severity
from .graph.words import show
from .scalars import Scalar, resolve

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 64
MAX_NODES: Final = 200_000

_TOO_NESTED: Final = "exceeded maximum nesting depth"
_HINTS: Final = {
    "found a tab character that violates indentation": "indent with spaces, not with tabs",
    "found character that cannot start any token": (
        "indent with spaces, and quote a value that starts with a tab, @, ` or %"
    ),
    "mapping values are not allowed in this context": (
        'is a ":" missing in the line before, or a space after it? quote a value that holds ": "'
    ),
    "could not find expected ':'": (
        'is a ":" missing, here or in the line before? JSON starts on the line of its key (key: {)'
    ),
    "did not find expected key": "is this line indented as the keys before it?",
    "found invalid Unicode character escape code": (
        "a surrogate must be one half of a pair, as in JSON"
    ),
    "did not find expected ',' or '}'": (
        "is a comma or a closing brace missing? quote a value that holds one"
    ),
    "did not find expected ',' or ']'": (
        "is a comma or a closing bracket missing? quote a value that holds one"
    ),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a YAML file and where it stands.

    `line` and `column` count from 1, in characters; `key` is the same for the key that the value
    stands under, when it stands in a mapping. `text` is a scalar as written, without quotes.
    """

    value: "Scalar | list[Node] | dict[str, Node]"
    file: str
    line: int
    column: int
    key: tuple[int, int] | None = None
    text: str = ""

    @property
    def mapping(self) -> "dict[str, Node]":
        """The entries, or none when this is no mapping."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> "list[Node]":
        """The items, or none when this is no sequence."""
        return self.value if isinstance(self.value, list) else []

    @property
    def plain(self) -> Any:
        """The value without positions, as `json.loads` would return it."""
        if isinstance(self.value, dict):
            return {key: node.plain for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain for node in self.value]
        return self.value

    def report(
        self,
        severity: Severity,
        code: str,
        message: str,
        *,
        node: str | None = None,
        input: str | None = None,
        hint: str | None = None,
        at_key: bool = False,
    ) -> Diagnostic:
        """Return a diagnostic that points here, or with `at_key` to the key of this value."""
        line, column = self.key if at_key and self.key else (self.line, self.column)
        return Diagnostic(
            self.file, line, column, severity, code, message, node=node, input=input, hint=hint
        )

    def error(
        self,
        code: str,
        message: str,
        *,
        node: str | None = None,
        input: str | None = None,
        hint: str | None = None,
        at_key: bool = False,
    ) -> Diagnostic:
        """Return an error that points here; as `report`."""
        return self.report(
            Severity.ERROR, code, message, node=node, input=input, hint=hint, at_key=at_key
        )


def load_file(path: Path, name: str) -> tuple[Node | None, list[Diagnostic]]:
    """Load a YAML file; `name` is what diagnostics call it.

    Returns the file's root, or None when it has none, and the faults found. Never raises for what
    the file holds, nor when it cannot be read.
    """
    try:
        if not path.is_file():
            return None, [_fault(name, "unreadable", "this is no regular file")]
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        return None, [_fault(name, "unreadable", f"cannot be read: {error.strerror}")]
    if len(data) > MAX_BYTES:
        return None, [_fault(name, "too-large", f"a spec has at most {MAX_BYTES >> 20} MiB")]
    data = data.removeprefix(BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        message = f"byte 0x{data[error.start]:02x} is no UTF-8"
        hint = "save the file as UTF-8"
        return None, [_fault(name, "not-utf8", message, *_position(before, len(before)), hint)]
    return load_text(text, name)


def load_text(text: str, name: str) -> tuple[Node | None, list[Diagnostic]]:
    """Load YAML text; as `load_file`."""
    if control := _CONTROL.search(text):
        message = f"control character U+{ord(control[0]):04X}"
        hint = f'in a quoted text, write it as "\\x{ord(control[0]):02x}"'
        place = _position(text, control.start())
        return None, [_fault(name, "control-character", message, *place, hint)]
    try:
        escapes = Escapes(text)
    except StopIteration:
        return None, [_fault(name, "too-large", "this text uses every private-use character")]
    composer = _Composer(escapes.hide(text), name, escapes)
    try:
        root = composer.document()
    except _TooMuchError as stop:
        return None, [*composer.faults, stop.fault]
    except yaml.MarkedYAMLError as error:
        if error.problem == _TOO_NESTED and error.problem_mark:
            # libyaml 0.2.6 gives up before it tells of anything; up to there it does tell.
            return load_text(text[: error.problem_mark.index], name)
        return None, [*composer.faults, _bare_slot(error, text, name) or _syntax_fault(error, name)]
    except yaml.YAMLError as error:
        return None, [*composer.faults, _fault(name, "syntax", f"this is no YAML: {error}")]
    return root, composer.faults


class _TooMuchError(Exception):
    def __init__(self, fault: Diagnostic) -> None:
        self.fault = fault


class _Composer:
    """Builds the tree from the parser's events, which come one by one."""

    def __init__(self, text: str, name: str, escapes: "Escapes") -> None:
        self.faults: list[Diagnostic] = []
        self._next: Callable[[], Any] = yaml.CLoader(text).get_event
        self._name = name
        self._escapes = escapes
        self._nodes = 0

    def document(self) -> Node | None:
        self._next()  # the stream's start
        if isinstance(self._next(), yaml.StreamEndEvent):
            self.faults.append(_fault(self._name, "empty-file", "this file is empty"))
            return None
        root = self._value(self._next(), depth=0, key=None)
        self._next()  # the document's end
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            self._report(after, "many-documents", "a file holds one document", "remove the ---")
        return root

    def _value(self, event: Any, depth: int, key: tuple[int, int] | None) -> Node:
        self._admit(event, depth)
        value: Scalar | list[Node] | dict[str, Node] = None
        text = ""
        if isinstance(event, yaml.ScalarEvent):
            text = self._escapes.restore(event.value, quoted=event.style == '"')
            value = self._scalar(event, text)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(depth)
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(depth)
        return Node(value, self._name, *_place(event), key=key, text=text)

    def _scalar(self, event: Any, text: str) -> Scalar:
        if event.style:
            return text
        if '"' in text and event.start_mark.line != event.end_mark.line:
            message = "a text without quotes goes on over a line with a quotation mark"
            self._report(event, "syntax", message, "is a comma missing at the end of its line?")
        try:
            return resolve(text)
        except ValueError as error:
            self._report(event, "bad-number", str(error), "quote it if it is meant as text")
            return 0

    def _sequence(self, depth: int) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._value(event, depth + 1, key=None))
        return items

    def _mapping(self, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event, depth + 1)
            value = self._value(self._next(), depth + 1, key=_place(event))
            if key is None:
                hint = "quote a value that starts with a brace; a slot is ${param}"
                self._report(event, "bad-key", "a key is text", hint)
            elif key == "<<" and not event.style:
                self._report(event, "merge-key", "merge keys are not supported", "use extends")
            elif key in entries:
                first = entries[key].key or (0, 0)
                message = f"duplicate key {show(key)}"
                self._report(event, "duplicate-key", message, f"it also stands in line {first[0]}")
            else:
                entries[key] = value
        return entries

    def _key(self, event: Any, depth: int) -> str | None:
        """Return a key as written, None for one that is no text."""
        if not isinstance(event, yaml.ScalarEvent):
            self._value(event, depth, key=None)
            return None
        self._admit(event, depth)
        return self._escapes.restore(event.value, quoted=event.style == '"')

    def _admit(self, event: Any, depth: int) -> None:
        """Count a value, and report what JSON has not: aliases, anchors, tags."""
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            message = f"nested over {MAX_DEPTH} levels deep"
            if depth <= MAX_DEPTH:
                message = f"over {MAX_NODES:,} values in one file"
            raise _TooMuchError(_fault(self._name, "too-large", message, *_place(event)))
        if event.anchor:
            name, hint = show(event.anchor), "write the value out, or use extends"
            if isinstance(event, yaml.AliasEvent):
                self._report(event, "alias", f"aliases ({name}) are not supported", hint)
            else:
                self._report(event, "anchor", f"anchors ({name}) are not supported", hint)
        if getattr(event, "tag", None):
            message = f"tags ({show(event.tag)}) are not supported"
            hint = "quote a value that starts with an exclamation mark"
            self._report(event, "tag", message, hint)

    def _report(self, event: Any, code: str, message: str, hint: str | None = None) -> None:
        self.faults.append(_fault(self._name, code, message, *_place(event), hint))


class Escapes:
    """Carries characters past a YAML 1.1 parser that JSON and YAML 1.2 allow.

    libyaml refuses DEL, C1 controls and `\\ud83e\\udd8a` (a surrogate pair, as JSON writes
    characters beyond U+FFFF), and breaks lines at NEL, LS and PS. Each such character is replaced
    by one of the private-use area that the text does not hold, so that no position moves, and is
    put back into the scalars.
    """

    _AWKWARD: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufffe\uffff]")
    _PAIR: Final = re.compile(
        r"(?<!\\)((?:\\\\)*)\\(u[dD][89abAB][0-9a-fA-F]{2})\\(u[dD][c-fC-F][0-9a-fA-F]{2})"
    )

    def __init__(self, text: str) -> None:
        awkward = sorted(set(self._AWKWARD.findall(text)))
        self._pairs = self._PAIR.search(text) is not None
        self._hidden: dict[int, str] = {}
        self._backslash = ""
        if not awkward and not self._pairs:
            return
        used = {ord(char) for char in set(text)}
        used |= {int(short or long, 16) for short, long in _ESCAPED.findall(text)}
        free = (chr(code) for code in _PRIVATE_USE if code not in used)
        self._hidden = {ord(char): next(free) for char in awkward}
        self._backslash = next(free)
        back = re.escape(self._backslash)
        self._hidden_pair = re.compile(f"{back}u([0-9a-fA-F]{{4}}){back}u([0-9a-fA-F]{{4}})")
        self._shown = {ord(hidden): chr(char) for char, hidden in self._hidden.items()}

    def hide(self, text: str) -> str:
        """Return text of the same length that libyaml reads."""
        if self._pairs:
            back = self._backslash
            text = self._PAIR.sub(lambda m: f"{m[1]}{back}{m[2]}{back}{m[3]}", text)
        return text.translate(self._hidden) if self._hidden else text

    def restore(self, text: str, *, quoted: bool) -> str:
        """Return a scalar as the file means it; `quoted` says that escapes count in it."""
        if self._pairs:
            if quoted:
                text = self._hidden_pair.sub(_joined_pair, text)
            text = text.replace(self._backslash, "\\")
        return text.translate(self._shown) if self._hidden else text


_PRIVATE_USE: Final = (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE))
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
_LINE_BREAK: Final = re.compile(r"\r\n|\r|\n")
_SLOT: Final = re.compile(r"(?<!\$)\$\{\w{1,64}\}")
_ESCAPED: Final = re.compile(r"\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})")


def _joined_pair(match: re.Match[str]) -> str:
    high, low = int(match[1], 16), int(match[2], 16)
    return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))


def _place(event: Any) -> tuple[int, int]:
    mark = event.start_mark
    return mark.line + 1, mark.column + 1


def _position(text: str, offset: int) -> tuple[int, int]:
    ends = [match.end() for match in _LINE_BREAK.finditer(text, 0, offset)]
    return len(ends) + 1, offset - (ends[-1] if ends else 0) + 1


def _fault(
    name: str, code: str, message: str, line: int = 1, column: int = 1, hint: str | None = None
) -> Diagnostic:
    return Diagnostic(name, line, column, Severity.ERROR, code, message, hint=hint)


def _bare_slot(error: yaml.MarkedYAMLError, text: str, name: str) -> Diagnostic | None:
    """Return what to say where the brace of a slot without quotes stopped the parser."""
    mark = error.problem_mark
    if mark is None or not (slot := _SLOT.match(text, max(mark.index - 1, 0))):
        return None
    message = f"{slot[0]} has no quotes: inside {{ }} or [ ], YAML takes its braces for its own"
    hint = f'write "{slot[0]}", with what else the value holds between the quotes'
    return _fault(name, "syntax", message, mark.line + 1, mark.column, hint)


def _syntax_fault(error: yaml.MarkedYAMLError, name: str) -> Diagnostic:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problem = error.problem or "this is no YAML"
    message = f"{problem} ({error.context})" if error.context else problem
    return _fault(name, "syntax", message, line, column, _HINTS.get(problem))
