"""Videos and sound converted in a process of its own, which may take so much and no more.

What a file of a few bytes makes a demuxer allocate cannot be told before, nor how long it takes;
and a decoder that crashes takes its process with it.
"""

import asyncio
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from .av_utils import AvError, convert_audio, convert_video, sniff_audio, sniff_video
from .comfyui_process import tied_to_this_process

Kind = Literal["video", "audio"]

MAX_MEMORY: Final = 2 * 2**30
MAX_SECONDS: Final = 300

# The folder that this package lies in.
_ROOT: Final = Path(__file__).parents[__name__.count(".")]
_ENVIRONMENT: Final = ("LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "VIRTUAL_ENV")
_REFUSED: Final = 3
_TOO_MUCH: Final = "the file takes too much memory or time to convert"


async def convert(
    kind: Kind,
    data: bytes,
    *,
    max_pixels: int,
    max_seconds: float,
    max_memory: int = MAX_MEMORY,
) -> bytes:
    """Return a file converted as `convert_video` and `convert_audio` do it.

    The process may take `max_memory` bytes, and MAX_SECONDS seconds; it is ended when the caller
    is cancelled.

    Raises:
        AvError: as these do, and when the file takes more than that.
    """
    if sniff_video(data) is None and (kind == "video" or sniff_audio(data) is None):
        return _converted(kind, data, max_pixels, max_seconds)  # refused at once
    command = [sys.executable, "-m", __name__, kind, str(max_pixels), str(max_seconds)]
    process = await asyncio.create_subprocess_exec(
        *tied_to_this_process([*command, str(max_memory)]),
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
        async with asyncio.timeout(MAX_SECONDS):
            written, said = await process.communicate(data)
    except TimeoutError as error:
        raise AvError(_TOO_MUCH) from error
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode == _REFUSED:
        raise AvError(said.decode("utf-8", "replace"))
    if process.returncode is None or process.returncode < 0:
        raise AvError(_TOO_MUCH)  # killed, by its limits or by its own fault
    if process.returncode != 0:
        raise RuntimeError(f"the converter does not run: {said.decode('utf-8', 'replace')[-2000:]}")
    return written


def _more_paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _converted(kind: str, data: bytes, max_pixels: int, max_seconds: float) -> bytes:
    if kind == "video":
        return convert_video(data, max_pixels=max_pixels, max_seconds=max_seconds)
    return convert_audio(data, max_seconds=max_seconds)


def _main() -> int:
    kind, max_pixels, max_seconds, max_memory = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (int(max_memory), int(max_memory)))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        written = _converted(kind, sys.stdin.buffer.read(), int(max_pixels), float(max_seconds))
    except AvError as error:
        sys.stderr.write(_TOO_MUCH if isinstance(error.__cause__, MemoryError) else str(error))
        return _REFUSED
    except MemoryError:
        sys.stderr.write(_TOO_MUCH)
        return _REFUSED
    sys.stdout.buffer.write(written)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
