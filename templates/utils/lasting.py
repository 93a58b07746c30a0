"""Records that outlive a deployment: containers of another version of this code read them.

They are pickled into Modal's Dict and into what calls return, and kept for days.
"""

from dataclasses import MISSING, fields
from typing import Any, TypeVar

Record = TypeVar("Record")


def lasting(cls: type[Record]) -> type[Record]:
    """Let a frozen dataclass be pickled by the names of its fields.

    A field that the writer did not know yet gets its default, and so needs one; one that the reader
    knows no more is left out. By itself a dataclass with slots goes by the order of its fields.
    """
    for name, method in (("__getstate__", _state), ("__setstate__", _restore)):
        setattr(cls, name, method)
    return cls


def _state(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _restore(record: Any, state: dict[str, Any]) -> None:
    for field in fields(record):
        if field.name in state:
            value = state[field.name]
        elif field.default_factory is not MISSING:
            value = field.default_factory()
        elif field.default is not MISSING:
            value = field.default
        else:
            raise TypeError(f"a {type(record).__name__} without {field.name} cannot be read")
        object.__setattr__(record, field.name, value)
