"""/workflow: the caller's graph as it is, or with another positive text."""

import copy

import pytest

from build.handlers.workflow import build_workflow_workflow

from .test_handlers import FIXTURES, Body, changed, contract, refusals

POSITIVE = {
    "flux": "6.text",
    "flux-dev": "4.text",
    "flux-lora": "4.text",
    "flux-instantid": "4.text 45.text",
    "wan2": "6.text",
    "wan2-mp4": "6.text",
}


@pytest.mark.parametrize("name", sorted(path.stem for path in FIXTURES.glob("*.json")))
@pytest.mark.parametrize("prompt", [{}, {"prompt": None}], ids=repr)
def test_without_a_prompt_the_graph_stays_as_it_is(name: str, prompt: Body) -> None:
    assert build_workflow_workflow({"workflow": contract(name), **prompt}) == contract(name)


@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize("prompt", ["a blue whale", "", "${prompt} {x}\n\"é'🐋"])
def test_a_prompt_replaces_the_positive_text_alone(name: str, prompt: str) -> None:
    """In every stage; the negative text and all else stay."""
    graph = build_workflow_workflow({"workflow": contract(name), "prompt": prompt})
    assert graph == changed(contract(name), prompt, POSITIVE[name])
    assert list(graph) == list(contract(name))


@pytest.mark.parametrize("prompt", [{}, {"prompt": "a blue whale"}], ids=repr)
def test_the_caller_keeps_the_graph(prompt: Body) -> None:
    """What is done to the graph that comes back reaches neither the body nor a second graph."""
    body = {"workflow": contract("flux"), **prompt}
    before = copy.deepcopy(body)
    graph, second = build_workflow_workflow(body), build_workflow_workflow(body)
    assert body == before
    for node in graph.values():
        node["inputs"].clear()
        node["class_type"] = "x"
    graph.clear()
    assert body == before
    assert build_workflow_workflow(body) == second
    assert list(second) == list(before["workflow"])


def test_whatever_else_is_in_a_graph_is_kept() -> None:
    """Titles, unknown classes and inputs that are no links go on to the engine's own checks."""
    workflow = {
        "57:8": {
            "class_type": "No such class",
            "inputs": {"a": [1, 2.5, None, True], "b": {"c": ["57:8", 0]}},
            "_meta": {"title": "x"},
            "is_changed": ["y"],
        }
    }
    assert build_workflow_workflow({"workflow": workflow}) == workflow


@pytest.mark.parametrize("name", ["seedvr2"])
def test_a_prompt_needs_a_positive_text(name: str) -> None:
    with pytest.raises(ValueError, match="no positive text"):
        build_workflow_workflow({"workflow": contract(name), "prompt": "a fox"})


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, ("workflow",)),
        ({"prompt": "a fox"}, ("workflow",)),
        ({"workflow": None}, ("workflow",)),
        ({"workflow": {}}, ("workflow",)),
        ({"workflow": []}, ("workflow",)),
        ({"workflow": "{}"}, ("workflow",)),
        ({"workflow": {"1": []}}, ("workflow",)),
        ({"workflow": {"1": {"inputs": {}}}}, ("workflow",)),
        ({"workflow": {"1": {"class_type": "SaveImage"}}}, ("workflow",)),
        ({"workflow": {"1": {"class_type": "SaveImage", "inputs": []}}}, ("workflow",)),
        ({"workflow": {"1": {"class_type": None, "inputs": {}}}}, ("workflow",)),
        ({"workflow": contract("flux"), "prompt": 1}, ("prompt",)),
        ({"workflow": contract("flux"), "prompt": ["a"]}, ("prompt",)),
        ({"workflow": contract("flux"), "negative_prompt": "a"}, ("negative_prompt",)),
    ],
)
def test_what_is_refused(body: Body, where: tuple[str]) -> None:
    assert [location for location, _ in refusals(build_workflow_workflow, body)] == [where]
