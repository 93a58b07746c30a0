"""The model files of a worker: declared ones are linked, uploaded ones follow their Volume.

A mount shows a Volume as it was when the container started, so the Volume itself is asked what it
has now. A file that was uploaded since is fetched. One that was replaced is fetched under a name of
that version, and graphs are sent with that name: ComfyUI keeps by name what it has loaded, and runs
in flight may read the file that was there before.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

from .graph.catalog import Catalog, ClassType, is_listed_name
from .utils.comfyui_records import Graph
from .utils.downloads import ModelFile, Places, link

# Size in bytes, and time of change in seconds since the epoch.
Version = tuple[int, float]

# How much older than this container a file must be to be surely the one that its mount shows.
_MARGIN_SECONDS: Final = 300.0


class Uploads(Protocol):
    """The Volumes of uploaded model files, asked themselves."""

    async def files(self) -> Mapping[str, Version]:
        """Return all files by their paths, such as loras/style.safetensors."""

    async def fetch(self, path: str, target: Path) -> None:
        """Copy a file to `target`, which appears when it is complete."""


@dataclass(frozen=True, slots=True)
class _Named:
    """A model file as a graph names it; `folders` are those that may hold it, None for any."""

    name: str
    folders: tuple[str, ...] | None


class WorkerModels:
    """The model files below `folder`, which is ComfyUI's models folder.

    `models` are the declared ones. `catalog` says which folders the inputs of a class read.
    """

    def __init__(
        self,
        folder: Path,
        models: Sequence[ModelFile],
        places: Places,
        *,
        uploads: Uploads | None = None,
        catalog: Catalog | None = None,
    ) -> None:
        self._folder = folder
        self._models = models
        self._declared = frozenset(model.path for model in models)
        self._places = places
        self._uploads = uploads
        self._catalog = catalog
        self._started = time.time()
        self._mounted: dict[str, Version] = {}
        self._fetched: dict[str, Version] = {}
        self._lock = asyncio.Lock()

    def link(self) -> list[str]:
        """Link the files that there are; return why declared ones are not linked, sorted.

        An uploaded file gives way to a declared one, and to one that ComfyUI comes with.
        """
        reasons = link(self._models, self._places, self._folder)
        for volume in self._places.volumes.values():
            for file in sorted(volume.rglob("*")):
                path = file.relative_to(volume).as_posix()
                target = self._folder / path
                if file.is_file() and not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.unlink(missing_ok=True)
                    target.symlink_to(file)
                    found = file.stat()
                    self._mounted[path] = found.st_size, found.st_mtime
        return reasons

    async def placed(self, graph: Graph) -> Graph:
        """Return a graph whose uploaded files are here as they are on their Volume now.

        Raises:
            BackendUnavailableError: when the Volume cannot be asked.
            OSError: when a file cannot be written.
        """
        named: set[_Named] = set()

        def note(one: _Named) -> str:
            if not self._is_declared(one):
                named.add(one)
            return one.name

        _with_names(graph, self._catalog, note)
        if self._uploads is None or not named:
            return graph
        files = await self._uploads.files()
        async with self._lock:
            names = {one: await self._place(one, files, self._uploads) for one in named}
        return _with_names(graph, self._catalog, lambda one: names.get(one, one.name))

    def _is_declared(self, one: _Named) -> bool:
        if one.folders is None:
            return any(path.partition("/")[2] == one.name for path in self._declared)
        return any(f"{folder}/{one.name}" in self._declared for folder in one.folders)

    async def _place(self, one: _Named, files: Mapping[str, Version], uploads: Uploads) -> str:
        """Bring a file up to date in all its folders, and return the name that it has there now."""
        versions = {
            path: version
            for path, version in sorted(files.items())
            if path.partition("/")[2] == one.name
            if one.folders is None or path.partition("/")[0] in one.folders
            if self._is_ours(path)
        }
        for path, version in versions.items():
            if not (self._folder / path).exists():
                await self._fetch(path, path, version, uploads)
        if all(self._is_current(path, version) for path, version in versions.items()):
            return one.name
        name = _versioned(one.name, versions)
        for path, version in versions.items():
            new = f"{path.partition('/')[0]}/{name}"
            if not (self._folder / new).exists():
                await self._fetch(path, new, version, uploads)
        return name

    async def _fetch(self, path: str, new: str, version: Version, uploads: Uploads) -> None:
        target = self._folder / new
        target.parent.mkdir(parents=True, exist_ok=True)
        await uploads.fetch(path, target)
        self._fetched[new] = version

    def _is_ours(self, path: str) -> bool:
        """Say whether a file may be placed: no other one is there."""
        return path in self._mounted or path in self._fetched or not (self._folder / path).exists()

    def _is_current(self, path: str, version: Version) -> bool:
        """Say whether the file that is here is the one on the Volume."""
        if path in self._fetched:
            return self._fetched[path] == version
        size, changed = version
        shown_size, shown = self._mounted.get(path, (-1, 0.0))
        # A Volume tells whole seconds, and a mount may have times of its own.
        is_old = changed < self._started - _MARGIN_SECONDS
        return size == shown_size and (is_old or int(changed) == int(shown))


def _versioned(name: str, versions: Mapping[str, Version]) -> str:
    path = PurePosixPath(name)
    tag = hashlib.sha256(repr(sorted(versions.items())).encode()).hexdigest()[:12]
    return path.with_name(f"{path.stem}.{tag}{path.suffix}").as_posix()


def _with_names(graph: Graph, catalog: Catalog | None, name: Callable[[_Named], str]) -> Graph:
    """Return a graph with other names of the model files that it names."""
    packs = catalog.packs if catalog else ()
    made: dict[str, Any] = {}
    for node, content in graph.items():
        found = catalog.get(content["class_type"], packs) if catalog else []
        class_type = found[0] if len(found) == 1 else None
        inputs = {
            key: _renamed(value, _folders(class_type, key, value), name)
            for key, value in content["inputs"].items()
        }
        made[node] = {**content, "inputs": inputs}
    return made


def _folders(class_type: ClassType | None, key: str, value: object) -> tuple[str, ...] | None:
    """Return the model folders that an input reads, None where that is not known."""
    taken = class_type.file_input(key, value) if class_type else None
    return taken[0].folders or None if taken else None


def _renamed(value: Any, folders: tuple[str, ...] | None, name: Callable[[_Named], str]) -> Any:
    """Return an input's value with other names; some classes take mappings and lists of them."""
    if isinstance(value, str):
        return name(_Named(value, folders)) if is_listed_name(value) else value
    if isinstance(value, dict):
        return {key: _renamed(item, folders, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, folders, name) for item in value]
    return value
