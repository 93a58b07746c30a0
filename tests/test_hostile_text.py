"""Text of every kind, in every text field, comes back from the rendered code unchanged."""

import importlib
import json
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generator.check import check
from generator.project import load_project
from generator.publish import publish
from generator.render import render

from .conftest import GPU_YAML, MODELS_YAML

NASTY = (
    "\"'\\", '"""', "'''", "\r", "\r\n", "\n", "\t", "\0", "\x7f", "\x85", "\u2028", "\u2029",
    "\u202e", "\u2066", "\ufeff", "\uffff", "🦊", "{{ 7*7 }}", "{% raw %}", "{# x #}", "{", "}",
    "${", "${x}", "$${", "\\N{BULLET}", "\\", "%s", "#", "é", " ", "null", "0x10", "on", "- a", ": ",
)  # fmt: skip
TEXT = st.lists(
    st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    max_size=8,
).map("".join)
_NAMES = count()

Render = Callable[[dict[str, Any]], tuple[ModuleType, Path]]


@pytest.fixture(name="rendered")
def _rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Render:
    """Return a function that renders one workflow, written as JSON, and imports its handler."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(workflow: dict[str, Any]) -> tuple[ModuleType, Path]:
        package = f"hostile_{next(_NAMES)}"
        root = tmp_path / f"{package}_project"
        (root / "workflows").mkdir(parents=True)
        (root / "gpu.yaml").write_text(GPU_YAML + "limits: {text_characters: 10000000}\n")
        (root / "models.yaml").write_text(MODELS_YAML)
        (root / "workflows" / "it.yaml").write_text(
            json.dumps(workflow, ensure_ascii=len(str(workflow)) < 10_000), encoding="utf-8"
        )
        project, faults = load_project(root)
        checked, found = check(project)
        assert checked is not None
        assert [*faults, *found] == []
        publish(render(checked), tmp_path / package)
        importlib.invalidate_caches()
        module = importlib.import_module(f"{package}.handlers.it")
        for name in [name for name in sys.modules if name.startswith(package)]:
            del sys.modules[name]
        return module, tmp_path / package

    return make


def slots_escaped(text: str) -> str:
    return text.replace("${", "$${")


def workflow_of(texts: list[str], node: str, key: str) -> dict[str, Any]:
    """A workflow that has one of the texts in every place that takes any text."""
    summary, description, about, default, example, prefix, suffix, literal, around, title = texts
    return {
        "summary": summary or "x",
        "description": description,
        "params": {
            "a": {
                "type": "string",
                "default": default,
                "description": about,
                "examples": [example],
            },
            "b": {"type": "string", "default": "b", "prefix": prefix, "suffix": suffix},
        },
        "graph": {
            node: {
                "class_type": "PreviewAny",
                "_meta": {"title": title},
                "inputs": {
                    "source": {
                        "__value__": {
                            key: slots_escaped(literal),
                            "around": f"{slots_escaped(around)}${{a}}{slots_escaped(around)}",
                            "b": ["${b}", "${a}"],
                        }
                    }
                },
            },
        },
    }


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(TEXT, min_size=10, max_size=10), node=TEXT, key=TEXT)
def test_text_comes_back_unchanged(rendered: Render, texts: list[str], node: str, key: str) -> None:
    node, key = (f"{name} {text}".replace("$", "") for name, text in (("node", node), ("key", key)))
    module, build = rendered(workflow_of(texts, node, key))
    summary, description, about, default, example, prefix, suffix, literal, around, title = texts
    fields = module.ItRequest.model_fields
    assert fields["a"].default == default
    assert (fields["a"].description or "") == about
    assert fields["a"].examples == [example]
    graph = module.build_it_workflow({})
    source = graph[node]["inputs"]["source"]["__value__"]
    assert source[key] == literal
    assert source["around"] == f"{around}{default}{around}"
    assert source["b"] == [f"{prefix}b{suffix}", default]
    assert graph[node].get("_meta", {"title": ""})["title"] == title
    route = json.loads((build / "manifest.json").read_bytes())["routes"]["/it"]
    assert route["summary"] == (summary or "x")
    assert route["description"] == description


def test_a_megabyte_in_every_field(rendered: Render) -> None:
    """Long texts take no other way than short ones."""
    long = "".join(NASTY) * (1_000_000 // len("".join(NASTY)))
    texts = [long] * 10
    module, _ = rendered(workflow_of(texts, "2", "key"))
    source = module.build_it_workflow({})["2"]["inputs"]["source"]["__value__"]
    assert source["key"] == long
    assert source["around"] == long * 3
    assert module.ItRequest.model_fields["a"].description == long


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=TEXT)
def test_a_callers_text_is_no_template(rendered: Render, value: str) -> None:
    """What a caller sends is substituted once: slots and braces in it stay as they are."""
    module, _ = rendered(workflow_of(["x"] * 10, "2", "key"))
    source = module.build_it_workflow({"a": value})["2"]["inputs"]["source"]["__value__"]
    assert source["around"] == f"x{value}x"
    assert source["b"][1] == value
