"""Keys of callers: fresh ones, as the Secret api-keys takes them."""

import re
import secrets
from collections.abc import Sequence
from typing import Final

# 256 bits, so that nobody guesses one.
_BYTES: Final = 32
# What no header, shell or list of name:key,name:key takes for something else.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def new_keys(names: Sequence[str]) -> str:
    """Return a fresh key for each name, as `name:key,name:key`; nothing keeps them.

    Raises:
        ValueError: when a name cannot be written there, or comes twice.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no name of a key: letters, digits, dots, dashes and underscores, "
                "at most 64, the first a letter or digit"
            )
    if len(set(names)) != len(names):
        raise ValueError("a name comes twice; each key has its own")
    return ",".join(f"{name}:{secrets.token_urlsafe(_BYTES)}" for name in names)
