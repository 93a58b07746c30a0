"""What a workflow uses: the models that its nodes load, and the packs that have its classes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..diagnostics import Diagnostic
from ..graph.catalog import Catalog, ClassType, Input, is_listed_name, is_model_file
from ..graph.check import Finding
from ..graph.values import misfit
from ..graph.words import did_you_mean, printable, show
from ..load import Node
from ..spec import GraphNode, InputValue, Model, Models, Workflow
from .classes import unseen_packs
from .implicit import undeclared_implicit, used_implicitly
from .reach import run_nodes


@dataclass(frozen=True)
class Uses:
    """The models and packs that a workflow needs, by name, sorted."""

    models: tuple[str, ...]
    packs: tuple[str, ...]


def check_uses(
    workflow: Workflow, classes: Mapping[str, ClassType], models: Models, catalog: Catalog
) -> tuple[Uses, list[Diagnostic]]:
    """Return what a workflow uses, and the files that it loads and nobody declared.

    A class that is not known may be of any pack without node schemas.
    """
    used = {name for name in workflow.models if name in models.models}
    packs = set(workflow.packs)
    faults: list[Diagnostic] = []
    run = run_nodes(workflow, classes)
    for node in (node for node in workflow.graph.values() if node.id in run):
        class_type = classes.get(node.id)
        if class_type is None:
            used |= _named_in(workflow, node, models)
            packs |= set(unseen_packs(catalog, models))
        else:
            packs.add(class_type.pack or "")
            found, wrong = _check_node(workflow, node, class_type, models)
            used |= found
            faults += wrong
    folders = {param.folder for param in workflow.params.values() if param.type == "model"}
    used |= {name for name, model in models.models.items() if model.folder in folders}
    packs &= models.packs.keys()
    used |= {model for pack in packs for model in models.packs[pack].models}
    return Uses(tuple(sorted(used & models.models.keys())), tuple(sorted(packs))), faults


def _named_in(workflow: Workflow, node: GraphNode, models: Models) -> set[str]:
    """Return the models whose file a node names of which nothing else is known."""
    files = {file for value in node.inputs.values() for file, _ in _files(workflow, value)}
    return {name for name, model in models.models.items() if model.filename in files}


def _check_node(
    workflow: Workflow, node: GraphNode, class_type: ClassType, models: Models
) -> tuple[set[str], list[Diagnostic]]:
    """Return the models that a node loads, and what is wrong with the files that it names."""
    used: set[str] = set()
    faults: list[Diagnostic] = []
    if class_type.loads:
        values = {name: value.value for name, value in node.inputs.items()}
        used |= used_implicitly(class_type, values, models)
        for wrong in undeclared_implicit(class_type, values, models):
            at = node.class_at
            faults.append(at.error(wrong.code, wrong.message, node=node.id, hint=wrong.hint))
    for name, taken, file, at in _named_files(workflow, node, class_type):
        if taken.media:
            faults.append(_uploaded(node, name, file, at))
        elif found := undeclared(node.class_type, name, file, taken, models):
            faults.append(
                at.error(found.code, found.message, node=node.id, input=name, hint=found.hint)
            )
        elif model := model_for(file, taken, models):
            used.add(model.name)
    return used, faults


def _named_files(
    workflow: Workflow, node: GraphNode, class_type: ClassType
) -> Iterator[tuple[str, Input, str, Node]]:
    """Yield the files that a node's inputs are known to name: input, schema, file and place."""
    for name, value in node.inputs.items():
        taken = class_type.inputs.get(name)
        is_text = isinstance(value.value, str) and value.value != (taken and taken.default)
        if taken and taken.media and is_text:
            yield name, taken, value.value, value.at
        elif taken and taken.folders:
            yield from ((name, taken, file, at) for file, at in _files(workflow, value))
        elif taken is None and (named := class_type.file_input(name, value.value)):
            more, file = named
            if isinstance(file, str):
                yield name, more, file, value.at


def model_for(file: str, schema: Input, models: Models) -> Model | None:
    """Return the declared model that an input reads under a file name."""
    destinations = {f"{folder}/{file}" for folder in schema.folders}
    return next((m for m in models.models.values() if m.destination in destinations), None)


def _uploaded(node: GraphNode, name: str, file: str, at: Node) -> Diagnostic:
    message = f"nobody uploads {show(file)}: files come from callers"
    hint = "use a param of type image, video or audio"
    return at.error("input-file", message, node=node.id, input=name, hint=hint)


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
        (param, entry)
        for param in params
        if not (param.prefix or param.suffix)
        for entry in (param.at.mapping.get("default"), *_items(param.at.mapping.get("enum")))
    ]
    return [
        (entry.value, entry)
        for param, entry in entries
        if entry
        and isinstance(entry.value, str)
        # Of others it was said that no such model can be sent.
        and (param.type != "model" or is_listed_name(entry.value))
    ]


def _items(at: Node | None) -> list[Node]:
    return at.items if at else []


def undeclared(
    class_type: str, name: str, file: str, schema: Input, models: Models
) -> Finding | None:
    """Return what is wrong with the name of a file; None for a declared model and a fixed option."""
    if file in schema.options and not is_model_file(file):
        return None
    if unlisted := misfit(schema, file, frozenset):
        return Finding(unlisted.code, "error", unlisted.message, input=name, hint=unlisted.hint)
    if model_for(file, schema, models):
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
