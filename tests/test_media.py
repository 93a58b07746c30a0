"""What callers give as a picture, a video or sound, in every form that it may come in."""

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Coroutine
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from templates.gateway import media
from templates.gateway.fetch import Fetcher
from templates.gateway.media import MediaError, MediaFile, MediaReader, kind_of
from templates.utils import media_process
from templates.utils.av_utils import AvError, convert_audio, convert_video
from templates.utils.image_utils import convert_image, data_uri
from templates.utils.media_converter import TOO_MUCH
from tests.conftest import ROOT
from tests.test_av_utils import SOUNDS, VIDEOS
from tests.test_av_utils import video as moving
from tests.test_fetch import Server, all_allowed, serving, with_length

T = TypeVar("T")

MAX_BYTES = 200_000
MAX_PIXELS = 100_000
DAMAGED = "the file is damaged or truncated: it does not read as video/quicktime"


def png(size: tuple[int, int] = (8, 6), image_format: str = "PNG") -> bytes:
    output = BytesIO()
    Image.new("RGB", size, "red").save(output, image_format)
    return output.getvalue()


PICTURE = png()
FILES = {"image": PICTURE, "video": VIDEOS["webm"], "audio": SOUNDS["wav"]}
CONVERTED = {
    "image": ("png", convert_image(PICTURE, "image/png", max_pixels=MAX_PIXELS)),
    "video": ("mp4", convert_video(VIDEOS["webm"], max_pixels=MAX_PIXELS, max_seconds=60)),
    "audio": ("flac", convert_audio(SOUNDS["wav"], max_seconds=60)),
}


def expected(kind: str) -> MediaFile:
    extension, data = CONVERTED[kind]
    return MediaFile(f"{hashlib.sha256(data).hexdigest()}.{extension}", data)


def new_reader(fetcher: Fetcher | None = None, **limits: Any) -> MediaReader:
    fetcher = fetcher or Fetcher(max_bytes=MAX_BYTES)
    return MediaReader(fetcher, **{"max_bytes": MAX_BYTES, "max_pixels": MAX_PIXELS} | limits)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def read(kind: str, value: str | bytes, **limits: Any) -> MediaFile:
    return run(new_reader(**limits).read(kind, value))


def read_error(kind: str, value: str | bytes, **limits: Any) -> str:
    with pytest.raises(MediaError) as caught:
        read(kind, value, **limits)
    return str(caught.value)


def read_any_error(value: str | bytes) -> str:
    with pytest.raises(MediaError) as caught:
        run(new_reader().read_any(value))
    return str(caught.value)


@pytest.mark.parametrize("kind", sorted(FILES))
def test_a_file_is_read_in_every_form(kind: str) -> None:
    data = FILES[kind]
    text = b64encode(data).decode()
    forms: list[str | bytes] = [
        data,
        text,
        f" {text[:40]}\r\n{text[40:]}\n",
        data_uri(data, "image/png"),
    ]
    forms += [data_uri(data, "text/html").replace("data:", " DATA:")]
    for form in forms:
        assert read(kind, form) == expected(kind)
        assert run(new_reader().read_any(form)) == expected(kind)


@pytest.mark.parametrize("kind", sorted(FILES))
def test_a_file_is_fetched(kind: str) -> None:
    async def check() -> None:
        answers = {"/file.txt": with_length(len(FILES[kind]), FILES[kind])}
        async with (
            serving(Server(answers)) as server,
            Fetcher(max_bytes=MAX_BYTES, allowed=all_allowed) as fetcher,
        ):
            reader = new_reader(fetcher)
            url = server.url("/file.txt")
            for form in (url, f"  {url}\n", url.replace("http", "HTTP", 1)):
                assert await reader.read(kind, form) == expected(kind)
            assert await reader.read_any(url) == expected(kind)
            server.answers["/gone"] = b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n"
            with pytest.raises(MediaError, match="status 404"):
                await reader.read(kind, server.url("/gone"))

    run(check())


def test_a_private_host_is_not_fetched_from() -> None:
    async def check() -> None:
        async with serving(Server({})) as server, Fetcher(max_bytes=MAX_BYTES) as fetcher:
            with pytest.raises(MediaError, match="no host of the public internet"):
                await new_reader(fetcher).read("image", server.url())
            assert server.connections == 0

    run(check())


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("file:///etc/passwd", "file"),
        ("FILE:/etc/passwd", "file"),
        (" ftp://files.test/cat.png", "ftp"),
        ("gs://bucket/cat.png", "gs"),
        ("s3://bucket/cat.png", "s3"),
        ("javascript:alert(1)", "javascript"),
        ("blob:https://files.test/1", "blob"),
        ("concat:/etc/passwd|/etc/hosts", "concat"),
        ("C:\\pictures\\cat.png", "c"),
        ("c:/pictures/cat.png", "c"),
        ("localhost:8188/view", "localhost"),
    ],
)
def test_no_other_url_is_read(text: str, scheme: str) -> None:
    for value in (read_any_error(text), read_error("image", text)):
        assert value == (
            f"{scheme}: is no kind of URL that is read: "
            "give an http or https URL, a base64 data URI or base64 text, or upload the file in a form"
        )


@pytest.mark.parametrize(
    "text",
    [
        "/etc/passwd", "../../etc/passwd", "./cat.png", "cat.png", "~/cat.png", "~root", "..",
        "\\\\server\\share\\cat.png", "pictures\\cat", "//files.test/cat.png", " /etc/passwd",
        "/proc/self/environ", "www.files.test/cat.png", "/dev/zero\0",
    ],
)  # fmt: skip
def test_no_path_is_read(text: str) -> None:
    assert read_error("image", text) == (
        "no file is read from a path: give an http or https URL, a base64 data URI or base64 text, or upload the file in a form"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;name=cat.png,abcd", "not base64"),
        ("data:text/plain,../../etc/passwd", "not base64"),
        ("aGVsbG8", "cut short"),
        ("/9j/4AAQSkZJRgABAQ", "cut short"),
        ("aGVs!G8=", "not valid base64"),
        ("/" + "A" * 4999 + "!...", "not valid base64"),
        ("\ud800", "cut short|not valid"),
        ("A" * 300_000, "too large: at most 200000 bytes"),
        ("https:", "not valid"),
        ("http://files.test/" + "x" * 100_000, "more than 8192 characters"),
        ("http://user:password@files.test/", "user name or a password"),
        ("http://127.0.0.1\0/", "not valid|public internet"),
    ],
)
def test_text_that_is_no_file(text: str, message: str) -> None:
    async def check() -> None:
        async with Fetcher(max_bytes=MAX_BYTES) as fetcher:
            with pytest.raises(MediaError, match=message):
                await new_reader(fetcher).read("image", text)

    run(check())


# Kinds


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        *((png(image_format=name), "image") for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP")),
        *((data, "video") for data in VIDEOS.values()),
        *((data, "audio") for data in SOUNDS.values()),
        (b"", None),
        (b"%PDF-1.7", None),
        (b"<svg/>", None),
        (b"#EXTM3U\n", None),
        (b"\0\0\0\x18ftypavif\0\0\0\0", None),
    ],
)
def test_the_kind_of_a_file_is_told_by_its_first_bytes(data: bytes, kind: str | None) -> None:
    assert kind_of(data) == kind
    if kind is None:
        assert read_any_error(data) == "not a picture, a video or sound in a known format"


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("image", "video", "not a picture in a known format"),
        ("image", "audio", "not a picture in a known format"),
        ("video", "image", "not a video in a known format"),
        ("video", "audio", "not a video in a known format"),
        ("audio", "image", "not sound in a known format"),
        ("model", "image", "not a picture, a video or sound"),
    ],
)
def test_a_file_of_another_kind_is_refused(kind: str, given: str, message: str) -> None:
    assert message in read_error(kind, FILES[given])


def test_the_sound_of_a_video_may_be_asked_for() -> None:
    assert read("audio", VIDEOS["webm"]).name.endswith(".flac")


# Limits


def test_the_limits_hold() -> None:
    for kind, data in FILES.items():
        assert read(kind, data, max_bytes=len(data)) == expected(kind)
        for value in (data, b64encode(data).decode()):
            message = read_error(kind, value, max_bytes=len(data) - 1)
            assert message.endswith(f"too large: at most {len(data) - 1} bytes are accepted")
    assert "at most 47 pixels" in read_error("image", PICTURE, max_pixels=47)
    assert "at most 7679 pixels" in read_error("video", VIDEOS["webm"], max_pixels=7679)
    assert "at most 0.1 seconds" in read_error("video", VIDEOS["webm"], max_seconds=0.1)
    assert "at most 0.1 seconds" in read_error("audio", SOUNDS["wav"], max_seconds=0.1)


def test_the_error_of_a_damaged_file_is_passed_on() -> None:
    half = VIDEOS["webm"][:2000]
    with pytest.raises(MediaError) as caught:
        read("video", half)
    assert isinstance(caught.value.__cause__, AvError)
    assert str(caught.value) == str(caught.value.__cause__)
    assert "damaged or truncated" in read_error("image", PICTURE[:40])


# Processes


def slow_conversions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make conversions slow, and return how many ran at once whenever one began."""
    running: list[str] = []
    counts: list[int] = []

    async def convert(kind: str, data: bytes, **_: object) -> bytes:
        running.append(kind)
        counts.append(running.count(kind))
        try:
            await asyncio.sleep(0.05)
        finally:
            running.remove(kind)
        return data

    monkeypatch.setattr(media, "convert", convert)
    return counts


def test_two_files_of_a_kind_are_converted_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos, which take long, do not keep pictures waiting."""
    counts = slow_conversions(monkeypatch)

    async def check() -> float:
        reader = new_reader()
        start = time.perf_counter()
        work = [reader.read(kind, FILES[kind]) for kind in ("image", "video") for _ in range(4)]
        await asyncio.gather(*work)
        return time.perf_counter() - start

    assert run(check()) < 4 * 0.05
    assert len(counts) == 8
    assert max(counts) == 2


def test_requests_that_went_away_do_not_add_conversions(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = slow_conversions(monkeypatch)

    async def check() -> None:
        reader = new_reader()
        for _ in range(6):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read("image", PICTURE), 0.005)
        await reader.read("image", PICTURE)

    run(check())
    assert max(counts) <= 2


def children() -> set[str]:
    """Return the processes that this one has started and that are there still."""
    tasks = Path("/proc/self/task")
    return {pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()}


@pytest.mark.parametrize("kind", sorted(FILES))
def test_the_process_of_a_request_that_went_away_ends(kind: str) -> None:
    before = children()

    async def check() -> None:
        reading = asyncio.create_task(new_reader().read(kind, FILES[kind]))
        async with asyncio.timeout(10):
            while not children() - before:
                await asyncio.sleep(0.001)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not children() - before

    run(check())


def test_a_process_gets_so_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_process, "MAX_MEMORY", 80 * 2**20)
    large = {"max_pixels": 16_000_000, "max_bytes": 10**6}
    read("image", png((4000, 4000)), **large)  # it gets more for so many pixels
    monkeypatch.setattr(media_process, "BYTES_PER_PIXEL", 0)
    assert read_error("image", png((4000, 4000)), **large) == TOO_MUCH
    assert read("image", PICTURE) == expected("image")
    monkeypatch.setattr(media_process, "MAX_MEMORY", 400 * 2**20)
    video = moving("mov", "mjpeg", size=(4000, 3000), times=[0, 40], pixels="yuvj420p")
    message = read_error("video", video, max_pixels=10**8, max_bytes=10**6)
    assert message in (TOO_MUCH, DAMAGED)  # the encoder does not say which
    assert read("video", VIDEOS["webm"]) == expected("video")


@pytest.mark.parametrize("kind", sorted(FILES))
def test_a_process_gets_so_much_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_process, "MAX_SECONDS", {kind: 0})
    assert read_error(kind, FILES[kind]) == TOO_MUCH


def test_a_process_that_dies_is_told_as_one_that_takes_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A decoder that a file makes crash takes nothing with it."""
    crash = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    monkeypatch.setattr(media_process, "tied_to_this_process", lambda _: crash)
    assert read_error("image", PICTURE) == TOO_MUCH


def test_a_process_knows_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", "ann:secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    show = [sys.executable, "-c", "import os; print(dict(os.environ))"]
    monkeypatch.setattr(media_process, "tied_to_this_process", lambda _: show)
    written = read("image", PICTURE).data
    assert b"PYTHONPATH" in written
    assert b"secret" not in written


def test_a_process_has_no_file_of_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import os
for number in range(1000):
    try:
        os.fstat(number)
        print(number)
    except OSError:
        pass
"""
    monkeypatch.setattr(
        media_process, "tied_to_this_process", lambda _: [sys.executable, "-c", code]
    )
    with TemporaryFile() as file:
        os.set_inheritable(file.fileno(), True)
        assert read("image", PICTURE).data.split() == [b"0", b"1", b"2"]


def test_a_process_opens_few_files() -> None:
    code = """
from templates.utils import media_converter
def opened(*_):
    files = []
    try:
        while len(files) < 1000:
            files.append(open("/dev/null"))
    except OSError:
        return str(len(files)).encode()
media_converter.converted = opened
media_converter.main(["image", "1", "1", "1000000000", "10"])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=b"", capture_output=True, check=True, cwd=ROOT)
    assert 0 < int(done.stdout) < 32


def test_a_process_writes_no_file(tmp_path: Path) -> None:
    """Whatever a file makes the decoder do."""
    code = f"""
from templates.utils import media_converter
def write(*_):
    with open({str(tmp_path / "file")!r}, "wb") as file:
        file.write(b"secret")
media_converter.converted = write
media_converter.main(["image", "1", "1", "1000000000", "10"])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=b"", capture_output=True, check=False, cwd=ROOT)
    assert b"OSError" in done.stderr
    assert (tmp_path / "file").read_bytes() == b""


def test_other_work_goes_on_meanwhile() -> None:
    async def check() -> int:
        reading = asyncio.create_task(new_reader().read("image", PICTURE))
        turns = 0
        while not reading.done():
            await asyncio.sleep(0.001)
            turns += 1
        return turns

    assert run(check()) > 10


# Anything


@given(st.one_of(st.text(max_size=40), st.text("AZaz09+/=.:\\~ \n", max_size=40), st.binary()))
@settings(max_examples=150, deadline=None)
def test_any_value_raises_nothing_but_media_errors(value: str | bytes) -> None:
    async def check() -> None:
        async with Fetcher(max_bytes=MAX_BYTES, allowed=lambda _: False) as fetcher:
            reader = new_reader(fetcher)
            values = [value] if isinstance(value, bytes) else [value, "data:" + value]
            for each in values:
                for kind in (*FILES, None):
                    with pytest.raises(MediaError) as caught:
                        await (reader.read(kind, each) if kind else reader.read_any(each))
                    message = str(caught.value)
                    assert message.isascii()
                    assert message.isprintable()
                    assert len(message) < 250

    run(check())


def test_media_error_is_a_value_error() -> None:
    assert issubclass(MediaError, ValueError)
