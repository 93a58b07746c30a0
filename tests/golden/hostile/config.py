"""Values of the app, from gpu.yaml and models.yaml.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

from typing import Final

APP_NAME: Final = "hostile.app_1"
PYTHON_VERSION: Final = "3.12"
REQUIREMENTS: Final[list[str]] = []
APT_PACKAGES: Final[list[str]] = []

COMFYUI_VERSION: Final = "0.3.71"
COMFYUI_COMMIT: Final = "c55fd7481626d8bee8044ea7512ea996d13a1b90"
COMFYUI_DIRECTORY: Final = "/root/comfy/ComfyUI"
COMFYUI_PORT: Final = 8000
COMFYUI_FLAGS: Final[list[str]] = ["--extra={{ flag }}\"'\\"]

# Modal's names; prices are in utils/cost_tracker.py.
GPU: Final = "L4"
GPUS: Final[list[str]] = ["L4", "A100-80GB"]
# GiB, and cores; None leaves it to Modal.
MEMORY_GB: Final[int | None] = 16
CPU_CORES: Final[float | None] = 2.5

VOLUMES: Final[dict[str, str]] = {"models": "/models"}
SECRETS: Final[dict[str, list[str]]] = {"api-keys": ["API_KEYS"]}

# Seconds.
TIMEOUT: Final = 1800
STARTUP_TIMEOUT: Final = 600
SCALEDOWN_WINDOW: Final = 300
DEADLINE: Final = 120

MIN_CONTAINERS: Final = 1
MAX_CONTAINERS: Final = 3
BUFFER_CONTAINERS: Final = 0
MAX_INPUTS: Final = 5
TARGET_INPUTS: Final = 1
SNAPSHOT: Final = True
GATEWAY_MAX_CONTAINERS: Final = 4

AUTH: Final = "none"
CORS_ORIGINS: Final[list[str]] = ["https://app.example.com"]
MAX_BODY_BYTES: Final = 5000000
MAX_MEDIA_PIXELS: Final = 50000000

# Model files by name, below MODELS_DIRECTORY.
MODELS_DIRECTORY: Final = f"{COMFYUI_DIRECTORY}/models"
MODEL_PATHS: Final[dict[str, str]] = {"b": "loras/sub/b.safetensors"}
# Custom-node packs in use, with their commits.
PACKS: Final[dict[str, str]] = {"rgthree-comfy": "42e73c3c48e8268129a6a1ea6d9766913bfc5435"}
