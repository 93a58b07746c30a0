"""The command line of a client: a command per endpoint, an option per argument of its method.

Both are read off the methods: types from their signatures, texts from their docstrings.
"""

import argparse
import inspect
import json
import math
import os
import re
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from io import TextIOWrapper
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias, get_args, get_origin

from .client_core import (
    DEFAULT_URL,
    KEY_VARIABLE,
    URL_VARIABLE,
    BaseClient,
    Files,
    Graph,
    Media,
    OnProgress,
    Progress,
    Reply,
    ServiceError,
    printable,
)

DONE: Final = 0
FAILED: Final = 1
NOT_SENT: Final = 2
INTERRUPTED: Final = 130

_COMMAND: Final = f"python -m {__package__}.client"
_EPILOG: Final = (
    "The general options may stand after COMMAND too, unless it has params of the same names. A "
    "value that begins with - is written --option=VALUE. "
    "Exit codes: 0 done, 1 refused, failed or not reached, 2 not sent or not saved, 130 interrupted."
)
# What no endpoint's command is called.
_JOB_COMMANDS: Final = ("job", "cancel")
# Options of endpoints have this before their names, which may be those of general options.
_PARAM: Final = "param:"
_OUTPUT: Final = (
    "file or folder to save to; a file is overwritten, and gets the extension of what it holds "
    "(default: a new file, named after the command)"
)
_IDEMPOTENCY_KEY: Final = (
    "a call that is made again with the key and the params of another gets its job "
    "(default: each call draws its own)"
)
_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(client: type[BaseClient], arguments: Sequence[str] | None = None) -> int:
    """Run the command line of a client and return the exit code.

    0: done; 1: the service refused, failed or was not reached; 2: the request was not sent, or the
    file not written; 130: interrupted. Raises SystemExit for wrong options, and for --help.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser(client).parse_args(arguments)
    try:
        with client(options.url, options.key) as service:
            options.run(service, options)
    except ServiceError as error:
        if options.json:
            shown = error.document or {"detail": error.detail, "job": error.job}
            _say(json.dumps(shown, indent=2))
        else:
            _complain(f"error: {error}")
            if error.job and error.status is None:
                _complain(f"  wait for it with `{_COMMAND} job {error.job}`")
        return FAILED
    except (OSError, ValueError) as error:
        _complain(f"error: {printable(str(error))}")
        return NOT_SENT
    except KeyboardInterrupt as interrupt:
        _complain("\n".join(getattr(interrupt, "__notes__", ["interrupted"])))
        return INTERRUPTED
    return DONE


def _call(service: BaseClient, options: argparse.Namespace) -> None:
    """Call the endpoint's method, and save its reply."""
    method: Callable[..., Reply] = getattr(service, options.method)
    given = {
        name.removeprefix(_PARAM): dict(value) if isinstance(value, list) else value
        for name, value in vars(options).items()
        if name.startswith(_PARAM)
    }

    def call(show: OnProgress | None) -> Reply:
        return method(**given, idempotency_key=options.idempotency_key, on_progress=show)

    _save(service, options, options.command, call)


def _fetch(service: BaseClient, options: argparse.Namespace) -> None:
    """Wait for a job, and save its reply."""
    _save(service, options, options.job, lambda show: service.result(options.job, on_progress=show))


def _cancel(service: BaseClient, options: argparse.Namespace) -> None:
    """Stop a job."""
    job = service.cancel(options.job)
    if options.json:
        _say(json.dumps(job, indent=2))
    elif not options.quiet:
        _say(f"{job['job']} {job['status']}")


def _save(
    service: BaseClient,
    options: argparse.Namespace,
    name: str,
    call: Callable[[OnProgress | None], Reply],
) -> None:
    """Save what a call returns where the options say, else to a new file with a name."""
    _check_folder(options.output)
    with _ProgressLine() as line:
        reply = call(None if options.quiet else line.show)
    replies = service.outputs(reply.job) if options.all and reply.outputs > 1 else [reply]
    try:
        files = _saved(replies, options.output, name)
    except OSError as error:
        again = f"fetch it with `{_COMMAND} job {reply.job} -o FILE`"
        raise OSError(f"the output cannot be written: {error}; {again}") from error
    if options.json:
        facts = {name: value for name, value in asdict(reply).items() if name != "data"}
        _say(json.dumps({**facts, "files": [str(file) for file in files]}, indent=2))
    elif not options.quiet:
        lines = [
            f"{file}, {len(one.data):,} bytes, {one.media_type}"
            for file, one in zip(files, replies, strict=True)
        ]
        lines[0] += _facts(reply, is_part=len(files) < reply.outputs)
        _say("\n".join(map(printable, lines)))


def _saved(replies: Sequence[Reply], output: str | None, name: str) -> list[Path]:
    """Save replies to a place, the second as NAME-2; without a place to new files with a name."""
    if output is None:
        return [reply.save(_new_file(name, reply.extension)) for reply in replies]
    first = replies[0].save(output)
    others = enumerate(replies[1:], 2)
    return [first, *(reply.save(first.with_stem(f"{first.stem}-{n}")) for n, reply in others)]


def _new_file(name: str, extension: str) -> Path:
    files = (Path(f"{name}-{n}{extension}" if n > 1 else f"{name}{extension}") for n in count(1))
    return next(file for file in files if not file.exists())


def _check_folder(output: str | None) -> None:
    """Refuse a place where nothing can be saved, before anything is paid for."""
    path = Path(output or ".")
    if output == "-" or (path.exists() and not path.is_file() and not path.is_dir()):
        raise OSError(f"{output} is no file or folder to save to")
    folder = path if path.is_dir() or str(output).endswith(("/", os.sep)) else path.parent
    if not folder.is_dir():
        raise OSError(f"there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(f"folder {folder} may not be written to")


def _facts(reply: Reply, *, is_part: bool) -> str:
    """Return what a run took; `is_part`: it has outputs that were not saved."""
    facts = f", {reply.seconds:.1f} s, ${reply.cost:.6f}, {reply.gpu}"
    if reply.seed is not None:
        facts += f", seed {reply.seed}"
    if is_part:
        facts += f", one of {reply.outputs} outputs (--all saves them all)"
    if reply.engine == "preview":
        facts += ", a placeholder of the preview engine, not a real picture"
    return facts


class _ProgressLine:
    """Shows progress: on a terminal as one line, rewritten in place; else a line per change."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown and sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")

    def show(self, progress: Progress) -> None:
        """Show where a job is."""
        text = _state(progress)
        if sys.stderr.isatty():
            text = f"{text}  {time.monotonic() - self._start:.0f} s"
            sys.stderr.write(f"\r\x1b[K{_clipped(text, shutil.get_terminal_size().columns - 1)}")
            sys.stderr.flush()
        else:
            # Steps would fill a log.
            text = text if progress.status == "queued" else progress.status
            if text != self._shown:
                _complain(text)
        self._shown = text


def _state(progress: Progress) -> str:
    if progress.status == "queued" and progress.position is not None:
        ahead = f"{progress.position} ahead" if progress.position else "next"
        return f"queued, {ahead}"
    text = printable(progress.title or progress.node or progress.status)
    if progress.value is None or progress.max is None:
        return text
    return f"{text}  step {progress.value:g} of {progress.max:g}"


def _clipped(text: str, columns: int) -> str:
    """Return as much of a text as fits into the columns of a terminal."""
    while sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text) > columns:
        text = text[:-1]
    return text


def _parser(client: type[BaseClient]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_COMMAND,
        usage="%(prog)s [options] COMMAND [options]",
        description="Calls the endpoints of the service, and saves what they make.",
        epilog=_EPILOG,
        add_help=False,
        allow_abbrev=False,
    )
    _add_general_options(parser, None)
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", dest="command", title="commands", prog=_COMMAND
    )
    for method in dir(client):
        if not method.startswith("_") and not hasattr(BaseClient, method):
            _add_endpoint(commands, method, getattr(client, method))
    for name, run, about in (
        ("job", _fetch, "Wait for a job, and save what it made."),
        ("cancel", _cancel, "Stop a job."),
    ):
        params = _add_command(commands, name, about, run=run)
        params.add_argument("job", metavar="ID", help="id of the job: job_…")
    return parser


def _add_general_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the options that every command has.

    After the command their default is SUPPRESS, so that what stands before it counts.
    """
    group = parser.add_argument_group("general options")
    group.add_argument("-h", "--help", action="help", help="show this text and exit")
    add = partial(group.add_argument, default=default)
    switch: Any = {"action": "store_const", "const": True}
    add("--url", metavar="URL", help=f"default: {URL_VARIABLE}, then {DEFAULT_URL}")
    add("--key", metavar="KEY", help=f"{KEY_VARIABLE} keeps it out of the list of processes")
    add("--idempotency-key", metavar="KEY", help=_IDEMPOTENCY_KEY)
    add("-o", "--output", metavar="FILE", help=_OUTPUT)
    add("--all", **switch, help="save all outputs, the others as FILE-2, FILE-3, …")
    add("--quiet", **switch, help="show errors only")
    add("--json", **switch, help="print what is known of the run, or the problem, as JSON")


def _add_command(
    commands: _Commands, name: str, about: str, **defaults: object
) -> argparse._ArgumentGroup:
    """Add a command, and return the group of its params."""
    command = commands.add_parser(
        name,
        help=_help(about.partition("\n")[0]),
        # Only with this mark does argparse read a description as a format.
        description=_help(about) if "%(prog)" in about else printable(about),
        usage="%(prog)s [options]",
        # A param may be called like a general option, which then stands before the command.
        conflict_handler="resolve",
        add_help=False,
        allow_abbrev=False,
    )
    command.set_defaults(**defaults)
    params = command.add_argument_group("params")
    _add_general_options(command, argparse.SUPPRESS)
    return params


def _add_endpoint(commands: _Commands, method: str, function: Callable[..., Reply]) -> None:
    """Add the command that calls a method."""
    about, texts = _documented(function)
    name = _plain(method, _JOB_COMMANDS)
    params = _add_command(commands, name, about, run=_call, method=method)
    arguments = dict(inspect.signature(function).parameters)
    del arguments["self"], arguments["idempotency_key"], arguments["on_progress"]
    for argument, parameter in arguments.items():
        is_required = parameter.default is parameter.empty
        text = texts.get(argument, "") + (" Required." if is_required else "")
        params.add_argument(
            f"--{_plain(argument, arguments)}",
            dest=_PARAM + argument,
            required=is_required,
            default=argparse.SUPPRESS,
            **_settings(parameter.annotation, text),
        )


def _settings(annotation: Any, text: str) -> dict[str, Any]:
    """Return how argparse shows and reads an argument of a type."""
    for hint in (annotation, *get_args(annotation)):
        if get_origin(hint) is Literal:
            words = {str(word): word for word in get_args(hint)}
            text = f"{text} One of {', '.join(words)}."
            return {"metavar": "WORD", "type": _one_of(words), "help": _help(text)}
    return {**_SETTINGS[annotation | None], "help": _help(text)}


def _documented(method: Callable[..., Reply]) -> tuple[str, dict[str, str]]:
    """Return what a docstring says about its method, and about each argument in `Args:`."""
    doc = inspect.getdoc(method) or ""
    about, has_arguments, described = doc.rpartition("\n\nArgs:\n")
    if not has_arguments:
        return doc, {}
    # An argument begins with four spaces, and goes on with eight.
    entries = re.split("^    (?! )", described, flags=re.MULTILINE)[1:]
    pairs = (" ".join(entry.split()).partition(": ") for entry in entries)
    return about, {name: text for name, _, text in pairs}


def _plain(name: str, taken: Container[str]) -> str:
    """Return the word for a name of Python, which may end in _ because Python has the word."""
    word = name.removesuffix("_")
    return (name if word in taken else word).replace("_", "-")


def _one_of(values: Mapping[str, object]) -> Callable[[str], object]:
    def read(text: str) -> object:
        if text not in values:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(map(repr, values))}")
        return values[text]

    return read


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError("it is not UTF-8") from error
    return text


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return number


def _media(text: str) -> Media:
    return text if re.match("https?:|data:", text, re.IGNORECASE) else Path(text)


def _named_media(text: str) -> tuple[str, Media]:
    name, equals, media = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE|URL")
    return name, _media(media)


def _graph(text: str) -> Graph:
    try:
        graph: Graph = json.loads(Path(text).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be read: {error}") from error
    if not isinstance(graph, dict):
        raise argparse.ArgumentTypeError(f"{text!r} holds no graph")
    return graph


# How an option of a type is shown and read.
_SETTINGS: Final[dict[Any, dict[str, Any]]] = {
    str | None: {"metavar": "TEXT", "type": _text},
    int | None: {"metavar": "N", "type": int},
    float | None: {"metavar": "X", "type": _number},
    bool | None: {
        "metavar": "true|false",
        "type": _one_of({"true": True, "false": False}),
        "nargs": "?",
        "const": True,
    },
    Media | None: {"metavar": "FILE|URL", "type": _media},
    Files | None: {
        "metavar": "NAME=FILE|URL",
        "type": _named_media,
        "action": "extend",
        "nargs": "+",
    },
    Graph | None: {"metavar": "FILE", "type": _graph},
}


def _help(text: str) -> str:
    """Return a text that argparse prints as it is."""
    return printable(text).replace("%", "%%")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _complain(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
