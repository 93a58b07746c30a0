"""Videos and sound that come from callers, written anew for the engine.

Every byte is hostile until shown otherwise. A file is told by its first bytes and given to
that format's demuxer alone, which can open no other file or URL; only a short list of
codecs is decoded; the size of a picture is known before it is decoded, and what is decoded
is counted as it comes. Whatever is wrong ends as an `AvError`.

Damage is noticed where the format or the codec can tell. MP3, ADTS and Ogg state no length
and go on after a gap, so of these what is left is taken.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from typing import Any, Literal, NoReturn, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.buffer import Buffer
from av.codec.context import CodecContext, ThreadType
from av.codec.context import Flags as CodecFlags
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.format import VideoFormat
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

_DEMUXERS = {
    "video/mp4": "mov",
    "video/quicktime": "mov",
    "video/webm": "matroska",
    "video/x-matroska": "matroska",
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/mp4": "mov",
    "audio/aac": "aac",
}

VIDEO_TYPES = tuple(name for name in _DEMUXERS if name.startswith("video/"))
"""Media types that `convert_video` reads, and `convert_audio` too, for their sound."""

AUDIO_TYPES = tuple(name for name in _DEMUXERS if name.startswith("audio/"))
"""Media types that only `convert_audio` reads."""

_VIDEO_DECODERS = frozenset("h264 hevc vp8 vp9 av1 libdav1d mpeg4 mjpeg prores".split())
_AUDIO_DECODERS = frozenset(
    "aac ac3 alac eac3 flac libopus mp3 mp3float opus vorbis pcm_alaw pcm_f32le pcm_f64le "
    "pcm_mulaw pcm_s16be pcm_s16le pcm_s24be pcm_s24le pcm_s32be pcm_s32le pcm_u8".split()
)
# FLAC has checksums, but they are looked at only on demand.
_DECODER_OPTIONS = {"flac": {"err_detect": "crccheck+explode"}}

# The largest frame that H.264 has a level for.
_MAX_FRAME_PIXELS = 8192 * 4352

_AAC_RATES = frozenset(av.Codec("aac", "w").audio_rates or ())

# The `colorspace` of pictures that are no YUV.
_RGB = 0

# No name of the library that wrote the file.
_BITEXACT = {"fflags": "bitexact"}

# Without the tree of macroblocks and with a set number of threads x264 writes the same bytes
# each time; without pictures out of order the last one keeps its duration.
_X264 = {"crf": "12", "preset": "fast", "mbtree": "0", "bf": "0", "a53cc": "0"}
_X264_THREADS = 2

# Files of MP4's family that hold pictures that do not move, or sound alone.
_STILL_BRANDS = frozenset((b"avif", b"avis", b"heic", b"heim", b"heis", b"heix", b"mif1", b"msf1"))
_SOUND_BRANDS = frozenset((b"M4A ", b"M4B "))

_OGG_CODECS = (b"OpusHead", b"\x01vorbis", b"\x7fFLAC")

_BOXES = frozenset((b"mdat", b"moof", b"moov"))
_MAX_BOXES = 100_000
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"

# The filters that turn and mirror a picture as the signs of its display matrix say.
_TURNS: dict[tuple[int, ...], list[tuple[str, str | None]]] = {
    (0, 1, -1, 0): [("transpose", "clock")],
    (0, -1, 1, 0): [("transpose", "cclock")],
    (0, 1, 1, 0): [("transpose", "cclock_flip")],
    (0, -1, -1, 0): [("transpose", "clock_flip")],
    (-1, 0, 0, -1): [("hflip", None), ("vflip", None)],
    (-1, 0, 0, 1): [("hflip", None)],
    (1, 0, 0, -1): [("vflip", None)],
}


class AvError(ValueError):
    """What is wrong with a video or sound, in words that are safe to show to a caller."""


def sniff_video(data: bytes) -> str | None:
    """Return the media type that the first bytes of `data` show, one of VIDEO_TYPES.

    None means that it is none of them. A type does not mean that the rest is sound, nor
    that there are pictures: WebM, Matroska and MP4 may hold sound alone.
    """
    brand = data[8:12]
    if data[4:8] == b"ftyp" and brand not in _STILL_BRANDS | _SOUND_BRANDS:
        return "video/quicktime" if brand == b"qt  " else "video/mp4"
    if data.startswith(_EBML):
        # The document type stands in a header of a few dozen bytes.
        header = data[:64]
        if b"webm" in header:
            return "video/webm"
        if b"matroska" in header:
            return "video/x-matroska"
    return None


def sniff_audio(data: bytes) -> str | None:
    """Return the media type that the first bytes of `data` show, one of AUDIO_TYPES.

    None means that it is none of them. A type does not mean that the rest is sound.
    """
    if data.startswith(b"RIFF") and data[8:12] == b"WAVE":
        return "audio/wav"
    if data.startswith(b"fLaC"):
        return "audio/flac"
    if data.startswith(b"OggS") and data.startswith(_OGG_CODECS, 28):
        return "audio/ogg"
    if data[4:8] == b"ftyp" and data[8:12] in _SOUND_BRANDS:
        return "audio/mp4"
    if data.startswith(b"ID3"):
        return "audio/mpeg"
    return _sniff_frame(data)


def convert_video(data: bytes, *, max_pixels: int, max_seconds: float) -> bytes:
    """Return the video in `data` written anew as MP4: H.264 at high quality, sound as AAC.

    Pictures keep their size and time stamps. They become 8-bit 4:2:0, or 4:4:4 where a side
    is odd, and stand upright: turns by a quarter and mirrorings that the file asks for are
    applied. Sound becomes mono or stereo. Of several tracks of a kind the first is taken.
    No metadata is kept, nor subtitles, transparency or the shape of a pixel. The same input
    gives the same bytes with the same version of PyAV.

    Raises AvError if the format or a codec is not accepted, the file is damaged or
    truncated, there are no pictures, they change their size, one of them has more pixels
    than H.264 has a level for (8192 x 4352), all of them together have more than
    `max_pixels`, or pictures or sound last longer than `max_seconds`.
    """
    media_type = sniff_video(data)
    if media_type is None:
        raise AvError(f"not a video in a known format: accepted are {', '.join(VIDEO_TYPES)}")
    output = BytesIO()
    with _told(media_type):
        first = _first_picture(data, media_type, _Meter(max_pixels, max_seconds))
        with (
            _open(data, media_type) as source,
            av.open(output, "w", format="mp4", container_options=_BITEXACT) as target,
        ):
            _write_video(source, target, first, _Meter(max_pixels, max_seconds))
    return output.getvalue()


def video_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height of a video's pictures as its header says; None for no video."""
    media_type = sniff_video(data)
    if media_type is None:
        return None
    try:
        with _told(media_type), _open(data, media_type) as source:
            stream = _video_stream(source)
            return stream.width, stream.height
    except AvError:
        return None


def convert_audio(data: bytes, *, max_seconds: float) -> bytes:
    """Return the sound in `data`, which may be a video's, written anew as FLAC.

    The sample rate is kept; samples become 16-bit, and more than two channels stereo. Gaps
    are closed. Of several tracks the first is taken. No metadata is kept. The same input
    gives the same bytes with the same version of PyAV.

    Raises AvError if the format or the codec is not accepted, the file is damaged or
    truncated, or there is no sound or more than `max_seconds` of it.
    """
    media_type = sniff_audio(data) or sniff_video(data)
    if media_type is None:
        accepted = ", ".join(AUDIO_TYPES + VIDEO_TYPES)
        raise AvError(f"not sound in a known format: accepted are {accepted}")
    output = BytesIO()
    with (
        _told(media_type),
        _open(data, media_type) as source,
        av.open(output, "w", format="flac", container_options=_BITEXACT) as target,
    ):
        meter = _Meter(0, max_seconds)
        _write_audio(source, target, meter)
        if media_type == "audio/flac" and meter.samples < _flac_samples(data):
            raise _damaged(media_type)
    return output.getvalue()


class _Meter:
    """Counts what is decoded, and refuses what is too much of it."""

    def __init__(self, max_pixels: int, max_seconds: float) -> None:
        self.samples = 0
        self._max_pixels = max_pixels
        self._max_seconds = max_seconds
        self._pixels_sent = 0
        self._pixels = 0
        self._start: float | None = None

    def check_header(self, source: InputContainer, stream: VideoStream) -> None:
        """Refuse a video whose header says that it is too large or too long."""
        width, height = stream.width, stream.height
        if width * height > (limit := min(self._max_pixels, _MAX_FRAME_PIXELS)):
            raise AvError(
                f"the video is too large: its pictures are {width} x {height} pixels, "
                f"at most {limit} pixels are accepted"
            )
        self._check_seconds((source.duration or 0) / av.time_base)

    def send(self, packet: "Packet[Stream]") -> None:
        """Count a packet before it is decoded: one that shows nothing is work too."""
        stream = packet.stream
        if isinstance(stream, VideoStream) and packet.size:
            self._pixels_sent += stream.width * stream.height
            self._check_pixels(self._pixels_sent)

    def count(self, frame: VideoFrame | AudioFrame) -> None:
        """Count a frame that was decoded."""
        if isinstance(frame, AudioFrame):
            self.samples += frame.samples
            self._check_seconds(self.samples / frame.sample_rate)
            return
        self._start = frame.time if self._start is None else self._start
        self._check_seconds(frame.time - self._start)
        self._pixels += frame.width * frame.height
        self._check_pixels(self._pixels)

    def _check_pixels(self, pixels: int) -> None:
        if pixels > self._max_pixels:
            raise AvError(
                "the video is too large: all its pictures together may have "
                f"at most {self._max_pixels} pixels"
            )

    def _check_seconds(self, seconds: float) -> None:
        if seconds > self._max_seconds:
            raise AvError(f"it is too long: at most {self._max_seconds:g} seconds are accepted")


@contextmanager
def _told(media_type: str) -> Iterator[None]:
    """Turn whatever goes wrong with a file into an AvError."""
    try:
        yield
    except AvError:
        raise
    except Exception as error:
        raise _damaged(media_type) from error


def _sniff_frame(data: bytes) -> str | None:
    """Tell MP3 from ADTS by the header of a frame, which files without a tag start with."""
    if len(data) < 4 or data[0] != 0xFF:
        return None
    if data[1] & 0xF6 == 0xF0:
        return "audio/aac"
    is_layer_3 = data[1] & 0xE6 == 0xE2
    return "audio/mpeg" if is_layer_3 and data[2] >> 4 != 0xF and data[2] & 0xC != 0xC else None


def _open(data: bytes, media_type: str) -> InputContainer:
    demuxer = _DEMUXERS[media_type]
    if demuxer in _STATED_ENDS and _STATED_ENDS[demuxer](data) > len(data):
        raise _damaged(media_type)
    options = {"max_pixels": str(_MAX_FRAME_PIXELS)}
    source = av.open(
        BytesIO(data),
        "r",
        format=demuxer,
        # Opening a file decodes a little of it, so the limits must hold there too.
        options=options,
        container_options={"codec_whitelist": ",".join(_VIDEO_DECODERS | _AUDIO_DECODERS)},
        metadata_errors="replace",
        io_open=_open_nothing,
    )
    for stream in source.streams:
        if codec := stream.codec_context:
            codec.thread_count = 1
            codec.options = options | _DECODER_OPTIONS.get(codec.name, {})
    return source


def _open_nothing(*_: object) -> NoReturn:
    raise PermissionError("a media file may not name another")


def _flac_samples(data: bytes) -> int:
    """Return how many samples a FLAC file says that it has, 0 if it does not say."""
    return int.from_bytes(data[21:26]) & (1 << 36) - 1


def _mp4_end(data: bytes) -> int:
    """Return where an MP4 ends by its own account: behind the last box that matters."""
    start = end = 0
    for _ in range(_MAX_BOXES):
        size, kind = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8]
        if size == 1:
            size = int.from_bytes(data[start + 8 : start + 16])
        if kind in _BOXES:
            end = start + size
        start += size
        # A box of size 0 goes on to the end of the file.
        if size < 8 or start >= len(data):
            break
    return end


def _matroska_end(data: bytes) -> int:
    """Return where a Matroska file ends by its own account, or 0 if it does not say."""
    header, start = _matroska_size(data, len(_EBML))
    segment = start + header
    if data[segment : segment + len(_SEGMENT)] != _SEGMENT:
        return 0
    size, start = _matroska_size(data, segment + len(_SEGMENT))
    return start + size if size else 0


def _matroska_size(data: bytes, start: int) -> tuple[int, int]:
    """Return the size that is written at `start`, 0 for unknown, and where the next byte is."""
    length = 9 - data[start].bit_length()
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(data[start : start + length]) & unknown
    return 0 if size == unknown else size, start + length


# The demuxers take a file that is cut short, as far as it goes.
_STATED_ENDS = {"mov": _mp4_end, "matroska": _matroska_end}


def _video_stream(source: InputContainer) -> VideoStream:
    for stream in source.streams.video:
        # The cover of an album is such a stream too.
        if not stream.disposition & Disposition.attached_pic:
            _check_codec(stream, _VIDEO_DECODERS)
            return stream
    raise AvError("the file has no pictures")


def _audio_stream(source: InputContainer) -> AudioStream | None:
    for stream in source.streams.audio:
        _check_codec(stream, _AUDIO_DECODERS)
        return stream
    return None


def _check_codec(stream: VideoStream | AudioStream, accepted: frozenset[str]) -> None:
    codec: CodecContext | None = stream.codec_context
    if codec is None or codec.name not in accepted:
        raise AvError(f"the {stream.type} in the file is coded in a way that is not accepted")


def _decoded(
    source: InputContainer, streams: Iterable[VideoStream | AudioStream], meter: _Meter
) -> Iterator[VideoFrame | AudioFrame]:
    """Yield all frames of some streams, in the order of the file."""
    for packet in source.demux(*streams):
        meter.send(packet)
        frames: list[Any] = packet.decode()
        if packet.is_corrupt or any(frame.is_corrupt for frame in frames):
            raise AvError("the file is damaged or truncated")
        for frame in frames:
            meter.count(frame)
            yield frame


def _first_picture(data: bytes, media_type: str, meter: _Meter) -> VideoFrame:
    with _open(data, media_type) as source:
        stream = _video_stream(source)
        meter.check_header(source, stream)
        for frame in _decoded(source, [stream], meter):
            if isinstance(frame, VideoFrame):
                return frame
    raise AvError("the file has no pictures")


def _write_video(
    source: InputContainer, target: OutputContainer, first: VideoFrame, meter: _Meter
) -> None:
    video, audio = _video_stream(source), _audio_stream(source)
    upright = _Upright(first)
    pictures = _add_pictures(target, video, upright.plain(first))
    sound = _add_sound(target, "aac", audio, _aac_rate(audio)) if audio else None
    for frame in _decoded(source, [video, audio] if audio else [video], meter):
        if isinstance(frame, VideoFrame):
            target.mux(pictures.encode(upright.plain(frame)))
        elif sound:
            target.mux(sound.encode(frame))
    target.mux(pictures.encode())
    if sound:
        target.mux(sound.encode())


def _write_audio(source: InputContainer, target: OutputContainer, meter: _Meter) -> None:
    stream = _audio_stream(source)
    if stream is None:
        raise AvError("the file has no sound")
    sound = _add_sound(target, "flac", stream, stream.rate)
    for frame in _decoded(source, [stream], meter):
        if isinstance(frame, AudioFrame):
            target.mux(sound.encode(frame))
    if not meter.samples:
        raise AvError("the file has no sound")
    target.mux(sound.encode())


def _add_pictures(target: OutputContainer, source: VideoStream, first: VideoFrame) -> VideoStream:
    """Add a stream for pictures like `first`, which has the times of `source`."""
    rate = source.average_rate or source.guessed_rate
    stream = target.add_stream("libx264", rate=rate, options=_X264)
    codec = stream.codec_context
    codec.flags |= CodecFlags.bitexact | CodecFlags.frame_duration
    codec.thread_count = _X264_THREADS
    codec.thread_type = ThreadType.FRAME
    codec.time_base = source.time_base or Fraction(1, 90_000)
    codec.width, codec.height, codec.pix_fmt = first.width, first.height, first.format.name
    codec.color_range = first.color_range
    codec.color_primaries, codec.color_trc = first.color_primaries, first.color_trc
    if first.colorspace != _RGB:
        codec.colorspace = first.colorspace
    return stream


def _add_sound(
    target: OutputContainer, codec: Literal["aac", "flac"], source: AudioStream, rate: int
) -> AudioStream:
    stream = target.add_stream(
        codec, rate=rate, layout="mono" if source.channels == 1 else "stereo"
    )
    stream.codec_context.flags |= CodecFlags.bitexact
    return stream


def _aac_rate(source: AudioStream) -> int:
    """Return the sample rate of the source where AAC has it, else the usual one."""
    return source.rate if source.rate in _AAC_RATES else 48_000


class _Upright:
    """Makes pictures ready to be encoded: of one size, in one format, and upright."""

    def __init__(self, first: VideoFrame) -> None:
        self._size = first.width, first.height
        self._format = "yuv444p" if first.width % 2 or first.height % 2 else "yuv420p"
        turns = _turns(first)
        self._graph = self._turning(turns, first) if turns else None

    def plain(self, frame: VideoFrame) -> VideoFrame:
        if (frame.width, frame.height) != self._size:
            raise AvError("the pictures of the video change their size")
        plain = frame.reformat(format=self._format, dst_color_range="MPEG", threads=1)
        if self._graph:
            self._graph.vpush(plain)
            plain = self._graph.vpull()
        # The encoder would code the picture in the way that it was coded before.
        plain.pict_type = PictureType.NONE
        return plain

    def _turning(self, turns: list[tuple[str, str | None]], first: VideoFrame) -> Graph:
        graph = Graph()
        graph.threads = 1
        width, height = self._size
        source = graph.add_buffer(
            width=width,
            height=height,
            format=VideoFormat(self._format),
            time_base=first.time_base,
        )
        filters = [graph.add(name, how) for name, how in turns]
        graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
        return graph


def _turns(frame: VideoFrame) -> list[tuple[str, str | None]]:
    """Return the filters that the display matrix of a picture asks for."""
    matrix = cast("Mapping[str, Buffer]", frame.side_data).get("DISPLAYMATRIX")
    if matrix is None:
        return []
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    return _TURNS.get(tuple((n > 0) - (n < 0) for n in (a, b, c, d)), [])


def _damaged(media_type: str) -> AvError:
    return AvError(f"the file is damaged or truncated: it does not read as {media_type}")
