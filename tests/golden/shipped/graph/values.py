"""Whether an input takes a literal, as ComfyUI's own check of a graph judges it."""

from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Literal, NamedTuple

from .catalog import WIDGET_TYPES, Input, is_listed_name
from .words import did_you_mean, show, some

_KINDS: Final = {"INT": "a whole number", "FLOAT": "a number"}
# ComfyUI converts with these, so that "64" is an INT and 64.7 is 64. Texts and booleans are left
# out: every value converts to one.
_CONVERTERS: Final[dict[str, Callable[[Any], Any]]] = {"INT": int, "FLOAT": float}
# What inputs list that are filled by uploads, by the kinds that the catalog tells apart.
MEDIA: Final = {
    "glb": "fbx glb gltf obj ply stl",
    "mp3": "aac aif aiff flac m4a mp3 oga ogg opus wav weba wma",
    "mp4": "avi flv gif m4v mkv mov mp4 mpeg mpg ogv ts webm webp wmv",
    "png": "avif bmp gif heic heif ico jfif jpe jpeg jpg png ppm svg tga tif tiff webp",
}
_LINK: Final = 'a link is ["node id", output number]'
_NAMED: Final = "a model that it names stands under models: of the workflow, else it is not there"
_RAISED: Final = (ArithmeticError, TypeError, ValueError)


Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that is not known here, whatever it will be; where it comes from, it is checked."""

    def __repr__(self) -> str:
        return "a param's value"


class Misfit(NamedTuple):
    """Why an input does not take a value."""

    code: str
    message: str
    hint: str | None = None
    severity: Severity = "error"


def misfit(taken: Input, value: Any, linked_types: Callable[[], Container[str]]) -> Misfit | None:
    """Return why an input does not take a literal, None when it does.

    `linked_types` gives the types that some class outputs and no widget edits.
    """
    if taken.type == "*" and taken.default is None and isinstance(value, str | float | int):
        # What takes anything has no widget to write a text or a number into.
        return Misfit("literal-for-link", f"this input takes a link, not {show(value)}", _LINK)
    if isinstance(value, dict) and "__value__" in value:
        value = value["__value__"]
    if isinstance(value, Unknown):
        return None
    if taken.type == "COMBO":
        return _misfit_choice(taken, value)
    if taken.media and value != taken.default:
        return _misfit_file(taken, value)
    if taken.type in _CONVERTERS:
        try:
            value = _CONVERTERS[taken.type](value)
        except _RAISED:
            return _wrong_type(taken, value)
    elif (value is not None or not taken.optional) and _needs_link(taken.type, linked_types):
        message = f"this input takes a link to an output of type {taken.type}, not {show(value)}"
        return Misfit("literal-for-link", message, _LINK)
    return _misfit_range(taken, value) or _off_step(taken, value)


def _misfit_choice(taken: Input, value: Any) -> Misfit | None:
    lists_files = bool(taken.folders or taken.media)
    if value in taken.options:
        return None
    if not (taken.options or lists_files):
        message = f"nobody knows what this input lists, so {show(value)} goes unchecked"
        return Misfit("unchecked-file", message, _NAMED, "info")
    if lists_files:
        return _misfit_file(taken, value)
    near = did_you_mean(value, map(str, taken.options)) if isinstance(value, str) else None
    hint = near or f"options are {some(taken.options)}"
    return Misfit("not-an-option", f"{show(value)} is no option here", hint)


def _misfit_file(taken: Input, value: Any) -> Misfit | None:
    if not isinstance(value, str):
        return Misfit("literal-type", f"this input takes the name of a file, not {show(value)}")
    return None if _can_be_listed(taken, value) else _unlisted(taken, value)


def _can_be_listed(taken: Input, name: str) -> bool:
    """Say whether an input can list a file of this name; whether the file exists is not asked."""
    extension = PurePosixPath(name).suffix.lower()
    if taken.folders and extension in taken.extensions and is_listed_name(name):
        return True
    if name.endswith((" [input]", " [output]", " [temp]")):
        name = name.rpartition(" ")[0]
    extension = PurePosixPath(name).suffix.lower().removeprefix(".")
    return any(extension in MEDIA.get(kind, extension).split() for kind in taken.media)


def _unlisted(taken: Input, name: str) -> Misfit:
    what = f"folder {' or '.join(taken.folders)} lists" if taken.folders else "this input lists"
    hint = "the engine goes by the extension, and by / between folders"
    if taken.folders:
        hint += f"; listed are {', '.join(sorted(taken.extensions))}"
    return Misfit("unlisted-file", f"{show(name)} is no name of a file that {what}", hint)


def _wrong_type(taken: Input, value: Any) -> Misfit:
    message = f"this input takes {taken.type}, not {show(value)}"
    kind = _KINDS.get(taken.type)
    return Misfit("literal-type", message, f"write {kind}" if kind else None)


def _needs_link(type: str, linked_types: Callable[[], Container[str]]) -> bool:
    members = type.split(",")
    if not WIDGET_TYPES.isdisjoint(members):
        return False
    known = linked_types()
    return any(member in known for member in members)


def _misfit_range(taken: Input, value: Any) -> Misfit | None:
    try:
        is_below = taken.minimum is not None and value < taken.minimum
        is_above = taken.maximum is not None and value > taken.maximum
    except TypeError:
        return _wrong_type(taken, value)
    if not (is_below or is_above):
        return None
    beyond = f"below {taken.minimum}, the least" if is_below else f"above {taken.maximum}, the most"
    return Misfit("out-of-range", f"{show(value)} is {beyond} that this input takes")


def _off_step(taken: Input, value: Any) -> Misfit | None:
    """Warn of integers that lie between steps; ComfyUI's frontend rounds them, its engine not."""
    if taken.type != "INT" or not taken.step or taken.step % 1:
        return None
    step, start = int(taken.step), int(taken.minimum or 0)
    below = value - (value - start) % step
    if below == value:
        return None
    message = f"{show(value)} lies between the steps of this input, which go by {step} from {start}"
    return Misfit(
        "off-step", message, f"nearest are {show(below)} and {show(below + step)}", "warning"
    )
