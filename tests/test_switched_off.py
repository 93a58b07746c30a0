"""`enabled: false`: checked and rendered, and nothing is installed, downloaded or run for it."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from generator.deployment.plan import make_plan
from generator.deployment.report import as_table
from generator.lock import inputs_of_images
from generator.render import Files, render
from generator.workers import images, worker_classes

from .conftest import GPU_YAML, MakeProject, load_and_check

ON = """\
graph:
  1: {class_type: EmptyImage, inputs: {width: 64, height: 64, batch_size: 1, color: 0}}
  2: {class_type: SaveImage, inputs: {images: [1, 0], filename_prefix: x}}
"""
OFF = """\
enabled: false
gpu: big
group: upscaled
packs: [ComfyUI-GGUF]
graph:
  1: {class_type: UpscaleModelLoader, inputs: {model_name: 4x.pth}}
  2: {class_type: EmptyImage, inputs: {width: 64, height: 64, batch_size: 1, color: 0}}
  3: {class_type: ImageUpscaleWithModel, inputs: {upscale_model: [1, 0], image: [2, 0]}}
  4: {class_type: SaveImage, inputs: {images: [3, 0], filename_prefix: x}}
"""
MODELS = f"""\
models:
  4x: {{source: {{hf: a/b, file: 4x.pth}}, folder: upscale_models, license: non-commercial, size: 1 GB}}
packs:
  ComfyUI-GGUF: {{git: https://github.com/city96/ComfyUI-GGUF, commit: {"b" * 40}, apt: [ffmpeg]}}
"""
GPU = GPU_YAML + "  big: {modal: H100, vram_gb: 80, price_per_second: 0.001097}\n"


def rendered(make_project: MakeProject, **workflows: str) -> tuple[Files, dict[str, Any]]:
    """Return what is rendered of workflows, and its manifest."""
    checked, found = load_and_check(make_project(workflows, models=MODELS, gpu=GPU))
    assert checked is not None
    assert not [d for d in found if d.severity.name == "ERROR"]
    files = render(checked)
    for path, data in files.items():
        if path.endswith(".py"):
            ast.parse(data)
    return files, json.loads(files["manifest.json"])


def test_what_is_off_needs_nothing(make_project: MakeProject) -> None:
    files, manifest = rendered(make_project, on=ON, off=OFF)
    assert json.loads(files["models.json"]) == []
    assert manifest["models"] == {}
    assert [*manifest["images"]] == ["gateway_image", "worker_image"]
    image = files["image.py"].decode()
    assert "ComfyUI-GGUF" not in image
    assert "ffmpeg" not in image
    assert "ImageUpscaleWithModel" not in image
    app = files["app.py"].decode()
    assert "class L40sWorker" in app
    assert "H100" not in app
    # But it is rendered.
    assert "/off" in manifest["routes"]
    assert "def build_off_workflow" in files["handlers/off.py"].decode()


def test_what_is_off_is_checked(make_project: MakeProject) -> None:
    root = make_project({"off": OFF.replace("4x.pth", "5x.pth")}, models=MODELS, gpu=GPU)
    assert "undeclared-model" in {d.code for d in load_and_check(root)[1]}


def test_the_plan_of_switching_on(make_project: MakeProject, tmp_path: Path) -> None:
    before = rendered(make_project, on=ON, off=OFF)[1]
    plan = make_plan(None, before)
    assert (plan.downloads, plan.licences) == ((), ())
    assert [worker.worker for worker in plan.workers] == ["l40s"]
    assert [request.route for request in plan.requests] == ["/on"]
    (tmp_path / "workflows" / "off.yaml").write_text(OFF.replace("enabled: false\n", ""))
    checked, _ = load_and_check(tmp_path)
    assert checked is not None
    after = json.loads(render(checked)["manifest.json"])
    plan = make_plan(before, after)
    assert [download.model for download in plan.downloads] == ["4x"]
    assert [licence.routes for licence in plan.licences] == [("/off",)]
    assert [worker.worker for worker in plan.workers] == ["big/upscaled", "l40s"]
    assert "worker big/upscaled is new" in plan.settings
    [added] = [image for image in plan.images if image.image == "upscaled_worker_image"]
    assert "pack ComfyUI-GGUF" in added.changed


def test_nothing_is_on(make_project: MakeProject) -> None:
    """Then there is a gateway that says so, and no worker."""
    files, manifest = rendered(make_project, off=OFF)
    assert [*manifest["images"]] == ["gateway_image"]
    assert "@app.cls" not in files["app.py"].decode()
    assert "no endpoint is on" in as_table(make_plan(None, manifest))


@pytest.mark.parametrize("off", [OFF, "enabled: false\n" + ON])
def test_the_lock_is_of_what_is_on(make_project: MakeProject, off: str) -> None:
    """Requirements are resolved for the images that are built."""
    checked, _ = load_and_check(make_project({"on": ON, "off": off}, models=MODELS, gpu=GPU))
    assert checked is not None
    assert checked.groups == {"": ()}
    assert sorted(inputs_of_images(checked.settings, checked.groups)) == [
        "",
        "@comfyui",
        "@gateway",
    ]
    [image] = images(checked)
    assert image.classes == ("EmptyImage", "SaveImage")
    [worker] = worker_classes(checked)
    assert [one.workflow.name for one in worker.workflows] == ["on"]
