"""Models and packs: what the graphs need, what is declared, what goes where."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..diagnostics import Diagnostic, Severity, did_you_mean, show
from ..graph.catalog import Catalog, ClassType, Input, is_model_file
from ..spec import GraphNode, InputValue, Model, Models, Workflow


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
    for node in workflow.graph.values():
        schemas = classes[node.id].inputs if node.id in classes else {}
        for name, value in node.inputs.items():
            schema = schemas.get(name)
            if schema and schema.folders and isinstance(value.value, str):
                found = _model_for(value.value, schema, models)
                if found:
                    used.add(found.name)
                elif value.value not in schema.options or is_model_file(value.value):
                    faults.append(_undeclared(node, name, value, schema, models))
    packs = {c.pack for c in classes.values() if c.pack} | set(workflow.packs)
    packs &= set(models.packs)
    used |= {model for pack in packs for model in models.packs[pack].models}
    return Uses(tuple(sorted(used & set(models.models))), tuple(sorted(packs))), faults


def check_declarations(models: Models, uses: Iterable[Uses], catalog: Catalog) -> list[Diagnostic]:
    """Return faults of models.yaml itself, and what no workflow needs."""
    uses = list(uses)
    used_models = {name for use in uses for name in use.models}
    used_packs = {name for use in uses for name in use.packs}
    faults = [
        model.at.report(
            Severity.WARNING, "unused-model", f"no workflow uses model {show(name)}", at_key=True
        )
        for name, model in models.models.items()
        if name not in used_models and "volume" not in model.source
    ]
    faults += [
        pack.at.report(
            Severity.WARNING, "unused-pack", f"no workflow uses pack {show(name)}", at_key=True
        )
        for name, pack in models.packs.items()
        if name not in used_packs
    ]
    faults += [
        model.at.mapping["source"].report(
            Severity.INFO, "unlocked", f"no revision of {show(model.source['hf'])} is pinned yet"
        )
        for model in models.models.values()
        if "hf" in model.source and "revision" not in model.source
    ]
    faults += _collisions(models)
    return faults + _check_packs(models, catalog)


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
            faults.append(pack.at.report(Severity.INFO, "no-schemas", message, at_key=True))
        elif file.commit != pack.commit:
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


def _model_for(file: str, schema: Input, models: Models) -> Model | None:
    destinations = {f"{folder}/{file}" for folder in schema.folders}
    return next((m for m in models.models.values() if m.destination in destinations), None)


def _undeclared(
    node: GraphNode, name: str, value: InputValue, schema: Input, models: Models
) -> Diagnostic:
    file, folders = str(value.value), " or ".join(schema.folders)
    elsewhere = next((m for m in models.models.values() if m.filename == file), None)
    if elsewhere:
        message = (
            f"{show(file)} is declared for folder {elsewhere.folder}, "
            f"but {node.class_type} reads {folders} (case matters)"
        )
        hint = f"set folder: {schema.folders[0]} for model {show(elsewhere.name)} in models.yaml"
        return value.at.error("wrong-folder", message, node=node.id, input=name, hint=hint)
    here = [model.filename for model in models.models.values() if model.folder in schema.folders]
    hint = (
        did_you_mean(file, here) or f"declare it in models.yaml, with folder: {schema.folders[0]}"
    )
    message = f"no model {show(file)} is declared in folder {folders}"
    return value.at.error("undeclared-model", message, node=node.id, input=name, hint=hint)
