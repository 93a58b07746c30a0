"""Volumes as containers see them: as they were at the start, until they are reloaded."""

import shutil
from pathlib import Path
from uuid import uuid4

# What tells whether a file, by its path, has changed.
States = dict[str, tuple[object, ...]]


class Snapshot:
    """A Volume as one container sees it, in a folder of its own.

    What the container writes is for others once it is committed; of one file, who commits last
    decides.
    """

    def __init__(self, volume: Path, folder: Path) -> None:
        self._volume = volume
        self.folder = folder
        folder.mkdir(parents=True)
        self._known: States = {}
        self.reload()

    def reload(self) -> None:
        """See what others have committed; what the container itself has changed stays."""
        mine, theirs = _states(self.folder), _states(self._volume)
        for path in {*mine, *theirs}:
            if mine.get(path) == self._known.get(path) != theirs.get(path):
                _take_over(self._volume / path, self.folder / path)
        self._known = theirs

    def commit(self) -> None:
        """Let others see what the container has changed."""
        mine = _states(self.folder)
        for path in {*mine, *self._known}:
            if mine.get(path) != self._known.get(path):
                _take_over(self.folder / path, self._volume / path)
        self._known = mine


def _states(folder: Path) -> States:
    found: States = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = (path.readlink(),)
        elif path.is_file():
            about = path.stat()
            found[name] = (about.st_size, about.st_mtime_ns)
    return found


def _take_over(source: Path, target: Path) -> None:
    """Make a file what another is: there or not, with its time, a link as a link."""
    if not source.is_symlink() and not source.exists():
        target.unlink(missing_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{uuid4().hex}")
    shutil.copy2(source, new, follow_symlinks=False)
    new.replace(target)
