"""Values of the app, from gpu.yaml and models.yaml.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

from typing import Final

APP_NAME: Final = "ryla-comfyui"
PYTHON_VERSION: Final = "3.11"
REQUIREMENTS: Final[list[str]] = [
    "aiohttp==3.14.5",
    "av==18.1.0",
    "comfy-cli==1.5.3",
    "fastapi==0.115.4",
    "fastapi-offline==1.7.7",
    "httptools==0.9.0",
    "httpx==0.28.1",
    "huggingface-hub==1.16.1",
    "pillow==13.0.0",
    "pydantic==2.14.3",
    "python-multipart==0.0.34",
    "uvicorn==0.54.0",
    "uvloop==0.23.0",
]
APT_PACKAGES: Final[list[str]] = ["git", "wget", "curl"]

COMFYUI_VERSION: Final = "0.3.71"
COMFYUI_COMMIT: Final = "c55fd7481626d8bee8044ea7512ea996d13a1b90"
COMFYUI_DIRECTORY: Final = "/root/comfy/ComfyUI"
COMFYUI_PORT: Final = 8000
COMFYUI_FLAGS: Final[list[str]] = ["--disable-metadata"]

# Modal's names; prices are in utils/cost_tracker.py.
GPU: Final = "L40S"
GPUS: Final[list[str]] = ["L40S"]
# GiB, and cores; None leaves it to Modal.
MEMORY_GB: Final[int | None] = None
CPU_CORES: Final[float | None] = None

VOLUMES: Final[dict[str, str]] = {"ryla-models": "/root/models", "hf-hub-cache": "/cache"}
SECRETS: Final[dict[str, list[str]]] = {"huggingface": ["HF_TOKEN"], "api-keys": ["API_KEYS"]}

# Seconds.
TIMEOUT: Final = 1800
STARTUP_TIMEOUT: Final = 600
SCALEDOWN_WINDOW: Final = 300
DEADLINE: Final = 120

MIN_CONTAINERS: Final = 0
MAX_CONTAINERS: Final = 1
BUFFER_CONTAINERS: Final = 0
MAX_INPUTS: Final = 5
TARGET_INPUTS: Final = 1
SNAPSHOT: Final = False
GATEWAY_MAX_CONTAINERS: Final = 4

AUTH: Final = "api-key"
CORS_ORIGINS: Final[list[str]] = []
MAX_BODY_BYTES: Final = 64000000
MAX_MEDIA_PIXELS: Final = 50000000

# Model files by name, below MODELS_DIRECTORY.
MODELS_DIRECTORY: Final = f"{COMFYUI_DIRECTORY}/models"
MODEL_PATHS: Final[dict[str, str]] = {
    "antelopev2-1k3d68": "insightface/models/antelopev2/1k3d68.onnx",
    "antelopev2-2d106det": "insightface/models/antelopev2/2d106det.onnx",
    "antelopev2-genderage": "insightface/models/antelopev2/genderage.onnx",
    "antelopev2-glintr100": "insightface/models/antelopev2/glintr100.onnx",
    "antelopev2-scrfd": "insightface/models/antelopev2/scrfd_10g_bnkps.onnx",
    "clip-l": "text_encoders/clip_l.safetensors",
    "flux-vae": "vae/ae.safetensors",
    "flux1-dev": "diffusion_models/flux1-dev.safetensors",
    "flux1-schnell": "checkpoints/flux1-schnell-fp8.safetensors",
    "instantid-controlnet": "controlnet/instantid-controlnet.safetensors",
    "instantid-ip-adapter": "instantid/ip-adapter.bin",
    "sdxl-base": "checkpoints/sd_xl_base_1.0.safetensors",
    "seedvr2-7b": "SEEDVR2/seedvr2_ema_7b_fp16.safetensors",
    "seedvr2-vae": "SEEDVR2/ema_vae_fp16.safetensors",
    "t5xxl": "text_encoders/t5xxl_fp16.safetensors",
    "umt5-xxl": "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "wan2.1-t2v-1.3b": "diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors",
    "wan2.1-vae": "vae/wan_2.1_vae.safetensors",
}
# Custom-node packs in use, with their commits.
PACKS: Final[dict[str, str]] = {
    "ComfyUI-SeedVR2_VideoUpscaler": "4490bd1f482e026674543386bb2a4d176da245b9",
    "ComfyUI_InstantID": "1ef34ef573581bd9727c1e0ac05aa956b356a510",
}
