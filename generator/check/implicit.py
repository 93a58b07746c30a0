"""Files that nodes load though no input names them."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from ..graph.catalog import ClassType, Loads
from ..graph.check import Finding
from ..spec import Models


def loaded(class_type: ClassType, inputs: Mapping[str, Any]) -> list[Loads]:
    """Return what a node loads; an input's value that is no text is not known, and may be any."""
    return [
        loads
        for loads in class_type.loads
        if all(inputs.get(key) == value or not isinstance(inputs.get(key), str)
               for key, value in loads.when.items())
    ]  # fmt: skip


def used_implicitly(class_type: ClassType, inputs: Mapping[str, Any], models: Models) -> set[str]:
    """Return the declared models that a node loads."""
    patterns = [pattern for loads in loaded(class_type, inputs) for pattern in loads.files]
    return {
        name
        for name, model in models.models.items()
        if any(fnmatchcase(model.destination, pattern) for pattern in patterns)
    }


def undeclared_implicit(
    class_type: ClassType, inputs: Mapping[str, Any], models: Models
) -> list[Finding]:
    """Return the files that a node loads and models.yaml does not declare."""
    paths = [model.destination for model in models.models.values()]
    return missing_implicit(
        class_type,
        inputs,
        lambda pattern: any(fnmatchcase(path, pattern) for path in paths),
        "models.yaml does not declare",
    )


def missing_implicit(
    class_type: ClassType,
    inputs: Mapping[str, Any],
    is_there: Callable[[str], bool],
    complaint: str,
) -> list[Finding]:
    """Return the files that a node loads and that are not there; `is_there` takes a pattern."""
    found: list[Finding] = []
    for loads in loaded(class_type, inputs):
        missing = [pattern for pattern in loads.files if not is_there(pattern)]
        if not missing:
            continue
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        message = f"{class_type.name} loads files that no input names, which {complaint}: "
        folder, _, file = missing[0].rpartition("/")
        source = f"{{hf: {loads.hf or 'OWNER/REPO'}, file: {file.replace('*', 'FILE')}}}"
        hint = f"add to models: in models.yaml: NAME: {{source: {source}, folder: {folder}}}"
        found.append(
            Finding(
                "implicit-model", "error", f"{message}{missing[0]}{others}",
                hint=f"{hint}, and so for each" if others else hint,
            )
        )  # fmt: skip
    return found
