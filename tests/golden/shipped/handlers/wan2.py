"""Endpoints of the wan2 handler.

POST /wan2, from workflows/wan2.yaml.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from pydantic import Field

from ..gateway.backend import Backend
from ..gateway.endpoints import add_endpoint
from ..gateway.service import Endpoint
from ..graph.records import Graph, needed
from ..params import MAX_SEED, Request, Step, drawn


class Wan2Request(Request):
    """What POST /wan2 takes."""

    prompt: str = Field(
        min_length=1,
        max_length=10000,
        description="What the video shows.",
        examples=["a red fox runs through the snow"],
    )
    negative_prompt: str = Field("", max_length=10000, description="What the video must not show.")
    width: int = Field(832, ge=16, le=1280, multiple_of=16, description="Width in pixels.")
    height: int = Field(480, ge=16, le=1280, multiple_of=16, description="Height in pixels.")
    length: Annotated[int, Step(4, start=1)] = Field(
        33, ge=1, le=161, description="Number of frames: 4n+1."
    )
    fps: int = Field(16, ge=1, le=60, description="Frames per second.")
    steps: int = Field(30, ge=1, le=100, description="Sampling steps.")
    cfg: float = Field(
        6.0, ge=0.0, le=100.0, description="How strongly the prompt guides the sampler."
    )
    seed: int = Field(
        default_factory=drawn(0, MAX_SEED),
        ge=0,
        le=MAX_SEED,
        description="The same seed and params give the same video.",
    )
    quality: int = Field(90, ge=0, le=100, description="Quality of the WebP; MP4 has its own.")
    format: Literal["webp", "mp4"] = Field("webp", description="An animated WebP, or an MP4.")


def build_wan2_workflow(item: Wan2Request | Mapping[str, Any]) -> Graph:
    """Return the graph that POST /wan2 runs.

    Wan 2.1 1.3B: a short video from text.
    """
    item = Wan2Request.of(item)
    graph: Graph = {
        "37": {
            "class_type": "UNETLoader",
            "inputs": {"unet_name": "wan2.1_t2v_1.3B_fp16.safetensors", "weight_dtype": "default"},
        },
        "38": {
            "class_type": "CLIPLoader",
            "inputs": {
                "clip_name": "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
                "type": "wan",
                "device": "default",
            },
        },
        "39": {
            "class_type": "VAELoader",
            "inputs": {"vae_name": "wan_2.1_vae.safetensors"},
        },
        "48": {
            "class_type": "ModelSamplingSD3",
            "inputs": {"shift": 8.0, "model": ["37", 0]},
        },
        "6": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": item.prompt, "clip": ["38", 0]},
        },
        "7": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": item.negative_prompt, "clip": ["38", 0]},
        },
        "40": {
            "class_type": "EmptyHunyuanLatentVideo",
            "inputs": {
                "width": item.width,
                "height": item.height,
                "length": item.length,
                "batch_size": 1,
            },
        },
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": item.seed,
                "steps": item.steps,
                "cfg": item.cfg,
                "sampler_name": "uni_pc",
                "scheduler": "simple",
                "denoise": 1.0,
                "model": ["48", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["40", 0],
            },
        },
        "8": {
            "class_type": "VAEDecode",
            "inputs": {"samples": ["3", 0], "vae": ["39", 0]},
        },
        "28": {
            "class_type": "SaveAnimatedWEBP",
            "inputs": {
                "filename_prefix": "wan2",
                "fps": item.fps,
                "lossless": False,
                "quality": item.quality,
                "method": "default",
                "images": ["8", 0],
            },
        },
        "49": {
            "class_type": "CreateVideo",
            "inputs": {"fps": item.fps, "images": ["8", 0]},
        },
        "50": {
            "class_type": "SaveVideo",
            "inputs": {
                "filename_prefix": "wan2",
                "format": "mp4",
                "codec": "h264",
                "video": ["49", 0],
            },
        },
    }
    return needed(graph, {"webp": "28", "mp4": "50"}[item.format])


def setup_wan2_endpoints(app: FastAPI, backend: Backend) -> None:
    """Add POST /wan2 to an app."""
    add_endpoint(
        app,
        backend,
        Endpoint(
            name="wan2",
            route="/wan2",
            request=Wan2Request,
            build=build_wan2_workflow,
            media_types=["image/webp", "video/mp4"],
            profile="l40s",
            timeout=1800,
            file="workflows/wan2.yaml",
            summary="Wan 2.1 1.3B: a short video from text",
            seed="seed",
        ),
    )
