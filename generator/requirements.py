"""The Python packages of an image, resolved in one go by `uv pip compile`.

What asks for packages is the app (gpu.yaml), ComfyUI at its commit, and the custom-node packs: what
models.yaml says of them, and the requirements.txt in their repositories.
"""

import os
import re
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from uv import find_uv_bin

COMFYUI_GIT: Final = "https://github.com/comfyanonymous/ComfyUI"

_SECONDS: Final = 900
_NAME: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)")
_SEPARATORS: Final = re.compile(r"[-_.]+")
# Packages that overwrite each other's files: the one that was installed last is imported.
_VARIANTS: Final = (
    frozenset(("onnxruntime", "onnxruntime-gpu")),
    frozenset(
        (
            "opencv-contrib-python",
            "opencv-contrib-python-headless",
            "opencv-python",
            "opencv-python-headless",
        )
    ),
)
_NOWHERE: Final = 'sys_platform == "nowhere"'


class RequirementsError(RuntimeError):
    """The packages cannot be resolved; the text says why."""


def name_of(requirement: str) -> str:
    """Return the name of the package that a requirement is about, as indexes write it."""
    found = _NAME.match(requirement.strip())
    return _SEPARATORS.sub("-", found[1]).lower() if found else ""


def requirements_at(git: str, commit: str) -> str:
    """Return the requirements.txt of a repository at a commit, "" when it has none.

    Raises:
        RequirementsError: when there is no such repository or commit.
    """
    with TemporaryDirectory(prefix="lock-") as folder:
        run = _Git(Path(folder))
        run("init", "--quiet")
        run("remote", "add", "origin", git)
        fetched = ("fetch", "--quiet", "--depth=1", "--filter=blob:none", "origin", commit)
        try:
            run(*fetched)
        except RequirementsError as error:
            raise RequirementsError(f"{git} has no commit {commit}: {error}") from error
        if not run("ls-tree", "--name-only", commit, "requirements.txt").strip():
            return ""
        return run("show", f"{commit}:requirements.txt")


def compiled(
    wanted: Mapping[str, str],
    declared: Iterable[str],
    python: str,
    locked: Sequence[str],
    update: Collection[str],
    cwd: Path,
) -> tuple[str, ...]:
    """Return all packages that an image needs, each at one version, sorted.

    `wanted` are texts of requirements by whose they are. What `locked` says is kept where it fits,
    but for the packages in `update`. Of packages that overwrite each other, the one stays that is
    among `declared`.

    Raises:
        RequirementsError: when no versions fit together, or nobody says which package stays.
    """
    with TemporaryDirectory(prefix="lock-") as folder:
        run = _Compile(Path(folder), wanted, python, locked, update, cwd)
        found = run(())
        dropped = _dropped({name_of(line) for line in found}, {name_of(d) for d in declared})
        return run(dropped) if dropped else found


def _dropped(found: set[str], declared: set[str]) -> list[str]:
    """Return the packages that are to give way to others that take their place."""
    dropped: list[str] = []
    for variants in _VARIANTS:
        here = sorted(variants & found)
        if len(here) < 2:
            continue
        kept = sorted(variants & declared)
        if len(kept) != 1:
            said = f"and {' and '.join(kept)} are" if kept else "and none of them is"
            raise RequirementsError(
                f"{' and '.join(here)} overwrite each other, {said} declared: name the one that is "
                "to stay in requirements: of gpu.yaml or pip: of a pack"
            )
        dropped += [name for name in here if name not in kept]
    return dropped


class _Compile:
    """Runs `uv pip compile` in a folder."""

    def __init__(
        self,
        folder: Path,
        wanted: Mapping[str, str],
        python: str,
        locked: Sequence[str],
        update: Collection[str],
        cwd: Path,
    ) -> None:
        self._folder, self._python, self._update, self._cwd = folder, python, update, cwd
        self._inputs = [folder / f"{number}.in" for number in range(len(wanted))]
        for path, (owner, text) in zip(self._inputs, wanted.items(), strict=True):
            path.write_text(f"# {owner}\n{text}\n", encoding="utf-8")
        self._output = folder / "requirements.txt"
        self._output.write_text("".join(f"{line}\n" for line in locked), encoding="utf-8")

    def __call__(self, dropped: Collection[str]) -> tuple[str, ...]:
        overrides = self._folder / "overrides.txt"
        overrides.write_text("".join(f"{name} ; {_NOWHERE}\n" for name in dropped), "utf-8")
        command = [
            *(find_uv_bin(), "pip", "compile", "--quiet", "--no-progress", "--color=never"),
            *("--no-header", "--no-annotate", "--python-platform=linux"),
            *(f"--python-version={self._python}", f"--output-file={self._output}"),
            *(f"--override={overrides}" for _ in range(bool(dropped))),
            *(f"--upgrade-package={name}" for name in self._update),
            *map(str, self._inputs),
        ]
        _run(command, self._cwd, dict(os.environ))
        lines = self._output.read_text("utf-8").splitlines()
        return tuple(sorted(line for line in lines if line and not line.startswith("#")))


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
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise RequirementsError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise RequirementsError(f"{command[0]} is not done after {_SECONDS} seconds") from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"it ended with status {done.returncode}"
        raise RequirementsError(said)
    return done.stdout
