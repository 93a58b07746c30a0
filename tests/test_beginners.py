"""What people get wrong first: each mistake has one clear message that says what to do."""

import json

import pytest

from .conftest import CheckProject, MakeProject

GRAPH = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0},
    },
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
EXPORT = json.dumps(GRAPH, indent=2)
UI = json.dumps({"nodes": [{"id": 1, "type": "EmptyImage"}], "links": [], "version": 0.4})
FINE = """\
graph:
  1: {class_type: EmptyImage, inputs: {width: 64, height: 64, batch_size: 1, color: 0}}
  2: {class_type: SaveImage, inputs: {images: [1, 0], filename_prefix: x}}
"""


@pytest.mark.parametrize(
    "text",
    [FINE, f"graph: {EXPORT}\n", json.dumps({"graph": GRAPH}), "graph:\n" + EXPORT.replace("\n", "\n  ").replace("{", "  {", 1)],
    ids=["YAML", "an export on the key's line", "JSON", "an export, indented"],
)  # fmt: skip
def test_what_is_right(make_project: MakeProject, check_project: CheckProject, text: str) -> None:
    assert check_project(make_project({"it": text}))[1] == []


SHOWN = "  4: {class_type: PreviewAny, inputs: {source: [3, 0]}}\n"
MISTAKES = {
    "an export below the key": (f"graph:\n{EXPORT}\n", "syntax", "key: {"),
    "UI format under graph": (f"graph: {UI}\n", "other-format", "generator import"),
    "UI format as the file": (UI, "other-format", "generator import"),
    "an export as the file": (EXPORT, "other-format", "put it under graph:"),
    "a request to ComfyUI": (
        f'graph: {{"prompt": {json.dumps(GRAPH)}}}\n', "other-format", "outer prompt",
    ),
    "a graph as text": (f"graph: |\n  {json.dumps(GRAPH)}\n", "other-format", "remove the |"),
    "a comma missing": (
        'graph: {"1": {"class_type": "EmptyImage", "inputs": {"width":64\n "height":64}}}\n',
        "syntax", "comma",
    ),
    "no colon after a key": (FINE.replace("graph:", "graph"), "syntax", 'is a ":" missing'),
    "a tab": (FINE.replace("  1:", "\t1:"), "syntax", "spaces"),
    "no space after a colon": (
        "params: {a: {type:string}}\n" + FINE, "null-value", None,
    ),
    "template braces": (FINE.replace("prefix: x", "prefix: {{x}}"), "bad-key", "${param}"),
    "a misspelt class": (FINE.replace("SaveImage", "SaveImges"), "unknown-class", '"SaveImage"'),
    "an undeclared model": (
        FINE + "  3: {class_type: VAELoader, inputs: {vae_name: a.safetensors}}\n" + SHOWN,
        "undeclared-model", "folder: vae",
    ),
    "a picture of one's own": (
        FINE + "  3: {class_type: LoadImage, inputs: {image: my cat.png}}\n" + SHOWN,
        "input-file", "type image",
    ),
    "a text for a model file": (
        "params: {m: {type: string}}\n"
        + FINE + '  3: {class_type: VAELoader, inputs: {vae_name: "${m}"}}\n' + SHOWN,
        "param-type", None,
    ),
    "a node that nothing needs": (
        "params: {c: {type: integer, default: 0}}\noutput: 2\n" + FINE
        + '  3: {class_type: EmptyImage, inputs: {width: 8, height: 8, batch_size: 1, color: "${c}"}}\n',
        "unused-param", "link that node",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "code", "hint"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(
    make_project: MakeProject, check_project: CheckProject, text: str, code: str, hint: str | None
) -> None:
    faults = [d for d in check_project(make_project({"it": text}))[1] if d.severity == "error"]
    assert code in [fault.code for fault in faults]
    fault = next(fault for fault in faults if fault.code == code)
    if hint is not None:
        assert hint in (fault.hint or "")
    if code == "other-format":
        assert len(faults) == 1


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mine.yml", "rename it to workflows/mine.yaml"),
        ("Mine.yaml", "rename it to workflows/mine.yaml"),
        ("2nd.yaml", "a lower-case letter, then"),
        ("sub/mine.yaml", "rename it to workflows/mine.yaml"),
    ],
)
def test_file_names(
    make_project: MakeProject, check_project: CheckProject, name: str, hint: str
) -> None:
    root = make_project({"it": FINE})
    (root / "workflows" / name).parent.mkdir(exist_ok=True)
    (root / "workflows" / name).write_text(FINE)
    [fault] = check_project(root)[1]
    assert (fault.file, fault.code) == (f"workflows/{name}", "bad-name")
    assert hint in (fault.hint or "")


def test_a_misspelt_slot_is_reported_once(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    """Not also as a param that nothing uses."""
    text = "params: {colour: {type: integer, default: 0}}\n" + FINE.replace(
        "color: 0", 'color: "${color}"'
    )
    [fault] = check_project(make_project({"it": text}))[1]
    assert fault.code == "unknown-param"
    assert fault.hint == 'did you mean "colour"?'


def test_a_misspelt_key_is_reported_once(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    text = FINE.replace("class_type: SaveImage", "class-type: SaveImage")
    faults = check_project(make_project({"it": text}))[1]
    assert [(d.code, d.hint) for d in faults] == [("unknown-key", 'did you mean "class_type"?')]


def codes(make_project: MakeProject, check_project: CheckProject, text: str) -> list[str]:
    return [fault.code for fault in check_project(make_project({"it": text}))[1]]


STRAY = FINE + (
    "  4: {class_type: VAEDecode, inputs: {samples: [77, 0], vae: [5, 0]}}\n"
    "  5: {class_type: VAELoader, inputs: {vae_name: foo.safetensors}}\n"
    "  6: {class_type: LoadImage, inputs: {image: example.png}}\n"
)


@pytest.mark.parametrize("output", ["", "output: 2\n"])
def test_leftovers_get_a_warning_and_nothing_else(
    make_project: MakeProject, check_project: CheckProject, output: str
) -> None:
    """The engine neither checks nor runs what no output needs."""
    assert codes(make_project, check_project, output + STRAY) == ["unreachable"] * 3


@pytest.mark.parametrize("wrong", ["output: 22\n", ""])
def test_a_wrong_link_or_output_does_not_blame_params(
    make_project: MakeProject, check_project: CheckProject, wrong: str
) -> None:
    """The params feed nodes that will be sent once the mistake is mended."""
    text = (
        "params: {c: {type: integer, default: 0}}\n"
        + wrong
        + FINE.replace("color: 0", 'color: "${c}"')
    )
    text = text if wrong else "output: 2\n" + text.replace("[1, 0]", '[1, "0"]')
    found = codes(make_project, check_project, text)
    assert found
    assert "unused-param" not in found


@pytest.mark.parametrize(
    ("bounds", "fits"),
    [
        ("minimum: 1, step: 8, multipleOf: 8", False),
        ("minimum: 1, step: 4, multipleOf: 6", False),
        ("minimum: 2, step: 4, multipleOf: 6", True),
        ("minimum: 3, step: 5, multipleOf: 7, maximum: 27", False),
        ("minimum: 3, step: 5, multipleOf: 7, maximum: 28", True),
        ("minimum: 0, step: 9007199254740991, multipleOf: 2", True),
    ],
)
def test_bounds_that_no_value_fits(
    make_project: MakeProject, check_project: CheckProject, bounds: str, fits: bool
) -> None:
    text = f"params: {{c: {{type: integer, {bounds}}}}}\n" + FINE.replace(
        "color: 0", 'color: "${c}"'
    )
    assert codes(make_project, check_project, text) == ([] if fits else ["param-bounds"])


def test_a_wrapped_slot_is_checked_as_any_other(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    text = "params: {c: {type: string}}\n" + FINE.replace("color: 0", 'color: {__value__: "${c}"}')
    assert codes(make_project, check_project, text) == ["param-type"]


def test_one_of_two_params_in_the_graph(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    text = (
        "params: {a: {type: image}, b: {type: image}}\none_of: [[a, b]]\n"
        'graph:\n  1: {class_type: LoadImage, inputs: {image: "${a}"}}\n'
        "  2: {class_type: PreviewImage, inputs: {images: [1, 0]}}\n"
    )
    hints = [d.hint for d in check_project(make_project({"it": text}))[1] if d.code == "no-output"]
    assert hints == ["write ${a|b} for the one that is given"]


def test_many_unknown_classes_take_no_time(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    """Only the first ones get a hint, each of which is compared with all classes."""
    nodes = "".join(
        f"  {i}: {{class_type: KSamplerAdvanced{i}Image, inputs: {{}}}}\n" for i in range(200)
    )
    faults = check_project(make_project({"it": "graph:\n" + nodes}))[1]
    assert sum(fault.code == "unknown-class" for fault in faults) == 200
    assert sum(fault.hint is not None for fault in faults) == 50
