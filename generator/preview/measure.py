"""What flows along a link: the size, length and origin of pictures, found without running nodes.

The walk goes from an output node up the links that carry pictures or latents, to the node that
says the size. Where none does, the size is `DEFAULT_SIZE`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from PIL import Image, ImageOps

from ..graph.records import Graph, is_link
from .errors import NodeError
from .folders import Folders
from .media import VideoError, probe_video
from .schemas import Schemas

DEFAULT_SIZE: Final = (1024, 1024)
DEFAULT_FPS: Final = 24.0
DEFAULT_SECONDS: Final = 5.0

# The links that carry pictures, in the order in which they are tried.
_CARRIERS: Final = (
    "images", "image", "video", "samples", "latent_image", "latent", "pixels", "samples1",
    "image1", "start_image", "mask", "masks", "frames", "source", "input", "video_latent",
)  # fmt: skip
# Latents: the number that sides are a multiple of, and the frames that one latent frame holds.
_LATENTS: Final = {
    "EmptyCosmosLatentVideo": (8, 8),
    "EmptyHunyuanImageLatent": (32, 1),
    "EmptyHunyuanLatentVideo": (8, 4),
    "EmptyHunyuanVideo15Latent": (16, 4),
    "EmptyLTXVLatentVideo": (32, 8),
    "EmptyMochiLatentVideo": (8, 6),
}
_LATENT: Final = (8, 1)
_VIDEO_LATENT: Final = (8, 4)
_MAX_STEPS: Final = 400


@dataclass(frozen=True, slots=True)
class Stream:
    """Pictures on a link: their size in pixels and how many there are.

    `fps` is set for videos. `file` and `color` say what the pictures show when no sampler made
    them: an uploaded file, or one colour as 0xRRGGBB; `inverted` turns either around. `seconds`
    is the length of sound. `parts` are the streams that this one was joined from.
    """

    width: int = DEFAULT_SIZE[0]
    height: int = DEFAULT_SIZE[1]
    count: int = 1
    fps: float | None = None
    file: str | None = None
    color: int | None = None
    inverted: bool = False
    seconds: float | None = None
    parts: tuple["Stream", ...] = ()

    def scaled(self, width: float, height: float) -> "Stream":
        """Return the stream at another size, of at least a pixel."""
        size = (max(1, round(width)), max(1, round(height)))
        parts = tuple(part.scaled(*size) for part in self.parts)
        return replace(self, width=size[0], height=size[1], parts=parts)


class Measure:
    """Measures the links of one graph."""

    def __init__(self, graph: Graph, schemas: Schemas, folders: Folders) -> None:
        self._graph = graph
        self._schemas = schemas
        self._folders = folders
        self._known: dict[str, Stream] = {}

    def stream(self, value: object) -> Stream:
        """Return what a link carries; of anything else the default.

        Raises:
            NodeError: when a file that feeds it is no picture or video.
        """
        if not is_link(value) or value[0] not in self._graph:
            return Stream()
        node = value[0]
        if node not in self._known:
            if len(self._known) > _MAX_STEPS:
                raise NodeError("the graph is too deep for the preview engine")
            self._known[node] = Stream()
            self._known[node] = self._node(node)
        return self._known[node]

    def value(self, value: object) -> Any:
        """Return an input's value; that of a link to a primitive node is the primitive's.

        None when a node computes the value that the preview engine does not run.
        """
        if not is_link(value):
            return value
        content = self._graph.get(value[0], {})
        inputs = content.get("inputs", {})
        name = content.get("class_type", "")
        if name.startswith("Primitive") and "value" in inputs:
            return self.value(inputs["value"])
        if name == "GetImageSize":
            stream = self.stream(inputs.get("image"))
            return (stream.width, stream.height, stream.count)[int(value[1])]
        if name == "GetVideoComponents" and value[1] == 2:
            return self.stream(inputs.get("video")).fps
        return None

    def number(self, inputs: dict[str, Any], name: str, default: float) -> float:
        """Return a number from an input, the default when there is none to be found."""
        value = self.value(inputs.get(name))
        if isinstance(value, (int, float)) and math.isfinite(value):
            return value
        return default

    def _node(self, node: str) -> Stream:
        content = self._graph[node]
        inputs: dict[str, Any] = content["inputs"]
        rule = _RULES.get(content["class_type"])
        if rule is not None:
            return rule(self, inputs)
        if "width" in inputs and "height" in inputs and self._makes_latents(content["class_type"]):
            return self._latent(content["class_type"], inputs)
        carried = self._carried(inputs)
        if self.is_sampler(node):
            return replace(carried, file=None, color=None, inverted=False, parts=())
        return carried

    def is_sampler(self, node: str) -> bool:
        """Say whether a node samples: what comes out is drawn, whatever went in."""
        class_type = self._schemas.get(self._graph[node]["class_type"])
        return (
            class_type is not None
            and any(output.type == "LATENT" for output in class_type.outputs)
            and ("Sampler" in class_type.name or "sampler" in class_type.inputs)
        )

    def _makes_latents(self, name: str) -> bool:
        class_type = self._schemas.get(name)
        return class_type is not None and any(o.type == "LATENT" for o in class_type.outputs)

    def _carried(self, inputs: dict[str, Any]) -> Stream:
        for name in _CARRIERS:
            if is_link(inputs.get(name)):
                return self.stream(inputs[name])
        return Stream()

    def _latent(self, name: str, inputs: dict[str, Any]) -> Stream:
        has_length = "length" in inputs
        step, frames = _LATENTS.get(name, _VIDEO_LATENT if has_length else _LATENT)
        width = self.number(inputs, "width", DEFAULT_SIZE[0])
        height = self.number(inputs, "height", DEFAULT_SIZE[1])
        batch = int(self.number(inputs, "batch_size", 1))
        length = int(self.number(inputs, "length", 1))
        count = (max(length, 1) - 1) // frames * frames + 1 if has_length else 1
        return Stream(
            max(int(width) // step, 1) * step, max(int(height) // step, 1) * step, count * batch
        )

    def _empty_image(self, inputs: dict[str, Any]) -> Stream:
        return Stream(
            int(self.number(inputs, "width", 512)),
            int(self.number(inputs, "height", 512)),
            int(self.number(inputs, "batch_size", 1)),
            color=int(self.number(inputs, "color", 0)),
        )

    def _solid_mask(self, inputs: dict[str, Any]) -> Stream:
        width = self.number(inputs, "width", 512)
        height = self.number(inputs, "height", 512)
        shade = round(255 * min(max(self.number(inputs, "value", 1), 0), 1))
        return Stream(int(width), int(height), color=shade * 0x010101)

    def _load_image(self, inputs: dict[str, Any]) -> Stream:
        name = self.value(inputs.get("image"))
        path = self._folders.named(str(name))
        try:
            with Image.open(path) as image:
                width, height = ImageOps.exif_transpose(image).size
                count = getattr(image, "n_frames", 1)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise NodeError(
                f"cannot identify image file '{name}'", "PIL.UnidentifiedImageError"
            ) from error
        return Stream(width, height, count, file=str(path))

    def _load_video(self, inputs: dict[str, Any]) -> Stream:
        name = str(self.value(inputs.get("file")))
        try:
            video = probe_video(self._folders.named(name))
        except VideoError as error:
            raise NodeError(f"cannot read video file '{name}'", "ValueError") from error
        return Stream(video.width, video.height, video.frames, fps=video.fps)

    def _invert(self, inputs: dict[str, Any]) -> Stream:
        source = self.stream(inputs.get("image"))
        parts = tuple(replace(part, inverted=not part.inverted) for part in source.parts)
        return replace(source, inverted=not source.inverted, parts=parts)

    def _scale(self, inputs: dict[str, Any]) -> Stream:
        source = self._carried(inputs)
        width = self.number(inputs, "width", source.width)
        height = self.number(inputs, "height", source.height)
        if not width and not height:
            return source
        if not width:
            width = source.width * height / source.height
        elif not height:
            height = source.height * width / source.width
        return source.scaled(width, height)

    def _scale_by(self, inputs: dict[str, Any]) -> Stream:
        source = self._carried(inputs)
        factor = self.number(inputs, "scale_by", 1)
        return source.scaled(source.width * factor, source.height * factor)

    def _latent_scale(self, inputs: dict[str, Any]) -> Stream:
        return _multiple(self._scale(inputs), 8)

    def _latent_scale_by(self, inputs: dict[str, Any]) -> Stream:
        return _multiple(self._scale_by(inputs), 8)

    def _encode(self, inputs: dict[str, Any]) -> Stream:
        return _multiple(self._carried(inputs), 8)

    def _scale_to_pixels(self, inputs: dict[str, Any]) -> Stream:
        source = self._carried(inputs)
        pixels = self.number(inputs, "megapixels", 1) * 1024 * 1024
        factor = math.sqrt(pixels / (source.width * source.height))
        return source.scaled(source.width * factor, source.height * factor)

    def _scale_to_limit(self, inputs: dict[str, Any]) -> Stream:
        source = self._carried(inputs)
        factor = self.number(inputs, "largest_size", 512) / max(source.width, source.height)
        return source.scaled(source.width * factor, source.height * factor)

    def _upscale_with_model(self, inputs: dict[str, Any]) -> Stream:
        source = self.stream(inputs.get("image"))
        return source.scaled(source.width * 4, source.height * 4)

    def _seedvr2(self, inputs: dict[str, Any]) -> Stream:
        source = self.stream(inputs.get("image"))
        factor = self.number(inputs, "resolution", 1080) / min(source.width, source.height)
        limit = self.number(inputs, "max_resolution", 0)
        if limit:
            factor = min(factor, limit / max(source.width, source.height))
        width, height = source.width * factor, source.height * factor
        return source.scaled(max(round(width / 2), 1) * 2, max(round(height / 2), 1) * 2)

    def _crop(self, inputs: dict[str, Any]) -> Stream:
        source = self._carried(inputs)
        left = min(self.number(inputs, "x", 0), source.width - 1)
        top = min(self.number(inputs, "y", 0), source.height - 1)
        return source.scaled(
            min(self.number(inputs, "width", source.width), source.width - left),
            min(self.number(inputs, "height", source.height), source.height - top),
        )

    def _pad(self, inputs: dict[str, Any]) -> Stream:
        source = self._carried(inputs)
        sides = {side: self.number(inputs, side, 0) for side in ("left", "right", "top", "bottom")}
        return source.scaled(
            source.width + sides["left"] + sides["right"],
            source.height + sides["top"] + sides["bottom"],
        )

    def _join(self, inputs: dict[str, Any]) -> Stream:
        first = self.stream(inputs.get("image1"))
        second = self.stream(inputs.get("image2"))
        second = replace(second, width=first.width, height=first.height)
        return replace(first, count=first.count + second.count, parts=(first, second))

    def _repeat(self, inputs: dict[str, Any]) -> Stream:
        source = self._carried(inputs)
        count = source.count * int(self.number(inputs, "amount", 1))
        return replace(source, count=count, parts=())

    def _part(self, inputs: dict[str, Any]) -> Stream:
        source = self._carried(inputs)
        start = min(int(self.number(inputs, "batch_index", 0)), source.count - 1)
        count = min(int(self.number(inputs, "length", 1)), source.count - start)
        return replace(source, count=count, parts=())

    def _create_video(self, inputs: dict[str, Any]) -> Stream:
        fps = self.number(inputs, "fps", DEFAULT_FPS)
        return replace(self.stream(inputs.get("images")), fps=fps)

    def _sound(self, inputs: dict[str, Any]) -> Stream:
        seconds = self.number(inputs, "seconds", self.number(inputs, "duration", DEFAULT_SECONDS))
        return Stream(seconds=seconds)


def _multiple(stream: Stream, step: int) -> Stream:
    return stream.scaled(max(stream.width // step, 1) * step, max(stream.height // step, 1) * step)


_RULES: Final[dict[str, Callable[[Measure, dict[str, Any]], Stream]]] = {
    "CreateVideo": Measure._create_video,
    "EmptyAceStepLatentAudio": Measure._sound,
    "EmptyAudio": Measure._sound,
    "EmptyImage": Measure._empty_image,
    "EmptyLatentAudio": Measure._sound,
    "ImageBatch": Measure._join,
    "ImageCrop": Measure._crop,
    "ImageFromBatch": Measure._part,
    "ImageInvert": Measure._invert,
    "ImagePadForOutpaint": Measure._pad,
    "ImageScale": Measure._scale,
    "ImageScaleBy": Measure._scale_by,
    "ImageScaleToMaxDimension": Measure._scale_to_limit,
    "ImageScaleToTotalPixels": Measure._scale_to_pixels,
    "ImageUpscaleWithModel": Measure._upscale_with_model,
    "LatentFromBatch": Measure._part,
    "LatentUpscale": Measure._latent_scale,
    "LatentUpscaleBy": Measure._latent_scale_by,
    "LoadImage": Measure._load_image,
    "LoadImageMask": Measure._load_image,
    "LoadImageOutput": Measure._load_image,
    "LoadVideo": Measure._load_video,
    "RepeatImageBatch": Measure._repeat,
    "RepeatLatentBatch": Measure._repeat,
    "SeedVR2VideoUpscaler": Measure._seedvr2,
    "SolidMask": Measure._solid_mask,
    "VAEEncode": Measure._encode,
    "VAEEncodeForInpaint": Measure._encode,
    "VAEEncodeTiled": Measure._encode,
}
