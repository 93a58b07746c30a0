"""The models and packs that a graph needs and models.yaml does not declare yet.

Sources come from what the canvas keeps in its nodes: `properties.models` (name, url, directory,
hash), `cnr_id`, `aux_id` and `ver`. What they do not tell is left undecided.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from ..check.implicit import loaded
from ..check.uses import model_for, undeclared
from ..graph.catalog import Catalog, ClassType, Input, is_listed_name, is_model_file
from ..graph.classes import inputs_of, nearest_class
from ..graph.convert import CanvasNode
from ..graph.records import Graph
from ..graph.words import printable, show
from ..schema import fits
from ..spec import Models

_HUB: Final = ("huggingface.co", "www.huggingface.co", "hf.co")
_COMMIT: Final = re.compile("[0-9a-f]{40}")
_NOT_IN_NAMES: Final = re.compile("[^A-Za-z0-9._-]+")
_LONGEST_NAME: Final = 100


class Undecided(NamedTuple):
    """Something that a person must decide, and where it shows."""

    message: str
    node: str | None = None


class Listed(NamedTuple):
    """A model file as the canvas keeps it, with the node that holds it."""

    node: str | None
    model: Mapping[str, Any]


@dataclass
class Needs:
    """Entries to add to models.yaml, by name, and what could not be decided."""

    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    packs: dict[str, dict[str, Any]] = field(default_factory=dict)
    undecided: list[Undecided] = field(default_factory=list)


def listed_models(document: Mapping[str, Any], canvas: Mapping[str, CanvasNode]) -> list[Listed]:
    """Return the files that a saved workflow says where to get, each with the node that says so."""
    lists = [(node, found.properties.get("models")) for node, found in canvas.items()]
    return [
        Listed(node, model)
        for node, models in (*lists, (None, document.get("models")))
        for model in (models if isinstance(models, list) else ())
        if isinstance(model, dict) and isinstance(model.get("name"), str)
    ]


def find_needs(
    graph: Graph,
    classes: Mapping[str, ClassType],
    canvas: Mapping[str, CanvasNode],
    listed: Collection[Listed],
    declared: Models,
    catalog: Catalog,
) -> Needs:
    """Return what a graph needs beyond what models.yaml declares; `listed` are `listed_models`."""
    needs = Needs()
    _find_packs(graph, canvas, declared, catalog, needs)
    destinations: set[str] = set()
    for node, name, value, taken in inputs_of(graph, classes):
        if not taken.folders or not isinstance(value, str):
            continue
        if model_for(value, taken, declared) or (
            value in taken.options and not is_model_file(value)
        ):
            continue
        if any(f"{folder}/{value}" in destinations for folder in taken.folders):
            continue
        found = _source(node, value, taken, listed)
        if isinstance(found, Undecided):
            wrong = undeclared(classes[node].name, name, value, taken, declared)
            if wrong and wrong.code == "wrong-folder":
                found = Undecided(f"{wrong.message}; {wrong.hint}", node)
            needs.undecided.append(found)
            continue
        needs.models[_free_name(value, declared, needs)] = found
        destinations.add(f"{found['folder']}/{value}")
    _find_implicit(graph, classes, declared, destinations, needs)
    return needs


def _find_implicit(
    graph: Graph,
    classes: Mapping[str, ClassType],
    declared: Models,
    destinations: set[str],
    needs: Needs,
) -> None:
    """Add the files that classes load though no input names them, where it is known from where."""
    destinations |= {model.destination for model in declared.models.values()}
    for node, class_type in classes.items():
        if node not in graph:
            continue
        for loads in loaded(class_type, graph[node]["inputs"]):
            for pattern in loads.files:
                if any(fnmatchcase(path, pattern) for path in destinations):
                    continue
                folder, _, file = pattern.rpartition("/")
                if loads.hf and not set("*?[") & set(pattern):
                    entry = {"source": {"hf": loads.hf, "file": file}, "folder": folder}
                    needs.models[_free_name(file, declared, needs)] = entry
                    destinations.add(pattern)
                else:
                    message = f"where {pattern} comes from, which {class_type.name} loads: "
                    message += "declare it in models.yaml"
                    needs.undecided.append(Undecided(message, node))


def _find_packs(
    graph: Graph,
    canvas: Mapping[str, CanvasNode],
    declared: Models,
    catalog: Catalog,
    needs: Needs,
) -> None:
    for node, content in graph.items():
        name = content["class_type"]
        properties = canvas[node].properties if node in canvas else {}
        if catalog.get(name, declared.packs):
            continue
        with_it = catalog.packs_with(name)
        said = [pack for pack in with_it if _is_said(pack, catalog, properties)]
        chosen = said or with_it
        if len(chosen) == 1:
            header = catalog.packs[chosen[0]].header
            if chosen[0] not in declared.packs:
                needs.packs[chosen[0]] = {"git": header["repo"], "commit": header["commit"]}
        elif chosen:
            packs = " and ".join(chosen)
            message = f"class {show(name)} is in {packs}: declare one of them in models.yaml"
            needs.undecided.append(Undecided(message, node))
        elif pack := _pack_of(properties):
            needs.packs.setdefault(*pack)
        elif not _may_be_in(declared, catalog, properties):
            needs.undecided.append(Undecided(_unknown_class(name, properties, catalog), node))


def _is_said(pack: str, catalog: Catalog, properties: Mapping[str, Any]) -> bool:
    """Say whether a node names a pack as its own: by its name in the registry, or on GitHub."""
    repository = str(catalog.packs[pack].header.get("repo", "")).casefold()
    names = [properties.get("cnr_id"), properties.get("aux_id")]
    own = {str(name).casefold() for name in names if isinstance(name, str) and name}
    return pack.casefold() in own or any(repository.endswith(f"/{name}") for name in own)


def _pack_of(properties: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the pack that a node names with repository and commit."""
    repository, commit = properties.get("aux_id"), properties.get("ver")
    if not isinstance(repository, str) or not isinstance(commit, str):
        return None
    name = repository.rpartition("/")[2]
    entry = {"git": f"https://github.com/{repository}", "commit": commit}
    is_pack = repository.count("/") == 1 and fits({"packs": {name: entry}}, "models")
    return (name, entry) if is_pack else None


def _may_be_in(declared: Models, catalog: Catalog, properties: Mapping[str, Any]) -> bool:
    """Say whether a declared pack without schemas is the one that a node names."""
    named = {
        str(properties.get(key, "")).rpartition("/")[2].casefold() for key in ("aux_id", "cnr_id")
    }
    unseen = {name.casefold() for name in declared.packs if name not in catalog.packs}
    return bool(unseen & (named - {""}))


def _unknown_class(name: str, properties: Mapping[str, Any], catalog: Catalog) -> str:
    message = f"no pack is known that has class {show(name)}"
    said = [f"{key} {show(v)}" for key in ("cnr_id", "aux_id", "ver") if (v := properties.get(key))]
    if said:
        return f"{message}; the node names {', '.join(said)}: declare that pack, with its commit"
    near = nearest_class(name, catalog)
    return f"{message}; {near}" if near else f"{message}: declare the pack in models.yaml"


def _source(
    node: str, value: str, taken: Input, listed: Collection[Listed]
) -> dict[str, Any] | Undecided:
    """Return the entry of models.yaml for a file, or what is not known of it."""
    file = f"{printable(value)} (folder {' or '.join(taken.folders)})"
    if not is_listed_name(value):
        return Undecided(f"{file} is no name of a model file", node)
    names = {value, value.rpartition("/")[2]}
    fitting = [one for one in listed if one.model["name"] in names]
    fitting = [one for one in fitting if one.node == node] or fitting
    urls = {str(one.model.get("url", "")) for one in fitting}
    if not fitting:
        return Undecided(f"where {file} comes from: declare it in models.yaml", node)
    if len({_plain_url(url) for url in urls}) > 1:
        return Undecided(f"which source of {file} is meant: {' or '.join(sorted(urls))}", node)
    model = fitting[0].model
    folder = model.get("directory")
    if folder not in taken.folders:
        if len(taken.folders) > 1:
            said = f"the file says {show(folder)}" if folder else "the file says none"
            return Undecided(f"the folder of {file}: {said}", node)
        folder = taken.folders[0]
    url = str(model.get("url", ""))
    source = _hub_source(url) or _url_source(url, model)
    if source is None:
        return Undecided(f"the source of {file}: {_why_not(url)}", node)
    entry: dict[str, Any] = {"source": source, "folder": folder}
    if (source.get("file") or url).rpartition("/")[2] != value:
        entry["filename"] = value
    if not fits({"models": {"name": entry}}, "models"):
        return Undecided(
            f"the source of {file}: {show(url)} cannot be written into models.yaml", node
        )
    return entry


def _plain_url(url: str) -> str:
    return url.partition("?")[0].replace("/blob/", "/resolve/")


def _hub_source(url: str) -> dict[str, str] | None:
    """Return what an address of a file on Hugging Face says, None for one that is not.

    A branch other than main cannot be named in models.yaml, whose revisions are commits.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    path = [unquote(part) for part in parts.path.split("/")[1:]]
    if parts.scheme not in ("http", "https") or parts.hostname not in _HUB or len(path) < 5:
        return None
    owner, repository, verb, revision, *file = path
    if verb not in ("resolve", "blob", "raw"):
        return None
    source = {"hf": f"{owner}/{repository}", "file": "/".join(file)}
    if _COMMIT.fullmatch(revision):
        return {**source, "revision": revision}
    return source if revision == "main" else None


def _url_source(url: str, model: Mapping[str, Any]) -> dict[str, str] | None:
    """Return an address with its hash, which models.yaml asks for."""
    digest, kind = model.get("hash"), model.get("hash_type", "SHA256")
    is_hash = isinstance(digest, str) and str(kind).upper().replace("-", "") == "SHA256"
    if not is_hash or _host(url) in (None, *_HUB):
        return None
    return {"url": url, "sha256": str(digest).lower()}


def _host(url: str) -> str | None:
    """Return the host of an address, None for what is none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _why_not(url: str) -> str:
    if not url:
        return "the file names no address"
    if _host(url) is None:
        return f"{show(url)} is no address"
    if _host(url) in _HUB:
        return f"{show(url)} is no address of a file on main or at a commit"
    return f"{show(url)} comes without its sha256, which models.yaml needs"


def _free_name(file: str, declared: Models, needs: Needs) -> str:
    """Return a name for a model that no other has: its file's, as far as names may be such."""
    stem = PurePosixPath(file).stem
    name = _NOT_IN_NAMES.sub("-", stem).strip("-._")[: _LONGEST_NAME - 4] or "model"
    number = 2
    free = name
    while free in declared.models or free in needs.models:
        free = f"{name}-{number}"
        number += 1
    return free
