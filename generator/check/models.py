"""Models and packs: what the graphs need, what is declared, what goes where."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..diagnostics import Diagnostic, Severity
from ..graph.catalog import Catalog, ClassType, Input, is_listed_name, is_model_file
from ..graph.check import Finding
from ..graph.families import Known, declared_families, families_named
from ..graph.family_tables import FAMILIES
from ..graph.words import did_you_mean, printable, show
from ..load import Node
from ..spec import GraphNode, InputValue, Model, Models, Workflow
from .reach import run_nodes


@dataclass(frozen=True)
class Uses:
    """The models and packs that a workflow needs, by name, sorted."""

    models: tuple[str, ...]
    packs: tuple[str, ...]


def check_uses(
    workflow: Workflow, classes: Mapping[str, ClassType], models: Models
) -> tuple[Uses, list[Diagnostic]]:
    """Return what a workflow uses, and the files that it loads and nobody declared."""
    faults: list[Diagnostic] = []
    used = {name for name in workflow.models if name in models.models}
    run = run_nodes(workflow, classes)
    for node in (node for node in workflow.graph.values() if node.id in run):
        schemas = classes[node.id].inputs if node.id in classes else {}
        for name, value in node.inputs.items():
            schema = schemas.get(name)
            if schema and schema.media and isinstance(value.value, str):
                faults.append(_uploaded(node, name, value))
            if schema is None or not schema.folders:
                continue
            for file, at in _files(workflow, value):
                found = model_for(file, schema, models)
                if found:
                    used.add(found.name)
                elif wrong := undeclared(node.class_type, name, file, schema, models):
                    faults.append(
                        at.error(
                            wrong.code, wrong.message, node=node.id, input=name, hint=wrong.hint
                        )
                    )
    folders = {param.folder for param in workflow.params.values() if param.type == "model"}
    used |= {name for name, model in models.models.items() if model.folder in folders}
    packs = {classes[node].pack or "" for node in run if node in classes} | set(workflow.packs)
    packs &= set(models.packs)
    used |= {model for pack in packs for model in models.packs[pack].models}
    return Uses(tuple(sorted(used & set(models.models))), tuple(sorted(packs))), faults


def families_of(models: Models) -> Known:
    """Return the families that models.yaml declares, by folder/file."""
    return declared_families(
        (model.folder, model.filename, model.family)
        for model in models.models.values()
        if model.family
    )


def check_unused(models: Models, uses: Iterable[Uses]) -> list[Diagnostic]:
    """Return what models.yaml declares and no workflow needs."""
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
        if name not in used_packs
    ]


def check_declarations(models: Models, catalog: Catalog) -> list[Diagnostic]:
    """Return faults of models.yaml itself."""
    faults = _unlocked(models) + _unknown_families(models)
    faults += [
        model.at.mapping["folder"].error(
            "wrong-folder", "folders are below models/ already", hint="leave out models/"
        )
        for model in models.models.values()
        if model.folder.startswith("models/")
    ]
    faults += [
        model.at.error(
            "bad-filename",
            f"{show(model.filename)} is no name of a model file",
            hint="give a filename that ends in .safetensors or another extension of models",
            at_key=True,
        )
        for model in models.models.values()
        if "filename" not in model.at.mapping and not is_listed_name(model.filename)
    ]
    faults += _collisions(models)
    return faults + _check_packs(models, catalog)


def _unlocked(models: Models) -> list[Diagnostic]:
    """Say once which models are pinned to no revision."""
    loose = [m for m in models.models.values() if "hf" in m.source and "revision" not in m.source]
    if not loose:
        return []
    names = ", ".join(model.name for model in loose[:3]) + (", …" if len(loose) > 3 else "")
    count = "1 model has" if len(loose) == 1 else f"{len(loose)} models have"
    message = f"{count} no revision ({names}): what is downloaded may change"
    hint = "pin source.revision to a commit of the repository"
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


def _check_packs(models: Models, catalog: Catalog) -> list[Diagnostic]:
    faults: list[Diagnostic] = []
    for name, pack in models.packs.items():
        for item in pack.at.mapping["models"].items if pack.models else []:
            if item.text not in models.models:
                message = f"models.yaml declares no model {show(item.text)}"
                hint = did_you_mean(item.text, models.models)
                faults.append(item.error("undeclared-model", message, hint=hint))
        file = catalog.packs.get(name)
        if file is None:
            message = f"there are no node schemas of pack {show(name)}: its nodes go unchecked"
            hint = "make them where it is installed: python -m generator catalog --url URL"
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


def model_for(file: str, schema: Input, models: Models) -> Model | None:
    """Return the declared model that an input reads under a file name."""
    destinations = {f"{folder}/{file}" for folder in schema.folders}
    return next((m for m in models.models.values() if m.destination in destinations), None)


def _uploaded(node: GraphNode, name: str, value: InputValue) -> Diagnostic:
    message = f"nobody uploads {show(value.value)}: files come from callers"
    hint = "use a param of type image, video or audio"
    return value.at.error("input-file", message, node=node.id, input=name, hint=hint)


def _files(workflow: Workflow, value: InputValue) -> list[tuple[str, Node]]:
    """Return the file names that an input is known to get: its own, or those of its params.

    What a caller may send besides is not known here: such files come onto a Volume later.
    """
    if isinstance(value.value, str):
        return [(value.value, value.at)]
    params = [
        workflow.params[name]
        for slot, whole in value.slots
        for name in slot.names
        if whole and name in workflow.params
    ]
    entries = [
        entry
        for param in params
        if not (param.prefix or param.suffix)
        for entry in (param.at.mapping.get("default"), *_items(param.at.mapping.get("enum")))
    ]
    return [
        (entry.value, entry)
        for entry in entries
        if entry and isinstance(entry.value, str) and is_listed_name(entry.value)
    ]


def _items(at: Node | None) -> list[Node]:
    return at.items if at else []


def undeclared(
    class_type: str, name: str, file: str, schema: Input, models: Models
) -> Finding | None:
    """Return what is wrong with a file that no declared model is; None for a fixed option."""
    if file in schema.options and not is_model_file(file):
        return None
    folders = " or ".join(schema.folders)
    elsewhere = next((m for m in models.models.values() if m.filename == file), None)
    if elsewhere:
        message = (
            f"{show(file)} is declared for folder {elsewhere.folder}, "
            f"but {class_type} reads {folders} (case matters)"
        )
        hint = f"set folder: {schema.folders[0]} for model {show(elsewhere.name)} in models.yaml"
        return Finding("wrong-folder", "error", message, input=name, hint=hint)
    here = [model.filename for model in models.models.values() if model.folder in schema.folders]
    hint = did_you_mean(file, here) or (
        f"add to models: in models.yaml: NAME: {{source: {{hf: OWNER/REPO, file: {printable(file)}}}, "
        f"folder: {schema.folders[0]}}}"
    )
    message = f"no model {show(file)} is declared in folder {folders}"
    return Finding("undeclared-model", "error", message, input=name, hint=hint)
