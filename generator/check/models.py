"""Models and packs: what the graphs need, what is declared, what goes where."""

from collections.abc import Collection, Iterable

from ..diagnostics import Diagnostic, Severity
from ..graph.catalog import Catalog, is_listed_name
from ..graph.classes import without_schemas
from ..graph.families import Known, declared_families, families_named
from ..graph.family_tables import FAMILIES
from ..graph.words import did_you_mean, show
from ..load import Node
from ..spec import Model, Models
from .secrets import check_addresses
from .uses import Uses


def families_of(models: Models) -> Known:
    """Return the families that models.yaml declares, by folder/file."""
    return declared_families(
        (model.folder, model.filename, model.family)
        for model in models.models.values()
        if model.family
    )


def check_unused(models: Models, uses: Iterable[Uses], catalog: Catalog) -> list[Diagnostic]:
    """Return what models.yaml declares and no workflow needs.

    Of packs without node schemas nobody knows.
    """
    uses = list(uses)
    used_models = {name for use in uses for name in use.models}
    used_packs = {name for use in uses for name in use.packs}
    unused = [
        model.at.report(
            Severity.WARNING, "unused-model", f"no workflow uses model {show(name)}", at_key=True
        )
        for name, model in models.models.items()
        if name not in used_models and "volume" not in model.source
    ]
    return unused + [
        pack.at.report(
            Severity.WARNING, "unused-pack", f"no workflow uses pack {show(name)}", at_key=True
        )
        for name, pack in models.packs.items()
        if name not in used_packs and name in catalog.packs
    ]


def check_declarations(
    models: Models, catalog: Catalog, named: Iterable[str], unchecked: Collection[str]
) -> list[Diagnostic]:
    """Return faults of models.yaml itself.

    `named` are the models that workflows name under `models:`. What is named there, or by a pack,
    is read by code that knows its name, and needs none that ComfyUI lists. `unchecked` are the
    classes that may be of packs without node schemas.
    """
    faults = _unknown_families(models) + check_addresses(models)
    faults += [
        model.at.mapping["folder"].error(
            "wrong-folder", "folders are below models/ already", hint="leave out models/"
        )
        for model in models.models.values()
        if model.folder.startswith("models/")
    ]
    by_name = {name for pack in models.packs.values() for name in pack.models}.union(named)
    faults += [
        _place(model, "filename").error(
            "bad-filename",
            f"{show(model.filename)} is no name of a model file",
            hint="give a filename that ends in .safetensors or another extension of models",
            at_key="filename" not in model.at.mapping,
        )
        for name, model in models.models.items()
        if name not in by_name and not is_listed_name(model.filename)
    ]
    faults += _collisions(models)
    return faults + _check_packs(models, catalog, unchecked)


def _place(model: Model, key: str) -> Node:
    return model.at.mapping.get(key, model.at)


def check_unlocked(models: Models) -> list[Diagnostic]:
    """Say once which models are pinned to no revision, where there is no lock."""
    loose = [m for m in models.models.values() if "hf" in m.source and "revision" not in m.source]
    if not loose:
        return []
    names = ", ".join(model.name for model in loose[:3]) + (", …" if len(loose) > 3 else "")
    count = "1 model has" if len(loose) == 1 else f"{len(loose)} models have"
    message = f"{count} no revision ({names}): what is downloaded may change"
    hint = "pin them with make lock, or source.revision to a commit of the repository"
    at = loose[0].at.mapping["source"]
    return [at.report(Severity.INFO, "unlocked", message, hint=hint)]


def _unknown_families(models: Models) -> list[Diagnostic]:
    return [
        model.at.mapping["family"].report(
            Severity.WARNING,
            "unknown-family",
            f"{show(model.family)} is no family that is known here, so it is not followed",
            hint=did_you_mean(model.family, sorted(FAMILIES))
            or f"known are {', '.join(sorted(FAMILIES))}",
        )
        for model in models.models.values()
        if model.family and families_named(model.family) is None
    ]


def _check_packs(models: Models, catalog: Catalog, unchecked: Collection[str]) -> list[Diagnostic]:
    faults: list[Diagnostic] = []
    for name, pack in models.packs.items():
        for item in pack.at.mapping["models"].items if pack.models else []:
            if item.text not in models.models:
                message = f"models.yaml declares no model {show(item.text)}"
                hint = did_you_mean(item.text, models.models)
                faults.append(item.error("undeclared-model", message, hint=hint))
        file = catalog.packs.get(name)
        if file is None:
            message, hint = without_schemas([name], unchecked)
            faults.append(
                pack.at.report(Severity.WARNING, "no-schemas", message, hint=hint, at_key=True)
            )
        elif file.commit and file.commit != pack.commit:
            message = f"the node schemas of {show(name)} are of another commit, {file.commit}"
            at = pack.at.mapping["commit"]
            faults.append(at.report(Severity.WARNING, "other-commit", message))
    return faults


def _collisions(models: Models) -> list[Diagnostic]:
    faults: list[Diagnostic] = []
    first: dict[str, Model] = {}
    for model in models.models.values():
        other = first.setdefault(model.destination, model)
        if other is not model:
            message = f"{model.destination} is the file of model {show(other.name)} already"
            hint = "give one of them another filename"
            faults.append(model.at.error("same-destination", message, hint=hint, at_key=True))
    return faults
