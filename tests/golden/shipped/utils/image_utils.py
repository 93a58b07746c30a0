"""Pictures that come from callers and go back to them.

Every byte that arrives here is hostile until shown otherwise. A picture is told by its
first bytes, never by a name or a declared type; its size is read from the header before a
pixel is decoded; and whatever is wrong with it ends as an `ImageError`.

Accepted are PNG, JPEG, WebP, GIF and BMP. TIFF is left out on purpose: it is a container
of many codecs, by far the widest way into the decoder, and few callers send it.

Colour profiles are dropped and pixel values are taken as sRGB, which is also what
ComfyUI's LoadImage does.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from io import BytesIO

from PIL import ExifTags, Image, ImageFile, ImageOps

_PILLOW_FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
}
# The longest side, in pixels, that each format can hold.
_MAX_SIDES = {"image/png": 2**31 - 1, "image/jpeg": 65_500, "image/webp": 16_383}

ACCEPTED_TYPES = tuple(_PILLOW_FORMATS)
"""Media types that `open_image`, `convert_image` and `image_info` read."""

OUTPUT_TYPES = tuple(_MAX_SIDES)
"""Media types that `convert_image` writes."""

# Progressive pictures have about ten. Each scan goes over all pixels, and may take a few bytes.
_MAX_SCANS = 100
# Markers that a segment follows, unlike FF 01 and FF D0 to FF D7; FF 00 is a byte of pixels.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
_END_OF_IMAGE, _START_OF_SCAN = b"\xd9", b"\xda"

_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})
_WHITESPACE = " \t\r\n\v\f"
_DATA_URI_START = re.compile(r"\s*data:", re.IGNORECASE)
# The bound on the length keeps the search for the comma short in a text without one.
_DATA_URI_HEADER = re.compile(r"\s*data:([^,]{0,1000}),", re.IGNORECASE)
_MAX_QUALITY = 100


class ImageError(ValueError):
    """What is wrong with a picture, in words that are safe to show to a caller."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the header of a picture says, without any pixel decoded.

    `width` and `height` are pixels as stored: EXIF orientation is not applied, so they are
    swapped in `open_image`'s result where EXIF turns the picture by a quarter. `frames` is
    1 for a still.
    """

    width: int
    height: int
    media_type: str
    frames: int


def decode_base64(text: str, max_bytes: int) -> bytes:
    """Return the bytes that `text` holds, as plain base64 or as a `data:` URI.

    Whitespace is ignored. Only the standard alphabet with its padding is read: the URL-safe
    one (`-` and `_`) is refused, as is percent-encoding. The media type that a data URI
    declares is not looked at; ask `sniff`.

    Raises ImageError if the text is empty, is not base64, or holds more than `max_bytes`
    bytes. The size is worked out from the length of the text, before anything is decoded.
    """
    start = _data_uri_payload(text)
    characters = len(text) - start - sum(text.count(space, start) for space in _WHITESPACE)
    too_large = f"the data is too large: at most {max_bytes} bytes are accepted"
    if characters > 4 * ((max_bytes + 2) // 3):
        raise ImageError(too_large)
    if characters == 0:
        raise ImageError("the data is empty: expected base64 text or a base64 data URI")

    compact = text[start:].translate(dict.fromkeys(map(ord, _WHITESPACE)))
    if "-" in compact or "_" in compact:
        raise ImageError(
            "the data uses the URL-safe base64 alphabet: "
            "only the standard one, with + and /, is accepted"
        )
    if len(compact) % 4:
        raise ImageError(
            "the base64 data is cut short or lacks its padding: "
            "its length must be a multiple of 4, filled up with ="
        )
    try:
        data = binascii.a2b_base64(compact, strict_mode=True)
    except ValueError as error:
        raise ImageError(
            "the data is not valid base64: expected A-Z a-z 0-9 + / and = at the end"
        ) from error
    if len(data) > max_bytes:
        raise ImageError(too_large)
    return data


def encode_base64(data: bytes) -> str:
    """Return `data` as base64 text: standard alphabet, padded, on one line."""
    return base64.b64encode(data).decode("ascii")


def data_uri(data: bytes, media_type: str) -> str:
    """Return `data` as a base64 `data:` URI. `media_type` is written as given."""
    return f"data:{media_type};base64,{encode_base64(data)}"


def sniff(data: bytes) -> str | None:
    """Return the media type that the first bytes of `data` show, one of ACCEPTED_TYPES.

    None means that it is none of them. A type does not mean that the rest is sound.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    # Two letters are too few to tell a BMP from text, so its header size must fit too.
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "image/bmp"
    return None


def image_info(data: bytes, max_pixels: int) -> ImageInfo:
    """Return size, type and number of frames of the picture in `data`.

    No pixel is decoded, so the result does not promise that the pixels are sound.

    Raises ImageError if the format is not accepted, the header is damaged, or one frame
    has more than `max_pixels` pixels (width times height; Pillow's own limit holds as well).
    """
    image, media_type = _open_header(data, max_pixels)
    with image:
        return ImageInfo(image.width, image.height, media_type, _count_frames(image, media_type))


def open_image(data: bytes, *, max_pixels: int) -> Image.Image:
    """Return the still picture in `data`, decoded, upright and without metadata.

    The mode is L, LA, RGB or RGBA, eight bits a channel: palettes and CMYK become RGB, of
    16-bit values the upper eight bits are kept, and a transparent colour becomes alpha,
    save in 16-bit greyscale, where it is dropped. EXIF orientation is applied; an EXIF
    block that cannot be read is ignored, though where warnings are errors Pillow refuses
    some JPEGs for it. Further pictures that a camera appends to a JPEG are ignored too.

    Raises ImageError if the format is not accepted, the picture is animated, the data is
    damaged or truncated, or it has more than `max_pixels` pixels (width times height;
    Pillow's own limit, `PIL.Image.MAX_IMAGE_PIXELS`, holds as well), or more scans than any
    program writes. A picture that lacks only what follows its last pixel is whole.
    Raises RuntimeError if the process lets Pillow accept truncated files.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES must be off")
    image, media_type = _open_header(data, max_pixels)
    with image:
        if _is_animated(image, media_type):
            raise ImageError("the picture is animated: a still picture with one frame is wanted")
        if media_type == "image/jpeg" and _has_too_many_scans(data):
            raise ImageError(f"the picture has more than {_MAX_SCANS} scans")
        try:
            image.load()
            orientation = _orientation(image)
            plain = _plain(image)
            plain.getexif()[ExifTags.Base.Orientation] = orientation
            return ImageOps.exif_transpose(plain)
        except Exception as error:
            raise _damaged(media_type) from error


def convert_image(data: bytes, media_type: str, *, max_pixels: int, quality: int = 90) -> bytes:
    """Return the still picture in `data` written anew as `media_type`, one of OUTPUT_TYPES.

    `quality`, 1 to 100, is for JPEG and WebP, which are written lossy; PNG has no use for
    it. JPEG has no alpha, so the picture is laid on white there. No metadata is kept: no
    EXIF (its orientation is applied), colour profile, XMP, text or resolution. The same
    input gives the same bytes with the same version of Pillow.

    Raises ImageError as `open_image` does, and if `media_type` or `quality` is not accepted
    or the picture is too long a side for `media_type`.
    """
    if media_type not in OUTPUT_TYPES:
        raise ImageError(f"unknown output type: accepted are {', '.join(OUTPUT_TYPES)}")
    if not 1 <= quality <= _MAX_QUALITY:
        raise ImageError(f"quality must be from 1 to {_MAX_QUALITY}")
    image = open_image(data, max_pixels=max_pixels)
    max_side = _MAX_SIDES[media_type]
    if max(image.size) > max_side:
        raise ImageError(
            f"the picture is {image.width} x {image.height} pixels: "
            f"{media_type} holds at most {max_side} a side"
        )
    if media_type == "image/jpeg":
        image = _flatten(image)
    output = BytesIO()
    try:
        image.save(output, _PILLOW_FORMATS[media_type], quality=quality)
    except Exception as error:
        raise ImageError(f"the picture cannot be written as {media_type}") from error
    return output.getvalue()


def _data_uri_payload(text: str) -> int:
    """Return where the base64 text starts: 0, or behind the header of a data URI."""
    if not _DATA_URI_START.match(text):
        return 0
    header = _DATA_URI_HEADER.match(text)
    if header is None or not "".join(header[1].split()).lower().endswith(";base64"):
        raise ImageError("the data URI is not base64: expected data:<media type>;base64,<data>")
    return header.end()


def _open_header(data: bytes, max_pixels: int) -> tuple[Image.Image, str]:
    """Return the picture with only its header read, and its media type."""
    media_type = sniff(data)
    if media_type is None:
        raise ImageError(f"not a picture in a known format: accepted are {_accepted_names()}")
    # Pillow warns above its own limit, and refuses only above twice that. Refusing at the
    # lower one makes the outcome the same whatever the process does with warnings.
    limit = min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels)
    try:
        image = Image.open(BytesIO(data), formats=[_PILLOW_FORMATS[media_type]])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"the picture is too large: at most {limit} pixels are accepted"
        ) from error
    except Exception as error:
        raise _damaged(media_type) from error
    width, height = image.size
    if width * height > limit:
        raise ImageError(
            f"the picture is too large: it is {width} x {height} pixels, "
            f"at most {limit} pixels are accepted"
        )
    return image, media_type


def _is_animated(image: Image.Image, media_type: str) -> bool:
    # Phones append depth maps and the like to a JPEG; Pillow counts those as frames.
    if media_type == "image/jpeg":
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception as error:
        raise _damaged(media_type) from error


def _has_too_many_scans(data: bytes) -> bool:
    """Tell whether a JPEG holds more scans than any program writes.

    Between markers it takes whatever there is, as decoders do, but nothing behind the end of the
    picture. Source: ITU-T T.81, B.1.1 and B.2.
    """
    position, scans = 2, 0
    while (found := _MARKER.search(data, position)) and found[1] != _END_OF_IMAGE:
        scans += found[1] == _START_OF_SCAN
        if scans > _MAX_SCANS:
            return True
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    return False


def _count_frames(image: Image.Image, media_type: str) -> int:
    if not _is_animated(image, media_type):
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception as error:
        raise _damaged(media_type) from error


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a loaded picture, or 1 if it has none to be read."""
    # EXIF from real cameras is often broken in parts that do not matter here.
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _plain(image: Image.Image) -> Image.Image:
    """Return a copy in mode L, LA, RGB or RGBA, with nothing but its pixels."""
    if image.mode.startswith("I"):
        # A plain conversion would turn every value above 255 white.
        plain = image.convert("I").point(lambda value: value / 256).convert("L")
    elif image.mode in ("1", "L", "LA"):
        plain = image.convert("LA" if image.has_transparency_data else "L")
    else:
        plain = image.convert("RGBA" if image.has_transparency_data else "RGB")
    plain.info = {}
    return plain


def _flatten(image: Image.Image) -> Image.Image:
    """Return the picture in mode L or RGB, with what is transparent laid on white."""
    if image.mode not in ("LA", "RGBA"):
        return image
    flat = Image.new(image.mode.removesuffix("A"), image.size, "white")
    flat.paste(image.convert(flat.mode), mask=image.getchannel("A"))
    return flat


def _damaged(media_type: str) -> ImageError:
    return ImageError(f"the picture is damaged or truncated: it does not read as {media_type}")


def _accepted_names() -> str:
    return ", ".join(_PILLOW_FORMATS.values())
