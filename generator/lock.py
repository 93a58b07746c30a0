"""generator.lock: what the specs resolve to, one line for each model, pack and requirement.

    model clip-l file=clip_l.safetensors gated=false hf=comfyanonymous/flux_text_encoders …
    pack ComfyUI_InstantID commit=1ef34ef… git=https://github.com/cubiq/ComfyUI_InstantID
    requirement aiohttp==3.14.5
    resolved comfyui=c55fd74… packs=… python=3.11 requirements=…

Lines are sorted, and words are quoted as a shell does. Requirements are those of the workers' image
for all workflows without a group; `group=NAME` is with those of another image, @gateway that of the
gateway. @comfyui stands for the layer that installs ComfyUI and what it alone asks for: it changes
with ComfyUI, and not with what packs and the app ask for. A `resolved` line says what the
requirements of an image were resolved from.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from .diagnostics import Diagnostic, Severity
from .graph.words import show
from .spec import Model, Models, Pack, Settings
from .whole_files import write_all

LOCK_FILE: Final = "generator.lock"
# Stands for the gateway's image where others are named by their group.
GATEWAY: Final = "@gateway"
# Stands for the layer of ComfyUI, which the workers' images have in common.
COMFYUI: Final = "@comfyui"

_FIRST_LINE: Final = "# What the specs resolve to, by make lock. Commit it, and do not edit it."
_VERSION: Final = "version 1"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_SOURCES: Final = ("hf", "file", "url")
# Each build of torch asks for its own versions of these: the one from PyPI for others than the one
# for the same version and another CUDA.
_OF_TORCH: Final = ("cuda-", "nvidia-", "triton==")
_DIGEST_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class LockedModel:
    """A model file; `source` is hf and file, or url. `size` is in bytes, None where nobody says it.

    `revision` is a full commit, None for a URL. `license` is what Hugging Face says.
    """

    name: str
    source: Mapping[str, str]
    revision: str | None
    size: int | None
    sha256: str
    gated: bool = False
    license: str | None = None


@dataclass(frozen=True, slots=True)
class LockedPack:
    """A custom-node pack."""

    name: str
    git: str
    commit: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the requirements of an image are resolved from; the last two are digests."""

    python: str
    comfyui: str
    requirements: str
    packs: str


@dataclass(frozen=True, slots=True)
class Lock:
    """What generator.lock holds: models and packs by name, requirements and inputs by group.

    "" is the group of workflows that name none; GATEWAY stands for the gateway, COMFYUI for the layer
    of ComfyUI. `lines` says where models and packs stand.
    """

    models: Mapping[str, LockedModel] = field(default_factory=dict)
    packs: Mapping[str, LockedPack] = field(default_factory=dict)
    requirements: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    resolved: Mapping[str, Inputs] = field(default_factory=dict)
    lines: Mapping[tuple[str, str], int] = field(
        default_factory=dict, compare=False, hash=False, repr=False
    )

    def pinned(self, group: str) -> tuple[str, ...]:
        """What the image of a group is to install, but for what its build of torch chooses."""
        lines = self.requirements.get(group, ())
        return tuple(line for line in lines if not line.startswith(_OF_TORCH))

    @property
    def summary(self) -> str:
        """How much is locked, in words."""
        size = sum(model.size or 0 for model in self.models.values())
        packages = len({line for lines in self.requirements.values() for line in lines})
        return (
            f"{_count(len(self.models), 'model')} ({size / 10**9:.1f} GB), "
            f"{_count(len(self.packs), 'pack')}, {_count(packages, 'package')}"
        )


def _inputs(settings: Settings, requirements: Iterable[str], packs: Iterable[Pack]) -> Inputs:
    written = sorted([pack.name, pack.git, pack.commit, *pack.pip] for pack in packs)
    return Inputs(
        settings.python,
        settings.comfyui.commit,
        _digest(sorted(requirements)),
        _digest(written),
    )


def inputs_of_images(settings: Settings, groups: Mapping[str, Iterable[Pack]]) -> dict[str, Inputs]:
    """Return what the requirements of each image are resolved from, and those of ComfyUI's layer.

    `groups` are the packs in the workers' images, by group.
    """
    app = settings.requirements
    found = {g: _inputs(settings, app, packs) for g, packs in {**groups, GATEWAY: ()}.items()}
    return found | {COMFYUI: _inputs(settings, (), ())} if groups else found


def is_locked(locked: LockedModel | None, model: Model) -> bool:
    """Say whether a locked model is the one that models.yaml declares."""
    return (
        locked is not None
        and locked.source == source_of(model)
        and model.source.get("revision") in (None, locked.revision)
        and model.source.get("sha256") in (None, locked.sha256)
    )


def source_of(model: Model) -> dict[str, str]:
    """Return where a model comes from, as a lock has it."""
    return {key: model.source[key] for key in _SOURCES if key in model.source}


def with_lock(models: Models, lock: Lock | None) -> Models:
    """Return models with the sizes, and the licences that nobody declared, of a lock."""
    if lock is None:
        return models
    return replace(
        models,
        models={
            name: replace(
                model, size=locked.size or model.size, license=model.license or locked.license
            )
            if (locked := lock.models.get(name)) and is_locked(locked, model)
            else model
            for name, model in models.models.items()
        },
    )


def read_lock(root: Path) -> tuple[Lock | None, list[Diagnostic]]:
    """Return what generator.lock of a project says, None when there is none, and its faults."""
    try:
        text = (root / LOCK_FILE).read_text("utf-8")
    except FileNotFoundError:
        return None, []
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8"
        return Lock(), [_fault(1, f"the lock cannot be read: {reason}")]
    return parse(text)


def parse(text: str) -> tuple[Lock, list[Diagnostic]]:
    """Return what the text of a lock says, and the lines that say nothing."""
    models: dict[str, LockedModel] = {}
    packs: dict[str, LockedPack] = {}
    requirements: dict[str, list[str]] = {}
    resolved: dict[str, Inputs] = {}
    lines: dict[tuple[str, str], int] = {}
    faults: list[Diagnostic] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#") or line == _VERSION:
            continue
        try:
            kind, names, values = _words(line)
            group = values.pop("group", "")
            match kind, names:
                case "model", [name]:
                    models[name] = _model(name, values)
                    lines[kind, name] = number
                case "pack", [name]:
                    packs[name] = LockedPack(name, **values)
                    lines[kind, name] = number
                case "requirement", [requirement] if not values:
                    requirements.setdefault(group, []).append(requirement)
                case "resolved", []:
                    resolved[group] = Inputs(**values)
                case _:
                    raise ValueError(kind)
        except (ValueError, KeyError, TypeError):
            faults.append(_fault(number, f"{show(line)} is no line of a lock"))
    return Lock(
        models, packs, {g: tuple(r) for g, r in requirements.items()}, resolved, lines
    ), faults


def text_of(lock: Lock) -> str:
    """Return the text of a lock; the same lock gives the same bytes."""
    lines = [
        *(_model_line(model) for model in lock.models.values()),
        *(_line("pack", p.name, git=p.git, commit=p.commit) for p in lock.packs.values()),
        *(
            _line("requirement", requirement, group=group)
            for group, names in lock.requirements.items()
            for requirement in names
        ),
        *(_line("resolved", group=group, **asdict(i)) for group, i in lock.resolved.items()),
    ]
    return "".join(f"{line}\n" for line in (_FIRST_LINE, _VERSION, *sorted(lines)))


def write_lock(lock: Lock, root: Path) -> bool:
    """Write generator.lock of a project, as a whole or not at all; say whether it changed.

    Raises:
        OSError: when the disk refuses.
    """
    path, text = root / LOCK_FILE, text_of(lock)
    if path.exists() and path.read_bytes() == text.encode():
        return False
    write_all({path: text})
    return True


def _words(line: str) -> tuple[str, list[str], dict[str, str]]:
    """Return the kind of a line, what it is about, and its values by their keys."""
    kind, *words = shlex.split(line)
    if kind == "resolved":
        return kind, [], dict(word.split("=", 1) for word in words)
    return kind, words[:1], dict(word.split("=", 1) for word in words[1:])


def _model(name: str, values: dict[str, str]) -> LockedModel:
    source: dict[str, str] = {key: values.pop(key) for key in _SOURCES if key in values}
    revision, size = values.pop("revision", None), values.pop("size", None)
    sha256, gated = values.pop("sha256"), values.pop("gated")
    licence = values.pop("license", None)
    is_whole = (set(source) == {"hf", "file"}) == bool(revision) and gated in ("true", "false")
    if values or not is_whole or not _SHA256.fullmatch(sha256):
        raise ValueError(name)
    if revision and not _COMMIT.fullmatch(revision):
        raise ValueError(revision)
    return LockedModel(
        name, source, revision, int(size) if size else None, sha256, gated == "true", licence
    )


def _model_line(model: LockedModel) -> str:
    return _line(
        "model",
        model.name,
        **model.source,
        revision=model.revision,
        size=None if model.size is None else str(model.size),
        sha256=model.sha256,
        gated=str(model.gated).lower(),
        license=model.license,
    )


def _line(*words: str, **values: str | None) -> str:
    said = [f"{key}={value}" for key, value in sorted(values.items()) if value]
    return shlex.join((*words, *said))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:_DIGEST_LENGTH]


def _fault(line: int, message: str) -> Diagnostic:
    hint = "make it anew: make lock"
    return Diagnostic(LOCK_FILE, line, 1, Severity.ERROR, "bad-lock", message, hint=hint)
