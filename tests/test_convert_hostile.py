"""Whatever a file in UI format holds, the answer is a graph or findings, never a traceback."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generator.cli import main
from generator.graph.check import Finding
from generator.graph.convert import convert

from .test_convert import CATALOG, PAIRS

# The smaller ones, and all that hold subgraphs, primitives or reroutes.
FILES: Final = [
    pair["ui"]
    for pair in PAIRS.values()
    if len(text := json.dumps(pair["ui"])) < 20_000
    or any(word in text for word in ('"subgraphs"', '"PrimitiveNode"', '"Reroute"'))
]
VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1.5, 4.0, 1e300, 2**64, -(10**30), float("nan"), float("inf"), "", "x",
    "a" * 300, "\ud800", "\0", "-10", "-20", "57:8", "{a|{b", "\\", [], {}, [[]], [None], {"": {}},
    [1, 2, 3], ["4", 0], [1, 1, 0, 2, 0, "IMAGE"], {"id": 1}, {"id": 3, "type": "Reroute"},
    {"name": "seed"}, {"name": "image", "link": 7, "widget": {"name": "image"}}, "PrimitiveNode",
    "Reroute", "GetNode", "KSampler", "workflow>x", {"0": 1, "1": 2}, [["-1", "x"], ["7", "y"]],
    {"x": {"nodes": [{"type": "KSampler"}], "links": [[0, 0, 0, 0]]}}, 2, 4, 10**17, -10, -20,
)  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container of a document with each of its keys."""
    pending = [value]
    while pending:
        found = pending.pop()
        keys = list(found) if isinstance(found, dict) else range(len(found))
        for key in keys:
            yield found, key
            if isinstance(found[key], dict | list):
                pending.append(found[key])


def mutated(document: Any, seed: int, count: int) -> Any:
    """Change a document at a few places: another value, one taken away, one moved or doubled."""
    chance = random.Random(seed)
    copy = json.loads(json.dumps(document))
    for _ in range(count):
        every = list(places(copy))
        container, key = chance.choice(every)
        other, at = chance.choice(every)
        match chance.randrange(4):
            case 0:
                container[key] = chance.choice(VALUES)
            case 1:
                del container[key]
            case 2:
                container[key] = json.loads(json.dumps(other[at]))
            case 3 if isinstance(container, list):
                container.insert(chance.randrange(len(container) + 1), chance.choice(VALUES))
    return copy


def check(document: Any) -> None:
    if "nodes" not in document:
        assert convert(document, CATALOG).graph == {}
        return
    made = convert(document, CATALOG)
    assert all(isinstance(finding, Finding) for finding in made.findings)
    assert set(made.canvas) == set(made.graph)
    for content in made.graph.values():
        assert isinstance(content["class_type"], str)
        for value in content["inputs"].values():
            assert not isinstance(value, list) or value[0] in made.graph
    if not made.graph and any(n.get("mode", 0) == 0 for n in _nodes(document)):
        assert made.findings or all(_is_shown_only(n) for n in _nodes(document))


def _nodes(document: Any) -> list[Any]:
    nodes = document.get("nodes") if isinstance(document, dict) else None
    return [n for n in nodes if isinstance(n, dict)] if isinstance(nodes, list) else []


def _is_shown_only(node: Any) -> bool:
    return node.get("mode", 0) != 0 or node.get("type") not in CATALOG.names()


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, len(FILES) - 1), st.integers(0, 2**32), st.integers(1, 4))
def test_mutations(file: int, seed: int, count: int) -> None:
    check(mutated(FILES[file], seed, count))


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(
            st.sampled_from(["nodes", "links", "id", "type", "inputs", "definitions", "extra"])
            | st.text(), inner
        ),
    )
)  # fmt: skip
def test_any_json(document: Any) -> None:
    convert(document, CATALOG)
    convert({"nodes": [document], "links": [document], "definitions": document}, CATALOG)
    convert({"nodes": document, "extra": {"groupNodes": document}}, CATALOG)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_a_wrong_value_in_every_field(value: Any) -> None:
    """Of one small file: each field in turn."""
    document = json.dumps(min(FILES, key=lambda file: len(json.dumps(file))))
    for index, _ in enumerate(places(json.loads(document))):
        copy = json.loads(document)
        container, key = list(places(copy))[index]
        container[key] = value
        check(copy)


DAMAGED: Final[dict[str, tuple[str | bytes, str]]] = {
    "truncated": ('{"nodes": [{"id": 1, "type": "Empty', "syntax"),
    "empty": ("", "syntax"),
    "no workflow": ("[1, 2]", "bad-graph"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\xff", "not-utf8"),
    "too big": (b" " * 50_000_000, "too-large"),
    "deep": ('{"nodes": ' + "[" * 200_000 + "]" * 200_000 + "}", "too-large"),
    "not a number": ('{"nodes": [{"id": 1, "type": "EmptyImage", "widgets_values": [NaN]}]}',
                     "bad-number"),
    "newer": ('{"nodes": [], "version": 3}', "other-format"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written, and nothing that was there is lost."""
    text, code = DAMAGED[name]
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.api.json").write_text("before")
    assert (
        main(["convert", str(path), "-o", str(tmp_path / "out"), "--project", str(tmp_path)]) == 1
    )
    shown = capsys.readouterr()
    assert (shown.out, f"error[{code}]" in shown.err) == ("", True), shown.err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.api.json"]
    assert (tmp_path / "out" / "a.api.json").read_text() == "before"


@pytest.mark.parametrize("depth", [100, 700, 850, 900, 950, 980, 2000])
def test_a_value_that_nests(depth: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As deep as JSON can be read and written, it is; deeper, that is said."""
    value = "[" * depth + "1" + "]" * depth
    path = tmp_path / "a.json"
    path.write_text(
        '{"nodes": [{"id": 1, "type": "EmptyImage", "widgets_values": [8, 8, 1, X]}]}'.replace(
            "X", value
        )
    )
    code = main(["convert", str(path), "--project", str(tmp_path)])
    shown = capsys.readouterr()
    assert (code, bool(shown.out), "error[" in shown.err) in ((0, True, False), (1, False, True))
