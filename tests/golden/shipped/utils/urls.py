"""Files at plain URLs, downloaded on from where they were cut off."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from .patience import CutOff, FetchFailed, check_token, patiently, refuse_busy

# Where the key of Civitai is sent, and nowhere else: https://developer.civitai.com
CIVITAI: Final = ("https://civitai.com", "https://www.civitai.com")

_SILENT_SECONDS: Final = 30.0


def fetch_url(
    url: str,
    part: Path,
    *,
    size: int | None = None,
    civitai_key: str = "",
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
    """Download a file into `part`, which may hold the beginning of it.

    `on_bytes` is told how many bytes are there. What was sent of a key does not go on to where
    the server redirects to.

    Raises:
        FetchFailed: when the server does not hand it out.
        OSError: when the disk refuses.
    """
    headers = _headers(url, civitai_key)
    with _client() as client:

        def fetch() -> None:
            there = _size(part)
            if there and there == size:
                on_bytes(there)
                return
            ranged = headers | ({"Range": f"bytes={there}-"} if there else {})
            with client.stream("GET", url, headers=ranged) as response:
                if response.status_code == 416:
                    # It is as long as the part, or the part is of another file.
                    if response.headers.get("Content-Range") != f"bytes */{there}":
                        part.unlink()
                        raise CutOff("the part is of another file")
                    return
                _check(response, url, has_key=bool(civitai_key))
                _write(response, part, there, on_bytes)
            if size is not None and _size(part) < size:
                raise CutOff("the file was cut off")

        try:
            patiently(fetch, progress=lambda: _size(part))
        except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
            raise FetchFailed(f"{_shown(url)} leads nowhere: {type(error).__name__}") from error


def url_size(url: str, civitai_key: str = "") -> int | None:
    """Return the size of a file in bytes, None when the server does not say it.

    It is asked for as for a download, which many servers answer that answer no HEAD.

    Raises:
        FetchFailed: when the server does not hand the file out.
    """
    with _client() as client:

        def ask() -> int | None:
            with client.stream("GET", url, headers=_headers(url, civitai_key)) as response:
                _check(response, url, has_key=bool(civitai_key))
                length = response.headers.get("Content-Length", "")
                return int(length) if length.isdecimal() else None

        try:
            return patiently(ask)
        except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
            raise FetchFailed(f"{_shown(url)} leads nowhere: {type(error).__name__}") from error


def _client() -> httpx.Client:
    return httpx.Client(
        follow_redirects=True,
        timeout=_SILENT_SECONDS,
        event_hooks={"response": [refuse_busy]},
        headers={"User-Agent": "comfyui-modal-generator"},
    )


def _headers(url: str, civitai_key: str) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"}
    if civitai_key and f"{urlsplit(url).scheme}://{urlsplit(url).netloc}" in CIVITAI:
        check_token("CIVITAI_API_KEY", civitai_key)
        headers["Authorization"] = f"Bearer {civitai_key}"
    return headers


def _check(response: httpx.Response, url: str, *, has_key: bool) -> None:
    """Raise why a response is not the file."""
    status = response.status_code
    if status in (401, 403):
        hint = ""
        if urlsplit(url).netloc == urlsplit(CIVITAI[0]).netloc:
            hint = "; is CIVITAI_API_KEY right" if has_key else "; it asks for CIVITAI_API_KEY"
        raise FetchFailed(f"{_shown(url)} is not open to us (status {status}){hint}")
    if status not in (200, 206):
        raise FetchFailed(f"{_shown(url)} is answered with status {status}")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise FetchFailed(f"{_shown(url)} is answered with a web page, not with a file")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise FetchFailed(f"{_shown(url)} is answered with compressed data")


def _write(
    response: httpx.Response, part: Path, there: int, on_bytes: Callable[[int], None]
) -> None:
    begins = response.headers.get("Content-Range", "").startswith(f"bytes {there}-")
    goes_on = response.status_code == 206 and begins
    if response.status_code == 206 and not begins:
        raise FetchFailed("the server hands out another range of the file than it was asked for")
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab" if goes_on else "wb") as file:
        on_bytes(file.tell())
        for chunk in response.iter_raw():
            file.write(chunk)
            on_bytes(file.tell())
        file.flush()
        os.fsync(file.fileno())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _shown(url: str) -> str:
    """Return a URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"
