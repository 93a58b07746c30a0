"""The program that converts one file, from standard input to standard output, and ends.

`media_process` starts it. It imports little, for it is started for every file.
"""

import resource
import sys
from typing import Final

REFUSED: Final = 3
"""The exit status when the file is at fault; standard output says how."""

# Those of libraries while they are loaded; the file to convert is none.
_MOST_FILES: Final = 32

TOO_MUCH: Final = "the file takes too much memory or time to convert"


def converted(kind: str, data: bytes, max_pixels: int, max_seconds: float) -> bytes:
    """Return a file as PNG, MP4 or FLAC.

    Raises:
        ImageError: as `convert_image` does.
        AvError: as `convert_video` and `convert_audio` do.
    """
    if kind == "image":
        from .image_utils import convert_image

        return convert_image(data, "image/png", max_pixels=max_pixels)
    from .av_utils import convert_audio, convert_video

    if kind == "video":
        return convert_video(data, max_pixels=max_pixels, max_seconds=max_seconds)
    return convert_audio(data, max_seconds=max_seconds)


def _refusal(kind: str) -> type[ValueError]:
    """Return the error that says what is wrong with a file."""
    if kind == "image":
        from .image_utils import ImageError

        return ImageError
    from .av_utils import AvError

    return AvError


def main(arguments: list[str]) -> int:
    """Convert a file within the limits that the arguments say."""
    kind, max_pixels, max_seconds, max_memory, cpu_seconds = arguments
    resource.setrlimit(resource.RLIMIT_AS, (int(max_memory), int(max_memory)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds), int(cpu_seconds)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # It has no business with the disk, nor with many files or sockets.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_FILES, _MOST_FILES))
    try:
        written = converted(kind, sys.stdin.buffer.read(), int(max_pixels), float(max_seconds))
        status = 0
    except MemoryError:
        written, status = TOO_MUCH.encode(), REFUSED
    except _refusal(kind) as error:
        out_of_memory = isinstance(error.__cause__, MemoryError)
        written, status = (TOO_MUCH if out_of_memory else str(error)).encode(), REFUSED
    # Libraries may write to standard error what is no caller's business.
    sys.stdout.buffer.write(written)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
