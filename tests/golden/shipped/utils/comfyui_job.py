"""A run in flight: what the engine has said of it, and the result that this makes."""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from .comfyui_errors import (
    EngineError,
    EngineFailed,
    EngineInterrupted,
    EngineLost,
    NodeError,
    shortened,
)
from .comfyui_protocol import Frame, media_type, text_or_none, to_be_run
from .comfyui_records import (
    Cached,
    Event,
    File,
    Graph,
    NodeOutput,
    NodeStarted,
    NodeText,
    Planned,
    Preview,
    Progress,
    Queued,
    Run,
    Started,
    Text,
)


class Job:
    """A run in flight, the `number`-th that was asked for.

    The client's side of it: `output_classes` are those of nodes that make output. `withdrawn` says
    that it is not wanted any more, `stopping` that the engine is being told so. `turn` is set while
    it is the one that may be sent. `answered` is set when it is known whether the engine has the
    graph, `accepted` says that it does. `missed_messages` says that only the history is to be
    trusted. `outcome` is what the caller is told; a run that was given up may end later at the
    engine.

    The engine's side is what `take`, `take_frame` and `take_history` read. `ended` is set once
    nothing more is to come; `error` is then what it failed with, or None. `callback_error` is what
    the caller's `on_event` raised.

    An engine that ends takes its queue along. `losses` counts how often the run was lost so, and
    `deaths` how often it may have been the cause: it was executed then, or, if `blamed`, the engine
    did not even end. `excused` says that the engine is ended for another's sake.
    """

    def __init__(
        self, name: str, graph: Graph, on_event: Callable[[Event], None] | None, number: int
    ) -> None:
        self.name = name
        self.number = number
        self.graph = graph
        # Not the job's name: a name may come again, and the history must not mix the two.
        self.prompt_id = str(uuid4())
        self.output_classes: Collection[str] = ()
        self.withdrawn = False
        self.stopping = False
        self.losses = 0
        self.deaths = 0
        self.blamed = False
        self.excused = False
        self.outcome: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        self.turn = asyncio.Event()
        self.answered = asyncio.Event()
        self.accepted = False
        self.sent_at = 0.0
        self.missed_messages = False
        self.ended = asyncio.Event()
        self.error: Exception | None = None
        self.callback_error: Exception | None = None
        self.started: float | None = None
        self._on_event = on_event
        self._sent_first_at: float | None = None
        self._is_quiet = False
        self._position: int | None = None
        self._node = ""
        self._finished: float | None = None
        self._queue_seconds = 0.0
        self._cached: tuple[str, ...] = ()
        self._outputs: dict[str, tuple[str, dict[str, Any]]] = {}
        self._node_errors: list[NodeError] = []

    @property
    def in_flight(self) -> bool:
        """Whether the engine has the run and is not known to be done with it."""
        return self.accepted and not self.ended.is_set()

    @property
    def unanswered(self) -> bool:
        """Whether the graph is on its way to the engine."""
        return bool(self.sent_at) and not self.answered.is_set()

    @property
    def executing(self) -> bool:
        """Whether the engine is at work on this run now."""
        return self.started is not None and self._finished is None and not self.ended.is_set()

    def send(self) -> None:
        """Note that the graph is being sent."""
        self.sent_at = time.monotonic()
        self._sent_first_at = self._sent_first_at or self.sent_at

    def accept(self) -> None:
        """Note that the engine has the graph, or may have it."""
        self.accepted = True
        self.answered.set()

    def end(self, error: Exception | None = None) -> None:
        """Settle the run; only the first end counts."""
        if not self.ended.is_set():
            self.error = self.callback_error or error
            self.ended.set()

    def end_absent(self, reason: str) -> None:
        """Settle a run that the engine no longer knows."""
        if self.withdrawn:
            self.end(self.interrupted())
        elif not self.ended.is_set():
            self.losses += 1
            self.deaths += (self.started is not None or self.blamed) and not self.excused
            self.end(EngineLost(f"job {self.name} was lost: {reason}"))

    def renew(self) -> None:
        """Forget what a lost engine has said: the run is to be sent to another."""
        self.prompt_id = str(uuid4())
        self.answered.clear()
        self.accepted = False
        self.sent_at = 0.0
        self.blamed = False
        self.excused = False
        self.missed_messages = False
        self.ended.clear()
        self.error = None
        self.started = None
        self._is_quiet = False
        self._node = ""
        self._finished = None
        self._cached = ()
        self._outputs.clear()
        self._node_errors.clear()
        self._position = None
        self._emit(Queued(None))

    def settle(self, task: "asyncio.Task[Run]") -> None:
        """Tell the caller how the run ended, unless it was given up."""
        if task.cancelled():
            self.give_up(
                EngineInterrupted(f"job {self.name}: the client was closed", requested=True)
            )
        elif error := task.exception():
            self.give_up(error)
        elif not self.outcome.done():
            self.outcome.set_result(task.result())

    def give_up(self, error: BaseException) -> None:
        """Tell the caller that there will be no result; the engine may not be done with the run."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
            # The caller may have gone; nobody misses it then.
            self.outcome.exception()

    def interrupted(self) -> EngineInterrupted:
        """Return the error of a run that was stopped."""
        return EngineInterrupted(f"job {self.name} was stopped", requested=self.withdrawn)

    def tell_position(self, position: int) -> None:
        """Tell the caller how many runs are ahead, when that has changed."""
        if self._position != position:
            self._position = position
            self._emit(Queued(position))

    def take(self, kind: str, data: dict[str, Any]) -> None:
        """Apply a message of the engine, from the socket or from its history."""
        match kind:
            case "execution_start":
                if self.started is None:
                    self._queue_seconds = time.monotonic() - (self._sent_first_at or self.sent_at)
                self.started = _seconds(data)
                self._emit(Started(self.started))
            case "execution_cached":
                self._cached = tuple(map(str, data.get("nodes") or ()))
                if self._cached:
                    self._emit(Cached(self._cached))
                self._emit(Planned(to_be_run(self.graph, self.output_classes, self._cached)))
            case "executing":
                self._node = str(data.get("display_node") or data["node"])
                self._emit(self._node_started(self._node))
            case "progress":
                node = str(data.get("node") or "")
                self._emit(Progress(node, float(data["value"]), float(data["max"])))
            case "executed":
                self._take_output(str(data["node"]), data.get("display_node"), data.get("output"))
            case "execution_success":
                self._finished = _seconds(data)
                if not self.missed_messages:
                    self.end()
            case "execution_interrupted":
                self.end(self.interrupted())
            case "execution_error" if data.get("exception_type") == "ExecutionBlocked":
                # The node's dependents are left out and the run goes on.
                self._node_errors.append(_blocked(data))
            case "execution_error":
                self.end(_failed(data))

    def take_frame(self, frame: Frame) -> None:
        """Pass on a preview or a line of text."""
        node = frame.node or self._node
        if frame.media_type == "text/plain":
            self._emit(NodeText(node, frame.data.decode("utf-8", "replace")))
        else:
            self._emit(Preview(node, frame.media_type, frame.data))

    def take_history(self, entry: dict[str, Any]) -> None:
        """Settle the run by what the engine's history says; events are over then."""
        self._is_quiet = True
        self.missed_messages = True
        meta = entry.get("meta") or {}
        for node, output in entry["outputs"].items():
            self._take_output(node, meta.get(node, {}).get("display_node"), output)
        was_started = self.started is not None
        for kind, data in entry["status"]["messages"]:
            self.take(kind, data)
        if self.started is not None and not was_started:
            self._queue_seconds = self.started - entry["prompt"][3]["create_time"] / 1000
        if self._finished is not None:
            self.end()
        else:
            self.end(EngineError(f"job {self.name}: the engine's history has no end of it"))

    def files(self) -> list[dict[str, Any]]:
        """Return what the engine says of the files that the run made, in their final order."""
        return [value for _, _, value, _ in self._values() if _is_file(value)]

    def result(self, contents: Sequence[bytes]) -> Run:
        """Return the result of a run that succeeded; `contents` are those of its `files`.

        Raises:
            EngineError: when the engine did not say when the run began.
        """
        if self.started is None or self._finished is None:
            raise EngineError(f"job {self.name}: the engine did not say when it ran")
        left = iter(contents)
        return Run(
            job=self.name,
            outputs=tuple(
                _file(node, kind, value["filename"], next(left), animated)
                if _is_file(value)
                else Text(node, kind, value if isinstance(value, str) else json.dumps(value))
                for node, kind, value, animated in self._values()
            ),
            started=self.started,
            finished=self._finished,
            queue_seconds=self._queue_seconds,
            cached=self._cached,
            node_errors=tuple(self._node_errors),
        )

    def _values(self) -> Iterator[tuple[str, str, Any, bool]]:
        """Yield node, kind, value and whether it is animated, in the order of the graph."""
        place = {node: number for number, node in enumerate(self.graph)}
        made = sorted(self._outputs.values(), key=lambda pair: place.get(pair[0], len(place)))
        for node, output in made:
            animated = bool(output.get("animated"))
            for kind, values in output.items():
                if kind != "animated":
                    for value in values if isinstance(values, list) else [values]:
                        yield node, kind, value, animated

    def _take_output(self, node: str, display_node: Any, output: Any) -> None:
        if isinstance(output, dict) and output:
            shown = str(display_node or node)
            self._outputs[node] = (shown, output)
            self._emit(NodeOutput(shown, tuple(output)))

    def _node_started(self, node: str) -> NodeStarted:
        known = self.graph.get(node)
        if not isinstance(known, Mapping):
            # Nodes that others expand to are not in the graph.
            return NodeStarted(node, "", node)
        class_type = str(known.get("class_type", ""))
        meta = known.get("_meta")
        title = meta.get("title") if isinstance(meta, Mapping) else None
        return NodeStarted(node, class_type, shortened(str(title or class_type)))

    def _emit(self, event: Event) -> None:
        """Tell the caller; what the callback raises fails this run and no other."""
        if self._on_event is None or self._is_quiet:
            return
        try:
            self._on_event(event)
        except Exception as error:
            self._on_event = None
            self.callback_error = error


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("filename"), str)


def _file(node: str, kind: str, name: str, data: bytes, animated: bool) -> File:
    found = media_type(data, name)
    moving = animated or kind == "gifs" or found.startswith("video/")
    return File(node, kind, name, found, data, moving)


def _blocked(data: dict[str, Any]) -> NodeError:
    return NodeError(
        node=str(data.get("node_id")),
        class_type=text_or_none(data.get("node_type")),
        type="ExecutionBlocked",
        message=str(data.get("exception_message")),
        details="",
    )


def _failed(data: dict[str, Any]) -> EngineFailed:
    return EngineFailed(
        node=str(data.get("node_id")),
        class_type=str(data.get("node_type")),
        exception_type=str(data.get("exception_type")),
        message=str(data.get("exception_message")).strip(),
        traceback="".join(map(str, data.get("traceback") or ())),
    )


def _seconds(data: dict[str, Any]) -> float:
    return float(data["timestamp"]) / 1000
