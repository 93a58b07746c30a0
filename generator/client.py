"""The values of templates/client.py.j2: a method for every endpoint, as source."""

import textwrap
from collections.abc import Iterable
from keyword import iskeyword
from typing import Any, Final

from .check import Checked
from .graph.words import show
from .names import unclaimed
from .pycode import Source, docstring_of, identifier, literal
from .spec import INTEGER_TYPES, MEDIA_TYPES, NUMBER_TYPES, Param, Workflow

_ANNOTATIONS: Final = {
    "string": "str",
    "model": "str",
    "integer": "int",
    "seed": "int",
    "number": "float",
    "boolean": "bool",
    "graph": "Graph",
    **dict.fromkeys(MEDIA_TYPES, "Media"),
}
# The methods of every client, and what an annotation in its class means; a test compares them.
_CLAIMED_BY_CLIENTS: Final = frozenset(
    "bool cancel close events float int job outputs result str".split()
)
# What a method's body says itself.
_CLAIMED_BY_METHODS: Final = frozenset(
    ("idempotency_key", "media", "media_files", "on_progress", "self")
)

_LONGEST_TEXT: Final = 400
_DOC_WIDTH: Final = 92
# From here on a number reads better with an exponent.
_LONG_NUMBER: Final = 10**16


def client_values(checked: Checked) -> dict[str, Any]:
    """Return what the template prints; every printed value is Source."""
    workflows = sorted((c.workflow for c in checked.workflows), key=lambda w: w.name)
    params = [param for workflow in workflows for param in workflow.params.values()]
    uses = {
        "BaseClient": True,
        "Files": any(map(_takes_files, workflows)),
        "Graph": any(param.type == "graph" for param in params),
        "Media": any(param.type in MEDIA_TYPES for param in params),
        "OnProgress": bool(workflows),
        "Reply": bool(workflows),
        "media": any(param.type in MEDIA_TYPES for param in params),
        "media_files": any(map(_takes_files, workflows)),
    }
    return {
        "literals": any(_is_literal(param) for param in params),
        "core": Source(", ".join(name for name, is_used in uses.items() if is_used)),
        "endpoints": [_endpoint(workflow) for workflow in workflows],
    }


def method_name(name: str) -> str:
    """Return the client's method for a workflow; what the client claims gets `_` appended."""
    method = name.replace("-", "_")
    return f"{method}_" if iskeyword(method) or method in _CLAIMED_BY_CLIENTS else method


def argument_names(params: Iterable[str]) -> dict[str, str]:
    """Return the argument of the method for each param; Python and the method claim some names."""
    return unclaimed(params, lambda name: iskeyword(name) or name in _CLAIMED_BY_METHODS)


def _endpoint(workflow: Workflow) -> dict[str, Source]:
    names = argument_names(workflow.params)
    arguments = ["self", "*"]
    body = []
    for param in workflow.params.values():
        name = identifier(names[param.name])
        optional = "" if param.required else " | None = None"
        arguments.append(f"{name}: {_annotation(param)}{optional}")
        value = f"media({name})" if param.type in MEDIA_TYPES else name
        body.append(f"{literal(param.name)}: {value}")
    if _takes_files(workflow):
        arguments.append("files: Files | None = None")
        body.append('"files": media_files(files)')
    arguments.append("idempotency_key: str | None = None")
    arguments.append("on_progress: OnProgress | None = None")
    return {
        "name": identifier(method_name(workflow.name)),
        "route": literal(workflow.route),
        "arguments": Source(", ".join(arguments)),
        "body": Source(f"{{{', '.join(body)}}}"),
        "doc": _doc(workflow, names),
    }


def _takes_files(workflow: Workflow) -> bool:
    """Whether media come beside the params, by the names that the graph of a caller uses."""
    return workflow.graph_param is not None and "files" not in workflow.params


def _is_literal(param: Param) -> bool:
    """Whether the values of a param are a type: Python has none of floats."""
    return bool(param.enum) and param.type != "number"


def _annotation(param: Param) -> str:
    if _is_literal(param):
        return f"Literal[{', '.join(literal(_typed(value, param)) for value in param.enum)}]"
    return _ANNOTATIONS[param.type]


def _doc(workflow: Workflow, names: dict[str, str]) -> Source:
    notes = [_shortened(workflow.description)]
    for group in workflow.one_of:
        notes.append(f"Exactly one of {', '.join(names[name] for name in group)} is given.")
    if not workflow.enabled:
        notes.append("It was switched off when this was rendered: the service then answers 403.")
    texts = {names[name]: _about(param) for name, param in workflow.params.items()}
    if _takes_files(workflow):
        texts["files"] = "Pictures, videos and sounds that the graph loads, by the names in it."
    summary = _sentence(_shortened(workflow.summary)) or f"Call {workflow.name}."
    return docstring_of(doc_lines(summary, " ".join(map(_sentence, notes)), texts))


def doc_lines(summary: str, description: str, arguments: dict[str, str]) -> list[str]:
    """Return the lines of a docstring; the command line reads the texts of arguments from them."""
    lines = [summary]
    if description.strip():
        lines += ["", *_wrapped(description)]
    described = [f"{name}: {text}" for name, text in arguments.items() if text]
    if described:
        lines += ["", "Args:"]
    for text in described:
        lines += _wrapped(text, " " * 4, " " * 8)
    return [*lines, ""] if lines[1:] else lines


def _wrapped(text: str, first: str = "", others: str = "") -> list[str]:
    """Return indented lines that are the text again once they are joined with blanks."""
    return textwrap.wrap(
        text,
        _DOC_WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _about(param: Param) -> str:
    """Return what a param means, its bounds and its default, in sentences."""
    sentences = [_sentence(_shortened(param.description)), _sentence(_bounds(param))]
    if param.default is not None and param.default != "":
        sentences.append(f"Default: {_plain(_typed(_default(param), param))}.")
    elif param.type == "seed":
        sentences.append("Drawn when absent.")
    return " ".join(filter(None, sentences))


def _bounds(param: Param) -> str:
    if param.type not in NUMBER_TYPES:
        return ""
    if param.enum:
        values = ", ".join(_plain(_typed(value, param)) for value in param.enum)
        return "" if _is_literal(param) else f"One of {values}"
    low, high = param.minimum, param.maximum
    parts = [_range(low, high)]
    if param.multiple_of:
        parts.append(f"a multiple of {param.multiple_of}")
    if param.step:
        start = int(low or 0)
        is_multiple = start % param.step == 0
        parts.append(f"{'' if is_multiple else f'{start} plus '}a multiple of {param.step}")
    text = ", ".join(filter(None, parts))
    return text[:1].upper() + text[1:]


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"{_plain(low)} to {_plain(high)}"
    if low is not None:
        return f"at least {_plain(low)}"
    return "" if high is None else f"at most {_plain(high)}"


def _default(param: Param) -> Any:
    return str(param.default).strip() if param.strip else param.default


def _typed(value: Any, param: Param) -> Any:
    """Return a number as its param's type writes it: 6 is 6.0 for a number."""
    if param.type not in NUMBER_TYPES:
        return value
    return int(value) if param.type in INTEGER_TYPES else float(value)


def _plain(value: Any) -> str:
    """Return a value as people write it: 1.0 is 1, and a text stands in quotes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < _LONG_NUMBER:
        return str(int(value))
    return show(value)


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def _sentence(text: str) -> str:
    return text if not text or text.endswith((".", "!", "?", "…")) else f"{text}."
