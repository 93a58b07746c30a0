"""Bytes that are kept on disk, not in memory, for as long as somebody holds them."""

import os
import weakref
from pathlib import Path
from tempfile import mkstemp


class Spooled:
    """Bytes in a temporary file without a name: it goes with this object, or with the process.

    Raises:
        OSError: when they cannot be written.
    """

    def __init__(self, data: bytes) -> None:
        self._file, path = mkstemp(prefix="comfyui-output-")
        # The system frees the space once the file is closed, however the process ends.
        weakref.finalize(self, os.close, self._file)
        Path(path).unlink()
        self._size = len(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def read(self) -> bytes:
        """Return the bytes."""
        parts: list[bytes] = []
        position = 0
        # One call reads 2 GiB at most.
        while position < self._size:
            parts.append(os.pread(self._file, self._size - position, position))
            position += len(parts[-1])
        return b"".join(parts)
