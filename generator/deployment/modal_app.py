"""The deployed app, through Modal's SDK and its command line."""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import modal
from modal.config import config
from modal.exception import AuthError, NotFoundError
from modal.exception import Error as ModalSdkError

from .manifest import Manifest, ManifestError, checked_manifest

# The functions of build/app.py, by their names there.
_MANIFEST: Final = "manifest"
_GATEWAY: Final = "gateway"
# A container that starts on a machine without the image takes its time.
_MANIFEST_SECONDS: Final = 180.0


class ModalError(RuntimeError):
    """Modal did not do what was asked; the text says what to do."""


@dataclass(frozen=True, slots=True)
class ModalApp:
    """An app by its name in an environment; None is the one that Modal takes by itself."""

    name: str
    environment: str | None = None

    def manifest(self) -> Manifest | None:
        """Return the manifest of what is deployed, None when nothing is.

        Raises:
            ModalError: when Modal does not answer, or something else is deployed by this name.
            ManifestError: when what is deployed does not say what it is, or nothing comparable.
        """
        function = self._function(_MANIFEST)
        try:
            call = function.spawn()
        except NotFoundError:
            if self._is_deployed():
                raise ModalError(
                    f"an app {self.name} is deployed that has no function {_MANIFEST}(): it is not "
                    "this project's. Give `app` in gpu.yaml another name, or stop that app"
                ) from None
            return None
        except (ModalSdkError, OSError) as error:
            raise failed("Modal does not say what is deployed", error) from error
        try:
            found: Any = call.get(timeout=_MANIFEST_SECONDS)
        except TimeoutError as error:
            with suppress(ModalSdkError, OSError):
                call.cancel()
            raise ManifestError(
                f"the deployed function {_MANIFEST}() has not answered within "
                f"{_MANIFEST_SECONDS:.0f} s; its log may say why: make logs"
            ) from error
        except Exception as error:
            # Whatever it raises there is raised here.
            text = f"the deployed function {_MANIFEST}() fails: {_one_line(error)}"
            raise ManifestError(text) from error
        return checked_manifest(found, f"the deployed app {self.name}")

    def url(self) -> str:
        """Return where the deployed gateway answers, without a slash at the end.

        Raises:
            ModalError: when it is not deployed, or Modal does not answer.
        """
        try:
            url = self._function(_GATEWAY).get_web_url()
        except NotFoundError:
            raise ModalError(f"no app {self.name} is deployed{self.where}") from None
        except (ModalSdkError, OSError) as error:
            raise failed("Modal does not say where the app is", error) from error
        if not url:
            raise ModalError(f"the deployed function {_GATEWAY} of {self.name} has no URL")
        return url.rstrip("/")

    def files(self, volume: str, folder: str) -> frozenset[str]:
        """Return the names of what is in a folder of a Volume; none where there is no such folder.

        Raises:
            ModalError: when Modal does not answer.
        """
        found = modal.Volume.from_name(volume, environment_name=self.environment)
        try:
            return frozenset(PurePosixPath(one.path).name for one in found.listdir(f"/{folder}"))
        except NotFoundError:
            return frozenset()
        except (ModalSdkError, OSError) as error:
            raise failed(f"the Volume {volume} cannot be read", error) from error

    @property
    def where(self) -> str:
        """The environment as a sentence goes on with it, empty for the one taken by itself."""
        return f" in environment {self.environment}" if self.environment else ""

    def command(self, *words: str) -> list[str]:
        """Return a command of Modal's command line that acts in the environment."""
        more = ("--env", self.environment) if self.environment else ()
        return [sys.executable, "-m", "modal", *words, *more]

    def run(self, root: Path, *words: str) -> int:
        """Run a command of Modal's command line in the project's folder, and return its code."""
        return call_command(self.command(*words), root)

    def _function(self, name: str) -> "modal.Function[..., Any, Any]":
        return modal.Function.from_name(self.name, name, environment_name=self.environment)

    def _is_deployed(self) -> bool:
        try:
            modal.App.lookup(self.name, environment_name=self.environment)
        except NotFoundError:
            return False
        except (ModalSdkError, OSError) as error:
            raise failed("Modal does not say what is deployed", error) from error
        return True


def has_token() -> bool:
    """Say whether this machine has credentials of Modal, in its file or variables; asks nobody."""
    ways = (("token_id", "token_secret"), ("oauth_refresh_token", "oauth_client_id"))
    return any(all(config.get(name) for name in way) for way in ways)


def call_command(command: Sequence[str], folder: Path) -> int:
    """Run a command that has the terminal, and return its exit code."""
    # Ctrl-C reaches it too; it says itself what it has left undone.
    with subprocess.Popen(command, cwd=folder) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


def failed(what: str, error: Exception) -> ModalError:
    """Return what to say when a call of the SDK failed."""
    hint = ". A new token comes with: modal token new" if isinstance(error, AuthError) else ""
    return ModalError(f"{what}: {_one_line(error)}{hint}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
