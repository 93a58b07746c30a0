"""The JSON files of build/: which routes there are, and where everything was written."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from . import __version__
from .check import Checked, CheckedWorkflow
from .names import class_name, function_name
from .spec import GraphNode
from .workers import classes_of


def manifest(checked: Checked, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return build/manifest.json: generator, routes, and every other file with its SHA-256.

    `families` are those of the models that models.yaml declares, by folder/file.

    `spec` is a hash over all of it: two builds with the same one are the same.
    """
    said: dict[str, Any] = {
        "generator": __version__,
        "routes": {c.workflow.route: _route(c, checked) for c in checked.workflows},
        "families": {
            model.destination: model.family
            for _, model in sorted(checked.models.models.items())
            if model.family
        },
        "files": {path: hashlib.sha256(files[path]).hexdigest() for path in sorted(files)},
    }
    spec = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    return {"spec": spec, **said}


def sourcemap(checked: Checked) -> dict[str, Any]:
    """Return build/sourcemap.json: route, node, input to file, line and params."""
    return {
        c.workflow.route: {node.id: _node(node) for node in c.workflow.graph.values()}
        for c in checked.workflows
    }


def _route(checked: CheckedWorkflow, project: Checked) -> dict[str, Any]:
    workflow = checked.workflow
    return {
        "name": workflow.name,
        "summary": workflow.summary,
        "description": workflow.description,
        "enabled": workflow.enabled,
        "file": workflow.file,
        "handler": workflow.handler,
        "request": class_name(workflow.name),
        "builder": function_name(workflow.name),
        "params": {param.name: param.type for param in workflow.params.values()},
        "gpu": workflow.gpu or project.settings.default_gpu,
        "group": workflow.group,
        "timeout": workflow.timeout or project.settings.scaling.timeout,
        "classes": sorted(classes_of([checked])),
        "models": list(checked.uses.models),
        "packs": list(checked.uses.packs),
    }


def _node(node: GraphNode) -> dict[str, Any]:
    return {
        "class_type": node.class_type,
        "title": node.title,
        "file": node.class_at.file,
        "line": node.class_at.line,
        "inputs": {
            name: {
                "file": value.at.file,
                "line": value.at.line,
                "params": [param for slot, _ in value.slots for param in slot.names],
            }
            for name, value in node.inputs.items()
        },
    }
