"""Node schemas of ComfyUI and of custom-node packs.

A catalog file is JSON Lines: a header with the names of its classes in order, then one class a
line. A class is parsed when it is asked for, and the files of packs that nobody declared are read
no further than their header.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

# What ComfyUI's own folders list; files of other kinds lie there unseen.
CORE_EXTENSIONS = frozenset(
    (".bin", ".ckpt", ".pkl", ".pt", ".pt2", ".pth", ".safetensors", ".sft")
)
MODEL_EXTENSIONS = CORE_EXTENSIONS | {".gguf", ".onnx"}
_UPLOADS = {
    "image": "image_upload",
    "animated": "animated_image_upload",
    "video": "video_upload",
    "audio": "audio_upload",
    "file": "file_upload",
}
# Types whose values are written into a graph; the values of others come by a link.
WIDGET_TYPES = frozenset(("*", "BOOLEAN", "COMBO", "FLOAT", "INT", "STRING"))


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a class.

    `type` is ComfyUI's own name, COMBO for a choice. `options` are a choice's fixed values;
    `folders` the model folders whose files it lists, of `extensions`; `media` kinds of uploaded
    files that it lists (png, mp4, mp3, glb). `checked`: the engine refuses values that it does not list.

    The rest is what ComfyUI's canvas does with the input, under the names that /object_info has
    for it: `control_after_generate` is None where the schema does not say, `upload` the kind of
    files that it uploads (image, animated, video, audio, file), `image_folder` where they lie.
    """

    type: str
    optional: bool = False
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    options: tuple[Any, ...] = ()
    folders: tuple[str, ...] = ()
    extensions: frozenset[str] = CORE_EXTENSIONS
    media: tuple[str, ...] = ()
    checked: bool = False
    multiline: bool = False
    link_only: bool = False
    control_after_generate: bool | str | None = None
    dynamic_prompts: bool = False
    upload: str = ""
    image_folder: str = "input"
    allow_batch: bool = False
    multi_select: bool = False
    remote: Mapping[str, Any] | None = None
    socketless: bool = False
    widget_type: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether a choice lists files, so that its options say not all."""
        return bool(self.folders or self.media or not self.options)


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a class."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Loads:
    """Files that a class loads though no input names them.

    `files` are patterns of paths below the models folder, of which each needs a file; `when`: only
    where inputs have these values. `hf` is a Hugging Face repository that has them, "" if none is
    known.
    """

    files: tuple[str, ...]
    when: Mapping[str, Any] = field(default_factory=dict)
    hf: str = ""


@dataclass(frozen=True, slots=True)
class More:
    """Inputs beyond a class's schema that name files: mappings with the file under a key.

    `name` is a pattern of the inputs' names; false under `switch` turns one off.
    """

    name: str
    key: str
    switch: str
    taken: Input


@dataclass(frozen=True, slots=True)
class ClassType:
    """One class of nodes; `pack` is None for ComfyUI's own.

    `inputs` are in the schema's order, the required ones first: UI files hold values by place.
    `open` classes take inputs beyond those listed; `more` are some of
    them, `loads` files that no input names.
    """

    name: str
    pack: str | None
    inputs: Mapping[str, Input]
    outputs: tuple[Output, ...]
    category: str = ""
    output_node: bool = False
    api_node: bool = False
    deprecated: bool = False
    open: bool = False
    more: tuple[More, ...] = ()
    loads: tuple[Loads, ...] = ()

    def file_input(self, name: str, value: object) -> tuple[Input, object] | None:
        """Return the schema of an input that may name a file, and what it names."""
        if name in self.inputs:
            return self.inputs[name], value
        for more in self.more:
            if fnmatchcase(name.lower(), more.name) and isinstance(value, Mapping):
                is_on = value.get(more.switch) is not False
                return (more.taken, value.get(more.key)) if is_on else None
        return None


@dataclass(frozen=True)
class CatalogFile:
    """The classes of ComfyUI itself (`pack` is None) or of one pack, at one commit."""

    path: Path

    @cached_property
    def header(self) -> dict[str, Any]:
        """What the first line says: comfyui, pack, repo, commit and classes."""
        with self.path.open("rb") as file:
            header: dict[str, Any] = json.loads(file.readline())
        return header

    @property
    def pack(self) -> str | None:
        """The pack's name, None for ComfyUI itself."""
        name: str | None = self.header.get("pack")
        return name

    @property
    def commit(self) -> str:
        """The commit that the schemas were taken from."""
        commit: str = self.header["commit"]
        return commit

    @cached_property
    def _lines(self) -> dict[str, bytes]:
        lines = self.path.read_bytes().split(b"\n")
        return dict(zip(self.header["classes"], lines[1:], strict=False))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.header["classes"])

    def line(self, name: str) -> bytes:
        """Return a class as it stands in the file. Raises KeyError for an unknown one."""
        return self._lines[name]

    def class_type(self, name: str) -> ClassType:
        """Return a class. Raises KeyError for an unknown one."""
        return _class_type(name, self.pack, json.loads(self.line(name)))


@dataclass(frozen=True)
class Catalog:
    """The node schemas of one ComfyUI version and of all packs that have any."""

    core: CatalogFile
    packs: Mapping[str, CatalogFile]
    _known: dict[tuple[str | None, str], ClassType] = field(default_factory=dict, repr=False)

    def get(self, name: str, packs: Iterable[str]) -> list[ClassType]:
        """Return the definitions of a class by the core and the given packs; several clash."""
        return [
            self._class_type(file, name)
            for file in (self.core, *(self.packs[p] for p in packs if p in self.packs))
            if name in file
        ]

    def packs_with(self, name: str) -> list[str]:
        """Return the packs that define a class, declared or not."""
        return [pack for pack, file in self.packs.items() if name in file]

    def names(self, packs: Iterable[str] | None = None) -> list[str]:
        """Return the classes of the core and of the given packs, by default of all."""
        chosen = self.packs if packs is None else [p for p in packs if p in self.packs]
        files = (self.core, *(self.packs[pack] for pack in chosen))
        return [name for file in files for name in file.header["classes"]]

    @cached_property
    def linked_types(self) -> frozenset[str]:
        """The types that only links carry: some class outputs them, and no widget edits them.

        Every class is parsed for it, so it is worth asking only when the answer matters.
        """
        found = {
            output
            for file in (self.core, *self.packs.values())
            for name in file.header["classes"]
            for _, output in json.loads(file.line(name))["outputs"]
        }
        return frozenset(found - WIDGET_TYPES)

    def _class_type(self, file: CatalogFile, name: str) -> ClassType:
        key = (file.pack, name)
        if key not in self._known:
            self._known[key] = file.class_type(name)
        return self._known[key]


def open_catalog(*directories: Path, version: str) -> Catalog:
    """Return the catalog of a ComfyUI version; of two files of a pack the later directory's counts.

    Raises:
        FileNotFoundError: when no directory has schemas of that version.
    """
    cores = [path for d in directories if (path := d / f"comfyui-{version}.jsonl").is_file()]
    if not cores:
        raise FileNotFoundError(directories[0] / f"comfyui-{version}.jsonl")
    files = (CatalogFile(path) for d in directories for path in sorted(d.glob("packs/*.jsonl")))
    return Catalog(CatalogFile(cores[-1]), {str(file.pack): file for file in files})


def versions(*directories: Path) -> list[str]:
    """Return the ComfyUI versions that some directories have schemas of."""
    paths = {path for directory in directories for path in directory.glob("comfyui-*.jsonl")}
    return sorted({path.stem.removeprefix("comfyui-") for path in paths})


def is_model_file(name: str) -> bool:
    """Say whether model folders list a file of this name (ComfyUI goes by the extension)."""
    return Path(name).suffix.lower() in MODEL_EXTENSIONS


def is_listed_name(name: str) -> bool:
    """Say whether a model folder can list a file of this name: below it, with / between folders."""
    leads_out = any(part.strip(". ") == "" for part in name.split("/"))
    return is_model_file(name) and not leads_out and "\\" not in name and name.isprintable()


def _class_type(name: str, pack: str | None, raw: dict[str, Any]) -> ClassType:
    return ClassType(
        name,
        pack,
        {key: _input(value) for key, value in raw["inputs"].items()},
        tuple(Output(*output) for output in raw["outputs"]),
        category=raw.get("category", ""),
        output_node=raw.get("output_node", False),
        api_node=raw.get("api_node", False),
        deprecated=raw.get("deprecated", False),
        open=raw.get("open", False),
        more=tuple(
            More(one["name"], one["key"], one["switch"], _input({"type": "COMBO"} | one))
            for one in raw.get("more", ())
        ),
        loads=tuple(
            Loads(tuple(one["files"]), one.get("when", {}), one.get("hf", ""))
            for one in raw.get("loads", ())
        ),
    )


def _extensions(raw: Collection[str]) -> frozenset[str]:
    """Return extensions, of which .safetensors stands for all of ComfyUI's own."""
    own = CORE_EXTENSIONS if not raw or ".safetensors" in raw else frozenset[str]()
    return own.union(raw)


def _input(raw: dict[str, Any]) -> Input:
    return Input(
        raw["type"],
        optional=raw.get("optional", False),
        default=raw.get("default"),
        minimum=raw.get("min"),
        maximum=raw.get("max"),
        step=raw.get("step"),
        options=tuple(raw.get("options", ())),
        folders=tuple(raw.get("folders", ())),
        extensions=_extensions(raw.get("extensions", ())),
        media=tuple(raw.get("input_files", ())),
        checked=raw.get("checked", False),
        multiline=raw.get("multiline", False),
        link_only=raw.get("forceInput", False),
        control_after_generate=raw.get("control_after_generate"),
        dynamic_prompts=raw.get("dynamicPrompts", False),
        upload=next((kind for kind, key in _UPLOADS.items() if raw.get(key)), ""),
        image_folder=raw.get("image_folder", "input"),
        allow_batch=raw.get("allow_batch", False),
        multi_select=bool(raw.get("multi_select", False)),
        remote=raw.get("remote"),
        socketless=raw.get("socketless", False),
        widget_type=raw.get("widgetType"),
    )
