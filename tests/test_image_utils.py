"""The picture helpers, with sound pictures and hostile ones. All are made here with Pillow."""

import binascii
import struct
import tracemalloc
import warnings
import zlib
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile, PngImagePlugin

from templates.utils.image_utils import (
    ACCEPTED_TYPES,
    OUTPUT_TYPES,
    ImageError,
    ImageInfo,
    convert_image,
    data_uri,
    decode_base64,
    encode_base64,
    image_info,
    open_image,
    sniff,
)

MAX_PIXELS = 1_000_000
WHITE = (255, 255, 255)


def save(image: Image.Image, image_format: str, **options: Any) -> bytes:
    output = BytesIO()
    image.save(output, image_format, **options)
    return output.getvalue()


def reopen(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def near(pixel: Any, expected: tuple[int, ...], tolerance: int = 6) -> bool:
    return len(pixel) == len(expected) and all(
        abs(a - b) <= tolerance for a, b in zip(pixel, expected, strict=True)
    )


def noise(width: int = 24, height: int = 16, mode: str = "RGB") -> Image.Image:
    length = width * height * len(mode)
    data = bytes((n * 97 + n * n // 7) % 256 for n in range(length))
    return Image.frombytes(mode, (width, height), data)


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw_png(width: int, height: int, bits: int, colour_type: int, pixels: bytes) -> bytes:
    """A PNG that says whatever it is told to; each row of `pixels` starts with its filter."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(pixels))
        + png_chunk(b"IEND", b"")
    )


def lossless_webp(width: int, height: int) -> bytes:
    """A WebP whose header claims the size, with the pixels of a picture of 2 x 2."""
    data = bytearray(save(Image.new("RGB", (2, 2)), "WEBP", lossless=True))
    (bits,) = struct.unpack_from("<I", data, 21)
    size = (width - 1) | (height - 1) << 14
    struct.pack_into("<I", data, 21, bits & ~0xFFFFFFF | size)
    return bytes(data)


def animation(image_format: str, frames: int = 3) -> bytes:
    pictures = [Image.new("RGB", (8, 6), (n * 80, 255 - n * 80, n * 30)) for n in range(frames)]
    return save(
        pictures[0], image_format, save_all=True, append_images=pictures[1:], duration=100, loop=0
    )


SOUND = {
    "png": save(noise(), "PNG"),
    "png-alpha": save(noise(mode="RGBA"), "PNG"),
    "png-palette": save(noise().quantize(16), "PNG"),
    "jpeg": save(noise(), "JPEG"),
    "jpeg-progressive": save(noise(), "JPEG", progressive=True),
    "webp": save(noise(), "WEBP"),
    "webp-lossless": save(noise(mode="RGBA"), "WEBP", lossless=True),
    "gif": save(noise(), "GIF"),
    "bmp": save(noise(), "BMP"),
    "apng": animation("PNG"),
    "gif-animated": animation("GIF"),
    "webp-animated": animation("WEBP"),
}
STILLS = {name: data for name, data in SOUND.items() if image_info(data, MAX_PIXELS).frames == 1}


@pytest.mark.parametrize(
    "text",
    [
        "aGVsbG8=",
        " aGVs\r\n\tbG8=\n",
        "data:image/png;base64,aGVsbG8=",
        "data:;base64,aGVsbG8=",
        "DATA:Image/PNG;BASE64,aGVsbG8=",
        "\n data:text/plain;charset=utf-8;name=a.txt;base64,aGVs\nbG8=\n",
        "data: image/png; base64 , aGVs bG8=",
    ],
)
def test_base64_is_read_plain_and_as_a_data_uri(text: str) -> None:
    assert decode_base64(text, 5) == b"hello"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("data:image/png;base64,", "empty"),
        ("aGVsbG8", "padding"),
        ("aGVsb", "padding"),
        ("-_-_", "URL-safe"),
        (urlsafe_b64encode(b"\xfb\xff\xfe" * 2).decode(), "URL-safe"),
        ("aGVs!G8=", "not valid base64"),
        ("aGVsbG8%3D==", "not valid base64"),
        ("aG=sbG8=", "not valid base64"),
        ("====", "not valid base64"),
        ("aGVsbG8=aGVsbG8=", "not valid base64"),
        ("é" * 4, "not valid base64"),
        ("data:image/png,aGVsbG8=", "data URI"),
        ("data:image/png;base64", "data URI"),
        ("data:image/png;base64;charset=utf-8,aGVsbG8=", "data URI"),
        ("data:" + "x" * 5000 + ";base64,aGVsbG8=", "data URI"),
    ],
)
def test_what_is_not_base64_is_refused(text: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode_base64(text, 1000)


@given(st.binary(min_size=1, max_size=200), st.integers(1, 80))
@settings(max_examples=100, deadline=None)
def test_base64_comes_back_however_it_is_wrapped(data: bytes, width: int) -> None:
    text = encode_base64(data)
    assert text == b64encode(data).decode()
    lines = "\r\n".join(text[start : start + width] for start in range(0, len(text), width))
    assert decode_base64(lines, len(data)) == data
    assert decode_base64(data_uri(data, "image/png"), len(data)) == data


@given(st.binary(min_size=1, max_size=50))
@settings(max_examples=100, deadline=None)
def test_one_byte_too_many_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=f"at most {len(data) - 1} bytes"):
        decode_base64(encode_base64(data), len(data) - 1)


# A small alphabet, as one of all of Unicode takes seconds to set up.
@given(st.text("AZaz09+/=-_ \n,;:%é\0", max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_decodes_or_is_refused(text: str) -> None:
    for candidate in (text, "data:" + text, "data:image/png;base64," + text):
        try:
            assert 0 < len(decode_base64(candidate, 40)) <= 40
        except ImageError:
            continue


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_too_much_base64_is_refused_before_it_is_decoded(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = prefix + "A" * 20_000_000

    def decoded(*_: object, **__: object) -> bytes:
        raise AssertionError("decoded")

    monkeypatch.setattr(binascii, "a2b_base64", decoded)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="at most 1000 bytes"):
            decode_base64(text, 1000)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_data_uri_is_written_as_browsers_read_it() -> None:
    assert data_uri(b"hello", "image/webp") == "data:image/webp;base64,aGVsbG8="


@pytest.mark.parametrize(
    ("image_format", "media_type"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
    ],
)
def test_each_accepted_format_is_told_by_its_bytes(image_format: str, media_type: str) -> None:
    data = save(Image.new("RGB", (7, 5), (10, 200, 30)), image_format)
    assert sniff(data) == media_type
    assert media_type in ACCEPTED_TYPES
    assert image_info(data, MAX_PIXELS) == ImageInfo(7, 5, media_type, 1)
    image = open_image(data, max_pixels=MAX_PIXELS)
    assert image.size == (7, 5)
    assert image.mode == "RGB"
    assert near(image.getpixel((6, 4)), (10, 200, 30))


@pytest.mark.parametrize("image_format", ["TIFF", "ICO", "PPM", "EPS", "PCX", "TGA", "PDF"])
def test_formats_that_pillow_knows_but_callers_have_no_use_for_are_refused(
    image_format: str,
) -> None:
    data = save(Image.new("RGB", (16, 16)), image_format)
    assert sniff(data) is None
    with pytest.raises(ImageError, match="accepted are PNG, JPEG, WEBP, GIF, BMP"):
        open_image(data, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG",
        b"BM",
        b"BMW makes motor cars and motor cycles, and this is text about them",
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x00" * 64 + SOUND["png"],
    ],
)
def test_what_is_no_picture_has_no_type(data: bytes) -> None:
    assert sniff(data) is None
    for read in readers():
        with pytest.raises(ImageError, match="not a picture in a known format"):
            read(data)


@pytest.mark.parametrize(
    "start",
    [
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        b"GIF89a",
        b"BM" + b"\0" * 12 + struct.pack("<I", 40),
    ],
)
@pytest.mark.parametrize("rest", [b"", b"/*<script>alert(1)</script>*/", b"\0" * 99, b"\xff" * 99])
def test_the_first_bytes_alone_do_not_make_a_picture(start: bytes, rest: bytes) -> None:
    media_type = sniff(start)
    assert media_type in ACCEPTED_TYPES
    with pytest.raises(ImageError, match=r"damaged or truncated|too large"):
        open_image(start + rest, max_pixels=MAX_PIXELS)


def test_only_the_decoder_of_the_sniffed_format_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[list[str]] = []
    real_open = Image.open

    def spy(fp: BytesIO, formats: list[str]) -> Image.Image:
        tried.append(formats)
        return real_open(fp, formats=formats)

    monkeypatch.setattr(Image, "open", spy)
    open_image(SOUND["jpeg"], max_pixels=MAX_PIXELS)
    image_info(SOUND["bmp"], MAX_PIXELS)
    assert tried == [["JPEG"], ["BMP"]]


def readers() -> list[Callable[[bytes], object]]:
    return [
        lambda data: image_info(data, MAX_PIXELS),
        lambda data: open_image(data, max_pixels=MAX_PIXELS),
        lambda data: convert_image(data, "image/png", max_pixels=MAX_PIXELS),
    ]


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: ImageFile.ImageFile) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_the_limit_is_exact_and_holds_before_decoding(image_format: str) -> None:
    data = save(Image.new("RGB", (30, 20)), image_format)
    assert image_info(data, 600).width == 30
    with pytest.raises(ImageError, match="30 x 20 pixels, at most 599 pixels"):
        image_info(data, 599)
    with pytest.raises(ImageError, match="30 x 20 pixels, at most 599 pixels"):
        open_image(data, max_pixels=599)


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize(
    "data",
    [
        raw_png(100_000, 100_000, 8, 2, b"\0"),
        raw_png(2**31 - 1, 2**31 - 1, 1, 0, b"\0"),
        lossless_webp(16_384, 16_384),
        lossless_webp(4_000, 4_000),
        b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + SOUND["gif"][10:],
    ],
)
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_a_header_that_claims_too_much_is_refused(data: bytes, action: Any) -> None:
    warnings.simplefilter(action)
    for read in readers():
        with pytest.raises(ImageError, match=r"too large.*at most 1000000 pixels"):
            read(data)


@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize("side", [11, 14, 15, 40])
def test_pillows_own_limit_holds_whatever_happens_to_warnings(
    side: int, action: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a limit of 100 Pillow warns up to 200 pixels and raises beyond.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    warnings.simplefilter(action)
    with pytest.raises(ImageError, match="at most 100 pixels"):
        open_image(save(Image.new("L", (side, side)), "PNG"), max_pixels=MAX_PIXELS)
    assert open_image(save(noise(10, 10), "PNG"), max_pixels=MAX_PIXELS).size == (10, 10)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize(
    "data",
    [
        raw_png(0, 5, 8, 2, b"\0"),
        b"GIF89a" + bytes(7) + b"," + bytes(9) + b"\x02\x02\x44\x01\0;",
        SOUND["bmp"][:18] + bytes(4) + SOUND["bmp"][22:],
    ],
)
def test_a_picture_of_no_size_is_refused(data: bytes) -> None:
    for read in readers():
        with pytest.raises(ImageError, match="damaged or truncated"):
            read(data)


def test_a_process_without_pillows_limit_keeps_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="at most 99 pixels"):
        open_image(save(noise(10, 10), "PNG"), max_pixels=99)


@given(st.sampled_from(sorted(STILLS)), st.floats(0, 1, exclude_max=True))
@settings(max_examples=150, deadline=None)
def test_a_cut_picture_is_refused_unless_no_pixel_is_missing(name: str, share: float) -> None:
    whole = STILLS[name]
    cut = whole[: int(len(whole) * share)]
    try:
        image = open_image(cut, max_pixels=MAX_PIXELS)
    except ImageError:
        return
    assert len(cut) > len(whole) - 24
    assert image.tobytes() == open_image(whole, max_pixels=MAX_PIXELS).tobytes()


@pytest.mark.parametrize("name", sorted(STILLS))
def test_half_a_picture_is_refused(name: str) -> None:
    half = STILLS[name][: len(STILLS[name]) // 2]
    with pytest.raises(ImageError, match=f"damaged or truncated: .* {sniff(half)}"):
        open_image(half, max_pixels=MAX_PIXELS)


def test_the_header_of_a_cut_picture_can_still_be_read() -> None:
    data = save(noise(64, 48), "PNG")
    assert image_info(data[: len(data) // 2], MAX_PIXELS) == ImageInfo(64, 48, "image/png", 1)


def test_a_process_that_lets_truncated_files_pass_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES must be off"):
        open_image(SOUND["png"], max_pixels=MAX_PIXELS)


def read_all(data: bytes) -> None:
    for read in readers():
        try:
            read(data)
        except ImageError as error:
            message = str(error)
            assert len(message) < 200
            assert message.isascii()
            assert message.isprintable()
            for internal in ("0x", "BytesIO", "PIL", "\\x", ".py", "Traceback"):
                assert internal not in message


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_random_bytes_raise_nothing_but_image_errors(data: bytes) -> None:
    read_all(data)
    for start in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", SOUND["webp"][:16]):
        read_all(start + data)


@given(
    st.sampled_from(sorted(SOUND)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3),
)
@settings(max_examples=250, deadline=None)
def test_damaged_pictures_raise_nothing_but_image_errors(
    name: str, anywhere: list[tuple[float, int]], header: list[tuple[int, int]]
) -> None:
    data = bytearray(SOUND[name])
    for share, value in anywhere:
        data[int(share * len(data))] = value
    for position, value in header:
        data[position] = value
    read_all(bytes(data))


@pytest.mark.parametrize(
    ("image_format", "media_type"),
    [("GIF", "image/gif"), ("WEBP", "image/webp"), ("PNG", "image/png")],
)
def test_an_animation_is_counted_and_refused_as_a_still(image_format: str, media_type: str) -> None:
    data = animation(image_format, 3)
    assert image_info(data, MAX_PIXELS) == ImageInfo(8, 6, media_type, 3)
    with pytest.raises(ImageError, match="animated: a still picture"):
        open_image(data, max_pixels=MAX_PIXELS)
    with pytest.raises(ImageError, match="animated: a still picture"):
        convert_image(data, "image/png", max_pixels=MAX_PIXELS)


def test_further_pictures_in_a_jpeg_do_not_make_it_an_animation() -> None:
    first, second = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (8, 6), "blue")
    data = save(first, "MPO", save_all=True, append_images=[second])
    assert reopen(data).format == "MPO"
    assert image_info(data, MAX_PIXELS) == ImageInfo(8, 6, "image/jpeg", 1)
    assert near(open_image(data, max_pixels=MAX_PIXELS).getpixel((0, 0)), (255, 0, 0))


def exif(orientation: Any) -> Image.Exif:
    block = Image.Exif()
    block[ExifTags.Base.Orientation] = orientation
    block[ExifTags.Base.Artist] = "a secret name"
    return block


@pytest.mark.parametrize(
    ("orientation", "rows"),
    [
        (1, ["ABC", "DEF"]),
        (2, ["CBA", "FED"]),
        (3, ["FED", "CBA"]),
        (4, ["DEF", "ABC"]),
        (5, ["AD", "BE", "CF"]),
        (6, ["DA", "EB", "FC"]),
        (7, ["FC", "EB", "DA"]),
        (8, ["CF", "BE", "AD"]),
        (99, ["ABC", "DEF"]),
    ],
)
def test_every_exif_orientation_comes_out_upright(orientation: int, rows: list[str]) -> None:
    stored = Image.frombytes("L", (3, 2), b"ABCDEF")
    data = save(stored, "PNG", exif=exif(orientation))
    assert image_info(data, MAX_PIXELS) == ImageInfo(3, 2, "image/png", 1)
    for image in (
        open_image(data, max_pixels=MAX_PIXELS),
        reopen(convert_image(data, "image/png", max_pixels=MAX_PIXELS)),
    ):
        assert image.size == (len(rows[0]), len(rows))
        assert image.tobytes() == "".join(rows).encode()
        assert dict(image.getexif()) == {}


def test_a_rotated_jpeg_comes_out_rotated_and_without_exif() -> None:
    stored = Image.new("RGB", (32, 16), "red")
    stored.paste("blue", (16, 0, 32, 16))
    data = save(stored, "JPEG", exif=exif(6), quality=95, subsampling=0)
    assert reopen(data).getexif()[ExifTags.Base.Orientation] == 6

    image = open_image(data, max_pixels=MAX_PIXELS)
    assert image.info == {}
    output = convert_image(data, "image/jpeg", max_pixels=MAX_PIXELS)
    assert b"Exif" not in output
    assert b"secret" not in output
    for upright in (image, reopen(output)):
        assert upright.size == (16, 32)
        assert near(upright.getpixel((8, 3)), (255, 0, 0))
        assert near(upright.getpixel((8, 28)), (0, 0, 255))
        assert dict(upright.getexif()) == {}


@pytest.mark.parametrize("block", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b""])
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_exif_that_cannot_be_read_is_ignored(block: bytes, image_format: str) -> None:
    # Pillow warns of such a block already when it opens a JPEG.
    warnings.simplefilter("ignore")
    data = save(Image.new("RGB", (5, 3), "red"), image_format, exif=block)
    image = open_image(data, max_pixels=MAX_PIXELS)
    assert image.size == (5, 3)
    assert near(image.getpixel((4, 2)), (255, 0, 0))


@pytest.mark.parametrize(
    ("picture", "mode", "pixel"),
    [
        (Image.new("1", (4, 4), 1), "L", 255),
        (Image.new("L", (4, 4), 77), "L", 77),
        (Image.new("LA", (4, 4), (77, 20)), "LA", (77, 20)),
        (Image.new("RGB", (4, 4), (1, 2, 3)), "RGB", (1, 2, 3)),
        (Image.new("RGBA", (4, 4), (1, 2, 3, 4)), "RGBA", (1, 2, 3, 4)),
        (Image.new("RGB", (4, 4), (9, 80, 200)).quantize(4), "RGB", (9, 80, 200)),
        (Image.new("I;16", (4, 4), 0x8012), "L", 0x80),
        (Image.new("I;16", (4, 4), 0xFFFF), "L", 0xFF),
    ],
)
def test_every_mode_becomes_eight_bits_of_grey_or_rgb(
    picture: Image.Image, mode: str, pixel: Any
) -> None:
    data = save(picture, "PNG")
    image = open_image(data, max_pixels=MAX_PIXELS)
    assert (image.mode, image.getpixel((3, 3))) == (mode, pixel)
    written = reopen(convert_image(data, "image/png", max_pixels=MAX_PIXELS))
    assert (written.mode, written.getpixel((3, 3))) == (mode, pixel)


def test_sixteen_bit_colour_and_alpha_keep_their_upper_bits() -> None:
    pixels = struct.pack(">HHHH", 0x1234, 0x5678, 0x9ABC, 0xDEF0)
    image = open_image(raw_png(1, 1, 16, 6, b"\0" + pixels), max_pixels=MAX_PIXELS)
    assert (image.mode, image.getpixel((0, 0))) == ("RGBA", (0x12, 0x56, 0x9A, 0xDE))


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_a_transparent_palette_entry_becomes_alpha(image_format: str) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    data = save(picture, image_format, transparency=1)
    image = open_image(data, max_pixels=MAX_PIXELS)
    assert image.mode == "RGBA"
    assert image.getpixel((0, 0)) == (255, 0, 0, 255)
    assert image.getpixel((1, 0)) == (0, 0, 255, 0)
    assert "transparency" not in image.info


def test_a_transparent_colour_becomes_alpha() -> None:
    picture = Image.new("RGB", (2, 1), (1, 2, 3))
    picture.putpixel((1, 0), (4, 5, 6))
    image = open_image(save(picture, "PNG", transparency=(4, 5, 6)), max_pixels=MAX_PIXELS)
    assert image.mode == "RGBA"
    assert image.getpixel((0, 0)) == (1, 2, 3, 255)
    assert image.getpixel((1, 0)) == (4, 5, 6, 0)


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    picture = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    data = save(picture, "JPEG", quality=95)
    assert reopen(data).mode == "CMYK"
    image = open_image(data, max_pixels=MAX_PIXELS)
    assert image.mode == "RGB"
    assert near(image.getpixel((8, 8)), (255, 0, 0))


@pytest.mark.parametrize("name", sorted(STILLS))
@pytest.mark.parametrize(
    ("media_type", "image_format"),
    [("image/png", "PNG"), ("image/jpeg", "JPEG"), ("image/webp", "WEBP")],
)
def test_every_still_converts_to_every_output_type(
    name: str, media_type: str, image_format: str
) -> None:
    assert media_type in OUTPUT_TYPES
    output = convert_image(STILLS[name], media_type, max_pixels=MAX_PIXELS)
    written = reopen(output)
    assert sniff(output) == media_type
    assert (written.format, written.size) == (image_format, (24, 16))
    assert convert_image(STILLS[name], media_type, max_pixels=MAX_PIXELS) == output


def test_png_keeps_every_pixel() -> None:
    output = convert_image(SOUND["png-alpha"], "image/png", max_pixels=MAX_PIXELS)
    assert reopen(output).tobytes() == noise(mode="RGBA").tobytes()


@pytest.mark.parametrize(
    ("picture", "pixel"),
    [
        (Image.new("RGBA", (16, 16), (200, 0, 0, 0)), WHITE),
        (Image.new("RGBA", (16, 16), (200, 0, 0, 255)), (200, 0, 0)),
        (Image.new("RGBA", (16, 16), (0, 0, 0, 51)), (204, 204, 204)),
    ],
)
def test_alpha_is_laid_on_white_for_jpeg(picture: Image.Image, pixel: tuple[int, ...]) -> None:
    written = reopen(convert_image(save(picture, "PNG"), "image/jpeg", max_pixels=MAX_PIXELS))
    assert written.mode == "RGB"
    assert near(written.getpixel((8, 8)), pixel)


def test_grey_stays_grey_in_a_jpeg() -> None:
    picture = Image.new("LA", (16, 16), (0, 51))
    written = reopen(convert_image(save(picture, "PNG"), "image/jpeg", max_pixels=MAX_PIXELS))
    assert written.mode == "L"
    assert written.getpixel((8, 8)) in range(200, 209)


def test_webp_keeps_alpha() -> None:
    picture = Image.new("RGBA", (16, 16), (200, 100, 0, 128))
    written = reopen(convert_image(save(picture, "PNG"), "image/webp", max_pixels=MAX_PIXELS))
    assert written.mode == "RGBA"
    assert near(written.getpixel((8, 8)), (200, 100, 0, 128))


@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("media_type", OUTPUT_TYPES)
def test_no_metadata_and_no_appended_payload_is_kept(source: str, media_type: str) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "secret prompt")
    by_source: dict[str, dict[str, Any]] = {
        "PNG": {"pnginfo": text, "dpi": (300, 300)},
        "JPEG": {"comment": b"secret comment", "xmp": b"secret xmp", "dpi": (300, 300)},
        "WEBP": {"xmp": b"secret xmp"},
    }
    profile = b"\0" * 36 + b"acsp" + b"secret profile"
    data = save(noise(), source, exif=exif(1), icc_profile=profile, **by_source[source])
    data += b"secret payload"
    assert reopen(data).info["exif"]
    assert reopen(data).info["icc_profile"] == profile

    assert open_image(data, max_pixels=MAX_PIXELS).info == {}
    output = convert_image(data, media_type, max_pixels=MAX_PIXELS)
    assert b"secret" not in output
    left = {"jfif", "jfif_version", "jfif_unit", "jfif_density", "loop", "background"}
    # WebP's reader in Pillow invents the time of a still's only frame.
    left |= {"timestamp", "duration"}
    assert set(reopen(output).info) <= left


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/webp"])
def test_a_lower_quality_is_smaller(media_type: str) -> None:
    def size(quality: int) -> int:
        data = SOUND["png"]
        return len(convert_image(data, media_type, max_pixels=MAX_PIXELS, quality=quality))

    assert size(1) < size(50) < size(100)


@pytest.mark.parametrize("quality", [-1, 0, 101])
def test_an_impossible_quality_is_refused(quality: int) -> None:
    with pytest.raises(ImageError, match="from 1 to 100"):
        convert_image(SOUND["png"], "image/jpeg", max_pixels=MAX_PIXELS, quality=quality)


@pytest.mark.parametrize("media_type", ["image/gif", "image/tiff", "png", ""])
def test_an_unknown_output_type_is_refused(media_type: str) -> None:
    with pytest.raises(ImageError, match="accepted are image/png, image/jpeg, image/webp"):
        convert_image(SOUND["png"], media_type, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize(("media_type", "side"), [("image/jpeg", 65_500), ("image/webp", 16_383)])
def test_a_side_that_the_output_cannot_hold_is_refused(media_type: str, side: int) -> None:
    fits, exceeds = (save(Image.new("L", (width, 1)), "PNG") for width in (side, side + 1))
    written = reopen(convert_image(fits, media_type, max_pixels=MAX_PIXELS))
    assert written.size == (side, 1)
    with pytest.raises(ImageError, match=f"{media_type} holds at most {side} a side"):
        convert_image(exceeds, media_type, max_pixels=MAX_PIXELS)


def test_image_error_is_a_value_error() -> None:
    assert issubclass(ImageError, ValueError)
