"""Write files whole or not at all, several of them all or none."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex


def write_all(files: Mapping[Path, str]) -> None:
    """Write texts to files that are there or not; one that fails leaves all as they were.

    Each is written beside its place and takes it in one step, so no reader sees half a file.

    Raises:
        OSError: when the disk refuses; the files are then as they were.
    """
    before: dict[Path, bytes | None] = {}
    staged: dict[Path, Path] = {}
    try:
        for path, text in files.items():
            before[path] = path.read_bytes() if path.exists() else None
            path.parent.mkdir(parents=True, exist_ok=True)
            staged[path] = _staged(path, text.encode())
        for path, stage in staged.items():
            stage.replace(path)
    except BaseException:  # Ctrl-C too
        for path, data in before.items():
            if path in staged and not staged[path].exists():
                _put_back(path, data)
        raise
    finally:
        for stage in staged.values():
            stage.unlink(missing_ok=True)


def _staged(path: Path, data: bytes) -> Path:
    """Write a file beside its place, with the mode of what is there or that of any new file."""
    stage = path.with_name(f".{path.name}-{token_hex(8)}")
    with stage.open("xb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if path.exists():
                stage.chmod(path.stat().st_mode & 0o777)
        except BaseException:
            stage.unlink()
            raise
    return stage


def _put_back(path: Path, data: bytes | None) -> None:
    with suppress(OSError):  # the first error is the one to tell
        if data is None:
            path.unlink(missing_ok=True)
        else:
            _staged(path, data).replace(path)
