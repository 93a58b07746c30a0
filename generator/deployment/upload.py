"""Uploading model files to a Volume of the app, where callers may name them at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import modal
from modal.exception import Error as ModalSdkError
from modal.exception import NotFoundError

from ..check import Checked
from ..check.uploads import Fit, check_upload
from ..graph.catalog import is_listed_name
from ..graph.families import Families, family_of_name
from ..graph.safetensors import family_of_keys, read_header
from ..graph.words import did_you_mean, show
from ..spec import CACHE_VOLUME, Settings
from .modal_app import ModalApp, call_command, failed

_EXTENSION: Final = ".safetensors"


class UploadError(ValueError):
    """A file is not uploaded; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that may be uploaded, and the workflows that will take it.

    `families` are those that its header or its name shows, None when neither does.
    """

    file: Path
    volume: str
    folder: str
    name: str
    families: Families | None
    fits: tuple[Fit, ...]

    @property
    def path(self) -> str:
        """Where it goes on the Volume."""
        return f"{self.folder}/{self.name}"

    @property
    def family(self) -> str:
        """The families in words."""
        return " or ".join(sorted(self.families)) if self.families else "unknown"


def checked_upload(
    checked: Checked,
    file: Path,
    folder: str,
    *,
    name: str | None = None,
    volume: str | None = None,
    any_family: bool = False,
) -> Upload:
    """Return an upload of a file, once its header and its place are right.

    Raises:
        UploadError: when it is no whole safetensors file, when no loader reads the folder, or when
            no workflow that takes files of the folder can use it and `any_family` is not set.
    """
    name = name or file.name
    if not name.lower().endswith(_EXTENSION) or not is_listed_name(name):
        raise UploadError(
            f"{show(name)} is no name of a safetensors file; other formats can hold programs, "
            "and come with: modal volume put VOLUME FILE /FOLDER/"
        )
    _check_place(checked, folder, name)
    families = _families(file, folder, name)
    fits = check_upload(checked, folder, name, families)
    if fits and all(fit.misfit for fit in fits) and not any_family:
        said = "".join(f"\n  {fit.workflow.route}: {fit.misfit}" for fit in fits)
        raise UploadError(f"no endpoint can use {file}; --any-family uploads it all the same{said}")
    return Upload(file, _volume(checked.settings, volume), folder, name, families, tuple(fits))


def send(upload: Upload, app: ModalApp, root: Path, *, force: bool) -> None:
    """Upload a file, with the progress that Modal's command line shows.

    Raises:
        UploadError: when the Volume has such a file and `force` is not set, or Modal fails.
        ModalError: when Modal does not answer.
    """
    volume = modal.Volume.from_name(
        upload.volume, environment_name=app.environment, create_if_missing=True
    )
    try:
        there = volume.listdir(f"/{upload.path}")
    except NotFoundError:
        there = []
    except (ModalSdkError, OSError) as error:
        raise failed(f"the Volume {upload.volume} cannot be read", error) from error
    if there and not force:
        raise UploadError(
            f"the Volume {upload.volume} has a file {upload.path} of {there[0].size} bytes; give "
            "this one another --name, or replace that with --force"
        )
    words = ("volume", "put", upload.volume, str(upload.file.resolve()), f"/{upload.path}")
    if call_command(app.command(*words, *(["--force"] if force else [])), root):
        raise UploadError(f"{upload.file} is not uploaded")


def _check_place(checked: Checked, folder: str, name: str) -> None:
    packs = list(checked.models.packs)
    classes = (c for n in checked.catalog.names(packs) for c in checked.catalog.get(n, packs))
    folders = {read for c in classes for taken in c.inputs.values() for read in taken.folders}
    folders |= {model.folder for model in checked.models.models.values()}
    if folder not in folders:
        near = did_you_mean(folder, folders)
        raise UploadError(f"nothing reads a folder {show(folder)}" + (f"; {near}" if near else ""))
    for model in checked.models.models.values():
        if model.destination == f"{folder}/{name}" and "volume" not in model.source:
            raise UploadError(f"{model.destination} is model {show(model.name)} of models.yaml")


def _families(file: Path, folder: str, name: str) -> Families | None:
    try:
        header = read_header(file)
    except ValueError as error:
        raise UploadError(f"{file}: {error}") from error
    except OSError as error:
        raise UploadError(f"{file} cannot be read: {error.strerror}") from error
    return family_of_keys(header, folder) or family_of_name(name, folder)


def _volume(settings: Settings, volume: str | None) -> str:
    volumes = [name for name in settings.volumes if name != CACHE_VOLUME]
    if volume is None and len(volumes) == 1:
        return volumes[0]
    known = f"volumes: of gpu.yaml has {', '.join(volumes) or 'none'} for uploads"
    if volume is None:
        raise UploadError(f"give a --volume; {known}" if volumes else known)
    if volume not in volumes:
        raise UploadError(f"no Volume {show(volume)}: {known}")
    return volume
