"""Render checked specs into the files of build/."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .check import Checked, CheckedWorkflow
from .client import client_values
from .graph.catalog import CatalogFile
from .handlers import handler_values
from .lock import COMFYUI, LockedModel
from .maps import manifest, sourcemap
from .names import setup_name
from .picture import as_svg
from .pycode import Source, identifier, literal
from .python_format import formatted
from .spec import CACHE, CACHE_VOLUME, Model, Settings
from .workers import app_values, image_values

TEMPLATES: Final = Path(__file__).parent.parent / "templates"
GRAPH: Final = Path(__file__).parent / "graph"

Files = dict[str, bytes]


def render(checked: Checked) -> Files:
    """Return the files of build/ by their path in it; the same specs give the same bytes.

    Raises:
        FormatError: when rendered Python cannot be formatted, which is a fault of a template.
    """
    environment = _environment()
    rendered: dict[str, str] = {}
    for module, group in groupby(_by_handler(checked), key=lambda c: c.workflow.handler):
        template = environment.get_template("handlers/handler.py.j2")
        rendered[f"handlers/{module}.py"] = template.render(
            handler_values(module, list(group), checked.settings)
        )
    rendered["api.py"] = environment.get_template("api.py.j2").render(modules=_modules(checked))
    rendered["config.py"] = environment.get_template("config.py.j2").render(s=_config(checked))
    rendered["client.py"] = environment.get_template("client.py.j2").render(client_values(checked))
    rendered["app.py"] = environment.get_template("app.py.j2").render(app_values(checked))
    rendered["image.py"] = environment.get_template("image.py.j2").render(image_values(checked))
    tracker = environment.get_template("utils/cost_tracker.py.j2")
    rendered["utils/cost_tracker.py"] = tracker.render(_prices(checked.settings))
    files = formatted(rendered) | _copied() | _graph(checked) | _pictures(checked)
    files["constraints.txt"] = _constraints(checked)
    files["models.json"] = _json(_models(checked))
    files["sourcemap.json"] = _json(sourcemap(checked))
    files["manifest.json"] = _json(manifest(checked, files))
    return dict(sorted(files.items()))


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        finalize=_only_source,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def _only_source(value: Any) -> str:
    """Let a template print nothing but Python source, so that no YAML value becomes code."""
    if not isinstance(value, Source):
        raise TypeError(f"a template prints {type(value).__name__}, which is no Source")
    return value


def _by_handler(checked: Checked) -> list[CheckedWorkflow]:
    return sorted(checked.workflows, key=lambda c: (c.workflow.handler, c.workflow.name))


def _modules(checked: Checked) -> list[dict[str, Source]]:
    modules = sorted({c.workflow.handler for c in checked.workflows})
    return [{"name": identifier(m), "setup": identifier(setup_name(m))} for m in modules]


def _config(checked: Checked) -> dict[str, Source]:
    settings = checked.settings
    engine = settings.comfyui
    flags = [*engine.flags, *([] if engine.metadata else ["--disable-metadata"])]
    values: dict[str, Any] = {
        "app": settings.app,
        "python": settings.python,
        "comfyui_version": engine.version,
        "comfyui_commit": engine.commit,
        "comfyui_directory": engine.directory,
        "comfyui_port": engine.port,
        "comfyui_flags": flags,
        # A name holds 64 characters, and an app's own up to 59.
        "jobs": f"{settings.app}-jobs",
        "events": f"{settings.app}-told",
        "usage": f"{settings.app}-usage",
        "cache": settings.volumes.get(CACHE_VOLUME, CACHE),
        "uploads": {n: path for n, path in settings.volumes.items() if n != CACHE_VOLUME},
        "regions": list(settings.scaling.region) or None,
        "deadline": settings.gateway.deadline,
        "gateway_max_containers": settings.gateway.max_containers,
        "auth": settings.auth,
        "cors_origins": settings.gateway.cors_origins,
        "operators": settings.gateway.operators,
        "log_prompts": settings.log_prompts,
        **settings.limits.of_gateway(),
    }
    return {key: literal(value) for key, value in (asdict(settings.scaling) | values).items()}


def _constraints(checked: Checked) -> bytes:
    """Return the locked versions of what ComfyUI itself asks for; without a lock it takes any."""
    lines = checked.lock.pinned(COMFYUI) if checked.lock else ()
    return "".join(f"{line}\n" for line in lines).encode()


def _models(checked: Checked) -> list[dict[str, Any]]:
    """Return the models of workflows that are on, as utils/downloads.py reads them."""
    used = sorted({name for c in checked.on for name in c.uses.models})
    locked = checked.lock.models if checked.lock else {}
    return [_model_file(checked.models.models[name], locked.get(name)) for name in used]


def _model_file(model: Model, locked: LockedModel | None) -> dict[str, Any]:
    return {
        "name": model.name,
        "path": model.destination,
        "source": model.source,
        "revision": locked.revision if locked else model.source.get("revision"),
        "size": locked.size if locked else None,
        "sha256": locked.sha256 if locked else model.source.get("sha256"),
        "gated": model.gated,
    }


def _prices(settings: Settings) -> dict[str, Source]:
    prices = {gpu.modal: gpu.price_per_second for gpu in settings.gpus.values()}
    return {
        "priced": Source(f" ({settings.priced})" if settings.priced else ""),
        "prices": literal(prices),
        "price_multiplier": literal(settings.price_multiplier),
    }


def _copied() -> Files:
    """Return the files that are the same in every build: the Python of templates/, and the page."""
    paths = [*TEMPLATES.rglob("*.py"), *(TEMPLATES / "playground").iterdir()]
    return {path.relative_to(TEMPLATES).as_posix(): path.read_bytes() for path in paths}


def _pictures(checked: Checked) -> Files:
    """Return the pictures of the graphs, for the page."""
    return {
        f"playground/graphs/{c.workflow.name}.svg": as_svg(c.workflow, c.classes).encode()
        for c in checked.workflows
        if c.workflow.graph
    }


def _graph(checked: Checked) -> Files:
    """Return generator/graph with the node schemas that the deployed app may need.

    Those are the classes in use; all of them where callers may send graphs of their own.
    """
    files = {f"graph/{path.name}": path.read_bytes() for path in GRAPH.glob("*.py")}
    any_graph = any(c.workflow.graph_param for c in checked.on)
    used = {(c.pack, c.name) for one in checked.workflows for c in one.classes.values()}
    declared = [
        checked.catalog.packs[p] for p in checked.models.packs if p in checked.catalog.packs
    ]
    for source in (checked.catalog.core, *declared):
        names = [n for n in source.header["classes"] if any_graph or (source.pack, n) in used]
        if names or source is checked.catalog.core:
            folder = "graph/catalogs/packs" if source.pack else "graph/catalogs"
            files[f"{folder}/{source.path.name}"] = _part(source, names)
    return files


def _part(source: CatalogFile, names: Iterable[str]) -> bytes:
    header = json.dumps(source.header | {"classes": list(names)}, separators=(",", ":"))
    lines = (header.encode(), *(source.line(name) for name in names))
    return b"".join(line + b"\n" for line in lines)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
