"""The widgets that ComfyUI's canvas gives a node, and the values that a UI file has for them.

Source: the widget constructors and core extensions of ComfyUI's frontend 1.28.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .catalog import ClassType, Input
from .ui_records import UiNode

# Types that the frontend, or a pack's part of it, edits in a widget.
_WIDGETS: Final = frozenset(
    "BOOLEAN CHART COLOR COMBO FILEUPLOAD FLOAT GALLERIA IMAGECOMPARE INT MARKDOWN MULTISELECT"
    " SELECTBUTTON STRING TEXTAREA TREESELECT"
    " AUDIO_RECORD AUDIO_UI AUDIOUPLOAD LOAD_3D LOAD_3D_ANIMATION PREVIEW_3D PREVIEW_3D_ANIMATION"
    " WEBCAM EASY_COMBO EASY_PROMPT_AWAIT_BAR EASY_PROMPT_STYLES INFO VHSTIMESTAMP".split()
)
# Those that hold no value of their own: what they show is put into the graph when it is run.
_LIVE: Final = frozenset(("AUDIO_RECORD", "LOAD_3D", "LOAD_3D_ANIMATION", "WEBCAM"))
# Buttons that stand before a live widget, and take places among the values.
_BUTTONS_BEFORE: Final = {"LOAD_3D": 3, "LOAD_3D_ANIMATION": 3}
# Choices with an upload button beside them, which falls back to the first choice.
_UPLOADS: Final = frozenset(("animated", "image", "video"))
# What companions of widgets are called.
COMPANIONS: Final = frozenset(("control_after_generate", "control_filter_list", "upload"))
# Widgets of packs that only show something.
_PREVIEWS: Final = frozenset(("videopreview",))
_SEEDS: Final = frozenset(("noise_seed", "seed"))
_COMMENT: Final = re.compile(r"/\*.*?\*/|//[^\n\r\u2028\u2029]*", re.DOTALL)
# Beyond, floats have no fractions.
_EXACT: Final = 2**53
_ESCAPED: Final = re.compile(r"\\([{}|])")


@dataclass(frozen=True, slots=True)
class Widget:
    """A widget of a node; without `input` it is a companion, whose value no graph has."""

    name: str
    input: Input | None = None


def is_widget(taken: Input) -> bool:
    """Say whether the canvas edits an input in a widget; others are only linked."""
    return not taken.link_only and (taken.widget_type or taken.type) in _WIDGETS


def widgets_of(class_type: ClassType) -> list[Widget]:
    """Return the widgets of a class that a UI file has values for, in the order of the values."""
    found: list[Widget] = []
    for name, taken in class_type.inputs.items():
        if is_widget(taken):
            kind = taken.widget_type or taken.type
            found += [Widget("")] * _BUTTONS_BEFORE.get(kind, 0)
            found.append(Widget(name, taken))
            found += [Widget("")] * _companions(name, taken, kind)
    return found


def _companions(name: str, taken: Input, kind: str) -> int:
    """Return how many widgets without an input follow an input's own."""
    count = 0
    if kind == "COMBO" and not taken.multi_select:
        if taken.remote is not None:  # a toggle, and a button to look again
            count += 2 if taken.remote.get("refresh_button") else 1
        if taken.control_after_generate:  # what comes next, and a filter
            count += 2
    elif kind == "INT":
        control = taken.control_after_generate
        count += bool(name in _SEEDS if control is None else control)
    return count


def values_of(class_type: ClassType, node: UiNode) -> tuple[dict[str, Any], list[str]]:
    """Return the values of a node's widgets by input, and for which the file has none.

    The values are in the schema's order. A widget that the file has no value for has its default;
    one without is left out.
    """
    widgets = widgets_of(class_type)
    given: Mapping[str, Any]
    if isinstance(node.values, dict):
        given = node.values
    else:
        values = _without_forced(class_type, widgets, node.values or [])
        pairs = zip(widgets, values, strict=False)
        given = {widget.name: value for widget, value in pairs if widget.input is not None}
    found: dict[str, Any] = {}
    missing: list[str] = []
    for widget in widgets:
        if widget.input is None:
            continue
        taken = widget.input
        if (taken.widget_type or taken.type) in _LIVE:
            found[widget.name] = ""
        elif widget.name in given:
            value = _as_held(taken, given[widget.name])
            if value is None and taken.upload in _UPLOADS:
                value = _default(taken)
            if value is None and taken.type == "COMBO":
                missing.append(widget.name)
            else:
                found[widget.name] = value
        else:
            missing.append(widget.name)
            if (default := _default(taken)) is not None:
                found[widget.name] = default
    if class_type.open:
        found.update(_beyond_schema(class_type, node))
    return found, missing


def _beyond_schema(class_type: ClassType, node: UiNode) -> Iterator[tuple[str, Any]]:
    """Yield the values of widgets that a pack's own script gives a node, beside its schema's."""
    if isinstance(node.values, dict):
        for name, value in node.values.items():
            if name not in class_type.inputs and name not in _PREVIEWS:
                yield name, value
    elif class_type.name == "Power Lora Loader (rgthree)":
        loras = [v for v in node.values or () if isinstance(v, dict) and "lora" in v]
        is_split = node.properties.get("Show Strengths") == "Separate Model & Clip"
        for number, lora in enumerate(loras, start=1):
            shown = {key: value for key, value in lora.items() if is_split or key != "strengthTwo"}
            yield f"lora_{number}", shown


def _without_forced(class_type: ClassType, widgets: list[Widget], values: list[Any]) -> list[Any]:
    """Return values without those of inputs that had a widget before frontend 1.16.

    The frontend tells such files by the count of values, and then looks no further than the places
    of the inputs, companions left aside.
    """
    shown = {widget.name for widget in widgets}
    inputs = [
        (name, taken)
        for name, taken in class_type.inputs.items()
        if name in shown or taken.link_only
    ]
    if not any(taken.link_only for _, taken in inputs):
        return values
    count = sum(
        2 if taken.control_after_generate or name in _SEEDS else 1 for name, taken in inputs
    )
    if count != len(values):
        return values
    forced = {place for place, (_, taken) in enumerate(inputs) if taken.link_only}
    return [value for place, value in enumerate(values) if place not in forced]


def _default(taken: Input) -> Any:
    """Return the value of a widget that nobody has touched, None where there is none."""
    match taken.widget_type or taken.type:
        case "COMBO" if taken.multi_select:
            return []
        case "COMBO":
            return taken.default or (taken.options[0] if taken.options else None)
        case "INT" | "FLOAT":
            return 0 if taken.default is None else taken.default
        case "STRING" | "TEXTAREA" | "MARKDOWN":
            return "" if taken.default is None else taken.default
        case "BOOLEAN":
            return False if taken.default is None else taken.default
        case "COLOR":
            return "#000000"
    return taken.default


def _as_held(taken: Input, value: Any) -> Any:
    """Return a value as its widget holds it."""
    if taken.type == "STRING" and taken.multiline:
        return as_text(value)
    if taken.upload in _UPLOADS:
        if isinstance(value, list):
            named = [_annotated(taken, item) for item in value]
            return named if taken.allow_batch else (named[0] if named else None)
        return _annotated(taken, value) if value else None
    return value


def as_text(value: Any) -> Any:
    """Return what a text area makes of a value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        value = int(value)
    if isinstance(value, str | int | float):
        return str(value).replace("\r\n", "\n").replace("\r", "\n")
    return value


def _annotated(taken: Input, value: Any) -> Any:
    """Return a file's name with its folder, where that is not the one for inputs."""
    if not isinstance(value, str) or taken.image_folder == "input":
        return value
    if re.search(r"\[(input|output|temp)\]", value, re.IGNORECASE):
        return value
    return f"{value} [{taken.image_folder}]"


def stepped(taken: Input, value: Any) -> Any:
    """Return a value as a number's widget takes it from another widget: rounded to its step."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    if taken.type == "INT":
        step = taken.step or 1
        if step == 1:
            return _rounded(value)
        offset = math.fmod(taken.minimum or 0, step)
        return _whole(_rounded((value - offset) / step) * step + offset)
    if taken.type == "FLOAT":
        return _fraction(taken, value)
    return value


def shared(inputs: Sequence[Input], value: Any) -> Any:
    """Return a value that one widget holds for several inputs: within the bounds of all of them."""
    is_whole = all(taken.type == "INT" for taken in inputs)
    if len(inputs) < 2 or not is_whole or not isinstance(value, int | float):
        return value
    least = max(taken.minimum or 0 for taken in inputs)
    most = min(2048 if taken.maximum is None else taken.maximum for taken in inputs)
    step = math.lcm(*(max(1, int(taken.step or 1)) for taken in inputs))
    if least > most or not math.isfinite(value):
        return value
    whole = Input("INT", minimum=least, maximum=most, step=step)
    return stepped(whole, min(max(value, least), most))


def _fraction(taken: Input, value: float) -> float:
    """Return a number with as many digits as the step of its widget shows, within its bounds."""
    step = taken.step if taken.step and taken.step > 0 else 0.5
    digits = max(0, -math.floor(math.log10(step)))
    if not digits or abs(value) > _EXACT:
        return value
    least = 0.0 if taken.minimum is None else taken.minimum
    most = 2048.0 if taken.maximum is None else taken.maximum
    rounded = round(_rounded(value * 10**digits) / 10**digits, digits)
    return _whole(min(max(rounded, least), most))


def _rounded(value: float) -> int:
    """Round as JavaScript does: halves go up."""
    return value if isinstance(value, int) else math.floor(value + 0.5)


def _whole(value: float) -> float:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def chosen_text(text: str) -> tuple[str, bool]:
    """Return a text without comments and with its {choices|made}, and whether any was made.

    The canvas chooses at random each time a graph is run; here the first choice is taken.
    """
    text = _COMMENT.sub("", text)
    written: list[str] = []
    was_choice = False
    # Of the blocks that are open: the depth of those inside that are passed over, 0 where a first
    # choice is being written.
    passed: list[int] = []
    place = 0
    while place < len(text):
        char = text[place]
        is_escape = char == "\\"
        if passed and passed[-1]:
            passed[-1] += {"{": 1, "}": -1}.get(char, 0)
            if not passed[-1]:
                passed.pop()
        elif char == "{":
            passed.append(0)
        elif char == "}" and passed:
            passed.pop()
        elif char == "|" and passed:
            was_choice = True
            passed[-1] = 1
        else:
            written.append(text[place : place + 2] if is_escape else char)
        place += 2 if is_escape else 1
    return _ESCAPED.sub(r"\1", "".join(written)), was_choice


def inputs_shown(class_type: ClassType) -> Iterator[tuple[str, Input, bool]]:
    """Yield the inputs of a class in the order of the node's slots, and whether it has a widget."""
    for name, taken in class_type.inputs.items():
        if not is_widget(taken):
            yield name, taken, False
    for name, taken in class_type.inputs.items():
        if is_widget(taken) and not taken.socketless:
            yield name, taken, True
