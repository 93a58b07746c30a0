"""The files of runs: outputs are read and deleted, inputs put in place and taken away again.

They are on disk where the engine runs on this machine (`LocalFiles`); else they go over HTTP and
stay where they are (`RemoteFiles`). `Inputs` shares the input files among runs.
"""

import asyncio
import hashlib
import logging
import shutil
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeAlias
from uuid import uuid4

import aiohttp
from yarl import URL

from .comfyui_errors import FULL_DISK, EngineDiskFull, EngineOutputError
from .comfyui_http import Http, parsed

_log = logging.getLogger(__name__)

# Outputs were written a moment ago, so they are in memory: reading that much takes less time than
# the way to a thread and back.
_FEW_FILES: Final = 16
_FEW_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Directories:
    """Where an engine on this machine keeps its files."""

    output: Path
    input: Path
    temp: Path

    @classmethod
    def below(cls, base: Path) -> Self:
        """Return ComfyUI's own layout below its base directory."""
        return cls(base / "output", base / "input", base / "temp")


def path_inside(root: Path, subfolder: str, filename: str) -> Path:
    """Return the path of a file that the engine names, links resolved; `root` has none.

    Raises:
        EngineOutputError: when it lies outside of `root`.
    """
    try:
        path = (root / subfolder / filename).resolve()
    except (ValueError, RuntimeError, OSError) as error:
        raise EngineOutputError(f"the engine names no path: {filename!r}") from error
    if path == root or not path.is_relative_to(root):
        raise EngineOutputError(f"the engine names a file outside {root.name}/: {filename!r}")
    return path


class LocalFiles:
    """The files of an engine on this machine."""

    def __init__(self, directories: Directories) -> None:
        self._directories = directories
        self._roots = {
            "output": directories.output.resolve(),
            "temp": directories.temp.resolve(),
            "input": directories.input.resolve(),
        }

    async def read(self, items: Sequence[dict[str, Any]]) -> list[bytes]:
        """Return the contents of output files that the engine names.

        Raises:
            EngineOutputError: when one is missing or lies outside the engine's folders.
        """
        paths = [*map(self._path, items)]
        if len(paths) <= _FEW_FILES and sum(map(_size, paths)) <= _FEW_BYTES:
            return [*map(_read, paths)]
        return await asyncio.to_thread(lambda: [*map(_read, paths)])

    async def clear(self, jobs: Collection[str]) -> None:
        """Delete the folders of jobs. A failure is logged: the outputs are good all the same."""
        await asyncio.to_thread(lambda: [*map(self._clear, jobs)])

    async def put(self, name: str, data: bytes) -> bool:
        """Write an input file, and say whether it was not there before.

        Raises:
            ValueError: when another file has that name.
            EngineDiskFull: when there is no room for it.
        """
        return await asyncio.to_thread(self._put, name, data)

    async def remove(self, name: str) -> None:
        """Delete an input file. A failure is logged."""
        path = self._directories.input / name
        try:
            await asyncio.to_thread(path.unlink)
        except OSError as error:
            _log.warning("input file %s is left behind: %s", path, error)

    def _path(self, item: dict[str, Any]) -> Path:
        root = self._roots.get(str(item.get("type") or "output"))
        if root is None:
            raise EngineOutputError(f"the engine names an unknown folder: {item.get('type')!r}")
        return path_inside(root, str(item.get("subfolder") or ""), item["filename"])

    def _clear(self, job: str) -> None:
        for root in (self._directories.output, self._directories.temp):
            try:
                _remove_folder(root / job)
            except FileNotFoundError:
                continue
            except OSError as error:
                _log.warning("%s is left behind: %s", root / job, error)

    def _put(self, name: str, data: bytes) -> bool:
        directory = self._directories.input
        path = directory / name
        if path.exists():
            if path.read_bytes() != data:
                raise _taken(name)
            return False
        directory.mkdir(parents=True, exist_ok=True)
        part = directory / f".{name}.{uuid4().hex}"
        try:
            part.write_bytes(data)
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            if error.errno in FULL_DISK:
                raise EngineDiskFull(f"no room for an input file: {error}") from error
            raise
        return True


def _remove_folder(folder: Path) -> None:
    """Delete a folder; a few files alone go faster than by rmtree, which looks at each twice."""
    if folder.is_symlink():
        raise OSError(f"{folder} is a link")
    files = list(folder.iterdir())
    try:
        for file in files:
            file.unlink()
        folder.rmdir()
    except OSError:
        # A folder is among them, or the engine still writes.
        shutil.rmtree(folder)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> EngineOutputError:
    return EngineOutputError(
        f"the engine names an output that cannot be read: {path}: {error.strerror}"
    )


class RemoteFiles:
    """The files of an engine elsewhere; nothing of them can be deleted."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def read(self, items: Sequence[dict[str, Any]]) -> list[bytes]:
        """Return the contents of output files that the engine names.

        Raises:
            EngineOutputError: when the engine does not hand one out.
        """
        return await asyncio.gather(*map(self._view, items))

    async def clear(self, jobs: Collection[str]) -> None:
        """Do nothing: they stay."""

    async def put(self, name: str, data: bytes) -> bool:
        """Upload an input file; False says that it stays.

        Raises:
            ValueError: when another file has that name.
        """
        form = aiohttp.FormData()
        form.add_field("image", data, filename=name, content_type="application/octet-stream")
        answer = await self._http.request("POST", "upload/image", form)
        if parsed("upload/image", *answer).get("name") != name:
            raise _taken(name)
        return False

    async def remove(self, name: str) -> None:
        """Do nothing: it stays."""

    async def _view(self, item: dict[str, Any]) -> bytes:
        query = {key: str(item.get(key) or "") for key in ("filename", "subfolder", "type")}
        status, body = await self._http.request("GET", str(URL.build(path="view", query=query)))
        if status != 200:
            raise EngineOutputError(f"the engine does not hand out {query['filename']!r}: {status}")
        return body


Files: TypeAlias = LocalFiles | RemoteFiles


@dataclass(slots=True)
class _Input:
    """An input file in use; `ours` says that this client wrote it and is to delete it."""

    digest: bytes
    users: int
    ours: bool


class Inputs:
    """The input files in use; runs that bring the same file share it."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._inputs: dict[str, _Input] = {}
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def held(self, files: Mapping[str, bytes]) -> AsyncIterator[None]:
        """Keep input files in place for the time of a run.

        Raises:
            ValueError: when the engine or another run has a different file of that name.
            EngineDiskFull: when there is no room for one.
        """
        held: list[str] = []
        try:
            for name, data in files.items():
                async with self._lock:
                    await self._hold(name, data)
                held.append(name)
            yield
        finally:
            for name in held:
                async with self._lock:
                    await self._release(name)

    async def renew(self, files: Mapping[str, bytes]) -> None:
        """See that input files in use are in place at an engine that took another's place.

        Raises:
            ValueError: when it has a different file of that name.
        """
        for name, data in files.items():
            await self._files.put(name, data)

    async def _hold(self, name: str, data: bytes) -> None:
        digest = hashlib.sha256(data).digest()
        known = self._inputs.get(name)
        if known is None:
            self._inputs[name] = _Input(digest, 1, await self._files.put(name, data))
        elif known.digest == digest:
            known.users += 1
        else:
            raise ValueError(f"another run uses a different file named {name!r}")

    async def _release(self, name: str) -> None:
        known = self._inputs[name]
        known.users -= 1
        if known.users:
            return
        del self._inputs[name]
        if known.ours:
            await self._files.remove(name)


def _taken(name: str) -> ValueError:
    return ValueError(f"the engine holds a different file named {name!r} already")
