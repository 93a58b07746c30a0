"""What tests install once: in a folder that is named after what is in it, and whole or not there.

`ENGINE_CACHE` says where these folders are; by default it is ~/.cache.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp


def folder_for(name: str, content: str) -> Path:
    """Return the folder of a name for some content, as this Python installs it."""
    text = f"{content}\n{sys.version.split()[0]}"
    cache = os.environ.get("ENGINE_CACHE")
    root = Path(cache) if cache else Path.home() / ".cache" / "comfyui-modal-generator"
    return root.resolve() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def installed(target: Path, fill: Callable[[Path], None]) -> Path:
    """Let a folder be filled that isn't there yet, and return it."""
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fill(stage)
        try:
            stage.rename(target)
        except OSError:
            # Somebody else was faster, with the same content.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return target


def new_environment(stage: Path) -> list[str]:
    """Make an environment of Python in a folder, venv, and return the command that installs there.

    Raises:
        subprocess.CalledProcessError: when that fails.
    """
    uv = shutil.which("uv")
    if uv:
        call(uv, "venv", "--quiet", "--python", sys.executable, str(stage / "venv"))
        return [uv, "pip", "install", "--quiet", "--python", str(python(stage))]
    call(sys.executable, "-m", "venv", str(stage / "venv"))
    pip = [str(python(stage)), "-m", "pip", "install", "--quiet"]
    return [*pip, "--disable-pip-version-check"]


def python(folder: Path) -> Path:
    """Return the interpreter of the environment in a folder."""
    return folder / "venv" / "bin" / "python"


def call(*command: str) -> None:
    """Run a command; what it prints goes to stderr.

    Raises:
        subprocess.CalledProcessError: when it fails.
    """
    subprocess.run(command, check=True, stdout=sys.stderr)
