"""What gpu.yaml installs: all that the app and its images cannot do without."""

from typing import Final

from templates.image_build.requirements import name_of

from ..diagnostics import Diagnostic
from ..schema import schema
from ..spec import Settings

# It installs ComfyUI in the workers' image; the gateway has none.
COMFY_CLI: Final = "comfy-cli"

# What of the app needs each package, and each program of apt.
PACKAGES: Final = {
    "aiohttp": "it talks to ComfyUI",
    "av": "it reads and writes videos and sounds",
    COMFY_CLI: "it installs ComfyUI",
    "fastapi": "it is the API",
    "fastapi-offline": "it is the page /docs",
    "httptools": "make serve",
    "httpx": "it downloads models",
    "huggingface-hub": "it downloads models",
    "pillow": "it reads and writes pictures",
    "pydantic": "it checks requests",
    "python-multipart": "it reads forms",
    "uvicorn": "make serve",
    "uvloop": "make serve",
}
_PROGRAMS: Final = {"git": "it fetches ComfyUI and packs"}


def check_image(settings: Settings) -> list[Diagnostic]:
    """Return what lists of gpu.yaml lack; where a list is left out, its default has everything."""
    faults: list[Diagnostic] = []
    written = {name_of(line) for line in settings.requirements}
    for key, there, needed in (
        ("requirements", written, PACKAGES),
        ("apt", set(settings.apt), _PROGRAMS),
    ):
        missing = [name for name in needed if name not in there]
        if missing and key in settings.at.mapping:
            said = ", ".join(f"{name} ({needed[name]})" for name in missing)
            default = schema("gpu")["properties"][key]["default"]
            lines = [line for line in default if name_of(line) in missing]
            message = f"{key} lacks what the app needs: {said}"
            hint = f"add {', '.join(lines)}"
            at = settings.at.mapping[key]
            faults.append(at.error("missing-requirement", message, hint=hint))
    return faults
