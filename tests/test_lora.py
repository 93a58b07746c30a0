"""FLUX.1 [dev] with a LoRA: which file, how strong, and the word that wakes it."""

import pytest

from build.handlers.lora import build_flux_lora_workflow
from build.params import MAX_SEED

from .test_handlers import Body, changed, contract, refusals

TEXTS: Body = {"prompt": "a red fox in the snow", "negative_prompt": "blurry", "seed": 7}
BODY = TEXTS | {"lora_name": "character-demo.safetensors"}


def test_graph_is_that_of_the_contract() -> None:
    assert build_flux_lora_workflow(BODY) == contract("flux-lora")


def test_defaults_are_those_of_the_contract() -> None:
    """A prompt and a LoRA are enough; the seed is drawn."""
    graph = build_flux_lora_workflow({"prompt": TEXTS["prompt"], "lora_id": "demo"})
    seed = graph["7"]["inputs"]["seed"]
    assert type(seed) is int
    assert 0 <= seed <= MAX_SEED
    assert graph == changed(changed(contract("flux-lora"), "", "5.text"), seed, "7.seed")


def test_the_lora_is_between_the_loaders_and_the_rest() -> None:
    """Text encoders take its clip, the sampler its model; both come through no other way."""
    graph = build_flux_lora_workflow(BODY)
    users = {
        (node, name): value[1]
        for node, content in graph.items()
        for name, value in content["inputs"].items()
        if value in (["30", 0], ["30", 1])
    }
    assert users == {("4", "clip"): 1, ("5", "clip"): 1, ("7", "model"): 0}


@pytest.mark.parametrize(
    ("field", "value", "places"),
    [
        ("prompt", "a blue whale", "4.text"),
        ("negative_prompt", " dull ", "5.text"),
        ("width", 768, "6.width"),
        ("height", 512, "6.height"),
        ("steps", 1, "7.steps"),
        ("cfg", 4.98, "7.cfg"),
        ("guidance", 0.29, "10.guidance"),
        ("seed", 0, "7.seed"),
        ("seed", MAX_SEED, "7.seed"),
        ("lora_name", "people/ann.safetensors", "30.lora_name"),
        ("lora_name", "Ann B.SAFETENSORS", "30.lora_name"),
        ("lora_strength", 0.29, "30.strength_model 30.strength_clip"),
        ("lora_strength", -1.0, "30.strength_model 30.strength_clip"),
        ("lora_strength", 0.0, "30.strength_model 30.strength_clip"),
    ],
)
def test_each_field_lands_in_its_inputs(field: str, value: object, places: str) -> None:
    """There, and nowhere else."""
    graph = build_flux_lora_workflow(BODY | {field: value})
    assert graph == changed(contract("flux-lora"), value, places)


@pytest.mark.parametrize("lora_id", ["demo", "A", "7", "x_y-Z", "-", "a" * 64])
def test_lora_id_is_a_file_name(lora_id: str) -> None:
    graph = build_flux_lora_workflow(TEXTS | {"lora_id": lora_id})
    expected = f"character-{lora_id}.safetensors"
    assert graph == changed(contract("flux-lora"), expected, "30.lora_name")


@pytest.mark.parametrize(
    ("prompt", "trigger_word", "text"),
    [
        ("a fox", None, "a fox"),
        ("a fox", "", "a fox"),
        ("a fox", "   ", "a fox"),
        ("a fox", "sks", "sks a fox"),
        (" a fox\n", "\tsks ", "sks a fox"),
        ("a  fox", "sks  person", "sks  person a  fox"),
        ("sks", "sks", "sks sks"),
    ],
)
def test_trigger_word_goes_before_the_prompt(
    prompt: str, trigger_word: str | None, text: str
) -> None:
    """With one space between, and none around."""
    trigger = {} if trigger_word is None else {"trigger_word": trigger_word}
    graph = build_flux_lora_workflow(BODY | {"prompt": prompt} | trigger)
    assert graph == changed(contract("flux-lora"), text, "4.text")


@pytest.mark.parametrize(
    ("chosen", "is_one"),
    [
        ({"lora_id": "demo"}, True),
        ({"lora_name": "character-demo.safetensors"}, True),
        ({"lora_id": "demo", "lora_name": None}, True),
        ({"lora_id": None, "lora_name": "character-demo.safetensors"}, True),
        ({}, False),
        ({"lora_id": None}, False),
        ({"lora_id": None, "lora_name": None}, False),
        ({"lora_id": "demo", "lora_name": "character-demo.safetensors"}, False),
    ],
    ids=repr,
)
def test_exactly_one_of_lora_id_and_lora_name(chosen: Body, is_one: bool) -> None:
    if is_one:
        assert build_flux_lora_workflow(TEXTS | chosen) == contract("flux-lora")
    else:
        assert refusals(build_flux_lora_workflow, TEXTS | chosen) == [((), "one_of")]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x.safetensors",
        "a/../x.safetensors",
        "a/..",
        "./x.safetensors",
        "/x.safetensors",
        "/",
        "a//x.safetensors",
        "a/",
        " /x.safetensors",
        ".. /x.safetensors",
        "a\\b.safetensors",
        "..\\x.safetensors",
        "x\0.safetensors",
        "x.safetensors\0",
        "x.safetensors/",
        "x.safetensors ",
        "x.safetensors\n",
        "x.txt",
        "x",
        "safetensors",
        "x.safetensors.py",
    ],
    ids=ascii,
)
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    """Nor does a name pass that ComfyUI would not list."""
    refused = refusals(build_flux_lora_workflow, TEXTS | {"lora_name": name})
    assert refused == [(("lora_name",), "model_file")]


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"prompt": "  \n"}, (("prompt",), "string_too_short")),
        ({"prompt": None}, (("prompt",), "string_type")),
        ({"width": "1024"}, (("width",), "int_type")),
        ({"steps": True}, (("steps",), "int_type")),
        ({"lora_strength": "1"}, (("lora_strength",), "float_type")),
        ({"lora_strength": 100.5}, (("lora_strength",), "less_than_equal")),
        ({"trigger_word": None}, (("trigger_word",), "string_type")),
        ({"lora_name": 7}, (("lora_name",), "string_type")),
        ({"scale": 0.5}, (("scale",), "extra_forbidden")),
    ],
    ids=repr,
)
def test_what_is_refused(changes: Body, refused: tuple[tuple[str], str]) -> None:
    assert refusals(build_flux_lora_workflow, BODY | changes) == [refused]


@pytest.mark.parametrize(
    ("lora_id", "kind"),
    [
        ("", "string_pattern_mismatch"),
        ("..", "string_pattern_mismatch"),
        ("a/b", "string_pattern_mismatch"),
        ("a\\b", "string_pattern_mismatch"),
        ("demo\n", "string_pattern_mismatch"),
        ("de mo", "string_pattern_mismatch"),
        ("é", "string_pattern_mismatch"),
        ("a\0", "string_pattern_mismatch"),
        ("a" * 65, "string_too_long"),
        (7, "string_type"),
    ],
    ids=ascii,
)
def test_lora_id_is_letters_and_digits(lora_id: object, kind: str) -> None:
    refused = refusals(build_flux_lora_workflow, TEXTS | {"lora_id": lora_id})
    assert refused == [(("lora_id",), kind)]
