"""Bytes that are kept on disk, not in memory, for as long as somebody holds them."""

import os
import weakref
from pathlib import Path
from tempfile import mkstemp

from .measures import measure


class Spooled:
    """Bytes in a temporary file without a name: it goes with this object, or with the process.

    `size` says how large they are, and a picture or video of them.

    Raises:
        OSError: when they cannot be written.
    """

    def __init__(self, data: bytes) -> None:
        self._file, path = mkstemp(prefix="comfyui-output-")
        # The system frees the space once the file is closed, however the process ends.
        weakref.finalize(self, os.close, self._file)
        Path(path).unlink()
        self.size = measure(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def read(self) -> bytes:
        """Return the bytes."""
        parts: list[bytes] = []
        position = 0
        # One call reads 2 GiB at most.
        while position < self.size.bytes:
            parts.append(os.pread(self._file, self.size.bytes - position, position))
            position += len(parts[-1])
        return b"".join(parts)
