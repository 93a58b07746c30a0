"""Model files: downloaded into a cache that is kept, verified, and linked where ComfyUI looks.

Below the cache folder, `hub/` is the cache of huggingface_hub, and `verified/` holds each file
that was found whole, by its SHA-256: the file itself or a link to it. Nothing else is ever linked
below ComfyUI's models folder, so a file that was cut off or is another one is never loaded; and
what is there under its hash is not downloaded again, whatever revision asks for it.
"""

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final
from uuid import uuid4

from .hub import Hub, git_hash
from .patience import FetchFailed
from .urls import fetch_url

PARALLEL: Final = 8
# The folder of a cache that holds what was found whole, by its key.
VERIFIED: Final = "verified"

_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One model file, as build/models.json has it.

    `path` is below ComfyUI's models folder. `source` holds hf and file, or url, or volume and
    maybe file. `revision`, `size` (in bytes) and `sha256` are None where generator.lock is missing.
    """

    name: str
    path: str
    source: Mapping[str, str]
    revision: str | None = None
    size: int | None = None
    sha256: str | None = None
    gated: bool = False

    @property
    def key(self) -> str:
        """The file's name below verified/: its hash, or that of where it comes from."""
        if self.sha256:
            return self.sha256
        source = json.dumps([dict(self.source), self.revision], sort_keys=True)
        return "from-" + hashlib.sha256(source.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Places:
    """Where files are: the cache folder, and the mount points of Volumes by their names."""

    cache: Path
    volumes: Mapping[str, Path] = field(default_factory=dict)

    def file(self, model: ModelFile) -> Path:
        """Return where a model's file is once it is whole."""
        if volume := model.source.get("volume"):
            return self.volumes[volume] / model.source.get("file", model.path)
        return self.cache / VERIFIED / model.key


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is, in bytes: one file, and all files; 0 of 0 where no size is known."""

    name: str
    done: int
    size: int
    all_done: int
    all_size: int


class ProgressLines:
    """Tells how far a download is in lines, one every so many seconds, and one at its end."""

    def __init__(self, tell: Callable[[str], object] = print, every: float = 5.0) -> None:
        self._tell = tell
        self._every = every
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        """Tell of a progress, if it is time to."""
        now = time.monotonic()
        is_done = progress.all_done == progress.all_size
        if now < self._next and not is_done:
            return
        self._next = now + self._every
        done, size = progress.all_done, progress.all_size
        unit, name = (10**9, "GB") if size >= 10**9 else (10**6, "MB")
        share = f", {100 * done // size} %" if size else ""
        self._tell(f"{done / unit:.1f} of {size / unit:.1f} {name}{share}")


class DownloadError(Exception):
    """What is missing and why, sorted; the texts hold no token."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = tuple(sorted(set(reasons)))
        super().__init__("\n".join(self.reasons))

    def __reduce__(self) -> tuple[type["DownloadError"], tuple[tuple[str, ...]]]:
        return type(self), (self.reasons,)


def read_models(path: Path) -> list[ModelFile]:
    """Return the models of a build: its models.json."""
    return [ModelFile(**entry) for entry in json.loads(path.read_text("utf-8"))]


def link(models: Iterable[ModelFile], places: Places, models_folder: Path) -> list[str]:
    """Link the files that are whole below ComfyUI's models folder.

    Return why others are not linked, sorted. A link that leads elsewhere is replaced, in one step.
    """
    reasons = []
    for model in models:
        reason = _absence(model, places)
        target = models_folder / model.path
        if not reason and target.exists() and not target.is_symlink():
            reason = f"model {model.name}: {target} is a file already, and no link"
        if reason:
            reasons.append(reason)
            if target.is_symlink():
                target.unlink()
        else:
            _link(places.file(model), target)
    return sorted(reasons)


def download(
    models: Iterable[ModelFile],
    places: Places,
    *,
    hf_token: str = "",
    civitai_key: str = "",
    on_progress: Callable[[Progress], None] = lambda _: None,
    parallel: int = PARALLEL,
) -> None:
    """Download what is missing, `parallel` files at a time, and verify it.

    What is whole already costs no request. First Hugging Face is asked whether it hands the files
    out, and these are the locked ones; if not, nothing is downloaded. `on_progress` is called from
    several threads, from one at a time.

    Raises:
        DownloadError: with all reasons, when a file cannot be had; the others are there then.
    """
    hf_token, civitai_key = hf_token.strip(), civitai_key.strip()
    absent = [(model, why) for model in models if (why := _absence(model, places))]
    reasons = [why for model, why in absent if "volume" in model.source]
    # What several models have from one source is downloaded once.
    wanted = {model.key: model for model, _ in absent if "volume" not in model.source}
    if not absent:
        return
    with (
        Hub.from_environment(hf_token) as hub,
        ThreadPoolExecutor(parallel, thread_name_prefix="download") as threads,
    ):
        downloader = _Downloader(places, hub, civitai_key, _Meter(on_progress))
        for step in (downloader.prepare, downloader.fetch):
            if not reasons:
                reasons += [why for why in threads.map(step, wanted.values()) if why]
    if reasons:
        raise DownloadError(_without(reason, hf_token, civitai_key) for reason in reasons)


@dataclass(slots=True)
class _Meter:
    """Adds up what is there of all files."""

    on_progress: Callable[[Progress], None]
    done: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def expect(self, name: str, size: int) -> None:
        with self.lock:
            self.sizes[name] = size

    def tell(self, name: str, done: int) -> None:
        with self.lock:
            self.done[name] = done
            size = self.sizes.get(name, 0)
            totals = sum(self.done.values()), sum(self.sizes.values())
            self.on_progress(Progress(name, done, size, *totals))


@dataclass(frozen=True, slots=True)
class _Downloader:
    """Downloads one file at a time, in any thread; says why that failed, if it did."""

    places: Places
    hub: Hub
    civitai_key: str
    meter: _Meter

    def prepare(self, model: ModelFile) -> str:
        """Ask for a file of Hugging Face without downloading it."""
        return self._explained(model, self._prepare)

    def fetch(self, model: ModelFile) -> str:
        """Download and verify a file."""
        return self._explained(model, self._fetch)

    def _explained(self, model: ModelFile, step: Callable[[ModelFile], None]) -> str:
        try:
            step(model)
        except FetchFailed as error:
            return f"model {model.name}: {error}"
        except OSError as error:
            if error.errno in _FULL:
                size = f"; the file has {_shown(model.size)}" if model.size else ""
                return f"model {model.name}: the disk of {self.places.cache} is full{size}"
            return f"model {model.name}: {self.places.cache}: {error.strerror or error}"
        return ""

    def _prepare(self, model: ModelFile) -> None:
        if model.size:
            self.meter.expect(model.name, model.size)
        if "hf" not in model.source:
            return
        repo, file = model.source["hf"], model.source["file"]
        if model.gated and not self.hub.token:
            raise FetchFailed(f"{repo} is gated, and there is no HF_TOKEN")
        found = self.hub.file(repo, file, model.revision)
        self.meter.expect(model.name, found.size)
        if model.size not in (None, found.size):
            raise FetchFailed(_other("size", f"{model.size}", f"{found.size} bytes"))
        if model.sha256 and found.sha256 not in (None, model.sha256):
            raise FetchFailed(_other("SHA-256", model.sha256, f"{found.sha256}"))

    def _fetch(self, model: ModelFile) -> None:
        fetch = self._from_hub if "hf" in model.source else self._from_url
        starts: list[int] = []

        def on_bytes(there: int) -> None:
            if not starts:
                starts.append(there)
            self.meter.tell(model.name, there)

        path = fetch(model, on_bytes)
        fault = _fault(path, model)
        if fault and starts != [0]:
            # What was there before may have been the wrong part.
            _forget(path)
            path = fetch(model, on_bytes)
            fault = _fault(path, model)
        if fault:
            _forget(path)
            raise FetchFailed(fault)
        verified = self.places.file(model)
        if "hf" in model.source:
            _link(path.resolve(), verified)
        else:
            verified.parent.mkdir(parents=True, exist_ok=True)
            path.replace(verified)

    def _from_hub(self, model: ModelFile, on_bytes: Callable[[int], None]) -> Path:
        repo, file = model.source["hf"], model.source["file"]
        return self.hub.download(repo, file, model.revision, self.places.cache / "hub", on_bytes)

    def _from_url(self, model: ModelFile, on_bytes: Callable[[int], None]) -> Path:
        part = self.places.cache / "parts" / f"{model.key}.part"
        fetch_url(
            model.source["url"],
            part,
            size=model.size,
            civitai_key=self.civitai_key,
            on_bytes=on_bytes,
        )
        return part


def _absence(model: ModelFile, places: Places) -> str:
    """Return why a model's file cannot be linked, "" when it is whole."""
    volume = model.source.get("volume")
    if volume is not None and volume not in places.volumes:
        return f"model {model.name}: Volume {volume} is not mounted"
    path = places.file(model)
    if not path.is_file():
        if volume is None:
            return f"model {model.name}: it is not downloaded"
        folder = Path(model.path).parent
        return (
            f"model {model.name}: Volume {volume} has no file {model.source.get('file', model.path)}; "
            f"upload it: python -m generator upload FILE --folder {folder} --volume {volume}"
        )
    size = path.stat().st_size
    if model.size not in (None, size):
        return f"model {model.name}: {_other('size', f'{model.size}', f'{size} bytes')}"
    return ""


def _fault(path: Path, model: ModelFile) -> str:
    """Return what is wrong with a downloaded file, "" when it is the one that was asked for."""
    size = path.stat().st_size
    if model.size not in (None, size):
        return _other("size", f"{model.size}", f"{size} bytes")
    # Without a lock there is the server's own word, which its client names the file by.
    expected = model.sha256 or path.resolve().name
    match len(expected):
        case 64:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            return _other("SHA-256", expected, found) if found != expected else ""
        case 40:
            found = git_hash(path)
            return _other("git hash", expected, found) if found != expected else ""
    return "there is no hash to verify it by; make lock"


def _other(what: str, expected: str, found: str) -> str:
    return f"its {what} is {found}, not {expected}: this is another file, or a damaged one"


def _forget(path: Path) -> None:
    """Delete a file, and what it is a link to."""
    for one in (path.resolve(), path):
        one.unlink(missing_ok=True)


def _link(file: Path, link: Path) -> None:
    """Make a link to a file, in one step; relative, for the folders of a cache move together."""
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(f".{link.name}.{uuid4().hex}")
    new.symlink_to(os.path.relpath(file, link.parent.resolve()))
    new.replace(link)


def _shown(size: int) -> str:
    return f"{size / 10**9:.1f} GB"


def _without(text: str, *secrets: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "…") if secret else text
    return text
