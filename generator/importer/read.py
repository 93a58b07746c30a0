"""Read media files that carry the workflow which they were made by.

Where ComfyUI and its packs put it: SaveImage writes PNG text chunks named `workflow` and `prompt`;
SaveAnimatedWEBP writes EXIF texts that start with `workflow:` and `prompt:`; SaveVideo, SaveWEBM
and the audio nodes write container tags of these names; VHS_VideoCombine a tag `comment` with both.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import av
from PIL import Image

from ..load import MAX_BYTES

_PNG: Final = b"\x89PNG\r\n\x1a\n"
# How containers start, by the name of FFmpeg's demuxer. It is never left to choose one: playlists,
# which it knows too, name other files and addresses.
_CONTAINERS: Final = (
    (4, b"ftyp", "mov"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"ID3", "mp3"),
)
_NO_CARRIERS: Final = ((b"\xff\xd8\xff", "a JPEG"), (b"GIF8", "a GIF"))
_KEYS: Final = ("workflow", "prompt")
_HINT: Final = "save the workflow itself, with Workflow > Save or Workflow > Export (API)"


class ReadError(ValueError):
    """The file holds no workflow; the message says why, and what to do."""


def carried_text(path: Path) -> str | None:
    """Return the JSON of the workflow that a media file carries, None for a file of another kind.

    Of a file that carries workflow and graph, the workflow (UI format) counts: it knows titles,
    places and models.

    Raises:
        ReadError: when the file cannot be read, is damaged, or carries none.
    """
    try:
        if not path.is_file():
            raise ReadError("is no regular file" if path.exists() else "there is no such file")
        with path.open("rb") as file:
            start = file.read(32)
            found = _carried(file, start)
    except OSError as error:
        raise ReadError(f"cannot be read: {error.strerror or error}") from error
    if found is None:
        return None
    kind, texts = found
    for key in _KEYS:
        if key in texts:
            return texts[key]
    hint = "ComfyUI writes none with --disable-metadata, and many programs remove it"
    raise ReadError(f"this {kind} carries no workflow ({hint}); {_HINT}")


def _carried(file: BinaryIO, start: bytes) -> tuple[str, dict[str, str]] | None:
    """Return what kind of file it is, and the texts that it carries."""
    for magic, kind in _NO_CARRIERS:
        if start.startswith(magic):
            raise ReadError(f"is {kind}, which carries no workflow; {_HINT}")
    if start.startswith(_PNG):
        return "PNG", _png_texts(file)
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "WebP", _webp_texts(file)
    for at, magic, demuxer in _CONTAINERS:
        if start[at:].startswith(magic):
            file.seek(0)
            return "file", _tags(file, demuxer)
    if b"\0" in start:
        raise ReadError(f"is neither JSON nor a PNG, WebP, MP4 or WebM file; {_HINT}")
    return None


def _png_texts(file: BinaryIO) -> dict[str, str]:
    """Return the texts of a PNG's chunks `tEXt`, `zTXt` and `iTXt`; no pixel is decoded.

    Source: https://www.w3.org/TR/png-3/#11textinfo
    """
    texts: dict[str, str] = {}
    file.seek(len(_PNG))
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        if kind not in (b"tEXt", b"zTXt", b"iTXt"):
            file.seek(size + 4, 1)
            continue
        if size > MAX_BYTES:
            raise ReadError(f"a text in this PNG has over {MAX_BYTES >> 20} MiB")
        data = file.read(size)
        checked = file.read(4)
        if len(data) < size or len(checked) < 4:
            raise ReadError("this PNG is cut short")
        if zlib.crc32(kind + data) != int.from_bytes(checked, "big"):
            raise ReadError("this PNG is damaged: a text does not have its checksum")
        key, _, rest = data.partition(b"\0")
        if key.decode("latin-1") in _KEYS:
            texts[key.decode("latin-1")] = _png_text(kind, rest)
    return texts


def _png_text(kind: bytes, rest: bytes) -> str:
    if kind == b"tEXt":
        return rest.decode("latin-1")
    if kind == b"zTXt":
        return _inflated(rest[1:]).decode("latin-1")
    is_compressed = rest[:1] == b"\1"
    text = rest[2:].split(b"\0", 2)[-1]
    try:
        return (_inflated(text) if is_compressed else text).decode()
    except UnicodeDecodeError as error:
        raise ReadError("a text in this PNG is no UTF-8") from error


def _inflated(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, MAX_BYTES + 1)
    except zlib.error as error:
        raise ReadError(f"a text in this PNG is damaged: {error}") from error
    if len(found) > MAX_BYTES:
        raise ReadError(f"a text in this PNG has over {MAX_BYTES >> 20} MiB")
    return found


def _webp_texts(file: BinaryIO) -> dict[str, str]:
    """Return the texts in a WebP's EXIF chunk that say what they are; no pixel is decoded.

    Source: https://developers.google.com/speed/webp/docs/riff_container
    """
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, size = struct.unpack("<4sI", head)
        if kind == b"EXIF":
            if size > MAX_BYTES:
                raise ReadError(f"the EXIF of this WebP has over {MAX_BYTES >> 20} MiB")
            return dict(_exif_texts(file.read(size)))
        file.seek(size + size % 2, 1)
    return {}


def _exif_texts(data: bytes) -> Iterator[tuple[str, str]]:
    exif = Image.Exif()
    try:
        exif.load(data)
        values = list(exif.values())
    except (ValueError, SyntaxError, struct.error, TypeError, KeyError) as error:
        raise ReadError(f"the EXIF of this WebP is damaged: {error}") from error
    for value in values:
        key, colon, text = value.partition(":") if isinstance(value, str) else ("", "", "")
        if colon and key.casefold() in _KEYS:
            yield key.casefold(), text


def _tags(file: BinaryIO, demuxer: str) -> dict[str, str]:
    try:
        with av.open(file, format=demuxer) as container:
            tags = {key.casefold(): text for key, text in container.metadata.items()}
    except (av.error.FFmpegError, UnicodeDecodeError, ValueError) as error:
        raise ReadError(f"this file is damaged: {error}") from error
    try:
        said = json.loads(tags.get("comment", "{}"))
    except (RecursionError, ValueError):
        return tags  # a comment in words
    for key in _KEYS:
        inner = said.get(key) if isinstance(said, dict) else None
        if inner is not None:
            tags.setdefault(key, inner if isinstance(inner, str) else json.dumps(inner))
    return tags
