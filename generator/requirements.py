"""The Python packages of an image, resolved in one go by `uv pip compile`.

What asks for packages is the app (gpu.yaml), ComfyUI at its commit, and the custom-node packs: what
models.yaml says of them, and the requirements.txt in their repositories.
"""

import os
import re
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from uv import find_uv_bin

from templates.image_build.requirements import (
    REQUIREMENTS,
    lines_of,
    overrides,
    read_files,
    replacements,
    suspects,
)

COMFYUI_GIT: Final = "https://github.com/comfyanonymous/ComfyUI"

_SECONDS: Final = 900
_ITS: Final = f"its {REQUIREMENTS}"
_INSTEAD: Final = "a fork of it can ask for packages instead"
# What is installed from there is not what the lock would name.
_ON_DISK: Final = re.compile(r"-e\b|--editable\b|[./~]|[^#;]*\bfile:")


class RequirementsError(RuntimeError):
    """The packages cannot be resolved; the text says why."""


class Requirements(NamedTuple):
    """Texts of requirements, and of constraints: bounds for what others ask for."""

    wanted: str = ""
    constraints: str = ""


def requirements_at(git: str, commit: str) -> Requirements:
    """Return what the requirements.txt of a repository asks for at a commit, and what it names.

    Raises:
        RequirementsError: when there is no such repository or commit, or a lock cannot hold that.
    """
    with TemporaryDirectory(prefix="lock-") as folder:
        run = _Git(Path(folder))
        run("init", "--quiet")
        run("remote", "add", "origin", git)
        fetched = ("fetch", "--quiet", "--depth=1", "--filter=blob:none", "origin", commit)
        try:
            run(*fetched)
        except RequirementsError as error:
            if "not our ref" in str(error):
                raise RequirementsError(f"{git} has no commit {commit}") from error
            raise RequirementsError(f"{git} cannot be read: {error}") from error

        def is_there(path: str) -> bool:
            return bool(run("ls-tree", "--name-only", commit, path).strip())

        def read(path: str) -> str:
            if "://" in path or path.startswith(("/", "..")):
                raise RequirementsError(f"{_ITS} names {path}, which is not in the repository")
            if not is_there(path):
                raise RequirementsError(f"{_ITS} names {path}, which is not there")
            text = run("show", f"{commit}:{path}")
            if any("\udc80" <= character <= "\udcff" for character in text):
                raise RequirementsError(f"its {path} is no UTF-8")
            return text

        if not is_there(REQUIREMENTS):
            return Requirements()
        try:
            wanted, constraints = read_files(read)
            for line in wanted:
                if _ON_DISK.match(line):
                    raise RequirementsError(f"{_ITS} asks for {line}, a folder or file")
        except RequirementsError as error:
            raise RequirementsError(f"{git}: {error}; {_INSTEAD}") from error
        return Requirements("\n".join(wanted), "\n".join(constraints))


def compiled(
    wanted: Mapping[str, Requirements],
    python: str,
    locked: Sequence[str],
    update: Collection[str],
    cwd: Path,
) -> tuple[str, ...]:
    """Return all packages that an image needs, each at one version, sorted.

    `wanted` are requirements by whose they are. What `locked` says is kept where it fits,
    but for the packages in `update`. Of packages that are builds of one library, the one is taken
    that the image takes.

    Raises:
        RequirementsError: when no versions fit together.
    """
    asked = {owner: lines_of(one.wanted) for owner, one in wanted.items()}
    with TemporaryDirectory(prefix="lock-") as name:
        folder = Path(name)
        texts = [*(one.wanted for one in wanted.values()), "\n".join(replacements(asked))]
        inputs = [folder / f"{number}.in" for number in range(len(texts))]
        for path, text in zip(inputs, texts, strict=True):
            path.write_text(f"{text}\n", "utf-8")
        (folder / "overrides").write_text("\n".join(overrides(asked)), "utf-8")
        constraints = "\n".join(one.constraints for one in wanted.values())
        (folder / "constraints").write_text(constraints, "utf-8")
        output = folder / "requirements.txt"
        output.write_text("".join(f"{line}\n" for line in locked), "utf-8")
        command = [
            *(find_uv_bin(), "pip", "compile", "--quiet", "--no-progress", "--color=never"),
            *("--no-header", "--no-annotate", "--python-platform=linux"),
            *(f"--python-version={python}", f"--overrides={folder / 'overrides'}"),
            f"--constraints={folder / 'constraints'}",
            *(f"--upgrade-package={package}" for package in update),
            *(f"--output-file={output}", *map(str, inputs)),
        ]
        try:
            _run(command, cwd, os.environ)
        except RequirementsError as error:
            who = "; ".join(suspects(asked))
            raise RequirementsError(f"{error}; who asks: {who}" if who else f"{error}") from error
        return tuple(sorted(lines_of(output.read_text("utf-8"))))


class _Git:
    """Runs git in a folder; it asks nobody for a password."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._env = os.environ | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}

    def __call__(self, *arguments: str) -> str:
        return _run(["git", *arguments], self._folder, self._env)


def _run(command: list[str], cwd: Path, env: Mapping[str, str]) -> str:
    """Run a command and return what it prints; what it says goes into the error."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise RequirementsError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise RequirementsError(f"{command[0]} is not done after {_SECONDS} seconds") from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"it ended with status {done.returncode}"
        raise RequirementsError(said)
    return done.stdout
