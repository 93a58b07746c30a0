"""Installs what ComfyUI, the packs and the app ask for, in one resolution.

    python requirements.py COMFYUI_DIRECTORY [REQUIREMENT ...]

Packs that ask for what excludes each other fail the build, with who asks for what. Some packages
are different builds of one library and write the same files: whichever is installed last breaks the
other. Of those, one is installed, in place of all.
"""

import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

REQUIREMENTS: Final = "requirements.txt"

# Builds of one library; the first that anybody asks for takes the place of the others.
_SAME: Final[tuple[tuple[str, ...], ...]] = (
    (
        "opencv-contrib-python-headless",
        "opencv-contrib-python",
        "opencv-python-headless",
        "opencv-python",
    ),
    ("onnxruntime-gpu", "onnxruntime"),
)
# A container has no display, so its opencv needs no windows.
_BETTER: Final[Mapping[str, str]] = {
    "opencv-contrib-python": "opencv-contrib-python-headless",
    "opencv-python": "opencv-python-headless",
}
# What packs disagree on most; named when there is no solution.
_SUSPECTS: Final = ("numpy", "torch", "transformers", "huggingface-hub", "protobuf", "pillow")
_NAME: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
# https://pip.pypa.io/en/stable/reference/requirements-file-format/
_NAMED_FILE: Final = re.compile(
    r"(-r|--requirement(?=[\s=])|(?P<constraint>-c|--constraint(?=[\s=])))\s*=?\s*(?P<name>.+)"
)
_SPECIFIER: Final = re.compile(r"[<>=!~][^;#@\s][^;#]*")

Asked = Mapping[str, Sequence[str]]
"""Who asks (a pack, `ComfyUI`, `gpu.yaml and models.yaml`), and the lines that say for what."""


def read_asked(directory: Path, requirements: Sequence[str]) -> dict[str, list[str]]:
    """Return what ComfyUI and the packs below it ask for, and what else is wanted."""
    asked = {"ComfyUI": _wanted_in(directory)}
    for path in sorted((directory / "custom_nodes").glob("*/requirements.txt")):
        asked[path.parent.name] = _wanted_in(path.parent)
    asked["gpu.yaml and models.yaml"] = list(requirements)
    return asked


def chosen(asked: Asked) -> dict[str, str]:
    """Return which package takes the place of which, for those that somebody asks for."""
    names = {name_of(line) for lines in asked.values() for line in lines}
    found: dict[str, str] = {}
    for group in _SAME:
        wanted = [name for name in group if name in names]
        if wanted:
            one = _BETTER.get(wanted[0], wanted[0])
            found |= {name: one for name in group if name != one}
    return found


def overrides(asked: Asked) -> list[str]:
    """Return the lines of uv's overrides: a package that another replaces is never installed."""
    return [f"{name} ; sys_platform == 'never'" for name in sorted(chosen(asked))]


def replacements(asked: Asked) -> list[str]:
    """Return the requirements that stand for those that are replaced, with all their bounds."""
    bounds: dict[str, list[str]] = {}
    place = chosen(asked)
    for line in _all(asked):
        name = name_of(line)
        one = place.get(name, name)
        if one in place.values():
            found = _SPECIFIER.search(line)
            bounds.setdefault(one, []).extend([found[0].strip()] if found else [])
    return [name + ",".join(dict.fromkeys(b)) for name, b in sorted(bounds.items())]


def clashes(asked: Asked) -> list[str]:
    """Return which packages are builds of one library and asked for by different names."""
    place = chosen(asked)
    found: list[str] = []
    for one in sorted(set(place.values())):
        who = _who(asked, {one, *(name for name, other in place.items() if other == one)})
        if len({name for name, _ in who}) > 1:
            said = ", ".join(f"{name} ({asker})" for name, asker in who)
            found.append(f"{said}: builds of one library; {one} is installed for all of them")
    return found


def suspects(asked: Asked) -> list[str]:
    """Return who asks for which versions of the packages that packs disagree on most."""
    found: list[str] = []
    for name in _SUSPECTS:
        lines = [
            f"{asker}: {line}"
            for asker, lines in asked.items()
            for line in lines
            if name_of(line) == name
        ]
        found += lines if len(lines) > 1 else []
    return found


def name_of(line: str) -> str:
    """Return the normal name of the package that a line asks for; empty where it names none."""
    match = _NAME.match(line)
    return re.sub(r"[-_.]+", "-", match[1]).lower() if match else ""


def lines_of(text: str) -> list[str]:
    """Return the requirements in the text of a file, without comments and options."""
    return [line for line in _lines(text) if not line.startswith("-")]


def read_files(read: Callable[[str], str]) -> tuple[list[str], list[str]]:
    """Return the lines of requirements.txt and of the files that it names, and of constraints.

    `read` returns the text of a file by its path, from where requirements.txt is. Options stay.
    """
    # A file may be named both ways.
    seen: set[tuple[str, bool]] = set()
    wanted: list[str] = []
    constraints: list[str] = []

    def add(path: str, found: list[str]) -> None:
        key = (path, found is constraints)
        if key in seen:
            return
        seen.add(key)
        for line in _lines(read(path)):
            match = _NAMED_FILE.fullmatch(line)
            if match is None:
                found.append(line)
                continue
            name = match["name"].strip("\"'")
            if "://" not in name:
                name = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
            add(name, constraints if match["constraint"] else found)

    add(REQUIREMENTS, wanted)
    return wanted, constraints


def main(arguments: Sequence[str]) -> int:
    """Install, and return uv's exit status."""
    directory, requirements = Path(arguments[0]), arguments[1:]
    asked = read_asked(directory, requirements)
    for clash in clashes(asked):
        sys.stdout.write(f"note: {clash}\n")
    uv = shutil.which("uv")
    if uv is None:
        sys.stderr.write("error: uv is not installed; comfy-cli brings it\n")
        return 1
    with TemporaryDirectory() as folder:
        path = Path(folder) / "overrides.txt"
        path.write_text("".join(f"{line}\n" for line in overrides(asked)), encoding="utf-8")
        # Files, not their lines: they may name other files, relative to themselves.
        files = [directory / "requirements.txt", *directory.glob("custom_nodes/*/requirements.txt")]
        command = [
            *(uv, "pip", "install", "--system", "--overrides", str(path)),
            *(f"--requirements={file}" for file in sorted(files)),
            *requirements,
            *replacements(asked),
        ]
        status = subprocess.run(command, check=False).returncode
    if status:
        sys.stderr.write("error: no installation has all that is asked for\n")
        sys.stderr.writelines(f"  {line}\n" for line in suspects(asked))
    return status


def _wanted_in(folder: Path) -> list[str]:
    """Return the requirements of a folder; what cannot be read, uv says of it."""

    def read(name: str) -> str:
        path = folder / name
        return path.read_text("utf-8-sig", "replace") if path.is_file() else ""

    wanted, _ = read_files(read)
    return lines_of("\n".join(wanted))


def _lines(text: str) -> list[str]:
    """Return the lines that say something, without comments; a backslash goes on with the next."""
    joined = text.removeprefix("\ufeff").replace("\\\r\n", " ").replace("\\\n", " ")
    lines = (line.partition(" #")[0].strip() for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _all(asked: Asked) -> Iterable[str]:
    return (line for lines in asked.values() for line in lines)


def _who(asked: Asked, names: set[str]) -> list[tuple[str, str]]:
    pairs = (
        (name_of(line), asker)
        for asker, lines in asked.items()
        for line in lines
        if name_of(line) in names
    )
    return list(dict.fromkeys(pairs))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
