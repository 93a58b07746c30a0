"""FLUX.1 [schnell] and [dev]: the graphs of the contract, and where each field lands in them."""

import pytest

from build.handlers.flux import build_flux_dev_workflow, build_flux_workflow
from build.params import MAX_SEED

from .test_handlers import Body, Build, changed, contract, refusals

BODY: Body = {"prompt": "a red fox in the snow", "negative_prompt": "blurry", "seed": 7}
BUILDERS: dict[str, Build] = {"flux": build_flux_workflow, "flux-dev": build_flux_dev_workflow}
PLACES = {
    "flux": {
        "prompt": "6.text",
        "negative_prompt": "7.text",
        "width": "3.width",
        "height": "3.height",
        "steps": "5.steps",
        "cfg": "5.cfg",
        "seed": "5.seed",
    },
    "flux-dev": {
        "prompt": "4.text",
        "negative_prompt": "5.text",
        "width": "6.width",
        "height": "6.height",
        "steps": "7.steps",
        "cfg": "7.cfg",
        "guidance": "10.guidance",
        "seed": "7.seed",
    },
}
VALUES: Body = {
    "prompt": "a blue whale\n${prompt} {x} \"é\" '🐋'",
    "negative_prompt": "",
    "width": 768,
    "height": 512,
    "steps": 1,
    "cfg": 4.98,
    "guidance": 0.29,
    "seed": MAX_SEED,
}


@pytest.mark.parametrize("name", BUILDERS)
def test_graph_is_that_of_the_contract(name: str) -> None:
    assert BUILDERS[name](BODY) == contract(name)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_prompt_is_enough(name: str) -> None:
    """What is left out has the contract's default; the seed is drawn."""
    graph = BUILDERS[name]({"prompt": BODY["prompt"]})
    sampler = PLACES[name]["seed"].partition(".")[0]
    seed = graph[sampler]["inputs"]["seed"]
    assert type(seed) is int
    assert 0 <= seed <= MAX_SEED
    expected = changed(contract(name), "", PLACES[name]["negative_prompt"])
    assert graph == changed(expected, seed, PLACES[name]["seed"])


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, places in PLACES.items() for field in places]
)
def test_each_field_lands_in_its_input(name: str, field: str) -> None:
    """There, and nowhere else."""
    graph = BUILDERS[name](BODY | {field: VALUES[field]})
    assert graph == changed(contract(name), VALUES[field], PLACES[name][field])


def test_the_ids_that_clients_address() -> None:
    """Node 6 holds the positive text of /flux."""
    assert build_flux_workflow(BODY)["6"]["inputs"]["text"] == BODY["prompt"]


def test_flux_dev_is_guided() -> None:
    """FLUX.1 [dev] is guidance-distilled: the sampler's positive input comes from FluxGuidance."""
    graph = build_flux_dev_workflow(BODY)
    assert graph["7"]["inputs"]["positive"] == ["10", 0]
    assert graph["10"] == {
        "class_type": "FluxGuidance",
        "inputs": {"conditioning": ["4", 0], "guidance": 3.5},
    }


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"prompt": ""}, (("prompt",), "string_too_short")),
        ({"prompt": None}, (("prompt",), "string_type")),
        ({"prompt": ["a"]}, (("prompt",), "string_type")),
        ({"width": "1024"}, (("width",), "int_type")),
        ({"width": True}, (("width",), "int_type")),
        ({"width": 1024.0}, (("width",), "int_type")),
        ({"width": 1023}, (("width",), "multiple_of")),
        ({"height": 2056}, (("height",), "less_than_equal")),
        ({"steps": 0}, (("steps",), "greater_than_equal")),
        ({"cfg": "1.0"}, (("cfg",), "float_type")),
        ({"cfg": False}, (("cfg",), "float_type")),
        ({"seed": MAX_SEED + 1}, (("seed",), "less_than_equal")),
        ({"seed": -1}, (("seed",), "greater_than_equal")),
        ({"seed": None}, (("seed",), "int_type")),
        ({"num_inference_steps": 4}, (("num_inference_steps",), "extra_forbidden")),
        ({"Prompt": "a"}, (("Prompt",), "extra_forbidden")),
    ],
    ids=repr,
)
def test_what_is_refused(name: str, changes: Body, refused: tuple[tuple[str], str]) -> None:
    assert refusals(BUILDERS[name], BODY | changes) == [refused]


def test_every_fault_is_named_at_once() -> None:
    assert refusals(build_flux_workflow, {"width": "a", "guidance": 3.5}) == [
        (("prompt",), "missing"),
        (("width",), "int_type"),
        (("guidance",), "extra_forbidden"),
    ]
