"""Endpoints of the lora handler.

POST /flux-lora, from workflows/flux-lora.yaml, which extends flux-dev.yaml.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import Field

from ..gateway.backend import Backend
from ..gateway.endpoints import add_endpoint
from ..gateway.service import Endpoint
from ..graph.records import Graph
from ..params import MAX_SEED, ModelFile, Request, Stripped, affix, drawn, given


class FluxLoraRequest(Request):
    """What POST /flux-lora takes."""

    ONE_OF = (("lora_id", "lora_name"),)

    prompt: Stripped = Field(
        min_length=1,
        max_length=10000,
        description="What the picture shows.",
        examples=["a red fox in the snow"],
    )
    negative_prompt: str = Field(
        "",
        max_length=10000,
        description="What the picture must not show; it has an effect when cfg is above 1.",
    )
    width: int = Field(1024, ge=16, le=2048, multiple_of=8, description="Width in pixels.")
    height: int = Field(1024, ge=16, le=2048, multiple_of=8, description="Height in pixels.")
    steps: int = Field(20, ge=1, le=100, description="Sampling steps.")
    cfg: float = Field(
        1.0, ge=0.0, le=100.0, description="How strongly the prompt guides the sampler."
    )
    guidance: float = Field(
        3.5,
        ge=0.0,
        le=100.0,
        description="Distilled guidance, which FLUX.1 [dev] uses in place of cfg.",
    )
    seed: int = Field(
        default_factory=drawn(0, MAX_SEED),
        ge=0,
        le=MAX_SEED,
        description="The same seed and params give the same picture.",
    )
    lora_id: str | None = Field(
        None,
        max_length=64,
        pattern="^[A-Za-z0-9_-]+$",
        description="The LoRA character-<lora_id>.safetensors.",
        examples=["demo"],
    )
    lora_name: Annotated[str, ModelFile("loras")] | None = Field(
        None, description="File name of the LoRA.", examples=["character-demo.safetensors"]
    )
    lora_strength: float = Field(
        1.0, ge=-100.0, le=100.0, description="How strongly the LoRA changes the model."
    )
    trigger_word: Stripped = Field(
        "",
        max_length=10000,
        description="Word that the LoRA was trained on; it goes before the prompt.",
    )


def build_flux_lora_workflow(item: FluxLoraRequest | Mapping[str, Any]) -> Graph:
    """Return the graph that POST /flux-lora runs.

    FLUX.1 [dev] with a LoRA.
    """
    item = FluxLoraRequest.of(item)
    trigger_word = affix(item.trigger_word, suffix=" ")
    lora_name = given(
        item.lora_name, affix(item.lora_id, prefix="character-", suffix=".safetensors")
    )
    return {
        "1": {
            "class_type": "UNETLoader",
            "inputs": {"unet_name": "flux1-dev.safetensors", "weight_dtype": "default"},
        },
        "2": {
            "class_type": "DualCLIPLoader",
            "inputs": {
                "clip_name1": "t5xxl_fp16.safetensors",
                "clip_name2": "clip_l.safetensors",
                "type": "flux",
                "device": "default",
            },
        },
        "3": {
            "class_type": "VAELoader",
            "inputs": {"vae_name": "ae.safetensors"},
        },
        "4": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": f"{trigger_word}{item.prompt}", "clip": ["30", 1]},
        },
        "5": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": item.negative_prompt, "clip": ["30", 1]},
        },
        "10": {
            "class_type": "FluxGuidance",
            "inputs": {"conditioning": ["4", 0], "guidance": item.guidance},
        },
        "6": {
            "class_type": "EmptySD3LatentImage",
            "inputs": {"width": item.width, "height": item.height, "batch_size": 1},
        },
        "7": {
            "class_type": "KSampler",
            "inputs": {
                "seed": item.seed,
                "steps": item.steps,
                "cfg": item.cfg,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
                "model": ["30", 0],
                "positive": ["10", 0],
                "negative": ["5", 0],
                "latent_image": ["6", 0],
            },
        },
        "8": {
            "class_type": "VAEDecode",
            "inputs": {"samples": ["7", 0], "vae": ["3", 0]},
        },
        "9": {
            "class_type": "SaveImage",
            "inputs": {"filename_prefix": "flux-lora", "images": ["8", 0]},
        },
        "30": {
            "class_type": "LoraLoader",
            "inputs": {
                "model": ["1", 0],
                "clip": ["2", 0],
                "lora_name": lora_name,
                "strength_model": item.lora_strength,
                "strength_clip": item.lora_strength,
            },
        },
    }


def setup_lora_endpoints(app: FastAPI, backend: Backend) -> None:
    """Add POST /flux-lora to an app."""
    add_endpoint(
        app,
        backend,
        Endpoint(
            name="flux-lora",
            route="/flux-lora",
            request=FluxLoraRequest,
            build=build_flux_lora_workflow,
            media_types=["image/png"],
            profile="l40s",
            timeout=1800,
            file="workflows/flux-lora.yaml",
            summary="FLUX.1 [dev] with a LoRA",
            description=(
                "LoRA files are in the folder loras of the Volume ryla-models. Give "
                "lora_id for character-<lora_id>.safetensors, or lora_name for any other "
                "file."
            ),
            seed="seed",
        ),
    )
