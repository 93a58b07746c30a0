"""Videos and sound, good ones and hostile ones. All are made here with PyAV and Pillow."""

import math
import time
import wave
import zipfile
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import pytest
from av.audio.frame import AudioFrame
from av.stream import Disposition
from av.video.frame import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from templates.utils import av_utils
from templates.utils.av_utils import (
    AUDIO_TYPES,
    VIDEO_TYPES,
    AvError,
    convert_audio,
    convert_video,
    sniff_audio,
    sniff_video,
)

MAX_PIXELS = 1_000_000
RATE = 48_000
QUARTERS = ((250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 250))
RGB, RESERVED = 0, 3
Colour = tuple[int, ...]


def picture(width: int, height: int, colours: Sequence[Colour] = QUARTERS) -> Image.Image:
    """A picture in four quarters."""
    small = Image.new("RGB", (2, 2))
    small.putdata(list(colours))
    return small.resize((width, height), Image.Resampling.NEAREST)


def frame(
    size: tuple[int, int] = (32, 24),
    time: int = 0,
    base: Fraction = Fraction(1, 1000),
    pixels: str = "yuv420p",
) -> VideoFrame:
    from_image: Any = VideoFrame.from_image
    made: VideoFrame = from_image(picture(*size)).reformat(format=pixels)
    made.pts, made.time_base = time, base
    return made


def video(
    container: str = "mp4",
    codec: str = "libx264",
    *,
    size: tuple[int, int] = (32, 24),
    times: Sequence[int] = range(0, 400, 40),
    pixels: str = "yuv420p",
    sound: str | None = None,
    turn: dict[str, Any] | None = None,
    options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    **context: Any,
) -> bytes:
    """A video of a picture in four quarters; `times` are in milliseconds."""
    output = BytesIO()
    with av.open(output, "w", format=container, container_options=options or {}) as file:
        file.metadata.update(metadata or {})
        stream: Any = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if turn:
            stream.set_display_rotation(**turn)
        noise: Any = file.add_stream(sound, rate=RATE, layout="mono") if sound else None
        for time in times:
            file.mux(stream.encode(frame(size, time, pixels=pixels)))
        for each in tone(len(times) * RATE // 25) if noise else ():
            file.mux(noise.encode(each))
        for each in (stream, noise) if noise else (stream,):
            file.mux(each.encode())
    return output.getvalue()


def tone(
    samples: int, rate: int = RATE, layout: str = "mono", chunk: int = 960
) -> list[AudioFrame]:
    frames = []
    for start in range(0, samples, chunk):
        frame = AudioFrame("s16", layout, min(chunk, samples - start))
        wave = [round(9000 * math.sin((start + n) / 8)) for n in range(frame.samples)]
        data = array("h", (value for value in wave for _ in frame.layout.channels)).tobytes()
        frame.planes[0].update(data.ljust(frame.planes[0].buffer_size, b"\0"))
        frame.rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        frames.append(frame)
    return frames


def sound(
    container: str,
    codec: str,
    *,
    rate: int = RATE,
    layout: str = "mono",
    samples: int = 9600,
    metadata: dict[str, str] | None = None,
) -> bytes:
    output = BytesIO()
    with av.open(output, "w", format=container) as file:
        file.metadata.update(metadata or {})
        stream: Any = file.add_stream(codec, rate=rate, layout=layout)
        for frame in tone(samples, rate, layout):
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return output.getvalue()


def wav(samples: bytes, *, channels: int = 1, width: int = 2, rate: int = RATE) -> bytes:
    output = BytesIO()
    with wave.open(output, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples)
    return output.getvalue()


VIDEOS = {
    "mp4": video(sound="aac"),
    "mp4-fragments": video(
        sound="aac", options={"movflags": "frag_keyframe+empty_moov"}, gop_size=5
    ),
    "mov": video("mov", "mpeg4", sound="pcm_s16le"),
    "mjpeg": video("mov", "mjpeg", pixels="yuvj420p"),
    "webm": video("webm", "libvpx-vp9", sound="libopus"),
    "webm-vp8": video("webm", "libvpx"),
    "mkv": video("matroska", sound="flac"),
}
SOUNDS = {
    "wav": sound("wav", "pcm_s16le"),
    "mp3": sound("mp3", "libmp3lame"),
    "flac": sound("flac", "flac"),
    "ogg": sound("ogg", "libopus"),
    "m4a": sound("ipod", "aac"),
    "aac": sound("adts", "aac"),
}
EVERYTHING = VIDEOS | SOUNDS


@dataclass
class Read:
    """What a file holds."""

    codecs: list[str]
    times: list[float]
    pictures: list[Image.Image]
    samples: int
    pixels: str = ""
    layout: str = ""
    rate: int = 0
    colorspace: int = 0


def read(data: bytes) -> Read:
    found = Read([], [], [], 0)
    with av.open(BytesIO(data), "r") as file:
        found.codecs = [stream.codec_context.name for stream in file.streams]
        for frame in file.decode():
            if isinstance(frame, VideoFrame):
                found.times.append(round(frame.time, 4))
                to_image: Any = frame.to_image
                found.pictures.append(to_image())
                found.pixels, found.colorspace = frame.format.name, frame.colorspace
                assert frame.rotation == 0
            elif isinstance(frame, AudioFrame):
                found.samples += frame.samples
                found.layout, found.rate = frame.layout.name, frame.sample_rate
    return found


def quarters(image: Image.Image) -> list[Colour]:
    """The colours in the middle of each quarter, as they were before they were coded."""
    width, height = image.size
    found = []
    for x, y in ((1, 1), (3, 1), (1, 3), (3, 3)):
        pixel: Any = image.getpixel((x * width // 4, y * height // 4))
        found.append(tuple(250 if value > 200 else 0 if value < 50 else value for value in pixel))
    return found


def to_mp4(data: bytes, *, max_pixels: int = MAX_PIXELS, max_seconds: float = 60) -> bytes:
    return convert_video(data, max_pixels=max_pixels, max_seconds=max_seconds)


def to_flac(data: bytes, *, max_seconds: float = 60) -> bytes:
    return convert_audio(data, max_seconds=max_seconds)


# First bytes


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("mp4", "video/mp4"),
        ("mp4-fragments", "video/mp4"),
        ("mov", "video/quicktime"),
        ("webm", "video/webm"),
        ("mkv", "video/x-matroska"),
        ("wav", "audio/wav"),
        ("mp3", "audio/mpeg"),
        ("flac", "audio/flac"),
        ("ogg", "audio/ogg"),
        ("m4a", "audio/mp4"),
        ("aac", "audio/aac"),
    ],
)
def test_each_format_is_told_by_its_first_bytes(name: str, media_type: str) -> None:
    found = (sniff_video(EVERYTHING[name]), sniff_audio(EVERYTHING[name]))
    assert found == ((media_type, None) if name in VIDEOS else (None, media_type))
    assert media_type in VIDEO_TYPES + AUDIO_TYPES


def test_an_mp3_without_a_tag_is_told_by_its_first_frame() -> None:
    bare = SOUNDS["mp3"][SOUNDS["mp3"].index(b"\xff\xfb") :]
    assert sniff_audio(bare) == "audio/mpeg"
    assert read(to_flac(bare)).samples > 9000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"\xff\xfe<\0h\0t\0m\0l\0",
        b"\xff\xd8\xff\xe0",
        b"\xff\xff\xff\xff",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\n",
        b"RIFF\x24\0\0\0AVI LIST",
        b"RIFF\x24\0\0\0WEBPVP8 ",
        b"GIF89a",
        b"FLV\x01",
        b"\x1a\x45\xdf\xa3\x42\x82\x84junk",
        b"OggS" + bytes(24) + b"\x80theora",
        b"\0\0\0\x18ftypavif\0\0\0\0",
        b"\0\0\0\x18ftypheic\0\0\0\0",
        b"\0\0\0\x18ftypmif1\0\0\0\0",
        b"\0" * 8 + VIDEOS["mp4"],
    ],
)
def test_what_is_no_video_and_no_sound_is_refused(data: bytes) -> None:
    assert sniff_video(data) is None
    assert sniff_audio(data) is None
    with pytest.raises(AvError, match="not a video in a known format: accepted are video/mp4"):
        to_mp4(data)
    with pytest.raises(AvError, match="not sound in a known format: accepted are audio/wav"):
        to_flac(data)


# Videos


@pytest.mark.parametrize("name", sorted(VIDEOS))
def test_a_video_keeps_its_pictures_and_times(name: str) -> None:
    before, after = read(VIDEOS[name]), read(to_mp4(VIDEOS[name]))
    assert sniff_video(to_mp4(VIDEOS[name])) == "video/mp4"
    assert after.codecs == ["h264", "aac"][: len(before.codecs)]
    assert (after.pixels, after.times) == ("yuv420p", before.times)
    assert {image.size for image in after.pictures} == {(32, 24)}
    assert all(quarters(image) == list(QUARTERS) for image in after.pictures)
    assert abs(after.samples - before.samples) <= 2048


@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_the_same_input_gives_the_same_bytes(name: str) -> None:
    convert = to_mp4 if name in VIDEOS else to_flac
    assert len({convert(EVERYTHING[name]) for _ in range(4)}) == 1


@pytest.mark.parametrize(
    "times",
    [(0, 40, 200, 210, 1000), (0, 1, 2, 3), (500, 540, 700), (0, 33, 67, 100, 133), (0,)],
)
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_time_stamps_are_kept(times: tuple[int, ...], container: str) -> None:
    data = video(container, times=times)
    assert [1000 * time for time in read(to_mp4(data)).times] == list(times)


def test_the_last_picture_is_shown_as_long_as_before() -> None:
    output = BytesIO()
    with av.open(output, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=25, options={"bf": "0"}, width=32, height=24)
        stream.codec_context.time_base = Fraction(1, 1000)
        packets = [packet for n in range(3) for packet in stream.encode(frame(time=40 * n))]
        packets += stream.encode()
        packets[-1].duration = 920
        file.mux(packets)
    for data, seconds in ((output.getvalue(), 1), (VIDEOS["mp4"], 0.4), (VIDEOS["mjpeg"], 0.4)):
        with av.open(BytesIO(to_mp4(data)), "r") as file:
            found = file.streams.video[0]
            assert found.duration is not None
            assert found.time_base is not None
            assert found.duration * found.time_base == Fraction(str(seconds))


def test_pictures_are_coded_anew() -> None:
    """Each picture of Motion JPEG is a whole one; of H.264 only the first is to be."""
    with av.open(BytesIO(to_mp4(VIDEOS["mjpeg"])), "r") as file:
        assert [packet.is_keyframe for packet in file.demux(video=0) if packet.size].count(
            True
        ) == 1


def test_a_track_of_sound_without_sound_is_left_out_or_empty() -> None:
    output = BytesIO()
    with av.open(output, "w", format="matroska") as file:
        pictures = file.add_stream("libx264", rate=25, width=32, height=24)
        file.add_stream("pcm_s16le", rate=RATE, layout="mono")
        file.mux([*pictures.encode(frame()), *pictures.encode()])
    assert read(output.getvalue()).codecs == ["h264", "pcm_s16le"]
    after = read(to_mp4(output.getvalue()))
    assert (len(after.pictures), after.samples) == (1, 0)


@pytest.mark.parametrize(
    ("size", "pixels"),
    [((32, 24), "yuv420p"), ((33, 24), "yuv444p"), ((32, 25), "yuv444p"), ((5, 3), "yuv444p")],
)
def test_odd_sides_are_kept(size: tuple[int, int], pixels: str) -> None:
    after = read(to_mp4(video(size=size, pixels="yuv444p")))
    assert (after.pixels, after.pictures[0].size) == (pixels, size)


@pytest.mark.parametrize(
    ("turn", "method"),
    [
        ({"degrees": -90}, Image.Transpose.ROTATE_270),
        ({"degrees": 90}, Image.Transpose.ROTATE_90),
        ({"degrees": 180}, Image.Transpose.ROTATE_180),
        ({"degrees": 0, "hflip": True}, Image.Transpose.FLIP_LEFT_RIGHT),
        ({"degrees": 0, "vflip": True}, Image.Transpose.FLIP_TOP_BOTTOM),
        ({"degrees": 90, "hflip": True}, Image.Transpose.TRANSVERSE),
        ({"degrees": 90, "vflip": True}, Image.Transpose.TRANSPOSE),
        ({"degrees": 30}, None),
    ],
)
@pytest.mark.parametrize("size", [(32, 24), (33, 24)])
def test_a_video_is_turned_as_its_file_says(
    turn: dict[str, Any], method: Image.Transpose | None, size: tuple[int, int]
) -> None:
    after = read(to_mp4(video(size=size, turn=turn, pixels="yuv444p"))).pictures
    upright = picture(*size)
    expected = upright if method is None else upright.transpose(method)
    assert after[0].size == expected.size
    assert all(quarters(image) == quarters(expected) for image in after)


@pytest.mark.parametrize(
    "options",
    [
        {"codec": "libx264rgb", "pixels": "rgb24"},
        {"codec": "libx264", "pixels": "yuv444p"},
        {"codec": "libx264", "pixels": "yuv420p10le"},
        {"codec": "libx264", "pixels": "yuvj420p"},
        {"container": "mov", "codec": "prores_ks", "pixels": "yuv422p10le"},
        {"container": "mov", "codec": "prores_ks", "pixels": "yuva444p10le"},
        {"container": "webm", "codec": "libvpx-vp9", "pixels": "gbrp"},
        {"container": "webm", "codec": "libvpx-vp9", "pixels": "yuva420p"},
        {"codec": "libx265", "options": {}},
        {"codec": "libx264", "colorspace": 1, "color_primaries": 1, "color_trc": 1},
        {"codec": "libx264", "colorspace": 9, "color_primaries": 9, "color_trc": 16},
        {"codec": "libx264", "colorspace": 6, "color_range": 1},
        {"codec": "libx264", "colorspace": 3},
    ],
)
def test_colours_stay_as_they_are(options: dict[str, Any]) -> None:
    data = video(times=(0, 40), **options)
    before, after = read(data), read(to_mp4(data))
    assert after.pixels == "yuv420p"
    assert after.colorspace not in (RGB, RESERVED)
    for old, new in zip(before.pictures, after.pictures, strict=True):
        difference = ImageChops.difference(old.resize((2, 2)), new.resize((2, 2)))
        assert max(difference.tobytes()) < 12


@pytest.mark.parametrize("name", ["mp4", "webm"])
def test_sound_goes_with_the_pictures(name: str) -> None:
    after = read(to_mp4(VIDEOS[name]))
    assert (after.layout, after.rate) == ("mono", RATE)
    assert abs(after.samples / RATE - 0.4) < 0.05


def test_sound_of_a_rate_that_aac_does_not_have_is_resampled() -> None:
    output = BytesIO()
    with av.open(output, "w", format="matroska") as file:
        pictures: Any = file.add_stream("libx264", rate=25)
        pictures.width, pictures.height = 32, 24
        noise = file.add_stream("flac", rate=37_800, layout="5.1")
        for n in range(10):
            file.mux(pictures.encode(frame(time=n, base=Fraction(1, 25))))
        for each in tone(15_120, 37_800, "5.1"):
            file.mux(noise.encode(each))
        file.mux([*pictures.encode(), *noise.encode()])
    after = read(to_mp4(output.getvalue()))
    assert (after.layout, after.rate) == ("stereo", 48_000)
    assert abs(after.samples / 48_000 - 0.4) < 0.05


def test_sound_without_pictures_is_no_video() -> None:
    for data in (sound("mp4", "aac"), sound("webm", "libopus"), sound("matroska", "flac")):
        assert sniff_video(data)
        with pytest.raises(AvError, match="the file has no pictures"):
            to_mp4(data)
        assert read(to_flac(data)).samples >= 9600


def test_the_cover_of_an_album_is_no_video() -> None:
    output = BytesIO()
    with av.open(output, "w", format="mp4") as file:
        cover: Any = file.add_stream("mjpeg", rate=1, pix_fmt="yuvj420p", width=32, height=24)
        cover.disposition = Disposition.attached_pic
        noise = file.add_stream("aac", rate=RATE, layout="mono")
        file.mux(cover.encode(frame(pixels="yuvj420p")))
        for each in tone(9600):
            file.mux(noise.encode(each))
        file.mux(noise.encode())
    with pytest.raises(AvError, match="the file has no pictures"):
        to_mp4(output.getvalue())
    assert read(to_flac(output.getvalue())).codecs == ["flac"]


# Sound


@pytest.mark.parametrize("name", sorted(SOUNDS))
def test_sound_is_written_as_flac(name: str) -> None:
    data = to_flac(SOUNDS[name])
    after = read(data)
    assert sniff_audio(data) == "audio/flac"
    assert (after.codecs, after.layout, after.rate) == (["flac"], "mono", RATE)
    assert 9600 <= after.samples <= 9600 + 2048


@pytest.mark.parametrize("name", ["mp4", "mov", "webm", "mkv"])
def test_the_sound_of_a_video_is_taken(name: str) -> None:
    after = read(to_flac(VIDEOS[name]))
    assert after.codecs == ["flac"]
    assert abs(after.samples - read(VIDEOS[name]).samples) <= 1024


@pytest.mark.parametrize("rate", [8000, 11_025, 37_800, 44_100, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_of_sixteen_bits_stay_as_they_are(rate: int, channels: int) -> None:
    samples = array("h", ((n * 7919) % 65536 - 32768 for n in range(3000 * channels))).tobytes()
    data = to_flac(wav(samples, channels=channels, rate=rate))
    with av.open(BytesIO(data), "r") as file:
        stream = file.streams.audio[0]
        assert (stream.rate, stream.channels, stream.format.name) == (rate, channels, "s16")
        resampler = av.AudioResampler("s16", stream.layout)
        plain = [
            bytes(one.planes[0]) for each in file.decode(stream) for one in resampler.resample(each)
        ]
    assert b"".join(plain)[: len(samples)] == samples


@pytest.mark.parametrize("width", [1, 3, 4])
def test_other_samples_become_sixteen_bits(width: int) -> None:
    after = read(to_flac(wav(bytes(range(240)) * 40, width=width)))
    assert (after.samples, after.codecs) == (9600 // width, ["flac"])


@pytest.mark.parametrize("channels", [3, 6, 8])
def test_more_than_two_channels_become_stereo(channels: int) -> None:
    after = read(to_flac(wav(bytes(2 * channels * 4800), channels=channels)))
    assert (after.layout, after.samples) == ("stereo", 4800)


@pytest.mark.parametrize("data", [wav(b""), VIDEOS["webm-vp8"], VIDEOS["mjpeg"]])
def test_a_file_without_sound_is_refused(data: bytes) -> None:
    with pytest.raises(AvError, match=r"the file has no sound|damaged"):
        to_flac(data)


# Limits


@pytest.mark.parametrize("name", sorted(VIDEOS))
def test_the_pixels_of_all_pictures_are_counted(name: str) -> None:
    pixels = 10 * 32 * 24
    assert to_mp4(VIDEOS[name], max_pixels=pixels)
    with pytest.raises(AvError, match=f"all its pictures together may have at most {pixels - 1} p"):
        to_mp4(VIDEOS[name], max_pixels=pixels - 1)


def test_one_picture_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AvError, match="32 x 24 pixels, at most 767 pixels"):
        to_mp4(VIDEOS["mp4"], max_pixels=767)
    monkeypatch.setattr(av_utils, "_MAX_FRAME_PIXELS", 700)
    with pytest.raises(AvError, match="32 x 24 pixels, at most 700 pixels"):
        to_mp4(VIDEOS["mp4"])


@pytest.mark.parametrize("name", ["mp4", "webm", "mkv"])
def test_a_picture_that_is_larger_than_its_file_says_is_not_decoded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(av_utils._Meter, "check_header", lambda *_: None)
    monkeypatch.setattr(av_utils, "_MAX_FRAME_PIXELS", 700)
    with pytest.raises(AvError, match="damaged"):
        to_mp4(VIDEOS[name])


def test_pictures_that_change_their_size_are_refused() -> None:
    small, large = video("webm", "libvpx-vp9"), video("webm", "libvpx-vp9", size=(48, 32))
    output = BytesIO()
    with (
        av.open(output, "w", format="webm") as file,
        av.open(BytesIO(small), "r") as first,
        av.open(BytesIO(large), "r") as second,
    ):
        stream = file.add_stream_from_template(first.streams.video[0])
        for n, source in enumerate((first, second)):
            for packet in source.demux(video=0):
                if packet.size:
                    packet.pts = packet.dts = (packet.pts or 0) + 400 * n
                    packet.stream = stream
                    file.mux(packet)
    with pytest.raises(AvError, match="change their size"):
        to_mp4(output.getvalue())


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_the_seconds_of_a_video_are_limited(container: str) -> None:
    data = video(container, times=(0, 1000, 2000))
    assert to_mp4(data, max_seconds=3)
    with pytest.raises(AvError, match=r"too long: at most 1\.9 seconds"):
        to_mp4(data, max_seconds=1.9)


@pytest.mark.parametrize("name", sorted(SOUNDS))
def test_the_seconds_of_sound_are_limited(name: str) -> None:
    assert to_flac(SOUNDS[name], max_seconds=0.25)
    with pytest.raises(AvError, match=r"too long: at most 0\.19 seconds"):
        to_flac(SOUNDS[name], max_seconds=0.19)


def test_a_video_that_says_it_is_too_long_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(av_utils, "_decoded")
    with pytest.raises(AvError, match="too long"):
        to_mp4(VIDEOS["mp4"], max_seconds=0.3)


def test_pictures_that_are_not_shown_are_counted() -> None:
    output = BytesIO()
    with (
        av.open(output, "w", format="webm") as file,
        av.open(BytesIO(VIDEOS["webm-vp8"]), "r") as source,
    ):
        stream = file.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                # The bit in the first byte of VP8 that says that the picture is shown.
                first = bytes(packet)[0] & ~16 if packet.pts else bytes(packet)[0]
                hidden: Any = av.Packet(bytes([first]) + bytes(packet)[1:])
                hidden.pts = hidden.dts = packet.pts
                hidden.time_base, hidden.stream = packet.time_base, stream
                file.mux(hidden)
    data = output.getvalue()
    assert len(read(data).pictures) == 1
    assert to_mp4(data, max_pixels=10 * 32 * 24)
    with pytest.raises(AvError, match="all its pictures together"):
        to_mp4(data, max_pixels=9 * 32 * 24)


def test_a_gap_between_pictures_counts_as_time() -> None:
    with pytest.raises(AvError, match="too long"):
        to_mp4(video("matroska", times=(0, 10**9)), max_seconds=600)


# Hostile files


@pytest.mark.parametrize(
    "data",
    [
        video("matroska", "ffv1"),
        video("mov", "qtrle", pixels="rgb24"),
    ],
)
def test_only_some_codecs_of_videos_are_accepted(data: bytes) -> None:
    with pytest.raises(AvError, match="the video in the file is coded in a way that is not"):
        to_mp4(data)


@pytest.mark.parametrize("codec", ["tta", "wavpack"])
def test_only_some_codecs_of_sound_are_accepted(codec: str) -> None:
    for data in (sound("matroska", codec), video("matroska", sound=codec)):
        with pytest.raises(AvError, match="the audio in the file is coded in a way that is not"):
            to_flac(data)
    with pytest.raises(AvError, match="the audio in the file is coded in a way that is not"):
        to_mp4(video("matroska", sound=codec))


def test_only_the_demuxer_of_the_sniffed_format_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[Any, Any]] = []
    real_open = av.open

    def spy(file: Any, mode: Any, **options: Any) -> Any:
        assert isinstance(file, BytesIO)
        opened.append((mode, options["format"]))
        return real_open(file, mode, **options)

    monkeypatch.setattr(av, "open", spy)
    to_mp4(VIDEOS["webm"])
    to_flac(SOUNDS["m4a"])
    assert set(opened) == {("r", "matroska"), ("w", "mp4"), ("r", "mov"), ("w", "flac")}


@pytest.mark.parametrize("start", [EVERYTHING[name][:48] for name in sorted(EVERYTHING)])
@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"\0" * 5000,
        b"\xff" * 5000,
        b"\n#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"\nffconcat version 1.0\nfile /etc/passwd\n",
        b"<script>alert(1)</script>",
    ],
)
def test_the_first_bytes_alone_make_no_file(start: bytes, rest: bytes) -> None:
    for convert in (to_mp4, to_flac):
        with pytest.raises(AvError):
            convert(start + rest)


def test_a_file_that_names_another_does_not_open_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # The flag of a data reference says that the media are in the file itself.
    with pytest.raises(PermissionError):
        av_utils._open_nothing("file:///etc/passwd", 1, {})
    data = VIDEOS["mp4"].replace(b"url \0\0\0\1", b"url \0\0\0\0")
    assert data != VIDEOS["mp4"]
    asked: list[object] = []
    monkeypatch.setattr(av_utils, "_open_nothing", lambda *names: asked.append(names))
    with suppress(AvError):
        to_mp4(data)
    assert asked == []


@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_no_payload_is_kept(name: str) -> None:
    convert = to_mp4 if name in VIDEOS else to_flac
    with zipfile.ZipFile(payload := BytesIO(), "w") as archive:
        archive.writestr("secret", b"secret")
    try:
        assert b"secret" not in convert(EVERYTHING[name] + payload.getvalue())
    except AvError:
        # MP3 and ADTS have no end, so what follows is a damaged frame.
        assert name in ("mp3", "aac")


def test_no_metadata_is_kept() -> None:
    secrets = dict.fromkeys(("title", "artist", "comment", "location", "encoder"), "secret")
    for container in ("mp4", "mov", "matroska"):
        data = video(container, metadata=secrets)
        assert b"secret" in data
        assert b"secret" not in to_mp4(data)
    for container, codec in (("mp3", "libmp3lame"), ("flac", "flac"), ("ogg", "libopus")):
        data = sound(container, codec, metadata=secrets)
        assert b"secret" in data
        assert b"secret" not in to_flac(data)
        assert b"Lavf" not in to_flac(data)


def convert_all(data: bytes) -> None:
    for convert in (to_mp4, to_flac):
        try:
            assert convert(data)
        except AvError as error:
            message = str(error)
            assert len(message) < 250
            assert message.isascii()
            assert message.isprintable()
            for internal in ("0x", "BytesIO", "avcodec", "\\x", ".py", "Errno", "<none>"):
                assert internal not in message


# Of these what is left of a cut file is as good as a whole one.
CUT_IS_NOTICED = sorted(set(EVERYTHING) - {"mp3", "ogg", "aac"})


@pytest.mark.parametrize("name", CUT_IS_NOTICED)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_file_is_refused(name: str, share: float) -> None:
    convert = to_mp4 if name in VIDEOS else to_flac
    whole = EVERYTHING[name]
    with pytest.raises(AvError):
        convert(whole[: int(len(whole) * share)])


def test_a_byte_that_is_wrong_in_flac_is_noticed() -> None:
    data = bytearray(SOUNDS["flac"])
    for place in range(data.index(b"\xff\xf8"), len(data), 97):
        data[place] ^= 1
        with pytest.raises(AvError, match="damaged"):
            to_flac(bytes(data))
        data[place] ^= 1


def refusal(data: bytes) -> str:
    """Why a video is refused, nothing if it is not."""
    try:
        to_mp4(data)
    except AvError as error:
        return str(error)
    return ""


def test_pictures_that_the_decoder_has_mended_are_refused() -> None:
    data = VIDEOS["mkv"]
    damaged = (data[:n] + b"\0\0" + data[n + 2 :] for n in range(1000, 2000, 37))
    assert "the file is damaged or truncated" in map(refusal, damaged)


def test_metadata_that_are_no_text_do_no_harm() -> None:
    data = video(metadata={"title": "secret"}).replace(b"secret", b"\xff\xfe\xfd\xff\xc0\x80")
    assert read(to_mp4(data)).codecs == ["h264"]


@given(st.sampled_from(CUT_IS_NOTICED), st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_the_end_is_missed_unless_it_holds_nothing(name: str, missing: int) -> None:
    convert = to_mp4 if name in VIDEOS else to_flac
    whole = EVERYTHING[name]
    try:
        assert convert(whole[:-missing]) == convert(whole)
    except AvError:
        return


@given(
    st.sampled_from(sorted(EVERYTHING)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=3),
)
@settings(max_examples=120, deadline=None)
def test_damaged_files_raise_nothing_but_av_errors(
    name: str, anywhere: list[tuple[float, int]], header: list[tuple[int, int]]
) -> None:
    data = bytearray(EVERYTHING[name])
    for share, value in anywhere:
        data[int(share * len(data))] = value
    for place, value in header:
        data[min(place, len(data) - 1)] = value
    convert_all(bytes(data))


@given(st.sampled_from(sorted(EVERYTHING)), st.integers(4, 64), st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_random_bytes_raise_nothing_but_av_errors(name: str, kept: int, data: bytes) -> None:
    convert_all(data)
    convert_all(EVERYTHING[name][:kept] + data)


def test_a_file_of_nothing_but_boxes_is_soon_refused() -> None:
    start = time.perf_counter()
    for box in (b"\0\0\0\x08free", b"\0\0\0\x08moov", b"\0\0\0\x08moof"):
        with pytest.raises(AvError):
            to_mp4(VIDEOS["mp4"][:32] + box * 200_000)
    assert time.perf_counter() - start < 3


def test_av_error_is_a_value_error() -> None:
    assert issubclass(AvError, ValueError)
