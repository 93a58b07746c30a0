"""Deployed functions as processes of this machine, started when somebody calls them."""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from grpclib import GRPCError, Status
from modal._serialization import _deserialize_asgi, serialize, serialize_data_format
from modal_proto import api_pb2

from templates.utils.comfyui_process import tied_to_this_process

from .plane import TASK_HEADER, Plane
from .volumes import Snapshot

# As long as a container waits for an input before it asks again.
_POLL_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 20.0
_OK: Final = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
_TERMINATED: Final = api_pb2.GenericResult.GENERIC_STATUS_TERMINATED


@dataclass
class Chunks:
    """A stream of data of a call, to or from its container."""

    changed: asyncio.Condition
    chunks: list[Any] = field(default_factory=list)

    async def push(self, chunks: Iterable[Any]) -> None:
        """Add chunks to the end."""
        async with self.changed:
            self.chunks.extend(chunks)
            self.changed.notify_all()

    async def send(self, stream: Any, last_index: int) -> None:
        """Send all chunks as they come, until whoever reads them goes."""
        sent = 0
        while True:
            async with self.changed:
                while sent >= len(self.chunks):
                    await self.changed.wait()
                fresh = self.chunks[sent:]
            for chunk in fresh:
                sent += 1
                if chunk.index > last_index:
                    await stream.send_message(chunk)


@dataclass
class Call:
    """A call of a function, with one input."""

    id: str
    function: str
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    outputs: list[Any] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.data_in = Chunks(self.changed)
        self.data_out = Chunks(self.changed)

    @property
    def unfinished(self) -> int:
        return len(self.inputs) - len(self.outputs)


@dataclass(eq=False)
class Task:
    """A container. `inputs` counts what it took; `active` are its inputs, with their calls.

    `items` are those as they were sent. `repeats` says that another container is to run them when
    this one is ended from outside.
    """

    id: str
    function: str
    process: asyncio.subprocess.Process
    log: Path
    restore: Path
    volumes: Mapping[str, Snapshot]
    active: dict[str, Call] = field(default_factory=dict)
    items: dict[str, Any] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    retiring: bool = False
    repeats: bool = False
    inputs: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def is_up(self) -> bool:
        return self.process.returncode is None


class Containers:
    """Runs the functions of a plane. `url` is the plane's; `folder` holds what each container sees."""

    def __init__(self, plane: Plane, folder: Path, url: str, python: Path) -> None:
        self._plane = plane
        self._folder = folder
        self._url = url
        self._python = python
        self._calls: dict[str, Call] = {}
        self._waiting: dict[str, list[tuple[Call, Any]]] = {}
        self._changed = asyncio.Condition()
        self._watchers: set[asyncio.Task[None]] = set()
        self.tasks: dict[str, Task] = {}
        plane.containers = self

    def task(self, name: str) -> Task:
        """Return a container by its id."""
        return self.tasks[name]

    def of(self, function: str) -> list[Task]:
        """Return the containers of a function that are up and take inputs."""
        return [
            t for t in self.tasks.values() if t.function == function and t.is_up and not t.retiring
        ]

    def call(self, name: str) -> Call:
        """Return a call by its id."""
        if name not in self._calls:
            raise GRPCError(Status.NOT_FOUND, f"Function call {name} not found")
        return self._calls[name]

    def new_call(self, function: str) -> Call:
        """Return a new call of a function."""
        call = Call(self._plane.new_id("fc"), function)
        self._calls[call.id] = call
        return call

    async def start(self, function: str) -> Task:
        """Start a container of a function."""
        name = self._plane.new_id("ta")
        base = self._folder / name
        volumes = self._lay_out(base, self._plane.functions[function])
        process, log = await self._launch(name, function, base)
        task = Task(name, function, process, log, base / "restore.json", volumes)
        self.tasks[name] = task
        watcher = asyncio.create_task(self._watch(task))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        return task

    async def retire(self, task: Task) -> None:
        """Give a container no more inputs; when it is done with those that it has, it ends."""
        async with self._changed:
            task.retiring = True
            self._changed.notify_all()

    async def retire_all(self, app: str) -> None:
        """Retire the containers of an app, as a deployment does."""
        for task in [*self.tasks.values()]:
            if self._plane.metadata[task.function].app_id == app:
                await self.retire(task)

    async def stop(self, task: Task) -> int:
        """Scale a container down, and return its exit status: exit hooks run."""
        await self.retire(task)
        try:
            return await asyncio.wait_for(task.process.wait(), _STOP_SECONDS)
        except TimeoutError:
            task.process.kill()
            return await task.process.wait()

    async def take_away(self, task: Task, number: int, *, repeats: bool) -> int:
        """End a container by a signal whatever it does, and return its exit status.

        Modal does so when it needs the machine, by SIGINT, and then lets another container run the
        inputs (`repeats`); they fail when a container ends by itself.
        """
        task.repeats = repeats
        task.process.send_signal(number)
        return await asyncio.wait_for(task.process.wait(), _STOP_SECONDS)

    async def close(self) -> None:
        """End all containers."""
        await asyncio.gather(*(self.stop(task) for task in self.tasks.values()))
        await asyncio.gather(*self._watchers)

    async def put_input(self, call: Call, item: Any, index: int, kind: Any) -> str:
        """Give a call an input, and start a container when none has room for it."""
        name = self._plane.new_id("in")
        call.inputs[name] = index
        wanted = api_pb2.FunctionGetInputsItem(
            input_id=name,
            input=item,
            function_call_id=call.id,
            function_call_invocation_type=kind,
        )
        async with self._changed:
            self._waiting.setdefault(call.function, []).append((call, wanted))
            self._changed.notify_all()
        if not self.of(call.function):
            await self.start(call.function)
        return name

    async def next_input(self, task: Task) -> Any:
        """Return the next input of a container; it is told to end when it retires."""
        limit = time.monotonic() + _POLL_SECONDS
        waiting = self._waiting.setdefault(task.function, [])
        async with self._changed:
            while not (task.retiring or waiting) and (left := limit - time.monotonic()) > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), left)
            if task.retiring:
                end = api_pb2.FunctionGetInputsItem(kill_switch=True)
                return api_pb2.FunctionGetInputsResponse(inputs=[end])
            if not waiting:
                return api_pb2.FunctionGetInputsResponse()
            call, item = waiting.pop(0)
        task.active[item.input_id] = call
        task.items[item.input_id] = item
        task.inputs += 1
        return api_pb2.FunctionGetInputsResponse(inputs=[item])

    async def put_output(self, item: Any) -> None:
        """Take the output of an input."""
        for task in self.tasks.values():
            if item.input_id in task.active:
                if task.repeats and item.result.status == _TERMINATED:
                    return
                del task.active[item.input_id]
        call = next(c for c in self._calls.values() if item.input_id in c.inputs)
        async with call.changed:
            call.outputs.append(
                api_pb2.FunctionGetOutputsItem(
                    result=item.result,
                    idx=call.inputs[item.input_id],
                    input_id=item.input_id,
                    data_format=item.data_format,
                    output_created_at=time.time(),
                )
            )
            call.changed.notify_all()

    async def wait_for_output(self, call: Call, seconds: float) -> None:
        """Wait until a call has an output, or for some seconds."""
        limit = time.monotonic() + seconds
        async with call.changed:
            while not call.outputs and (left := limit - time.monotonic()) > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(call.changed.wait(), left)

    async def cancel(self, call: Call) -> None:
        """Stop a call: one that waits at once, one that runs with its container's next heartbeat."""
        waiting = self._waiting.get(call.function, [])
        for pair in [pair for pair in waiting if pair[0] is call]:
            waiting.remove(pair)
            result = api_pb2.GenericResult(status=_TERMINATED)
            await self.put_output(
                api_pb2.FunctionPutOutputsItem(input_id=pair[1].input_id, result=result)
            )
        for task in self.tasks.values():
            task.cancelled.update(name for name, active in task.active.items() if active is call)

    async def failed(self, task: Task, result: Any) -> None:
        """Fail the inputs of a container that died; if it could not start, those that wait too."""
        task.retiring = True
        for name in [*task.active]:
            await self.put_output(api_pb2.FunctionPutOutputsItem(input_id=name, result=result))
        waiting = self._waiting.get(task.function, [])
        while waiting and not task.inputs and not self.of(task.function):
            _, item = waiting.pop(0)
            await self.put_output(
                api_pb2.FunctionPutOutputsItem(
                    input_id=item.input_id, result=result, data_format=api_pb2.DATA_FORMAT_PICKLE
                )
            )

    def restore(self, task: Task) -> None:
        """Let a container go on that has been made a snapshot of."""
        task.restore.write_text(json.dumps({"task_id": task.id, "function_id": task.function}))

    async def asgi(
        self, function: str, scope: dict[str, Any], body: bytes
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Send a request to a function that is an ASGI app, and yield what it sends."""
        call = self.new_call(function)
        await call.data_in.push([_chunk(1, "http.request", body=body, more_body=False)])
        args = api_pb2.FunctionInput(
            args=serialize(((scope,), {})), data_format=api_pb2.DATA_FORMAT_PICKLE
        )
        await self.put_input(call, args, 0, api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC)
        sent = 0
        try:
            while True:
                async with call.changed:
                    while sent >= len(call.data_out.chunks) and not call.outputs:
                        await call.changed.wait()
                    fresh, is_done = call.data_out.chunks[sent:], bool(call.outputs)
                for chunk in fresh:
                    sent += 1
                    data = chunk.data or self._plane.blobs[chunk.data_blob_id]
                    yield _deserialize_asgi(api_pb2.Asgi.FromString(data))
                if is_done and sent >= len(call.data_out.chunks):
                    result = call.outputs[0].result
                    if result.status != _OK:
                        raise RuntimeError(result.exception or result.traceback)
                    return
        except (asyncio.CancelledError, GeneratorExit):
            # Whoever asked has gone.
            await call.data_in.push([_chunk(2, "http.disconnect")])
            raise

    def _lay_out(self, base: Path, function: Any) -> dict[str, Snapshot]:
        """Make what a container sees: the files of its mounts, and its Volumes, which are returned.

        Containers share this machine's file system. Where several have a Volume at one path, all of
        them see it as the last of them does.
        """
        root = base / "fs"
        (root / "root").mkdir(parents=True)
        for mount in function.mount_ids:
            for remote, digest in self._plane.mounts[mount].items():
                path = root / remote.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._plane.files[digest])
        volumes: dict[str, Snapshot] = {}
        for mount in function.volume_mounts:
            volume = self._plane.volume_path(self._plane.volumes[mount.volume_id])
            snapshot = Snapshot(volume, base / "volumes" / mount.volume_id)
            volumes[mount.volume_id] = snapshot
            path = Path(mount.mount_path)
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{base.name}-{path.name}")
            new.symlink_to(snapshot.folder)
            new.replace(path)
        return volumes

    async def _launch(
        self, name: str, function: str, base: Path
    ) -> tuple[asyncio.subprocess.Process, Path]:
        proto = api_pb2.Function()
        proto.CopyFrom(self._plane.functions[function])
        proto.is_checkpointing_function = proto.checkpointing_enabled
        app = self._plane.metadata[function].app_id
        arguments = api_pb2.ContainerArguments(
            task_id=name,
            function_id=function,
            app_id=app,
            function_def=proto,
            environment_name="main",
            app_layout=self._plane.apps[app].layout,
            checkpoint_id=f"ch-{name}" if proto.checkpointing_enabled else "",
        )
        (base / "arguments").write_bytes(arguments.SerializeToString())
        log = base / "log.txt"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *tied_to_this_process([str(self._python), "-m", "modal._container_entrypoint"]),
                cwd=base / "fs" / "root",
                env=self._environment(name, proto, base),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
            )
        return process, log

    def _environment(self, name: str, function: Any, base: Path) -> dict[str, str]:
        """Return the environment of a container: this one's without its secrets and settings."""
        env = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("MODAL_", "PYTHON", "PYTEST"))
        }
        env |= self._image_environment(function.image_id)
        for secret in function.secret_ids:
            env |= self._plane.secrets[secret][1]
        if function.checkpointing_enabled:
            env["MODAL_ENABLE_SNAP_RESTORE"] = "1"
        return env | {
            "MODAL_SERVER_URL": self._url,
            "MODAL_TASK_ID": name,
            "MODAL_IS_REMOTE": "1",
            "MODAL_CONTAINER_ARGUMENTS_PATH": str(base / "arguments"),
            "MODAL_RESTORE_STATE_PATH": str(base / "restore.json"),
            "MODAL_OVERRIDE_HEADERS": f"{TASK_HEADER}:{name}",
            "AGENT": name,
            "PYTHONPATH": str(base / "fs" / "root"),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def _image_environment(self, image: str) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for line in self._plane.image_lines(image):
            if match := re.match(r"ENV ([A-Za-z_][A-Za-z0-9_]*)=(.*)", line):
                found[match[1]] = match[2].strip("'\"")
        return found

    async def _watch(self, task: Task) -> None:
        """Fail the inputs of a container that ends without being told to, or run them again."""
        status = await task.process.wait()
        waiting = self._waiting.setdefault(task.function, [])
        if task.repeats:
            task.retiring = True
            waiting[:0] = [(call, task.items[name]) for name, call in task.active.items()]
            task.active.clear()
        elif not task.retiring or task.active:
            last = task.log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            reason = f"the container ended with status {status}: {''.join(last)}"
            result = api_pb2.GenericResult(
                status=api_pb2.GenericResult.GENERIC_STATUS_INTERNAL_FAILURE, exception=reason
            )
            await self.failed(task, result)
        if waiting and not self.of(task.function):
            await self.start(task.function)


def _chunk(index: int, kind: str, **more: Any) -> Any:
    data = serialize_data_format({"type": kind, **more}, api_pb2.DATA_FORMAT_ASGI)
    return api_pb2.DataChunk(data_format=api_pb2.DATA_FORMAT_ASGI, index=index, data=data)
