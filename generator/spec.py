"""What the YAML files say, as typed records.

The records are made from trees that passed their JSON Schema; what no schema can say (slots,
links, names) is read here. Every record keeps the node that it was read from, for diagnostics.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from .diagnostics import Diagnostic
from .graph.records import Link
from .load import Node
from .names import module_name
from .slots import Slot, Template, has_slot, parse

TEXT_TYPES: Final = frozenset(("string", "model"))
INTEGER_TYPES: Final = frozenset(("integer", "seed"))
NUMBER_TYPES: Final = INTEGER_TYPES | {"number"}
MEDIA_TYPES: Final = frozenset(("image", "video", "audio"))

# The Volume of the models that are downloaded, and where it is mounted unless gpu.yaml says; all
# other Volumes hold uploaded ones.
CACHE_VOLUME: Final = "hf-hub-cache"
CACHE: Final = "/cache"

_SIZE_UNITS: Final = {"kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Param:
    """One value that a caller sends; the fields are those of a JSON Schema property and ours.

    `required`: the caller must send it. `group`: the one_of group that it is in, empty for none.
    """

    name: str
    type: str
    at: Node = field(repr=False, compare=False)
    default: str | float | bool | None = None
    minimum: float | None = None
    maximum: float | None = None
    multiple_of: int | None = None
    step: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    enum: tuple[str | float, ...] = ()
    description: str = ""
    examples: tuple[Any, ...] = ()
    optional: bool = False
    prefix: str = ""
    suffix: str = ""
    strip: bool = False
    folder: str | None = None
    group: tuple[str, ...] = ()

    @property
    def may_be_absent(self) -> bool:
        """Whether a run may have no value for it: optional, or one of several."""
        return self.optional or bool(self.group)

    @property
    def required(self) -> bool:
        """Whether the caller must send it."""
        return self.default is None and self.type != "seed" and not self.may_be_absent


@dataclass(frozen=True)
class InputValue:
    """The value of a node's input: a literal, a Link or a Template; nested text may be one too."""

    value: Any
    at: Node = field(repr=False, compare=False)

    @cached_property
    def slots(self) -> tuple[tuple[Slot, bool], ...]:
        """The slots in the value, each with whether it is the whole value."""
        if not isinstance(self.value, Template | dict | list):
            return ()
        whole = self.value.whole if isinstance(self.value, Template) else None
        return tuple(
            (slot, slot is whole) for text in _templates(self.value) for slot in text.slots
        )

    @property
    def nested_slots(self) -> tuple[Slot, ...]:
        """The slots that are a whole item of a list or mapping, where nothing can be left out."""
        if not isinstance(self.value, dict | list):
            return ()
        return tuple(text.whole for text in _templates(self.value) if text.whole)


@dataclass(frozen=True)
class GraphNode:
    """One node of a workflow's graph."""

    id: str
    class_type: str
    inputs: dict[str, InputValue]
    at: Node = field(repr=False, compare=False)
    title: str = ""

    @property
    def class_at(self) -> Node:
        """Where the class is written."""
        return self.at.mapping["class_type"]


@dataclass(frozen=True)
class Output:
    """Which node's file is the reply: `nodes[""]`, or by the value of a param."""

    nodes: dict[str, str]
    at: Node = field(repr=False, compare=False)
    param: str | None = None


@dataclass(frozen=True)
class Workflow:
    """One endpoint.

    `graph_param` is the param that holds the whole graph, for /workflow; `graph` is then empty.
    `timeout` is in seconds.
    """

    name: str
    at: Node = field(repr=False, compare=False)
    route: str
    handler: str
    summary: str
    description: str
    enabled: bool
    params: dict[str, Param]
    one_of: tuple[tuple[str, ...], ...]
    graph: dict[str, GraphNode]
    graph_param: str | None
    output: Output | None
    models: tuple[str, ...]
    packs: tuple[str, ...]
    gpu: str | None
    group: str | None
    timeout: int | None
    extends: str | None = None

    @property
    def file(self) -> str:
        """The file that describes the endpoint."""
        return f"workflows/{self.name}.yaml"


@dataclass(frozen=True)
class Model:
    """One model file; `destination` is its path below ComfyUI's models folder.

    `source` holds one of hf, url and volume, as written; `size` is in bytes, None when unknown.
    """

    name: str
    source: dict[str, str]
    folder: str
    filename: str
    at: Node = field(repr=False, compare=False)
    family: str | None = None
    gated: bool = False
    size: int | None = None
    license: str | None = None

    @property
    def destination(self) -> str:
        """Path of the file below ComfyUI's models folder."""
        return f"{self.folder}/{self.filename}"


@dataclass(frozen=True)
class Pack:
    """One custom-node pack."""

    name: str
    git: str
    commit: str
    at: Node = field(repr=False, compare=False)
    pip: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    needs_gpu_to_import: bool = False


@dataclass(frozen=True)
class Models:
    """What models.yaml declares."""

    models: dict[str, Model]
    packs: dict[str, Pack]


@dataclass(frozen=True)
class Gpu:
    """One GPU profile: `price_per_second` in USD, `memory_gb` in GiB, `cpu` in cores."""

    name: str
    modal: str
    vram_gb: int
    price_per_second: float
    at: Node = field(repr=False, compare=False)
    cpu: float | None = None
    memory_gb: int | None = None
    fallback: tuple[str, ...] = ()


@dataclass(frozen=True)
class ComfyUI:
    """The engine: where it is installed, and how it is started."""

    version: str
    commit: str
    directory: str
    port: int
    flags: list[str]
    metadata: bool


@dataclass(frozen=True)
class Scaling:
    """How many workers run, and for how long; times in seconds."""

    min_containers: int
    max_containers: int
    buffer_containers: int
    scaledown: int
    timeout: int
    startup_timeout: int
    max_inputs: int
    target_inputs: int
    snapshot: bool
    region: list[str]


@dataclass(frozen=True)
class Gateway:
    """The web server in front of the workers; `deadline` in seconds."""

    max_containers: int
    deadline: int
    cors_origins: list[str]
    operators: list[str]


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many; `body_mb` in MB (powers of 1000).

    `jobs` run or wait at a time, `jobs_per_key` of one key; of the last three, 0 is no limit.
    """

    body_mb: int
    media_pixels: int
    text_characters: int
    output_pixels: int
    jobs: int
    jobs_per_key: int
    requests_per_minute: int
    listeners_per_key: int

    def of_gateway(self) -> dict[str, int]:
        """Return them by the names that the gateway and the manifest have for them."""
        return {
            "max_body_bytes": self.body_mb * 10**6,
            "max_media_pixels": self.media_pixels,
            "max_text_characters": self.text_characters,
            "max_output_pixels": self.output_pixels,
            "max_jobs": self.jobs,
            "max_jobs_per_key": self.jobs_per_key,
            "max_requests_per_minute": self.requests_per_minute,
            "max_listeners_per_key": self.listeners_per_key,
        }


@dataclass(frozen=True)
class Settings:
    """What gpu.yaml says, defaults filled in; prices in USD, of a core and of a GiB of memory."""

    at: Node = field(repr=False, compare=False)
    app: str
    python: str
    comfyui: ComfyUI
    requirements: tuple[str, ...]
    apt: tuple[str, ...]
    volumes: dict[str, str]
    secrets: dict[str, tuple[str, ...]]
    gpus: dict[str, Gpu]
    default_gpu: str
    price_multiplier: float
    priced: str
    cpu_price_per_second: float | None
    memory_price_per_second: float | None
    scaling: Scaling
    gateway: Gateway
    auth: str
    log_prompts: bool
    limits: Limits


def read_workflow(name: str, root: Node, extends: str | None) -> tuple[Workflow, list[Diagnostic]]:
    """Return a workflow from its merged tree, and the faults in its slots and links."""
    faults: list[Diagnostic] = []
    entries = root.mapping
    graph_node = entries["graph"]
    graph: dict[str, GraphNode] = {}
    graph_param = None
    if isinstance(graph_node.value, str):
        graph_param = graph_node.value[2:-1]
    else:
        for node_id, node in graph_node.mapping.items():
            graph[node_id] = _graph_node(node_id, node, faults)
    one_of = tuple(tuple(_texts(group)) for group in _items(entries, "one_of"))
    params = {key: _param(key, node, one_of) for key, node in _entries(entries, "params").items()}
    return Workflow(
        name=name,
        at=root,
        route=_text(entries, "route") or f"/{name}",
        handler=_text(entries, "handler") or module_name(name),
        summary=_text(entries, "summary") or "",
        description=_text(entries, "description") or "",
        enabled=_value(entries, "enabled") is not False,
        params=params,
        one_of=one_of,
        graph=graph,
        graph_param=graph_param,
        output=_output(entries.get("output")),
        models=tuple(_texts(entries.get("models"))),
        packs=tuple(_texts(entries.get("packs"))),
        gpu=_text(entries, "gpu"),
        group=_text(entries, "group"),
        timeout=_value(entries, "timeout"),
        extends=extends,
    ), faults


def read_models(root: Node) -> Models:
    """Return what models.yaml declares."""
    return Models(
        {name: _model(name, node) for name, node in _entries(root.mapping, "models").items()},
        {name: _pack(name, node) for name, node in _entries(root.mapping, "packs").items()},
    )


def read_settings(root: Node, schema: dict[str, Any]) -> Settings:
    """Return what gpu.yaml says; defaults come from its JSON Schema."""
    plain = _with_defaults(root.plain, schema)
    gpus = {
        name: _gpu(name, node)
        for name, node in root.mapping["gpus"].mapping.items()
        if name != "default"
    }
    return Settings(
        at=root,
        app=plain["app"],
        python=plain["python"],
        comfyui=ComfyUI(**plain["comfyui"]),
        requirements=tuple(plain["requirements"]),
        apt=tuple(plain["apt"]),
        volumes=plain["volumes"],
        secrets={name: tuple(keys) for name, keys in plain["secrets"].items()},
        gpus=gpus,
        default_gpu=plain["gpus"]["default"],
        price_multiplier=float(plain["price_multiplier"]),
        priced=plain.get("priced", ""),
        cpu_price_per_second=plain.get("cpu_price_per_second"),
        memory_price_per_second=plain.get("memory_price_per_second"),
        scaling=Scaling(**plain["scaling"]),
        gateway=Gateway(**plain["gateway"]),
        auth=plain["auth"],
        log_prompts=plain["log_prompts"],
        limits=Limits(**plain["limits"]),
    )


def bytes_of(size: str | int) -> int:
    """Return a size in bytes: `17.2 GB` is 17,200,000,000."""
    if isinstance(size, int):
        return size
    number, unit = size.split(" ")
    return round(float(number) * _SIZE_UNITS[unit])


def _param(name: str, at: Node, one_of: Iterable[tuple[str, ...]]) -> Param:
    plain = at.plain
    group = next((group for group in one_of if name in group), ())
    return Param(
        name=name,
        type=plain["type"],
        at=at,
        default=plain.get("default"),
        minimum=plain.get("minimum"),
        maximum=plain.get("maximum"),
        multiple_of=plain.get("multipleOf"),
        step=plain.get("step"),
        min_length=plain.get("minLength"),
        max_length=plain.get("maxLength"),
        pattern=plain.get("pattern"),
        enum=tuple(plain.get("enum", ())),
        description=plain.get("description", ""),
        examples=tuple(plain.get("examples", ())),
        optional=plain.get("optional", False),
        prefix=plain.get("prefix", ""),
        suffix=plain.get("suffix", ""),
        strip=plain.get("strip", False),
        folder=plain.get("folder"),
        group=group,
    )


def _graph_node(node_id: str, at: Node, faults: list[Diagnostic]) -> GraphNode:
    for key, node in (("class_type", at.mapping["class_type"]), (node_id, at)):
        text = node.text if key == "class_type" else key
        if has_slot(text):
            message = "a slot stands in an input's value and nowhere else"
            faults.append(node.error("misplaced-slot", message, node=node_id, at_key=node is at))
    inputs = _entries(at.mapping, "inputs")
    for name, value in inputs.items():
        if has_slot(name):
            message = "a slot stands in an input's value and nowhere else"
            faults.append(value.error("misplaced-slot", message, node=node_id, at_key=True))
    meta = at.mapping.get("_meta")
    title = _value(meta.mapping, "title") if meta else None
    return GraphNode(
        node_id,
        at.mapping["class_type"].text,
        {
            name: InputValue(_input_value(value, node_id, name, faults), value)
            for name, value in inputs.items()
        },
        at,
        title=title or "",
    )


def _input_value(at: Node, node_id: str, name: str, faults: list[Diagnostic]) -> Any:
    match at.value:
        case [
            Node(value=str() | int() | float()) as source,
            Node(value=int() | float() as index),
        ] if not (isinstance(index, bool) or isinstance(source.value, bool) or index % 1):
            if has_slot(source.text):
                message = "a link names its node; it takes no slot"
                faults.append(source.error("misplaced-slot", message, node=node_id, input=name))
                return None
            return Link(source.text, int(index))
    return _nested_value(at, node_id, name, faults)


def _nested_value(at: Node, node_id: str, name: str, faults: list[Diagnostic]) -> Any:
    if isinstance(at.value, dict):
        for key, value in at.value.items():
            if has_slot(key):
                message = "a slot stands in an input's value, not in a key of it"
                faults.append(
                    value.error("misplaced-slot", message, node=node_id, input=name, at_key=True)
                )
        return {k: _nested_value(v, node_id, name, faults) for k, v in at.value.items()}
    if isinstance(at.value, list):
        return [_nested_value(item, node_id, name, faults) for item in at.value]
    if not isinstance(at.value, str):
        return at.value
    try:
        return parse(at.value)
    except ValueError as error:
        hint = "a slot is ${param} or ${a|b}; for the text itself, write $${"
        faults.append(at.error("bad-slot", str(error), node=node_id, input=name, hint=hint))
        return at.value


def _templates(value: Any) -> Iterator[Template]:
    if isinstance(value, Template):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _templates(item)
    elif isinstance(value, list):
        for item in value:
            yield from _templates(item)


def _output(at: Node | None) -> Output | None:
    if at is None:
        return None
    if not at.mapping:
        return Output({"": at.text}, at)
    nodes = {value: node.text for value, node in at.mapping["nodes"].mapping.items()}
    return Output(nodes, at, param=at.mapping["param"].text)


def _model(name: str, at: Node) -> Model:
    plain = at.plain
    source = plain["source"]
    path = source.get("file") or source.get("url") or name
    return Model(
        name=name,
        source=source,
        folder=plain["folder"],
        filename=plain.get("filename") or path.rpartition("/")[2],
        at=at,
        family=plain.get("family"),
        gated=plain.get("gated", False),
        size=bytes_of(plain["size"]) if "size" in plain else None,
        license=plain.get("license"),
    )


def _pack(name: str, at: Node) -> Pack:
    plain = at.plain
    return Pack(
        name=name,
        git=plain["git"],
        commit=plain["commit"],
        at=at,
        pip=tuple(plain.get("pip", ())),
        apt=tuple(plain.get("apt", ())),
        models=tuple(plain.get("models", ())),
        needs_gpu_to_import=plain.get("needs_gpu_to_import", False),
    )


def _gpu(name: str, at: Node) -> Gpu:
    plain = at.plain
    return Gpu(
        name=name,
        modal=plain["modal"],
        vram_gb=plain["vram_gb"],
        price_per_second=float(plain["price_per_second"]),
        at=at,
        cpu=plain.get("cpu"),
        memory_gb=plain.get("memory_gb"),
        fallback=tuple(plain.get("fallback", ())),
    )


def _with_defaults(value: Any, schema: dict[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for key, sub in schema.get("properties", {}).items():
        if key in filled or "default" in sub:
            filled[key] = _with_defaults(filled.get(key, sub.get("default")), sub)
    return filled


def _entries(entries: dict[str, Node], key: str) -> dict[str, Node]:
    return entries[key].mapping if key in entries else {}


def _items(entries: dict[str, Node], key: str) -> list[Node]:
    return entries[key].items if key in entries else []


def _texts(at: Node | None) -> list[str]:
    return [item.text for item in at.items] if at else []


def _text(entries: dict[str, Node], key: str) -> str | None:
    return entries[key].text if key in entries else None


def _value(entries: dict[str, Node], key: str) -> Any:
    return entries[key].value if key in entries else None
