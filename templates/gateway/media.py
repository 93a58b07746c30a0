"""Pictures, videos and sound that callers give, made ready for the engine.

A file comes as bytes, as base64 text or a data URI, or as a URL that it is fetched from. It
is decoded and written anew, so that nothing goes on but its pixels and samples.
"""

import asyncio
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from ..utils.av_utils import AvError, sniff_audio, sniff_video
from ..utils.image_utils import ImageError, decode_base64, sniff
from ..utils.media_process import Kind, convert
from .fetch import Allowance, Fetcher, FetchError

# At once, of pictures and of what takes longer.
_MAX_CONVERSIONS: Final = 2
_MAX_PATH: Final = 4096
_EXTENSIONS: Final[dict[Kind, str]] = {"image": "png", "video": "mp4", "audio": "flac"}

_ACCEPTED: Final = (
    "give an http or https URL, a base64 data URI or base64 text, or upload the file in a form"
)
_SCHEME: Final = re.compile(r"\s*([a-z][a-z0-9+.-]{0,30}):", re.IGNORECASE)


class MediaError(ValueError):
    """What is wrong with a file that a caller gave, in words that are safe to show to them."""


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A PNG, MP4 or FLAC file for the engine; its name is `<sha256 of data>.<extension>`."""

    name: str
    data: bytes


def kind_of(data: bytes) -> Kind | None:
    """Return image, video or audio as the first bytes show; None when they show neither."""
    if sniff(data):
        return "image"
    if sniff_video(data):
        return "video"
    return "audio" if sniff_audio(data) else None


class MediaReader:
    """Reads files of at most `max_bytes` bytes, `max_pixels` pixels and `max_seconds` seconds.

    The pixels of a video are those of all its pictures together.
    """

    def __init__(
        self, fetcher: Fetcher, *, max_bytes: int, max_pixels: int, max_seconds: float = 600.0
    ) -> None:
        self._fetcher = fetcher
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._max_seconds = max_seconds
        self._pictures = asyncio.Semaphore(_MAX_CONVERSIONS)
        self._others = asyncio.Semaphore(_MAX_CONVERSIONS)

    def allowance(self) -> Allowance:
        """Return what may be fetched for one request: as much as a body may hold."""
        return Allowance(self._max_bytes)

    async def read(
        self, kind: str, value: str | bytes, allowance: Allowance | None = None
    ) -> MediaFile:
        """Return the file in a value, which is to be an image, a video or audio, as `kind` says.

        Bytes are the file itself; text is a URL, a data URI or base64.

        Raises:
            MediaError: when there is no such file, or it is damaged or beyond a limit.
        """
        return await self._read(value, kind, allowance)

    async def read_any(self, value: str | bytes, allowance: Allowance | None = None) -> MediaFile:
        """Return the file in a value, of the kind that its first bytes show.

        Raises:
            MediaError: as `read` does.
        """
        return await self._read(value, None, allowance)

    async def _read(
        self, value: str | bytes, kind: str | None, allowance: Allowance | None
    ) -> MediaFile:
        try:
            if isinstance(value, str) and (url := _url(value)):
                value = await self._fetcher.fetch(url, allowance)
            data = self._decoded(value) if isinstance(value, str) else value
            return await self._converted(data, kind)
        except (FetchError, ImageError, AvError) as error:
            raise MediaError(str(error)) from error

    async def _converted(self, data: bytes, kind: str | None) -> MediaFile:
        if len(data) > self._max_bytes:
            raise MediaError(f"the file is too large: at most {self._max_bytes} bytes are accepted")
        match kind or kind_of(data):
            case "image" | "video" | "audio" as found:
                async with self._pictures if found == "image" else self._others:
                    written = await convert(
                        found, data, max_pixels=self._max_pixels, max_seconds=self._max_seconds
                    )
                return _named(written, _EXTENSIONS[found])
            case _:
                raise MediaError("not a picture, a video or sound in a known format")

    def _decoded(self, text: str) -> bytes:
        try:
            return decode_base64(text, self._max_bytes)
        except ImageError as error:
            if _looks_like_path(text):
                raise MediaError(f"no file is read from a path: {_ACCEPTED}") from error
            raise


def _named(data: bytes, extension: str) -> MediaFile:
    return MediaFile(f"{hashlib.sha256(data).hexdigest()}.{extension}", data)


def _url(text: str) -> str | None:
    """Return the URL to fetch, None for base64; raise MediaError for any other URL."""
    found = _SCHEME.match(text)
    scheme = found[1].lower() if found else "data"
    if scheme in ("http", "https"):
        return text.strip()
    if scheme != "data":
        raise MediaError(f"{scheme}: is no kind of URL that is read: {_ACCEPTED}")
    return None


def _looks_like_path(text: str) -> bool:
    """Tell whether a text that is no base64 may be a path; base64 of a JPEG starts with /9j/."""
    if len(text) > _MAX_PATH or _SCHEME.match(text) or text.startswith("/9j/"):
        return False
    return text.lstrip().startswith(("/", "~")) or "." in text or "\\" in text
