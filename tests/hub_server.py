"""A server that answers as Hugging Face does, and a second one that files are redirected to.

Paths, headers and error codes are those that huggingface_hub reads:
https://huggingface.co/docs/hub/api and its utils/_http.py.
"""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

HOST = "127.0.0.1"
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")
_PIECE = 16 * 1024


def commit_of(text: str) -> str:
    """Return a commit's id for a text."""
    return hashlib.sha1(text.encode()).hexdigest()


@dataclass
class Repo:
    """A repository: files by revision, the newest last, and who may have them.

    Files in `plain` are kept in git itself, not in its large-file storage, so that the server
    says no SHA-256 of them.
    """

    revisions: dict[str, dict[str, bytes]]
    token: str = ""
    gated: bool = False
    license: str = ""
    plain: tuple[str, ...] = ()

    @property
    def head(self) -> str:
        """The newest revision."""
        return list(self.revisions)[-1]


@dataclass(frozen=True)
class Asked:
    """A request that came in: `start` is the first byte asked for, `sent` how many went out."""

    method: str
    path: str
    authorization: str
    start: int = 0
    sent: int = 0


@dataclass
class HubServer:
    """What is served, how it fails, and what was asked.

    `busy` answers 429 so often, by path, with `retry_after`; `cuts` closes a connection after so
    many bytes, once for each number; `wrong` serves other bytes of the same length; `rate` are
    bytes per second and connection. `other` are plain files by path, with their headers. With a
    `gate`, the bytes of files wait until so many are on their way as it lets through together.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    other: dict[str, tuple[dict[str, str], bytes]] = field(default_factory=dict)
    busy: Counter[str] = field(default_factory=Counter)
    retry_after: str = "0"
    cuts: dict[bytes, list[int]] = field(default_factory=dict)
    wrong: set[bytes] = field(default_factory=set)
    rate: float = 0
    gate: threading.Barrier | None = None
    ranges: bool = True
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    cdn_url: str = ""

    def add(self, repo: str, files: dict[str, bytes]) -> str:
        """Add a revision with these files to a repository, and return its commit."""
        known = self.repos.setdefault(repo, Repo({}))
        commit = commit_of(f"{repo}{len(known.revisions)}")
        known.revisions[commit] = (known.revisions[known.head] if known.revisions else {}) | files
        return commit

    def downloads(self) -> Counter[str]:
        """How often each file's bytes were asked for."""
        return Counter(a.path for a in self.asked if a.method == "GET" and a.sent)

    def sent(self) -> int:
        """How many bytes of files went out."""
        return sum(a.sent for a in self.asked)


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Serve until the context ends."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    servers = [_Server((HOST, 0), handler) for _ in range(2)]
    hub.url, hub.cdn_url = (f"http://{HOST}:{s.server_address[1]}" for s in servers)
    threads = [threading.Thread(target=s.serve_forever, args=(0.02,)) for s in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients are killed, and cut their connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.hub.busy[path] > 0:
            self.hub.busy[path] -= 1
            self._note(path)
            self._empty(429, {"Retry-After": self.hub.retry_after})
        elif path.startswith("/cdn/"):
            self._file(path, {}, self._blob(path.removeprefix("/cdn/")))
        elif path in self.hub.other:
            headers, data = self.hub.other[path]
            if "Location" in headers:
                self._note(path)
                self._empty(302, headers)
            else:
                self._file(path, headers, data)
        elif found := _RESOLVE.fullmatch(path):
            self._note(path)
            self._resolve(*found.groups())
        elif found := _API.fullmatch(path):
            self._note(path)
            self._about(*found.groups())
        else:
            self._note(path)
            self._empty(404, {})

    def _note(self, path: str, start: int = 0, sent: int = 0) -> None:
        given = self.headers.get("Authorization", "")
        self.hub.asked.append(Asked(self.command, path, given, start, sent))

    def _repo(self, name: str) -> Repo | None:
        """Return a repository that the caller may see; else answer."""
        repo = self.hub.repos.get(name)
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repo is None or (repo.token and not repo.gated and given != repo.token):
            self._error(401 if not given else 404, "RepoNotFound")
            return None
        return repo

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repo = self._repo(name)
        if repo is None:
            return
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repo.gated and given != repo.token:
            self._error(403 if given else 401, "GatedRepo")
            return
        commit = repo.head if revision == "main" else revision
        if commit not in repo.revisions:
            self._error(404, "RevisionNotFound")
            return
        data = repo.revisions[commit].get(file)
        if data is None:
            self._error(404, "EntryNotFound", {"X-Repo-Commit": commit})
            return
        about = {"X-Repo-Commit": commit}
        if file in repo.plain:
            about["ETag"] = f'"{_git_blob(data)}"'
            self._file(f"/{name}/{file}", about, data, note=False)
            return
        sha256 = hashlib.sha256(data).hexdigest()
        about |= {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
        self._empty(302, about | {"Location": f"{self.hub.cdn_url}/cdn/{sha256}"})

    def _about(self, name: str, revision: str | None) -> None:
        repo = self._repo(name)
        if repo is None:
            return
        commit = repo.head if revision in (None, "main") else str(revision)
        if commit not in repo.revisions:
            self._error(404, "RevisionNotFound")
            return
        siblings = [
            {"rfilename": file, "size": len(data), "blobId": _git_blob(data)}
            | ({} if file in repo.plain else {"lfs": _lfs(data)})
            for file, data in repo.revisions[commit].items()
        ]
        about: dict[str, Any] = {
            "id": name,
            "modelId": name,
            "sha": commit,
            "gated": "auto" if repo.gated else False,
            "private": False,
            "tags": [],
            "downloads": 0,
            "siblings": siblings,
        }
        if repo.license:
            about["cardData"] = {"license": repo.license}
        body = json.dumps(about).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _blob(self, sha256: str) -> bytes | None:
        every = (
            d for r in self.hub.repos.values() for f in r.revisions.values() for d in f.values()
        )
        return next((data for data in every if hashlib.sha256(data).hexdigest() == sha256), None)

    def _file(
        self, path: str, headers: dict[str, str], data: bytes | None, *, note: bool = True
    ) -> None:
        if data is None:
            self._empty(404, {})
            return
        size = len(data)
        cut = self.hub.cuts.get(data, [])
        served = bytes(len(data)) if data in self.hub.wrong else data
        start = 0
        if self.hub.ranges and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= size > 0:
            self._note(path, start)
            self._empty(416, {"Content-Range": f"bytes */{size}"})
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        for key, value in {"Content-Length": str(size - start), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        end = size
        if self.command == "GET" and cut:
            end = cut.pop(0)
            self.close_connection = True
        sent = 0
        if self.hub.gate and self.command == "GET":
            self.hub.gate.wait()
        began = time.monotonic()
        try:
            for at in range(start, end, _PIECE) if self.command == "GET" else ():
                piece = served[at : min(at + _PIECE, end)]
                self.wfile.write(piece)
                sent += len(piece)
                if self.hub.rate:
                    time.sleep(max(0.0, began + sent / self.hub.rate - time.monotonic()))
        except OSError:
            self.close_connection = True  # the client is gone
        if note or self.command == "GET":
            self._note(path, start, sent)

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._empty(status, {"X-Error-Code": code, **(headers or {})})

    def _empty(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": "0", **headers}.items():
            self.send_header(key, value)
        self.end_headers()


def _git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _lfs(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
