"""What a placeholder says about the graph that it stands for."""

import json
from typing import Any, Final

from ..graph.prompt import positive_encoders
from ..graph.records import Graph, is_link, needed
from .draw import Label
from .measure import Measure, Stream

_TEXTS: Final = ("text", "text_g", "text_l", "t5xxl", "clip_l", "prompt")
_SEEDS: Final = ("seed", "noise_seed")
_PARAMS: Final = ("steps", "cfg", "guidance", "sampler_name", "scheduler", "denoise")
_STILLS: Final = frozenset(("MaskPreview", "PreviewImage", "SaveImage"))


def label(graph: Graph, node: str, stream: Stream, measure: Measure) -> Label:
    """Return the label of what an output node writes: its prompt, classes, params and size."""
    part = needed(graph, node)
    inputs = [content["inputs"] for content in part.values()]
    seeds = list(dict.fromkeys(str(v) for one in inputs for v in _values(one, _SEEDS, measure)))
    prompt = _prompt(part, measure)
    # The font that comes with Pillow has no other cross or arrow.
    size = f"{stream.width} x {stream.height}"
    if stream.count > 1:
        size += f", {stream.count} {'pictures' if _is_still(graph, node) else 'frames'}"
    details = [" · ".join([size, *(f"seed {seed}" for seed in seeds)])]
    for name, content in part.items():
        if measure.is_sampler(name):
            given = [
                f"{param.removesuffix('_name')} {measure.value(content['inputs'][param])}"
                for param in _PARAMS
                if param in content["inputs"]
            ]
            details.append(" · ".join([content["class_type"], *given]))
    details += sorted({model for one in inputs for model in _models(one)})
    classes = [content["class_type"] for content in part.values()]
    loaders = dict.fromkeys(name for name in classes if "Load" in name)
    title = " + ".join(loaders) or part[node]["class_type"]
    prefix = measure.value(part[node]["inputs"].get("filename_prefix"))
    if isinstance(prefix, str) and (name := prefix.rpartition("/")[2]):
        title = f"{name} · {title}"
    return Label(title, prompt, tuple(details), json.dumps([seeds, prompt, classes]))


def _is_still(graph: Graph, node: str) -> bool:
    return graph[node]["class_type"] in _STILLS


def _prompt(part: Graph, measure: Measure) -> str:
    encoders = positive_encoders(part) or [
        node for node, content in part.items() if "TextEncode" in content["class_type"]
    ]
    found = [
        text
        for node in encoders
        for text in _values(part[node]["inputs"], _TEXTS, measure)
        if isinstance(text, str)
    ]
    return " · ".join(dict.fromkeys(text for text in found if text.strip()))


def _values(inputs: dict[str, Any], names: tuple[str, ...], measure: Measure) -> list[Any]:
    values = [measure.value(inputs[name]) for name in names if name in inputs]
    return [value for value in values if value is not None]


def _models(inputs: dict[str, Any]) -> list[str]:
    return [
        value
        for value in inputs.values()
        if not is_link(value)
        and isinstance(value, str)
        and value.endswith((".safetensors", ".gguf", ".ckpt"))
    ]
