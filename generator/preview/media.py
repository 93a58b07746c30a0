"""Write pictures, videos and sound to files, without metadata."""

import math
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Final

import av
import av.error
from PIL import Image

from .errors import NodeError
from .folders import FolderError, Folders, within

_WEBP_METHODS: Final = {"default": 4, "fastest": 0, "slowest": 6}
_VIDEO_CODECS: Final = {
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "av1": ("libsvtav1", {"preset": "12"}),
}
_SAMPLE_RATE: Final = 44100
_TONE_HZ: Final = 220.0

Check = Callable[[], None]


class VideoError(ValueError):
    """A file that does not read as a video."""


@dataclass(frozen=True, slots=True)
class Video:
    """What a video file says of itself; `fps` is frames per second."""

    width: int
    height: int
    frames: int
    fps: float


@dataclass(slots=True)
class Target:
    """Where an output node writes: `folder` on the disk, `subfolder` as the answer gives it."""

    folder: Path
    subfolder: str
    stem: str
    counter: int

    def next(self, extension: str, batch: int = 0) -> Path:
        """Return the path of the next file, `stem_00001_.png`."""
        stem = self.stem.replace("%batch_num%", str(batch))
        path = self.folder / f"{stem}_{self.counter:05}_.{extension}"
        self.counter += 1
        return path


def target(folders: Folders, kind: str, prefix: str, size: tuple[int, int]) -> Target:
    """Return where files of a prefix go, numbered after those that are there.

    Raises:
        NodeError: when the prefix leads out of the folder.
    """
    for name, value in _variables(size).items():
        prefix = prefix.replace(f"%{name}%", value)
    normal = os.path.normpath(prefix)
    subfolder, stem = os.path.split(normal)
    root = folders.kind(kind)
    try:
        folder = within(root, subfolder)
    except FolderError as error:
        raise NodeError(
            "**** ERROR: Saving image outside the output folder is not allowed.\n"
            f" filename_prefix: {prefix}",
            "Exception",
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    return Target(folder, subfolder, stem, _last_number(folder, stem) + 1)


def _variables(size: tuple[int, int]) -> dict[str, str]:
    # ComfyUI names files by the clock of its machine.
    now = datetime.now().astimezone()
    return {
        "width": str(size[0]),
        "height": str(size[1]),
        "year": str(now.year),
        "month": f"{now.month:02}",
        "day": f"{now.day:02}",
        "hour": f"{now.hour:02}",
        "minute": f"{now.minute:02}",
        "second": f"{now.second:02}",
    }


def _last_number(folder: Path, stem: str) -> int:
    numbers = [0]
    for path in folder.iterdir():
        if path.name.startswith(f"{stem}_"):
            digits = path.name[len(stem) + 1 :].split("_")[0]
            if digits.isascii() and digits.isdigit():
                numbers.append(int(digits))
    return max(numbers)


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG; its compression is quick rather than small."""
    image.save(path, "PNG", compress_level=1)


def save_webp(
    images: Sequence[Image.Image],
    path: Path,
    *,
    fps: float,
    lossless: bool,
    quality: int,
    method: str,
) -> None:
    """Write a WebP, animated when there are several images; `fps` is frames per second."""
    images[0].save(
        path,
        "WEBP",
        save_all=True,
        append_images=images[1:],
        duration=int(1000.0 / fps),
        lossless=lossless,
        quality=quality,
        method=_WEBP_METHODS.get(method, 0),
    )


def save_apng(images: Sequence[Image.Image], path: Path, *, fps: float) -> None:
    """Write an animated PNG; `fps` is frames per second."""
    images[0].save(
        path,
        "PNG",
        save_all=True,
        append_images=images[1:],
        duration=int(1000.0 / fps),
        compress_level=1,
    )


def save_mp4(images: Iterable[Image.Image], path: Path, *, fps: float, check: Check) -> None:
    """Write an MP4 with H.264; `check` is called before each frame.

    Raises:
        NodeError: when the encoder refuses, as it does for odd sizes.
    """
    _encode(images, path, "mp4", "libx264", fps, {"preset": "veryfast", "crf": "23"}, check)


def save_webm(
    images: Iterable[Image.Image], path: Path, *, fps: float, codec: str, crf: float, check: Check
) -> None:
    """Write a WebM with VP9 or AV1; `check` is called before each frame.

    Raises:
        NodeError: when the codec is unknown or the encoder refuses.
    """
    if codec not in _VIDEO_CODECS:
        raise NodeError(f"'{codec}' is not a codec of WebM", "KeyError")
    name, options = _VIDEO_CODECS[codec]
    _encode(images, path, "webm", name, fps, {**options, "crf": str(int(crf))}, check)


def _encode(
    images: Iterable[Image.Image],
    path: Path,
    format: str,
    codec: str,
    fps: float,
    options: dict[str, str],
    check: Check,
) -> None:
    rate = Fraction(round(fps * 1000), 1000)
    try:
        with av.open(path, "w", format=format) as container:
            stream: av.VideoStream | None = None
            for image in images:
                check()
                if stream is None:
                    stream = container.add_stream(codec, rate=rate, options=options)  # type: ignore[assignment]
                    assert stream is not None
                    stream.width, stream.height = image.size
                    stream.pix_fmt = "yuv420p"
                    if codec.startswith("libvpx"):
                        stream.bit_rate = 0
                frame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
                container.mux(stream.encode(frame))
            if stream is not None:
                container.mux(stream.encode(None))
    except (av.error.FFmpegError, ValueError) as error:
        path.unlink(missing_ok=True)
        raise NodeError(str(error), f"av.error.{type(error).__name__}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def save_sound(path: Path, *, codec: str, seconds: float, check: Check) -> None:
    """Write a soft tone; `check` is called before each second of it.

    Raises:
        NodeError: when the encoder refuses.
    """
    rate = 48000 if codec == "libopus" else _SAMPLE_RATE
    try:
        with av.open(path, "w") as container:
            stream: av.AudioStream = container.add_stream(codec, rate=rate)  # type: ignore[assignment]
            resampler = av.AudioResampler(stream.format, "stereo", rate, stream.frame_size or 4096)
            for start in range(0, int(seconds * rate), rate):
                check()
                count = min(rate, int(seconds * rate) - start)
                for frame in resampler.resample(_tone(start, count, rate)):
                    container.mux(stream.encode(frame))
            for frame in resampler.resample(None):
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (av.error.FFmpegError, ValueError) as error:
        path.unlink(missing_ok=True)
        raise NodeError(str(error), f"av.error.{type(error).__name__}") from error


def _tone(start: int, count: int, rate: int) -> av.AudioFrame:
    """Return up to a second of sound, from sample `start` on."""
    frame = av.AudioFrame(format="s16", layout="stereo", samples=count)
    plane = frame.planes[0]
    plane.update(_second(rate)[: 4 * count].ljust(plane.buffer_size, b"\0"))
    frame.sample_rate = rate
    frame.pts = start
    frame.time_base = Fraction(1, rate)
    return frame


@cache
def _second(rate: int) -> bytes:
    """Return a second of the tone, in stereo; it holds whole waves, so seconds join."""
    samples = (int(4000 * math.sin(2 * math.pi * _TONE_HZ * index / rate)) for index in range(rate))
    return b"".join(struct.pack("<hh", sample, sample) for sample in samples)


def probe_video(path: Path) -> Video:
    """Return size, length and rate of a video file; it is decoded to count its frames.

    Raises:
        VideoError: when the file does not read as a video.
    """
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            frames = stream.frames or sum(1 for _ in container.decode(stream))
            rate = stream.average_rate or Fraction(24)
            return Video(stream.width, stream.height, frames, float(rate))
    except (av.error.FFmpegError, IndexError, OSError, ValueError) as error:
        raise VideoError(f"{path.name} is no video") from error
