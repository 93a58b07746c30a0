"""Loading YAML: scalars, keys, positions, JSON, and all that is refused."""

import json
import os
import re
from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from generator.diagnostics import Diagnostic
from generator.load import MAX_BYTES, MAX_NODES, Node, load_file, load_text
from generator.scalars import resolve

Place = tuple[int, int, str]

_MARK = re.compile("«([a-z0-9-]*)»")
_BREAK = re.compile("\r\n|\r|\n")

PAIR = r"\ud83e\udd8a"  # the fox, as JSON writes it in ASCII
BOM = b"\xef\xbb\xbf"
MIB = 1024 * 1024


def marked(text: str) -> tuple[str, list[Place]]:
    """Return a text without its «code» marks, and where they stood: (line, column, code)."""
    clean = ""
    marks: list[tuple[int, str]] = []
    end = 0
    for mark in _MARK.finditer(text):
        clean += text[end : mark.start()]
        marks.append((len(clean), mark[1]))
        end = mark.end()
    clean += text[end:]
    return clean, sorted((*position(clean, offset), word) for offset, word in marks)


def position(text: str, offset: int) -> tuple[int, int]:
    """Return line and column of an offset; YAML ends lines at CR, LF and CR LF."""
    ends = [found.end() for found in _BREAK.finditer(text) if found.end() <= offset]
    return len(ends) + 1, offset - (ends[-1] if ends else 0) + 1


def found_at(faults: Iterable[Diagnostic]) -> list[Place]:
    """Return where the faults are, and their codes."""
    return sorted((d.line, d.column, d.code) for d in faults)


def loaded(text: str) -> Node:
    """Load a text that has no fault."""
    root, faults = load_text(text, "f.yaml")
    assert root is not None
    assert faults == []
    return root


def places(node: Node) -> list[tuple[int, int] | None]:
    """Return where each value stands in the file's order, and before it where its key does."""
    found: list[tuple[int, int] | None] = [(node.line, node.column)]
    for value in node.mapping.values():
        found += [value.key, *places(value)]
    for item in node.items:
        found += places(item)
    return found


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to write to, of the module's own, as Hypothesis wants it."""
    return tmp_path_factory.mktemp("load") / "f.yaml"


def load_bytes(path: Path, data: bytes) -> tuple[Node | None, list[Diagnostic]]:
    path.write_bytes(data)
    return load_file(path, "f.yaml")


SCALARS: dict[str, Any] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "nULL": "nULL",
    "true": True,
    "True": True,
    "TRUE": True,
    "tRUE": "tRUE",
    "false": False,
    "False": False,
    "FALSE": False,
    "on": "on",
    "off": "off",
    "yes": "yes",
    "No": "No",
    "y": "y",
    "0": 0,
    "-0": 0,
    "+12": 12,
    "-19": -19,
    "010": 10,
    "-007": -7,
    "08": 8,
    "0o17": 15,
    "0o18": "0o18",
    "0O17": "0O17",
    "-0o17": "-0o17",
    "0x1F": 31,
    "0xdeadBEEF": 3735928559,
    "0X1F": "0X1F",
    "-0x1F": "-0x1F",
    "0b101": "0b101",
    "1_000": "1_000",
    "12:30": "12:30",
    "190:20:30": "190:20:30",
    "2001-12-14": "2001-12-14",
    "2001-12-14T21:59:43.10Z": "2001-12-14T21:59:43.10Z",
    "1e5": 100000.0,
    "1E+5": 100000.0,
    "12e03": 12000.0,
    "-2E-3": -0.002,
    "0.0": 0.0,
    "-0.0": -0.0,
    "1.": 1.0,
    "5.e3": 5000.0,
    ".5": 0.5,
    "+.5": 0.5,
    "1e-400": 0.0,
    ".": ".",
    "1.2.3": "1.2.3",
    "0.3.71": "0.3.71",
    "e5": "e5",
    "1e": "1e",
    "+": "+",
    ".iNF": ".iNF",
    ".Nan": ".Nan",
    "inf": "inf",
    "NaN": "NaN",
    "٣": "٣",  # a digit of Unicode, and none of YAML
    "=": "=",
    "<<": "<<",
    "a b": "a b",
    '"1"': "1",
    "'null'": "null",
    '"\\x41\\u00e9\\U0001f98a\\e\\/"': "Aé🦊\x1b/",
    "'it''s'": "it's",
    "9" * 300: 10**300 - 1,
}


@pytest.mark.parametrize(("text", "value"), SCALARS.items(), ids=[t[:20] for t in SCALARS])
def test_scalars_follow_the_core_schema(text: str, value: Any) -> None:
    item = loaded(f"- {text}\n").items[0]
    assert repr(item.value) == repr(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".inf", "this number is not finite"),
        ("-.INF", "this number is not finite"),
        ("+.Inf", "this number is not finite"),
        (".nan", "this number is not finite"),
        (".NaN", "this number is not finite"),
        ("1e400", "this number is not finite: it is too large for a float"),
        ("-1e400", "this number is not finite: it is too large for a float"),
        ("9" * 5000, "a number of over 300 digits"),
        ("-" + "9" * 300, "a number of over 300 digits"),
        ("1." + "0" * 5000, "a number of over 300 digits"),
        ("0x" + "f" * 5000, "a number of over 300 digits"),
        ("0o" + "7" * 5000, "a number of over 300 digits"),
    ],
    ids=lambda text: text[:20],
)
def test_numbers_that_json_cannot_carry(text: str, message: str) -> None:
    _, faults = load_text(f"é: [1, {text}]\n", "f.yaml")
    assert found_at(faults) == [(1, 8, "bad-number")]
    assert faults[0].message == message
    assert faults[0].hint == "quote it if it is meant as text"


@given(st.text("0123456789.+-eExoabfinIN_ ", max_size=8))
@settings(deadline=None)
def test_numbers_are_what_python_reads(text: str) -> None:
    try:
        value = resolve(text)
    except ValueError:
        value = None
    if type(value) is float:
        assert repr(value) == repr(float(text))
    elif type(value) is int:
        assert value == int(text, base={"0o": 8, "0x": 16}.get(text[:2], 10))
    else:
        assert value in (text, None)


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("57:8", "57:8"),
        ("010", "010"),
        ("4", "4"),
        ("-1", "-1"),
        ("1e5", "1e5"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("1.50", "1.50"),
        ("null", "null"),
        ("~", "~"),
        ("true", "true"),
        ("on", "on"),
        ("2001-12-14", "2001-12-14"),
        ("é 🦊", "é 🦊"),
        ("'010'", "010"),
        ('"4\\u00e9"', "4é"),
        (".inf", ".inf"),
        ("-.nan", "-.nan"),
        ("1e400", "1e400"),
        (".NaN", ".NaN"),
    ],
)
@pytest.mark.parametrize("form", ["{}: x\n", "? {}\n: x\n", "{{{}: x}}\n"])
def test_keys_are_text_as_written(written: str, key: str, form: str) -> None:
    if written == "57:8" and form.startswith("{{"):
        written += " "
    assert loaded(form.format(written)).plain == {key: "x"}


def test_a_node_remembers_its_text() -> None:
    root = loaded('- [010, 0]\n- 0x1F\n- "4"\n- 1.50\n- ~\n')
    assert [item.text for item in root.items[0].items] == ["010", "0"]
    assert [item.text for item in root.items[1:]] == ["0x1F", "4", "1.50", "~"]
    assert [item.value for item in root.items[1:]] == [31, "4", 1.5, None]


@pytest.mark.parametrize(
    "text",
    [
        "«»«»a: «»1\n«»b: «»2\n",
        "# comment\n\n«»«»a:\n  «»«»b: «»c\n",
        "«»- «»1\n- «»«»a: «»x\n  «»b: «»y\n- «»- «»z\n",
        '«»{«»a: «»[«»1, «»"b"], «»"c": «»{«»d: «»e}}\n',
        "«»«»größe: «»1\n«»日本: «»[«»é, «»{«»ü: «»ö}]\n",
        "«»«»🦊🦊: «»👩‍👩‍👧 x\n«»e\u0301: «»[«»🦊, «»1]\n",
        "«»[«»\x7f\x85\u2028, «»\u2029\x9f, «»\uffff]\n",
        f'«»[«»"{PAIR}{PAIR}", «»"\\u00e9", «»2]\n',
        "«»«»a: «»|\n  text\n\n  more\n«»b: «»>-\n  text\n«»c: «»x\n   y\n   z\n«»d: «»1\n",
        "«»«»a:«»\n«»b:«»\n",
        "--- # a document\n«»«»a: «»1\n...\n",
        "«»? «»a\n: «»1\n",
        "«»«»a: «»1\r\n«»b:\r\n  «»- «»2\r\n",
        "«»«»a: «»1\r«»b: «»2\r\r«»c: «»3\r",
        "\n\n«»«»'a': «»'é'\n«»\"b\"  :  «»\"🦊\"   # é\n",
    ],
    ids=range(15),
)
def test_every_key_and_value_knows_its_place(text: str) -> None:
    clean, marks = marked(text)
    assert sorted(place for place in places(loaded(clean)) if place) == [m[:2] for m in marks]


def test_places_do_not_count_the_byte_order_mark(scratch: Path) -> None:
    root, faults = load_bytes(scratch, BOM + b"{a: 1, b: [\xc3\xa9, 2]}\r\nb: ]")
    assert root is None
    assert found_at(faults) == [(2, 1, "syntax")]
    root, faults = load_bytes(scratch, BOM + b"a: 1\nb: 2\n")
    assert root is not None
    assert faults == []
    assert places(root) == [(1, 1), (1, 1), (1, 4), (2, 1), (2, 4)]


@pytest.mark.parametrize(
    "text",
    [
        "a: «anchor»&x 1\nb: «alias»*x\n",
        "«anchor»&x a: 1\n",
        "- «anchor»&x [1]\n- «anchor»&y {a: 1}\n- «alias»*x\n",
        "a: «alias»*nowhere\n",
        "b: 1\n«merge-key»<<: {a: 1}\n",
        "a: «anchor»&x {b: 1}\nc:\n  «merge-key»<<: «alias»*x\n  d: 2\n",
        "é: «tag»!!int 3\n",
        "- «tag»!secret x\n- «tag»!<tag:yaml.org,2002:str> y\n- «tag»! z\n",
        "«tag»!x {a: 1}\n",
        "«tag»!!str a: 1\n",
        "a: «tag»«anchor»!x &y 1\n",
        "a: 1\nb: 2\n«duplicate-key»a: 3\n«duplicate-key»a: 4\n",
        "1: a\n«duplicate-key»'1': b\n",
        "{é: 1, «duplicate-key»é: 2, x: {y: 1, «duplicate-key»y: 2}}\n",
        '{"\x7f": 1, «duplicate-key»"\\x7f": 2}\n',
        f'{{"🦊": 1, «duplicate-key»"{PAIR}": 2}}\n',
        "? «bad-key»[a, b]\n: 1\n",
        "{«bad-key»{a: 1}: 2, b: 3}\n",
        "? «bad-key»- a\n: 1\n",
        "«alias»«bad-key»*x : 1\n",
        "--- 1\n«many-documents»--- 2\n",
        "a: 1\n«many-documents»---\n",
        "a: 1\n...\n«many-documents»--- \nb: 2\n--- \nc: 3\n",
    ],
)
def test_what_json_cannot_say_is_refused(text: str) -> None:
    clean, marks = marked(text)
    _, faults = load_text(clean, "f.yaml")
    assert found_at(faults) == marks


def test_a_quoted_merge_key_is_a_key() -> None:
    assert loaded('"<<": 1\n').plain == {"<<": 1}


def test_a_duplicate_key_names_the_first_line() -> None:
    root, [fault] = load_text("# x\na: 1\n\nb: 2\na: 3\n", "f.yaml")
    assert fault.message == 'duplicate key "a"'
    assert fault.hint == "it also stands in line 2"
    assert root is not None
    assert root.plain == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a:\n«»\t- 1\n", "indent with spaces"),
        ("é: «»@x\n", "quote a value that starts with"),
        ("a: «»`x`\n", "quote a value that starts with"),
        ("- é: b«»: c\n", 'quote a value that holds ": "'),
        ("a:\n  b: 1\n«»\tc: 2\n", "indent with spaces"),
        ("a: «»%b\n", "quote a value that starts with"),
        ("a: {é: 'b' «»c}\n", "brace"),
        ("a: [é, 'b' «»c]\n", "bracket"),
        ("a: [é, b\nc«»: d\n", "bracket"),
        ("a: {é: «»${b}, c: 1}\n", 'write "${b}"'),
        ("a: {é: text «»${b} of it}\n", 'write "${b}"'),
        ("a: [1,\n  «»${b}, 2]\n", 'write "${b}"'),
        ("a: {b: $$«»{c}}\n", "quote a value"),
        ("a: 'b\n«»", None),
        ("é: 'b' «»c\n", None),
        ("é: «»- x\n", None),
    ],
)
def test_syntax_errors_say_where_and_what_helps(text: str, hint: str | None) -> None:
    clean, [(line, column, _)] = marked(text)
    root, faults = load_text(clean, "f.yaml")
    assert root is None
    assert found_at(faults) == [(line, column, "syntax")]
    assert hint is None or hint in str(faults[0].hint)


_AWKWARD = (
    "\x00\x1f\x7f\x80\x85\x9f\u2028\u2029\ue000\ue001\ufeff\ufffe\uffff\U000f0000\U0010ffff🦊é"
    "\\\"'/#:,[]{}&*!|>%@`~-?<= \t\n\r"
)
_TEXTS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(_AWKWARD)), max_size=20
)
_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        _TEXTS,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(_TEXTS, inner, max_size=4)
    ),
    max_leaves=12,
)
_SPACES = ("", " ", "\t", "\n", "\r\n", "\r", "\n\n    ", " \n\t")


class _JsonWriter:
    """Writes JSON with white space of all kinds, and notes where keys and values stand."""

    def __init__(self, spaces: Iterable[str], *, ensure_ascii: bool) -> None:
        self.text = ""
        self.offsets: list[int] = []
        self._spaces = cycle(spaces)
        self._ensure_ascii = ensure_ascii

    def write(self, value: Any) -> str:
        """Return the JSON text of a value."""
        # Tabs around the whole, too: see test_json_is_read_as_it_is.
        self.text += next(self._spaces).replace("\t", " ")
        self._value(value)
        self.text += next(self._spaces).replace("\t", " ")
        return self.text

    def _value(self, value: Any) -> None:
        self.offsets.append(len(self.text))
        if isinstance(value, dict):
            self._items("{}", [self._entry(key, item) for key, item in value.items()])
        elif isinstance(value, list):
            self._items("[]", [self._item(item) for item in value])
        else:
            self.text += json.dumps(value, ensure_ascii=self._ensure_ascii)

    def _items(self, brackets: str, writers: list[Callable[[], None]]) -> None:
        self.text += brackets[0]
        self._space()
        for number, write in enumerate(writers):
            if number:
                self.text += ","
                self._space()
            write()
            self._space()
        self.text += brackets[1]

    def _entry(self, key: str, value: Any) -> Callable[[], None]:
        def write() -> None:
            self.offsets.append(len(self.text))
            self.text += json.dumps(key, ensure_ascii=self._ensure_ascii)
            # A line break before the colon: see test_json_is_read_as_it_is.
            self.text += _BREAK.sub(" ", next(self._spaces)) + ":"
            self._space()
            self._value(value)

        return write

    def _item(self, value: Any) -> Callable[[], None]:
        return lambda: self._value(value)

    def _space(self) -> None:
        self.text += next(self._spaces)


@given(
    value=_VALUES,
    ensure_ascii=st.booleans(),
    spaces=st.lists(st.sampled_from(_SPACES), min_size=1, max_size=6),
)
@example(value=["🦊", "\ue000"], ensure_ascii=True, spaces=[""])
@example(value=["\x7f", "\ue000", "\u2028"], ensure_ascii=True, spaces=["\n"])
@example(value={"\x85🦊\\": "\u2028\uffff"}, ensure_ascii=False, spaces=["\r\n"])
@settings(max_examples=300, deadline=None)
def test_json_loads_as_json(value: Any, ensure_ascii: bool, spaces: list[str]) -> None:
    writer = _JsonWriter(spaces, ensure_ascii=ensure_ascii)
    text = writer.write(value)
    root = loaded(text)
    assert repr(root.plain) == repr(json.loads(text))
    assert places(root) == [position(text, offset) for offset in writer.offsets]


@given(
    value=_VALUES,
    ensure_ascii=st.booleans(),
    indent=st.sampled_from([None, 0, 2, "\t"]),
)
@settings(max_examples=100, deadline=None)
def test_what_json_dumps_writes_loads(
    value: Any, ensure_ascii: bool, indent: int | str | None
) -> None:
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
    assert repr(loaded(text).plain) == repr(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"b":[1,2],"c":"d","e":{"f":-1}}',
        '{"a"\t:\t1}',
        '["\\/ \\b\\f\\n\\r\\t \\\\ \\" \\u0000 \\u2028 \\ufffe"]',
        f'["{PAIR}{PAIR}", "\\\\{PAIR}", "\\\\\\\\{PAIR}"]',
        r'["\uD83E\uDD8A", "\udbff\udfff", "\ud800\udc00"]',
        '["\\ue000", "\x7f"]',
        f'["\\ue000", "{PAIR}"]',
        '["\\uf8ff\\ue001", "\u2028\u2029", "\\ue000\\ue002"]',
        f'["\ue000", "{PAIR}", "\\ue001"]',
        "[-0, -0.0, 1E40, 1e-7, 123456789012345678901234567890]",
        json.dumps({"🦊" * 80: 1}),
        json.dumps(["x" * 5000]),
    ],
    ids=range(12),
)
def test_json_is_read_as_it_is(text: str) -> None:
    assert repr(loaded(text).plain) == repr(json.loads(text))


@pytest.mark.parametrize(
    "text",
    ['\t{"a": 1}', '{"a"\n:\n1}', '{"' + "k" * 1025 + '": 1}', json.dumps({"🦊" * 100: 1})],
    ids=["a leading tab", "a break before the colon", "a long key", "a long escaped key"],
)
def test_json_that_is_no_yaml_gets_a_clear_fault(text: str) -> None:
    """libyaml takes keys of up to 1,024 characters, on one line with their colon."""
    root, faults = load_text(text, "it.yaml")
    assert root is None
    assert [fault.code for fault in faults] == ["syntax"]


def test_escaped_pairs_count_in_double_quotes_only() -> None:
    text = f"# {PAIR}\n- {PAIR}\n- '{PAIR}'\n- |-\n  {PAIR}\n- \"\\\\{PAIR} \\{PAIR[:6]}\"\n"
    plain = loaded(text).plain
    assert plain == [PAIR, PAIR, PAIR, "\\🦊 \\ud83e"]


@pytest.mark.parametrize(
    "text",
    [
        r'"\u«»d800"',
        r'"\u«»DFFF"',
        r"- x" + "\n" + r'- ["é\u«»d83e \udd8a"]',
        r'{"a": "\u«»dd8a\ud83e"}',
        r'["\ud83e\udd8a", "\u«»d83e\ud83e\udd8a"]',
        '["\\ud83e\\udd8a\x7f\\\\\\u«»ddff"]',
        '{"\\u«»d83e\\u0041": 1}',
    ],
)
def test_lone_surrogates_are_refused(text: str) -> None:
    clean, [(line, column, _)] = marked(text)
    root, faults = load_text(clean, "f.yaml")
    assert root is None
    assert found_at(faults) == [(line, column, "syntax")]
    assert faults[0].hint == "a surrogate must be one half of a pair, as in JSON"


@pytest.mark.parametrize("code", [c for c in range(0x20) if chr(c) not in "\t\n\r"])
def test_raw_control_characters_are_refused(code: int) -> None:
    root, [fault] = load_text(f'a: 1\r\n🦊: "é{chr(code)}"\n{chr(code)}', "f.yaml")
    assert root is None
    assert (fault.line, fault.column, fault.code) == (2, 6, "control-character")
    assert fault.message == f"control character U+{code:04X}"
    assert fault.hint == f'in a quoted text, write it as "\\x{code:02x}"'


def test_a_control_character_after_lines_that_end_in_cr() -> None:
    _, faults = load_text("a: 1\rb: \x01\r", "f.yaml")
    assert found_at(faults) == [(2, 4, "control-character")]


@pytest.mark.parametrize(
    ("data", "line", "column", "byte"),
    [
        (b"\xff\xfea\x00", 1, 1, "ff"),
        (b"a: \xe9\n", 1, 4, "e9"),
        ("é🦊: ".encode() + b"\xe9", 1, 5, "e9"),
        (b"a: 1\r\nb: 2\r\nc: \xc3\xa9\xc3(", 3, 5, "c3"),
        (BOM + b"ab\xff", 1, 3, "ff"),
        (BOM + b"a: 1\n\xc3\xa9: \xe9", 2, 4, "e9"),
        (b"a: \xf0\x9f\xa6", 1, 4, "f0"),
        (b"a:\n  \xc0\xaf", 2, 3, "c0"),
        (b"a: \xed\xa0\x80", 1, 4, "ed"),
        (b"\xe9: \xff", 1, 1, "e9"),
        (b"a: 1\rb: \xff", 2, 4, "ff"),
    ],
)
def test_bytes_that_are_no_utf8(
    scratch: Path, data: bytes, line: int, column: int, byte: str
) -> None:
    root, faults = load_bytes(scratch, data)
    assert root is None
    assert found_at(faults) == [(line, column, "not-utf8")]
    assert faults[0].message == f"byte 0x{byte} is no UTF-8"


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", BOM, BOM + b"#", b"# only\n# comments", b"  \n \n", b"\r\n"]
)
def test_an_empty_file(scratch: Path, data: bytes) -> None:
    root, faults = load_bytes(scratch, data)
    assert root is None
    assert found_at(faults) == [(1, 1, "empty-file")]


def test_an_empty_document_is_null() -> None:
    assert loaded("---\n").plain is None


def test_a_file_of_100_mb_is_not_read(scratch: Path) -> None:
    with scratch.open("wb") as file:
        file.truncate(100_000_000)
    assert scratch.stat().st_size == 100_000_000
    root, faults = load_file(scratch, "f.yaml")
    assert root is None
    assert found_at(faults) == [(1, 1, "too-large")]
    assert faults[0].message == "a spec has at most 16 MiB"


@pytest.mark.parametrize(("extra", "codes"), [(0, []), (1, ["too-large"])])
def test_the_largest_file(scratch: Path, extra: int, codes: list[str]) -> None:
    assert MAX_BYTES == 16 * MIB
    _, faults = load_bytes(scratch, b"a: 1\n#".ljust(MAX_BYTES + extra, b"x"))
    assert [d.code for d in faults] == codes


@pytest.mark.parametrize(
    ("opening", "column"), [("[", 66), ("{", 66), ("- ", 131), ("? ", 131), ('{"a":', 322)]
)
def test_deep_nesting_is_refused(opening: str, column: int) -> None:
    root, faults = load_text(opening * 100_000, "f.yaml")
    assert root is None
    assert found_at(faults) == [(1, column, "too-large")]
    assert faults[0].message == "nested over 64 levels deep"


def test_the_deepest_nesting() -> None:
    node = loaded("[" * 65 + "]" * 65)
    for _ in range(64):
        [node] = node.items
    assert node.items == []
    assert node.column == 65
    _, faults = load_text("[" * 65 + "1" + "]" * 65, "f.yaml")
    assert found_at(faults) == [(1, 66, "too-large")]


def test_too_many_values() -> None:
    root, faults = load_text("- 1\n" * MAX_NODES, "f.yaml")
    assert root is None
    assert found_at(faults) == [(MAX_NODES, 3, "too-large")]
    assert faults[0].message == "over 200,000 values in one file"


@pytest.mark.parametrize(
    "name", ["folder", "fifo", "missing", "loop", "dangling", "a\0b", "x" * 300, "plain/below"]
)
def test_what_is_no_readable_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_text("a: 1\n")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    root, faults = load_file(tmp_path / name, "f.yaml")
    assert root is None
    assert found_at(faults) == [(1, 1, "unreadable")]
    assert faults[0].file == "f.yaml"


def test_a_file_that_may_not_be_read(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    scratch.write_text("a: 1\n")
    monkeypatch.setattr(Path, "open", refuse)
    root, faults = load_file(scratch, "f.yaml")
    assert root is None
    assert found_at(faults) == [(1, 1, "unreadable")]
    assert faults[0].message == "cannot be read: Permission denied"


_TOKENS = (
    *"abé🦊:-?,[]{}#&*!|>'\"%@` \n\r\t\\~",
    *("a: ", "- ", "? ", ": ", "<<", "---\n", "...\n", "  ", "\n  ", "null", "1e5", ".inf", "010"),
    *(PAIR, r"\ud83e", r"\x", "\x7f", "\x85", "\u2028", "\ufeff", "\ue000", "\x01", "\uffff"),
    *("&x ", "*x", "!!str ", "|\n  ", ">-\n "),
)
_SOUP = st.lists(st.sampled_from(_TOKENS), max_size=30).map("".join)


def _check(text: str, root: Node | None, faults: list[Diagnostic]) -> None:
    """Check what holds for whatever a file holds."""
    assert root is not None or faults
    last = len(_BREAK.findall(text)) + 1
    for fault in faults:
        assert fault.file == "f.yaml"
        # libyaml puts what it misses at the end of a file into the line after it.
        assert 1 <= fault.line <= last + 1
        assert fault.column >= 1
    if root is not None and not faults:
        assert repr(loaded(json.dumps(root.plain)).plain) == repr(root.plain)


@given(st.one_of(_SOUP, st.text()))
@settings(max_examples=400, deadline=None)
def test_no_text_raises(text: str) -> None:
    _check(text, *load_text(text, "f.yaml"))


@pytest.mark.parametrize("text", ["\ud800", "a: 1\nb: x\udfff\n", '"\udc80"'])
def test_no_text_with_lone_surrogates_raises(text: str) -> None:
    root, faults = load_text(text, "f.yaml")
    assert root is None
    assert len(faults) == 1


@given(
    st.sampled_from([b"", BOM]),
    st.lists(
        st.one_of(st.sampled_from(_TOKENS).map(str.encode), st.binary(max_size=2)), max_size=20
    ).map(b"".join),
)
@example(BOM, b"a: \xff")
@settings(max_examples=200, deadline=None)
def test_no_bytes_raise(scratch: Path, start: bytes, data: bytes) -> None:
    root, faults = load_bytes(scratch, start + data)
    _check(data.decode(errors="replace"), root, faults)
