"""ComfyUI's own templates become endpoints that answer, and nobody edits a line."""

import base64
import gzip
import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import av
import pytest

from generator.diagnostics import Severity
from generator.importer import import_workflow
from generator.spec import MEDIA_TYPES, Param

from .api_client import CATALOG, import_rendered, png, running
from .conftest import GPU_YAML, ROOT, load_and_check

# What is asked for, where a template has the param, so that a placeholder is soon drawn.
SMALL = {"steps": 2, "width": 64, "height": 64, "upscale_width": 128, "upscale_height": 128}

# What the preview engine cannot stand in for, and how it says so.
NOT_DRAWN = {"t-3d-hunyuan3d-multiview-to-model": "the preview engine draws no SaveGLB"}


@cache
def _pairs() -> dict[str, Any]:
    """Return the templates that call no vendor, by names that a workflow can have."""
    path = ROOT / "tests" / "fixtures" / "conversions.json.gz"
    pairs: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return {
        f"t-{name.lower().replace('.', '-').replace('_', '-')}": pair
        for name, pair in pairs.items()
        if not any(CATALOG.core.class_type(n["class_type"]).api_node for n in pair["api"].values())
    }


def templates() -> dict[str, Any]:
    """Return the templates as the canvas saves them."""
    return {name: pair["ui"] for name, pair in _pairs().items()}


def exports() -> dict[str, Any]:
    """Return the templates as the canvas exports them: in API format."""
    return {name: pair["api"] for name, pair in _pairs().items()}


@pytest.fixture(name="project", scope="module")
def _project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Import all templates into one project that declared nothing before."""
    root = tmp_path_factory.mktemp("templates")
    (root / "workflows").mkdir()
    (root / "gpu.yaml").write_text(GPU_YAML, encoding="utf-8")
    for name, document in templates().items():
        path = root / f"{name}.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        done = import_workflow(path, name, root)
        wrong = [d for d in done.diagnostics if d.severity is not Severity.INFO]
        assert (wrong, done.undecided) == ([], 0), name
    return root


def body(params: dict[str, Param]) -> dict[str, Any]:
    """Return what to send: media, and small values; all else has a default."""
    media = {name: MEDIA[param.type]() for name, param in params.items() if param.type in MEDIA}
    small: dict[str, Any] = {name: value for name, value in SMALL.items() if name in params}
    if "length" in params:
        small["length"] = int(params["length"].minimum or 1)
    return media | small


def video() -> str:
    output = io.BytesIO()
    with av.open(output, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode())
    return base64.b64encode(output.getvalue()).decode()


def sound() -> str:
    output = io.BytesIO()
    with av.open(output, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame("s16", "mono", 8000)
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return base64.b64encode(output.getvalue()).decode()


MEDIA = {"image": lambda: base64.b64encode(png()).decode(), "video": video, "audio": sound}
assert MEDIA.keys() == MEDIA_TYPES


def test_they_are_as_many_as_the_docs_say() -> None:
    assert len(templates()) == 38


def test_they_validate_build_and_serve(project: Path) -> None:
    """Each answers with a file of the kind that its output node writes."""
    checked, diagnostics = load_and_check(project)
    assert checked is not None
    assert [d for d in diagnostics if d.severity is not Severity.INFO] == []
    assert sorted(one.workflow.name for one in checked.workflows) == sorted(templates())
    import_rendered(project, project / "templates_package")
    models = [model.destination for model in checked.models.models.values()]
    with running(project / "engine", package="templates_package", models=models) as api:
        replies = {
            one.workflow.name: api.post(one.workflow.route, body(one.workflow.params))
            for one in checked.workflows
        }
    failed = {name: reply for name, reply in replies.items() if reply.status_code != 200}
    assert {name: reply.json()["detail"] for name, reply in failed.items()} == NOT_DRAWN
    for name in replies.keys() - failed.keys():
        assert replies[name].headers["content-type"].partition("/")[0] in ("image", "video"), name
        assert replies[name].content, name
