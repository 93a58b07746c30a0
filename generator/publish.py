"""Write a build: all of it or nothing, and never over files that are not ours."""

import ctypes
import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

_MANIFEST: Final = "manifest.json"
_CACHES: Final = frozenset(("__pycache__", ".mypy_cache", ".ruff_cache"))

# renameat2(2): exchange two paths in one step.
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


class PublishError(RuntimeError):
    """The build cannot be written; the message says why, and what to do."""


def publish(files: dict[str, bytes], target: Path) -> bool:
    """Make `target` hold these files, and return whether anything changed.

    The files are written beside the target and take its place in one step, so that there is never
    half a build. Files in the target that its last manifest does not name are kept; those that it
    names and that are no longer rendered go.

    Raises:
        PublishError: when the target holds something that is not a build, when a file that is not
            ours stands in the way, or when the disk refuses.
    """
    target = target.resolve()
    ours = _published(target)
    foreign = _foreign(target, ours)
    for path in files:
        if any(kept == path or path.startswith(f"{kept}/") for kept in foreign):
            raise PublishError(
                f"{target / path} was not made by the generator; move it away, then build again"
            )
    if ours is not None and _is_current(files, target, ours):
        return False
    try:
        _replace(files, foreign, target)
    except OSError as error:
        raise PublishError(f"cannot write {target}: {error.strerror or error}") from error
    return True


def _published(target: Path) -> set[str] | None:
    """Return the files that the last build wrote, None when there was none."""
    if not target.exists():
        return None
    if not target.is_dir():
        raise PublishError(f"{target} is a file; give another folder with --out")
    if all(path.name in _CACHES for path in target.iterdir()):
        return None
    try:
        manifest: Any = json.loads((target / _MANIFEST).read_bytes())
        if not {"generator", "spec", "routes"} <= set(manifest):
            raise ValueError("another program's manifest")
        return {_MANIFEST, *map(str, manifest["files"])}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PublishError(
            f"{target} is not empty and holds no build of ours (no readable {_MANIFEST}); "
            "move it away, or give another folder with --out"
        ) from error


def _foreign(target: Path, ours: set[str] | None) -> list[str]:
    """Return the files in the target that are not ours, caches aside."""
    if ours is None:
        return []
    return sorted(
        name
        for path in target.rglob("*")
        if not path.is_dir() or path.is_symlink()
        if not _CACHES.intersection(path.relative_to(target).parts)
        if (name := path.relative_to(target).as_posix()) not in ours
    )


def _is_current(files: dict[str, bytes], target: Path, ours: set[str]) -> bool:
    return ours == set(files) and all(
        (target / path).is_file() and _hash((target / path).read_bytes()) == _hash(data)
        for path, data in files.items()
    )


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _replace(files: dict[str, bytes], foreign: list[str], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for path, data in files.items():
            _write(stage / path, data, like=target / path)
        for path in foreign:
            (stage / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(target / path, stage / path, follow_symlinks=False)
        stage.chmod(0o755)
        if target.exists():
            _exchange(stage, target)
        else:
            stage.rename(target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _write(path: Path, data: bytes, like: Path) -> None:
    """Write a file; one that did not change keeps its time stamp, for tools that go by it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if like.is_file() and like.read_bytes() == data:
        shutil.copy2(like, path)
        return
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _exchange(stage: Path, target: Path) -> None:
    """Swap two folders in one step where the system can, else in two."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        _exchange_in_two(stage, target)
        return
    done = renameat2(
        _AT_FDCWD, os.fsencode(stage), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE
    )
    if done == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(code, os.strerror(code))
    _exchange_in_two(stage, target)


def _exchange_in_two(stage: Path, target: Path) -> None:
    old = Path(f"{stage}.old")
    target.rename(old)
    try:
        stage.rename(target)
    except OSError:
        old.rename(target)
        raise
    old.rename(stage)
