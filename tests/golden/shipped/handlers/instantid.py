"""Endpoints of the instantid handler.

POST /flux-instantid, from workflows/flux-instantid.yaml, which extends flux-dev.yaml.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

from collections.abc import Mapping
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import Field

from ..gateway.backend import Backend
from ..gateway.endpoints import add_endpoint
from ..gateway.service import Endpoint
from ..graph.records import Graph
from ..params import MAX_SEED, Image, Request, drawn


class FluxInstantidRequest(Request):
    """What POST /flux-instantid takes."""

    prompt: str = Field(
        min_length=1,
        max_length=10000,
        description="What the picture shows.",
        examples=["a portrait of a mountaineer in the snow"],
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
    reference_image: Image = Field(description="A picture of one person; the face counts.")
    instantid_strength: float = Field(
        0.8, ge=0.0, le=3.0, description="How strongly the face of the reference is imposed."
    )
    controlnet_strength: float = Field(
        0.8,
        ge=0.0,
        le=10.0,
        description="How strongly the place and pose of the composed face are kept.",
    )
    identity_denoise: float = Field(
        0.6,
        ge=0.0,
        le=1.0,
        description="How much the second stage repaints; 0 keeps the composition as it is.",
    )
    identity_cfg: float = Field(
        4.5, ge=0.0, le=100.0, description="How strongly the prompt guides the second stage."
    )
    face_provider: Literal["CPU", "CUDA"] = Field(
        "CPU", description="What the face analysis runs on."
    )


def build_flux_instantid_workflow(item: FluxInstantidRequest | Mapping[str, Any]) -> Graph:
    """Return the graph that POST /flux-instantid runs.

    FLUX.1 [dev] with InstantID: a picture with the face of a reference.
    """
    item = FluxInstantidRequest.of(item)
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
            "inputs": {"filename_prefix": "flux-instantid", "images": ["50", 0]},
        },
        "40": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": "sd_xl_base_1.0.safetensors"},
        },
        "41": {
            "class_type": "LoadImage",
            "inputs": {"image": item.reference_image},
        },
        "42": {
            "class_type": "InstantIDModelLoader",
            "inputs": {"instantid_file": "ip-adapter.bin"},
        },
        "43": {
            "class_type": "InstantIDFaceAnalysis",
            "inputs": {"provider": item.face_provider},
        },
        "44": {
            "class_type": "ControlNetLoader",
            "inputs": {"control_net_name": "instantid-controlnet.safetensors"},
        },
        "45": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": item.prompt, "clip": ["40", 1]},
        },
        "46": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": item.negative_prompt, "clip": ["40", 1]},
        },
        "47": {
            "class_type": "ApplyInstantIDAdvanced",
            "inputs": {
                "instantid": ["42", 0],
                "insightface": ["43", 0],
                "control_net": ["44", 0],
                "image": ["41", 0],
                "image_kps": ["8", 0],
                "model": ["40", 0],
                "positive": ["45", 0],
                "negative": ["46", 0],
                "ip_weight": item.instantid_strength,
                "cn_strength": item.controlnet_strength,
                "start_at": 0.0,
                "end_at": 1.0,
                "noise": 0.0,
                "combine_embeds": "average",
            },
        },
        "48": {
            "class_type": "VAEEncode",
            "inputs": {"pixels": ["8", 0], "vae": ["40", 2]},
        },
        "49": {
            "class_type": "KSampler",
            "inputs": {
                "seed": item.seed,
                "steps": 30,
                "cfg": item.identity_cfg,
                "sampler_name": "dpmpp_2m",
                "scheduler": "karras",
                "denoise": item.identity_denoise,
                "model": ["47", 0],
                "positive": ["47", 1],
                "negative": ["47", 2],
                "latent_image": ["48", 0],
            },
        },
        "50": {
            "class_type": "VAEDecode",
            "inputs": {"samples": ["49", 0], "vae": ["40", 2]},
        },
    }


def setup_instantid_endpoints(app: FastAPI, backend: Backend) -> None:
    """Add POST /flux-instantid to an app."""
    add_endpoint(
        app,
        backend,
        Endpoint(
            name="flux-instantid",
            route="/flux-instantid",
            request=FluxInstantidRequest,
            build=build_flux_instantid_workflow,
            media_types=["image/png"],
            profile="l40s",
            timeout=1800,
            file="workflows/flux-instantid.yaml",
            summary="FLUX.1 [dev] with InstantID: a picture with the face of a reference",
            description=(
                "Two stages. FLUX.1 [dev] composes the picture from the prompt; SDXL with"
                " InstantID, which exists for SDXL alone, then repaints it with the face "
                "of the reference, in the place and pose that the composition has. The "
                "prompt must lead to a picture with a face."
            ),
            seed="seed",
        ),
    )
