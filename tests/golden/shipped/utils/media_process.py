"""Pictures, videos and sound converted in a process of its own, which may take so much and no more.

A decoder of hostile files may crash, be taken over, or go on for hours: what a file of a few bytes
makes it allocate cannot be told before. So each file has a process that knows no keys, holds no
other file, and ends with it.
"""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from . import media_converter
from .av_utils import AvError, sniff_audio, sniff_video
from .comfyui_process import tied_to_this_process
from .image_utils import ImageError, sniff

Kind = Literal["image", "video", "audio"]

# What a process may take, in bytes and seconds. A picture is held up to four times, at up to four
# bytes a pixel.
MAX_MEMORY: Final = 2 * 2**30
BYTES_PER_PIXEL: Final = 16
MAX_SECONDS: Final = {"image": 120, "video": 300, "audio": 300}

# The folder that this package lies in.
_ROOT: Final = Path(__file__).parents[__name__.count(".")]
_ENVIRONMENT: Final = ("LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "VIRTUAL_ENV")


async def convert(
    kind: Kind,
    data: bytes,
    *,
    max_pixels: int,
    max_seconds: float,
    max_memory: int | None = None,
) -> bytes:
    """Return a file as PNG, MP4 or FLAC: by `convert_image`, `convert_video` or `convert_audio`.

    The process is ended when it takes more than `max_memory` bytes, or MAX_SECONDS of its kind, and
    when the caller is cancelled.

    Raises:
        ImageError: as `convert_image` does, and when a picture takes more than that.
        AvError: as the others do, and when a video or sound takes more than that.
    """
    error_type = ImageError if kind == "image" else AvError
    if not _is_known(kind, data):
        return media_converter.converted(kind, data, max_pixels, max_seconds)  # refused at once
    if max_memory is None:
        max_memory = MAX_MEMORY + (BYTES_PER_PIXEL * max_pixels if kind == "image" else 0)
    limits = (max_pixels, max_seconds, max_memory, MAX_SECONDS[kind])
    command = [sys.executable, "-B", "-m", media_converter.__name__, kind, *map(str, limits)]
    process = await asyncio.create_subprocess_exec(
        *tied_to_this_process(command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            # No more than it needs: the file is hostile, and the environment holds keys.
            **{name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            "PYTHONPATH": os.pathsep.join((str(_ROOT), *_more_paths())),
        },
    )
    try:
        async with asyncio.timeout(MAX_SECONDS[kind]):
            written, said = await process.communicate(data)
    except TimeoutError as error:
        raise error_type(media_converter.TOO_MUCH) from error
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode == media_converter.REFUSED:
        raise error_type(written.decode("utf-8", "replace"))
    if process.returncode is None or process.returncode < 0:
        raise error_type(media_converter.TOO_MUCH)  # killed, by its limits or by its own fault
    if process.returncode != 0:
        raise RuntimeError(f"the converter does not run: {said.decode('utf-8', 'replace')[-2000:]}")
    return written


def _is_known(kind: Kind, data: bytes) -> bool:
    """Tell whether the first bytes of a file show a format that is read for a kind."""
    if kind == "image":
        return sniff(data) is not None
    return sniff_video(data) is not None or (kind == "audio" and sniff_audio(data) is not None)


def _more_paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
