"""Plain scalars by the YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema).

PyYAML follows YAML 1.1, where `on` is true and `12:30` is 750; only its parser is used here.
"""

import re
from typing import Final

Scalar = str | int | float | bool | None

_WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# What numbers start with.
_NUMERIC: Final = frozenset("+-.0123456789")
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

# With so many digits an integer still fits into a float; no input takes more than 20.
MAX_DIGITS: Final = 300


def resolve(text: str) -> Scalar:
    """Return what a plain scalar stands for.

    Raises:
        ValueError: for a number that is not finite, or that has over 300 digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC:
        return text
    if _NOT_FINITE.fullmatch(text):
        raise ValueError("this number is not finite")
    integer = _INTEGER.fullmatch(text)
    number = integer or _FLOAT.fullmatch(text)
    if (number or _OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text)) is None:
        return text
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of over {MAX_DIGITS} digits")
    if integer:
        return int(text)
    if number is None:
        return int(text, base=0)
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("this number is not finite: it is too large for a float")
    return value
