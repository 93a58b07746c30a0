"""Which inputs of a graph a caller would set: the params that an import suggests.

Prompts are found by following conditioning back from the samplers, the others by the names and
types that their inputs have in the node schemas. What only a person can tell gets no param.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

from ..graph.catalog import ClassType, Input, is_listed_name
from ..graph.prompt import TEXT_INPUTS, negative_encoders, positive_encoders
from ..graph.records import Graph, followed, links
from ..graph.values import MEDIA

Classes = Mapping[str, ClassType]


class Place(NamedTuple):
    """An input of a node."""

    node: str
    input: str


@dataclass(frozen=True)
class Suggestion:
    """A param for one or more inputs; `default` is the value there, None where it is required."""

    name: str
    type: str
    places: tuple[Place, ...]
    default: Any = None
    description: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: int | None = None
    folder: str | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """The param as it is written into a workflow's file."""
        written = {
            "type": self.type,
            "default": self.default,
            "folder": self.folder,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "step": self.step,
            "description": self.description or None,
        }
        return {key: value for key, value in written.items() if value is not None}


@dataclass(frozen=True)
class _Candidate:
    """One input that a caller may set. Those of one name and value become one param.

    `read` is the schema of the input that the value arrives at, where a node only passes it on.
    """

    name: str
    type: str
    place: Place
    value: Any
    read: Input | None = None


_DESCRIPTIONS: Final = {
    "prompt": "What the result shows.",
    "negative_prompt": "What the result must not show.",
    "width": "Width in pixels.",
    "height": "Height in pixels.",
    "upscale_width": "Width in pixels of the second pass.",
    "upscale_height": "Height in pixels of the second pass.",
    "length": "Number of frames.",
    "seconds": "Length in seconds.",
    "fps": "Frames per second.",
    "frame_rate": "Frames per second that the model works with.",
    "steps": "Sampling steps.",
    "switch_step": "The step at which the second sampler takes over.",
    "cfg": "How strongly the prompt guides the sampler.",
    "guidance": "Distilled guidance, which the model uses in place of cfg.",
    "sampler": "Sampling method.",
    "scheduler": "How the noise is spread over the steps.",
    "denoise": "How much is made anew; 0 keeps what it starts from.",
    "seed": "The same seed and params give the same result.",
    "lora": "File name of the LoRA.",
    "lora_strength": "How strongly the LoRA changes the model.",
    "lora_clip_strength": "How strongly the LoRA changes the text encoder.",
}
# What comes first in a file; other names follow in the graph's order.
_ORDER: Final = (
    "prompt negative_prompt image video audio width height length seconds fps frame_rate upscale_width "
    "upscale_height steps switch_step cfg guidance sampler scheduler denoise lora lora_strength "
    "lora_clip_strength seed"
).split()
# Of the texts of one encoder, the one that says most.
_MAIN_TEXTS: Final = ("prompt", "text", "t5xxl", "llama", "text_g")
SEEDS: Final = frozenset(("seed", "noise_seed", "rand_seed"))
_LENGTHS: Final = frozenset(("length", "num_frames", "video_frames", "frames"))
_BY_NAME: Final = {
    ("steps", "INT"): ("steps", "integer"),
    ("cfg", "FLOAT"): ("cfg", "number"),
    ("guidance", "FLOAT"): ("guidance", "number"),
    ("sampler_name", "COMBO"): ("sampler", "string"),
    ("scheduler", "COMBO"): ("scheduler", "string"),
    ("denoise", "FLOAT"): ("denoise", "number"),
    ("fps", "FLOAT"): ("fps", "number"),
    ("fps", "INT"): ("fps", "integer"),
    ("frame_rate", "FLOAT"): ("fps", "number"),
    ("frame_rate", "INT"): ("fps", "integer"),
    ("seconds", "FLOAT"): ("seconds", "number"),
}
_MEDIA_KINDS: Final = {"image": "png", "video": "mp4", "audio": "mp3"}
# Names of inputs that say no more than the kind of what they take.
_VAGUE: Final = frozenset(("audio", "image", "images", "latent_image", "video", "videos"))
_VALUES: Final[dict[str, tuple[type, ...]]] = {
    "integer": (int,),
    "seed": (int,),
    "number": (int, float),
    **dict.fromkeys(("string", "model", *_MEDIA_KINDS), (str,)),
}
_SIDES: Final = frozenset(("front", "back", "left", "right", "start", "end", "first", "last"))
_NAME: Final = re.compile("[a-z][a-z0-9_]*")


def suggest(graph: Graph, classes: Classes) -> list[Suggestion]:
    """Return the params for a graph; their inputs differ, and so do their names.

    `graph` holds nodes of API format that are well formed; nodes whose class is unknown are passed
    over, but for prompts.
    """
    taken: dict[Place, tuple[str, Any]] = {}
    merged: dict[tuple[str, Any], list[_Candidate]] = {}
    for found in (*_prompts(graph, classes), *_sizes(graph, classes), *_others(graph, classes)):
        value = None if found.type == "seed" else (type(found.value), found.value)
        key = (found.name, value)
        if taken.get(found.place, key) == key and _fits(found, classes):
            taken[found.place] = key
            merged.setdefault(key, []).append(found)
    suggestions: list[Suggestion] = []
    counts: dict[str, int] = {}
    for (name, _), group in merged.items():
        counts[name] = counts.get(name, 0) + 1
        number = "" if counts[name] == 1 else f"_{counts[name]}"
        suggestions.append(_suggestion(f"{name}{number}", name, group, classes))
    return sorted(suggestions, key=_rank)


def literal_place(graph: Graph, classes: Classes, node: str, input: str) -> Place | None:
    """Return the input that holds the value of an input: itself, or that of a primitive node.

    A node passes its value on when it has a single input and a single output.
    """
    place = Place(node, input)
    seen: set[Place] = set()
    while place not in seen:
        seen.add(place)
        value = graph[place.node]["inputs"].get(place.input)
        link = followed(value)
        if link is None:
            return None if value is None or isinstance(value, list | dict) else place
        source = classes.get(link.node)
        if source is None or len(source.outputs) != 1 or len(graph[link.node]["inputs"]) != 1:
            return None
        place = Place(link.node, next(iter(graph[link.node]["inputs"])))
    return None


def _rank(suggestion: Suggestion) -> int:
    """Return where a param stands in the file, by what it is."""
    name = suggestion.type if suggestion.type in _MEDIA_KINDS else suggestion.name
    return next(
        (i for i, known in enumerate(_ORDER) if name == known or name.startswith(f"{known}_")),
        len(_ORDER),
    )


def _suggestion(name: str, role: str, group: list[_Candidate], classes: Classes) -> Suggestion:
    first = group[0]
    schemas = [schema for c in group if (schema := _schema(c, classes))]
    type_ = first.type
    if type_ in ("integer", "number"):
        is_whole = all(isinstance(c.value, int) for c in group)
        takes = {schema.type for schema in schemas}
        type_ = "number" if takes == {"FLOAT"} or not is_whole else "integer"
    made = Suggestion(name, type_, tuple(dict.fromkeys(c.place for c in group)))
    if type_ in _MEDIA_KINDS:
        what = {"image": "picture", "video": "video", "audio": "sound"}[type_]
        return replace(made, description=f"The {what} that the workflow takes.")
    made = replace(made, description=_DESCRIPTIONS.get(role, ""))
    if type_ == "seed":
        return made
    made = replace(made, default=float(first.value) if type_ == "number" else first.value)
    if type_ == "model":
        return replace(made, folder=None if len(schemas[0].folders) == 1 else "loras")
    reads = [c.read for c in group if c.read]
    lows = [r.minimum for r in reads if r.minimum is not None]
    highs = [r.maximum for r in reads if r.maximum is not None]
    made = replace(made, minimum=max(lows, default=None), maximum=min(highs, default=None))
    if type_ == "integer":
        made = _stepped(made, [c.read or s for c in group if (s := _schema(c, classes))])
    return made


def _stepped(made: Suggestion, schemas: list[Input]) -> Suggestion:
    """Return an integer param with the step of its inputs, if they agree and its value is on it."""
    steps = {(schema.step, schema.minimum) for schema in schemas}
    if len(steps) != 1:
        return made
    step, minimum = steps.pop()
    if not step or step % 1 or step <= 1 or minimum is None or (made.default - minimum) % step:
        return made
    return replace(made, step=int(step))


def _schema(candidate: _Candidate, classes: Classes) -> Input | None:
    class_type = classes.get(candidate.place.node)
    return class_type.inputs.get(candidate.place.input) if class_type else None


def _fits(found: _Candidate, classes: Classes) -> bool:
    """Say whether the value that stands there is one that the param could have as its default."""
    value = found.value
    if isinstance(value, bool) or not isinstance(value, _VALUES[found.type]):
        return False
    if found.type in _MEDIA_KINDS or found.type == "seed":
        return True  # nothing of it goes into the param
    for schema in (_schema(found, classes), found.read):
        if schema is None:
            continue
        if schema.type == "COMBO" and not schema.is_open and value not in schema.options:
            return False
        if not isinstance(value, int | float):
            continue
        is_below = schema.minimum is not None and value < schema.minimum
        is_above = schema.maximum is not None and value > schema.maximum
        if is_below or is_above:
            return False
    return True


def _candidate(
    graph: Graph, classes: Classes, name: str, type: str, place: Place
) -> Iterator[_Candidate]:
    """Yield an input, or that of a primitive node which feeds it."""
    source = literal_place(graph, classes, *place)
    if source is None:
        return
    value = graph[source.node]["inputs"][source.input]
    if source == place:
        yield _Candidate(name, type, place, value)
    elif source.input in classes[source.node].inputs:
        read = classes[place.node].inputs.get(place.input) if place.node in classes else None
        yield _Candidate(name, type, source, value, read)


def _values(graph: Graph, classes: Classes, node: str, *inputs: str) -> tuple[Any, ...]:
    places = [literal_place(graph, classes, node, name) for name in inputs]
    return tuple(graph[p.node]["inputs"][p.input] if p else None for p in places)


def _prompts(graph: Graph, classes: Classes) -> Iterator[_Candidate]:
    positive = positive_encoders(graph)
    for node in positive:
        yield from _texts(graph, classes, node, "prompt")
    for node in negative_encoders(graph):
        if node not in positive:
            yield from _texts(graph, classes, node, "negative_prompt")


def _texts(graph: Graph, classes: Classes, node: str, name: str) -> Iterator[_Candidate]:
    """Yield the texts of an encoder; those that differ from the main one say which they are."""
    schemas = classes[node].inputs if node in classes else {}
    texts = [
        text
        for text in dict.fromkeys((*_MAIN_TEXTS, *TEXT_INPUTS))
        if text in graph[node]["inputs"] and (text not in schemas or schemas[text].type == "STRING")
    ]
    for text in texts:
        is_same = _values(graph, classes, node, text) == _values(graph, classes, node, texts[0])
        role = name if is_same else f"{name}_{text}"
        yield from _candidate(graph, classes, role, "string", Place(node, text))


def _sizes(graph: Graph, classes: Classes) -> Iterator[_Candidate]:
    """Yield the sizes of latents, and the inputs of other nodes that must be the same."""
    sized = {
        node: _values(graph, classes, node, "width", "height")
        for node, class_type in classes.items()
        if class_type.inputs.keys() >= {"width", "height"}
    }
    roots = [node for node in sized if _makes_latent(classes[node])]
    for node in (*roots, *(node for node in sized if node not in roots)):
        types = {output.type for output in classes[node].outputs}
        prefix = ""
        if node not in roots:
            if "LATENT" in types:
                prefix = "upscale_"
            elif types & {"IMAGE", "MASK"} or sized[node] not in [sized[root] for root in roots]:
                continue
        for side in ("width", "height"):
            place = Place(node, side)
            yield from _candidate(graph, classes, f"{prefix}{side}", "integer", place)


def _makes_latent(class_type: ClassType) -> bool:
    """Say whether a class makes a latent without being given one."""
    takes = any(i.type == "LATENT" and not i.optional for i in class_type.inputs.values())
    return not takes and any(output.type == "LATENT" for output in class_type.outputs)


def _others(graph: Graph, classes: Classes) -> Iterator[_Candidate]:
    media = _media_names(graph, classes)
    switches = _switches(graph)
    for node, class_type in classes.items():
        for key, value in graph[node]["inputs"].items():
            schema = class_type.inputs.get(key)
            place = Place(node, key)
            if schema is None:
                continue
            if place in media:
                name, kind = media[place]
                yield _Candidate(name, kind, place, value)
            elif "loras" in schema.folders:
                yield from _lora(graph, classes, place)
            elif role := _role(graph, class_type, place, schema, switches):
                yield from _candidate(graph, classes, *role, place)


def _role(
    graph: Graph, class_type: ClassType, place: Place, schema: Input, switches: set[Place]
) -> tuple[str, str] | None:
    """Return name and type of the param that an input's name and type stand for."""
    name = place.input
    if schema.type == "INT":
        if name in SEEDS:
            return "seed", "seed"
        if place in switches:
            return "switch_step", "integer"
        if name in _LENGTHS and (_makes_latent(class_type) or "width" in class_type.inputs):
            return "length", "integer"
    if name == "denoise" and not _may_denoise(graph, place.node):
        return None
    if name == "frame_rate" and any(o.type == "CONDITIONING" for o in class_type.outputs):
        return name, "number"  # what the model is told, not how fast the video plays
    return _BY_NAME.get((name, schema.type))


def _switches(graph: Graph) -> set[Place]:
    """Return the inputs that say where one sampler ends and the next begins."""
    steps = {
        Place(node, name): value
        for node, content in graph.items()
        for name in ("start_at_step", "end_at_step")
        if type(value := content["inputs"].get(name)) is int
    }
    starts = {step for place, step in steps.items() if place.input == "start_at_step"}
    ends = {step for place, step in steps.items() if place.input == "end_at_step"}
    return {place for place, step in steps.items() if step in starts & ends}


def _may_denoise(graph: Graph, node: str) -> bool:
    """Say whether a sampler starts from something; all of an empty latent must be denoised."""
    if graph[node]["inputs"]["denoise"] != 1:
        return True
    link = followed(graph[node]["inputs"].get("latent_image"))
    seen: set[str] = set()
    while link and link.node in graph and link.node not in seen:
        seen.add(link.node)
        inputs = dict(links(graph[link.node]["inputs"]))
        if "pixels" in inputs:
            return True
        link = next((inputs[k] for k in ("samples", "latent", "latent_image") if k in inputs), None)
    return False


def _lora(graph: Graph, classes: Classes, place: Place) -> Iterator[_Candidate]:
    """Yield a LoRA and its strengths; a stack of LoRAs in one node is left to a person."""
    schemas = classes[place.node].inputs
    value = graph[place.node]["inputs"][place.input]
    is_stack = sum("loras" in schema.folders for schema in schemas.values()) > 1
    if is_stack or not isinstance(value, str) or not is_listed_name(value):
        return
    yield _Candidate("lora", "model", place, value)
    strengths = sorted(
        (
            name
            for name in graph[place.node]["inputs"]
            if "strength" in name and name in schemas and schemas[name].type == "FLOAT"
        ),
        key=lambda name: "clip" in name,
    )
    for name in strengths:
        first, own = _values(graph, classes, place.node, strengths[0], name)
        role = "lora_strength" if own == first else "lora_clip_strength"
        yield from _candidate(graph, classes, role, "number", Place(place.node, name))


def _media_names(graph: Graph, classes: Classes) -> dict[Place, tuple[str, str]]:
    """Return name and type of the params for uploaded files.

    One alone is `image`, `video` or `audio`; of several, each is called after the input that its
    file goes to, such as `start_image`, where that tells them apart.
    """
    kinds: dict[str, list[Place]] = {}
    for node, class_type in classes.items():
        for name, value in graph[node]["inputs"].items():
            schema = class_type.inputs.get(name)
            if schema and isinstance(value, str) and (kind := _media_kind(schema, name, value)):
                kinds.setdefault(kind, []).append(Place(node, name))
    names: dict[Place, tuple[str, str]] = {}
    consumers = _consumers(graph)
    for kind, places in kinds.items():
        uses = [_use(consumers, place.node, kind) for place in places]
        is_one = len({graph[place.node]["inputs"][place.input] for place in places}) == 1
        for place, use in zip(places, uses, strict=True):
            is_told = use is not None and uses.count(use) == 1 and not is_one
            names[place] = (use if is_told and use else kind, kind)
    return names


def _media_kind(schema: Input, input: str, value: str) -> str | None:
    """Return which type of param an input for uploaded files takes, if it is one."""
    if not schema.media or schema.folders:
        return None
    kinds = [kind for kind, listed in _MEDIA_KINDS.items() if listed in schema.media]
    extension = PurePosixPath(value).suffix.lower().removeprefix(".")
    by_name = [kind for kind in kinds if kind in input]
    by_extension = [kind for kind in kinds if extension in MEDIA[_MEDIA_KINDS[kind]].split()]
    return next(iter((*by_name, *by_extension, *kinds)), None)


def _consumers(graph: Graph) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {}
    for node, content in graph.items():
        for name, link in links(content["inputs"]):
            found.setdefault(link.node, []).append(Place(node, name))
    return found


def _use(consumers: Mapping[str, list[Place]], node: str, kind: str) -> str | None:
    """Return the telling name of the input that a file goes to, through nodes that change it."""
    seen: set[str] = set()
    pending = [node]
    while pending:
        here = pending.pop(0)
        if here in seen:
            continue
        seen.add(here)
        for other, name in consumers.get(here, ()):
            if name in _SIDES:
                return f"{name}_{kind}"
            if kind in name and name not in _VAGUE and _NAME.fullmatch(name):
                return name
            if not name.startswith("latent"):
                pending.append(other)
    return None
