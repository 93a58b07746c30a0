"""FLUX.1 [dev] composes, SDXL with InstantID repaints: neither may touch the other's models."""

import pytest

from build.handlers.instantid import build_flux_instantid_workflow
from build.params import MAX_SEED
from generator.graph.records import Graph, links

from .test_handlers import Body, changed, contract, refusals

BODY: Body = {
    "prompt": "a red fox in the snow",
    "negative_prompt": "blurry",
    "seed": 7,
    "reference_image": "reference.png",
}


def upstream(graph: Graph, node: str, *through: str) -> set[str]:
    """Return the node and all that it needs, by the inputs named, or by all of them."""
    inputs = links(graph[node]["inputs"])
    return {node}.union(
        *(upstream(graph, link.node, *through) for name, link in inputs if name in through)
    )


def test_graph_is_that_of_the_contract() -> None:
    assert build_flux_instantid_workflow(BODY) == contract("flux-instantid")


def test_defaults_are_those_of_the_contract() -> None:
    """A prompt and a face are enough; both stages have the one seed that was drawn."""
    graph = build_flux_instantid_workflow(
        {"prompt": BODY["prompt"], "reference_image": "reference.png"}
    )
    seed = graph["7"]["inputs"]["seed"]
    assert type(seed) is int
    assert 0 <= seed <= MAX_SEED
    expected = changed(contract("flux-instantid"), "", "5.text 46.text")
    assert graph == changed(expected, seed, "7.seed 49.seed")


@pytest.mark.parametrize(
    ("field", "value", "places"),
    [
        ("prompt", "a blue whale", "4.text 45.text"),
        ("negative_prompt", "dull", "5.text 46.text"),
        ("width", 768, "6.width"),
        ("height", 512, "6.height"),
        ("steps", 1, "7.steps"),
        ("cfg", 4.98, "7.cfg"),
        ("guidance", 0.29, "10.guidance"),
        ("seed", 0, "7.seed 49.seed"),
        ("seed", MAX_SEED, "7.seed 49.seed"),
        ("reference_image", "a b/é.jpg", "41.image"),
        ("instantid_strength", 0.0, "47.ip_weight"),
        ("controlnet_strength", 1.29, "47.cn_strength"),
        ("identity_denoise", 0.5, "49.denoise"),
        ("identity_cfg", 4.98, "49.cfg"),
        ("face_provider", "CUDA", "43.provider"),
    ],
)
def test_each_field_lands_in_its_inputs(field: str, value: object, places: str) -> None:
    """There, and nowhere else."""
    graph = build_flux_instantid_workflow(BODY | {field: value})
    assert graph == changed(contract("flux-instantid"), value, places)


def test_instantid_patches_the_sdxl_model_alone() -> None:
    """On Flux it fails inside the sampler: 1x768 and 2816x1280 cannot be multiplied."""
    graph = build_flux_instantid_workflow(BODY)
    classes = {node: content["class_type"] for node, content in graph.items()}
    patched = [node for node, name in classes.items() if name.startswith("ApplyInstantID")]
    assert patched == ["47"]
    assert upstream(graph, "47", "model") == {"47", "40"}
    assert graph["40"]["inputs"] == {"ckpt_name": "sd_xl_base_1.0.safetensors"}
    assert upstream(graph, "7", "model") == {"7", "1"}
    assert graph["1"]["inputs"]["unet_name"] == "flux1-dev.safetensors"


def test_the_stages_meet_in_the_picture_alone() -> None:
    """Pixels go from Flux to SDXL; no latent, no conditioning, no VAE and no text encoder."""
    graph = build_flux_instantid_workflow(BODY)
    sdxl = {"40", "41", "42", "43", "44", "45", "46", "47", "48", "49", "50", "9"}
    crossing = {
        (link, node, name)
        for node in sdxl
        for name, link in links(graph[node]["inputs"])
        if link.node not in sdxl
    }
    assert crossing == {(("8", 0), "47", "image_kps"), (("8", 0), "48", "pixels")}
    assert graph["8"]["class_type"] == "VAEDecode"
    assert graph["8"]["inputs"] == {"samples": ["7", 0], "vae": ["3", 0]}


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"prompt": ""}, (("prompt",), "string_too_short")),
        ({"reference_image": ""}, (("reference_image",), "string_too_short")),
        ({"reference_image": None}, (("reference_image",), "string_type")),
        ({"reference_image": b"GIF89a"}, (("reference_image",), "string_type")),
        ({"face_provider": "cuda"}, (("face_provider",), "literal_error")),
        ({"face_provider": "ROCM"}, (("face_provider",), "literal_error")),
        ({"width": "1024"}, (("width",), "int_type")),
        ({"steps": True}, (("steps",), "int_type")),
        ({"seed": MAX_SEED + 1}, (("seed",), "less_than_equal")),
        ({"identity_denoise": 1.01}, (("identity_denoise",), "less_than_equal")),
        ({"instantid_strength": -0.1}, (("instantid_strength",), "greater_than_equal")),
        ({"pulid_strength": 0.8}, (("pulid_strength",), "extra_forbidden")),
    ],
    ids=repr,
)
def test_what_is_refused(changes: Body, refused: tuple[tuple[str], str]) -> None:
    assert refusals(build_flux_instantid_workflow, BODY | changes) == [refused]


def test_prompt_and_face_are_required() -> None:
    assert refusals(build_flux_instantid_workflow, {}) == [
        (("prompt",), "missing"),
        (("reference_image",), "missing"),
    ]
