"""generator/edit.py: values change, and every other character stays."""

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from generator.dump import block
from generator.edit import EditError, Editor
from generator.graph.records import Link
from generator.load import load_text

from .test_dump import SCALAR, TEXT, VALUE

MODELS = """\
# yaml-language-server: $schema=x
models:
  # the first
  one:
    source: {hf: a/b, file: c.safetensors}   # where it is
    folder: vae
    size: 1 GB

  # The second, which
  # has two lines.
  two:
    source: {hf: a/b, file: d.safetensors}
    folder: vae
    description: |
      Many
      lines.

# packs come last
packs: {}
"""


def changed(text: str, *steps: tuple[str, Any]) -> str:
    editor = Editor(text, "it.yaml")
    for step, arguments in steps:
        getattr(editor, step)(*arguments)
    return editor.result()


def test_nothing_changes_without_a_change() -> None:
    assert changed(MODELS) == MODELS


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_values_are_changed_in_place(newline: str) -> None:
    text = changed(
        MODELS.replace("\n", newline),
        ("set", (("models", "one", "source", "file"), "new name.safetensors")),
        ("set", (("models", "one", "folder"), "loras")),
        ("set", (("models", "two", "description"), "one line")),
    )
    assert text == (
        MODELS.replace("c.safetensors", "new name.safetensors")
        .replace("folder: vae", "folder: loras", 1)
        .replace("description: |\n      Many\n      lines.", "description: one line")
        .replace("\n", newline)
    )


def test_entries_are_added_in_the_files_style() -> None:
    text = changed(
        MODELS,
        ("insert", (("models", "three"), {"source": {"url": "x"}, "folder": "vae"}, ("new",))),
        ("insert", (("models", "one", "source", "revision"), "0" * 40)),
        ("insert", (("models", "one", "family"), "flux", (), "folder")),
        ("insert", (("packs", "a"), {"git": "https://x", "commit": "1" * 40})),
        ("insert", (("packs", "b"), {"git": "https://y", "commit": "2" * 40})),
    )
    expected = (
        MODELS.replace("file: c.safetensors}", f'file: c.safetensors, revision: "{"0" * 40}"}}')
        .replace("folder: vae\n    size", "folder: vae\n    family: flux\n    size")
        .replace(
            "      lines.\n",
            "      lines.\n  # new\n  three:\n    source: {url: x}\n    folder: vae\n",
        )
        .replace(
            "packs: {}",
            f'packs:\n  a: {{git: https://x, commit: "{"1" * 40}"}}\n'
            f'  b: {{git: https://y, commit: "{"2" * 40}"}}',
        )
    )
    assert text == expected


def test_entries_go_with_their_comments_and_leave_those_of_others() -> None:
    text = changed(MODELS, ("remove", (("models", "two"),)))
    assert text == MODELS[: MODELS.index("  # The second")] + MODELS[MODELS.index("\n# packs") :]
    text = changed(MODELS, ("remove", (("models", "one", "size"),)))
    assert text == MODELS.replace("    size: 1 GB\n", "")


def test_all_entries_of_a_mapping_may_go_and_others_come() -> None:
    removals = [("remove", (("models", name),)) for name in ("one", "two")]
    assert load_text(changed(MODELS, *removals), "x")[0].plain == {"models": {}, "packs": {}}  # type: ignore[union-attr]
    text = changed(MODELS, *removals, ("insert", (("models", "three"), {"folder": "vae"})))
    assert "models:\n  three: {folder: vae}\n" in text


def test_pasted_json_stays_json() -> None:
    text = 'graph: {\n  "1": {\n    "inputs": {"a": 1, "b": ["2", 0]},\n    "class_type": "X"\n  },\n  "2": {"inputs": {}, "class_type": "Y"}\n}\n'
    made = changed(
        text,
        ("set", (("graph", "1", "inputs", "b"), Link("3", 1))),
        ("insert", (("graph", "1", "inputs", "c"), "x: y")),
        ("insert", (("graph", "2", "inputs", "d"), Link("1", 0))),
        ("rename", (("graph", "2"), "9")),
        ("insert", (("graph", "3"), {"inputs": {}, "class_type": "Z"})),
    )
    assert made == (
        'graph: {\n  "1": {\n    "inputs": {"a": 1, "b": ["3", 1], "c": "x: y"},\n'
        '    "class_type": "X"\n  },\n  "9": {"inputs": {"d": ["1", 0]}, "class_type": "Y"},\n'
        '  "3": {"inputs": {}, "class_type": "Z"}\n}\n'
    )
    made = changed(
        text, ("remove", (("graph", "1", "inputs", "a"),)), ("remove", (("graph", "2"),))
    )
    assert (
        made
        == 'graph: {\n  "1": {\n    "inputs": {"b": ["2", 0]},\n    "class_type": "X"\n  }\n}\n'
    )


@pytest.mark.parametrize(
    "step",
    [
        ("set", (("models", "none"), 1)),
        ("remove", (("none",),)),
        ("insert", (("models", "one"), 1)),
        ("insert", (("models", "one", "folder", "x"), 1)),
        ("rename", (("models", "one"), "two")),
    ],
)
def test_what_cannot_be_done_is_said(step: tuple[str, Any]) -> None:
    with pytest.raises(EditError):
        changed(MODELS, step)


def test_a_layout_that_cannot_be_changed_is_left() -> None:
    with pytest.raises(EditError):
        changed("a:\n  ? b\n  : 1\n  c: 2\n", ("remove", (("a", "b"),)))


KEYS = TEXT.map(lambda text: text[:40])
MAPPING = st.dictionaries(KEYS, st.dictionaries(KEYS, VALUE, max_size=3) | SCALAR, max_size=4)


@pytest.mark.parametrize("value", [[[], 0], [{}, 0], [[1], 0], [[], 0, 1]])
def test_lists_that_look_like_links_are_none(value: Any) -> None:
    """The first item of a link is a node's id, which no collection is, empty ones included."""
    made = load_text(changed("top: {}\n", ("insert", (("top", "key"), value))), "it")[0]
    assert made is not None
    assert made.plain == {"top": {"key": value}}


@settings(max_examples=150, deadline=None)
@given(data=st.data(), content=MAPPING, is_json=st.booleans())
def test_any_mapping_takes_any_change(data: st.DataObject, content: Any, is_json: bool) -> None:
    """In blocks and in JSON: set, insert, remove and rename, several at once."""
    top = {"first": 1, "top": content}
    text = (
        json.dumps(top, indent=2) if is_json else "# first line\n" + "\n".join(block(top, 0)) + "\n"
    )
    loaded = load_text(text, "it")[0]
    assume(loaded is not None and loaded.plain == top)
    editor = Editor(text, "it")
    wanted: dict[str, Any] = dict(content)
    for key in list(content):
        match data.draw(st.sampled_from(("keep", "set", "remove", "rename"))):
            case "set":
                wanted[key] = data.draw(VALUE)
                editor.set(("top", key), wanted[key])
            case "remove":
                del wanted[key]
                editor.remove(("top", key))
            case "rename":
                new = data.draw(KEYS.filter(lambda k: k not in wanted and k not in content))
                wanted[new] = wanted.pop(key)
                editor.rename(("top", key), new)
    for key in data.draw(st.lists(KEYS, max_size=2, unique=True)):
        if key not in wanted and key not in content:
            wanted[key] = data.draw(VALUE)
            editor.insert(("top", key), wanted[key])
    made = load_text(editor.result(), "it")[0]
    assert made is not None
    assert made.plain["first"] == 1
    assert repr(sorted(made.plain["top"].items())) == repr(sorted(wanted.items()))
