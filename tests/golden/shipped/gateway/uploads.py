"""The headers of uploaded model files: of which family a LoRA is, before a GPU is asked for.

Only the header is read, a few hundred kilobytes at the beginning of a file, and only once for each
version of a file. Files come from strangers, and so do their headers.
"""

import io
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from ..graph.families import Families
from ..graph.safetensors import family_of_keys, read_header
from .backend import UnreadModelError

# Size and time of change.
Version = tuple[int, float]

_LENGTH_BYTES: Final = 8
# That of the largest LoRA known has some megabytes; each is held in memory while it is read.
_LONGEST: Final = 32 * 10**6
_MOST_KEPT: Final = 1000


class UploadedHeaders:
    """The families of files by their headers; a file is read again when it has changed."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, Version], Families | None] = OrderedDict()

    async def families(
        self, path: str, version: Version, chunks: AsyncGenerator[bytes, None]
    ) -> Families | None:
        """Return the families of a file, of which `chunks` are the bytes from its beginning.

        None is for a file that shows none, and for one that is no safetensors file by its name.

        Raises:
            UnreadModelError: when it is not the file that its name says.
        """
        if not path.lower().endswith(".safetensors"):
            return None
        key = path, version
        if key not in self._known:
            self._known[key] = await _families(path, version[0], chunks)
            if len(self._known) > _MOST_KEPT:
                self._known.popitem(last=False)
        return self._known[key]


async def _families(path: str, size: int, chunks: AsyncGenerator[bytes, None]) -> Families | None:
    folder, _, name = path.partition("/")
    try:
        header = read_header(io.BytesIO(await _beginning(chunks)), _LONGEST, size)
    except ValueError as error:
        raise UnreadModelError(f"{name} in {folder} cannot be used: {error}") from error
    return family_of_keys(header, folder)


async def _beginning(chunks: AsyncGenerator[bytes, None]) -> bytes:
    """Return the bytes that hold a header, or as many as there are."""
    read = bytearray()
    wanted = _LENGTH_BYTES
    async with aclosing(chunks) as stream:
        async for chunk in stream:
            read += chunk
            if len(read) >= _LENGTH_BYTES:
                wanted = _LENGTH_BYTES + int.from_bytes(read[:_LENGTH_BYTES], "little")
            if len(read) >= min(wanted, _LENGTH_BYTES + _LONGEST):
                break
    return bytes(read)
