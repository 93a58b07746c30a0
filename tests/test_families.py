"""The family check: planted mismatches of every kind, and real graphs, which have none."""

import gzip
import json
from collections.abc import Iterable
from copy import deepcopy
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.graph.catalog import ClassType, open_catalog
from generator.graph.check import Finding, Unknown
from generator.graph.families import (
    Families,
    check_families,
    declared_families,
    families_named,
    family_of_name,
)
from generator.graph.family_tables import (
    ALIASES,
    CLASSES,
    FAMILIES,
    FITS,
    FOLDERS,
    LATENT_SPACES,
    LINK_TYPES,
    NAMES,
    NAMES_IN,
)
from generator.graph.records import Graph, Link
from generator.slots import Template
from generator.spec import Workflow

from .conftest import ROOT, load_and_check

RECORDED = json.loads(
    gzip.decompress((ROOT / "tests" / "fixtures" / "verdicts.json.gz").read_bytes())
)["graphs"]
CATALOG = open_catalog(ROOT / "generator" / "catalogs", version="0.3.71")


def classes_of(graph: object) -> dict[str, ClassType]:
    """Return the classes that the core and the packs have, by node."""
    found = {}
    for node_id, content in graph.items() if isinstance(graph, dict) else ():
        name = content.get("class_type") if isinstance(content, dict) else None
        if isinstance(name, str) and (known := CATALOG.get(name, CATALOG.packs)):
            found[node_id] = known[0]
    return found


def mismatches(graph: object, **options: Any) -> list[Finding]:
    return list(check_families(graph, classes_of(graph), **options))


def places(found: Iterable[Finding]) -> list[tuple[str | None, str | None]]:
    return [(finding.node, finding.input) for finding in found]


def node(class_type: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


FLUX: Graph = {
    "1": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
    "2": node(
        "DualCLIPLoader",
        clip_name1="t5xxl_fp16.safetensors",
        clip_name2="clip_l.safetensors",
        type="flux",
    ),
    "3": node("VAELoader", vae_name="ae.safetensors"),
    "4": node("CLIPTextEncode", text="a fox", clip=["2", 0]),
    "5": node("CLIPTextEncode", text="", clip=["2", 0]),
    "6": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    "7": node(
        "KSampler",
        model=["1", 0],
        positive=["4", 0],
        negative=["5", 0],
        latent_image=["6", 0],
        seed=1,
    ),
    "8": node("VAEDecode", samples=["7", 0], vae=["3", 0]),
    "9": node("SaveImage", filename_prefix="x", images=["8", 0]),
}
SDXL = node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
IMAGE = node("LoadImage", image="a.png")
INSTANTID = {
    "21": node("InstantIDModelLoader", instantid_file="ip-adapter.bin"),
    "22": node("InstantIDFaceAnalysis", provider="CPU"),
    "23": node("ControlNetLoader", control_net_name="instantid-controlnet.safetensors"),
    "24": IMAGE,
}


def instantid(model: list[Any], clip: list[Any]) -> dict[str, Any]:
    return INSTANTID | {
        "25": node("CLIPTextEncode", text="a fox", clip=clip),
        "26": node(
            "ApplyInstantID",
            instantid=["21", 0],
            insightface=["22", 0],
            control_net=["23", 0],
            image=["24", 0],
            model=model,
            positive=["25", 0],
            negative=["25", 0],
        ),
    }


def controlled(file: str, class_type: str = "ControlNetApplyAdvanced") -> dict[str, Any]:
    """Return nodes that apply a ControlNet to the text of FLUX, which node 31 hands on."""
    texts = (
        {"conditioning": ["4", 0]}
        if class_type == "ControlNetApply"
        else {"positive": ["4", 0], "negative": ["5", 0]}
    )
    return {
        "30": node("ControlNetLoader", control_net_name=file),
        "31": node(class_type, **texts, control_net=["32", 0], image=["33", 0]),
        "32": node("SetUnionControlNetType", control_net=["30", 0], type="auto"),
        "33": IMAGE,
    }


def flux(*changes: dict[str, Any], **inputs: object) -> Graph:
    """Return a graph for FLUX with nodes added; `n7_model` replaces node 7's input `model`."""
    graph = deepcopy(FLUX)
    for change in changes:
        graph |= deepcopy(change)
    for place, value in inputs.items():
        node_id, _, name = place.removeprefix("n").partition("_")
        graph[node_id]["inputs"][name] = value
    return graph


WRONG: dict[str, tuple[Graph, list[tuple[str, str]], str, str]] = {
    "a LoRA of another family": (
        flux(
            {"10": node("LoraLoader", model=["1", 0], clip=["2", 0], lora_name="pixel-sdxl.safetensors")},
            n7_model=["10", 0],
            n4_clip=["10", 1],
        ),
        [("10", "lora_name")],
        'this LoRA is of sdxl, but the model (node "1", flux1-dev.safetensors) is of flux',
        "use a LoRA made for flux",
    ),
    "a LoRA of another family, for the model alone": (
        flux(
            {"10": node("LoraLoaderModelOnly", model=["1", 0], lora_name="wan2.1_x.safetensors")},
            n7_model=["10", 0],
        ),
        [("10", "lora_name")],
        'this LoRA is of wan, but the model (node "1", flux1-dev.safetensors) is of flux',
        "use a LoRA made for flux",
    ),
    "one LoRA of several": (
        flux(
            {
                "10": node(
                    "Lora Loader Stack (rgthree)",
                    model=["1", 0],
                    clip=["2", 0],
                    lora_01="None",
                    lora_02="flux1-a.safetensors",
                    lora_03="sd15-a.safetensors",
                )
            },
            n7_model=["10", 0],
        ),
        [("10", "lora_03")],
        'this LoRA is of sd15, but the model (node "1", flux1-dev.safetensors) is of flux',
        "use a LoRA made for flux",
    ),
    "InstantID on Flux": (
        flux(
            instantid(["1", 0], ["2", 0]),
            n7_model=["26", 0],
            n7_positive=["26", 1],
            n7_negative=["26", 2],
        ),
        [("26", "model")],
        'this model (node "1", flux1-dev.safetensors) is of flux, '
        "but ApplyInstantID is for sdxl alone",
        "use a model of sdxl",
    ),
    "InstantID on Flux, whatever the model is called": (
        flux(
            instantid(["1", 0], ["2", 0]),
            n1_unet_name="mine.safetensors",
            n7_model=["26", 0],
            n7_positive=["26", 1],
            n7_negative=["26", 2],
        ),
        [("26", "positive")],
        'this conditioning (node "2", DualCLIPLoader, type flux) is of flux, '
        "but ApplyInstantID is for sdxl alone",
        "encode the text with the text encoders of sdxl",
    ),
    "an SDXL ControlNet on Flux": (
        flux(controlled("controlnet-canny-sdxl-1.0.safetensors"), n7_positive=["31", 0]),
        [("31", "control_net")],
        'this ControlNet (node "30", controlnet-canny-sdxl-1.0.safetensors) is of sdxl, '
        'but the conditioning (node "2", DualCLIPLoader, type flux) is of flux',
        "use a ControlNet made for flux",
    ),
    "an SD 1.5 ControlNet on Flux": (
        flux(controlled("control_v11p_sd15_canny.pth", "ControlNetApply"), n7_positive=["31", 0]),
        [("31", "control_net")],
        'this ControlNet (node "30", control_v11p_sd15_canny.pth) is of sd15, '
        'but the conditioning (node "2", DualCLIPLoader, type flux) is of flux',
        "use a ControlNet made for flux",
    ),
    "an SDXL ControlNet on text of an unknown family, which Flux gets": (
        flux(
            controlled("sdxl-canny.safetensors"),
            n2_type="new",
            n7_positive=["31", 0],
            n7_negative=["31", 1],
        ),
        [("7", "positive")],
        'this conditioning (node "30", sdxl-canny.safetensors) is of sdxl, '
        'but the model (node "1", flux1-dev.safetensors) is of flux',
        "encode the text with the text encoders of flux",
    ),
    "a VAE of another family, of a loader of all parts": (
        flux(
            {"3": node("easy fullLoader", ckpt_name="sdxl.pt", vae_name="sdxl_vae.pt")},
            n8_vae=["3", 2],
        ),
        [("8", "vae")],
        'this VAE (node "3", sdxl.pt) is of sdxl, '
        'but the latent (node "1", flux1-dev.safetensors) is of flux',
        "use the VAE of flux",
    ),
    "a VAE of another family decodes": (
        flux({"3": SDXL}, n8_vae=["3", 2]),
        [("8", "vae")],
        'this VAE (node "3", sd_xl_base_1.0.safetensors) is of sdxl, '
        'but the latent (node "1", flux1-dev.safetensors) is of flux',
        "use the VAE of flux",
    ),
    "a VAE of another family encodes and decodes": (
        flux(
            {"10": node("VAEEncode", pixels=["11", 0], vae=["3", 0]), "11": IMAGE},
            n3_vae_name="sdxl_vae.safetensors",
            n7_latent_image=["10", 0],
        ),
        [("7", "latent_image")],
        'this latent (node "3", sdxl_vae.safetensors) is of sdxl, '
        'but the model (node "1", flux1-dev.safetensors) is of flux',
        "decode it with its own VAE, and encode the picture with the VAE of flux",
    ),
    "a VAE of the newer model of one name": (
        flux(
            n1_unet_name="wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors",
            n2_type="new",
            n3_vae_name="wan2.2_vae.safetensors",
        ),
        [("8", "vae")],
        'this VAE (node "3", wan2.2_vae.safetensors) is of wan2.2-5b, '
        'but the latent (node "1", wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors) is of wan',
        "use the VAE of wan",
    ),
    "a VAE of another family for inpainting": (
        flux(
            {
                "10": node("InpaintModelConditioning", positive=["4", 0], negative=["5", 0],
                           vae=["12", 2], pixels=["11", 0], mask=["11", 1]),
                "11": IMAGE,
                "12": SDXL,
            },
            n7_positive=["10", 0],
        ),
        [("10", "vae")],
        'this VAE (node "12", sd_xl_base_1.0.safetensors) is of sdxl, '
        'but the conditioning (node "2", DualCLIPLoader, type flux) is of flux',
        "use the VAE of flux",
    ),
    "a latent that another family's VAE encoded, and then was changed": (
        flux(
            {
                "10": SDXL,
                "11": IMAGE,
                "12": node("VAEEncodeForInpaint", pixels=["11", 0], vae=["10", 2], mask=["11", 1]),
                "13": node("LatentUpscaleBy", samples=["12", 0], scale_by=1.5),
                "14": node("SetLatentNoiseMask", samples=["13", 0], mask=["11", 1]),
            },
            n7_latent_image=["14", 0],
        ),
        [("7", "latent_image")],
        'this latent (node "10", sd_xl_base_1.0.safetensors) is of sdxl, '
        'but the model (node "1", flux1-dev.safetensors) is of flux',
        "decode it with its own VAE, and encode the picture with the VAE of flux",
    ),
    "a latent that another family sampled": (
        flux(
            {
                "10": SDXL,
                "11": node("CLIPTextEncode", text="x", clip=["10", 1]),
                "12": node("KSampler", model=["10", 0], positive=["11", 0], negative=["11", 0],
                           latent_image=["7", 0]),
            },
            n8_samples=["12", 0],
        ),
        [("12", "latent_image")],
        'this latent (node "1", flux1-dev.safetensors) is of flux, '
        'but the model (node "10", sd_xl_base_1.0.safetensors) is of sdxl',
        "decode it with its own VAE, and encode the picture with the VAE of sdxl",
    ),
    "text of another family's encoder, in both places": (
        flux({"2": SDXL}, n4_clip=["2", 1], n5_clip=["2", 1]),
        [("7", "positive")],
        'this conditioning (node "2", sd_xl_base_1.0.safetensors) is of sdxl, '
        'but the model (node "1", flux1-dev.safetensors) is of flux',
        "encode the text with the text encoders of flux",
    ),
    "text encoders that were loaded as those of another family": (
        flux(n2_type="sd3"),
        [("7", "positive")],
        'this conditioning (node "2", DualCLIPLoader, type sd3) is of sd3, '
        'but the model (node "1", flux1-dev.safetensors) is of flux',
        "encode the text with the text encoders of flux",
    ),
    "a text encoder that its type does not take": (
        flux(n2_type="sdxl"),
        [("2", "clip_name1")],
        "this text encoder is of chroma, flux, hidream and 5 more, "
        "but DualCLIPLoader, type sdxl takes those of sdxl",
        "use the text encoders of sdxl, or another type",
    ),
    "a text encoder of another family": (
        flux({"2": node("CLIPLoader", clip_name="umt5_xxl_fp16.safetensors", type="wan")}),
        [("7", "positive")],
        'this conditioning (node "2", umt5_xxl_fp16.safetensors) is of wan or wan2.2-5b, '
        'but the model (node "1", flux1-dev.safetensors) is of flux',
        "encode the text with the text encoders of flux",
    ),
    "an encoder node for other text encoders": (
        flux({"4": node("CLIPTextEncodeSDXL", clip=["2", 0], text_g="x", text_l="x")}),
        [("4", "clip")],
        'this text encoder (node "2", DualCLIPLoader, type flux) is of flux, '
        "but CLIPTextEncodeSDXL is for hidream, kolors, sd3 or sdxl alone",
        "use the text encoders of hidream, kolors, sd3 or sdxl",
    ),
    "an encoder node of Flux for other text encoders": (
        flux({"2": SDXL, "4": node("CLIPTextEncodeFlux", clip=["2", 1], clip_l="x", t5xxl="x")},
             n5_clip=["20", 0]),
        [("4", "clip")],
        'this text encoder (node "2", sd_xl_base_1.0.safetensors) is of sdxl, '
        "but CLIPTextEncodeFlux is for chroma, flux, hidream and 5 more alone",
        "use the text encoders of chroma, flux, hidream and 5 more",
    ),
    "an IP-Adapter for U-Nets on Flux": (
        flux(
            {
                "10": node("IPAdapterModelLoader", ipadapter_file="ip-adapter_sdxl_vit-h.safetensors"),
                "11": node("IPAdapter", model=["1", 0], ipadapter=["10", 0], image=["12", 0]),
                "12": IMAGE,
            },
            n7_model=["11", 0],
        ),
        [("11", "model")],
        'this model (node "1", flux1-dev.safetensors) is of flux, '
        "but IPAdapter is for kolors, sd15, sd2 or sdxl alone",
        "use a model of kolors, sd15, sd2 or sdxl",
    ),
    "an IP-Adapter of another family": (
        {
            "1": SDXL,
            "2": node("IPAdapterModelLoader", ipadapter_file="ip-adapter_sd15.safetensors"),
            "3": node("IPAdapterAdvanced", model=["1", 0], ipadapter=["2", 0], image=["4", 0]),
            "4": IMAGE,
        },
        [("3", "ipadapter")],
        'this IP-Adapter (node "2", ip-adapter_sd15.safetensors) is of sd15, '
        'but the model (node "1", sd_xl_base_1.0.safetensors) is of sdxl',
        "use an IP-Adapter made for sdxl",
    ),
    "PuLID for Flux on another model": (
        {
            "1": SDXL,
            "2": node("PulidFluxModelLoader", pulid_file="pulid_flux_v0.9.1.safetensors"),
            "3": node("ApplyPulidFlux", model=["1", 0], pulid_flux=["2", 0]),
        },
        [("3", "model")],
        'this model (node "1", sd_xl_base_1.0.safetensors) is of sdxl, '
        "but ApplyPulidFlux is for chroma or flux alone",
        "use a model of chroma or flux",
    ),
    "a style model of another family": (
        {
            "1": SDXL,
            "2": node("CLIPTextEncode", text="x", clip=["1", 1]),
            "3": node("StyleModelLoader", style_model_name="flux1-redux-dev.safetensors"),
            "4": node("StyleModelApply", conditioning=["2", 0], style_model=["3", 0]),
        },
        [("4", "style_model")],
        'this style model (node "3", flux1-redux-dev.safetensors) is of flux, '
        'but the conditioning (node "1", sd_xl_base_1.0.safetensors) is of sdxl',
        "use a style model made for sdxl",
    ),
    "a guider and a latent": (
        flux(
            {
                "7": node("SamplerCustomAdvanced", guider=["10", 0], latent_image=["12", 0]),
                "10": node("BasicGuider", model=["1", 0], conditioning=["4", 0]),
                "11": SDXL,
                "12": node("VAEEncode", pixels=["13", 0], vae=["11", 2]),
                "13": IMAGE,
            }
        ),
        [("7", "latent_image")],
        'this latent (node "11", sd_xl_base_1.0.safetensors) is of sdxl, '
        "but the guider's model (node \"1\", flux1-dev.safetensors) is of flux",
        "decode it with its own VAE, and encode the picture with the VAE of flux",
    ),
    "a reference that another family's VAE encoded": (
        flux(
            {
                "10": SDXL,
                "11": IMAGE,
                "12": node("VAEEncode", pixels=["11", 0], vae=["10", 2]),
                "13": node("ReferenceLatent", conditioning=["4", 0], latent=["12", 0]),
            },
            n7_positive=["13", 0],
        ),
        [("13", "latent")],
        'this latent (node "10", sd_xl_base_1.0.safetensors) is of sdxl, '
        'but the conditioning (node "2", DualCLIPLoader, type flux) is of flux',
        "decode it with its own VAE, and encode the picture with the VAE of flux",
    ),
    "models that are merged": (
        flux(
            {"10": SDXL, "11": node("ModelMergeSimple", model1=["1", 0], model2=["10", 0], ratio=1)},
            n7_model=["11", 0],
        ),
        [("11", "model2")],
        'this model (node "10", sd_xl_base_1.0.safetensors) is of sdxl, '
        'but the model (node "1", flux1-dev.safetensors) is of flux',
        "use a model of flux",
    ),
    "a switch of two models, both of another family": (
        flux(
            {
                "10": SDXL,
                "11": node("LazySwitchKJ", switch=True, on_false=["10", 0], on_true=["10", 0]),
                "12": node("easy cleanGpuUsed", anything=["11", 0]),
            },
            n7_model=["12", 0],
        ),
        [("7", "positive")],
        'this conditioning (node "2", DualCLIPLoader, type flux) is of flux, '
        'but the model (node "10", sd_xl_base_1.0.safetensors) is of sdxl',
        "encode the text with the text encoders of sdxl",
    ),
    "a switch with inputs beyond its schema": (
        flux(
            {"10": SDXL, "11": node("Any Switch (rgthree)", any_01=["10", 2], any_02=["10", 2])},
            n8_vae=["11", 0],
        ),
        [("8", "vae")],
        'this VAE (node "10", sd_xl_base_1.0.safetensors) is of sdxl, '
        'but the latent (node "1", flux1-dev.safetensors) is of flux',
        "use the VAE of flux",
    ),
    "a LoRA of several in one node": (
        flux(
            {
                "10": node(
                    "Power Lora Loader (rgthree)", model=["1", 0], clip=["2", 0],
                    lora_1={"on": True, "lora": "flux1-style.safetensors", "strength": 1},
                    lora_2={"on": True, "lora": "style-sdxl.safetensors", "strength": 1},
                    lora_3={"on": False, "lora": "style-sd15.safetensors", "strength": 1},
                ),
            },
            n7_model=["10", 0],
        ),
        [("10", "lora_2")],
        'this LoRA is of sdxl, but the model (node "1", flux1-dev.safetensors) is of flux',
        "use a LoRA made for flux",
    ),
    "what only one family has": (
        flux({"10": node("VAEDecodeAudio", samples=["7", 0], vae=["3", 0])}, n9_images=["8", 0])
        | {"11": node("SaveAudio", audio=["10", 0], filename_prefix="x")},
        [("10", "samples")],
        'this latent (node "1", flux1-dev.safetensors) is of flux, '
        "but VAEDecodeAudio is for ace-step or stable-audio alone",
        "decode it with its own VAE, and encode the picture with the VAE of ace-step or stable-audio",
    ),
    "texts that are combined": (
        flux(
            {
                "10": SDXL,
                "11": node("CLIPTextEncode", text="x", clip=["10", 1]),
                "12": node("ConditioningCombine", conditioning_1=["4", 0], conditioning_2=["11", 0]),
            },
            n7_positive=["12", 0],
        ),
        [("12", "conditioning_2")],
        'this conditioning (node "10", sd_xl_base_1.0.safetensors) is of sdxl, '
        'but the conditioning (node "2", DualCLIPLoader, type flux) is of flux',
        "encode the text with the text encoders of flux",
    ),
    "the refiner's text for the base": (
        {
            "1": SDXL,
            "2": node("CheckpointLoaderSimple", ckpt_name="sd_xl_refiner_1.0.safetensors"),
            "3": node("CLIPTextEncode", text="x", clip=["2", 1]),
            "4": node("KSampler", model=["1", 0], positive=["3", 0], negative=["3", 0],
                      latent_image=["5", 0]),
            "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        },
        [("4", "positive")],
        'this conditioning (node "2", sd_xl_refiner_1.0.safetensors) is of sdxl-refiner, '
        'but the model (node "1", sd_xl_base_1.0.safetensors) is of sdxl',
        "encode the text with the text encoders of sdxl",
    ),
    "two faults at one node": (
        flux(
            {
                "10": SDXL,
                "11": node("CLIPTextEncode", text="x", clip=["10", 1]),
                "12": node("VAEEncode", pixels=["13", 0], vae=["14", 0]),
                "13": IMAGE,
                "14": node("VAELoader", vae_name="wan_2.1_vae.safetensors"),
            },
            n7_negative=["11", 0],
            n7_latent_image=["12", 0],
        ),
        [("7", "negative"), ("7", "latent_image")],
        'this conditioning (node "10", sd_xl_base_1.0.safetensors) is of sdxl, '
        'but the model (node "1", flux1-dev.safetensors) is of flux',
        "encode the text with the text encoders of flux",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str) -> None:
    """Each is found where the two meet, once, and nothing more further down."""
    graph, expected, message, hint = WRONG[name]
    found = mismatches(graph)
    assert places(found) == expected
    assert {(f.code, f.severity) for f in found} == {("family-mismatch", "error")}
    assert (found[0].message, found[0].hint) == (message, hint)


RIGHT: dict[str, Graph] = {
    "Flux, with an empty latent of four channels": FLUX,
    "Flux, with a latent that its VAE encoded": flux(
        {"10": node("VAEEncode", pixels=["11", 0], vae=["3", 0]), "11": IMAGE},
        n7_latent_image=["10", 0],
    ),
    "a LoRA of its family": flux(
        {"10": node("LoraLoaderModelOnly", model=["1", 0], lora_name="flux1-a.safetensors")},
        n7_model=["10", 0],
    ),
    "a LoRA that says nothing": flux(
        {"10": node("LoraLoaderModelOnly", model=["1", 0], lora_name="pony-style.safetensors")},
        n7_model=["10", 0],
    ),
    "files that params give": flux(
        {"10": node("LoraLoaderModelOnly", model=["1", 0], lora_name=Unknown())},
        n2_type=Unknown(),
        n3_vae_name={"__value__": "sdxl_vae.safetensors"},
        n7_model=["10", 0],
    ),
    "a file that another node names": flux(
        {"10": node("PrimitiveString", value="sdxl_vae.safetensors")}, n3_vae_name=["10", 0]
    ),
    "a model that no table knows": flux(n1_unet_name="pid_flux1_1024_to_4096.safetensors"),
    "a class that no catalog knows": flux(
        {"10": node("NoSuchConverter", samples=["7", 0]), "11": SDXL},
        n8_samples=["10", 0],
        n8_vae=["11", 2],
    ),
    "a switch of two models, one of them right": flux(
        {
            "10": SDXL,
            "11": node("CLIPTextEncode", text="x", clip=["10", 1]),
            "12": node("easy conditioningIndexSwitch", index=0, cond0=["4", 0], cond1=["11", 0]),
        },
        n7_positive=["12", 0],
    ),
    "a switch of anything, of which one is right": flux(
        {
            "10": SDXL,
            "11": node("LazySwitchKJ", switch=True, on_false=["1", 0], on_true=["10", 0]),
        },
        n7_model=["11", 0],
    ),
    "a switch of anything, of which one is not known": flux(
        {
            "10": SDXL,
            "11": node("NoSuchLoader"),
            "12": node("LazySwitchKJ", switch=True, on_false=["11", 0], on_true=["10", 0]),
        },
        n7_model=["12", 0],
    ),
    "LoRAs that are switched off": flux(
        {
            "10": node("Power Lora Loader (rgthree)", model=["1", 0], clip=["2", 0],
                       lora_1={"on": False, "lora": "style-sdxl.safetensors", "strength": 1},
                       lora_2={"on": True, "lora": "None", "strength": 1}, lora_3="x"),
        },
        n7_model=["10", 0],
    ),
    "Wan's nodes with a model that no table knows": flux(
        {
            "2": node("CLIPLoader", clip_name="umt5_xxl_fp8.safetensors", type="wan"),
            "10": node("WanImageToVideo", positive=["4", 0], negative=["5", 0], vae=["3", 0]),
        },
        n1_unet_name="humo_17B.safetensors",
        n3_vae_name="wan_2.1_vae.safetensors",
        n7_positive=["10", 0], n7_negative=["10", 1], n7_latent_image=["10", 2],
    ),
    "a picture between two families": flux(
        {
            "10": SDXL,
            "11": node("VAEEncode", pixels=["8", 0], vae=["10", 2]),
            "12": node("CLIPTextEncode", text="x", clip=["10", 1]),
            "13": node("KSampler", model=["10", 0], positive=["12", 0], negative=["12", 0],
                       latent_image=["11", 0]),
            "14": node("VAEDecode", samples=["13", 0], vae=["10", 2]),
        },
        n9_images=["14", 0],
    ),
    "InstantID on SDXL, after Flux": flux(
        {"10": SDXL},
        instantid(["10", 0], ["10", 1]),
        {
            "11": node("VAEEncode", pixels=["8", 0], vae=["10", 2]),
            "13": node("KSampler", model=["26", 0], positive=["26", 1], negative=["26", 2],
                       latent_image=["11", 0]),
            "14": node("VAEDecode", samples=["13", 0], vae=["10", 2]),
        },
        n9_images=["14", 0],
    ),
    "the refiner goes on with the base's latent": {
        "1": SDXL,
        "2": node("CheckpointLoaderSimple", ckpt_name="sd_xl_refiner_1.0.safetensors"),
        "3": node("CLIPTextEncode", text="x", clip=["1", 1]),
        "4": node("CLIPTextEncode", text="x", clip=["2", 1]),
        "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "6": node("KSampler", model=["1", 0], positive=["3", 0], negative=["3", 0],
                  latent_image=["5", 0]),
        "7": node("KSampler", model=["2", 0], positive=["4", 0], negative=["4", 0],
                  latent_image=["6", 0]),
        "8": node("VAEDecode", samples=["7", 0], vae=["2", 2]),
    },
    "Chroma, with Flux's VAE and T5 alone": flux(
        {"2": node("CLIPLoader", clip_name="t5xxl_fp16.safetensors", type="chroma")},
        n1_unet_name="Chroma1-HD.safetensors",
    ),
    "Z-Image, with Flux's VAE and the type of Lumina": flux(
        {"2": node("CLIPLoader", clip_name="qwen_3_4b.safetensors", type="lumina2")},
        n1_unet_name="z_image_turbo_bf16.safetensors",
    ),
    "FLUX.2, with the text encoder of Z-Image": flux(
        {"2": node("CLIPLoader", clip_name="qwen_3_4b.safetensors", type="flux2")},
        n1_unet_name="flux-2-klein-4b.safetensors",
        n3_vae_name="flux2-vae.safetensors",
    ),
    "a text encoder that is known by its contents, with the default type": flux(
        {"2": node("CLIPLoader", clip_name="qwen_2.5_vl_7b.safetensors", type="stable_diffusion")},
        n1_unet_name="qwen_image_fp8_e4m3fn.safetensors",
        n3_vae_name="wan_2.1_vae.safetensors",
    ),
    "HiDream, with four encoders": flux(
        {
            "2": node("QuadrupleCLIPLoader", clip_name1="clip_l_hidream.safetensors",
                      clip_name2="clip_g_hidream.safetensors",
                      clip_name3="t5xxl_fp8_e4m3fn_scaled.safetensors",
                      clip_name4="llama_3.1_8b_instruct_fp8_scaled.safetensors"),
        },
        n1_unet_name="hidream_i1_full_fp8.safetensors",
    ),
    "a pipe that bundles what is replaced later": flux(
        {
            "10": node("easy pipeIn", model=["1", 0], vae=["11", 2]),
            "11": SDXL,
            "12": node("PreviewAny", source=["10", 0]),
        }
    ),
    "a stack of LoRAs, of which one is chosen": flux(
        {
            "10": node("easy loraSwitcher", lora_1_name="sdxl-a.pt", lora_2_name="flux1-a.pt"),
            "11": node("PreviewAny", source=["10", 0]),
        }
    ),
    "a loader of another pack, with text encoders that are never seen together": flux(
        {
            "1": node("ClownModelLoader", model_name="kandinsky5.safetensors",
                      clip_name1_opt="clip_l.safetensors",
                      clip_name2_opt="qwen_2.5_vl_7b.safetensors", vae_name="ae.safetensors"),
        },
        n4_clip=["1", 1],
        n5_clip=["1", 1],
    ),
    "a loader of all parts, with a VAE that says nothing": flux(
        {"3": node("easy fullLoader", ckpt_name="sdxl-a.safetensors", vae_name="Baked VAE")},
        n8_vae=["3", 2],
    ),
    "what nothing needs": flux({"10": SDXL, "11": node("VAEDecode", samples=["7", 0], vae=["10", 2])}),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    assert mismatches(RIGHT[name]) == []


LORA = flux(
    {"10": node("LoraLoader", model=["1", 0], clip=["2", 0], lora_name="mine.safetensors")},
    n7_model=["10", 0],
)
OF_SDXL = frozenset(("sdxl",))


@pytest.mark.parametrize("key", ["loras/mine.safetensors", "mine.safetensors"])
def test_what_is_known_of_a_file(key: str) -> None:
    """What a declaration or a header says counts, under the folder's name or without it."""
    assert places(mismatches(LORA, known={key: OF_SDXL})) == [("10", "lora_name")]
    assert mismatches(LORA, known={key: frozenset(("flux",))}) == []
    assert mismatches(LORA, known={"vae/mine.safetensors": OF_SDXL}) == []


def test_what_is_declared_comes_before_the_name() -> None:
    graph = flux(LORA, n10_lora_name="sdxl-a.safetensors")
    assert places(mismatches(graph)) == [("10", "lora_name")]
    for family in ("flux", "FLUX.1", "some-family-that-no-table-knows"):
        known = declared_families([("loras", "sdxl-a.safetensors", family)])
        assert mismatches(graph, known=known) == []
    known = declared_families([("diffusion_models", "flux1-dev.safetensors", "sdxl")])
    assert places(mismatches(FLUX, known=known)) == [("7", "positive")]


def test_shared_parts_may_be_declared_for_one_of_their_families() -> None:
    """A VAE and text encoders that are declared for Flux serve all that share them."""
    known = declared_families(
        [
            ("vae", "ae.safetensors", "flux"),
            ("text_encoders", "t5xxl_fp16.safetensors", "flux"),
            ("text_encoders", "clip_l.safetensors", "flux"),
        ]
    )
    assert mismatches(RIGHT["Chroma, with Flux's VAE and T5 alone"], known=known) == []
    graph = flux(
        {"1": SDXL},
        n2_type="sdxl",
        n2_clip_name1="clip_g.safetensors",
        n3_vae_name="sdxl_vae.safetensors",
    )
    assert mismatches(graph, known=known) == []


def test_only_what_runs_is_looked_at() -> None:
    graph = flux(
        {
            "10": SDXL,
            "11": node("VAEDecode", samples=["7", 0], vae=["10", 2]),
            "12": node("PreviewImage", images=["11", 0]),
        }
    )
    assert places(mismatches(graph)) == [("11", "vae")]
    assert mismatches(graph, outputs=["9"]) == []
    assert places(mismatches(graph, outputs=["12"])) == [("11", "vae")]


def workflow_graph(workflow: Workflow) -> Graph:
    """Return a workflow's graph with the values of its params unknown."""

    def plain(value: object) -> object:
        if isinstance(value, Link):
            return [value.node, value.output]
        return Unknown() if isinstance(value, Template) else value

    return {
        one.id: node(one.class_type, **{name: plain(v.value) for name, v in one.inputs.items()})
        for one in workflow.graph.values()
    }


def test_shipped_workflows() -> None:
    """They have no mismatch, and a LoRA for SDXL in the place of flux-lora's has one."""
    checked, _ = load_and_check(ROOT)
    assert checked
    known = declared_families(
        (model.folder, model.filename, model.family)
        for model in checked.models.models.values()
        if model.family
    )
    assert len(known) >= 8
    assert None not in known.values()
    graphs = {one.workflow.name: workflow_graph(one.workflow) for one in checked.workflows}
    assert graphs.keys() >= {"flux", "flux-dev", "flux-lora", "flux-instantid", "wan2", "seedvr2"}
    for graph in graphs.values():
        assert mismatches(graph, known=known) == []
        assert mismatches(graph) == []
    graph = graphs["flux-lora"]
    graph["30"]["inputs"]["lora_name"] = "x.safetensors"
    known["loras/x.safetensors"] = OF_SDXL
    assert places(mismatches(graph, known=known)) == [("30", "lora_name")]
    graph = graphs["flux-instantid"]
    graph["47"]["inputs"]["model"] = ["1", 0]
    assert places(mismatches(graph, known=known)) == [("47", "model")]
    graph = graphs["flux-instantid"]
    graph["48"]["inputs"]["vae"] = ["3", 0]
    graph["47"]["inputs"]["model"] = ["40", 0]
    assert places(mismatches(graph, known=known)) == [("49", "latent_image")]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"{case['kind']}-{case['name']}")
def test_recorded_graphs(case: dict[str, Any]) -> None:
    """Official templates work, and faults of form that were planted in them are none of ours."""
    assert mismatches(case["graph"]) == []


STRANGERS = {
    "diffusion_models": "hunyuan_video_t2v_720p.safetensors",
    "loras": "a-sdxl.safetensors",
    "text_encoders": "clip_g.safetensors",
    "vae": "sdxl_vae.safetensors",
}


@pytest.mark.parametrize(
    "case",
    [case for case in RECORDED if case["kind"] == "original"],
    ids=lambda case: str(case["name"]),
)
def test_each_file_of_a_recorded_graph_matters(case: dict[str, Any]) -> None:
    """A file of another family in the place of any one is found."""
    classes = classes_of(case["graph"])
    for node_id, class_type in classes.items():
        for name, declared in class_type.inputs.items():
            folder = next((folder for folder in declared.folders if folder in STRANGERS), None)
            if folder and name in case["graph"][node_id]["inputs"]:
                graph = deepcopy(case["graph"])
                graph[node_id]["inputs"][name] = STRANGERS[folder]
                assert mismatches(graph), (node_id, name)


NAMED = {
    "checkpoints": {
        "flux1-schnell-fp8.safetensors": "flux",
        "FLUX1/flux.1-dev.sft": "flux",
        "flux-2-klein-4b.safetensors": "flux2",
        "flux3-image.safetensors": "",
        "sd_xl_base_1.0.safetensors": "sdxl",
        "sd_xl_refiner_1.0.safetensors": "sdxl-refiner",
        "v1-5-pruned-emaonly.ckpt": "sd15",
        "512-inpainting-ema.ckpt": "sd2",
        "sd3.5_large_fp8_scaled.safetensors": "sd3",
        "DreamShaper_8_pruned.safetensors": "sd15",
        "dreamshaperXL_v21.safetensors": "sdxl",
        "ltx-video-2b-v0.9.5.safetensors": "ltxv",
        "ltx-2-19b-dev-fp8.safetensors": "",
        "hunyuan3d-dit-v2-mv_fp16.safetensors": "hunyuan3d",
        "acestep_v1.5_xl_base.safetensors": "",
        "PixArt-Sigma-XL-2-1024-MS.pth": "pixart-sigma",
        "svd_xt.safetensors": "svd",
        "model.safetensors": "",
        "": "",
    },
    "diffusion_models": {
        "wan2.1_t2v_1.3B_fp16.safetensors": "wan",
        "Wan2_1-I2V-14B-480p.safetensors": "wan",
        "wan2.2_ti2v_5B_fp16.safetensors": "wan2.2-5b",
        "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors": "wan",
        "wan2.2_something.safetensors": "wan wan2.2-5b",
        "qwen_image_edit_2509_fp8_e4m3fn.safetensors": "qwen",
        "hunyuan_video_t2v_720p_bf16.safetensors": "hunyuan-video",
        "hunyuanvideo1.5_720p_t2v_fp16.safetensors": "hunyuan-video-1.5",
        "Chroma1-HD-fp8_scaled_rev2.safetensors": "chroma",
        "hidream_i1_full_fp8.safetensors": "hidream",
        "hidream_o1_image.safetensors": "",
        "lotus-depth-d-v1-1.safetensors": "sd2",
        "pid_flux1_1024_to_4096_4step_bf16.safetensors": "",
        "cosmos_predict2_2B_t2i.safetensors": "cosmos-predict2",
    },
    "vae": {
        "ae.safetensors": "flux",
        "mae.safetensors": "",
        "vae-ft-mse-840000-ema-pruned.safetensors": "sd15",
        "sdxl_vae.safetensors": "sdxl",
        "wan_2.1_vae.safetensors": "wan",
        "wan2.2_vae.safetensors": "wan2.2-5b",
        "qwen_image_vae.safetensors": "qwen",
        "taesdxl": "sdxl",
        "pixel_space": "",
    },
    "text_encoders": {
        "umt5_xxl_fp8_e4m3fn_scaled.safetensors": "wan wan2.2-5b",
        "oldt5_xxl_fp16.safetensors": "cosmos cosmos-predict2",
        "clip_g.safetensors": "sdxl sdxl-refiner sd3 hidream stable-cascade",
        "mistral_3_small_flux2_bf16.safetensors": "flux2",
        "qwen3.5_9b_flux3_prompt.safetensors": "",
        "gemma_2_2b_it_elm_bf16.safetensors": "",
    },
    "loras": {
        "lcm-lora-sdv1-5.safetensors": "sd15",
        "Hyper-SDXL-8steps-lora.safetensors": "sdxl",
        "Hyper-FLUX.1-dev-8steps-lora.safetensors": "flux",
        "uso-flux1-dit-lora-v1.safetensors": "flux",
        "sdxl_to_flux1.safetensors": "",
        "flux-capacitor.safetensors": "",
        "chroma_key.safetensors": "",
        "a_swan_2_1.safetensors": "",
        "flux_100.safetensors": "",
        "SDXL/offset.safetensors": "sdxl",
        "SDXL/of-flux1.safetensors": "flux",
        "sdxl\\offset.safetensors": "sdxl",
        "character-demo.safetensors": "",
    },
    "controlnet": {
        "control_v11p_sd15_canny.pth": "sd15",
        "instantid-controlnet.safetensors": "sdxl",
        "control-lora-canny-rank256.safetensors": "sdxl",
        "SDXL/controlnet-canny-sdxl-1.0/diffusion_pytorch_model.safetensors": "sdxl",
        "Qwen-Image-InstantX-ControlNet-Union.safetensors": "qwen",
        "diffusion_pytorch_model.safetensors": "",
    },
    "instantid": {"ip-adapter.bin": "sdxl"},
    "no_such_folder": {"flux1-dev.safetensors": "flux", "a.safetensors": ""},
}


@pytest.mark.parametrize(
    ("folder", "file", "families"),
    [(folder, file, families) for folder, of in NAMED.items() for file, families in of.items()],
)
def test_names_of_files(folder: str, file: str, families: str) -> None:
    assert family_of_name(file, folder) == (frozenset(families.split()) or None)


@pytest.mark.parametrize(
    ("text", "families"),
    [
        ("flux", "flux"),
        ("FLUX.1", "flux"),
        ("SD 1.5", "sd15"),
        ("sdxl", "sdxl"),
        ("pony", "sdxl"),
        ("wan", "wan wan2.2-5b"),
        ("wan2.1", "wan"),
        ("wan2.2-5b", "wan2.2-5b"),
        ("hunyuan-video", "hunyuan-video"),
        ("lumina2", "lumina"),
        ("zimage", "z-image"),
        ("stable-diffusion-xl-v1-base", "sdxl"),
        ("something else", ""),
        ("", ""),
    ],
)
def test_names_of_families(text: str, families: str) -> None:
    assert families_named(text) == (frozenset(families.split()) or None)


def test_tables_hang_together() -> None:
    """Each family and type that a table names exists, and each class that the catalogs have."""
    rules = CLASSES.values()
    named: list[Families | None] = [families for _, families in NAMES]
    named += [families for rows in NAMES_IN.values() for _, families in rows]
    named += [*ALIASES.values(), *(rule.needs for rule in rules)]
    named += [families for rule in rules for families in rule.families.values()]
    named += [families for fits in FITS.values() for families in fits.values()]
    assert all(families <= FAMILIES for families in named if families)
    assert all(family in families for fits in FITS.values() for family, families in fits.items())
    assert sum(map(len, LATENT_SPACES)) == len(FAMILIES)
    assert FITS.keys() <= LINK_TYPES.keys() | FOLDERS.keys()
    assert NAMES_IN.keys() <= FOLDERS.keys()
    assert {part for kind in FOLDERS.values() for part in kind.gives} <= LINK_TYPES.keys()
    assert {part for kind in LINK_TYPES.values() for part in kind.made_of} <= LINK_TYPES.keys()
    for name, rule in CLASSES.items():
        known = CATALOG.get(name, CATALOG.packs)
        assert known, name
        for one in known:
            types = {output.type for output in one.outputs}
            assert rule.made_of.keys() <= types
            assert rule.folders.keys() <= one.inputs.keys()
            assert not rule.families or types == {"CLIP"}
            options = one.inputs["type"].options if "type" in one.inputs else ("",)
            assert not rule.families or set(options) <= rule.families.keys()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda item: (
        st.lists(item, max_size=4) | st.dictionaries(st.text(max_size=5), item, max_size=4)
    ),
    max_leaves=10,
)
IDS = st.sampled_from(["1", "2", "3", "4"])
LINKS = st.tuples(IDS, st.integers(-1, 3)).map(list)
FILES = st.sampled_from(
    ["flux1-dev.safetensors", "sdxl.safetensors", "\ud800", "wan2.1_vae.safetensors", "sd15/a.pt"]
)
CLASS_NAMES = st.sampled_from(
    ["KSampler", "LoraLoader", "CheckpointLoaderSimple", "DualCLIPLoader", "CLIPLoader",
     "VAEDecode", "VAEEncode", "CLIPTextEncode", "ControlNetApplyAdvanced", "ControlNetLoader",
     "ApplyInstantID", "SaveImage", "easy fullLoader", "ModelMergeSimple", "BasicGuider",
     "SamplerCustomAdvanced", "VHS_VideoCombine", "No", ""]
)  # fmt: skip


@st.composite
def nodes(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(CLASS_NAMES)
    known = CATALOG.get(name, CATALOG.packs)
    inputs = st.sampled_from([*known[0].inputs]) if known else st.text(max_size=3)
    return node(name, **draw(st.dictionaries(inputs, LINKS | FILES | JSON, max_size=8)))


@settings(max_examples=500)
@given(JSON | st.dictionaries(st.text(max_size=3) | IDS, nodes() | JSON, max_size=6))
def test_nothing_that_json_holds_raises(graph: object) -> None:
    for finding in mismatches(graph):
        assert finding.message.isprintable()
        assert (finding.hint or "").isprintable()
        assert finding.node is not None
        assert finding.input


@given(st.text(), st.sampled_from([*FOLDERS, ""]))
def test_no_name_raises(file: str, folder: str) -> None:
    assert (family_of_name(file, folder) or FAMILIES) <= FAMILIES
    assert (families_named(file) or FAMILIES) <= FAMILIES


def test_messages_quote_nothing_that_repaints_a_terminal() -> None:
    graph = flux(n1_unet_name="flux1\x1b[2J\u202e\ud800" + "x" * 100, n3_vae_name="sdxl\n.pt")
    graph = {node_id.replace("3", "\x1b3"): content for node_id, content in graph.items()}
    graph["8"]["inputs"]["vae"] = ["\x1b3", 0]
    found = mismatches(graph)
    assert places(found) == [("8", "vae")]
    assert found[0].message.isprintable()
    assert len(found[0].message) < 500


def test_large_graphs_take_linear_time() -> None:
    """Long chains of nodes that hand on a family, and cycles of them."""
    size = 5_000
    chain = {
        str(i): node("LoraLoaderModelOnly", model=[str(i - 1), 0], lora_name="a.safetensors")
        for i in range(100, size)
    }
    graph = flux(chain, n100_model=["1", 0], n7_model=[str(size - 1), 0])
    graph["50"] = node("LoraLoaderModelOnly", model=[str(size - 1), 0], lora_name="sdxl.pt")
    graph["7"]["inputs"]["model"] = ["50", 0]
    start = process_time()
    assert places(mismatches(graph)) == [("50", "lora_name")]
    graph["100"]["inputs"]["model"] = [str(size - 1), 0]
    assert places(mismatches(graph)) == [("7", "positive")]
    graph["101"]["inputs"] |= {f"x{i}": ["1", 0] for i in range(50_000)}
    assert places(mismatches(graph)) == [("7", "positive")]
    assert process_time() - start < 3
