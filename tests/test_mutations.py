"""Whatever happens to a YAML file, the answer is diagnostics, never a traceback."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generator.diagnostics import as_github, as_json, as_text, has_errors
from generator.load import load_text
from generator.render import render

from .conftest import ROOT, load_and_check

SPECS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "gpu.yaml", ROOT / "models.yaml", *sorted(ROOT.glob("workflows/*.yaml")))
}
SCRAPS = (
    "{", "}", "[", "]", ":", "- ", "null", "true", "-1", "1e9", "9" * 30, '""', "''", "~", "&a ",
    "*a", "!!str ", "<<: ", "${", "${prompt}", "${x|y}", "$${", "\t", "\0", "\u2028", "é", "#",
    "\n", "extends: flux\n", "extends: flux-lora\n", "optional: true", "type: graph", "4", "[4, 0]",
    "{type: seed}", "one_of: [[prompt, seed]]\n", "output: {param: steps, nodes: {a: 1}}\n",
    "default: 5", "enum: [1, a]", "minimum: 1e3", "step: 7", "packs: [x]\n", "pattern: '('", "%",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 4.0, 1e300, 2**64, 10**299, "", "x", "a" * 300, "${prompt}",
    "${x|y}", "${", "\0", "é\u2028", [], {}, [[]], [None], {"": {}}, ["4", 0], ["zzz", 0], [1, 0.0],
    {"type": "seed"}, {"type": "string"}, {"type": "integer", "step": 3}, {"type": "graph"},
    {"type": "model", "default": "x.ckpt"}, {"type": "string", "optional": True},
    {"class_type": "KSampler", "inputs": {}}, {"class_type": "PreviewAny"}, "flux-dev", "flux-lora",
    [["prompt", "seed"]], [["prompt", "nobody"]], {"param": "format", "nodes": {"webp": 9}}, "9",
)  # fmt: skip
KEYS = (
    "", "prompt", "seed", "x", "4", "9", "type", "default", "enum", "minimum", "maximum", "step",
    "multipleOf", "pattern", "minLength", "optional", "prefix", "strip", "folder", "inputs", "text",
    "class_type", "graph", "params", "one_of", "output", "extends", "models", "packs", "handler",
    "route", "enabled", "filename", "size", "source", "hf", "url", "volume", "fallback", "modal",
)  # fmt: skip


@pytest.fixture(scope="module", name="project")
def _project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "workflows").mkdir()
    return root


def mutated(text: str, seed: int, count: int) -> str:
    """Change a text at a few places: cut, double, swap lines, insert a scrap, replace a word."""
    chance = random.Random(seed)
    for _ in range(count):
        lines = text.splitlines(keepends=True) or [""]
        at = chance.randrange(len(lines))
        place = chance.randrange(len(text) + 1)
        match chance.randrange(6):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[chance.randrange(len(lines))])
            case 2:
                lines = [text[:place], chance.choice(SCRAPS), text[place:]]
            case 3:
                lines = [text[:place], text[place + chance.randrange(20) :]]
            case 4:
                key, colon, _ = lines[at].partition(": ")
                lines[at] = f"{key}{colon}{chance.choice(SCRAPS)}\n"
            case _:
                indent = chance.choice(("", "  ", "    "))
                lines[at] = indent + lines[at].lstrip()
        text = "".join(lines)
    return text


def restructured(value: Any, chance: random.Random) -> Any:
    """Change parsed YAML at one place: remove, double, rename, or put another value there."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.15:
        return chance.choice(VALUES)
    if isinstance(value, list):
        items = list(value)
        at = chance.randrange(len(items))
        if chance.random() < 0.2:
            return [*items, chance.choice(VALUES)]
        items[at] = restructured(items[at], chance)
        return items
    entries = dict(value)
    key = chance.choice(sorted(entries))
    match chance.randrange(6):
        case 0:
            del entries[key]
        case 1:
            entries[chance.choice(KEYS)] = entries.pop(key)
        case 2:
            entries[chance.choice(KEYS)] = chance.choice(VALUES)
        case _:
            entries[key] = restructured(entries[key], chance)
    return entries


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from(sorted(SPECS)), seed=st.integers(0, 2**32), count=st.integers(1, 3))
def test_a_restructured_spec_gets_diagnostics(
    project: Path, name: str, seed: int, count: int
) -> None:
    """As below, but what is changed is still YAML, so that the later checks see it."""
    node, _ = load_text(SPECS[name], name)
    assert node is not None
    value, chance = node.plain, random.Random(seed)
    for _ in range(count):
        value = restructured(value, chance)
    assert_diagnosed(project, name, json.dumps(value))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(sorted(SPECS)),
    seed=st.integers(0, 2**32),
    count=st.integers(1, 4),
)
def test_a_mutated_spec_gets_diagnostics(project: Path, name: str, seed: int, count: int) -> None:
    """Every change of a shipped spec is refused with a place, or can be rendered."""
    assert_diagnosed(project, name, mutated(SPECS[name], seed, count))


def assert_diagnosed(project: Path, name: str, changed: str) -> None:
    for file, text in SPECS.items():
        (project / file).write_text(changed if file == name else text, encoding="utf-8")
    checked, diagnostics = load_and_check(project)
    for show in (as_text, as_json, as_github):
        assert isinstance(show(diagnostics), str)
    assert all(d.line >= 1 and d.column >= 1 and d.message for d in diagnostics)
    if not has_errors(diagnostics):
        assert checked is not None
        assert render(checked)
    elif checked is None:
        assert any(d.file in ("gpu.yaml", "models.yaml") for d in diagnostics)
