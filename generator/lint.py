"""Check bare graphs: files that hold one in ComfyUI's API format, or in UI format."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .check.implicit import missing_implicit, undeclared_implicit
from .check.models import families_of
from .check.uses import undeclared
from .diagnostics import Diagnostic
from .graph.catalog import Catalog, ClassType, Input, is_listed_name
from .graph.check import Finding, check_graph
from .graph.classes import inputs_of, resolve_classes, without_schemas
from .graph.convert import convert, is_ui
from .graph.families import Families, check_families
from .graph.safetensors import family_of_keys, read_header
from .graph.words import did_you_mean, show
from .graph_files import parse, placed, read_text
from .spec import Models


@dataclass(frozen=True, slots=True)
class Rules:
    """What graphs are checked against.

    Without `models` every pack that there are node schemas of counts as installed, and files are
    looked for in `folder`, ComfyUI's models folder; without that too, a loader's file must only
    have a name that its folder can list.
    """

    catalog: Catalog
    models: Models | None = None
    folder: Path | None = None
    allow_api_nodes: bool = False


def lint(path: Path, name: str, rules: Rules) -> list[Diagnostic]:
    """Return what is wrong with the graph in a file; `name` is what diagnostics call it."""
    text, faults = read_text(path, name)
    if text is None:
        return faults
    document, faults = parse(text, name)
    if faults:
        return faults
    findings = _of_document(document, rules)
    return list(placed(findings, document, text, name)) if findings else []


def _of_document(document: Any, rules: Rules) -> list[Finding]:
    if not is_ui(document):
        return _findings(document, rules)
    made = convert(document, rules.catalog)
    if not made.graph and made.findings:
        return list(made.findings)
    # Which classes are unknown depends on the packs, so that is found out below.
    noted = [finding for finding in made.findings if finding.code != "unknown-class"]
    return noted + _findings(made.graph, rules)


def _findings(graph: Any, rules: Rules) -> list[Finding]:
    models = rules.models
    packs = rules.catalog.packs if models is None else models.packs
    classes, findings = resolve_classes(graph, rules.catalog, packs, choose=models is None)
    unseen = [pack for pack in packs if pack not in rules.catalog.packs]
    findings += _unchecked(graph, classes, findings, unseen)
    findings += check_graph(graph, classes, rules.catalog, allow_api_nodes=rules.allow_api_nodes)
    vain = {finding.node for finding in findings if finding.code == "unreachable"}
    run = {node: class_type for node, class_type in classes.items() if node not in vain}
    known = dict(families_of(models)) if models else {}
    if rules.folder is not None:
        files = list(_files(graph, run))
        findings += _missing(files, rules.folder)
        findings += _missing_implicit(graph, run, rules.folder)
        known |= _families(files, rules.folder, findings)
    findings += check_families(graph, classes, known)
    if models is not None:
        findings += _undeclared(graph, run, models)
    return findings


def _unchecked(
    graph: Any, classes: Mapping[str, ClassType], findings: list[Finding], packs: list[str]
) -> Iterator[Finding]:
    """Yield one warning for all nodes that may be of packs without node schemas."""
    reported = {finding.node for finding in findings}
    nodes = {
        node: content["class_type"]
        for node, content in (graph.items() if isinstance(graph, dict) else ())
        if node not in classes and node not in reported and _has_class(content)
    }
    if packs and nodes:
        message, hint = without_schemas(packs, set(nodes.values()))
        yield Finding("no-schemas", "warning", message, next(iter(nodes)), hint=hint)


def _has_class(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("class_type"), str)


def _undeclared(
    graph: dict[str, Any], classes: dict[str, ClassType], models: Models
) -> Iterator[Finding]:
    """Yield the files that a graph loads and models.yaml does not declare."""
    for node, name, value, taken in _files(graph, classes):
        if wrong := undeclared(classes[node].name, name, value, taken, models):
            yield replace(wrong, node=node)
    for node, inputs in _loading(graph, classes):
        for wrong in undeclared_implicit(classes[node], inputs, models):
            yield replace(wrong, node=node)


def _files(graph: Any, classes: dict[str, ClassType]) -> Iterator[tuple[str, str, str, Input]]:
    """Yield node, input, value and schema where a graph loads a model file."""
    for node, name, value, taken in inputs_of(graph, classes) if classes else ():
        if taken.folders and isinstance(value, str) and is_listed_name(value):
            yield node, name, value, taken


def _loading(graph: Any, classes: dict[str, ClassType]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the nodes that load files which no input names, with their inputs."""
    for node, class_type in classes.items():
        if class_type.loads and isinstance(graph[node].get("inputs"), dict):
            yield node, graph[node]["inputs"]


def _missing_implicit(graph: Any, classes: dict[str, ClassType], models: Path) -> Iterator[Finding]:
    for node, inputs in _loading(graph, classes):
        found = missing_implicit(
            classes[node],
            inputs,
            lambda pattern: any(path.is_file() for path in models.glob(pattern)),
            f"are not below {models}",
        )
        yield from (replace(wrong, node=node, hint=None) for wrong in found)


def _missing(files: Iterable[tuple[str, str, str, Input]], models: Path) -> Iterator[Finding]:
    """Yield the files that are in none of their folders below ComfyUI's models folder."""
    for node, name, value, taken in files:
        if value in taken.options or any((models / f / value).is_file() for f in taken.folders):
            continue
        there = [
            path.relative_to(models / folder).as_posix()
            for folder in taken.folders
            for path in (models / folder).rglob("*")
        ]
        message = f"there is no file {show(value)} in {' or '.join(taken.folders)} below {models}"
        hint = did_you_mean(value, there)
        yield Finding("no-such-model", "error", message, node, name, hint)


def _families(
    files: Iterable[tuple[str, str, str, Input]], models: Path, findings: list[Finding]
) -> dict[str, Families | None]:
    """Return the families that the headers of files tell, by folder/file.

    A file whose header cannot be read is noted in `findings`; an empty one stands for another.
    """
    found: dict[str, Families | None] = {}
    for node, name, value, taken in files:
        for folder in taken.folders:
            path = models / folder / value
            if path.suffix != ".safetensors" or not path.is_file() or not path.stat().st_size:
                continue
            try:
                families = family_of_keys(read_header(path), folder)
            except (OSError, ValueError) as error:
                message = f"{show(value)} cannot be read: {error}"
                findings.append(Finding("unread-header", "warning", message, node, name))
                continue
            if families is not None:
                found[f"{folder}/{value}"] = families
    return found
