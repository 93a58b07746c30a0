"""The verdict of ComfyUI's POST /prompt on a graph.

What is compared with the real engine are status, error types, messages and extra_info. Only what
outputs depend on is looked at, and an exception of the check itself is an error like any other:
the words of Python's own exceptions are part of ComfyUI's answers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ..graph.catalog import ClassType, Input
from ..graph.records import Graph
from .folders import Folders
from .schemas import FILE_INPUTS, Schemas, input_config

Error = dict[str, Any]

_CONVERTERS: Final[dict[str, Callable[[Any], Any]]] = {
    "INT": int,
    "FLOAT": float,
    "STRING": str,
    "BOOLEAN": bool,
}
# What malformed links and values raise in a check; ComfyUI reports them as errors of a node.
_RAISED: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
# Longer lists of options are not sent back.
_LONG_LIST: Final = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """What POST /prompt says: `outputs` are to be run, none of them when `error` is set."""

    error: Error | None
    outputs: tuple[str, ...] = ()
    node_errors: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Checked:
    valid: bool
    errors: list[Error]


def validate(graph: Graph, schemas: Schemas, folders: Folders, targets: object = None) -> Verdict:
    """Return the verdict on a graph, and convert its values as ComfyUI does: "64" becomes 64.

    `targets` restricts the outputs to those that it contains.
    """
    outputs = []
    for node, content in graph.items():
        named = isinstance(content, dict) and "class_type" in content
        if not named:
            return _refused(
                "invalid_prompt",
                "Cannot execute because a node is missing the class_type property.",
                f"Node ID '#{node}'",
            )
        class_type = schemas.get(content["class_type"])
        if class_type is None:
            return _refused(
                "invalid_prompt",
                f"Cannot execute because node {content['class_type']} does not exist.",
                f"Node ID '#{node}'",
            )
        if class_type.output_node and (targets is None or node in targets):  # type: ignore[operator]
            outputs.append(node)
    if not outputs:
        return _refused("prompt_no_outputs", "Prompt has no outputs")
    return _Validation(graph, schemas, folders).verdict(outputs)


def _refused(
    type: str, message: str, details: str = "", node_errors: dict[str, Any] | None = None
) -> Verdict:
    error = {"type": type, "message": message, "details": details, "extra_info": {}}
    return Verdict(error, (), node_errors or {})


class _Validation:
    """The state of one verdict: what has been checked already."""

    def __init__(self, graph: Graph, schemas: Schemas, folders: Folders) -> None:
        self._graph = graph
        self._schemas = schemas
        self._folders = folders
        self._checked: dict[str, _Checked] = {}
        self._open: set[str] = set()

    def verdict(self, outputs: list[str]) -> Verdict:
        good = []
        details = []
        node_errors: dict[str, Any] = {}
        for output in outputs:
            checked = self._check_output(output)
            if checked.valid:
                good.append(output)
                continue
            details += [f"{error['message']}: {error['details']}" for error in checked.errors]
            for node, found in self._checked.items():
                if not found.valid and found.errors:
                    entry = node_errors.setdefault(
                        node,
                        {
                            "errors": found.errors,
                            "dependent_outputs": [],
                            "class_type": self._graph[node]["class_type"],
                        },
                    )
                    entry["dependent_outputs"].append(output)
        if good:
            return Verdict(None, tuple(good), node_errors)
        return _refused(
            "prompt_outputs_failed_validation",
            "Prompt outputs failed validation",
            "\n".join(details),
            node_errors,
        )

    def _check_output(self, output: str) -> _Checked:
        try:
            checked = self._check(output)
        except RecursionError:
            # As in ComfyUI, whose check recurses too: too deep a graph is refused without a word.
            self._open.clear()
            checked = _Checked(False, [])
        except _RAISED as error:
            self._open.clear()
            checked = _Checked(
                False,
                [
                    {
                        "type": "exception_during_validation",
                        "message": "Exception when validating node",
                        "details": str(error),
                        "extra_info": _exception(error),
                    }
                ],
            )
        self._checked[output] = checked
        return checked

    def _check(self, node: str) -> _Checked:
        if node in self._checked:
            return self._checked[node]
        if node in self._open:
            return _Checked(False, [])
        self._open.add(node)
        content = self._graph[node]
        class_type = self._class_type(node)
        inputs = content["inputs"]
        errors: list[Error] = []
        valid = True
        for name, taken in class_type.inputs.items():
            if name not in inputs:
                if not taken.optional:
                    errors.append(
                        {
                            "type": "required_input_missing",
                            "message": "Required input is missing",
                            "details": name,
                            "extra_info": {"input_name": name},
                        }
                    )
            elif isinstance(inputs[name], list):
                valid &= self._check_link(inputs[name], class_type, name, errors)
            else:
                self._check_value(inputs, class_type, name, errors)
        if class_type.name in FILE_INPUTS and class_type.pack is None:
            errors += self._check_file(class_type, inputs)
        self._open.discard(node)
        checked = _Checked(valid and not errors, errors)
        self._checked[node] = checked
        return checked

    def _class_type(self, node: str) -> ClassType:
        class_type = self._schemas.get(self._graph[node]["class_type"])
        if class_type is None:
            raise KeyError(self._graph[node]["class_type"])
        return class_type

    def _check_link(
        self, link: list[Any], class_type: ClassType, name: str, errors: list[Error]
    ) -> bool:
        """Check a link and what it leads to; what is wrong beyond the link belongs there."""
        taken = class_type.inputs[name]
        if len(link) != 2:
            errors.append(
                self._error(
                    "bad_linked_input",
                    "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                    name,
                    class_type,
                    name,
                    received_value=link,
                )
            )
            return False
        source = link[0]
        received = tuple(output.type for output in self._class_type(source).outputs)[link[1]]
        if not _fits(received, taken):
            errors.append(
                self._error(
                    "return_type_mismatch",
                    "Return type mismatch between linked nodes",
                    f"{name}, received_type({received}) mismatch input_type({taken.type})",
                    class_type,
                    name,
                    received_type=received,
                    linked_node=link,
                )
            )
            return False
        try:
            return self._check(source).valid
        except _RAISED as error:
            self._open.discard(source)
            self._checked[source] = _Checked(
                False,
                [
                    self._error(
                        "exception_during_inner_validation",
                        "Exception when validating inner node",
                        str(error),
                        class_type,
                        name,
                        exception_message=str(error),
                        linked_node=link,
                        **_exception(error),
                    )
                ],
            )
            return False

    def _check_value(
        self, inputs: dict[str, Any], class_type: ClassType, name: str, errors: list[Error]
    ) -> None:
        taken = class_type.inputs[name]
        value = inputs[name]
        if isinstance(value, dict) and "__value__" in value:
            value = inputs[name] = value["__value__"]
        converter = _CONVERTERS.get(taken.type)
        if converter is not None:
            try:
                value = inputs[name] = converter(value)
            except _RAISED as error:
                errors.append(
                    self._error(
                        "invalid_input_type",
                        f"Failed to convert an input value to a {taken.type} value",
                        f"{name}, {value}, {error}",
                        class_type,
                        name,
                        received_value=value,
                        exception_message=str(error),
                    )
                )
                return
        if class_type.pack is None and FILE_INPUTS.get(class_type.name, ("",))[0] == name:
            return
        if taken.minimum is not None and value < taken.minimum:
            errors.append(
                self._error(
                    "value_smaller_than_min",
                    f"Value {value} smaller than min of {taken.minimum}",
                    name,
                    class_type,
                    name,
                    received_value=value,
                )
            )
        elif taken.maximum is not None and value > taken.maximum:
            errors.append(
                self._error(
                    "value_bigger_than_max",
                    f"Value {value} bigger than max of {taken.maximum}",
                    name,
                    class_type,
                    name,
                    received_value=value,
                )
            )
        elif taken.type == "COMBO" and taken.checked:
            options = self._schemas.options(taken)
            if value not in options:
                errors.append(self._not_in_list(class_type, name, value, options))

    def _not_in_list(
        self, class_type: ClassType, name: str, value: object, options: list[Any]
    ) -> Error:
        is_long = len(options) > _LONG_LIST
        listed = f"(list of length {len(options)})" if is_long else str(options)
        error = self._error(
            "value_not_in_list",
            "Value not in list",
            f"{name}: '{value}' not in {listed}",
            class_type,
            name,
            received_value=value,
        )
        if is_long:
            error["extra_info"]["input_config"] = None
        return error

    def _check_file(self, class_type: ClassType, inputs: dict[str, Any]) -> list[Error]:
        name, kind = FILE_INPUTS[class_type.name]
        if name not in inputs:
            raise TypeError(
                f"{class_type.name}.VALIDATE_INPUTS() missing 1 required positional argument: "
                f"'{name}'"
            )
        value = None if isinstance(inputs[name], list) else inputs[name]
        if not isinstance(value, str):
            raise AttributeError(f"'{type(value).__name__}' object has no attribute 'endswith'")
        try:
            found = self._folders.named(value).exists()
        except (OSError, ValueError):
            found = False
        if found:
            return []
        return [
            {
                "type": "custom_validation_failed",
                "message": "Custom validation failed for node",
                "details": f"{name} - Invalid {kind} file: {value}",
                "extra_info": {"input_name": name},
            }
        ]

    def _error(
        self,
        type: str,
        message: str,
        details: str,
        class_type: ClassType,
        name: str,
        **extra: object,
    ) -> Error:
        taken = class_type.inputs[name]
        config = input_config(taken, self._schemas.options(taken))
        return {
            "type": type,
            "message": message,
            "details": details,
            "extra_info": {"input_name": name, "input_config": config, **extra},
        }


def _fits(received: str, taken: Input) -> bool:
    """Say whether an output's type fits an input: equal, a wildcard, or unions that overlap."""
    wanted = taken.type
    if received == wanted or "*" in (received, wanted):
        return True
    return not set(received.split(",")).isdisjoint(wanted.split(","))


def _exception(error: Exception) -> dict[str, Any]:
    name = type(error).__name__
    return {"exception_type": name, "traceback": [f"  {name}: {error}\n"]}
