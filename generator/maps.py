"""The JSON files of build/: which routes there are, and where everything was written."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from . import __version__
from .check import Checked, CheckedWorkflow
from .layers import layers
from .lock import LockedModel
from .media_types import media_types, reply_type
from .names import class_name, function_name
from .request_schema import request_schema
from .spec import GraphNode, Model, Settings
from .workers import classes_of

# What pins a file, beside where it comes from.
_PINS: Final = ("revision", "sha256")


def manifest(checked: Checked, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return build/manifest.json: what is deployed, and every other file with its SHA-256.

    `families` are those of the models that models.yaml declares, by folder/file; `models` are those
    of routes that are on. `gateway`, `scaling`, `engine`, `volumes`, `secrets`, `gpus`, `prices` and
    `images` are what the next deploy is compared with: python -m generator plan.

    `spec` is a hash over all of it: two builds with the same one are the same.
    """
    locked = checked.lock.models if checked.lock else {}
    said: dict[str, Any] = {
        "generator": __version__,
        "app": checked.settings.app,
        "routes": {c.workflow.route: _route(c, checked) for c in checked.workflows},
        "families": {
            model.destination: model.family
            for _, model in sorted(checked.models.models.items())
            if model.family
        },
        "models": {
            name: _model(checked.models.models[name], locked.get(name))
            for name in sorted({name for c in checked.on for name in c.uses.models})
        },
        "images": layers(checked, files),
        **_settings(checked.settings),
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
        "reply": reply_type(workflow, checked.classes),
        "media_types": media_types(workflow, checked.classes),
        "request_schema": request_schema(workflow),
        "graph": _graph(checked),
        "models": list(checked.uses.models),
        "packs": list(checked.uses.packs),
    }


def _graph(checked: CheckedWorkflow) -> str:
    """Return a hash over the graph as it is written, its output included."""
    plain = checked.workflow.at.plain
    written = json.dumps([plain["graph"], plain.get("output")], sort_keys=True)
    return hashlib.sha256(written.encode()).hexdigest()


def _model(model: Model, locked: LockedModel | None) -> dict[str, Any]:
    """Return what a model is; without a lock its size is what models.yaml says, its hash unknown."""
    return {
        "file": model.destination,
        "source": {key: text for key, text in model.source.items() if key not in _PINS},
        "revision": locked.revision if locked else model.source.get("revision"),
        "sha256": locked.sha256 if locked else model.source.get("sha256"),
        "size": model.size,
        "license": model.license,
    }


def _settings(settings: Settings) -> dict[str, Any]:
    """Return what gpu.yaml says of workers, the gateway and prices."""
    return {
        "gateway": {
            "auth": settings.auth,
            "cors_origins": settings.gateway.cors_origins,
            "deadline": settings.gateway.deadline,
            "max_containers": settings.gateway.max_containers,
            **settings.limits.of_gateway(),
        },
        "scaling": asdict(settings.scaling),
        "engine": {
            "version": settings.comfyui.version,
            "commit": settings.comfyui.commit,
            "flags": settings.comfyui.flags,
            "metadata": settings.comfyui.metadata,
        },
        "volumes": settings.volumes,
        "secrets": settings.secrets,
        "gpus": {
            gpu.name: {
                "modal": gpu.modal,
                "price_per_second": gpu.price_per_second,
                "cpu": gpu.cpu,
                "memory_gb": gpu.memory_gb,
                "fallback": list(gpu.fallback),
            }
            for gpu in settings.gpus.values()
        },
        "prices": {
            "priced": settings.priced,
            "multiplier": settings.price_multiplier,
            "cpu_per_second": settings.cpu_price_per_second,
            "memory_per_second": settings.memory_price_per_second,
        },
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
