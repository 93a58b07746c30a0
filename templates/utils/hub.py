"""Hugging Face through its own client, huggingface_hub: what it is asked, and how it fails.

The client is imported when it is first needed, for most containers have no use for it. It sends
no telemetry, and downloads over plain HTTP: over Xet, a file that was cut off would start anew.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast
from urllib.parse import urlsplit

import httpx

from .patience import CutOff, FetchFailed, check_token, patiently, refuse_busy

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

Value = TypeVar("Value")

_ANSWER_SECONDS: Final = 30.0
_SHA256_DIGITS: Final = 64


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository at a commit; `sha256` is None where the server does not say it."""

    commit: str
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Hub:
    """Hugging Face, or at `endpoint` another server of its kind.

    `token` goes to that server alone; with "" none is sent. As a context it closes its connections
    at the end.
    """

    token: str = field(default="", repr=False)
    endpoint: str | None = None

    @classmethod
    def from_environment(cls, token: str = "") -> Self:
        """Return the server of HF_ENDPOINT, by default Hugging Face."""
        return cls(token, os.environ.get("HF_ENDPOINT", "").rstrip("/") or None)

    def __enter__(self) -> Self:
        _prepare()
        from huggingface_hub import get_session

        # Threads that are the first to need it would each make one, and one would stay.
        get_session()
        return self

    def __exit__(self, *_: object) -> None:
        from huggingface_hub import close_session

        close_session()

    def repository(self, repo: str, revision: str | None) -> "ModelInfo":
        """Return what the server says of a repository at a revision, its files included.

        Raises:
            FetchFailed: when it does not say it.
        """
        _prepare()
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint, token=self.token or False)
        return self._asked(
            lambda: api.model_info(
                repo, revision=revision, files_metadata=True, timeout=_ANSWER_SECONDS
            ),
            repo,
            revision,
        )

    def file(self, repo: str, file: str, revision: str | None) -> HubFile:
        """Return what the server says of a file, and so whether it would hand it out.

        Raises:
            FetchFailed: when it does not say it.
        """
        _prepare()
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(repo, file, revision=revision, endpoint=self.endpoint)
        found = self._asked(
            lambda: get_hf_file_metadata(
                url, self.token or False, _ANSWER_SECONDS, endpoint=self.endpoint
            ),
            repo,
            revision,
            file,
        )
        if found.commit_hash is None or found.etag is None or found.size is None:
            raise FetchFailed(f"{urlsplit(url).netloc} does not answer as Hugging Face does")
        is_sha256 = len(found.etag) == _SHA256_DIGITS
        return HubFile(found.commit_hash, found.size, found.etag if is_sha256 else None)

    def download(
        self,
        repo: str,
        file: str,
        revision: str | None,
        folder: Path,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> Path:
        """Download a file into a cache folder, on from where it was cut off; return its path.

        `on_bytes` is told how many of its bytes are there.

        Raises:
            FetchFailed: when the server does not hand it out.
            OSError: when the disk refuses.
        """
        _prepare()
        from huggingface_hub import hf_hub_download

        there = 0

        class Bar:
            """What the client takes for a progress bar of tqdm."""

            def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
                self.update(initial - there)

            def update(self, count: float = 1) -> None:
                nonlocal there
                there += int(count)
                on_bytes(there)

            def __enter__(self) -> Self:
                return self

            def __exit__(self, *_: object) -> None:
                pass

        def fetch() -> Path:
            try:
                return Path(
                    hf_hub_download(
                        repo,
                        file,
                        revision=revision,
                        cache_dir=folder,
                        endpoint=self.endpoint,
                        token=self.token or False,
                        tqdm_class=cast("Any", Bar),
                    )
                )
            except OSError as error:
                if type(error) is OSError and error.errno is None:
                    # Fewer bytes came than the server had said.
                    raise CutOff("the file was cut off") from error
                raise

        return self._asked(fetch, repo, revision, file, progress=lambda: there)

    def _asked(
        self,
        ask: Callable[[], Value],
        repo: str,
        revision: str | None,
        file: str = "",
        progress: Callable[[], int] = lambda: 0,
    ) -> Value:
        from huggingface_hub import errors

        check_token("HF_TOKEN", self.token)
        try:
            return patiently(ask, progress)
        except errors.GatedRepoError as error:
            terms = f"accept its terms at https://huggingface.co/{repo}"
            if self.token:
                reason = f"{repo} is gated, and the account of the token has no access: {terms}"
            else:
                reason = f"{repo} is gated, and there is no token: {terms}, and give its HF_TOKEN"
            raise FetchFailed(reason) from error
        except errors.RevisionNotFoundError as error:
            raise FetchFailed(f"{repo} has no revision {revision}") from error
        except errors.RemoteEntryNotFoundError as error:
            where = f"{repo} at {revision}" if revision else repo
            raise FetchFailed(f"{where} has no file {file}") from error
        except errors.LocalEntryNotFoundError as error:
            raise FetchFailed("the server does not answer") from error
        except errors.HfHubHTTPError as error:
            raise FetchFailed(self._refused(repo, error.response.status_code)) from error
        except ValueError as error:
            # A name that is none, or a file of over 50 GB, which comes over Xet alone.
            raise FetchFailed(f"{repo}: {' '.join(str(error).split())}") from error

    def _refused(self, repo: str, status: int) -> str:
        match status:
            case 401 if self.token:
                return f"the token is not valid, or {repo} does not exist (status 401)"
            case 401 | 404:
                private = "" if self.token else ", or it is private: there is no token"
                return f"there is no repository {repo}{private} (status {status})"
            case 403:
                return f"the token may not read {repo} (status 403)"
        return f"the server does not hand out {repo} (status {status})"


def git_hash(path: Path) -> str:
    """Return git's hash of a file, which is the server's of one that is not in its large-file storage.

    https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    """
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def own_token() -> str:
    """Return the token of the user of this machine: HF_TOKEN's, or that of a login; "" for none."""
    _prepare()
    from huggingface_hub import get_token

    return get_token() or ""


@cache
def _prepare() -> None:
    """Set the client up, before it is imported where that matters."""
    os.environ.update(
        HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_UPDATE_CHECK="1"
    )
    from huggingface_hub import set_client_factory

    # The client waits as long as a server asks it to, be it a day; see `patiently`.
    set_client_factory(
        lambda: httpx.Client(
            event_hooks={"response": [refuse_busy]}, follow_redirects=True, timeout=None
        )
    )
