"""What the client of a service is made of: requests, jobs, replies and errors.

It needs httpx and the standard library.
"""
# ruff: noqa: N818 - what callers catch is named by what happened

import base64
import json
import os
import re
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

DEFAULT_URL: Final = "http://127.0.0.1:8000"
URL_VARIABLE: Final = "COMFYUI_API_URL"
KEY_VARIABLE: Final = "COMFYUI_API_KEY"

# Modal answers every request within 150 s, if only with a redirect to where it goes on.
_ANSWER_SECONDS: Final = 180.0
_CONNECT_SECONDS: Final = 10.0
_MOST_REDIRECTS: Final = 20
# How long the service may hold back an answer until the job ends.
_HOLD_SECONDS: Final = 10
# Who listens hears something every 15 seconds, if only that the service is still there.
_SILENCE_SECONDS: Final = 60.0
# At least between two questions for one job.
_PAUSE_SECONDS: Final = 1.0
# How long to wait before a request for a job is sent again.
_SEND_AGAIN_SECONDS: Final = (0.5, 1.0)
# None is for a connection that failed.
_MAY_PASS: Final = frozenset((None, 429, 502, 503, 504))
_MOST_FAILURES: Final = 5
# No proxy stands between a program and its own machine.
_WITHOUT_PROXY: Final = ("all://127.0.0.1", "all://[::1]", "all://localhost")

_STREAM: Final = "text/event-stream"
_JOB: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_EXCERPT_LENGTH: Final = 200

# What files hold by their extension; the first extension of a type is the one to give.
_TYPES: Final[Mapping[str, str]] = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".avif": "image/avif",
    ".tiff": "image/tiff",
    ".exr": "image/x-exr",
    ".svg": "image/svg+xml",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".avi": "video/x-msvideo",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".m4a": "audio/mp4",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".obj": "model/obj",
    ".stl": "model/stl",
    ".json": "application/json",
    ".txt": "text/plain",
}

Media = str | bytes | Path
"""A picture, video or sound: an http(s) URL, a data URI or base64 as text; bytes; or a file."""

Files = Mapping[str, Media]
"""Media that a graph uses, by the names in it."""

Graph = Mapping[str, Any]
"""A ComfyUI graph in API format."""


@dataclass(frozen=True)
class Progress:
    """Where a job is.

    `status` is queued or running; `position` says how many runs are ahead of one that waits; `node`
    and `title` name the node that runs, and `value` of `max` is its step, where the node says so.
    """

    job: str
    status: str
    position: int | None
    node: str | None
    title: str | None
    value: float | None
    max: float | None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Event:
    """Something that happened to a job: docs/api.md has the names, and what the data of each is.

    Ids count from 1 within a job; a preview has none.
    """

    name: str
    data: dict[str, Any]
    id: int | None


class ServiceError(Exception):
    """The service refused a request or failed it; the text says why, param by param.

    `status` is the HTTP status, None where there was no answer. `document` is the problem as it was
    sent (RFC 9457), empty where none was; `code` and `errors`, its faults, are members of it.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        document: Mapping[str, Any] | None = None,
        job: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.document = dict(document or {})
        self.code: str | None = self.document.get("code")
        self.errors: list[dict[str, Any]] = self.document.get("errors", [])
        self.job: str | None = job or self.document.get("job")

    def __str__(self) -> str:
        lines = [self.detail]
        if self.document:
            lines = [f"{self.document['title']} ({self.status} {self.code})"]
            if not self.errors:
                lines[0] += f": {self.detail}"
                lines.append(f"at {_place(self.document)}" if _place(self.document) else "")
        lines += map(_fault, self.errors)
        if "more_errors" in self.document:
            lines.append(f"and {self.document['more_errors']} more")
        if self.job:
            lines.append(f"job: {self.job}")
        if self.status == 401:
            lines.append(f"a key goes into {KEY_VARIABLE}, or is given as key= or --key")
        return "\n  ".join(printable(line) for line in lines if line)


class ServiceUnreachable(ServiceError):
    """Nothing answers at the service's address, or what does breaks off."""


class ServiceTimeout(ServiceError):
    """The job had not ended when the client's time was over; it goes on."""


@dataclass(frozen=True)
class Reply:
    """An output of a job, and what the run cost.

    `cost` is in USD, `seconds` what the engine spent on this run, `queue_seconds` what it waited;
    `engine` is `preview` for a stand-in that draws placeholders. `outputs` counts the outputs of
    the job; `Client.outputs` returns them all.
    """

    data: bytes = field(repr=False)
    media_type: str
    job: str
    seed: int | None
    cost: float
    seconds: float
    queue_seconds: float
    gpu: str
    engine: str
    outputs: int

    @property
    def extension(self) -> str:
        """The extension of the media type, with its dot; empty when none is known."""
        return next((ending for ending, kind in _TYPES.items() if kind == self.media_type), "")

    def save(self, path: str | Path) -> Path:
        """Write the output to a file, and return the file's path.

        The file gets the extension of what it holds: for a WebP, `fox.png` becomes `fox.webp`, and
        `fox` too; an ending that is no known extension stays (`v1.5` becomes `v1.5.webp`). In a
        folder the file is named after the job. It is there whole or not at all.

        Raises:
            OSError: when the file cannot be written.
        """
        target = self._target(Path(path))
        if target.exists() and not target.is_file():
            raise OSError(f"{target} is no ordinary file")
        # Where a link leads is written, and the link stays.
        file = target.resolve()
        part = file.with_name(f".{secrets.token_hex(8)}.part")
        try:
            part.write_bytes(self.data)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        return target

    def _target(self, path: Path) -> Path:
        if path.is_dir():
            return path / f"{self.job}{self.extension}"
        named = _TYPES.get(path.suffix.lower())
        if named == self.media_type or not self.extension:
            return path
        return path.with_name((path.stem if named else path.name) + self.extension)


class BaseClient:
    """Calls the service at `url`, with `key` where it wants one.

    Without them the variables COMFYUI_API_URL and COMFYUI_API_KEY count, then
    http://127.0.0.1:8000 and no key. A call waits `timeout` seconds for its job to end; one that
    takes longer goes on, and the error names it. A call that is interrupted (Ctrl-C, or an
    exception in `on_progress`) cancels its job. Whatever goes wrong is a ServiceError.

    Calls with the same `idempotency_key` and the same params get the same job, so one that may have
    gone through can be made again; without it each call draws a key of its own.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, timeout: float = 1800.0
    ) -> None:
        key = (os.environ.get(KEY_VARIABLE, "") if key is None else key).strip()
        # httpx would show such a key in its own error.
        if not key.isascii() or not key.isprintable():
            raise ValueError("the key holds characters that no header can carry")
        self._timeout = timeout
        self._http = httpx.Client(
            base_url=_service_url(url or os.environ.get(URL_VARIABLE) or DEFAULT_URL),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(min(_ANSWER_SECONDS, timeout), connect=_CONNECT_SECONDS),
            mounts=dict.fromkeys(_WITHOUT_PROXY),
            verify=_certificates(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def job(self, job: str) -> dict[str, Any]:
        """Return a job as it is now: the JSON of GET /jobs/ID."""
        return dict(self._ask("GET", job).json())

    def result(self, job: str, *, on_progress: OnProgress | None = None) -> Reply:
        """Wait for a job to end, and return its reply. The job goes on when this is interrupted."""
        return self._finished(self._ask("GET", job, "result"), on_progress)

    def outputs(self, job: str) -> list[Reply]:
        """Return all outputs of a job that has succeeded."""
        first = _reply(self._ask("GET", job, "outputs", "0"))
        others = map(str, range(1, first.outputs))
        return [first, *(_reply(self._ask("GET", job, "outputs", other)) for other in others)]

    def events(self, job: str, *, after: int = 0, previews: bool = False) -> Iterator[Event]:
        """Yield what happens to a job as it happens, from event `after` on until its end.

        `previews` asks for pictures on their way too. A connection that breaks off is made anew, and
        goes on where it was. The job goes on when this is left.
        """
        return self._events(job, after, previews, time.monotonic() + self._timeout)

    def cancel(self, job: str) -> dict[str, Any]:
        """Stop a job, and return it as JSON. One that has ended already is an error."""
        return dict(self._ask("DELETE", job).json())

    def _run(
        self,
        route: str,
        params: Mapping[str, object],
        on_progress: OnProgress | None,
        idempotency_key: str | None = None,
    ) -> Reply:
        """Return the reply of an endpoint. A param that is None is not sent."""
        body = {name: value for name, value in params.items() if value is not None}
        response = self._start(route, body, idempotency_key or secrets.token_hex(16))
        try:
            return self._finished(response, on_progress)
        except ServiceError:
            raise
        except BaseException as interruption:
            job = response.headers["X-Job-Id"]
            try:
                self.cancel(job)
                interruption.add_note(f"job {job} was cancelled")
            except ServiceError as error:
                interruption.add_note(f"job {job} was not cancelled: {error.detail}")
            raise

    def _start(self, route: str, body: Mapping[str, object], key: str) -> httpx.Response:
        """Return the answer to a request for a job.

        Where the connection fails it is sent again: with the same key it gets the same job.
        """
        if not key.isascii() or not key.isprintable():
            raise ValueError("the idempotency key holds characters that no header can carry")
        deadline = time.monotonic() + self._timeout
        for pause in (*_SEND_AGAIN_SECONDS, None):
            try:
                return self._send("POST", route, prefer="respond-async", body=body, key=key)
            except ServiceUnreachable:
                if pause is None or time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _finished(self, response: httpx.Response, on_progress: OnProgress | None) -> Reply:
        """Return the reply to a request, once its job has ended."""
        deadline = time.monotonic() + self._timeout
        if on_progress and response.status_code == 202:
            self._show(response, on_progress, deadline)
        asked = 0.0
        while response.status_code == 202:
            time.sleep(max(0.0, asked + _PAUSE_SECONDS - time.monotonic()))
            asked = time.monotonic()
            response = self._result(response.headers["X-Job-Id"], deadline)
        return _reply(response)

    def _show(self, response: httpx.Response, on_progress: OnProgress, deadline: float) -> None:
        """Show where a job is, until it has ended or its key listens to too many."""
        shown = _progress(response.json())
        on_progress(shown)
        try:
            for event in self._events(shown.job, 0, False, deadline):
                now = _after(shown, event)
                if now != shown:
                    on_progress(now)
                shown = now
        except ServiceError as error:
            # The job runs, whether or not there is room to listen to it.
            if error.code != "too-many-listeners":
                raise

    def _result(self, job: str, deadline: float) -> httpx.Response:
        """Return a job's result, or 202 after some seconds.

        What is not the job's own fault may pass, and is tried again.
        """
        failures = 0
        while (left := deadline - time.monotonic()) > 0:
            hold = max(1, int(min(_HOLD_SECONDS, left)))
            try:
                return self._ask("GET", job, "result", prefer=f"wait={hold}")
            except ServiceError as error:
                failures += 1
                is_final = "job" in error.document or error.status not in _MAY_PASS
                if is_final or failures == _MOST_FAILURES:
                    raise
                time.sleep(failures * _PAUSE_SECONDS)
        raise self._too_late(job)

    def _events(self, job: str, after: int, previews: bool, deadline: float) -> Iterator[Event]:
        """Yield the events of a job, over as many connections as that takes."""
        failures = 0
        while time.monotonic() < deadline:
            try:
                with self._listening(job, after, previews) as response:
                    if response.status_code == 204:
                        return
                    for event in _read_events(response):
                        if time.monotonic() >= deadline:
                            raise self._too_late(job)
                        if event is None:
                            continue
                        failures = 0
                        after = after if event.id is None else event.id
                        yield event
                        if event.name == "end":
                            return
            except ServiceTimeout:
                raise
            except ServiceError as error:
                error.job = job
                failures += 1
                if error.status not in _MAY_PASS or failures == _MOST_FAILURES:
                    raise
            # The service ends streams after some time, and is not asked again without a pause.
            time.sleep(max(1, failures) * _PAUSE_SECONDS)
        raise self._too_late(job)

    @contextmanager
    def _listening(self, job: str, after: int, previews: bool) -> Iterator[httpx.Response]:
        """Open the stream of a job's events, which is not read yet."""
        path = f"/jobs/{quote(job, safe='')}/events"
        with (
            self._reaching(),
            self._http.stream(
                "GET",
                path,
                params={"previews": "true"} if previews else {},
                headers={"Last-Event-ID": str(after)} if after else {},
                timeout=httpx.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
            ) as response,
        ):
            kind = response.headers.get("Content-Type", "").partition(";")[0]
            if response.status_code != 204 and (response.status_code, kind) != (200, _STREAM):
                response.read()
                raise _error(response)
            yield response

    def _too_late(self, job: str) -> ServiceTimeout:
        return ServiceTimeout(
            f"the job has not ended within {self._timeout:g} s, and goes on; client.result waits on",
            job=job,
        )

    def _ask(self, method: str, job: str, *more: str, prefer: str = "") -> httpx.Response:
        """Return the answer to a request about a job."""
        path = "/".join(("/jobs", quote(job, safe=""), *more))
        try:
            return self._send(method, path, prefer=prefer)
        except ServiceError as error:
            error.job = job
            raise

    def _send(
        self, method: str, path: str, *, prefer: str = "", body: object = None, key: str = ""
    ) -> httpx.Response:
        """Return the service's answer to a request: 200, or 202 for a job that has not ended."""
        given = {"Prefer": prefer, "Idempotency-Key": key}
        headers = {name: value for name, value in given.items() if value}
        with self._reaching():
            response = self._http.request(method, path, headers=headers, json=body)
            for _ in range(_MOST_REDIRECTS):
                if response.status_code != 303 or response.next_request is None:
                    break
                # It is a GET, and has no key in it when it leads to another host.
                response = self._http.send(response.next_request)
        # Another web server at this address may answer 200 too, with a page of its own.
        is_ours = _JOB.fullmatch(response.headers.get("X-Job-Id", ""))
        if response.status_code in (200, 202) and is_ours:
            return response
        raise _error(response)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Say of a request that gets no answer where it went."""
        try:
            yield
        except httpx.RequestError as error:
            raise ServiceUnreachable(
                f"{_origin(error.request.url)} does not answer ({error}). Does the service run? "
                f"Its address comes from url=, --url or {URL_VARIABLE}"
            ) from error


def media(value: Media | None) -> str | None:
    """Return a picture, video or sound as JSON carries it: its address, or itself in base64.

    Raises:
        OSError: when the file cannot be read.
    """
    if isinstance(value, Path):
        value = value.read_bytes()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def media_files(files: Files | None) -> dict[str, str | None] | None:
    """Return files as JSON carries them."""
    return None if files is None else {name: media(file) for name, file in files.items()}


def printable(text: str) -> str:
    """Return a text on one line, with everything escaped that does not print as itself.

    What services and specs say must not repaint the terminal.
    """
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


@cache
def _certificates() -> ssl.SSLContext:
    """Return which certificates are trusted; reading them takes longer than the rest of a client."""
    return httpx.create_ssl_context()


def _service_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text.strip())
    except httpx.InvalidURL as error:
        raise ValueError(f"the service's address is no URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"the service's address is no http(s) URL; {DEFAULT_URL} would be one")
    return url


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


def _reply(response: httpx.Response) -> Reply:
    headers = response.headers
    seed = headers.get("X-Seed")
    return Reply(
        data=response.content,
        media_type=headers["Content-Type"].partition(";")[0],
        job=headers["X-Job-Id"],
        seed=None if seed is None else int(seed),
        cost=float(headers["X-Cost-USD"]),
        seconds=float(headers["X-Execution-Time-Sec"]),
        queue_seconds=float(headers["X-Queue-Time-Sec"]),
        gpu=headers["X-GPU-Type"],
        engine=headers["X-Engine"],
        outputs=int(headers["X-Output-Count"]),
    )


def _progress(job: Mapping[str, Any]) -> Progress:
    step = job["progress"] or {}
    return Progress(
        job=job["job"],
        status=job["status"],
        position=job["position"],
        **{name: step.get(name) for name in ("node", "title", "value", "max")},
    )


def _read_events(response: httpx.Response) -> Iterator[Event | None]:
    """Yield the events of a stream; None for whatever else comes on it."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        name, _, value = line.partition(":")
        if line:
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            number = fields.get("id")
            data = json.loads(fields["data"])
            yield Event(fields.get("event", "message"), data, int(number) if number else None)
            fields = {}
        else:
            fields = {}
            yield None


def _after(progress: Progress, event: Event) -> Progress:
    """Return where a job is after an event."""
    data = event.data
    match event.name:
        case "queued" if progress.status == "queued" and data["position"] is not None:
            return replace(progress, position=data["position"])
        case "started":
            return replace(progress, status="running", position=None)
        case "node":
            step = {"node": data["node"], "title": data["title"], "value": None, "max": None}
            return replace(progress, **step)
        case "progress":
            title = progress.title if progress.node == data["node"] else None
            step = {name: data[name] for name in ("node", "value", "max")}
            return replace(progress, title=title, **step)
    return progress


def _error(response: httpx.Response) -> ServiceError:
    """Return what an answer that is no reply says is wrong."""
    status = response.status_code
    if response.headers.get("Content-Type") == "application/problem+json":
        with suppress(ValueError):
            document = response.json()
            if isinstance(document, dict) and document.keys() >= {"title", "code", "detail"}:
                return ServiceError(document["detail"], status=status, document=document)
    text = response.content[:10_000].decode(errors="replace")
    leads = response.headers.get("Location")
    says = f"it leads to {leads}" if leads else re.sub(r"<[^>]*>", " ", text)
    return ServiceError(
        f"{_origin(response.url)}{response.url.path} answered {status} {response.reason_phrase}, "
        f"which is no answer of this service: {printable(says)[:_EXCERPT_LENGTH] or 'it is empty'}",
        status=status,
    )


def _fault(fault: Mapping[str, Any]) -> str:
    """Return one fault of a problem: the param, what is wrong, and where it comes from."""
    name = fault["pointer"].lstrip("#/").replace("~1", "/").replace("~0", "~")
    place = f" [{_place(fault)}]" if _place(fault) else ""
    return f"{name}: {fault['detail']}{place}" if name else f"{fault['detail']}{place}"


def _place(document: Mapping[str, Any]) -> str:
    """Return the node and the line of YAML that a problem or a fault names."""
    node = (
        f'node "{document["node"]}" {document.get("class_type", "")}' if "node" in document else ""
    )
    line = f"{document['file']}:{document['line']}" if "file" in document else ""
    return ", ".join(part.strip() for part in (node, line) if part)
