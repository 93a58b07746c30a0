"""Resolve the specs into what generator.lock holds, by asking Hugging Face, git and an index."""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, TypeVar

from templates.image_build.requirements import name_of
from templates.utils.hub import Hub, git_hash, own_token
from templates.utils.patience import FetchFailed
from templates.utils.urls import url_size

from .check import Checked
from .check.image import COMFY_CLI
from .diagnostics import Diagnostic
from .graph.words import did_you_mean, show
from .load import Node
from .lock import (
    COMFYUI,
    GATEWAY,
    Inputs,
    Lock,
    LockedModel,
    LockedPack,
    inputs_of_images,
    is_locked,
    source_of,
)
from .requirements import (
    COMFYUI_GIT,
    Requirements,
    RequirementsError,
    compiled,
    requirements_at,
)
from .spec import Model, Pack

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo
    from huggingface_hub.hf_api import RepoSibling

# Takes how much of how much is done.
Tell = Callable[[int, int], None]
Key = TypeVar("Key")
Value = TypeVar("Value")

_PARALLEL: Final = 8
# What is not in the large-file storage of a repository is small; the server does not say its hash.
_LARGEST_PLAIN: Final = 100 * 10**6
_LICENSE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+()\[\]/-]{0,99}")


class UnknownNameError(ValueError):
    """A name that is to be updated is none of the lock's; the text says so."""


def resolve(
    checked: Checked,
    old: Lock,
    root: Path,
    update: Collection[str] = (),
    tell: Tell = lambda _done, _total: None,
) -> tuple[Lock, list[Diagnostic]]:
    """Return a lock of checked specs, and why it is not whole.

    What `old` has as the specs say it is kept, but for what is in `update`: names of models and of
    Python packages. Tokens are those of the user of this machine. `tell` hears how many of how many
    questions are answered.

    Raises:
        UnknownNameError: when there is no such model or package.
    """
    _check_names(checked, old, update)
    key = os.environ.get("CIVITAI_API_KEY", "").strip()
    with Hub.from_environment(own_token()) as hub:
        resolver = _Resolver(root, checked, old, hub, tell, key, update)
        return resolver.resolve(), resolver.faults


def _check_names(checked: Checked, old: Lock, update: Iterable[str]) -> None:
    models = checked.models
    known = {name for name, model in models.models.items() if "volume" not in model.source}
    known |= {name_of(line) for lines in old.requirements.values() for line in lines}
    for name in update:
        if name in known:
            continue
        if name in models.packs:
            reason = f"the commit of pack {show(name)} is written in models.yaml: change it there"
        elif name in models.models:
            reason = f"model {show(name)} is on a Volume, and not locked"
        else:
            reason = f"there is no model and no locked package {show(name)}"
            reason += f"; {near}" if (near := did_you_mean(name, known)) else ""
        raise UnknownNameError(reason)


@dataclass(frozen=True, slots=True)
class _Resolver:
    """Asks for what a lock does not have as the specs say it, and for what is to be updated."""

    root: Path
    checked: Checked
    old: Lock
    hub: Hub
    tell: Tell
    civitai_key: str = ""
    update: Collection[str] = ()
    faults: list[Diagnostic] = field(default_factory=list)

    def resolve(self) -> Lock:
        """Return the lock. What could not be resolved is not in it: `faults` say why."""
        models = self._models()
        requirements, resolved = self._requirements()
        packs = self.checked.models.packs.values()
        return Lock(
            models,
            {pack.name: _locked_pack(pack) for pack in packs},
            requirements,
            resolved,
        )

    def _models(self) -> dict[str, LockedModel]:
        locked: dict[str, LockedModel] = {}
        open_: dict[str, Model] = {}
        for name, model in self.checked.models.models.items():
            if "volume" in model.source:
                continue
            known = self.old.models.get(name)
            if known is not None and name not in self.update and is_locked(known, model):
                locked[name] = known
            else:
                open_[name] = model
        repos = {
            (m.source["hf"], m.source.get("revision")) for m in open_.values() if "hf" in m.source
        }
        about = _each(lambda key: self.hub.repository(*key), repos, self.tell)

        def lock(name: str) -> LockedModel:
            model = open_[name]
            if "url" in model.source:
                return self._at_url(model)
            info = about[model.source["hf"], model.source.get("revision")]
            if isinstance(info, Exception):
                raise info
            return self._of_repository(model, info)

        for name, found in _each(lock, open_, self.tell).items():
            if isinstance(found, LockedModel):
                locked[name] = found
            else:
                message = f"model {show(name)}: {found}"
                self.faults.append(_unresolved(open_[name].at.mapping["source"], message))
        return locked

    def _at_url(self, model: Model) -> LockedModel:
        size = url_size(model.source["url"], self.civitai_key)
        sha256 = model.source["sha256"]
        return LockedModel(model.name, source_of(model), None, size, sha256)

    def _of_repository(self, model: Model, info: "ModelInfo") -> LockedModel:
        repo, file = model.source["hf"], model.source["file"]
        files = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        if file not in files or info.sha is None:
            near = did_you_mean(file, files)
            raise FetchFailed(f"{repo} has no file {file}" + (f"; {near}" if near else ""))
        found = files[file]
        if found.lfs is not None:
            size, sha256 = found.lfs.size, found.lfs.sha256
        else:
            size, sha256 = self._hashed(repo, found, info.sha)
        card = vars(info.card_data) if info.card_data else {}
        license_ = card.get("license_name") or card.get("license")
        is_plain = isinstance(license_, str) and _LICENSE.fullmatch(license_)
        return LockedModel(
            model.name,
            source_of(model),
            info.sha,
            size,
            sha256,
            gated=bool(info.gated),
            license=license_ if is_plain else None,
        )

    def _hashed(self, repo: str, found: "RepoSibling", commit: str) -> tuple[int, str]:
        """Return size and hash of a small file, by downloading it."""
        file = found.rfilename
        if (found.size or 0) > _LARGEST_PLAIN:
            raise FetchFailed(f"{repo} does not say the SHA-256 of {file}, and it is large")
        with TemporaryDirectory(prefix="lock-") as folder:
            path = self.hub.download(repo, file, commit, Path(folder))
            if git_hash(path) != found.blob_id:
                raise FetchFailed(f"{file} of {repo} came damaged: its git hash is another")
            data = path.read_bytes()
        return len(data), hashlib.sha256(data).hexdigest()

    def _requirements(self) -> tuple[dict[str, tuple[str, ...]], dict[str, Inputs]]:
        settings, groups = self.checked.settings, self.checked.groups
        inputs = inputs_of_images(settings, groups)
        open_ = [group for group in inputs if self._is_open(group, inputs[group])]
        workers = [group for group in open_ if group in groups]
        texts = self._texts(
            {p.name for group in workers for p in groups[group]},
            bool({*open_} - {GATEWAY}),
        )
        requirements = {group: self.old.requirements.get(group, ()) for group in inputs}
        for group in open_:
            known, update = requirements[group], self.update
            if group == COMFYUI:
                if "" not in texts:
                    continue
                wanted = {"ComfyUI": texts[""]}
                # In the versions of the workers, so that their layer of requirements has less to do.
                known, update = next(iter(requirements.values())), ()
            elif group == GATEWAY:
                app = tuple(r for r in settings.requirements if name_of(r) != COMFY_CLI)
                wanted = {"gpu.yaml": Requirements("\n".join(app))}
                # Gateways and workers are to have the same versions, for they share records.
                known = next(iter(requirements.values()))
            elif texts.keys() >= {"", *(pack.name for pack in groups[group])}:
                app = settings.requirements
                wanted = {"gpu.yaml": Requirements("\n".join(app)), "ComfyUI": texts[""]}
                for pack in groups[group]:
                    own = texts[pack.name]
                    lines = "\n".join((*pack.pip, own.wanted))
                    wanted[pack.name] = own._replace(wanted=lines)
            else:
                continue
            try:
                requirements[group] = compiled(wanted, settings.python, known, update, self.root)
            except RequirementsError as error:
                at = settings.at.mapping.get("requirements", settings.at)
                self.faults.append(_unresolved(at, str(error)))
        return requirements, inputs

    def _is_open(self, group: str, inputs: Inputs) -> bool:
        names = {name_of(line) for line in self.old.requirements.get(group, ())}
        return self.old.resolved.get(group) != inputs or not names.isdisjoint(self.update)

    def _texts(self, used: Collection[str], has_comfyui: bool) -> dict[str, Requirements]:
        """Return the requirements of packs by their names, and of ComfyUI by "".

        The packs are those in use, and those whose commit is to be locked.
        """
        comfyui = self.checked.settings.comfyui.commit
        at = self.checked.settings.at.mapping["comfyui"].mapping["commit"]
        wanted = {"": (COMFYUI_GIT, comfyui, at)} if has_comfyui else {}
        for name, pack in self.checked.models.packs.items():
            if name in used or self.old.packs.get(name) != _locked_pack(pack):
                wanted[name] = (pack.git, pack.commit, pack.at.mapping["commit"])
        found = _each(lambda name: requirements_at(*wanted[name][:2]), wanted, self.tell)
        texts: dict[str, Requirements] = {}
        for name, one in found.items():
            if isinstance(one, Requirements):
                texts[name] = one
            else:
                self.faults.append(_unresolved(wanted[name][2], str(one)))
        return texts


def _each(
    ask: Callable[[Key], Value], keys: Iterable[Key], tell: Tell
) -> dict[Key, Value | Exception]:
    """Ask for many things at once; return what came of each."""

    def answer(key: Key) -> Value | Exception:
        try:
            return ask(key)
        except (FetchFailed, RequirementsError) as error:
            return error

    keys = sorted(keys, key=repr)
    with ThreadPoolExecutor(_PARALLEL) as threads:
        answers: dict[Key, Value | Exception] = {}
        for key, found in zip(keys, threads.map(answer, keys), strict=True):
            answers[key] = found
            tell(len(answers), len(keys))
        return answers


def _locked_pack(pack: Pack) -> LockedPack:
    return LockedPack(pack.name, pack.git, pack.commit)


def _unresolved(at: Node, message: str) -> Diagnostic:
    return at.error("unresolved", message)
