"""From names in specs to names in Python."""

import builtins
import keyword
import re
from collections.abc import Callable, Iterable
from typing import Final

from .graph.words import did_you_mean, show

WORKFLOW_NAME: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")

# What pydantic's BaseModel and our Request call their own; a test compares it with the libraries.
_CLAIMED_BY_MODELS: Final = frozenset(
    "construct copy dict from_orm json model_computed_fields model_config model_construct "
    "model_copy model_dump model_dump_json model_extra model_fields model_fields_set "
    "model_json_schema model_parametrized_name model_post_init model_rebuild model_validate "
    "model_validate_json model_validate_strings mro of parse_file parse_obj parse_raw register schema "
    "schema_json update_forward_refs validate".split()
)
# In a class body a field shadows what these names mean in the fields after it.
_CLAIMED_BY_FIELDS: Final = frozenset(("bool", "drawn", "float", "int", "str"))


def no_such(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that there is no workflow, or whatever, of a name, and what there is."""
    known = list(known)
    hint = did_you_mean(name, known) or f"there are {', '.join(known) or 'none'}"
    return f"there is no {kind} {show(name)}; {hint}"


def module_name(name: str) -> str:
    """Return the module in build/handlers that a workflow's name stands for."""
    module = name.replace("-", "_")
    return f"{module}_" if keyword.iskeyword(module) else module


def function_name(name: str) -> str:
    """Return the name of a workflow's builder: build_<name>_workflow."""
    return f"build_{name.replace('-', '_')}_workflow"


def setup_name(module: str) -> str:
    """Return the name of the function that adds a handler's endpoints to an app."""
    return f"setup_{module}_endpoints"


def class_name(name: str) -> str:
    """Return the name of a workflow's request model."""
    return "".join(part.capitalize() for part in re.split("[-_]", name)) + "Request"


def worker_name(profile: str, group: str) -> str:
    """Return the name of the worker class of a GPU profile and a group; "" is no group."""
    parts = re.split("[-_]", f"{profile}-{group}")
    return "".join(part.capitalize() for part in parts) + "Worker"


def attribute_names(params: Iterable[str]) -> dict[str, str]:
    """Return the attribute of the request model for each param.

    Python, pydantic and the annotations claim some names.
    """
    return unclaimed(params, _is_claimed)


def unclaimed(names: Iterable[str], is_claimed: Callable[[str], bool]) -> dict[str, str]:
    """Return a name in Python for each name, all of them different.

    One that is claimed gets `_` appended, as often as it takes to differ from the others.
    """
    names = list(names)
    taken = set(names)
    found: dict[str, str] = {}
    for name in names:
        free = name
        while is_claimed(free) or (free != name and free in taken):
            free += "_"
        taken.add(free)
        found[name] = free
    return found


def local_names(wanted: Iterable[str], reserved: Iterable[str]) -> list[str]:
    """Return a local variable for each wanted name, all of them different.

    They differ from `reserved` too, the names that the function uses already.
    """
    taken = {*reserved, *keyword.kwlist, *dir(builtins)}
    variables: list[str] = []
    for name in wanted:
        variable = name
        while variable in taken:
            variable += "_"
        taken.add(variable)
        variables.append(variable)
    return variables


def _is_claimed(name: str) -> bool:
    return keyword.iskeyword(name) or name in _CLAIMED_BY_MODELS or name in _CLAIMED_BY_FIELDS
