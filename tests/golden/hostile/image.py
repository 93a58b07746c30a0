"""What is installed in the app's images, from what seldom changes to what often does.

Modal builds a layer again when its commands change, and with it all layers after it. So everything
that a layer depends on stands in its commands, and what changes most comes last. Every command is a
step of its own: the first that fails fails the build.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

import modal

from . import config

HERE = Path(__file__).parent
COMFYUI = config.COMFYUI_DIRECTORY
TOOLS = "/opt/image_build"
CONSTRAINTS = "/opt/constraints.txt"

REQUIREMENTS: list[str] = [
    "aiohttp==3.14.5",
    "av==18.1.0",
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


def comfyui(git: str, version: str, commit: str) -> list[str]:
    """Install a version of ComfyUI and what it requires, and see that it is the right commit."""
    return [
        # Its pip and uv take no other versions than these.
        f"PIP_CONSTRAINT={CONSTRAINTS} UV_CONSTRAINT={CONSTRAINTS}"
        f" comfy --skip-prompt --workspace={COMFYUI} install --skip-manager --nvidia"
        f" --url={git}@v{version}",
        f'test "$(git -C {COMFYUI} rev-parse HEAD)" = {commit}',
    ]


def pack(name: str, git: str, commit: str) -> str:
    """Check a custom-node pack out at its commit."""
    folder = shlex.quote(f"{COMFYUI}/custom_nodes/{name}")
    return " && ".join(
        (
            f"git clone --quiet {shlex.quote(git)} {folder}",
            f"git -C {folder} -c advice.detachedHead=false checkout --quiet {commit}",
            f"git -C {folder} submodule --quiet update --init --recursive",
            f'test "$(git -C {folder} rev-parse HEAD)" = {commit}',
        )
    )


def requirements(wanted: Sequence[str]) -> str:
    """Install what ComfyUI, the packs and the app ask for, in one resolution."""
    return f"python {TOOLS}/requirements.py {COMFYUI} {shlex.join(wanted)}"


def has_classes(wanted: Sequence[str]) -> str:
    """Start ComfyUI on the CPU, and fail unless it has these node classes."""
    return f"python {TOOLS}/classes.py {COMFYUI} {shlex.join(wanted)}"


def with_app(image: modal.Image) -> modal.Image:
    """Add this package, code and data; containers get it when they start, so no layer changes."""
    return image.add_local_dir(HERE, f"/root/{HERE.name}", ignore=["**/__pycache__"])


base = modal.Image.debian_slim(python_version=config.PYTHON_VERSION).apt_install(*["git"])

# The gateway answers HTTP, and the download function fills the Volume: neither needs ComfyUI.
gateway_image = with_app(base.uv_pip_install(*REQUIREMENTS, uv_version="0.13.9"))

# ComfyUI depends on nothing that packs or the app ask for: constraints.txt has the versions of what
# it asks for itself. Where they ask for others, the layer of requirements below installs these.
engine_image = (
    base.uv_pip_install("comfy-cli==1.5.3", uv_version="0.13.9")
    .add_local_file(HERE / "constraints.txt", CONSTRAINTS, copy=True)
    .run_commands(
        *comfyui(
            "https://github.com/comfyanonymous/ComfyUI.git",
            config.COMFYUI_VERSION,
            config.COMFYUI_COMMIT,
        )
    )
    .add_local_dir(HERE / "image_build", TOOLS, copy=True, ignore=["**/__pycache__"])
)

worker_image = with_app(
    engine_image.run_commands(
        pack(
            "rgthree-comfy",
            "https://github.com/rgthree/rgthree-comfy",
            "42e73c3c48e8268129a6a1ea6d9766913bfc5435",
        )
    )
    .run_commands(requirements([*REQUIREMENTS, *[]]))
    .run_commands(
        has_classes(
            [
                "Any Switch (rgthree)",
                "EmptyImage",
                "ImageInvert",
                "LoadImage",
                "PreviewAny",
                "PreviewImage",
            ]
        )
    )
)
