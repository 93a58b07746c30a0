"""What graphs need of an engine, and what of it a running one lacks."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from .comfyui import Engine

_MOST_NAMED: Final = 10
# The extensions that every ComfyUI lists; others are read by packs that list them themselves.
_LISTED: Final = frozenset((".bin", ".ckpt", ".pkl", ".pt", ".pt2", ".pth", ".safetensors", ".sft"))


@dataclass(frozen=True, slots=True)
class Needs:
    """Node classes, and model files by their path below ComfyUI's models folder."""

    classes: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.classes or self.models)

    def __add__(self, other: "Needs") -> "Needs":
        return Needs(self.classes | other.classes, self.models | other.models)

    def __and__(self, other: "Needs") -> "Needs":
        return Needs(self.classes & other.classes, self.models & other.models)

    def __str__(self) -> str:
        parts: list[str] = []
        if self.classes:
            parts.append(f"node class {listed(self.classes)}")
        if self.models:
            parts.append(f"model file {listed(self.models)}")
        return "; ".join(parts)


async def lacking(engine: Engine, needs: Needs) -> Needs:
    """Return what of the needs an engine does not have.

    A file counts as there when its folder or extension is one that packs read by themselves.

    Raises:
        EngineError: when the engine does not answer.
    """
    known = await engine.classes()
    folders = {path.partition("/")[0] for path in needs.models}
    files: dict[str, Collection[str] | None] = {}
    for folder in sorted(folders):
        try:
            files[folder] = await engine.models(folder)
        except LookupError:
            files[folder] = None
    return Needs(
        needs.classes - known.keys(),
        frozenset(path for path in needs.models if not _is_there(path, files)),
    )


def listed(names: Collection[str]) -> str:
    """Return names in order, the first of them where they are many."""
    more = len(names) - _MOST_NAMED
    return ", ".join(sorted(names)[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_there(path: str, files: dict[str, Collection[str] | None]) -> bool:
    folder, _, name = path.partition("/")
    found = files[folder]
    return found is None or name in found or PurePosixPath(name).suffix.lower() not in _LISTED
