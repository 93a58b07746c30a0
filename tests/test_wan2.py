"""Wan 2.1, text to video: a WebP or an MP4, of 4n+1 frames."""

import pytest

from build.handlers.wan2 import build_wan2_workflow
from build.params import MAX_SEED

from .test_handlers import Body, changed, contract, refusals

BODY: Body = {"prompt": "a red fox in the snow", "negative_prompt": "blurry", "seed": 7}
GRAPHS = {"webp": "wan2", "mp4": "wan2-mp4"}


@pytest.mark.parametrize("format", GRAPHS)
def test_graph_is_that_of_the_contract(format: str) -> None:
    """It holds the chosen output and what that needs, and nothing of the other."""
    assert build_wan2_workflow(BODY | {"format": format}) == contract(GRAPHS[format])


@pytest.mark.parametrize(("format", "outputs"), [("webp", {"28"}), ("mp4", {"49", "50"})])
def test_the_formats_differ_in_their_output_alone(format: str, outputs: set[str]) -> None:
    graph = build_wan2_workflow(BODY | {"format": format})
    assert set(graph) - outputs == {"37", "38", "39", "48", "6", "7", "40", "3", "8"}
    assert outputs <= set(graph)


def test_defaults_are_those_of_the_contract() -> None:
    """A prompt is enough for an animated WebP; the seed is drawn."""
    graph = build_wan2_workflow({"prompt": BODY["prompt"]})
    seed = graph["3"]["inputs"]["seed"]
    assert type(seed) is int
    assert 0 <= seed <= MAX_SEED
    assert graph == changed(changed(contract("wan2"), "", "7.text"), seed, "3.seed")


@pytest.mark.parametrize("format", GRAPHS)
@pytest.mark.parametrize(
    ("field", "value", "places"),
    [
        ("prompt", "a blue whale", "6.text"),
        ("negative_prompt", "dull", "7.text"),
        ("width", 1280, "40.width"),
        ("height", 16, "40.height"),
        ("length", 1, "40.length"),
        ("length", 33, "40.length"),
        ("length", 81, "40.length"),
        ("length", 161, "40.length"),
        ("steps", 1, "3.steps"),
        ("cfg", 4.98, "3.cfg"),
        ("seed", 0, "3.seed"),
        ("seed", MAX_SEED, "3.seed"),
    ],
)
def test_each_field_lands_in_its_input(field: str, value: object, places: str, format: str) -> None:
    """There, and nowhere else."""
    graph = build_wan2_workflow(BODY | {"format": format, field: value})
    assert graph == changed(contract(GRAPHS[format]), value, places)


@pytest.mark.parametrize(
    ("format", "field", "value", "places"),
    [
        ("webp", "fps", 24, "28.fps"),
        ("mp4", "fps", 24, "49.fps"),
        ("webp", "quality", 0, "28.quality"),
        ("mp4", "quality", 50, ""),
    ],
)
def test_fields_of_the_output(format: str, field: str, value: int, places: str) -> None:
    """An MP4 has its own quality, so that field lands nowhere there."""
    graph = build_wan2_workflow(BODY | {"format": format, field: value})
    assert graph == changed(contract(GRAPHS[format]), value, places)


@pytest.mark.parametrize("length", [0, 2, 3, 4, 32, 34, 35, 36, 80, 82, 165])
def test_lengths_that_are_not_4n_plus_1_or_too_long(length: int) -> None:
    kind = {0: "greater_than_equal", 165: "less_than_equal"}.get(length, "step")
    assert refusals(build_wan2_workflow, BODY | {"length": length}) == [(("length",), kind)]


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"prompt": ""}, (("prompt",), "string_too_short")),
        ({"format": "gif"}, (("format",), "literal_error")),
        ({"format": "WEBP"}, (("format",), "literal_error")),
        ({"format": None}, (("format",), "literal_error")),
        ({"width": "832"}, (("width",), "int_type")),
        ({"width": 840}, (("width",), "multiple_of")),
        ({"length": True}, (("length",), "int_type")),
        ({"length": 33.0}, (("length",), "int_type")),
        ({"fps": 0}, (("fps",), "greater_than_equal")),
        ({"fps": 23.976}, (("fps",), "int_type")),
        ({"quality": 101}, (("quality",), "less_than_equal")),
        ({"seed": MAX_SEED + 1}, (("seed",), "less_than_equal")),
        ({"num_frames": 33}, (("num_frames",), "extra_forbidden")),
    ],
    ids=repr,
)
def test_what_is_refused(changes: Body, refused: tuple[tuple[str], str]) -> None:
    assert refusals(build_wan2_workflow, BODY | changes) == [refused]


def test_a_prompt_is_required() -> None:
    assert refusals(build_wan2_workflow, {"seed": 7}) == [(("prompt",), "missing")]
