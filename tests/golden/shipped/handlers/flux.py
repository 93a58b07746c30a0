"""Endpoints of the flux handler.

POST /flux, from workflows/flux.yaml.

POST /flux-dev, from workflows/flux-dev.yaml.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import Field

from ..gateway.backend import Backend
from ..gateway.endpoints import add_endpoint
from ..gateway.service import Endpoint
from ..graph.records import Graph
from ..params import MAX_SEED, Request, drawn


class FluxRequest(Request):
    """What POST /flux takes."""

    prompt: str = Field(
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
    steps: int = Field(4, ge=1, le=100, description="Sampling steps.")
    cfg: float = Field(
        1.0, ge=0.0, le=100.0, description="How strongly the prompt guides the sampler."
    )
    seed: int = Field(
        default_factory=drawn(0, MAX_SEED),
        ge=0,
        le=MAX_SEED,
        description="The same seed and params give the same picture.",
    )


def build_flux_workflow(item: FluxRequest | Mapping[str, Any]) -> Graph:
    """Return the graph that POST /flux runs.

    FLUX.1 [schnell]: a picture from text in four steps.
    """
    item = FluxRequest.of(item)
    return {
        "4": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": "flux1-schnell-fp8.safetensors"},
        },
        "6": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": item.prompt, "clip": ["4", 1]},
        },
        "7": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": item.negative_prompt, "clip": ["4", 1]},
        },
        "3": {
            "class_type": "EmptySD3LatentImage",
            "inputs": {"width": item.width, "height": item.height, "batch_size": 1},
        },
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "seed": item.seed,
                "steps": item.steps,
                "cfg": item.cfg,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["3", 0],
            },
        },
        "10": {
            "class_type": "VAEDecode",
            "inputs": {"samples": ["5", 0], "vae": ["4", 2]},
        },
        "9": {
            "class_type": "SaveImage",
            "inputs": {"filename_prefix": "flux", "images": ["10", 0]},
        },
    }


class FluxDevRequest(Request):
    """What POST /flux-dev takes."""

    prompt: str = Field(
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


def build_flux_dev_workflow(item: FluxDevRequest | Mapping[str, Any]) -> Graph:
    """Return the graph that POST /flux-dev runs.

    FLUX.1 [dev]: a picture from text, slower and better than schnell.
    """
    item = FluxDevRequest.of(item)
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
            "inputs": {"text": item.prompt, "clip": ["2", 0]},
        },
        "5": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": item.negative_prompt, "clip": ["2", 0]},
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
                "model": ["1", 0],
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
            "inputs": {"filename_prefix": "flux-dev", "images": ["8", 0]},
        },
    }


def setup_flux_endpoints(app: FastAPI, backend: Backend) -> None:
    """Add POST /flux and POST /flux-dev to an app."""
    add_endpoint(
        app,
        backend,
        Endpoint(
            name="flux",
            route="/flux",
            request=FluxRequest,
            build=build_flux_workflow,
            media_types=["image/png"],
            profile="l40s",
            timeout=1800,
            file="workflows/flux.yaml",
            summary="FLUX.1 [schnell]: a picture from text in four steps",
            seed="seed",
        ),
    )
    add_endpoint(
        app,
        backend,
        Endpoint(
            name="flux-dev",
            route="/flux-dev",
            request=FluxDevRequest,
            build=build_flux_dev_workflow,
            media_types=["image/png"],
            profile="l40s",
            timeout=1800,
            file="workflows/flux-dev.yaml",
            summary="FLUX.1 [dev]: a picture from text, slower and better than schnell",
            seed="seed",
        ),
    )
