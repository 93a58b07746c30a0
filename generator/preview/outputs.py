"""What nodes do when they run: output nodes write placeholders, the others check what they can."""

import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ..graph.records import Graph, is_link
from .draw import Label, pictures
from .errors import NodeError
from .folders import Folders
from .label import label
from .measure import DEFAULT_FPS, Measure, Stream
from .media import Check, Target, save_apng, save_mp4, save_png, save_sound, save_webm, save_webp
from .media import target as target_of
from .schemas import FILE_INPUTS, Schemas

UI = dict[str, list[Any]]

# Of pictures that are in memory together: 161 frames of 1280 x 1280.
_MAX_PIXELS: Final = 2**28

_SOUND: Final = {
    "SaveAudio": ("flac", "flac"),
    "SaveAudioMP3": ("mp3", "libmp3lame"),
    "SaveAudioOpus": ("opus", "libopus"),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One node of one graph about to run; `check` raises when the run is interrupted."""

    graph: Graph
    node: str
    schemas: Schemas
    folders: Folders
    measure: Measure
    check: Check

    @property
    def name(self) -> str:
        """The class of the node."""
        name: str = self.graph[self.node]["class_type"]
        return name

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs of the node."""
        inputs: dict[str, Any] = self.graph[self.node]["inputs"]
        return inputs

    def value(self, name: str, default: Any) -> Any:
        """Return an input's value, the default when it is left out or computed by a node."""
        value = self.measure.value(self.inputs.get(name))
        return default if value is None else value

    def label(self, stream: Stream) -> Label:
        """Return what a placeholder for this node says."""
        return label(self.graph, self.node, stream, self.measure)

    def target(self, kind: str, prefix: str, stream: Stream) -> Target:
        """Return where this node writes."""
        return target_of(self.folders, kind, prefix, (stream.width, stream.height))

    def written(self, target: Target, names: list[str], kind: str = "output") -> list[Any]:
        """Return written files as ComfyUI reports them."""
        return [{"filename": n, "subfolder": target.subfolder, "type": kind} for n in names]


def run_node(job: Job) -> UI | None:
    """Run a node and return what it shows, None when that is nothing.

    Raises:
        NodeError: when ComfyUI's node would raise, or when the preview engine draws no such thing.
        InterruptedRunError: when the run is interrupted.
    """
    class_type = job.schemas.get(job.name)
    assert class_type is not None
    if class_type.api_node:
        raise NodeError("Unauthorized: Please login first to use this node.", "Exception")
    for name, value in job.inputs.items():
        taken = class_type.inputs.get(name)
        if taken is None and is_link(value) and not class_type.open:
            # ComfyUI drops values that a class does not take, yet hands it what links bring.
            raise NodeError(f"{job.name} got an unexpected keyword argument '{name}'", "TypeError")
        if taken is None or is_link(value) or (taken.optional and value is None):
            continue
        if taken.type in job.schemas.linked_types:
            raise NodeError(
                f"{name} must be a link to a node that outputs {taken.type}, "
                f"not a {type(value).__name__}",
                "TypeError",
            )
    if not class_type.output_node:
        if job.name in FILE_INPUTS and class_type.outputs:
            job.measure.stream([job.node, 0])
        return None
    writer = _WRITERS.get(job.name)
    if writer is None:
        raise NodeError(f"the preview engine draws no {job.name}", "NotImplementedError")
    return writer(job)


def _save_image(job: Job) -> UI:
    return _write_pngs(job, "images", "output", str(job.value("filename_prefix", "ComfyUI")))


def _preview_image(job: Job) -> UI:
    return _write_pngs(job, "images", "temp", _temporary())


def _preview_mask(job: Job) -> UI:
    return _write_pngs(job, "mask", "temp", _temporary())


def _temporary() -> str:
    return "ComfyUI_temp_" + "".join(random.choices(string.ascii_lowercase, k=5))


def _write_pngs(job: Job, source: str, kind: str, prefix: str) -> UI:
    stream = job.measure.stream(job.inputs.get(source))
    target = job.target(kind, prefix, stream)
    names = []
    for index, image in enumerate(pictures(stream, job.label(stream))):
        job.check()
        path = target.next("png", index)
        save_png(image, path)
        names.append(path.name)
    return {"images": job.written(target, names, kind)}


def _save_webp(job: Job) -> UI:
    stream = job.measure.stream(job.inputs.get("images"))
    target = job.target("output", str(job.value("filename_prefix", "ComfyUI")), stream)
    path = target.next("webp")
    save_webp(
        _all(job, stream),
        path,
        fps=float(job.value("fps", 6.0)),
        lossless=bool(job.value("lossless", True)),
        quality=int(job.value("quality", 80)),
        method=str(job.value("method", "default")),
    )
    return {"images": job.written(target, [path.name]), "animated": [stream.count != 1]}


def _save_apng(job: Job) -> UI:
    stream = job.measure.stream(job.inputs.get("images"))
    target = job.target("output", str(job.value("filename_prefix", "ComfyUI")), stream)
    path = target.next("png")
    save_apng(_all(job, stream), path, fps=float(job.value("fps", 6.0)))
    return {"images": job.written(target, [path.name]), "animated": [True]}


def _all(job: Job, stream: Stream) -> list[Any]:
    images: list[Any] = []
    if stream.width * stream.height * stream.count > _MAX_PIXELS:
        raise NodeError(
            f"the preview engine draws no {stream.count} frames of "
            f"{stream.width} x {stream.height} pixels",
            "MemoryError",
        )
    for image in pictures(stream, job.label(stream)):
        job.check()
        images.append(image)
    return images


def _save_video(job: Job) -> UI:
    container, codec = str(job.value("format", "auto")), str(job.value("codec", "auto"))
    if container not in ("auto", "mp4"):
        raise NodeError(f"'{container}' is not a valid VideoContainer", "ValueError")
    if codec not in ("auto", "h264"):
        raise NodeError(f"'{codec}' is not a valid VideoCodec", "ValueError")
    stream = job.measure.stream(job.inputs.get("video"))
    target = job.target("output", str(job.value("filename_prefix", "video/ComfyUI")), stream)
    path = target.next("mp4")
    fps = stream.fps or DEFAULT_FPS
    save_mp4(pictures(stream, job.label(stream)), path, fps=fps, check=job.check)
    return {"images": job.written(target, [path.name]), "animated": [True]}


def _save_webm(job: Job) -> UI:
    stream = job.measure.stream(job.inputs.get("images"))
    target = job.target("output", str(job.value("filename_prefix", "ComfyUI")), stream)
    path = target.next("webm")
    save_webm(
        pictures(stream, job.label(stream)),
        path,
        fps=float(job.value("fps", DEFAULT_FPS)),
        codec=str(job.value("codec", "vp9")),
        crf=float(job.value("crf", 32.0)),
        check=job.check,
    )
    return {"images": job.written(target, [path.name]), "animated": [True]}


def _save_audio(job: Job) -> UI:
    extension, codec = _SOUND[job.name]
    stream = job.measure.stream(job.inputs.get("audio"))
    if stream.seconds is None:
        raise NodeError("the preview engine draws no sound of unknown length", "ValueError")
    target = job.target("output", str(job.value("filename_prefix", "audio/ComfyUI")), stream)
    path = target.next(extension)
    save_sound(path, codec=codec, seconds=stream.seconds, check=job.check)
    return {"audio": job.written(target, [path.name])}


def _preview_any(job: Job) -> UI:
    source = job.inputs.get("source")
    value = job.measure.value(source)
    if is_link(source) and value is None:
        return {"text": [f"what {job.graph[source[0]]['class_type']} outputs"]}
    if isinstance(value, str):
        return {"text": [value]}
    if value is None or isinstance(value, (bool, int, float)):
        return {"text": [str(value)]}
    return {"text": [json.dumps(value, indent=4)]}


_WRITERS: Final[dict[str, Callable[[Job], UI]]] = {
    "MaskPreview": _preview_mask,
    "PreviewAny": _preview_any,
    "PreviewImage": _preview_image,
    "SaveAnimatedPNG": _save_apng,
    "SaveAnimatedWEBP": _save_webp,
    "SaveAudio": _save_audio,
    "SaveAudioMP3": _save_audio,
    "SaveAudioOpus": _save_audio,
    "SaveImage": _save_image,
    "SaveVideo": _save_video,
    "SaveWEBM": _save_webm,
}
