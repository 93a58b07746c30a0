"""Endpoints of the seedvr2 handler.

POST /seedvr2, from workflows/seedvr2.yaml.

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
from ..params import Image, Request, drawn


class Seedvr2Request(Request):
    """What POST /seedvr2 takes."""

    image: Image = Field(description="The picture to upscale.")
    resolution: int = Field(
        1080,
        ge=16,
        le=16384,
        multiple_of=2,
        description="Length of the result's shorter side, in pixels.",
    )
    max_resolution: int = Field(
        4000,
        ge=0,
        le=16384,
        multiple_of=2,
        description="Most pixels of the result's longer side; 0 is no limit.",
    )
    seed: int = Field(
        default_factory=drawn(0, 4294967295),
        ge=0,
        le=4294967295,
        description="The same seed and params give the same picture.",
    )


def build_seedvr2_workflow(item: Seedvr2Request | Mapping[str, Any]) -> Graph:
    """Return the graph that POST /seedvr2 runs.

    SeedVR2 7B: a larger, sharper picture from a picture.
    """
    item = Seedvr2Request.of(item)
    return {
        "1": {
            "class_type": "LoadImage",
            "inputs": {"image": item.image},
        },
        "2": {
            "class_type": "SeedVR2LoadDiTModel",
            "inputs": {
                "model": "seedvr2_ema_7b_fp16.safetensors",
                "device": "cuda:0",
                "blocks_to_swap": 35,
                "swap_io_components": False,
                "offload_device": "cpu",
                "cache_model": False,
                "attention_mode": "sdpa",
            },
        },
        "3": {
            "class_type": "SeedVR2LoadVAEModel",
            "inputs": {
                "model": "ema_vae_fp16.safetensors",
                "device": "cuda:0",
                "encode_tiled": True,
                "encode_tile_size": 1024,
                "encode_tile_overlap": 128,
                "decode_tiled": True,
                "decode_tile_size": 1024,
                "decode_tile_overlap": 128,
                "tile_debug": "false",
                "offload_device": "cpu",
                "cache_model": False,
            },
        },
        "4": {
            "class_type": "SeedVR2VideoUpscaler",
            "inputs": {
                "image": ["1", 0],
                "dit": ["2", 0],
                "vae": ["3", 0],
                "seed": item.seed,
                "resolution": item.resolution,
                "max_resolution": item.max_resolution,
                "batch_size": 1,
                "uniform_batch_size": False,
                "color_correction": "lab",
                "temporal_overlap": 16,
                "prepend_frames": 0,
                "input_noise_scale": 0.0,
                "latent_noise_scale": 0.0,
                "offload_device": "cpu",
                "enable_debug": False,
            },
        },
        "5": {
            "class_type": "SaveImage",
            "inputs": {"filename_prefix": "seedvr2", "images": ["4", 0]},
        },
    }


def setup_seedvr2_endpoints(app: FastAPI, backend: Backend) -> None:
    """Add POST /seedvr2 to an app."""
    add_endpoint(
        app,
        backend,
        Endpoint(
            name="seedvr2",
            route="/seedvr2",
            request=Seedvr2Request,
            build=build_seedvr2_workflow,
            media_types=["image/png"],
            profile="l40s",
            timeout=1800,
            file="workflows/seedvr2.yaml",
            summary="SeedVR2 7B: a larger, sharper picture from a picture",
            seed="seed",
        ),
    )
