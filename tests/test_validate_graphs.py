"""The graph checks through `validate`: at which line and column each fault is reported."""

import re
from pathlib import Path

import pytest

from generator.diagnostics import Diagnostic

from .conftest import CheckProject, MakeProject

# A fault stands where « is; several are reported in this order.
MARK = re.compile("«([a-z-]+)»")

IMAGE = "  1: {class_type: EmptyImage, inputs: {width: 64, height: 64, batch_size: 1, color: 0}}\n"
SAVE = "  9: {class_type: SaveImage, inputs: {images: [1, 0], filename_prefix: x}}\n"
GRAPH = "graph:\n" + IMAGE + SAVE
LOAD = "  2: {class_type: LoadImage, inputs: {image: a.png}}\n"
TEXT = "  2: {class_type: PrimitiveString, inputs: {value: x}}\n"
INVERT = "  2: {class_type: ImageInvert, inputs: {image: [1, 0]}}\n"
VIDEO = (
    "graph:\n" + IMAGE + "  2: {class_type: CreateVideo, inputs: {images: [1, 0], fps: 16}}\n"
    "  9:\n"
    "    class_type: SaveVideo\n"
    "    inputs: {video: [2, 0], filename_prefix: x, format: «not-an-option»bogus, codec: auto}\n"
)
ONE_OF = (
    "params: {a: {type: string}, b: {type: string}}\n"
    "one_of: [[a, b]]\n"
    "graph:\n"
    "  1: {class_type: PrimitiveString, inputs: {value: '${a}'}}\n"
    "  2: {class_type: PreviewAny, inputs: {source: [1, 0]}}\n"
    "  3: {class_type: PrimitiveString, inputs: {value: '${b}', «unknown-input»vlaue: x}}\n"
    "  4: {class_type: PreviewAny, inputs: {source: [3, 0]}}\n"
)


def edited(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


CASES = {
    "missing-input": edited(GRAPH, "EmptyImage, inputs: {width: 64, ", "«missing-input»EmptyImage, inputs: {"),
    "unknown-input": edited(GRAPH, "color: 0", "color: 0, «unknown-input»colour: 0"),
    "frontend-input": "graph:\n" + IMAGE
    + "  2: {class_type: PreviewAny, inputs: {source: [1, 0], «frontend-input»preview: x}}\n",
    "literal-type": edited(GRAPH, "width: 64", "width: «literal-type»wide"),
    "out-of-range": edited(GRAPH, "width: 64", "width: «out-of-range»0"),
    "off-step": "graph:\n"
    "  1: {class_type: CheckpointLoaderSimple, inputs: {ckpt_name: x.ckpt}}\n"
    "  2: {class_type: EmptyLatentImage, inputs: {width: «off-step»63, height: 64, batch_size: 1}}\n"
    "  3: {class_type: VAEDecode, inputs: {samples: [2, 0], vae: [1, 2]}}\n"
    "  9: {class_type: SaveImage, inputs: {images: [3, 0], filename_prefix: x}}\n",
    "not-an-option": VIDEO,
    "a file's name is spoken of once": edited(
        GRAPH.replace("[1, 0]", "[2, 0]").replace(IMAGE, "") + LOAD, "a.png", "«input-file»a.txt"
    ),
    "literal-for-link": edited(GRAPH, "images: [1, 0]", "images: «literal-for-link»x").replace(
        "  1:", "  «unreachable»1:"
    ),
    "bad-link": edited(GRAPH, "images: [1, 0]", "images: «bad-link»[1, 0, 0]").replace(
        "  1:", "  «unreachable»1:"
    ),
    "bad-output-index": edited(GRAPH, "images: [1, 0]", "images: [1, «bad-output-index»7]"),
    "link-type": edited(GRAPH, "color: 0", "color: «link-type»[2, 0]") + TEXT,
    "cycle": "graph:\n" + edited(INVERT, "[1, 0]", "«cycle»[3, 0]")
    + edited(INVERT.replace("2:", "3:"), "[1, 0]", "«cycle»[2, 0]")
    + SAVE.replace("[1, 0]", "[3, 0]"),
    "unreachable": GRAPH + edited(TEXT, "  2:", "  «unreachable»2:"),
    "unreachable beside an output": GRAPH + edited(INVERT, "  2:", "  «unreachable»2:")
    + edited(SAVE, "  9:", "  «unreachable»8:") + "output: 9\n",
    "api-node": edited(GRAPH, "[1, 0]", "[2, 0]")
    + "  2: {class_type: «api-node»RecraftCrispUpscaleNode, inputs: {image: [1, 0]}}\n",
    "deprecated": "graph:\n"
    "  1: {class_type: «deprecated»wanBlockSwap, inputs: {model: [2, 0]}}\n"
    "  2: {class_type: CheckpointLoaderSimple, inputs: {ckpt_name: x.ckpt}}\n"
    "  3: {class_type: PreviewAny, inputs: {source: [1, 0]}}\n",
    "only where a param is absent": ONE_OF,
    "in no variant at all": (
        "params: {a: {type: string}, b: {type: string}}\n"
        "one_of: [[a, b]]\n"
        "graph:\n"
        "  1: {class_type: PrimitiveString, inputs: {value: '${a}'}}\n"
        "  2: {class_type: PrimitiveString, inputs: {value: '${b}'}}\n"
        "  3: {class_type: PreviewAny, inputs: {source: [1, 0]}}\n"
        "  4: {class_type: PreviewAny, inputs: {source: [2, 0]}}\n"
        "  5: {class_type: StringConcatenate, inputs: {string_a: [1, 0], string_b: [2, 0], n: 0}}\n"
        "  6: {class_type: PreviewAny, inputs: {source: [5, 0]}}\n"
    ),
    "only for one of the outputs": "params: {f: {type: string, default: a}}\n" + edited(
        GRAPH, "filename_prefix: x", "filename_prefix: x, «unknown-input»y: 1"
    ) + "  8: {class_type: PreviewImage, inputs: {images: [1, 0]}}\n"
    "output: {param: f, nodes: {a: 8, b: 9}}\n",
    "a slot passes": "params: {w: {type: integer, default: 64}}\n"
    + edited(GRAPH, "width: 64", 'width: "${w}"'),
    "a list with a slot is no link": "params: {w: {type: integer, default: 64}}\n"
    + edited(GRAPH, "width: 64", 'width: «bad-link»["${w}", 0, 0]'),
    "a dangling link is said once": edited(GRAPH, "[1, 0]", "[«dangling-link»7, 0]"),
    "what follows from a wrong link is not said": "params:\n"
    "  w: {type: integer, step: 8}\n"
    "  h: {type: integer, minimum: «param-bounds»0}\n"
    "  «unused-param»o: {type: integer}\n"
    "graph:\n"
    '  1: {class_type: EmptyImage, inputs: {width: "${w}", height: "${h}", batch_size: 1, color: 0}}\n'
    + edited(INVERT, "[1, 0]", "«cycle»[2, 0]") + edited(SAVE, "[1, 0]", "[2, 0]"),
    "no output node is said once": "«no-output»" + GRAPH.replace(SAVE, ""),
    "an unknown class may be an output": edited(GRAPH, "SaveImage", "«unknown-class»SaveImagine"),
}  # fmt: skip


def expected(text: str) -> tuple[str, list[tuple[int, int, str]]]:
    """Return a text without its marks, and where they stood."""
    places = []
    for number, line in enumerate(text.splitlines(), 1):
        while mark := MARK.search(line):
            places.append((number, mark.start() + 1, mark[1]))
            line = line[: mark.start()] + line[mark.end() :]
    return MARK.sub("", text), places


def places(found: list[Diagnostic], file: str = "it.yaml") -> list[tuple[int, int, str]]:
    models = {"undeclared-model"}
    return [
        (d.line, d.column, d.code)
        for d in found
        if Path(d.file).name == file and d.code not in models
    ]


@pytest.mark.parametrize("name", CASES)
def test_places(name: str, make_project: MakeProject, check_project: CheckProject) -> None:
    text, wanted = expected(CASES[name])
    _, found = check_project(make_project({"it": text}))
    assert places(found) == wanted


def test_a_fault_of_the_base_is_reported_once(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    """And one that only the patch makes, where the patch says so."""
    base = edited(GRAPH, "width: 64", "width: 0")
    patch = "extends: base\ngraph: {1: {inputs: {height: 0}}}\n"
    _, found = check_project(make_project({"base": base, "it": patch}))
    assert [(Path(d.file).stem, d.line, d.column, d.code) for d in found] == [
        ("base", 2, 47, "out-of-range"),
        ("it", 2, 30, "out-of-range"),
    ]


def test_what_is_wrong_only_in_the_patch_but_written_in_the_base(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    patch = "extends: base\ngraph: {9: {inputs: {images: [2, 0]}}, 2: {class_type: EmptyImage, inputs: {width: 64, height: 64, batch_size: 1, color: 0}}}\n"
    _, found = check_project(make_project({"base": GRAPH, "it": patch}))
    [unreachable] = found
    assert (unreachable.file, unreachable.line, unreachable.column, unreachable.code) == (
        "workflows/base.yaml",
        2,
        3,
        "unreachable",
    )
    assert unreachable.message.endswith("(in workflows/it.yaml, which extends this)")


def test_a_nodes_fault_names_node_and_input(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    text = edited(GRAPH, "color: 0", "color: 0, colr: 1")
    _, [found] = check_project(make_project({"it": text}))
    assert (found.node, found.input, found.hint) == ("1", "colr", 'did you mean "color"?')


def test_many_exclusive_params(make_project: MakeProject, check_project: CheckProject) -> None:
    """Every node is looked at although no variant has them all."""
    count = 7
    names = [(f"a{i}", f"b{i}") for i in range(count)]
    params = "".join(f"  {n}: {{type: string}}\n" for pair in names for n in pair)
    nodes = "".join(
        f"  {n}: {{class_type: PrimitiveString, inputs: {{value: '${{{n}}}', «unknown-input»x: 1}}}}\n"
        f"  p{n}: {{class_type: PreviewAny, inputs: {{source: [{n}, 0]}}}}\n"
        for pair in names
        for n in pair
    )
    groups = ", ".join(f"[{a}, {b}]" for a, b in names)
    text, wanted = expected(f"params:\n{params}one_of: [{groups}]\ngraph:\n{nodes}")
    _, found = check_project(make_project({"it": text}))
    assert places(found) == wanted
    assert len(wanted) == 2 * count
