"""SeedVR2: a larger picture from a picture, within the pack's limits."""

import pytest

from build.handlers.seedvr2 import build_seedvr2_workflow

from .test_handlers import Body, changed, contract, refusals

BODY: Body = {"image": "small.png", "seed": 7}
# The pack takes 32 bits, where other samplers take 64.
MAX_SEED = 4_294_967_295


def test_graph_is_that_of_the_contract() -> None:
    assert build_seedvr2_workflow(BODY) == contract("seedvr2")


def test_a_picture_is_enough() -> None:
    graph = build_seedvr2_workflow({"image": "small.png"})
    seed = graph["4"]["inputs"]["seed"]
    assert type(seed) is int
    assert 0 <= seed <= MAX_SEED
    assert graph == changed(contract("seedvr2"), seed, "4.seed")


@pytest.mark.parametrize(
    ("field", "value", "places"),
    [
        ("image", "0f3a.webp", "1.image"),
        ("resolution", 16, "4.resolution"),
        ("resolution", 2160, "4.resolution"),
        ("max_resolution", 0, "4.max_resolution"),
        ("max_resolution", 16384, "4.max_resolution"),
        ("seed", 0, "4.seed"),
        ("seed", MAX_SEED, "4.seed"),
    ],
)
def test_each_field_lands_in_its_input(field: str, value: object, places: str) -> None:
    """There, and nowhere else."""
    graph = build_seedvr2_workflow(BODY | {field: value})
    assert graph == changed(contract("seedvr2"), value, places)


def test_the_pack_can_swap_blocks() -> None:
    """It swaps up to 36, and only when the offload device is another than the device."""
    loader = build_seedvr2_workflow(BODY)["2"]["inputs"]
    assert 0 <= loader["blocks_to_swap"] <= 36
    assert loader["offload_device"] != loader["device"]


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"image": ""}, (("image",), "string_too_short")),
        ({"image": None}, (("image",), "string_type")),
        ({"resolution": "1080"}, (("resolution",), "int_type")),
        ({"resolution": True}, (("resolution",), "int_type")),
        ({"resolution": 14}, (("resolution",), "greater_than_equal")),
        ({"resolution": 1081}, (("resolution",), "multiple_of")),
        ({"max_resolution": -2}, (("max_resolution",), "greater_than_equal")),
        ({"max_resolution": 3999}, (("max_resolution",), "multiple_of")),
        ({"max_resolution": 16386}, (("max_resolution",), "less_than_equal")),
        ({"seed": MAX_SEED + 1}, (("seed",), "less_than_equal")),
        ({"seed": -1}, (("seed",), "greater_than_equal")),
        ({"max_resolution_2": 4000}, (("max_resolution_2",), "extra_forbidden")),
        ({"prompt": "a fox"}, (("prompt",), "extra_forbidden")),
    ],
    ids=repr,
)
def test_what_is_refused(changes: Body, refused: tuple[tuple[str], str]) -> None:
    assert refusals(build_seedvr2_workflow, BODY | changes) == [refused]


def test_a_picture_is_required() -> None:
    assert refusals(build_seedvr2_workflow, {}) == [(("image",), "missing")]
