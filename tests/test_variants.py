"""Which graph is sent when params are absent: the rule, by brute force, and its limits."""

import importlib
import json
import random
import re
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.check.variants import MAX_VARIANTS, LeftOut, Variant, left_out, outputs, variants
from generator.cli import main
from generator.graph.catalog import ClassType, Input, open_catalog
from generator.graph.records import Graph, Link
from generator.load import Node
from generator.project import CATALOGS
from generator.slots import Slot, Template, parse
from generator.spec import GraphNode, InputValue, Output, Param, Workflow

from .conftest import CheckProject, MakeProject

AT = Node(None, "workflows/it.yaml", 1, 1)
NONE: frozenset[str] = frozenset()
PARAMS = ("a", "b", "c", "d")

# A graph as the strategy draws it: class name and inputs; a class: its inputs, True for required.
Drawn = dict[str, tuple[str, dict[str, Any]]]
Classes = dict[str, dict[str, bool]]


def workflow_of(
    drawn: Drawn,
    optional: tuple[str, ...] = (),
    one_of: tuple[tuple[str, ...], ...] = (),
    output: Output | None = None,
) -> Workflow:
    """Return a workflow record of that graph."""
    grouped = {name: group for group in one_of for name in group}
    params = {
        name: Param(name, "string", AT, optional=name in optional, group=grouped.get(name, ()))
        for name in (*optional, *grouped)
    }
    graph = {
        key: GraphNode(key, class_type, {n: InputValue(v, AT) for n, v in inputs.items()}, AT)
        for key, (class_type, inputs) in drawn.items()
    }
    return Workflow(
        name="it",
        at=AT,
        route="/it",
        handler="it",
        summary="",
        description="",
        enabled=True,
        params=params,
        one_of=one_of,
        graph=graph,
        graph_param=None,
        output=output,
        models=(),
        packs=(),
        gpu=None,
        group=None,
        timeout=None,
    )


def class_types(drawn: Drawn, classes: Classes) -> dict[str, ClassType]:
    """Return the class of every node whose class is known, as the checks find it."""
    return {
        key: ClassType(
            name,
            None,
            {n: Input("STRING", optional=not required) for n, required in classes[name].items()},
            (),
        )
        for key, (name, _) in drawn.items()
        if name in classes
    }


def brute_force(
    drawn: Drawn, classes: Classes, absent: frozenset[str]
) -> tuple[set[str], set[tuple[str, str]]]:
    """Take away nodes and inputs until nothing more must go, looking at everything each time."""
    nodes: set[str] = set()
    inputs: set[tuple[str, str]] = set()
    while True:
        before = len(nodes), len(inputs)
        for key, (class_name, values) in drawn.items():
            for name, value in values.items():
                if isinstance(value, Link):
                    goes = value.node in nodes
                else:
                    whole = value.whole if isinstance(value, Template) else None
                    goes = whole is not None and len(whole.names) == 1 and whole.names[0] in absent
                if goes:
                    inputs.add((key, name))
                    if classes.get(class_name, {}).get(name, False):
                        nodes.add(key)
        if before == (len(nodes), len(inputs)):
            return nodes, {entry for entry in inputs if entry[0] not in nodes}


NODE_IDS = st.sampled_from(["1", "2", "3", "4", "5", "57:8"])
INPUT_NAMES = st.sampled_from(["x", "y", "z"])
CLASS_NAMES = st.sampled_from(["A", "B", "C", "unknown"])
VALUES = st.one_of(
    st.builds(Link, NODE_IDS, st.integers(0, 2)),
    st.builds(lambda name: Template((Slot((name,)),)), st.sampled_from(PARAMS)),
    st.builds(lambda name: Template(("about ", Slot((name,)))), st.sampled_from(PARAMS)),
    st.just(Template((Slot(("c", "d")),))),
    st.builds(lambda name: [Template((Slot((name,)),))], st.sampled_from(PARAMS)),
    st.just("text"),
)
GRAPHS: st.SearchStrategy[Drawn] = st.dictionaries(
    NODE_IDS, st.tuples(CLASS_NAMES, st.dictionaries(INPUT_NAMES, VALUES)), min_size=1
)
CLASSES: st.SearchStrategy[Classes] = st.fixed_dictionaries(
    dict.fromkeys("ABC", st.dictionaries(INPUT_NAMES, st.booleans()))
)


@settings(deadline=None, max_examples=300)
@given(GRAPHS, CLASSES)
def test_left_out_is_the_brute_force_fixpoint(drawn: Drawn, classes: Classes) -> None:
    """For graphs with loops, dangling links, unknown classes and inputs of no schema too."""
    workflow = workflow_of(drawn, ("a", "b"), (("c", "d"),))
    known = class_types(drawn, classes)
    alone = {name: left_out(workflow, known, name) for name in PARAMS}
    for name, gone in alone.items():
        nodes, inputs = brute_force(drawn, classes, frozenset(name))
        assert gone.nodes == tuple(key for key in drawn if key in nodes)
        assert gone.inputs == tuple(
            (key, one)
            for key, (_, values) in drawn.items()
            for one in values
            if (key, one) in inputs
        )
    for size in range(len(PARAMS) + 1):
        for absent in combinations(PARAMS, size):
            nodes, inputs = brute_force(drawn, classes, frozenset(absent))
            lost = {node for name in absent for node in alone[name].nodes}
            assert lost == nodes
            both = {entry for name in absent for entry in alone[name].inputs}
            assert {entry for entry in both if entry[0] not in lost} == inputs


def test_left_out_goes_along_the_links() -> None:
    """A required input takes its node with it, an optional one only itself."""
    drawn: Drawn = {
        "1": ("A", {"x": Template((Slot(("a",)),))}),
        "2": ("A", {"x": Link("1", 0)}),
        "3": ("B", {"x": Link("2", 0), "y": "kept"}),
        "4": ("A", {"x": Link("3", 0)}),
    }
    known = class_types(drawn, {"A": {"x": True}, "B": {"x": False, "y": True}})
    workflow = workflow_of(drawn, ("a",))
    assert left_out(workflow, known, "a") == LeftOut(("1", "2"), (("3", "x"),))
    assert left_out(workflow, known, "b") == LeftOut((), ())


# The rendered builder

CATALOG = open_catalog(CATALOGS, version="0.3.71")
OPTIONAL = {"s": "string", "t": "string", "n": "integer", "f": "boolean"}
GROUP = ("g", "h")


def random_graph(seed: int) -> Graph:
    """Return a graph of real classes that uses every param, and whose last node always stays."""
    chance = random.Random(seed)
    texts: list[Any] = ["${s}", "${t}", "say ${s}", "${g}", "${g|h}", "x ${h}", "abc"]
    numbers: list[Any] = ["${n}", 2]
    flags: list[Any] = ["${f}", True]
    nodes: Graph = {}
    for i in range(12):
        key = f"{chance.randrange(100)}:{i}"
        inputs: dict[str, Any]
        match chance.randrange(6):
            case 0:
                name, inputs = "PrimitiveString", {"value": chance.choice(texts)}
                texts.append([key, 0])
            case 1:
                name, inputs = "PrimitiveInt", {"value": chance.choice(numbers)}
                numbers.append([key, 0])
            case 2:
                name, inputs = "PrimitiveBoolean", {"value": chance.choice(flags)}
                flags.append([key, 0])
            case 3:
                name, inputs = "StringConcatenate", {"delimiter": "-"}
                inputs |= {one: chance.choice(texts) for one in ("string_a", "string_b")}
                texts.append([key, 0])
            case _:
                name = "RegexReplace"
                inputs = {one: chance.choice(texts) for one in ("string", "replace")}
                inputs |= {"regex_pattern": "a", "count": chance.choice(numbers)}
                inputs |= {"dotall": chance.choice(flags), "multiline": False}
                texts.append([key, 0])
        nodes[key] = {"class_type": name, "inputs": inputs}
    shown = ["${s}", "${t}", "${n}", "${f}", "${g}", "${h}", texts[-1], texts[-2], {"__value__": 1}]
    for i, source in enumerate(shown):
        nodes[f"{i}"] = {"class_type": "PreviewAny", "inputs": {"source": source}}
    return nodes


def sent(graph: Graph, body: Mapping[str, Any]) -> Graph:
    """Return the graph that a body should give, by brute force over the graph as it is written."""
    drawn: Drawn = {
        key: (
            content["class_type"],
            {
                name: Link(*value) if isinstance(value, list) else parse(str(value))
                for name, value in content["inputs"].items()
            },
        )
        for key, content in graph.items()
    }
    classes: Classes = {
        name: {n: not one.optional for n, one in CATALOG.get(name, [])[0].inputs.items()}
        for name, _ in drawn.values()
    }
    absent = frozenset({*OPTIONAL, *GROUP} - set(body))
    nodes, inputs = brute_force(drawn, classes, absent)
    return {
        key: {
            "class_type": content["class_type"],
            "inputs": {
                name: filled(value, body)
                for name, value in content["inputs"].items()
                if (key, name) not in inputs
            },
        }
        for key, content in graph.items()
        if key not in nodes
    }


def filled(value: Any, body: Mapping[str, Any]) -> Any:
    if not isinstance(value, str):
        return value
    values = {f"${{{name}}}": one for name, one in body.items()}
    values["${g|h}"] = body.get("g", body.get("h"))
    if value in values:
        return values[value]
    return re.sub(r"\$\{\w+\}", lambda slot: str(values.get(slot[0], "")), value)


def bodies() -> Iterator[dict[str, Any]]:
    """Yield a body for every combination of absent params."""
    values = {"s": "S", "t": "", "n": 0, "f": False}
    for present in product((False, True), repeat=len(values)):
        chosen = dict(zip(values.items(), present, strict=True))
        for name in GROUP:
            yield {one: value for (one, value), is_there in chosen.items() if is_there} | {
                name: name.upper()
            }


def test_the_rendered_builder_sends_the_brute_force_graph(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On random graphs, for every combination of absent params."""
    graphs = {f"w{seed}": random_graph(seed) for seed in range(8)}
    params = {name: {"type": kind, "optional": True} for name, kind in OPTIONAL.items()}
    params |= {name: {"type": "string"} for name in GROUP}
    root = make_project(
        {
            name: json.dumps(
                {"handler": "all", "params": params, "one_of": [GROUP], "graph": graph}
            )
            for name, graph in graphs.items()
        }
    )
    target = root / "rendered_variants"
    assert main(["build", "--quiet", "--project", str(root), "--out", str(target)]) == 0
    monkeypatch.syspath_prepend(str(root))
    module = importlib.import_module("rendered_variants.handlers.all")
    combinations_of_params = list(bodies())
    assert len(combinations_of_params) == 32
    sizes = set()
    for name, graph in graphs.items():
        for body in combinations_of_params:
            built = getattr(module, f"build_{name}_workflow")(body)
            assert built == sent(graph, body)
            sizes.add(len(built))
    assert len(sizes) > 5


# Variants


def chain(optional: int, one_of: tuple[tuple[str, ...], ...] = ()) -> Workflow:
    """Return a workflow of so many optional params, each in a node of its own."""
    names = tuple(f"p{i}" for i in range(optional))
    drawn: Drawn = {name: ("A", {"x": Template((Slot((name,)),))}) for name in names}
    return workflow_of(drawn, names, one_of)


def absences(workflow: Workflow) -> list[frozenset[str]]:
    return [variant.absent for variant in variants(workflow)]


@pytest.mark.parametrize(
    ("optional", "one_of", "count"),
    [
        (0, (), 1),
        (1, (), 2),
        (0, (("x", "y", "z"),), 3),
        (2, (("x", "y"), ("u", "v", "w")), 24),
        (9, (), 512),
        (8, (("x", "y"),), 512),
    ],
)
def test_up_to_the_cap_every_combination_is_a_variant(
    optional: int, one_of: tuple[tuple[str, ...], ...], count: int
) -> None:
    """And of a group, all but one param are absent."""
    found = absences(chain(optional, one_of))
    assert MAX_VARIANTS == 512
    assert len(found) == len(set(found)) == count
    for absent in found:
        assert [len(absent & set(group)) for group in one_of] == [len(g) - 1 for g in one_of]
    assert found[0] == frozenset(name for group in one_of for name in group[1:])


def test_beyond_the_cap_each_absence_each_pair_and_all_at_once() -> None:
    names = [f"p{i}" for i in range(10)]
    few = [frozenset(one) for size in (0, 1, 2) for one in combinations(names, size)]
    found = absences(chain(10))
    assert len(found) == len(set(found)) == 57
    assert set(found) == {*few, frozenset(names)}


def test_beyond_the_cap_groups_stay_groups() -> None:
    """Each choice is there, and each with each absence; one param of a group is always given."""
    group = ("x", "y", "z")
    found = absences(chain(10, (group,)))
    assert {len(absent & set(group)) for absent in found} == {2}
    for given_name in group:
        others = frozenset(group) - {given_name}
        assert others in found
        assert all(others | {f"p{i}"} in found for i in range(10))


def test_a_variant_for_every_output() -> None:
    output = Output({"webp": "p0", "mp4": "p1"}, AT, param="format")
    drawn: Drawn = {"p0": ("A", {"x": Template((Slot(("a",)),))}), "p1": ("A", {})}
    workflow = workflow_of(drawn, ("a",), output=output)
    assert list(variants(workflow)) == [
        Variant(NONE, "webp"),
        Variant(NONE, "mp4"),
        Variant(frozenset("a"), "webp"),
        Variant(frozenset("a"), "mp4"),
    ]
    assert [outputs(workflow, {}, choice) for choice in ("webp", "mp4")] == [{"p0"}, {"p1"}]


# Diagnostics

PREVIEW = "  {id}: {{class_type: PreviewAny, inputs: {{source: {source}}}}}\n"
ALWAYS = "  9: {class_type: PreviewAny, inputs: {source: {__value__: x}}}\n"


def previews(**sources: str) -> str:
    """Return a graph of nodes that show a value: p1="x" is node 1."""
    values = {k: v if "$" in v else {"__value__": v} for k, v in sources.items()}
    nodes = (PREVIEW.format(id=k[1:], source=json.dumps(v)) for k, v in values.items())
    return "graph:\n" + "".join(nodes)


def optional_params(*names: str) -> str:
    return "params:\n" + "".join(f"  {name}: {{type: string, optional: true}}\n" for name in names)


# Specs, and line, code and message of the errors in them.
FAULTS: dict[str, tuple[str, list[tuple[int, str, str]]]] = {
    "no output node at all": (
        "graph:\n  1: {class_type: PrimitiveString, inputs: {value: x}}\n",
        [(1, "no-output", "no output node: nothing would run")],
    ),
    "the only output needs a param": (
        optional_params("a") + previews(p1="${a}"),
        [(2, "no-output", 'without "a", no output node is left')],
    ),
    "the only output needs a param over links": (
        optional_params("a") + "graph:\n"
        "  1: {class_type: PrimitiveString, inputs: {value: '${a}'}}\n"
        "  2:\n    class_type: RegexReplace\n"
        "    inputs: {string: [1, 0], regex_pattern: a, replace: b}\n"
        "  3: {class_type: PreviewAny, inputs: {source: [2, 0]}}\n",
        [(2, "no-output", 'without "a", no output node is left')],
    ),
    "two outputs, each with a param": (
        optional_params("a", "b") + previews(p1="${a}", p2="${b}"),
        [(2, "no-output", 'without "a" and "b", no output node is left')],
    ),
    "two outputs that both need each of two params": (
        optional_params("b", "a")
        + "graph:\n  1:\n    class_type: StringConcatenate\n"
        + "    inputs: {string_a: '${a}', string_b: '${b}', delimiter: ''}\n"
        + "  2: {class_type: PreviewAny, inputs: {source: [1, 0]}}\n",
        [
            (2, "no-output", 'without "b", no output node is left'),
            (3, "no-output", 'without "a", no output node is left'),
        ],
    ),
    "an output for one of a group alone": (
        "params:\n  a: {type: string}\n  b: {type: string}\none_of: [[a, b]]\n"
        + previews(p1="${a}")
        + "  2: {class_type: PrimitiveString, inputs: {value: '${b}'}}\n",
        [(2, "no-output", 'without "a", no output node is left')],
    ),
    "eleven outputs, each with a param": (
        optional_params(*"abcdefghijk")
        + previews(**{f"p{i}": f"${{{name}}}" for i, name in enumerate("abcdefghijk")}),
        [
            (
                2,
                "no-output",
                "without "
                + " and ".join(f'"{name}"' for name in "abcdefghijk")
                + ", no output node is left",
            )
        ],
    ),
    "the named output needs a param, another does not": (
        optional_params("a") + previews(p1="${a}", p2="x") + "output: 1\n",
        [(2, "no-output", 'without "a", no output node is left')],
    ),
    "one of the outputs to choose from needs a param": (
        "params:\n  format: {type: string, enum: [x, y]}\n  a: {type: string, optional: true}\n"
        + previews(p1="${a}", p2="x")
        + "output: {param: format, nodes: {x: 1, y: 2}}\n",
        [(3, "no-output", 'without "a", no output node is left')],
    ),
    "no such output": (
        previews(p10="x") + "output: 1\n",
        [(3, "bad-output", 'no node "1"')],
    ),
    "the output saves nothing": (
        "graph:\n  1: {class_type: PrimitiveString, inputs: {value: x}}\n" + ALWAYS + "output: 1\n",
        [
            (
                4,
                "bad-output",
                'node "1" (PrimitiveString) is no output node: nothing runs for it',
            )
        ],
    ),
    "no such output to choose from": (
        "params: {format: {type: string, enum: [x, y]}}\n"
        + previews(p1="x")
        + "output:\n  param: format\n  nodes:\n    x: 1\n    y: 2\n",
        [(8, "bad-output", 'no node "2"')],
    ),
    "no such param to choose with": (
        previews(p1="x") + "output: {param: format, nodes: {x: 1}}\n",
        [(3, "unknown-param", 'no param "format"')],
    ),
    "a number chooses no output": (
        "params: {format: {type: integer, enum: [1]}}\n"
        + previews(p1="x")
        + "output: {param: format, nodes: {1: 1}}\n",
        [(4, "bad-output", 'param "format" must be a plain string with an enum, always present')],
    ),
    "what may be absent chooses no output": (
        "params: {format: {type: string, enum: [x], optional: true}}\n"
        + previews(p1="x")
        + "output: {param: format, nodes: {x: 1}}\n",
        [(4, "bad-output", 'param "format" must be a plain string with an enum, always present')],
    ),
    "an option without an output": (
        "params: {format: {type: string, enum: [x, y]}}\n"
        + previews(p1="x")
        + "output: {param: format, nodes: {x: 1}}\n",
        [(4, "bad-output", 'nodes has other keys than the enum of param "format"')],
    ),
    "an output without an option": (
        "params: {format: {type: string, enum: [x]}}\n"
        + previews(p1="x")
        + "output: {param: format, nodes: {x: 1, y: 1}}\n",
        [(4, "bad-output", 'nodes has other keys than the enum of param "format"')],
    ),
    "an output of the caller's graph": (
        "params: {workflow: {type: graph}}\ngraph: ${workflow}\noutput: 1\n",
        [(3, "bad-output", "the caller's graph has its own output nodes")],
    ),
    "an absent value in a list": (
        optional_params("a")
        + previews(p1="x")
        + '  2: {class_type: PreviewAny, inputs: {source: ["${a}"]}}\n',
        [
            (
                5,
                "optional-inside",
                'param "a" may be absent, so it is no item of a list or mapping',
            )
        ],
    ),
}
# Specs without a fault.
FINE = {
    "text around a slot": optional_params("a") + previews(p1="say ${a}"),
    "another output stays": optional_params("a", "b") + previews(p1="${a}", p2="${b}", p3="x"),
    "a group feeds both": (
        "params: {a: {type: string}, b: {type: string}}\none_of: [[a, b]]\n"
        + previews(p1="${a}", p2="${b}")
    ),
    "the named output stays": (
        optional_params("a") + previews(p1="${a}", p2="say ${a}") + "output: 2\n"
    ),
    "an id that is quoted": previews(p1="x") + 'output: "1"\n',
    "an id that YAML would read as a number": previews(p010="x") + "output: 010\n",
    "an id with a colon": previews(p1="x").replace("  1:", "  57:8:") + "output: 57:8\n",
    "one node for two options": (
        "params: {format: {type: string, enum: [x, y]}}\n"
        + previews(p1="${format}")
        + "output: {param: format, nodes: {x: 1, y: '1'}}\n"
    ),
    "eleven params and a node that stays": (
        optional_params(*"abcdefghijk")
        + previews(**{f"p{i}": f"${{{name}}}" for i, name in enumerate("abcdefghijk")}, p99="x")
    ),
}


def errors(root: Path, check_project: CheckProject) -> list[tuple[int, str, str]]:
    found = check_project(root)[1]
    return [(d.line, d.code, d.message) for d in found if d.severity == "error"]


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_outputs_and_absences(
    name: str, make_project: MakeProject, check_project: CheckProject
) -> None:
    spec, expected = FAULTS[name]
    assert errors(make_project({"it": spec}), check_project) == expected


@pytest.mark.parametrize("name", FINE)
def test_outputs_and_absences_that_are_fine(
    name: str, make_project: MakeProject, check_project: CheckProject
) -> None:
    assert errors(make_project({"it": FINE[name]}), check_project) == []


def test_one_of_a_group_may_be_absent_in_a_list(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    """It is as absent as an optional param, so it cannot stand there alone either."""
    spec = (
        "params: {a: {type: string}, b: {type: string}}\none_of: [[a, b]]\n"
        'graph:\n  1: {class_type: PreviewAny, inputs: {source: ["${a|b}", "${b}"]}}\n'
    )
    found = errors(make_project({"it": spec}), check_project)
    assert [(line, code) for line, code, _ in found] == [(4, "optional-inside")]


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_beyond_the_cap_no_variant_is_without_output(
    groups: int, make_project: MakeProject, check_project: CheckProject
) -> None:
    """Here it takes the second choice of every group and two absences, of 2,048 variants or more."""
    optional = [f"o{i}" for i in range(10)]
    pairs = [(f"a{i}", f"b{i}") for i in range(groups)]
    spec = optional_params(*optional)
    spec += "".join(f"  {name}: {{type: string}}\n" for pair in pairs for name in pair)
    spec += f"one_of: {json.dumps(pairs)}\n"
    spec += previews(
        p1="${o0}", p2="${o1}", **{f"p{i + 3}": f"${{{a}}}" for i, (a, _) in enumerate(pairs)}
    )
    texts = " ".join(f"${{{name}}}" for name in (*optional, *(b for _, b in pairs)))
    spec += f"  99: {{class_type: PrimitiveString, inputs: {{value: '{texts}'}}}}\n"
    assert {code for _, code, _ in errors(make_project({"it": spec}), check_project)} == {
        "no-output"
    }
