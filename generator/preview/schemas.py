"""The classes that the preview engine knows, and what their inputs take right now."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any, Final

from ..graph.catalog import Catalog, ClassType, Input
from .folders import CORE_FOLDERS, Folders

# Classes that look for their file themselves, wherever it lies: input, and what a message calls it.
FILE_INPUTS: Final = {
    "LoadAudio": ("audio", "audio"),
    "LoadImage": ("image", "image"),
    "LoadImageMask": ("image", "image"),
    "LoadImageOutput": ("image", "image"),
    "LoadLatent": ("latent", "latent"),
    "LoadVideo": ("file", "video"),
    "WebcamCapture": ("image", "image"),
}

_MEDIA: Final = {
    "glb": (".glb", ".gltf", ".obj"),
    "mp3": (".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"),
    "mp4": (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"),
    "png": (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tiff", ".webp"),
}


class Schemas:
    """The core's classes and those of some packs; a pack never replaces a class of the core."""

    def __init__(
        self, catalog: Catalog, folders: Folders, packs: Iterable[str] | None = None
    ) -> None:
        """Take the classes of the given packs, by default of all that the catalog has."""
        self.version: str = catalog.core.header["comfyui"]
        self._catalog = catalog
        self._folders = folders
        self._packs = tuple(catalog.packs if packs is None else packs)

    def get(self, name: object) -> ClassType | None:
        """Return a class, None for a name that no class has."""
        found = self._catalog.get(name, self._packs) if isinstance(name, str) else []
        return found[0] if found else None

    def names(self) -> list[str]:
        """Return the names of all classes, each once."""
        return list(dict.fromkeys(self._catalog.names(self._packs)))

    def options(self, input: Input) -> list[Any]:
        """Return what a choice offers: its fixed options, and the files that there are."""
        options = list(input.options)
        if input.folders:
            options += self._folders.models(*input.folders, extensions=input.extensions)
        if input.media:
            options += self._uploads(input.media)
        return options

    @cached_property
    def linked_types(self) -> frozenset[str]:
        """The types that only links carry: some class outputs them, and no widget edits them."""
        found = {
            output.type
            for name in self.names()
            for found in (self.get(name),)
            if found is not None
            for output in found.outputs
        }
        return frozenset(found - {"*", "BOOLEAN", "COMBO", "FLOAT", "INT", "STRING"})

    @cached_property
    def model_folders(self) -> list[str]:
        """The model folders that are served: the core's, then those that packs add."""
        added = {
            folder
            for pack in self._packs
            for name in self._catalog.packs[pack].header["classes"]
            for taken in self._catalog.packs[pack].class_type(name).inputs.values()
            for folder in taken.folders
        }
        return [*CORE_FOLDERS, *sorted(added - set(CORE_FOLDERS) - {"clip", "t2i_adapter", "unet"})]

    def _uploads(self, media: Iterable[str]) -> list[str]:
        wanted = tuple(extension for kind in media for extension in _MEDIA.get(kind, ()))
        return sorted(
            path.name
            for path in self._folders.kind("input").glob("*")
            if path.is_file() and path.name.lower().endswith(wanted)
        )


def input_config(input: Input, options: list[Any]) -> list[Any]:
    """Return an input in the form that /object_info and errors give it: its type, its settings."""
    settings: dict[str, Any] = {}
    if input.default is not None:
        settings["default"] = input.default
    for key, value in (("min", input.minimum), ("max", input.maximum), ("step", input.step)):
        if value is not None:
            settings[key] = value
    if input.multiline:
        settings["multiline"] = True
    if input.link_only:
        settings["forceInput"] = True
    if input.type != "COMBO":
        return [input.type, settings]
    if input.checked:
        return [options, settings]
    return ["COMBO", settings | {"options": options}]


def class_info(schemas: Schemas, class_type: ClassType) -> dict[str, Any]:
    """Return a class as /object_info gives it; descriptions and tooltips are not known."""
    inputs: dict[str, dict[str, Any]] = {"required": {}}
    for name, taken in class_type.inputs.items():
        group = inputs.setdefault("optional" if taken.optional else "required", {})
        group[name] = input_config(taken, schemas.options(taken))
    return {
        "input": inputs,
        "input_order": {group: list(entries) for group, entries in inputs.items()},
        "output": [output.type for output in class_type.outputs],
        "output_is_list": [False for _ in class_type.outputs],
        "output_name": [output.name for output in class_type.outputs],
        "name": class_type.name,
        "display_name": class_type.name,
        "description": "",
        "python_module": f"custom_nodes.{class_type.pack}" if class_type.pack else "nodes",
        "category": class_type.category,
        "output_node": class_type.output_node,
        "deprecated": class_type.deprecated,
        "experimental": False,
        "api_node": class_type.api_node,
    }
