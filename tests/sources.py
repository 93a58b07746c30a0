"""Where a lock comes from, on this machine: git repositories, and wheels for uv."""

import os
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

GITHUB = "https://github.com/"


class Sources:
    """Repositories that git finds for addresses of GitHub, and an index that uv finds."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.repositories = folder / "git"
        self.wheels = folder / "wheels"
        self.wheels.mkdir(parents=True)
        settings = {
            f"url.{self.repositories.as_uri()}/.insteadOf": GITHUB,
            "user.name": "Somebody",
            "user.email": "somebody@example.com",
        }
        for number, (key, value) in enumerate(settings.items()):
            monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
            monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
        monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(settings)))
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        monkeypatch.setenv("UV_OFFLINE", "1")
        monkeypatch.setenv("UV_FIND_LINKS", str(self.wheels))
        monkeypatch.setenv("UV_CACHE_DIR", str(folder / "uv"))

    def commit(self, name: str, **files: str) -> str:
        """Commit files to a repository, requirements_txt standing for requirements.txt."""
        folder = self.repositories / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file.replace("_", ".")).write_text(text, "utf-8")
        _git(folder, "init", "--quiet")
        _git(folder, "add", "--all")
        _git(folder, "commit", "--quiet", "--allow-empty", "--message=x")
        return _git(folder, "rev-parse", "HEAD").strip()

    def wheel(self, name: str, version: str, requires: Sequence[str] = ()) -> None:
        """Add a version of a package to the index."""
        file = name.replace("-", "_")
        with zipfile.ZipFile(self.wheels / f"{file}-{version}-py3-none-any.whl", "w") as wheel:
            folder = f"{file}-{version}.dist-info"
            needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
            about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
            wheel.writestr(f"{folder}/METADATA", about)
            kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            wheel.writestr(f"{folder}/WHEEL", kind)
            wheel.writestr(f"{folder}/RECORD", "")


def _git(folder: Path, *arguments: str) -> str:
    run = subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return run.stdout
