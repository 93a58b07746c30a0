"""What can go wrong with an engine or a run, as exceptions whose texts an operator may see."""
# ruff: noqa: N818 - what callers catch is named by what happened

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .lasting import lasting

MESSAGE_LENGTH: Final = 1000

FULL_DISK: Final = (errno.ENOSPC, errno.EDQUOT)
_CUDA: Final = "CUDA"
_NO_SPACE: Final = tuple(os.strerror(number).casefold() for number in FULL_DISK)


def shortened(text: str) -> str:
    """Return a text that is no longer than a message may be."""
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 1] + "…"


class EngineError(Exception):
    """What went wrong with the engine or a run; the text is safe to show to an operator."""


class EngineStartError(EngineError):
    """The process did not come up. `output` holds its last lines, `returncode` how it ended."""

    def __init__(
        self, reason: str, output: Sequence[str] = (), returncode: int | None = None
    ) -> None:
        tail = "".join(f"\n  {line}" for line in output)
        super().__init__(reason + (f"; its last output was:{tail}" if tail else ""))
        self.output = tuple(output)
        self.returncode = returncode


class EngineUnreachable(EngineError):
    """The engine does not answer; nothing of the run was executed."""


class EngineLost(EngineError):
    """The engine died, or forgot the run, more often than a run is sent again."""


class EngineHung(EngineError):
    """The engine runs and answers no more; the run that it executed was given up."""


class EngineDiskFull(EngineError):
    """The engine's disk has no room for the input files of a run."""


class EngineTimeout(EngineError):
    """The run was not done in time; the engine has been told to stop it."""


class EngineInterrupted(EngineError):
    """The run was stopped. `requested` says whether through this client."""

    def __init__(self, message: str, *, requested: bool) -> None:
        super().__init__(message)
        self.requested = requested


class EngineOutputError(EngineError):
    """The engine names an output that is missing, or that lies outside its folders."""


@lasting
@dataclass(frozen=True, slots=True)
class NodeError:
    """What the engine says against a node; `input` is set when it is about one input."""

    node: str
    class_type: str | None
    type: str
    message: str
    details: str
    input: str | None = None


class EngineRefused(EngineError):
    """The engine does not take the graph, wholly or in part; nothing of it was kept.

    `status` is the HTTP status of the answer: 200 when some output nodes were good and others not.
    `errors` is empty where the engine does not say which node is at fault.
    """

    def __init__(self, status: int, type: str, message: str, errors: Sequence[NodeError]) -> None:
        details = "; ".join(
            f"node {e.node} ({e.class_type}): {e.message}" + (f": {e.details}" if e.details else "")
            for e in errors
        )
        text = f"{message}: {details}" if details else message
        super().__init__(shortened(f"the engine refused the graph: {text}"))
        self.status = status
        self.type = type
        self.message = message
        self.errors = tuple(errors)


class EngineFailed(EngineError):
    """A node raised. `message` is the exception's own text, `traceback` its frames."""

    def __init__(
        self, node: str, class_type: str, exception_type: str, message: str, traceback: str
    ) -> None:
        super().__init__(shortened(f"node {node} ({class_type}): {exception_type}: {message}"))
        self.node = node
        self.class_type = class_type
        self.exception_type = exception_type
        self.message = message
        self.traceback = traceback

    @property
    def out_of_memory(self) -> bool:
        """Whether GPU memory ran out, after which an engine's queue may stick: restart it."""
        name = self.exception_type.rpartition(".")[2]
        return name == "OutOfMemoryError" or (
            _CUDA in self.message and "out of memory" in self.message
        )

    @property
    def breaks_engine(self) -> bool:
        """Whether the engine is of no more use: CUDA answers every call with its first error."""
        return self.out_of_memory or f"{_CUDA} error" in self.message

    @property
    def disk_full(self) -> bool:
        """Whether there was no room for a file; libraries say so in exceptions of many types."""
        message = self.message.casefold()
        return any(text in message for text in _NO_SPACE)
