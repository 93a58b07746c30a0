"""What the request models and graph builders of the handlers are made of."""

import math
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args, overload

from annotated_types import Ge, Le, MultipleOf
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

T = TypeVar("T")

# The largest integer that every JSON reader keeps exact (RFC 8259, section 6).
MAX_SEED = 2**53 - 1

# The largest integer that any of ComfyUI's inputs takes.
MAX_INTEGER = 2**64 - 1

# How deep a value may nest; ComfyUI's own graphs nest three levels.
MAX_DEPTH = 64

# How many nodes a caller's graph may have.
MAX_NODES = 2000

# How many files a caller may send with a graph.
MAX_FILES = 16

# The extensions that ComfyUI's model folders list.
MODEL_EXTENSIONS = (
    ".bin", ".ckpt", ".gguf", ".onnx", ".pkl", ".pt", ".pt2", ".pth", ".safetensors", ".sft",
)  # fmt: skip

# Half of a pair: JSON can say it, no text encoding can.
SURROGATE = re.compile("[\ud800-\udfff]")


class Request(BaseModel):
    """A request body: strict types, no unknown fields, text that is Unicode.

    `ONE_OF` lists groups of fields of which exactly one is given, by the names that callers use.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )

    ONE_OF: ClassVar[tuple[tuple[str, ...], ...]] = ()

    @classmethod
    def of(cls, item: Self | Mapping[str, Any]) -> Self:
        """Return the request that a mapping describes; a request is returned as it is.

        Raises:
            pydantic.ValidationError: when a field is missing, unknown or out of its bounds.
        """
        if isinstance(item, cls):
            return item
        return cls.model_validate(dict(item) if isinstance(item, Mapping) else item)

    @field_validator("*")
    @classmethod
    def _can_be_sent(cls, value: Any) -> Any:
        """Refuse what no JSON in UTF-8 can carry on to the engine."""
        for found, depth in _nested(value):
            if depth > MAX_DEPTH:
                raise PydanticCustomError(
                    "too_deep", "Input should nest at most {depth} levels", {"depth": MAX_DEPTH}
                )
            if isinstance(found, str) and SURROGATE.search(found):
                raise PydanticCustomError("string_unicode", "Input should be valid Unicode text")
            if isinstance(found, float) and not math.isfinite(found):
                raise PydanticCustomError("finite_number", "Input should be a finite number")
            if isinstance(found, int) and abs(found) > MAX_INTEGER:
                raise PydanticCustomError("int_size", "Input should fit into 64 bits")
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        found = handler(schema)
        groups = [{"oneOf": [{"required": [name]} for name in group]} for group in cls.ONE_OF]
        return found | {"allOf": groups} if groups else found

    @model_validator(mode="after")
    def _has_one_of(self) -> Self:
        for group in self.ONE_OF:
            names = {field.alias or name: name for name, field in type(self).model_fields.items()}
            given = [name for name in group if getattr(self, names[name]) is not None]
            if len(given) != 1:
                raise PydanticCustomError(
                    "one_of", "Give exactly one of {names}", {"names": ", ".join(group)}
                )
        return self


@dataclass(frozen=True, slots=True)
class Media:
    """Marks a field as media: an http(s) URL, a data URI or base64; in a graph, a file name."""

    kind: str

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"x-media": self.kind}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Marks a field as the name of a file in a model folder, and checks that it is one."""

    folder: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_model_file, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"x-folder": self.folder}


@dataclass(frozen=True, slots=True)
class Step:
    """Marks an integer field whose values are `start` plus a multiple of `step`."""

    step: int
    start: int

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"x-step": [self.start, self.step]}

    def _check(self, value: int) -> int:
        if (value - self.start) % self.step:
            raise PydanticCustomError(
                "step",
                "Input should be {start} plus a multiple of {step}",
                {"start": self.start, "step": self.step},
            )
        return value


@dataclass(frozen=True, slots=True)
class Options:
    """Marks a number field that takes these values only; text fields use Literal."""

    values: tuple[float, ...]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"enum": list(self.values)}

    def _check(self, value: float) -> float:
        if value not in self.values:
            options = ", ".join(map(str, self.values))
            raise PydanticCustomError(
                "enum", "Input should be one of {options}", {"options": options}
            )
        return value


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a number may be, both ends included; None is no end. `step` says the rest in words."""

    minimum: float | None = None
    maximum: float | None = None
    step: str = ""

    def fault(self, value: float) -> str:
        """Say all of it to whoever gave a value that is out of the bounds; "" for any other."""
        low, high = self.minimum, self.maximum
        if (low is None or value >= low) and (high is None or value <= high):
            return ""
        if low is not None and high is not None:
            ends = f"between {_plain(low)} and {_plain(high)}"
        elif low is not None:
            ends = f"at least {_plain(low)}"
        else:
            ends = f"at most {_plain(high)}"
        step = f", {self.step}" if self.step else ""
        return f"Input should be {ends}{step}; it is {_plain(value)}"


def _plain(number: float | None) -> str:
    """Return a number as people write it: 1, not 1.0."""
    if isinstance(number, float) and number.is_integer() and abs(number) < MAX_SEED:
        return str(int(number))
    return str(number)


def drawn(minimum: int, maximum: int) -> Callable[[], int]:
    """Return a function that draws a seed, both ends included.

    The numbers come from the operating system: a worker's own generator would repeat itself after
    a memory snapshot.
    """
    return lambda: minimum + secrets.randbelow(maximum - minimum + 1)


@overload
def affix(value: str, *, prefix: str = "", suffix: str = "") -> str: ...
@overload
def affix(value: None, *, prefix: str = "", suffix: str = "") -> None: ...
def affix(value: str | None, *, prefix: str = "", suffix: str = "") -> str | None:
    """Return a text with its prefix and suffix; an empty or absent one stays as it is."""
    return f"{prefix}{value}{suffix}" if value else value


def given(*values: T | None) -> T:
    """Return the one of several values that was given.

    Raises:
        ValueError: when none was.
    """
    for value in values:
        if value is not None:
            return value
    raise ValueError("none of the values was given")


def text(value: bool | float | str | None) -> str:
    """Return a value as it reads inside a text: as JSON writes it, nothing when absent."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


@cache
def media_fields(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the attributes of a request model that are media, with their kinds."""
    return {name: mark.kind for name, mark in _marks(model) if isinstance(mark, Media)}


@cache
def model_folders(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the attributes of a request model that name model files, with their folders."""
    return {name: mark.folder for name, mark in _marks(model) if isinstance(mark, ModelFile)}


@cache
def number_bounds(model: type[BaseModel]) -> Mapping[str, Bounds]:
    """Return the bounds of the fields of a request model that have any, by the callers' names."""
    found: dict[str, Bounds] = {}
    for name, mark in _marks(model):
        given = model.model_fields[name].alias or name
        bounds = found.get(given, Bounds())
        match mark:
            case Ge(ge=limit) if isinstance(limit, int | float):
                found[given] = replace(bounds, minimum=limit)
            case Le(le=limit) if isinstance(limit, int | float):
                found[given] = replace(bounds, maximum=limit)
            case MultipleOf(multiple_of=step):
                found[given] = replace(bounds, step=f"a multiple of {step}")
            case Step(step=step, start=start):
                found[given] = replace(bounds, step=f"{start} plus a multiple of {step}")
    return found


def _marks(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        # An optional field has its marks inside of the union with None.
        inside = (mark for part in get_args(field.annotation) for mark in get_args(part))
        yield from ((name, mark) for mark in (*field.metadata, *inside))


def _model_file(name: str) -> str:
    """Refuse names that lead out of the model folder, or that ComfyUI would not list."""
    parts = name.split("/")
    if "\\" in name or not name.isprintable() or any(part.strip(". ") == "" for part in parts):
        raise PydanticCustomError("model_file", "Input should be a file name in the model folder")
    if not name.lower().endswith(MODEL_EXTENSIONS):
        raise PydanticCustomError(
            "model_file",
            "Input should end in one of {extensions}",
            {"extensions": ", ".join(MODEL_EXTENSIONS)},
        )
    return name


def _whole_graph(graph: dict[str, Any]) -> dict[str, Any]:
    """Refuse what is no graph in API format; whether the engine takes it is not asked here."""
    if isinstance(graph.get("nodes"), list):
        raise PydanticCustomError(
            "ui_format", "This is ComfyUI's UI format; export it with Workflow > Export (API)"
        )
    for node in graph.values():
        if not (
            isinstance(node, dict)
            and isinstance(node.get("class_type"), str)
            and isinstance(node.get("inputs"), dict)
        ):
            raise PydanticCustomError(
                "graph", "Each node should be an object with class_type and inputs"
            )
    return graph


def _nested(value: Any) -> Iterator[tuple[Any, int]]:
    """Yield a value and all in it, keys included, each with how deep it lies."""
    pending = [(value, 0)]
    while pending:
        found, depth = pending.pop()
        yield found, depth
        if depth > MAX_DEPTH:
            continue
        if isinstance(found, Mapping):
            pending += [(item, depth + 1) for pair in found.items() for item in pair]
        elif isinstance(found, list | tuple):
            pending += [(item, depth + 1) for item in found]


WholeGraph = Annotated[
    dict[str, Any], Field(min_length=1, max_length=MAX_NODES), AfterValidator(_whole_graph)
]
Image = Annotated[str, Media("image"), Field(min_length=1)]
Video = Annotated[str, Media("video"), Field(min_length=1)]
Audio = Annotated[str, Media("audio"), Field(min_length=1)]
Files = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=255)], Annotated[str, Field(min_length=1)]],
    Field(max_length=MAX_FILES),
]
Stripped = Annotated[str, StringConstraints(strip_whitespace=True)]
