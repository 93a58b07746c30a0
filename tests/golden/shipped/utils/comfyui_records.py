"""What the client tells its callers: events of a run, its outputs, and what an engine is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

from .comfyui_errors import EngineError, NodeError
from .lasting import lasting

Graph: TypeAlias = Mapping[str, Any]
"""A graph in ComfyUI's API format: node id to `class_type` and `inputs`."""


@dataclass(frozen=True, slots=True)
class Queued:
    """The engine took the graph; `position` runs of this client are ahead of it.

    It may come after a start: the engine ended, and the run is sent again. `position` is None until
    an engine has it.
    """

    position: int | None


@dataclass(frozen=True, slots=True)
class Started:
    """The engine began to execute, at `at` by its clock: seconds since the epoch."""

    at: float


@dataclass(frozen=True, slots=True)
class Cached:
    """These nodes are not executed: the engine has their results."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """These nodes are to be executed, as far as is known; they may expand to others."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """A node began; `title` is the one given in the graph, else the class."""

    node: str
    class_type: str
    title: str


@dataclass(frozen=True, slots=True)
class Progress:
    """A node is at step `value` of `max`."""

    node: str
    value: float
    max: float


@lasting
@dataclass(frozen=True, slots=True)
class Preview:
    """A picture of what a node has so far; `node` is empty where the engine doesn't say."""

    node: str
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class NodeText:
    """A line of text from a node at work."""

    node: str
    text: str


@dataclass(frozen=True, slots=True)
class NodeOutput:
    """A node made outputs of these kinds."""

    node: str
    kinds: tuple[str, ...]


Event: TypeAlias = (
    Queued | Started | Cached | Planned | NodeStarted | Progress | Preview | NodeText | NodeOutput
)
"""What `on_event` is called with, in the order in which it happens."""


@lasting
@dataclass(frozen=True, slots=True)
class File:
    """A file that a node made. `kind` is the engine's key for it: images, gifs, audio, 3d, …

    `media_type` goes by the first bytes, then by the extension. `animated` says that the engine
    calls it so or that it is a video.
    """

    node: str
    kind: str
    filename: str
    media_type: str
    data: bytes = field(repr=False)
    animated: bool


@lasting
@dataclass(frozen=True, slots=True)
class Text:
    """A text that a node made, or another value, as JSON."""

    node: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """A run that succeeded.

    `outputs` are in the order of the graph's nodes. `started` and `finished` are seconds since the
    epoch by the engine's clock, `queue_seconds` the time from sending the graph to its start.
    `cached` are the nodes that were not executed. `node_errors` are of nodes that blocked what
    depends on them without failing the run.
    """

    job: str
    outputs: tuple[File | Text, ...]
    started: float
    finished: float
    queue_seconds: float
    cached: tuple[str, ...]
    node_errors: tuple[NodeError, ...]

    @property
    def execution_seconds(self) -> float:
        """Seconds that the engine spent on this run alone."""
        return self.finished - self.started

    @property
    def files(self) -> tuple[File, ...]:
        """The outputs that are files."""
        return tuple(output for output in self.outputs if isinstance(output, File))


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the engine says of itself; memory in bytes. `preview` means that nothing is real."""

    version: str
    device: str
    vram_total: int
    vram_free: int
    preview: bool

    @classmethod
    def of(cls, stats: Any) -> Self:
        """Read an answer of /system_stats.

        Raises:
            EngineError: when it is not one.
        """
        try:
            device = stats["devices"][0]
            return cls(
                version=str(stats["system"]["comfyui_version"]),
                device=str(device["name"]),
                vram_total=int(device["vram_total"]),
                vram_free=int(device["vram_free"]),
                preview=stats.get("preview", False) is True,
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(f"/system_stats is not ComfyUI's: {error!r}") from error
