"""A control plane of Modal on loopback: what `modal deploy` and containers ask for, and no more.

Written from the stubs that the `modal` package ships. It shows that the client's half works: images
are recorded and not built, GPUs are names, and what the real server checks by itself goes unchecked.
"""

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2
from modal_proto.api_grpc import ModalClientBase

if TYPE_CHECKING:
    from .containers import Containers

BUILDER_VERSION: Final = "2025.06"
WORKSPACE: Final = "acme"
# The task that a container is, in the metadata of what it asks.
TASK_HEADER: Final = "x-test-task"
# Old SDKs send no other headers than their own; this is one whose value is in the environment, AGENT.
OLD_TASK_HEADER: Final = "x-modal-agent-harness"

_GPUS: Final = frozenset(
    "T4 L4 A10 A10G L40S A100 A100-40GB A100-80GB H100 H100! H200 B200 B200+ B300 RTX-PRO-6000 ANY".split()
)
_ANONYMOUS: Final = frozenset(
    (
        api_pb2.OBJECT_CREATION_TYPE_ANONYMOUS_OWNED_BY_APP,
        api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL,
    )
)
_CREATING = (
    api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS,
    api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS,
)
_BLOCK: Final = 8 * 2**20
# Of a queue's partition.
_MOST_ITEMS: Final = 5000
_MOST_ITEM: Final = 2**20

Rpc = Callable[[Any, Any], Coroutine[Any, Any, None]]


def unary(answer: Callable[[Any, Any], Any]) -> Rpc:
    """Make an RPC of a method that takes a request and returns or awaits its response."""

    async def rpc(self: Any, stream: Any) -> None:
        response = answer(self, await stream.recv_message())
        if asyncio.iscoroutine(response):
            response = await response
        await stream.send_message(response)

    return rpc


def _missing(name: str) -> Rpc:
    async def rpc(self: Any, stream: Any) -> None:  # noqa: ARG001
        raise GRPCError(Status.UNIMPLEMENTED, f"the plane has no {name}")

    return rpc


@dataclass
class App:
    """A deployed app. `functions` and `classes` are ids by tag."""

    name: str
    environment: str
    layout: Any = field(default_factory=api_pb2.AppLayout)
    is_published: bool = False
    version: int = 0

    @property
    def functions(self) -> Mapping[str, str]:
        return dict(self.layout.function_ids)


class Plane(ModalClientBase):
    """The control plane. `root` holds the Volumes; `secrets` are the variables of each by its name."""

    def __init__(self, root: Path, secrets: Mapping[str, Mapping[str, str]]) -> None:
        self.root = root
        self.named_secrets = {name: dict(values) for name, values in secrets.items()}
        self.apps: dict[str, App] = {}
        self.secrets: dict[str, tuple[str, dict[str, str]]] = {}
        self.volumes: dict[str, str] = {}
        self.mounts: dict[str, dict[str, str]] = {}
        self.files: dict[str, bytes] = {}
        self.images: dict[str, Any] = {}
        self.functions: dict[str, Any] = {}
        # The GPUs that a function may run on, in the order of preference.
        self.gpus: dict[str, list[str]] = {}
        self.metadata: dict[str, Any] = {}
        self.dicts: dict[str, dict[bytes, bytes]] = {}
        self.queues: dict[str, dict[bytes, list[bytes]]] = {}
        self.calls: Counter[str] = Counter()
        # Awaited when somebody calls a function, before the call is there.
        self.before_call: Callable[[], Awaitable[None]] | None = None
        self.deployments = 0
        # For how long the partitions of queues are kept.
        self.queue_seconds: dict[bytes, int] = {}
        # How many wait for items of a queue now, and how many at most.
        self.reading = 0
        self.most_reading = 0
        # The address of the HTTP server beside this one, for what is too large for a message.
        self.http = ""
        self.blobs: dict[str, bytes] = {}
        self._containers: Containers | None = None
        self._ids: dict[tuple[object, ...], str] = {}
        self._numbers: Counter[str] = Counter()

    def __mapping__(self) -> Any:
        """Count what is asked for."""
        return {
            path: handler._replace(func=self._counted(path.rpartition("/")[2], handler.func))
            for path, handler in super().__mapping__().items()
        }

    def _counted(self, name: str, rpc: Callable[[Any], Coroutine[Any, Any, None]]) -> Any:
        async def counted(stream: Any) -> None:
            self.calls[name] += 1
            await rpc(stream)

        return counted

    @property
    def containers(self) -> "Containers":
        assert self._containers is not None
        return self._containers

    @containers.setter
    def containers(self, containers: "Containers") -> None:
        self._containers = containers

    def new_id(self, prefix: str, *key: object) -> str:
        """Return an id: the same for the same key, a fresh one without a key."""
        if key and (prefix, *key) in self._ids:
            return self._ids[prefix, *key]
        self._numbers[prefix] += 1
        made = f"{prefix}-{self._numbers[prefix]:022d}"
        if key:
            self._ids[prefix, *key] = made
        return made

    def app(self, name: str) -> App:
        """Return the app that is deployed under a name, or as NAME@ENVIRONMENT."""
        name, _, environment = name.partition("@")
        return self.apps[self._ids["deployed", environment, name]]

    def function_id(self, app: str, tag: str) -> str:
        """Return the id of a deployed function; a class's is `NAME.*`."""
        return self.app(app).functions[tag]

    def function(self, app: str, tag: str) -> Any:
        """Return a deployed function as it was registered."""
        return self.functions[self.function_id(app, tag)]

    def volume_path(self, name: str) -> Path:
        """Return the folder that holds a Volume."""
        path = self.root / "volumes" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def image_lines(self, image: str) -> list[str]:
        """Return the Dockerfile lines of an image, from its base on; a copied folder by its hash."""
        proto = self.images[image]
        lines = [line for base in proto.base_images for line in self.image_lines(base.image_id)]
        context = proto.context_mount_id
        added = [f"{line} # {context}" if context else line for line in proto.dockerfile_commands]
        return lines + [line for line in added if not line.startswith("FROM base")]

    # The session.

    @unary
    def ClientHello(self, _: Any) -> Any:
        return api_pb2.ClientHelloResponse()

    @unary
    def AuthTokenGet(self, _: Any) -> Any:
        return api_pb2.AuthTokenGetResponse(token="")

    @unary
    def EnvironmentGetOrCreate(self, q: Any) -> Any:
        name = q.deployment_name or "main"
        settings = api_pb2.EnvironmentSettings(image_builder_version=BUILDER_VERSION)
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id=self.new_id("en", name),
            metadata=api_pb2.EnvironmentMetadata(name=name, settings=settings),
        )

    # Apps.

    @unary
    def AppGetByDeploymentName(self, q: Any) -> Any:
        app = self._ids.get(("deployed", q.environment_name, q.name), "")
        state = api_pb2.APP_STATE_DEPLOYED if app else api_pb2.APP_STATE_UNSPECIFIED
        return api_pb2.AppGetByDeploymentNameResponse(
            app_id=app,
            environment_name=q.environment_name or "main",
            lifecycle=api_pb2.AppLifecycle(app_state=state),
        )

    @unary
    def AppGetOrCreate(self, q: Any) -> Any:
        app = self._ids.get(("deployed", q.environment_name, q.app_name))
        if app is None:
            raise GRPCError(Status.NOT_FOUND, f"App '{q.app_name}' not found")
        return api_pb2.AppGetOrCreateResponse(app_id=app)

    @unary
    def AppDeploymentHistory(self, q: Any) -> Any:
        versions = range(self.apps[q.app_id].version, 0, -1)
        return api_pb2.AppDeploymentHistoryResponse(
            app_deployment_histories=[
                api_pb2.AppDeploymentHistory(
                    app_id=q.app_id, version=version, deployed_at=time.time(), deployed_by="ann"
                )
                for version in versions
            ]
        )

    @unary
    def AppRollback(self, _: Any) -> Any:
        raise GRPCError(Status.FAILED_PRECONDITION, "rolling back needs another plan")

    @unary
    async def AppStop(self, q: Any) -> Any:
        app = self.apps[q.app_id]
        del self._ids["deployed", app.environment, app.name]
        await self.containers.retire_all(q.app_id)
        return Empty()

    @unary
    def AppFetchLogs(self, q: Any) -> Any:
        """Return what the containers of an app have printed."""
        logs = [
            api_pb2.TaskLogs(data=task.log.read_text("utf-8", "replace"), timestamp=time.time())
            for task in self.containers.tasks.values()
            if self.metadata[task.function].app_id == q.app_id
        ]
        return api_pb2.AppFetchLogsResponse(batches=[api_pb2.TaskLogsBatch(items=logs)])

    @unary
    def AppCreate(self, q: Any) -> Any:
        app = self.new_id("ap")
        self.apps[app] = App(q.description, q.environment_name)
        return api_pb2.AppCreateResponse(app_id=app, app_page_url=f"https://modal.test/{app}")

    @unary
    def AppGetLayout(self, q: Any) -> Any:
        return api_pb2.AppGetLayoutResponse(app_layout=self.apps[q.app_id].layout)

    @unary
    def AppHeartbeat(self, _: Any) -> Any:
        return Empty()

    @unary
    def AppClientDisconnect(self, _: Any) -> Any:
        return Empty()

    @unary
    def AppSetObjects(self, _: Any) -> Any:
        return Empty()

    @unary
    def TaskList(self, _: Any) -> Any:
        return api_pb2.TaskListResponse()

    @unary
    async def AppPublish(self, q: Any) -> Any:
        app = self.apps[q.app_id]
        layout = api_pb2.AppLayout(function_ids=dict(q.function_ids), class_ids=dict(q.class_ids))
        for function in q.function_ids.values():
            layout.objects.add(object_id=function, function_handle_metadata=self.metadata[function])
        for tag, made in q.class_ids.items():
            function = q.function_ids[f"{tag}.*"]
            handle = api_pb2.ClassHandleMetadata(
                class_function_id=function, class_function_metadata=self.metadata[function]
            )
            layout.objects.add(object_id=made, class_handle_metadata=handle)
        for function, proto in self.functions.items():
            if self.metadata[function].app_id == q.app_id:
                for needed in proto.object_dependencies:
                    layout.objects.add(object_id=needed.object_id, **self._needed(needed.object_id))
        app.layout, app.name, app.is_published = layout, q.name or app.name, True
        if q.app_state == api_pb2.APP_STATE_DEPLOYED:
            self._ids["deployed", app.environment, q.name] = q.app_id
            app.version += 1
            self.deployments += 1
        await self.containers.retire_all(q.app_id)
        url = f"https://modal.test/apps/{WORKSPACE}/main/deployed/{q.name}"
        return api_pb2.AppPublishResponse(url=url, deployed_at=time.time())

    def _needed(self, object_id: str) -> dict[str, Any]:
        if object_id in self.volumes:
            return {"volume_metadata": self._volume_metadata(object_id)}
        return {}

    # Volumes, Secrets, Dicts and Mounts.

    def _volume_metadata(self, volume: str) -> Any:
        return api_pb2.VolumeMetadata(
            name=self.volumes[volume], version=api_pb2.VOLUME_FS_VERSION_V1
        )

    @unary
    def VolumeGetOrCreate(self, q: Any) -> Any:
        key = ("vo", q.environment_name, q.deployment_name)
        may_create = q.object_creation_type != api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED
        if not may_create and key not in self._ids:
            raise GRPCError(Status.NOT_FOUND, f"Volume '{q.deployment_name}' not found")
        volume = self.new_id(*key)
        self.volumes[volume] = q.deployment_name
        metadata = self._volume_metadata(volume)
        return api_pb2.VolumeGetOrCreateResponse(
            volume_id=volume, version=metadata.version, metadata=metadata
        )

    async def VolumeReload(self, stream: Any) -> None:
        q = await stream.recv_message()
        self.containers.task(_task_of(stream)).volumes[q.volume_id].reload()
        await stream.send_message(Empty())

    async def VolumeCommit(self, stream: Any) -> None:
        q = await stream.recv_message()
        self.containers.task(_task_of(stream)).volumes[q.volume_id].commit()
        await stream.send_message(api_pb2.VolumeCommitResponse())

    async def VolumeListFiles(self, stream: Any) -> None:
        q = await stream.recv_message()
        root = self.volume_path(self.volumes[q.volume_id])
        start = root / q.path.strip("/")
        if not start.exists():
            raise GRPCError(Status.NOT_FOUND, f"no {q.path} in the Volume")
        found = start.rglob("*") if q.recursive else start.glob("*")
        entries = [
            api_pb2.FileEntry(
                path=path.relative_to(root).as_posix(),
                type=api_pb2.FileEntry.DIRECTORY if path.is_dir() else api_pb2.FileEntry.FILE,
                size=path.lstat().st_size,
                mtime=int(path.lstat().st_mtime),
            )
            for path in ([start] if start.is_file() else sorted(found))
        ]
        await stream.send_message(api_pb2.VolumeListFilesResponse(entries=entries))

    @unary
    def VolumeGetFile2(self, q: Any) -> Any:
        path = self.volume_path(self.volumes[q.volume_id]) / q.path.strip("/")
        if not path.is_file():
            raise GRPCError(Status.NOT_FOUND, f"no {q.path} in the Volume")
        data = path.read_bytes()
        urls: list[str] = []
        for start in range(0, len(data), _BLOCK):
            blob, url = self.new_blob()
            self.blobs[blob] = data[start : start + _BLOCK]
            urls.append(url)
        return api_pb2.VolumeGetFile2Response(get_urls=urls, size=len(data), start=0, len=len(data))

    @unary
    def VolumePutFiles(self, q: Any) -> Any:
        root = self.volume_path(self.volumes[q.volume_id])
        for file in q.files:
            path = root / file.filename.strip("/")
            if path.exists() and q.disallow_overwrite_existing_files:
                raise GRPCError(Status.ALREADY_EXISTS, f"{file.filename} exists")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.files[file.sha256_hex])
        return Empty()

    @unary
    def SecretGetOrCreate(self, q: Any) -> Any:
        if q.object_creation_type in _ANONYMOUS:
            secret = self.new_id("st")
            self.secrets[secret] = ("", dict(q.env_dict))
            return api_pb2.SecretGetOrCreateResponse(secret_id=secret)
        name = q.deployment_name
        if q.object_creation_type in _CREATING:
            overwrites = api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS
            if name in self.named_secrets and q.object_creation_type != overwrites:
                raise GRPCError(Status.ALREADY_EXISTS, f"Secret '{name}' exists")
            self.named_secrets[name] = dict(q.env_dict)
        if name not in self.named_secrets:
            raise GRPCError(Status.NOT_FOUND, f"Secret '{name}' not found in environment 'main'")
        absent = [key for key in q.required_keys if key not in self.named_secrets[name]]
        if absent:
            raise GRPCError(Status.FAILED_PRECONDITION, f"Secret '{name}' has no {absent}")
        secret = self.new_id("st", name)
        self.secrets[secret] = (name, self.named_secrets[name])
        return api_pb2.SecretGetOrCreateResponse(
            secret_id=secret, metadata=api_pb2.SecretMetadata(name=name)
        )

    @unary
    def DictGetOrCreate(self, q: Any) -> Any:
        made = self.new_id("di", q.environment_name, q.deployment_name)
        self.dicts.setdefault(made, {})
        metadata = api_pb2.DictMetadata(name=q.deployment_name)
        return api_pb2.DictGetOrCreateResponse(dict_id=made, metadata=metadata)

    @unary
    def DictGet(self, q: Any) -> Any:
        value = self.dicts[q.dict_id].get(q.key)
        return api_pb2.DictGetResponse(found=value is not None, value=value)

    @unary
    def DictUpdate(self, q: Any) -> Any:
        held = self.dicts[q.dict_id]
        created = False
        for entry in q.updates:
            if not (q.if_not_exists and entry.key in held):
                held[entry.key] = entry.value
                created = True
        return api_pb2.DictUpdateResponse(created=created)

    @unary
    def DictPop(self, q: Any) -> Any:
        value = self.dicts[q.dict_id].pop(q.key, None)
        return api_pb2.DictPopResponse(found=value is not None, value=value)

    async def DictContents(self, stream: Any) -> None:
        q = await stream.recv_message()
        for key, value in [*self.dicts[q.dict_id].items()]:
            await stream.send_message(api_pb2.DictEntry(key=key, value=value))

    @unary
    def QueueGetOrCreate(self, q: Any) -> Any:
        made = self.new_id("qu", q.environment_name, q.deployment_name)
        self.queues.setdefault(made, {})
        metadata = api_pb2.QueueMetadata(name=q.deployment_name)
        return api_pb2.QueueGetOrCreateResponse(queue_id=made, metadata=metadata)

    @unary
    def QueuePut(self, q: Any) -> Any:
        if not 1 <= len(q.partition_key) <= 64:
            raise GRPCError(Status.INVALID_ARGUMENT, "a key of 1 to 64 bytes")
        if any(len(value) > _MOST_ITEM for value in q.values):
            raise GRPCError(Status.INVALID_ARGUMENT, "an item of 1 MiB at most")
        held = self.queues[q.queue_id].setdefault(q.partition_key, [])
        if len(held) + len(q.values) > _MOST_ITEMS:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "the partition is full")
        held.extend(q.values)
        self.queue_seconds[q.partition_key] = q.partition_ttl_seconds
        return Empty()

    @unary
    async def QueueNextItems(self, q: Any) -> Any:
        """Return the items after one, as soon as there is one; none after a time."""
        start = int(q.last_entry_id or 0)
        limit = time.monotonic() + q.item_poll_timeout
        self.reading += 1
        self.most_reading = max(self.reading, self.most_reading)
        try:
            while True:
                held = self.queues[q.queue_id].get(q.partition_key, [])[start:]
                if held or time.monotonic() >= limit:
                    break
                await asyncio.sleep(0.01)
        finally:
            self.reading -= 1
        items = [
            api_pb2.QueueItem(value=value, entry_id=str(number))
            for number, value in enumerate(held, start + 1)
        ]
        return api_pb2.QueueNextItemsResponse(items=items)

    @unary
    def MountGetOrCreate(self, q: Any) -> Any:
        if q.object_creation_type in _ANONYMOUS:
            listing = {file.filename: file.sha256_hex for file in q.files}
            digest = hashlib.sha256(json.dumps(sorted(listing.items())).encode()).hexdigest()
            mount = self.new_id("mo", digest)
            self.mounts[mount] = listing
        else:
            # Modal's own: its client, and builds of Python.
            digest, mount = "0" * 64, self.new_id("mo", q.deployment_name)
            self.mounts.setdefault(mount, {})
        return api_pb2.MountGetOrCreateResponse(
            mount_id=mount,
            handle_metadata=api_pb2.MountHandleMetadata(content_checksum_sha256_hex=digest),
        )

    @unary
    def MountBatchedCheckExistence(self, q: Any) -> Any:
        absent = [digest for digest in q.sha256_hex_hashes if digest not in self.files]
        return api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=absent)

    @unary
    def MountPutFile(self, q: Any) -> Any:
        match q.WhichOneof("data_oneof"):
            case "data":
                self.files[q.sha256_hex] = q.data
            case "data_blob_id":
                self.files[q.sha256_hex] = self.blobs[q.data_blob_id]
        return api_pb2.MountPutFileResponse(exists=q.sha256_hex in self.files)

    # Images.

    @unary
    def ImageGetOrCreate(self, q: Any) -> Any:
        image = self.new_id("im", q.image.SerializeToString(deterministic=True))
        is_built = image in self.images
        self.images[image] = q.image
        done = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
        return api_pb2.ImageGetOrCreateResponse(
            image_id=image, result=done if is_built else None, metadata=self._image_metadata()
        )

    async def ImageJoinStreaming(self, stream: Any) -> None:
        await stream.recv_message()
        done = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
        await stream.send_message(
            api_pb2.ImageJoinStreamingResponse(result=done, metadata=self._image_metadata())
        )

    def _image_metadata(self) -> Any:
        return api_pb2.ImageMetadata(
            image_builder_version=BUILDER_VERSION, python_version_info="Python 3.11.7"
        )

    # Functions and classes.

    @unary
    def FunctionPrecreate(self, q: Any) -> Any:
        function = q.existing_function_id or self.new_id("fu")
        known = api_pb2.Function(
            function_name=q.function_name,
            function_type=q.function_type,
            webhook_config=q.webhook_config,
            function_schema=q.function_schema,
            method_definitions=q.method_definitions,
            supported_input_formats=q.supported_input_formats,
            supported_output_formats=q.supported_output_formats,
        )
        self.metadata[function] = self._describe(q.app_id, function, known)
        return api_pb2.FunctionPrecreateResponse(
            function_id=function, handle_metadata=self.metadata[function]
        )

    @unary
    def FunctionCreate(self, q: Any) -> Any:
        ranked = [r.function for r in q.function_data.ranked_functions] or [q.function]
        for one in ranked:
            gpu = one.resources.gpu_config.gpu_type
            if gpu and gpu not in _GPUS:
                raise GRPCError(Status.INVALID_ARGUMENT, f"Invalid GPU type: {gpu}")
            if not 1 <= one.timeout_secs <= 86_400:
                raise GRPCError(Status.INVALID_ARGUMENT, f"timeout {one.timeout_secs}")
        function = q.existing_function_id or self.new_id("fu")
        proto = ranked[0]
        self.functions[function] = proto
        self.gpus[function] = [one.resources.gpu_config.gpu_type for one in ranked]
        self.metadata[function] = self._describe(q.app_id, function, proto)
        response = api_pb2.FunctionCreateResponse(
            function_id=function, function=proto, handle_metadata=self.metadata[function]
        )
        data = response.function_data
        if len(q.function_data.ranked_functions):
            data.CopyFrom(q.function_data)
        else:
            data.web_url = self.metadata[function].web_url
            data.webhook_config.CopyFrom(proto.webhook_config)
            data.method_definitions.MergeFrom(proto.method_definitions)
            data.ranked_functions.add(rank=0, function=proto)
        return response

    @unary
    def ClassCreate(self, q: Any) -> Any:
        return api_pb2.ClassCreateResponse(class_id=q.existing_class_id or self.new_id("cs"))

    @unary
    def FunctionBindParams(self, q: Any) -> Any:
        # No class here has params, so a bound function is the function itself.
        return api_pb2.FunctionBindParamsResponse(
            bound_function_id=q.function_id, handle_metadata=self.metadata[q.function_id]
        )

    def _describe(self, app: str, function: str, proto: Any) -> Any:
        described = api_pb2.FunctionHandleMetadata(
            function_name=proto.function_name,
            function_type=proto.function_type,
            app_id=app,
            web_url=self._web_url(app, proto),
            supported_input_formats=proto.supported_input_formats,
            supported_output_formats=proto.supported_output_formats,
            definition_id="de-" + function.removeprefix("fu-"),
        )
        described.function_schema.CopyFrom(proto.function_schema)
        for name, method in proto.method_definitions.items():
            entry = described.method_handle_metadata[name]
            entry.function_name, entry.function_type = method.function_name, method.function_type
            entry.app_id, entry.use_method_name = app, name
            entry.function_schema.CopyFrom(method.function_schema)
            entry.supported_input_formats.extend(method.supported_input_formats)
            entry.supported_output_formats.extend(method.supported_output_formats)
        return described

    def _web_url(self, app: str, proto: Any) -> str:
        if not proto.webhook_config.type:
            return ""
        one = self.apps[app]
        where = f"@{one.environment}" if one.environment else ""
        return f"{self.http}/{one.name}{where}/{proto.function_name}"

    # Look-ups of what is deployed.

    def _deployed(self, q: Any) -> App:
        app = self._ids.get(("deployed", q.environment_name, q.app_name))
        if app is None:
            raise GRPCError(Status.NOT_FOUND, f"App '{q.app_name}' not found")
        return self.apps[app]

    @unary
    def FunctionGet(self, q: Any) -> Any:
        function = self._deployed(q).functions.get(q.object_tag)
        if function is None:
            raise GRPCError(Status.NOT_FOUND, f"Function '{q.object_tag}' not found")
        response = api_pb2.FunctionGetResponse(
            function_id=function, handle_metadata=self.metadata[function]
        )
        response.function.ranked_functions.add(rank=0, function=self.functions[function])
        return response

    @unary
    def ClassGet(self, q: Any) -> Any:
        made = self._deployed(q).layout.class_ids.get(q.object_tag)
        if made is None:
            raise GRPCError(Status.NOT_FOUND, f"Class '{q.object_tag}' not found")
        return api_pb2.ClassGetResponse(class_id=made)

    async def AppGetLogs(self, stream: Any) -> None:
        """End the logs that `modal run` follows at once: what is printed here is in files."""
        await stream.recv_message()
        await stream.send_message(api_pb2.TaskLogsBatch(app_done=True, entry_id="1-0"))

    # Calls.

    @unary
    async def FunctionMap(self, q: Any) -> Any:
        if self.before_call is not None:
            await self.before_call()
        call = self.containers.new_call(q.function_id)
        response = api_pb2.FunctionMapResponse(function_call_id=call.id, function_call_jwt=call.id)
        for item in q.pipelined_inputs:
            kind = q.function_call_invocation_type
            made = await self.containers.put_input(call, item.input, item.idx, kind)
            response.pipelined_inputs.add(idx=item.idx, input_id=made, input_jwt=made)
        return response

    @unary
    async def FunctionGetOutputs(self, q: Any) -> Any:
        call = self.containers.call(q.function_call_id)
        await self.containers.wait_for_output(call, q.timeout)
        return api_pb2.FunctionGetOutputsResponse(
            outputs=call.outputs,
            idxs=[output.idx for output in call.outputs],
            last_entry_id="1-0",
            num_unfinished_inputs=call.unfinished,
        )

    @unary
    def FunctionCallFromId(self, q: Any) -> Any:
        call = self.containers.call(q.function_call_id)
        return api_pb2.FunctionCallFromIdResponse(function_call_id=call.id, num_inputs=1)

    @unary
    async def FunctionCallCancel(self, q: Any) -> Any:
        await self.containers.cancel(self.containers.call(q.function_call_id))
        return Empty()

    def new_blob(self) -> tuple[str, str]:
        """Return the id and the address of what is too large for a message."""
        blob = self.new_id("bl")
        return blob, f"{self.http}/_blob/{blob}"

    @unary
    def BlobCreate(self, _: Any) -> Any:
        blob, url = self.new_blob()
        return api_pb2.BlobCreateResponse(
            blob_id=blob,
            upload_url=url,
            blob_ids=[blob],
            upload_urls=api_pb2.UploadUrlList(items=[url]),
        )

    @unary
    def BlobGet(self, q: Any) -> Any:
        return api_pb2.BlobGetResponse(download_url=f"{self.http}/_blob/{q.blob_id}")

    # What containers ask for.

    async def FunctionGetInputs(self, stream: Any) -> None:
        await stream.recv_message()
        task = self.containers.task(_task_of(stream))
        await stream.send_message(await self.containers.next_input(task))

    @unary
    async def FunctionPutOutputs(self, q: Any) -> Any:
        for item in q.outputs:
            await self.containers.put_output(item)
        return Empty()

    async def FunctionCallGetDataIn(self, stream: Any) -> None:
        q = await stream.recv_message()
        await self.containers.call(q.function_call_id).data_in.send(stream, q.last_index)

    @unary
    async def FunctionCallPutDataOut(self, q: Any) -> Any:
        await self.containers.call(q.function_call_id).data_out.push(q.data_chunks)
        return Empty()

    @unary
    def FunctionGetDynamicConcurrency(self, q: Any) -> Any:
        return api_pb2.FunctionGetDynamicConcurrencyResponse(concurrency=q.max_concurrency)

    @unary
    def ContainerHello(self, _: Any) -> Any:
        return Empty()

    async def ContainerHeartbeat(self, stream: Any) -> None:
        await stream.recv_message()
        task = self.containers.task(_task_of(stream))
        response = api_pb2.ContainerHeartbeatResponse()
        if task.cancelled:
            response.cancel_input_event.input_ids.extend(task.cancelled)
            task.cancelled.clear()
        await stream.send_message(response)

    @unary
    async def ContainerStop(self, q: Any) -> Any:
        await self.containers.retire(self.containers.task(q.task_id))
        return api_pb2.ContainerStopResponse()

    async def ContainerCheckpoint(self, stream: Any) -> None:
        await stream.recv_message()
        task = self.containers.task(_task_of(stream))
        await stream.send_message(Empty())
        self.containers.restore(task)

    async def TaskResult(self, stream: Any) -> None:
        q = await stream.recv_message()
        task = self.containers.task(_task_of(stream))
        await self.containers.failed(task, q.result)
        await stream.send_message(Empty())


def _task_of(stream: Any) -> str:
    """Return the id of the container that asks."""
    metadata = stream.metadata
    return str(metadata.get(TASK_HEADER) or metadata[OLD_TASK_HEADER])


def new_plane(root: Path, secrets: Mapping[str, Mapping[str, str]]) -> Plane:
    """Return a plane; every RPC that it has no method for answers that it is not implemented."""
    cls: Any = Plane
    for name in cls.__abstractmethods__:
        setattr(cls, name, _missing(name))
    cls.__abstractmethods__ = frozenset()
    plane: Plane = cls(root, secrets)
    return plane
