"""generator/dump.py: what it writes, the loader reads back as the very same values."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.dump import DumpError, block, entry
from generator.load import load_text

NASTY = (
    "${", "$${", "${x}", ": ", " #", "# x", "on", "1e5", "12:30", "null", "~", "- a", "? b", "!t", "&a", "*a",
    "%", "@", "`", "|", ">", "'", '"', "\\", "\n", "\r", "\r\n", "\t", "\0", "\x7f", "\x85", "\u2028",
    "\u202e", "\ufeff", "\uffff", "🦊", "é", " ", "  ", "{", "}", "[", "]", ",", "---", "...", "0x10", "010",
    "1_000", ".5", "-", "=", "<<", "a: b", "\ue000",
)  # fmt: skip
TEXT = st.lists(
    st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    max_size=8,
).map("".join)
SCALAR = (
    TEXT
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUE = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXT.map(lambda t: t[:60]), inner, max_size=4)
    ),
    max_leaves=12,
)


def read(lines: list[str]) -> Any:
    root, faults = load_text("\n".join(lines) + "\n", "it")
    assert faults == [], "\n".join(lines)
    assert root is not None
    return root.plain


@settings(max_examples=400, deadline=None)
@given(key=TEXT.map(lambda t: t[:60]), value=VALUE, indent=st.sampled_from((0, 2, 6)))
def test_every_value_comes_back(key: str, value: Any, indent: int) -> None:
    written = read([f"{' ' * indent}first: 1", *entry(key + "k", value, indent)])[key + "k"]
    assert repr(written) == repr(value)


@settings(max_examples=200, deadline=None)
@given(value=st.lists(VALUE, min_size=1, max_size=4))
def test_every_list_comes_back(value: list[Any]) -> None:
    assert repr(read(block(value, 0))) == repr(value)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("euler", ["a: euler"]),
        ("a red fox, in the snow", ['a: "a red fox, in the snow"']),
        ("on", ["a: on"]),
        ("1e5", ['a: "1e5"']),
        ("${prompt}", ["a: ${prompt}"]),
        ("one\ntwo\n", ["a: |", "  one", "  two"]),
        ("one\n\n  two", ["a: |-", "  one", "", "    two"]),
        ("one \ntwo\n\n", [r'a: "one \ntwo\n\n"']),
    ],
)
def test_texts_are_written_as_a_person_would(text: str, written: list[str]) -> None:
    assert entry("a", text, 0) == written


@pytest.mark.parametrize(
    "value", [None, float("nan"), float("inf"), 10**400, "\ud83e", {"k" * 2000: 1}, [[None]]]
)
def test_what_yaml_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(DumpError):
        entry("a", value, 0)
