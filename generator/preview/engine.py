"""The queue: one prompt at a time, with ComfyUI's events, history and cache."""

import asyncio
import contextlib
import copy
import hashlib
import heapq
import io
import json
import struct
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..graph.records import Graph, is_link
from .draw import preview
from .errors import GraphError, InterruptedRunError, NodeError
from .folders import Folders
from .label import label
from .measure import Measure
from .order import execution_order, signatures
from .outputs import UI, Job, run_node
from .schemas import FILE_INPUTS, Schemas

_HISTORY: Final = 10_000
_DEFAULT_STEPS: Final = 20
# Binary frames start with their kind, big-endian; the picture of kind 1 with its format, JPEG.
_PREVIEW: Final = struct.pack(">II", 1, 1)
_PREVIEW_WITH_METADATA: Final = 4

# Sends an event, or bytes, to the client of that id; to all when it is None. What is sent is read
# before the call returns.
Send = Callable[[str, Any, str | None], None]
SendBytes = Callable[[bytes, bytes, str], None]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A graph in the queue; lower numbers run first. `outputs` are the nodes to run it for."""

    number: float
    id: str
    graph: Graph
    extra_data: dict[str, Any]
    outputs: tuple[str, ...]

    @property
    def client(self) -> str | None:
        """The client that is told of the run."""
        client = self.extra_data.get("client_id")
        return client if isinstance(client, str) else None

    def as_json(self) -> list[Any]:
        """Return the prompt as /queue and /history show it."""
        return [self.number, self.id, self.graph, self.extra_data, list(self.outputs)]


@dataclass(slots=True)
class _Run:
    """A prompt that runs: the nodes' progress, what has been said and shown."""

    prompt: Prompt
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    outputs: dict[str, UI] = field(default_factory=dict)
    current: str | None = None
    interrupted: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self) -> None:
        if self.interrupted.is_set():
            raise InterruptedRunError


class Engine:
    """Runs prompts one at a time and keeps their history.

    `pace` is seconds per sampler step. With `previews` samplers send pictures on their way. All
    methods belong to the event loop's thread; nodes run in another.
    """

    def __init__(
        self,
        schemas: Schemas,
        folders: Folders,
        *,
        send: Send,
        send_bytes: SendBytes,
        pace: float = 0.02,
        previews: bool = False,
    ) -> None:
        self._schemas = schemas
        self._folders = folders
        self._send = send
        self._send_bytes = send_bytes
        self._pace = pace
        self._previews = previews
        self._pending: list[tuple[float, int, Prompt]] = []
        self._added = 0
        self._wake = asyncio.Event()
        self._run: _Run | None = None
        self._cache: dict[str, UI | None] = {}
        self._drop_cache = False
        self.history: dict[str, dict[str, Any]] = {}

    @property
    def remaining(self) -> int:
        """How many prompts run or wait."""
        return len(self._pending) + (self._run is not None)

    def status(self) -> dict[str, Any]:
        """Return the state of the queue as `status` events have it."""
        return {"status": {"exec_info": {"queue_remaining": self.remaining}}}

    def queue(self) -> tuple[list[Prompt], list[Prompt]]:
        """Return the prompts that run and those that wait, in the order of their turn."""
        running = [self._run.prompt] if self._run else []
        return running, [prompt for _, _, prompt in sorted(self._pending, key=lambda e: e[:2])]

    def running_node(self, client: str) -> str | None:
        """Return the node that runs for a client, None when none does."""
        if self._run is None or self._run.prompt.client != client:
            return None
        return self._run.current

    def submit(self, prompt: Prompt) -> None:
        """Put a prompt into the queue."""
        self._added += 1
        heapq.heappush(self._pending, (prompt.number, self._added, prompt))
        self._wake.set()
        self._send("status", self.status(), None)

    def delete(self, ids: set[str] | None = None) -> None:
        """Take waiting prompts out of the queue, by default all; what runs goes on."""
        kept = [e for e in self._pending if ids is not None and e[2].id not in ids]
        if len(kept) != len(self._pending) or ids is None:
            self._pending = kept
            heapq.heapify(self._pending)
            self._send("status", self.status(), None)

    def interrupt(self, id: str | None = None) -> None:
        """Stop what runs; with an id only if it is that prompt."""
        if self._run is not None and id in (None, "", self._run.prompt.id):
            self._run.interrupted.set()

    def forget(self) -> None:
        """Drop the cache before the next run."""
        self._drop_cache = True

    async def work(self) -> None:
        """Run what is in the queue, for ever; a run that was begun is broken off with it."""
        try:
            while True:
                while not self._pending:
                    self._wake.clear()
                    await self._wake.wait()
                await self._execute(heapq.heappop(self._pending)[2])
        finally:
            self.interrupt()

    async def _execute(self, prompt: Prompt) -> None:
        run = self._run = _Run(prompt)
        self._send("status", self.status(), None)
        if self._drop_cache:
            self._cache.clear()
            self._drop_cache = False
        failed = await self._run_nodes(run)
        self._run = None
        self._remember(run, failed)
        self._send("status", self.status(), None)
        self._tell(run, "executing", {"node": None, "prompt_id": prompt.id})

    def _remember(self, run: _Run, failed: bool) -> None:
        while len(self.history) >= _HISTORY:
            del self.history[next(iter(self.history))]
        self.history[run.prompt.id] = {
            "prompt": run.prompt.as_json(),
            "outputs": run.outputs,
            "status": {
                "status_str": "error" if failed else "success",
                "completed": not failed,
                "messages": [list(message) for message in run.messages],
            },
            "meta": {
                node: {
                    "node_id": node,
                    "display_node": node,
                    "parent_node": None,
                    "real_node_id": node,
                }
                for node in run.outputs
            },
        }

    async def _run_nodes(self, run: _Run) -> bool:
        """Run a prompt's nodes, and return whether that failed."""
        graph = copy.deepcopy(run.prompt.graph)
        for content in graph.values():
            # ComfyUI's queue dies of a node without inputs, for good; this one takes it as empty.
            if not isinstance(content.get("inputs"), dict):
                content["inputs"] = {}
        self._say(run, "execution_start", {})
        measure = Measure(graph, self._schemas, self._folders)
        try:
            names = await asyncio.to_thread(
                signatures, graph, lambda node: self._digest(graph, node)
            )
            self._cache = {n: self._cache[n] for n in names.values() if n in self._cache}
            cached = [node for node in graph if names.get(node) in self._cache]
            self._say(run, "execution_cached", {"nodes": cached})
            for node in execution_order(graph, run.prompt.outputs, cached):
                name = names.get(node)
                run.current = node
                if name in self._cache:
                    self._show_cached(run, node, self._cache[name])
                    continue
                ui = await self._run_node(run, graph, node, measure)
                if name is not None:
                    self._cache[name] = ui
                if ui is not None:
                    run.outputs[node] = ui
                    self._tell(run, "executed", _shown(run, node, ui))
                self._progress(run, node, state="finished")
                run.executed.append(node)
        except InterruptedRunError:
            self._say(run, "execution_interrupted", self._where(run, graph), to_all=True)
            return True
        except GraphError as error:
            run.current = error.node
            self._say(run, "execution_error", self._error(run, graph, error))
            # ComfyUI's history calls such a run a success, for no node has failed.
            return False
        except Exception as error:
            self._say(run, "execution_error", self._error(run, graph, error))
            return True
        self._say(run, "execution_success", {})
        return False

    def _show_cached(self, run: _Run, node: str, ui: UI | None) -> None:
        if ui is not None:
            run.outputs[node] = ui
            self._tell(run, "executed", _shown(run, node, ui))
        self._progress(run, node, value=1, maximum=1, state="finished")

    async def _run_node(self, run: _Run, graph: Graph, node: str, measure: Measure) -> UI | None:
        run.check()
        self._progress(run, node, value=0.0, maximum=1.0, state="running")
        running = {"node": node, "display_node": node, "prompt_id": run.prompt.id}
        self._tell(run, "executing", running)
        job = Job(graph, node, self._schemas, self._folders, measure, run.check)
        ui = await asyncio.to_thread(run_node, job)
        if measure.is_sampler(node):
            await self._sample(run, job)
        run.check()
        return ui

    async def _sample(self, run: _Run, job: Job) -> None:
        """Tell of a sampler's steps, at the engine's pace."""
        steps = _steps(job)
        for step in range(1, steps + 1):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(run.interrupted.wait(), self._pace)
            run.check()
            self._progress(run, job.node, value=step, maximum=steps)
            self._tell(
                run,
                "progress",
                {"value": step, "max": steps, "prompt_id": run.prompt.id, "node": job.node},
            )
            if self._previews and run.prompt.client is not None:
                picture = await asyncio.to_thread(_preview_picture, job, step / steps)
                metadata = {
                    "node_id": job.node,
                    "display_node_id": job.node,
                    "parent_node_id": None,
                    "real_node_id": job.node,
                    "prompt_id": run.prompt.id,
                    "image_type": "image/jpeg",
                }
                plain, with_metadata = preview_frames(picture, metadata)
                self._send_bytes(plain, with_metadata, run.prompt.client)

    def _digest(self, graph: Graph, node: str) -> str:
        """Return what a file loader's result depends on: the bytes of its file."""
        name = graph[node]["class_type"]
        if name not in FILE_INPUTS:
            return ""
        value = graph[node]["inputs"].get(FILE_INPUTS[name][0])
        try:
            path: Path = self._folders.named(str(value))
            return hashlib.sha256(path.read_bytes()).hexdigest()
        except (OSError, ValueError):
            return "unreadable"

    def _progress(
        self,
        run: _Run,
        node: str,
        *,
        value: float | None = None,
        maximum: float | None = None,
        state: str = "running",
    ) -> None:
        """Note a node's progress, and tell of that of all nodes so far."""
        entry = run.nodes.setdefault(
            node,
            {
                "value": 0.0,
                "max": 1.0,
                "state": state,
                "node_id": node,
                "prompt_id": run.prompt.id,
                "display_node_id": node,
                "parent_node_id": None,
                "real_node_id": node,
            },
        )
        if maximum is not None:
            entry["max"] = maximum
        entry["value"] = entry["max"] if state == "finished" else value
        entry["state"] = state
        data = {"prompt_id": run.prompt.id, "nodes": run.nodes}
        self._send("progress_state", data, run.prompt.client)

    def _where(self, run: _Run, graph: Graph) -> dict[str, Any]:
        return {
            "node_id": run.current,
            "node_type": graph[run.current]["class_type"] if run.current else None,
            "executed": list(run.executed),
        }

    def _error(self, run: _Run, graph: Graph, error: Exception) -> dict[str, Any]:
        kind = error.type if isinstance(error, NodeError) else type(error).__name__
        inputs = graph[run.current]["inputs"] if run.current else {}
        return {
            **self._where(run, graph),
            "exception_message": f"{error}\n",
            "exception_type": kind,
            "traceback": traceback.format_exception_only(error),
            "current_inputs": {
                name: [str(value) if is_link(value) else value] for name, value in inputs.items()
            },
            "current_outputs": [*run.executed, run.current],
        }

    def _say(self, run: _Run, event: str, data: dict[str, Any], *, to_all: bool = False) -> None:
        """Tell of the run, and keep it for the history."""
        data = {"prompt_id": run.prompt.id, **data, "timestamp": int(time.time() * 1000)}
        run.messages.append((event, data))
        if to_all and run.prompt.client is None:
            self._send(event, data, None)
        else:
            self._tell(run, event, data)

    def _tell(self, run: _Run, event: str, data: dict[str, Any]) -> None:
        if run.prompt.client is not None:
            self._send(event, data, run.prompt.client)


def _shown(run: _Run, node: str, ui: UI) -> dict[str, Any]:
    return {"node": node, "display_node": node, "output": ui, "prompt_id": run.prompt.id}


def _steps(job: Job) -> int:
    """Return how many steps a sampler takes: its own, or those of the sigmas that it is given."""
    inputs = job.inputs
    if "steps" not in inputs and is_link(inputs.get("sigmas")):
        inputs = job.graph[inputs["sigmas"][0]]["inputs"]
    steps = int(job.measure.number(inputs, "steps", _DEFAULT_STEPS))
    end = min(int(job.measure.number(inputs, "end_at_step", steps)), steps)
    return max(end - int(job.measure.number(inputs, "start_at_step", 0)), 1)


def _preview_picture(job: Job, progress: float) -> bytes:
    stream = job.measure.stream([job.node, 0])
    image = preview(stream, label(job.graph, job.node, stream, job.measure), progress)
    output = io.BytesIO()
    image.save(output, "JPEG", quality=80)
    return output.getvalue()


def preview_frames(picture: bytes, metadata: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return a JPEG as a binary frame, without and with metadata."""
    text = json.dumps(metadata).encode()
    head = struct.pack(">II", _PREVIEW_WITH_METADATA, len(text))
    return _PREVIEW + picture, head + text + picture
