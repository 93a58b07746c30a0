"""Values of the app, from gpu.yaml and models.yaml.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

from typing import Final

APP_NAME: Final = "ryla-comfyui"
PYTHON_VERSION: Final = "3.11"

COMFYUI_VERSION: Final = "0.3.71"
COMFYUI_COMMIT: Final = "c55fd7481626d8bee8044ea7512ea996d13a1b90"
COMFYUI_DIRECTORY: Final = "/root/comfy/ComfyUI"
COMFYUI_PORT: Final = 8000
COMFYUI_FLAGS: Final[list[str]] = ["--preview-method=auto", "--disable-metadata"]

# Modal's names of the Dict of jobs, and of the Queue that tells what happens to them.
JOBS: Final = "ryla-comfyui-jobs"
EVENTS: Final = "ryla-comfyui-told"
# That of the Dict of counts behind GET /usage.
USAGE: Final = "ryla-comfyui-usage"
# Where Volumes are mounted: that of the models that are downloaded, and by their names those of the
# models that are uploaded.
CACHE: Final = "/cache"
UPLOADS: Final[dict[str, str]] = {"ryla-models": "/root/models"}

# Seconds.
STARTUP_TIMEOUT: Final = 600
SCALEDOWN_WINDOW: Final = 300
DEADLINE: Final = 120

MIN_CONTAINERS: Final = 0
MAX_CONTAINERS: Final = 1
BUFFER_CONTAINERS: Final = 0
MAX_INPUTS: Final = 5
TARGET_INPUTS: Final = 1
SNAPSHOT: Final = False
# Where they may run; None is anywhere.
REGIONS: Final[list[str] | None] = None
GATEWAY_MAX_CONTAINERS: Final = 4

AUTH: Final = "api-key"
CORS_ORIGINS: Final[list[str]] = []
# Names of keys that see the usage of all keys.
OPERATORS: Final[list[str]] = []
LOG_PROMPTS: Final = False
MAX_BODY_BYTES: Final = 64000000
MAX_MEDIA_PIXELS: Final = 50000000
MAX_TEXT_CHARACTERS: Final = 10000
# Of all frames of what one node makes.
MAX_OUTPUT_PIXELS: Final = 150000000
MAX_JOBS: Final = 200
# Of one key; 0 is no limit.
MAX_JOBS_PER_KEY: Final = 100
MAX_REQUESTS_PER_MINUTE: Final = 6000
MAX_LISTENERS_PER_KEY: Final = 50
