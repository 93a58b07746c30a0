"""Pictures, videos and sounds that are meant to do harm: what of them reaches the engine, if any."""

import json
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from templates.utils.image_utils import ImageError, convert_image

from .api_client import AS_FORM, Api, multipart, own_package, pointers, problem, running, size
from .test_av_utils import SOUNDS, VIDEOS, sound, video
from .test_image_utils import animation, noise, png_chunk, save

Factory = pytest.TempPathFactory

MAX_PIXELS = 1_000_000
SECRET = b"secret"
# Programs of other kinds, which browsers, shells and unpackers find in a file.
PAYLOADS = {
    "zip": b"PK\x03\x04" + bytes(26) + b"secret.txtsecretPK\x05\x06" + bytes(18),
    "html": b"<html><script>alert('secret')</script></html>",
    "script": b"\n#!/bin/sh\ncat secret\n",
    "php": b"<?php system('secret'); ?>",
    "pdf": b"%PDF-1.7\n1 0 obj<</JS(secret)>>endobj\n%%EOF",
    "picture": b"secret" + save(noise(8, 8), "PNG"),
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: Factory) -> Iterator[Api]:
    """A project with /workflow, that reads 1 MB and pictures of a million pixels."""
    package = own_package(tmp_path_factory.mktemp("own"))
    with running(tmp_path_factory.mktemp("base"), package=package) as found:
        yield found


GRAPHS: dict[str, dict[str, Any]] = {
    "picture": {
        "1": {"class_type": "LoadImage", "inputs": {"image": "file"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    },
    "video": {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "file"}},
        "2": {
            "class_type": "SaveVideo",
            "inputs": {
                "video": ["1", 0],
                "filename_prefix": "x",
                "format": "auto",
                "codec": "auto",
            },
        },
    },
    "sound": {
        "1": {"class_type": "LoadAudio", "inputs": {"audio": "file"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    },
}


def reached(own: Api, data: bytes, kind: str = "picture") -> bytes:
    """Send a file with a graph that loads it, and return what the engine was given."""
    graph = ('name="workflow"', json.dumps(GRAPHS[kind]).encode())
    file = ('name="files"; filename="file"', data)
    content = multipart(graph, file)
    reply = own.request("POST", "/workflow", content=content, headers=AS_FORM)
    assert reply.status_code == 200, reply.text
    [(_, given)] = own.works[-1].files.items()
    return bytes(given)


def refused(own: Api, data: bytes) -> str:
    """Send a file as a picture, and return why it is refused; nothing reaches the engine."""
    before = len(own.works)
    content = multipart(('name="image"; filename="x.png"', data))
    reply = own.request("POST", "/seedvr2", content=content, headers=AS_FORM)
    document = problem(reply, 422, "bad-media")
    assert pointers(document) == ["#/image"]
    assert len(own.works) == before
    found: str = document["detail"]
    return found


def chunks(png: bytes) -> list[bytes]:
    """Return the names of a PNG's chunks, and make sure that nothing lies behind them."""
    found: list[bytes] = []
    position = 8
    while position < len(png):
        (length,) = struct.unpack_from(">I", png, position)
        found.append(png[position + 4 : position + 8])
        position += 12 + length
    assert position == len(png)
    return found


def boxes(mp4: bytes) -> list[bytes]:
    """Return the names of an MP4's outermost boxes."""
    found: list[bytes] = []
    position = 0
    while position < len(mp4):
        (length,) = struct.unpack_from(">I", mp4, position)
        found.append(mp4[position + 4 : position + 8])
        position += length
    assert position == len(mp4)
    return found


def is_plain(png: bytes) -> bool:
    return set(chunks(png)) == {b"IHDR", b"IDAT", b"IEND"} and SECRET not in png


# Bombs: small files that would become large


def with_chunk(name: bytes, data: bytes, *, late: bool = False) -> bytes:
    """Return a PNG with another chunk, before its pixels or behind them."""
    png = save(Image.new("RGB", (8, 6), "red"), "PNG")
    place = png.index(b"IEND") - 4 if late else png.index(b"IDAT") - 4
    return png[:place] + png_chunk(name, data) + png[place:]


_HUGE = zlib.compress(bytes(200_000_000), 9)
TEXTS = {
    "zTXt": (b"zTXt", b"Comment\0\0" + _HUGE),
    "iTXt": (b"iTXt", b"Comment\0\1\0\0\0" + _HUGE),
    "iCCP": (b"iCCP", b"profile\0\0" + _HUGE),
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_text_that_unpacks_to_200_mb_is_not_unpacked(own: Api, name: str, late: bool) -> None:
    data = with_chunk(*TEXTS[name], late=late)
    assert len(data) < 200_000
    tracemalloc.start()
    try:
        png = convert_image(data, "image/png", max_pixels=MAX_PIXELS)
    except ImageError:
        assert "damaged" in refused(own, data)
    else:
        assert is_plain(png)
        assert reached(own, data) == png
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 5_000_000


def test_many_texts_together_are_bounded(own: Api) -> None:
    text = b"Comment\0\0" + zlib.compress(bytes(1_000_000), 9)
    png = save(Image.new("RGB", (8, 6), "red"), "PNG")
    place = png.index(b"IDAT") - 4
    data = png[:place] + png_chunk(b"zTXt", text) * 500 + png[place:]
    assert len(data) < 1_000_000
    assert "damaged" in refused(own, data)


def test_pixels_behind_the_last_pixel_are_not_unpacked(own: Api) -> None:
    header = struct.pack(">IIBBBBB", 8, 6, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", _HUGE)
    png += png_chunk(b"IEND", b"")
    tracemalloc.start()
    convert_image(png, "image/png", max_pixels=MAX_PIXELS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
    assert is_plain(reached(own, png))


def scans(count: int) -> bytes:
    """Return a JPEG of a million pixels, each of whose scans goes over all of them."""
    data = save(Image.new("L", (1000, 1000), 128), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * count + data[-2:]


def test_scans_that_say_nothing_are_counted(own: Api) -> None:
    assert refused(own, scans(10_000)).endswith("the picture has more than 100 scans")
    assert refused(own, scans(95)).endswith("the picture has more than 100 scans")
    assert size(reached(own, scans(90))) == (1000, 1000)


@pytest.mark.parametrize(
    "trick",
    [
        b"\xff\x01",
        b"\xff\xd0",
        b"\xff\xff\xff",
        b"\xff\xfe\0\x04\xff\xd9",
        b"garbage",
        b"\xff\0\xff\0",
    ],
)
def test_what_stands_between_scans_does_not_hide_them(own: Api, trick: bytes) -> None:
    data = scans(1000)
    first = data.index(b"\xff\xda")
    for hidden in (
        data[:2] + trick + data[2:],
        data[:first] + trick + data[first:],
        data.replace(b"\xff\xda", trick + b"\xff\xda"),
    ):
        message = refused(own, hidden)
        assert any(words in message for words in ("more than 100 scans", "damaged", "known format"))


def test_other_pictures_in_a_jpeg_are_not_counted(own: Api) -> None:
    """A thumbnail in its EXIF data, and a video that a phone appends."""
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 60 * 200) + (b"\xff\xda" + bytes(58)) * 200
    data = save(noise(64, 48), "JPEG", progressive=True)
    video_like = random.Random(1).randbytes(100_000) + b"\xff\xda" * 500
    assert size(reached(own, data[:2] + thumbnail + data[2:] + video_like)) == (64, 48)


def gif(frames: int) -> bytes:
    one = animation("GIF", 2)
    place = one.index(b"\x21\xf9")
    body = one[place:-1]
    return one[:place] + body * frames + b";"


@pytest.mark.parametrize(
    "data",
    [gif(10_000), animation("PNG", 3), animation("WEBP", 3), animation("GIF", 2)],
    ids=["gif of 20,000", "apng", "webp", "gif"],
)
def test_an_animation_is_refused_as_a_picture(own: Api, data: bytes) -> None:
    """Without looking at more than its second frame."""
    assert len(data) < 1_000_000
    assert "animated" in refused(own, data)


def test_a_frame_that_is_larger_than_its_gif(own: Api) -> None:
    data = bytearray(save(Image.new("RGB", (8, 6)), "GIF"))
    place = data.index(b"\x2c")
    struct.pack_into("<HH", data, place + 5, 60_000, 60_000)
    assert "pixels" in refused(own, bytes(data))


@pytest.mark.parametrize("frames", [1, 2])
def test_a_frame_of_an_apng_that_is_larger_than_it(own: Api, frames: int) -> None:
    control = struct.pack(">II", frames, 0)
    large = struct.pack(">IIIIIHHBB", 0, 50_000, 50_000, 0, 0, 1, 1, 0, 0)
    png = save(Image.new("RGB", (8, 6), "red"), "PNG")
    place = png.index(b"IDAT") - 4
    data = png[:place] + png_chunk(b"acTL", control) + png_chunk(b"fcTL", large) + png[place:]
    assert "damaged" in refused(own, data) or "animated" in refused(own, data)


def test_tiff_is_not_read(own: Api) -> None:
    """Its codecs are many, and its sizes may be anything."""
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", None):
        data = save(Image.new("RGB", (64, 48)), "TIFF", compression=compression)
        assert "known format" in refused(own, data)


def test_a_video_of_a_huge_picture(own: Api) -> None:
    data = video("mov", "mjpeg", size=(1600, 1200), times=[0], pixels="yuvj420p")
    assert_refused_with_graph(own, "video", data, "1600 x 1200 pixels, at most 1000000 pixels")


def test_a_video_of_very_many_pictures(own: Api) -> None:
    """As small as they are, and though they show nothing new: 1,500 × 32 × 24 pixels."""
    data = video(times=range(0, 1500 * 40, 40), sound=None)
    assert len(data) < 200_000
    assert_refused_with_graph(own, "video", data, "at most 1000000 pixels")


def test_sound_that_expands(own: Api) -> None:
    """A FLAC of silence is a few bytes a second."""
    hour = silence(3600)
    assert len(hour) < 1_000_000
    assert_refused_with_graph(own, "sound", hour, "at most 600 seconds")
    assert reached(own, silence(1), "sound").startswith(b"fLaC")


def silence(seconds: int) -> bytes:
    import av

    output = BytesIO()
    with av.open(output, "w", format="flac") as file:
        stream: Any = file.add_stream("flac", rate=8000, layout="mono")
        for second in range(seconds):
            frame = av.AudioFrame("s16", "mono", 8000)
            frame.planes[0].update(bytes(frame.planes[0].buffer_size))
            frame.rate, frame.pts = 8000, second * 8000
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return output.getvalue()


def assert_refused_with_graph(own: Api, kind: str, data: bytes, words: str) -> None:
    before = len(own.works)
    content = multipart(
        ('name="workflow"', json.dumps(GRAPHS[kind]).encode()),
        ('name="files"; filename="file"', data),
    )
    reply = own.request("POST", "/workflow", content=content, headers=AS_FORM)
    document = problem(reply, 422, "bad-media")
    assert pointers(document) == ["#/files/file"]
    assert words in document["detail"]
    assert len(own.works) == before


# Truncated and polyglot


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_picture_that_is_cut_in_its_pixels_is_refused(own: Api, image_format: str) -> None:
    whole = save(noise(64, 48), image_format)
    for share in (0.1, 0.5, 0.9):
        assert "damaged" in refused(own, whole[: int(len(whole) * share)])


def test_a_picture_that_is_cut_behind_its_last_pixel_is_taken(own: Api) -> None:
    """Nothing is missing from what goes on, which is written anew and whole."""
    whole = save(noise(64, 48), "PNG")
    for missing in (1, 4, 12):
        assert reached(own, whole[:-missing]) == convert_image(
            whole, "image/png", max_pixels=MAX_PIXELS
        )


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_what_lies_behind_a_picture_does_not_survive(own: Api, image_format: str) -> None:
    picture = save(noise(64, 48), image_format)
    plain = convert_image(picture, "image/png", max_pixels=MAX_PIXELS)
    for payload in PAYLOADS.values():
        assert convert_image(picture + payload, "image/png", max_pixels=MAX_PIXELS) == plain
    png = reached(own, picture + b"".join(PAYLOADS.values()))
    assert is_plain(png)
    assert png == plain


HIDDEN: dict[str, Callable[[bytes], bytes]] = {
    "in a comment of a JPEG": lambda secret: save(noise(64, 48), "JPEG", comment=secret),
    "in a comment of a GIF": lambda secret: save(noise(64, 48), "GIF", comment=secret),
    "in a chunk of a PNG": lambda secret: with_chunk(b"teXt", secret),
    "in a chunk of a WebP": lambda secret: riff(save(noise(64, 48), "WEBP"), b"EVIL", secret),
    "in the palette of a GIF": lambda secret: in_palette(secret),
    "between the header and the pixels of a BMP": lambda secret: in_gap(secret),
}


def riff(webp: bytes, name: bytes, data: bytes) -> bytes:
    body = webp[8:] + name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def in_palette(secret: bytes) -> bytes:
    image = Image.new("P", (16, 16))
    image.putdata(list(range(256)))
    image.putpalette(secret.ljust(768, b"\0")[:768])
    return save(image, "GIF", optimize=False)


def in_gap(secret: bytes) -> bytes:
    bmp = save(noise(64, 48), "BMP")
    (start,) = struct.unpack_from("<I", bmp, 10)
    return bmp[:10] + struct.pack("<I", start + len(secret)) + bmp[14:start] + secret + bmp[start:]


@pytest.mark.parametrize("place", sorted(HIDDEN))
def test_what_is_hidden_in_a_picture_does_not_survive(own: Api, place: str) -> None:
    data = HIDDEN[place](PAYLOADS["html"])
    assert SECRET in data
    assert is_plain(reached(own, data))


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b""])
def test_a_payload_that_starts_like_a_picture_is_none(own: Api, start: bytes) -> None:
    for payload in PAYLOADS.values():
        with pytest.raises(ImageError):
            convert_image(start + payload, "image/png", max_pixels=MAX_PIXELS)
    refused(own, start + PAYLOADS["html"])


def test_what_lies_behind_a_video_or_sound_does_not_survive(own: Api) -> None:
    payload = b"".join(PAYLOADS.values())
    free = struct.pack(">I4s", 8 + len(payload), b"free") + payload
    mp4 = reached(own, VIDEOS["mp4"] + free, "video")
    assert boxes(mp4)[0] == b"ftyp"
    assert set(boxes(mp4)) <= {b"ftyp", b"free", b"mdat", b"moov"}
    assert SECRET not in mp4
    flac = reached(own, SOUNDS["wav"] + payload, "sound")
    assert flac.startswith(b"fLaC")
    assert SECRET not in flac


# Metadata


def located(orientation: int) -> bytes:
    """Return EXIF data with a place, a camera and an owner."""
    data = Image.Exif()
    data[ExifTags.Base.Orientation] = orientation
    data[ExifTags.Base.Make] = "secret camera"
    data[ExifTags.Base.Artist] = "secret owner"
    gps = data.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef] = "N"
    gps[ExifTags.GPS.GPSLatitude] = (47.0, 22.0, 1.5)
    gps[ExifTags.GPS.GPSDateStamp] = "secret"
    return data.tobytes()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_photo_comes_upright_and_tells_nothing(
    own: Api, image_format: str, orientation: int
) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "secret prompt")
    text.add_itxt("XML:com.adobe.xmp", "secret xmp")
    more: dict[str, dict[str, Any]] = {
        "PNG": {"pnginfo": text, "dpi": (300, 300)},
        "JPEG": {"comment": b"secret comment", "xmp": b"secret xmp"},
        "WEBP": {"xmp": b"secret xmp"},
    }
    profile = b"\0" * 36 + b"acsp" + b"secret profile"
    data = save(
        Image.new("RGB", (40, 20), "red"),
        image_format,
        exif=located(orientation),
        icc_profile=profile,
        **more[image_format],
    )
    assert data.count(SECRET) >= 3
    png = reached(own, data)
    assert is_plain(png)
    assert size(png) == ((20, 40) if orientation > 4 else (40, 20))


def test_the_tags_of_videos_and_sounds_go(own: Api) -> None:
    tags = {
        "title": "secret",
        "comment": "secret",
        "location": "+47.37+008.54/",
        "artist": "secret",
    }
    for container in ("mp4", "mov", "matroska"):
        data = video(container, metadata=tags)
        assert SECRET in data
        mp4 = reached(own, data, "video")
        assert SECRET not in mp4
        assert b"+47.37" not in mp4
    for container, codec in (("mp3", "libmp3lame"), ("flac", "flac"), ("ogg", "libopus")):
        data = sound(container, codec, metadata=tags)
        assert SECRET in data
        assert SECRET not in reached(own, data, "sound")
