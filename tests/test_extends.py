"""`extends`: merge patches, what is inherited, and faults said once, where they are."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.diagnostics import Diagnostic, Severity
from generator.extends import NOT_INHERITED, merge
from generator.load import load_text
from generator.project import load_project

from .conftest import GPU_YAML, CheckProject, MakeProject
from .test_load import loaded, marked, places

Fault = tuple[str, int, int, str]

GRAPH = """\
graph:
  1:
    class_type: EmptyImage
    inputs: {width: 64, height: 64, batch_size: 1, color: 0}
  2:
    class_type: SaveImage
    inputs: {images: [1, 0], filename_prefix: x}
"""


def in_files(faults: list[Diagnostic]) -> list[Fault]:
    """Return file, line, column and code of faults."""
    return [(d.file, d.line, d.column, d.code) for d in faults]


def written(marked_workflows: dict[str, str]) -> tuple[dict[str, str], list[Fault]]:
    """Return workflows without their marks, and the faults that the marks stand for."""
    texts: dict[str, str] = {}
    faults: list[Fault] = []
    for name, text in marked_workflows.items():
        texts[name], marks = marked(text)
        faults += [(f"workflows/{name}.yaml", *mark) for mark in marks]
    return texts, sorted(faults)


# RFC 7396, appendix A: original, patch, result.
RFC_7396 = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', "null", "null"),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]


@pytest.mark.parametrize(("original", "patch", "result"), RFC_7396)
def test_merge_follows_the_rfc(original: str, patch: str, result: str) -> None:
    assert merge(loaded(original), loaded(patch)).plain == json.loads(result)


def rfc_merge(target: Any, patch: Any) -> Any:
    """MergePatch of RFC 7396, section 2, line by line."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = rfc_merge(result.get(name), value)
    return result


_TREES = st.recursive(
    st.one_of(st.none(), st.integers(0, 3), st.lists(st.none(), max_size=1)),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=16,
)


@given(_TREES, _TREES)
@settings(deadline=None)
def test_merge_is_the_merge_patch_of_the_rfc(original: Any, patch: Any) -> None:
    merged = merge(loaded(json.dumps(original)), loaded(json.dumps(patch)))
    assert merged.plain == rfc_merge(original, patch)


def test_values_keep_the_place_where_they_are_written() -> None:
    base, _ = load_text("a: 1\nb:\n  c: [2, 3]\n  d: 4\ne: {f: 5}\n", "base.yaml")
    patch, _ = load_text("\n\n\nb:\n    d: {x: 6}\n    y: 7\ne: [8]\n", "patch.yaml")
    assert base is not None
    assert patch is not None
    merged = merge(base, patch)
    assert merged.plain == {"a": 1, "b": {"c": [2, 3], "d": {"x": 6}, "y": 7}, "e": [8]}
    b = merged.mapping["b"].mapping
    assert {
        name: (node.file, node.line, node.column, node.key)
        for name, node in {**merged.mapping, **b, "item": b["c"].items[1]}.items()
        if name != "b"
    } == {
        "a": ("base.yaml", 1, 4, (1, 1)),
        "c": ("base.yaml", 3, 6, (3, 3)),
        "item": ("base.yaml", 3, 10, None),
        "d": ("patch.yaml", 5, 8, (5, 5)),
        "y": ("patch.yaml", 6, 8, (6, 5)),
        "e": ("patch.yaml", 7, 4, (7, 1)),
    }
    assert places(b["d"]) == [(5, 8), (5, 9), (5, 12)]


def test_merge_leaves_both_files_as_they_were() -> None:
    base, patch = loaded('{"a": {"b": 1}}'), loaded('{"a": {"b": null, "c": 2}}')
    merge(base, patch)
    assert base.plain == {"a": {"b": 1}}
    assert patch.plain == {"a": {"b": None, "c": 2}}


MODELS = """\
models:
  m: {source: {volume: v}, folder: x, filename: y}
packs:
  p: {git: "https://a/b", commit: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}
"""
BASE = (
    """\
route: /other
handler: other
summary: A summary
description: A description
enabled: false
gpu: l40s
group: g
timeout: 60
models: [m]
packs: [p]
params:
  a: {type: string}
  b: {type: string}
one_of: [[a, b]]
output: 2
"""
    + GRAPH
)


def test_what_is_inherited(make_project: MakeProject) -> None:
    root = make_project(
        {"base": BASE, "d-e": "extends: base\n", "f": "extends: d-e\nroute: /f/g\ntimeout: 5\n"},
        models=MODELS,
        gpu=GPU_YAML + "volumes: {v: /v}\n",
    )
    project, faults = load_project(root)
    assert faults == []
    base, derived, third = (project.workflows[name] for name in ("base", "d-e", "f"))
    assert set(NOT_INHERITED) == {"route", "handler", "summary", "description", "enabled"}
    assert (base.route, base.handler, base.enabled) == ("/other", "other", False)
    assert (derived.route, derived.handler, derived.enabled) == ("/d-e", "d_e", True)
    assert (derived.summary, derived.description) == ("", "")
    for workflow in (derived, third):
        for key in ("gpu", "group", "models", "packs", "params", "one_of"):
            assert getattr(workflow, key) == getattr(base, key), key
        assert workflow.output is not None
        assert workflow.output.nodes == {"": "2"}
        assert {n.id: n.class_type for n in workflow.graph.values()} == {
            "1": "EmptyImage",
            "2": "SaveImage",
        }
    assert (base.timeout, derived.timeout, third.timeout) == (60, 60, 5)
    assert (third.route, third.handler) == ("/f/g", "f")
    assert [w.extends for w in (base, derived, third)] == [None, "base", "d-e"]
    assert list(project.workflows) == ["base", "d-e", "f"]


def test_a_patch_on_a_graph(make_project: MakeProject, check_project: CheckProject) -> None:
    patch = """\
extends: base
params: {w: {type: integer, default: 8}}
graph:
  01: {class_type: ImageInvert, inputs: {image: [1, 0]}}
  1: {inputs: {width: "${w}", color: 5}}
  2: {inputs: {images: [01, 0], filename_prefix: null}}
  3: null
"""
    base = GRAPH + "  3: {class_type: PreviewImage, inputs: {images: [1, 0]}}\n"
    checked, _ = check_project(make_project({"base": base, "d": patch}))
    assert checked is not None
    graph = checked.workflows[1].workflow.graph
    assert list(graph) == ["1", "2", "01"]
    assert {name: str(value.value) for name, value in graph["1"].inputs.items()} == {
        "width": "Template(parts=(Slot(names=('w',)),))",
        "height": "64",
        "batch_size": "1",
        "color": "5",
    }
    assert {name: value.value for name, value in graph["2"].inputs.items()} == {"images": ("01", 0)}
    assert "3" in checked.workflows[0].workflow.graph


LOOPS: dict[str, tuple[dict[str, str], list[str]]] = {
    "itself": ({"a": "extends: «extends-loop»a\n"}, ["a extends a: a loop"]),
    "two": (
        {"a": "extends: «extends-loop»b\n" + GRAPH, "b": "extends: a\n"},
        ["a extends b extends a: a loop"],
    ),
    "three": (
        {
            "a": "extends: «extends-loop»b\n",
            "b": "extends: c\n",
            "c": "summary: c\nextends: a\n",
        },
        ["a extends b extends c extends a: a loop"],
    ),
    "one that extends a loop": (
        {"a": "extends: «extends-loop»a\n", "x": "extends: a\n", "y": "extends: x\n"},
        ["a extends a: a loop"],
    ),
    "one that extends a loop of two": (
        {
            "b": "extends: «extends-loop»c\n",
            "c": "extends: b\n",
            "a": "extends: b\n",
        },
        ["b extends c extends b: a loop"],
    ),
}


@pytest.mark.parametrize(("workflows", "messages"), LOOPS.values(), ids=LOOPS)
def test_loops(
    make_project: MakeProject,
    check_project: CheckProject,
    workflows: dict[str, str],
    messages: list[str],
) -> None:
    texts, expected = written(workflows)
    checked, faults = check_project(make_project(texts))
    assert in_files(faults) == expected
    assert [d.message for d in faults] == messages
    assert checked is not None
    assert checked.workflows == ()


BASES = {
    "no such base": {
        "base": GRAPH,
        "d": "extends: «unknown-base»bsae\n",
        "e": "extends: d\n",
    },
    "a patch without its base": {
        "d": "extends: «unknown-base»base\ngpu: null\nparams: {a: {default: null}, b: null}\n",
        "e": "extends: d\ngroup: null\n",
    },
    "no name": {
        "base": GRAPH,
        "d": "extends: «schema»5\n" + GRAPH,
        "e": "extends: «schema»null\n" + GRAPH,
        "f": "extends: «schema»[base]\n" + GRAPH,
    },
    "a base that is no YAML": {
        "base": "graph: [\n«syntax»",
        "d": "extends: base\n",
        "e": "extends: d\nparams: {a: {type: «schema»strin}}\n",
    },
    "a base with a duplicate key": {
        "base": GRAPH + "gpu: l40s\n«duplicate-key»gpu: l40s\n",
        "d": "extends: base\n",
    },
    "an empty base": {"base": "«empty-file»\n", "d": "extends: base\n"},
    "a base without a graph": {"base": "«missing-key»summary: x\n", "d": "extends: base\n"},
    "a node without a class": {
        "base": GRAPH + "  «missing-key»3: {inputs: {source: [1, 0]}}\n",
        "d": "extends: base\n",
        "e": "extends: base\ngraph: {3: {inputs: {source: [2, 0]}}}\n",
    },
    "a broken schema": {
        "base": GRAPH + "gpu: «schema»3\n«unknown-key»x: 1\n",
        "d": "extends: base\n",
        "e": "extends: d\ntimeout: «schema»0\n",
    },
    "a broken schema, mended": {
        "base": GRAPH + "gpu: «schema»3\n",
        "d": "extends: base\ngpu: l40s\n",
    },
    "a bad slot": {
        "base": GRAPH.replace("prefix: x", "prefix: «bad-slot»'${X}'"),
        "d": "extends: base\n",
        "e": "extends: base\ngraph: {2: {inputs: {filename_prefix: «bad-slot»'${}'}}}\n",
    },
    "an unknown class": {
        "base": GRAPH.replace("class_type: Em", "class_type: «unknown-class»Emm"),
        "d": "extends: base\n",
        "e": "extends: d\n",
        "f": "extends: e\ngraph: {3: {class_type: «unknown-class»Nix, inputs: {}}}\n",
    },
    "an unknown class, mended": {
        "base": GRAPH.replace("class_type: Em", "class_type: «unknown-class»Emm"),
        "d": "extends: base\ngraph: {1: {class_type: EmptyImage}}\n",
    },
    "an unknown param and an unknown GPU": {
        "base": GRAPH.replace("prefix: x", "prefix: «unknown-param»'${p}'")
        + "gpu: «unknown-gpu»h\n",
        "d": "extends: base\n",
        "e": "extends: d\n",
    },
}


@pytest.mark.parametrize("workflows", BASES.values(), ids=BASES)
def test_a_fault_of_the_base_is_reported_once(
    make_project: MakeProject, check_project: CheckProject, workflows: dict[str, str]
) -> None:
    texts, expected = written(workflows)
    _, faults = check_project(make_project(texts))
    assert in_files(faults) == expected


def test_an_unknown_base_has_a_hint(make_project: MakeProject, check_project: CheckProject) -> None:
    _, [fault] = check_project(make_project({"base": GRAPH, "d": "extends: bsae\n"}))
    assert (fault.message, fault.hint) == ('no workflow "bsae"', 'did you mean "base"?')


def only_derived(check_project: CheckProject, root: Any) -> list[Diagnostic]:
    _, faults = check_project(root)
    assert {d.file for d in faults} == {"workflows/base.yaml"}
    return faults


def test_a_fault_that_only_the_derived_file_causes(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    base, [(line, column, code)] = marked(GRAPH.replace("images: [1", "images: [«dangling-link»1"))
    workflows = {
        "base": base,
        "d": "extends: base\ngraph: {1: null}\n",
    }
    [fault] = only_derived(check_project, make_project(workflows))
    assert (fault.line, fault.column, fault.code) == (line, column, code)
    assert (fault.node, fault.input) == ("2", "images")
    assert fault.message == ('there is no node "1" (in workflows/d.yaml, which extends this)')


def test_each_derived_file_that_causes_a_fault_is_named(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    base, [(line, column, code)] = marked(
        "params:\n  «unused-param»w: {type: integer}\n"
        + GRAPH.replace("width: 64", "width: '${w}'")
    )
    patch = "extends: base\ngraph: {1: {inputs: {width: 8}}}\n"
    faults = only_derived(
        check_project, make_project({"base": base, "d": patch, "e": patch, "f": "extends: e\n"})
    )
    assert {(d.line, d.column, d.code) for d in faults} == {(line, column, code)}
    assert [d.message for d in faults] == [
        'nothing uses param "w" (in workflows/d.yaml, which extends this)',
        'nothing uses param "w" (in workflows/e.yaml, which extends this)',
    ]


NULLS = {
    "a param": GRAPH + "params:\n  a: «null-value»~\n",
    "a node": GRAPH + "  3: «null-value»null\n",
    "nothing written": GRAPH + "  3:«null-value»\n",
    "an input": GRAPH.replace("color: 0", "color: «null-value»null"),
    "in a list": GRAPH.replace("color: 0", "color: [1, «null-value»~]"),
    "the graph": "summary: x\ngraph: «null-value»null\n",
    "a key": GRAPH + "gpu: «null-value»null\n",
    "a key of a param": GRAPH + "params: {a: {type: string, default: «null-value»null}}\n",
}


@pytest.mark.parametrize("workflow", NULLS.values(), ids=NULLS)
def test_null_outside_extends_is_an_error(
    make_project: MakeProject, check_project: CheckProject, workflow: str
) -> None:
    texts, [expected] = written({"a": workflow})
    _, faults = check_project(make_project(texts))
    assert expected in in_files(faults)
    # The schema may refuse it too, in the same place.
    assert {fault[:3] for fault in in_files(faults)} == {expected[:3]}


def test_a_null_that_deletes_nothing_is_a_warning(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    texts, expected = written(
        {
            "base": GRAPH + "summary: x\n",
            "d": """\
extends: base
«deletes-nothing»gpu: null
«deletes-nothing»summary: null
graph:
  1: {inputs: {«deletes-nothing»widht: ~, width: 8}}
  2: {class_type: SaveImage, inputs: {images: [1, 0], filename_prefix: y}, «deletes-nothing»_meta: ~}
  «deletes-nothing»3:
""",
        }
    )
    root = make_project(texts)
    checked, faults = check_project(root)
    assert checked is not None
    assert in_files(faults) == expected
    assert {d.severity for d in faults} == {Severity.WARNING}
    [width] = [d for d in faults if d.line == 5]
    assert width.message == '"widht" deletes nothing: the base has no such key'
    assert width.hint == 'did you mean "width"?'


def test_nulls_inside_what_the_patch_adds_are_no_values(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    added = (
        "extends: base\ngraph: {3: {class_type: PreviewImage, inputs: {images: [1, 0], x: null}}}\n"
    )
    checked, _ = check_project(make_project({"base": GRAPH, "d": added}))
    assert checked is not None
    assert set(checked.workflows[1].workflow.graph["3"].inputs) == {"images"}
