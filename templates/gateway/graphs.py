"""Graphs on their way to an engine: what the engine would refuse, and files that are not there."""

import asyncio
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ..graph.catalog import Catalog, Input, is_listed_name, open_catalog
from ..graph.check import Finding, check_graph
from ..graph.classes import inputs_of, resolve_classes
from ..graph.convert import convert, is_ui
from ..graph.families import Families, Known, check_families, declared_families
from ..graph.records import Graph
from ..graph.sizes import Size, sizes
from ..graph.words import did_you_mean, show
from ..params import Request
from .backend import Backend, UnreadModelError
from .limits import Limits
from .problems import Fault, Problem, pointer

# Texts that nodes of packs take for a path.
_PATH_INPUT: Final = re.compile(
    r"(^|_)(path|dir|directory|folder|url)($|_)|^(audio|model|text)_file$|^file_?name$"
)
# Enough for a caller to see what is wrong; near names are looked for with each.
_MOST_MISSING: Final = 20


@dataclass(frozen=True)
class Graphs:
    """The node schemas of the deployed ComfyUI and its packs, and where the specs' nodes stand.

    `build` is the folder of the app; `model_families` are those that models.yaml declares.
    """

    build: Path
    version: str
    model_families: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def catalog(self) -> Catalog:
        """The node schemas.

        Raises:
            FileNotFoundError: when the build has none.
        """
        return open_catalog(self.build / "graph" / "catalogs", version=self.version)

    @cached_property
    def sources(self) -> Mapping[str, Mapping[str, Any]]:
        """Route, node, input to file, line and params, as build/sourcemap.json has it."""
        found: dict[str, Any] = json.loads((self.build / "sourcemap.json").read_text("utf-8"))
        return found

    @cached_property
    def families(self) -> Known:
        """What models.yaml says of the families of files, by folder/file."""
        parts = ((path.partition("/"), name) for path, name in self.model_families.items())
        return declared_families((folder, file, name) for (folder, _, file), name in parts)

    def converted(self, graph: object, param: str) -> object:
        """Return a caller's graph in API format, when it is in UI format; else as it is.

        Raises:
            Problem: when it cannot be converted.
        """
        if not is_ui(graph):
            return graph
        made = convert(graph, self.catalog)
        faults = [
            _fault(finding, param) for finding in made.findings if finding.severity == "error"
        ]
        if faults and not made.graph:
            faults = [Fault(pointer(param), fault.detail, fault.extra) for fault in faults]
            raise Problem("bad-graph", _summary(faults), faults)
        return made.graph

    async def check_models(self, route: str, graph: Graph, item: Request, backend: Backend) -> None:
        """Ask whether the model files that a caller names are there, and fit the others.

        Raises:
            Problem: when one is not, or does not.
        """
        listed = _Listed(backend)
        given = list(self._given(route, graph, item))
        faults = [
            Fault(pointer(param), detail, {"code": "unknown-model"})
            for one in given
            for detail in await _missing(one.value, one.taken, listed)
            for param in one.params
        ]
        if faults:
            raise Problem("unknown-model", faults[0].detail, faults)
        known, unread = await self._known(((one.value, one.taken) for one in given), backend)
        faults = [
            Fault(pointer(param), unread[one.value], {"code": "unread-header"})
            for one in given
            if one.value in unread
            for param in one.params
        ]
        if given and not faults:
            faults = list(self._misfits(graph, given, known))
        if faults:
            raise Problem("bad-model", faults[0].detail, faults)

    async def check_whole(self, graph: Graph, param: str, backend: Backend) -> None:
        """Check a graph that comes from a caller in one of their params.

        Raises:
            Problem: when the engine would refuse it, or run it and fail.
        """
        inputs = list(self._inputs(graph))
        named = ((value, taken) for _, _, value, taken in inputs if taken.folders)
        known, unread = await self._known(named, backend)
        faults = await asyncio.to_thread(lambda: list(self._faults(graph, param, known)))
        listed = _Listed(backend)
        if not faults:
            for node, name, value, taken in inputs:
                for detail in await _missing(value, taken, listed):
                    faults.append(_at(param, node, name, "unknown-model", detail))
                if taken.folders and value in unread:
                    faults.append(_at(param, node, name, "unread-header", unread[value]))
                if len(faults) >= _MOST_MISSING:
                    break
        if faults:
            raise Problem("bad-graph", _summary(faults), faults)

    def check_size(self, route: str, graph: Graph, param: str | None, limits: Limits) -> None:
        """See that no node of a graph makes more pixels than one may, or reads too long a text.

        The graph comes from a caller if it has a `param`.

        Raises:
            Problem: when it does.
        """
        faults: list[Fault] = []
        for size in sizes(graph):
            if size.pixels > limits.output_pixels:
                faults += self._too_large(route, size, param, limits.output_pixels)
        if param:
            faults += self._too_long(graph, param, limits.text_characters)
        if faults:
            code = "bad-graph" if param else "bad-params"
            raise Problem(code, str(faults[0]), faults)

    def _too_large(self, route: str, size: Size, param: str | None, most: int) -> Iterator[Fault]:
        """Yield a fault for each number of a size that the caller can change."""
        detail = f"{size} are too many; at most {most:,} are made"
        sources = self.sources.get(route, {})
        for node, name, _ in size.numbers:
            if param:
                yield _at(param, node, name, "too-many-pixels", detail)
                continue
            for one in sources.get(node, {}).get("inputs", {}).get(name, {}).get("params", ()):
                yield Fault(pointer(one), detail, {"code": "too-many-pixels"})

    def _too_long(self, graph: Graph, param: str, most: int) -> Iterator[Fault]:
        for node, name, value, taken in self._inputs(graph):
            if taken.multiline and isinstance(value, str) and len(value) > most:
                detail = f"this text has {len(value):,} characters; at most {most:,} are read"
                yield _at(param, node, name, "string_too_long", detail)

    def placed(self, graph: Graph, param: str, names: Mapping[str, str]) -> Graph:
        """Return a graph that names its input files as the gateway does.

        `names` are the gateway's names by the caller's.

        Raises:
            Problem: when the graph names a file that was not sent, or a file is not used.
        """
        changed = {
            node: {**content, "inputs": {**content["inputs"]}} for node, content in graph.items()
        }
        faults: list[Fault] = []
        used: set[str] = set()
        for node, name, value, taken in self._inputs(graph):
            if _reaches_out(name, taken, value):
                detail = "this input names files of the engine's machine, which no caller may"
                faults.append(_at(param, node, name, "engine-file", detail))
            if not taken.media or not isinstance(value, str):
                continue
            if value in names:
                changed[node]["inputs"][name] = names[value]
                used.add(value)
            else:
                hint = "send it in files, under that name"
                detail = f"no file {show(value)} was sent; {hint}"
                faults.append(_at(param, node, name, "unknown-file", detail))
        faults += [
            Fault(pointer("files", name), "no node of the graph loads this file")
            for name in names
            if name not in used
        ]
        if faults:
            raise Problem("bad-graph", _summary(faults), faults)
        return changed

    def place(self, route: str, node: str, input: str | None) -> dict[str, Any]:
        """Return where a node of an endpoint's graph is written: file, line, params."""
        entry = self.sources.get(route, {}).get(node)
        if entry is None:
            return {}
        at = entry["inputs"].get(input, entry)
        params = {p for i in entry["inputs"].values() for p in i["params"]}
        own = at.get("params")
        return {
            "file": at["file"],
            "line": at["line"],
            "params": own if own is not None else sorted(params),
        }

    def _given(self, route: str, graph: Graph, item: Request) -> Iterator["_Given"]:
        """Yield the file inputs that a caller has given."""
        files = [entry for entry in self._inputs(graph) if entry[3].folders]
        if not files:
            return
        given = {
            field.alias or name
            for name, field in type(item).model_fields.items()
            if getattr(item, name) is not None
        }
        sources = self.sources.get(route, {})
        for node, name, value, taken in files:
            inputs = sources.get(node, {}).get("inputs", {})
            params = [p for p in inputs.get(name, {}).get("params", ()) if p in given]
            if params:
                yield _Given(node, name, value, taken, params)

    async def _known(
        self, named: Iterable[tuple[Any, Input]], backend: Backend
    ) -> tuple[dict[str, Families | None], dict[str, str]]:
        """Return the families of files by folder/file, and why the header of others is unread.

        Files that no model is declared as are read where they were uploaded to.
        """
        known, unread = dict(self.families), dict[str, str]()
        for value, taken in named:
            if not isinstance(value, str) or not is_listed_name(value):
                continue
            for folder in taken.folders:
                if f"{folder}/{value}" in known or value in unread:
                    continue
                try:
                    families = await backend.families(folder, value)
                except UnreadModelError as error:
                    unread[value] = str(error)
                    continue
                if families is not None:
                    known[f"{folder}/{value}"] = families
        return known, unread

    def _misfits(self, graph: Graph, given: Sequence["_Given"], known: Known) -> Iterator[Fault]:
        """Yield where a caller's files meet models of another family."""
        classes, _ = resolve_classes(graph, self.catalog, self.catalog.packs)
        for finding in check_families(graph, classes, known):
            at = [one for one in given if (one.node, one.input) == (finding.node, finding.input)]
            for param in dict.fromkeys(param for one in at or given for param in one.params):
                yield replace(_fault(finding, param), pointer=pointer(param))

    def _inputs(self, graph: Graph) -> Iterator[tuple[str, str, Any, Input]]:
        """Yield node, input, value and schema of the inputs that there is a schema of."""
        classes = {
            node: self.catalog.get(content["class_type"], self.catalog.packs)
            for node, content in graph.items()
        }
        return inputs_of(graph, {node: c[0] for node, c in classes.items() if len(c) == 1})

    def _faults(self, graph: Graph, param: str, known: Known) -> Iterator[Fault]:
        classes, unknown = resolve_classes(graph, self.catalog, self.catalog.packs)
        findings = (
            *unknown,
            *check_graph(graph, classes, self.catalog),
            *check_families(graph, classes, known),
        )
        for finding in findings:
            if finding.severity == "error":
                yield _fault(finding, param)


@dataclass(frozen=True, slots=True)
class _Given:
    """An input whose value comes from params that a caller has given."""

    node: str
    input: str
    value: Any
    taken: Input
    params: Sequence[str]


async def _missing(value: object, taken: Input, listed: "_Listed") -> list[str]:
    """Say that an input's file is in none of its model folders, if so."""
    if not taken.folders or not isinstance(value, str) or value in taken.options:
        return []
    files: list[str] = []
    for folder in taken.folders:
        found = await listed.files(folder)
        if found is None:
            return []  # a folder that the engine does not list, so it says what is in it
        files += found
    if value in files:
        return []
    where = " or ".join(taken.folders)
    hint = did_you_mean(value, files)
    return [f"there is no file {show(value)} in {where}" + (f"; {hint}" if hint else "")]


def _reaches_out(name: str, taken: Input, value: object) -> bool:
    """Say whether an input's value may lead to a file that is no model and was not sent."""
    if isinstance(value, dict) and "__value__" in value:
        # ComfyUI unwraps it; only a list needs it.
        return not isinstance(value["__value__"], list) or taken.type == "COMBO"
    if taken.type == "STRING":
        return bool(_PATH_INPUT.search(name)) and value not in ("", None)
    if taken.type != "COMBO":
        return False
    if taken.media:
        return not isinstance(value, str)
    if taken.folders:
        return isinstance(value, str) and value not in taken.options and not is_listed_name(value)
    # What an input without options lists, no schema says; a model's name does no harm.
    return not taken.options and not (isinstance(value, str) and is_listed_name(value))


class _Listed:
    """The files of model folders, asked for once."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._files: dict[str, Collection[str] | None] = {}

    async def files(self, folder: str) -> Collection[str] | None:
        """Return the files of a folder, None when there is no such folder."""
        if folder not in self._files:
            self._files[folder] = await self._backend.models(folder)
        return self._files[folder]


def _at(param: str, node: str, name: str, code: str, detail: str) -> Fault:
    """Return a fault of an input of a caller's graph."""
    extra = {"code": code, "node": node, "input": name}
    return Fault(pointer(param, node, "inputs", name), detail, extra)


def _fault(finding: Finding, param: str) -> Fault:
    path: list[str] = [param]
    if finding.node is not None:
        path.append(finding.node)
    if finding.input is not None:
        path += ["inputs", finding.input]
    detail = finding.message + (f"; {finding.hint}" if finding.hint else "")
    extra = {"code": finding.code, "node": finding.node, "input": finding.input}
    return Fault(pointer(*path), detail, {k: v for k, v in extra.items() if v is not None})


def _summary(faults: Sequence[Fault]) -> str:
    count = f"{len(faults)} faults" if len(faults) > 1 else "one fault"
    return f"{count} in the graph: {faults[0]}"
