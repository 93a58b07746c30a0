"""Modal's half of the backend on Modal: calls, what containers share, and the Volume.

Each follows a protocol of the other half.
"""

import asyncio
import logging
import queue
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import modal
import modal.experimental
from grpclib.exceptions import GRPCError, StreamTerminatedError

from ..graph.families import Families
from ..utils.comfyui_errors import shortened
from . import logs
from .backend import BackendUnavailableError, Failure, UnknownJobError, Work
from .job_store import End
from .modal_backend import CallLostError, CallPendingError
from .uploads import UploadedHeaders, Version

_log = logging.getLogger(__name__)

# How long a gateway waits for an answer to a small question, in seconds.
PATIENCE: Final = 10.0
_OUR_FAULT: Final = Failure("internal-error", "this is a fault of the service; its log says more")
_LIST_SECONDS: Final = 24 * 3600
# A connection that is lost shows as an exception of the library below Modal's own.
_NO_ANSWER: Final = (modal.exception.Error, GRPCError, StreamTerminatedError)
_FAILURES: Final = (*_NO_ANSWER, OSError)


class ModalTable:
    """A `modal.Dict` as the job store's table. Entries go after seven days without use.

    `patience` is how long an answer may take, in seconds; None leaves it to Modal's client, which
    tries for most of a minute.
    """

    def __init__(self, table: "modal.Dict", patience: float | None = None) -> None:
        self._table = table
        self._patience = patience

    async def get(self, key: str) -> Any:
        """Return the value of a key, or None.

        Raises:
            BackendUnavailableError: when Modal does not answer.
        """
        with _answering():
            async with asyncio.timeout(self._patience):
                return await self._table.get.aio(key)

    async def put(self, key: str, value: Any, *, skip_if_exists: bool = False) -> bool:
        """Write a value, and say whether it was written.

        Raises:
            BackendUnavailableError: when Modal does not answer.
        """
        with _answering():
            async with asyncio.timeout(self._patience):
                return await self._table.put.aio(key, value, skip_if_exists=skip_if_exists)

    async def delete(self, key: str) -> None:
        """Delete a key, if it is there.

        Raises:
            BackendUnavailableError: when Modal does not answer.
        """
        # Not every version of Modal takes a default.
        with _answering(), suppress(KeyError):
            async with asyncio.timeout(self._patience):
                await self._table.pop.aio(key)

    async def items(self) -> AsyncGenerator[tuple[str, Any], None]:
        """Yield all keys with their values.

        Raises:
            BackendUnavailableError: when Modal does not answer.
        """
        with _answering():
            async for key, value in self._table.items.aio():
                yield key, value


class ModalLists:
    """The partitions of a `modal.Queue` as lists, from which nothing is ever taken.

    A queue holds 100,000 partitions, each of 5,000 items.
    """

    def __init__(self, partitions: "modal.Queue") -> None:
        self._partitions = partitions

    async def add(self, key: str, items: Sequence[Any]) -> None:
        """Add items to the end of a list, which is kept for 24 hours from then on.

        Raises:
            BackendUnavailableError: when Modal does not answer, or the list is full.
        """
        try:
            with _answering():
                await self._partitions.put_many.aio(
                    [*items], block=False, partition=key, partition_ttl=_LIST_SECONDS
                )
        except queue.Full as error:
            raise BackendUnavailableError(f"the list of {key} is full") from error

    async def read(self, key: str, seconds: float) -> AsyncGenerator[Any, None]:
        """Yield the items of a list from its first, until none has come for some seconds.

        Raises:
            BackendUnavailableError: when Modal does not answer.
        """
        items = self._partitions.iterate.aio(partition=key, item_poll_timeout=seconds)
        with _answering():
            async with aclosing(items):
                async for item in items:
                    yield item


class ModalCalls:
    """Calls of the `run` methods of worker classes; `runs` has them by profile and group."""

    def __init__(self, runs: Mapping[tuple[str, str], Any]) -> None:
        self._runs = dict(runs)

    async def spawn(self, work: Work) -> str:
        """Call the worker that work is for, and return the id of the call."""
        with _answering():
            call = await self._runs[work.profile, work.group].spawn.aio(work)
        return str(call.object_id)

    async def get(self, call: str, seconds: float) -> End:
        """Return what a call returned, waiting for it for some seconds."""
        try:
            end = await modal.FunctionCall.from_id(call).get.aio(timeout=seconds)
        except TimeoutError as error:
            raise CallPendingError(call) from error
        except (modal.exception.OutputExpiredError, modal.exception.NotFoundError) as error:
            raise UnknownJobError(call) from error
        except modal.exception.FunctionTimeoutError as error:
            detail = "the run was not done in time, and its worker was stopped"
            raise CallLostError(Failure("engine-timeout", detail), _why(error)) from error
        except (modal.exception.InternalFailure, modal.exception.ExecutionError) as error:
            failure = Failure("engine-lost", "the worker ended in mid-run")
            raise CallLostError(failure, _why(error)) from error
        except (modal.exception.InputCancellation, modal.exception.RemoteError) as error:
            detail = "Modal stopped the run; nobody here asked it to"
            raise CallLostError(Failure("engine-interrupted", detail), _why(error)) from error
        except modal.exception.DeserializationError as error:
            # Modal has answered, and will say the same for ever.
            raise CallLostError(_OUR_FAULT, _why(error)) from error
        except _NO_ANSWER as error:
            raise unavailable(error) from error
        except Exception as error:
            # What the worker's method raised; it should have returned it.
            _log.exception("call %s: this is a fault of the worker", call)
            raise CallLostError(_OUR_FAULT) from error
        if not isinstance(end, End):
            why = f"the worker returned {type(end).__name__}, which is no End"
            raise CallLostError(_OUR_FAULT, why)
        return end

    async def cancel(self, call: str) -> None:
        """Stop a call, whether it waits or runs."""
        with _answering(), suppress(modal.exception.NotFoundError):
            async with asyncio.timeout(PATIENCE):
                await modal.FunctionCall.from_id(call).cancel.aio()


class VolumeFiles:
    """Volumes that hold model files as ComfyUI's models folder does: `loras/NAME`, …

    Containers see a Volume as it was when they started, so it is asked itself. `patience` is as
    ModalTable has it, for a list of files.
    """

    def __init__(self, volumes: "Sequence[modal.Volume]", patience: float | None = None) -> None:
        self._volumes = volumes
        self._patience = patience
        self._headers = UploadedHeaders()

    async def listing(self, folder: str) -> Collection[str]:
        """Return the files of a model folder; none when it is not there."""
        found: set[str] = set()
        for volume in self._volumes:
            found.update(await self._files(volume, f"/{folder}"))
        return {path.removeprefix(f"{folder}/") for path in found}

    async def files(self) -> Mapping[str, Version]:
        """Return all files by their paths, such as loras/style.safetensors."""
        found: dict[str, Version] = {}
        for volume in self._volumes:
            found = await self._files(volume, "/") | found
        return found

    async def families(self, folder: str, name: str) -> Families | None:
        """Return the families that a file is of by its header, which is read when it is new.

        Raises:
            UnreadModelError: when it is not the file that its name says.
        """
        path = f"{folder}/{name}"
        for volume in self._volumes:
            if version := (await self._files(volume, f"/{path}")).get(path):
                return await self._headers.families(path, version, _chunks(volume, path))
        return None

    async def fetch(self, path: str, target: Path) -> None:
        """Copy a file to `target`, which appears when it is complete."""
        for volume in self._volumes:
            if version := (await self._files(volume, f"/{path}")).get(path):
                await _fetch(volume, path, version[0], target)
                return

    async def _files(self, volume: "modal.Volume", below: str) -> dict[str, Version]:
        """Return the files below a folder, or a file, by their paths; none when it is not there."""
        entries: Sequence[Any] = ()
        with _answering(), suppress(modal.exception.NotFoundError, FileNotFoundError):
            async with asyncio.timeout(self._patience):
                entries = await volume.listdir.aio(below, recursive=True)
        return {
            entry.path.lstrip("/"): (entry.size, entry.mtime)
            for entry in entries
            if entry.type.name == "FILE"
        }


async def _fetch(volume: "modal.Volume", path: str, size: int, target: Path) -> None:
    part = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        with part.open("wb") as file:
            async for chunk in _chunks(volume, path):
                file.write(chunk)
        if part.stat().st_size != size:
            raise BackendUnavailableError(f"{path} is being changed on its Volume")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


async def _chunks(volume: "modal.Volume", path: str) -> AsyncGenerator[bytes, None]:
    with _answering():
        async for chunk in volume.read_file.aio(path):
            yield chunk


async def take_no_more_calls() -> None:
    """Let this container end when it is done with the calls that it has."""
    # In a thread, for some versions of Modal have it for callers that block only.
    await asyncio.to_thread(modal.experimental.stop_fetching_inputs)


def _why(error: BaseException) -> str:
    """Return what the log may say of a call without a result.

    Modal's own words are on the first line. What a worker raised is there as Python shows exceptions,
    and what they say, in parentheses, may hold a prompt.
    """
    text = str(error)
    if not logs.shows_prompts():
        line, _, _ = text.partition("\n")
        said, parenthesis, _ = line.partition("(")
        text = shortened(f"{said}(…)" if parenthesis else said)
    name = type(error).__name__
    return f"{name}: {text}" if text else name


@contextmanager
def _answering() -> Iterator[None]:
    """Expect that Modal answers.

    Raises:
        BackendUnavailableError: when it does not.
    """
    try:
        yield
    except _FAILURES as error:
        raise unavailable(error) from error


def unavailable(error: Exception) -> BackendUnavailableError:
    """Return what the gateway says when Modal does not answer."""
    # Its words may name what is nobody's business: objects, addresses, Secrets.
    _log.warning("Modal does not answer: %s: %s", type(error).__name__, error)
    return BackendUnavailableError("Modal does not answer")
