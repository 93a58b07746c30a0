"""The values of templates/handlers/handler.py.j2: request models and graph builders as source."""

from collections.abc import Sequence
from typing import Any, Final

from .check import CheckedWorkflow
from .check.bounds import MAX_SEED
from .check.reach import sent_nodes
from .media_types import media_types
from .names import attribute_names, class_name, function_name, local_names, setup_name
from .pycode import Source, docstring, expression, identifier, literal, prose
from .request_schema import has_offset, multiple_of
from .slots import Slot
from .spec import INTEGER_TYPES, MEDIA_TYPES, NUMBER_TYPES, GraphNode, Param, Settings

# Where the names come from that rendered modules may use.
_IMPORTS: Final = {
    "Annotated": "typing",
    "Any": "typing",
    "Literal": "typing",
    "Mapping": "collections.abc",
    "deepcopy": "copy",
    "FastAPI": "fastapi",
    "Field": "pydantic",
    "Backend": "..gateway.backend",
    "add_endpoint": "..gateway.endpoints",
    "Endpoint": "..gateway.service",
    "with_positive_text": "..graph.prompt",
    "Graph": "..graph.records",
    "needed": "..graph.records",
    "without": "..graph.records",
    **dict.fromkeys(
        "MAX_SEED Audio Files Image ModelFile Options Request Step Stripped Video WholeGraph affix drawn given text".split(),
        "..params",
    ),
}
_STANDARD_LIBRARY: Final = frozenset(("collections.abc", "copy", "typing"))
_ANNOTATIONS: Final = {
    "string": "str",
    "integer": "int",
    "seed": "int",
    "number": "float",
    "boolean": "bool",
    "image": "Image",
    "video": "Video",
    "audio": "Audio",
    "graph": "WholeGraph",
}
_SUMMARY_LENGTH: Final = 200


def handler_values(
    module: str, workflows: Sequence[CheckedWorkflow], settings: Settings
) -> dict[str, Any]:
    """Return what the template prints for one module; every printed value is Source."""
    used = {"Any", "Backend", "Endpoint", "FastAPI", "Graph", "Mapping", "Request", "add_endpoint"}
    rendered = [_Workflow(checked, settings, used).values() for checked in workflows]
    routes = " and ".join(f"POST {checked.workflow.route}" for checked in workflows)
    return {
        "module": identifier(module),
        "setup": identifier(setup_name(module)),
        "setup_doc": docstring(f"Add {routes} to an app."),
        "workflows": rendered,
        "imports": _imports(used),
    }


def _imports(used: set[str]) -> Source:
    """Return import statements in the order that ruff wants: standard library, others, ours."""
    blocks: dict[int, dict[str, list[str]]] = {}
    for name in sorted(used, key=_isort_key):
        module = _IMPORTS[name]
        block = 0 if module in _STANDARD_LIBRARY else 2 if module.startswith(".") else 1
        blocks.setdefault(block, {}).setdefault(module, []).append(name)
    return Source(
        "\n\n".join(
            "\n".join(
                f"from {module} import {', '.join(block[module])}" for module in sorted(block)
            )
            for _, block in sorted(blocks.items())
        )
    )


def _isort_key(name: str) -> tuple[bool, bool, str]:
    """Constants come first, then classes, then functions."""
    return (not name.isupper(), not name[0].isupper(), name)


class _Workflow:
    """One endpoint's request model and builder; notes the names that they import."""

    def __init__(self, checked: CheckedWorkflow, settings: Settings, used: set[str]) -> None:
        self._checked = checked
        self._settings = settings
        self._workflow = checked.workflow
        self._used = used
        self._attributes = attribute_names(self._workflow.params)
        sent = sent_nodes(self._workflow)
        self._nodes = [node for node in self._workflow.graph.values() if node.id in sent]
        self._locals: dict[frozenset[str], tuple[str, Source]] = {}
        self._name_locals()

    def values(self) -> dict[str, Any]:
        workflow = self._workflow
        fields = [self._field(param) for param in workflow.params.values()]
        if workflow.graph_param:
            fields.append(self._files_field())
        if fields:
            self._used.add("Field")
        nodes = [self._node(node) for node in self._nodes]
        left_out = self._left_out()
        returned = self._returned(bool(left_out))
        reads_item = bool(
            workflow.graph_param
            or left_out
            or self._locals
            or (workflow.output and workflow.output.param)
            or any(value.slots for node in self._nodes for value in node.inputs.values())
        )
        return {
            "route": Source(workflow.route),
            "files": Source(self._files()),
            "request": identifier(class_name(workflow.name)),
            "request_doc": docstring(f"What POST {workflow.route} takes."),
            "builder": identifier(function_name(workflow.name)),
            "builder_doc": docstring(
                f"Return the graph that POST {workflow.route} runs.", self._summary()
            ),
            "one_of": literal(workflow.one_of) if workflow.one_of else None,
            "fields": fields,
            "uses_item": reads_item,
            "locals": [
                {"name": identifier(name), "value": value} for name, value in self._locals.values()
            ],
            "nodes": nodes,
            "left_out": left_out,
            "adjusted": returned is not None,
            "returned": returned,
            "endpoint": self._endpoint(),
            **self._graph_param(),
        }

    def _endpoint(self) -> Source:
        """Return the record that tells the gateway of the endpoint."""
        workflow, settings = self._workflow, self._settings
        seeds = [name for name, param in workflow.params.items() if param.type == "seed"]
        seed = "seed" if "seed" in seeds else next(iter(seeds), None)
        arguments: dict[str, Source] = {
            "name": literal(workflow.name),
            "route": literal(workflow.route),
            "request": identifier(class_name(workflow.name)),
            "build": identifier(function_name(workflow.name)),
            "media_types": literal(media_types(workflow, self._checked.classes)),
            "profile": literal(workflow.gpu or settings.default_gpu),
            "timeout": literal(workflow.timeout or settings.scaling.timeout),
            "file": literal(workflow.file),
        }
        for key, text in {"summary": workflow.summary, "description": workflow.description}.items():
            if text:
                arguments[key] = prose(text)
        if workflow.group:
            arguments["group"] = literal(workflow.group)
        if seed:
            arguments["seed"] = literal(self._attributes[seed])
        if workflow.graph_param:
            arguments["graph"] = literal(self._attributes[workflow.graph_param])
        if not workflow.enabled:
            arguments["enabled"] = literal(False)
        keywords = ", ".join(f"{key}={value}" for key, value in arguments.items())
        return Source(f"Endpoint({keywords})")

    def _files(self) -> str:
        base = f", which extends {self._workflow.extends}.yaml" if self._workflow.extends else ""
        return self._workflow.file + base

    def _summary(self) -> str:
        summary = " ".join(self._workflow.summary.split())
        if len(summary) > _SUMMARY_LENGTH:
            summary = summary[: _SUMMARY_LENGTH - 1] + "…"
        return f"{summary.rstrip('.')}." if summary else ""

    def _graph_param(self) -> dict[str, Any]:
        name = self._workflow.graph_param
        if name is None:
            return {"graph_param": None}
        self._used.add("deepcopy")
        prompt = self._attributes.get("prompt")
        if prompt:
            self._used.add("with_positive_text")
        return {
            "graph_param": identifier(self._attributes[name]),
            "prompt": identifier(prompt) if prompt else None,
        }

    def _field(self, param: Param) -> dict[str, Source]:
        attribute = self._attributes[param.name]
        annotation = self._annotation(param)
        if param.may_be_absent:
            annotation = f"{annotation} | None"
        arguments: dict[str, Source] = {}
        if attribute != param.name:
            arguments["alias"] = literal(param.name)
        arguments |= self._bounds(param)
        if param.description:
            arguments["description"] = prose(param.description)
        if param.examples:
            arguments["examples"] = literal(list(param.examples))
        keywords = [f"{key}={value}" for key, value in arguments.items()]
        default = self._default(param)
        value = ", ".join([default, *keywords] if default else keywords)
        return {
            "name": identifier(attribute),
            "annotation": Source(annotation),
            "value": Source(f"Field({value})"),
        }

    def _files_field(self) -> dict[str, Source]:
        """Return the field for the files that come with a graph."""
        self._used.add("Files")
        description = "Pictures, videos and sounds that the graph loads, by the names in it."
        return {
            "name": identifier("files"),
            "annotation": Source("Files"),
            "value": Source(f"Field(default_factory=dict, description={prose(description)})"),
        }

    def _annotation(self, param: Param) -> str:
        if param.type == "model":
            self._used |= {"Annotated", "ModelFile"}
            return f"Annotated[str, ModelFile({literal(param.folder)})]"
        annotation = _ANNOTATIONS[param.type]
        if param.enum and param.type == "string":
            self._used.add("Literal")
            return f"Literal[{', '.join(map(literal, param.enum))}]"
        if param.type in MEDIA_TYPES or param.type == "graph":
            self._used.add(annotation)
        if param.strip:
            self._used.add("Stripped")
            annotation = "Stripped"
        marks: list[str] = []
        if param.enum:
            self._used.add("Options")
            marks.append(f"Options({literal(param.enum)})")
        if has_offset(param):
            self._used.add("Step")
            marks.append(f"Step({param.step}, start={_number(param.minimum, param)})")
        if not marks:
            return annotation
        self._used.add("Annotated")
        return f"Annotated[{annotation}, {', '.join(marks)}]"

    def _bounds(self, param: Param) -> dict[str, Source]:
        if param.enum:
            return {}
        bounds = {
            "ge": _number(param.minimum, param),
            "le": self._maximum(param),
            "multiple_of": _optional(multiple_of(param)),
            "min_length": _optional(param.min_length),
            "max_length": _optional(param.max_length),
            "pattern": _optional(param.pattern),
        }
        return {key: value for key, value in bounds.items() if value is not None}

    def _default(self, param: Param) -> str:
        if param.may_be_absent:
            return "None"
        if param.default is not None:
            default = str(param.default).strip() if param.strip else param.default
            return _number(default, param) or literal(default)
        if param.type == "seed":
            self._used.add("drawn")
            low, high = _number(param.minimum, param), self._maximum(param)
            return f"default_factory=drawn({low}, {high})"
        return ""

    def _maximum(self, param: Param) -> Source | None:
        if param.type == "seed" and param.maximum == MAX_SEED:
            self._used.add("MAX_SEED")
            return Source("MAX_SEED")
        return _number(param.maximum, param)

    def _node(self, node: GraphNode) -> dict[str, Source]:
        inputs = (
            f"{literal(name)}: {expression(value.value, self._typed, self._as_text)}"
            for name, value in node.inputs.items()
        )
        meta = f', "_meta": {{"title": {literal(node.title)}}}' if node.title else ""
        return {
            "id": literal(node.id),
            "class_type": literal(node.class_type),
            "inputs": Source("{" + ", ".join(inputs) + "}"),
            "meta": Source(meta),
        }

    def _left_out(self) -> list[dict[str, Source]]:
        sent = {node.id for node in self._nodes}
        changes: list[dict[str, Source]] = []
        for name, gone in self._checked.left_out.items():
            nodes = [literal(node) for node in gone.nodes if node in sent]
            inputs = [literal(entry) for entry in gone.inputs if entry[0] in sent]
            if nodes or inputs:
                self._used.add("without")
                what = Source(", ".join(nodes + inputs))
                changes.append({"name": identifier(self._attributes[name]), "what": what})
        return changes

    def _returned(self, is_changed: bool) -> Source | None:
        output = self._workflow.output
        if output and output.param:
            self._used.add("needed")
            chosen = f"{literal(output.nodes)}[item.{self._attributes[output.param]}]"
            return Source(f"needed(graph, {chosen})")
        if not is_changed:
            return None
        if output:
            self._used.add("needed")
            return Source(f"needed(graph, {literal(output.nodes[''])})")
        return Source("graph")

    def _name_locals(self) -> None:
        """Name a variable for each affixed param and for each choice between params."""
        slots = [
            slot
            for node in self._nodes
            for value in node.inputs.values()
            for slot, _ in value.slots
        ]
        wanted = {
            frozenset(slot.names): slot
            for slot in slots
            if len(slot.names) > 1 or self._is_affixed(self._workflow.params[slot.names[0]])
        }
        reserved = (*_IMPORTS, "item", "graph", class_name(self._workflow.name))
        names = local_names((slot.names[0] for slot in wanted.values()), reserved)
        for name, (key, slot) in zip(names, wanted.items(), strict=True):
            values = [self._affixed(self._workflow.params[param]) for param in slot.names]
            value = values[0]
            if len(values) > 1:
                self._used.add("given")
                value = f"given({', '.join(values)})"
            self._locals[key] = (name, Source(value))

    @staticmethod
    def _is_affixed(param: Param) -> bool:
        return bool(param.prefix or param.suffix)

    def _affixed(self, param: Param) -> str:
        value = f"item.{self._attributes[param.name]}"
        if not self._is_affixed(param):
            return value
        self._used.add("affix")
        affixes = {"prefix": param.prefix, "suffix": param.suffix}
        given = (f"{key}={literal(text)}" for key, text in affixes.items() if text)
        return f"affix({value}, {', '.join(given)})"

    def _typed(self, slot: Slot) -> str:
        if frozenset(slot.names) in self._locals:
            return self._locals[frozenset(slot.names)][0]
        return f"item.{self._attributes[slot.names[0]]}"

    def _as_text(self, slot: Slot) -> str:
        params = [self._workflow.params[name] for name in slot.names]
        value = self._typed(slot)
        absent = len(params) == 1 and params[0].may_be_absent
        if absent or any(param.type == "boolean" for param in params):
            self._used.add("text")
            return f"text({value})"
        return value


def _number(value: Any, param: Param) -> Source | None:
    """Return a number as its param's type writes it: 6 is 6.0 for a number."""
    if value is None or param.type not in NUMBER_TYPES:
        return None
    return literal(int(value) if param.type in INTEGER_TYPES else float(value))


def _optional(value: Any) -> Source | None:
    return None if value is None else literal(value)
