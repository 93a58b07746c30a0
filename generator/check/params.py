"""Params and slots: what is unknown, unused, misapplied, and what a param is worth."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

from ..diagnostics import Diagnostic
from ..graph.catalog import ClassType
from ..graph.words import did_you_mean, nearest, show
from ..slots import Slot, Template
from ..spec import MEDIA_TYPES, NUMBER_TYPES, TEXT_TYPES, InputValue, Param, Workflow
from .bounds import Feed, Place, resolve

_APPLIES_TO: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(("minimum", "maximum"), NUMBER_TYPES),
    **dict.fromkeys(("multipleOf", "step"), frozenset(("integer",))),
    **dict.fromkeys(("minLength", "maxLength", "pattern"), TEXT_TYPES),
    **dict.fromkeys(("prefix", "suffix", "strip"), frozenset(("string",))),
    "enum": frozenset(("string", "integer", "number")),
    "folder": frozenset(("model",)),
    "default": frozenset(("integer", "number", "boolean")) | TEXT_TYPES,
    "examples": NUMBER_TYPES | TEXT_TYPES | MEDIA_TYPES | {"boolean"},
}
_INSTEAD: Final = {
    ("seed", "default"): "a seed that is absent is drawn; for a constant, use type: integer",
}


def with_text_limit(workflow: Workflow, characters: int) -> Workflow:
    """Return a workflow whose texts have a longest length, those of options excepted."""
    params = {
        name: replace(param, max_length=characters)
        if param.type == "string" and param.max_length is None and not param.enum
        else param
        for name, param in workflow.params.items()
    }
    return replace(workflow, params=params)


def check_params(
    workflow: Workflow, classes: Mapping[str, ClassType], sent: Collection[str]
) -> tuple[dict[str, Param], list[Diagnostic]]:
    """Return the params with their bounds filled in, and what is wrong with them.

    Only nodes that are `sent` count: a param that feeds none of them is unused.
    """
    faults: list[Diagnostic] = []
    feeds = _feeds(workflow, classes, sent, faults)
    faults += _check_groups(workflow)
    resolved: dict[str, Param] = {}
    slots = _slots(workflow)
    misspelt = {nearest(name, workflow.params) for name in slots if name not in workflow.params}
    output = workflow.output
    for name, param in workflow.params.items():
        if output and output.param == name and param.type == "string" and not param.enum:
            param = replace(param, enum=tuple(output.nodes))
        wrong = _misapplied(param)
        if not wrong:
            param, wrong = resolve(param, feeds[name])
        if not feeds[name] and name not in misspelt and not _used_otherwise(workflow, name):
            wrong.append(_unused(param, slots.get(name)))
        faults += wrong
        resolved[name] = param
    return resolved, faults + _check_graph_param(workflow)


def _slots(workflow: Workflow) -> dict[str, str]:
    """Return the names in slots, each with a node where it stands."""
    return {
        name: node.id
        for node in workflow.graph.values()
        for value in node.inputs.values()
        for slot, _ in value.slots
        for name in slot.names
    }


def _unused(param: Param, node: str | None) -> Diagnostic:
    if node is None:
        message = f"nothing uses param {show(param.name)}"
        hint = "write ${" + param.name + "} in an input, or remove the param"
    else:
        message = f"${{{param.name}}} stands in node {show(node)}, which no output needs"
        hint = "link that node to the output, or remove the param"
    return param.at.error("unused-param", message, hint=hint, at_key=True)


def _feeds(
    workflow: Workflow,
    classes: Mapping[str, ClassType],
    sent: Collection[str],
    faults: list[Diagnostic],
) -> dict[str, list[Feed]]:
    feeds: dict[str, list[Feed]] = {name: [] for name in workflow.params}
    for node in workflow.graph.values():
        schemas = classes[node.id].inputs if node.id in classes else {}
        for name, value in node.inputs.items():
            for slot, whole in value.slots:
                faults += _check_slot(workflow, slot, value, node.id, name)
                for param in slot.names:
                    if param in feeds and node.id in sent:
                        schema = schemas.get(name)
                        place = _place(whole, value)
                        feeds[param].append(Feed(node, name, value.at, place, schema))
    return feeds


def _place(whole: bool, value: InputValue) -> Place:
    if whole:
        return "whole"
    match value.value:
        case {"__value__": Template() as wrapped, **rest} if not rest:  # as ComfyUI wraps lists
            return "whole" if wrapped.whole else "text"
        case Template():
            return "text"
    return "nested"


def _check_slot(
    workflow: Workflow, slot: Slot, value: InputValue, node: str, input: str
) -> Iterator[Diagnostic]:
    at = value.at
    for name in slot.names:
        if name not in workflow.params:
            message = f"no param {show(name)}"
            hint = did_you_mean(name, workflow.params) or f"add {name}: under params"
            yield at.error("unknown-param", message, node=node, input=input, hint=hint)
            return
        param = workflow.params[name]
        if param.type == "graph":
            message = f"{slot} is a graph: it stands for the whole graph, not for a value"
            yield at.error("misplaced-slot", message, node=node, input=input)
        elif param.may_be_absent and slot.names == (name,) and slot in value.nested_slots:
            message = f"param {show(name)} may be absent, so it is no item of a list or mapping"
            yield at.error("optional-inside", message, node=node, input=input)
    if len(slot.names) > 1 and set(slot.names) not in [set(group) for group in workflow.one_of]:
        message = f"{slot} stands for one of several params, which one_of must list"
        hint = f"add one_of: [[{', '.join(slot.names)}]]"
        yield at.error("not-one-of", message, node=node, input=input, hint=hint)


def _check_groups(workflow: Workflow) -> list[Diagnostic]:
    faults: list[Diagnostic] = []
    seen: set[str] = set()
    groups = workflow.at.mapping["one_of"].items if workflow.one_of else []
    for item in (item for group in groups for item in group.items):
        name = item.text
        param = workflow.params.get(name)
        if param is None:
            hint = did_you_mean(name, workflow.params)
            faults.append(item.error("unknown-param", f"no param {show(name)}", hint=hint))
        elif name in seen:
            faults.append(item.error("bad-param", f"param {show(name)} is in two groups"))
        elif param.optional or param.default is not None or param.type in ("seed", "graph"):
            message = f"param {show(name)} is in one_of, so it takes no default and no optional"
            hint = "remove them: exactly one of the params is given"
            if param.type in ("seed", "graph"):
                message = f"param {show(name)} is a {param.type}, which is not one of several"
                hint = "take it out of one_of"
            faults.append(param.at.error("bad-param", message, hint=hint, at_key=True))
        seen.add(name)
    return faults


def _used_otherwise(workflow: Workflow, name: str) -> bool:
    if workflow.output and workflow.output.param == name:
        return True
    return workflow.graph_param is not None and name in (workflow.graph_param, "prompt")


def _check_graph_param(workflow: Workflow) -> list[Diagnostic]:
    at = workflow.at.mapping["graph"]
    name = workflow.graph_param
    faults: list[Diagnostic] = []
    for param in workflow.params.values():
        if param.type == "graph" and param.name != name:
            message = "a param of type graph is the whole graph"
            faults.append(param.at.error("bad-param", message, at_key=True))
    if name is None:
        return faults
    if name not in workflow.params:
        hint = did_you_mean(name, workflow.params)
        faults.append(at.error("unknown-param", f"no param {show(name)}", hint=hint))
    elif workflow.params[name].type != "graph" or not workflow.params[name].required:
        message = f"param {show(name)} must be of type graph, and required"
        faults.append(at.error("bad-param", message))
    prompt = workflow.params.get("prompt")
    if prompt and not (prompt.type == "string" and prompt.optional):
        message = "beside a graph, prompt replaces its positive text: an optional string"
        faults.append(prompt.at.error("bad-param", message, at_key=True))
    if files := workflow.params.get("files"):
        message = "beside a graph, files is the API's own: the pictures that the graph loads"
        faults.append(files.at.error("bad-param", message, at_key=True, hint="take another name"))
    return faults


def _misapplied(param: Param) -> list[Diagnostic]:
    """Return keys that mean nothing for the param's type, or beside another key."""
    faults = [
        param.at.mapping[key].error(
            "bad-param",
            f"{key} means nothing for type {param.type}",
            hint=_INSTEAD.get((param.type, key)),
            at_key=True,
        )
        for key, types in _APPLIES_TO.items()
        if key in param.at.mapping and param.type not in types
    ]
    if param.optional and param.default is not None:
        message = "an optional param has no default: what is absent is left out"
        faults.append(param.at.mapping["default"].error("bad-param", message, at_key=True))
    if param.optional and param.type in ("seed", "graph"):
        message = f"a {param.type} cannot be optional"
        faults.append(param.at.mapping["optional"].error("bad-param", message, at_key=True))
    if param.pattern is not None and (problem := _pattern_problem(param.pattern)):
        message = f"this pattern does not compile: {problem}"
        hint = "patterns are of Rust's regex crate: no look-around, no back-references"
        faults.append(param.at.mapping["pattern"].error("bad-param", message, hint=hint))
    return faults


def _pattern_problem(pattern: str) -> str | None:
    """Ask the engine that the request models run with."""
    try:
        SchemaValidator(core_schema.str_schema(pattern=pattern))
    except SchemaError as error:
        return " ".join(str(error).split())
    return None
