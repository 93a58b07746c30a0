"""Draw placeholders: what a workflow would make, as a label on colours of its own.

The same label and size give the same pixels; another seed or prompt gives other colours.
"""

import colorsys
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from .errors import NodeError
from .measure import Stream

_BADGE: Final = "preview"
_MAX_PROMPT_LINES: Final = 6
# Below this side there is no room for words.
_MIN_TEXT_SIDE: Final = 96
_CELLS: Final = 4
_MAX_PIXELS: Final = 2**27

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Label:
    """What a placeholder says: the prompt, then lines of details; `key` decides its colours."""

    title: str
    prompt: str
    details: tuple[str, ...]
    key: str


def pictures(stream: Stream, label: Label) -> Iterator[Image.Image]:
    """Yield the pictures of a stream, in RGB.

    What no sampler made is shown as it is: an uploaded file at the stream's size, or one colour.

    Raises:
        NodeError: when an uploaded file does not read as a picture, or when one picture is larger
            than a preview is worth.
    """
    if stream.width * stream.height > _MAX_PIXELS:
        raise NodeError(
            f"the preview engine draws no {stream.width} x {stream.height} pixels", "MemoryError"
        )
    if stream.parts:
        for part in stream.parts:
            yield from pictures(part, label)
    elif stream.file is not None and stream.fps is None:
        yield from _shown(stream)
    elif stream.color is not None:
        color = (stream.color >> 16 & 255, stream.color >> 8 & 255, stream.color & 255)
        image = Image.new("RGB", (stream.width, stream.height), color)
        for _ in range(stream.count):
            yield _finished(image, stream)
    elif stream.count == 1:
        yield _finished(_placeholder(stream, label), stream)
    else:
        base = _placeholder(stream, label)
        for index in range(stream.count):
            yield _finished(_frame(base, index, stream.count), stream)


def preview(stream: Stream, label: Label, progress: float) -> Image.Image:
    """Return the small picture that a sampler shows on its way; `progress` is from 0 to 1."""
    scale = 128 / max(stream.width, stream.height)
    size = (max(1, round(stream.width * scale)), max(1, round(stream.height * scale)))
    colors = _background(size, label.key)
    return Image.blend(Image.effect_noise(size, 80).convert("RGB"), colors, progress)


def _shown(stream: Stream) -> Iterator[Image.Image]:
    assert stream.file is not None
    name = Path(stream.file).name
    try:
        with Image.open(stream.file) as source:
            count = getattr(source, "n_frames", 1)
            for index in range(stream.count):
                source.seek(index % count)
                image = ImageOps.exif_transpose(source).convert("RGB")
                if image.size != (stream.width, stream.height):
                    image = image.resize((stream.width, stream.height), Image.Resampling.LANCZOS)
                yield _finished(image, stream)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise NodeError(
            f"cannot identify image file '{name}'", "PIL.UnidentifiedImageError"
        ) from error


def _finished(image: Image.Image, stream: Stream) -> Image.Image:
    return ImageOps.invert(image) if stream.inverted else image


def _placeholder(stream: Stream, label: Label) -> Image.Image:
    size = (stream.width, stream.height)
    image = _background(size, label.key)
    _hills(image, label.key)
    if min(size) >= _MIN_TEXT_SIDE:
        _write(image, label)
    return image


def _background(size: tuple[int, int], key: str) -> Image.Image:
    """Return a field of soft colours: a few cells, stretched."""
    generator = _generator(key)
    hue = generator.random()
    cells = Image.new("RGB", (_CELLS, _CELLS))
    cells.putdata(
        [
            _color(
                hue + generator.uniform(-0.09, 0.09),
                generator.uniform(0.35, 0.6),
                0.92 - 0.4 * (index // _CELLS) / _CELLS + generator.uniform(-0.06, 0.06),
            )
            for index in range(_CELLS * _CELLS)
        ]
    )
    return cells.resize(size, Image.Resampling.BICUBIC)


def _hills(image: Image.Image, key: str) -> None:
    """Draw a sun and hills, so that pictures of two seeds differ in shape too."""
    generator = _generator(key + "hills")
    width, height = image.size
    draw = ImageDraw.Draw(image, "RGBA")
    radius = min(width, height) * generator.uniform(0.09, 0.17)
    x, y = width * generator.uniform(0.2, 0.8), height * generator.uniform(0.14, 0.3)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 250, 235, 200))
    hue = generator.random()
    for layer in range(3):
        level = height * (0.45 + 0.14 * layer)
        points = [
            (width * step / 6, level + height * generator.uniform(-0.1, 0.1)) for step in range(7)
        ]
        color = _color(hue + 0.05 * layer, 0.4, 0.62 - 0.15 * layer)
        draw.polygon([(0, height), *points, (width, height)], fill=(*color, 150))


def _write(image: Image.Image, label: Label) -> None:
    width, height = image.size
    unit = max(min(width, height) / 28, 9)
    margin = unit * 1.2
    large, small = _font(unit * 1.35), _font(unit * 0.85)
    room = width - 4 * margin
    lines = [(line, large) for line in _wrapped(label.prompt, large, room, _MAX_PROMPT_LINES)]
    lines += [
        (line, small)
        for detail in (label.title, *label.details)
        for line in _wrapped(detail, small, room, 2)
    ]
    heights = [_line_height(font) for _, font in lines]
    while lines and sum(heights) + 4 * margin > height:
        lines.pop()
        heights.pop()
    draw = ImageDraw.Draw(image, "RGBA")
    if lines:
        top = height - sum(heights) - 3 * margin
        box = (margin, top, width - margin, height - margin)
        _panel(draw, box, unit, 165)
        y = top + margin
        for (line, font), line_height in zip(lines, heights, strict=True):
            shade = (255, 255, 255, 245) if font is large else (225, 230, 240, 215)
            draw.text((2 * margin, y), line, font=font, fill=shade)
            y += line_height
    length = small.getlength(_BADGE)
    box = (width - length - 2.4 * margin, margin, width - margin, margin + 1.7 * unit)
    _panel(draw, box, unit * 0.85, 130)
    draw.text((box[0] + 0.7 * margin, margin + unit * 0.35), _BADGE, font=small, fill="white")


def _panel(
    draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], radius: float, alpha: int
) -> None:
    """Draw a dark panel; at fractions of a pixel its parts would overlap and show."""
    left, top, right, bottom = (round(side) for side in box)
    draw.rounded_rectangle((left, top, right, bottom), round(radius), fill=(18, 20, 28, alpha))


def _frame(base: Image.Image, index: int, count: int) -> Image.Image:
    """Return one frame of a video: a dot that crosses the picture, over a bar that fills."""
    image = base.copy()
    width, height = image.size
    draw = ImageDraw.Draw(image)
    part = (index + 1) / count
    bar = max(height // 60, 2)
    draw.rectangle((0, height - bar, width * part, height), fill="white")
    radius = max(min(width, height) / 24, 1)
    x, y = width * part, height * (0.3 - 0.6 * (part - part * part))
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 255, 255))
    return image


def _wrapped(text: str, font: Font, room: float, limit: int) -> list[str]:
    """Return text in lines that fit; what does not fit in `limit` lines ends in an ellipsis."""
    lines: list[str] = []
    line = ""
    for word in _printable(text).split():
        for piece in _pieces(word, font, room):
            longer = f"{line} {piece}".strip()
            if font.getlength(longer) <= room:
                line = longer
            else:
                lines.append(line)
                line = piece
        if len(lines) > limit:
            break
    lines = [line for line in (*lines, line) if line]
    if len(lines) > limit:
        lines = [*lines[: limit - 1], lines[limit - 1].rstrip(".,") + "…"]
    return lines


def _pieces(word: str, font: Font, room: float) -> Iterator[str]:
    """Yield a word in pieces that fit on a line."""
    while len(word) > 1 and font.getlength(word) > room:
        fits = max(1, int(len(word) * room / font.getlength(word)))
        yield word[:fits]
        word = word[fits:]
    yield word


def _printable(text: str) -> str:
    # A font draws no surrogates, and no more than a picture holds is of use.
    return "".join(c if c.isprintable() else " " for c in text[:2000])


def _font(size: float) -> Font:
    return ImageFont.load_default(size)


def _line_height(font: Font) -> float:
    return getattr(font, "size", 10) * 1.4


def _generator(key: str) -> random.Random:
    return random.Random(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest())


def _color(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, min(max(value, 0), 1))
    return (int(red * 255), int(green * 255), int(blue * 255))
