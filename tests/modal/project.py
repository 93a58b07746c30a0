"""Projects for the tests: small graphs without models, and a ComfyUI where gpu.yaml says it is.

What differs from a real project stands in its gpu.yaml: where ComfyUI lies, on which port, and
where Volumes are mounted. ComfyUI's main.py there starts that of the tests.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generator.cli import main
from generator.ports import free_port
from tests.conftest import ROOT
from tests.engine import install
from tests.jobs_contract import PROBE_YAML
from tests.jobs_contract import WORKFLOWS as JOBS

COMMIT = "c55fd7481626d8bee8044ea7512ea996d13a1b90"

GPU_YAML = """\
app: {app}
python: "3.11"
comfyui:
  version: 0.3.71
  commit: {commit}
  directory: {folder}/comfy/ComfyUI
  port: {port}
volumes: {{ryla-models: {folder}/mnt/models, hf-hub-cache: {folder}/mnt/cache}}
secrets:
  huggingface: [HF_TOKEN]
  api-keys: [API_KEYS]
gpus:
  default: l40s
  l40s: {{modal: L40S, vram_gb: 48, price_per_second: 0.000542, cpu: 4, memory_gb: 32, fallback: [a100]}}
  a100: {{modal: A100-80GB, vram_gb: 80, price_per_second: 0.000694}}
price_multiplier: 1.5
scaling:
  min_containers: 0
  max_containers: 3
  buffer_containers: 1
  scaledown: 120
  timeout: 600
  startup_timeout: 200
  max_inputs: 8
  target_inputs: 2
  region: [us-east]
gateway: {{max_containers: 2, deadline: 60, cors_origins: ["https://app.example.com"]}}
auth: {auth}
"""
WORKFLOWS = {
    "picture": """\
summary: A picture of one colour
params:
  color: {type: integer, minimum: 0}
  width: {type: integer, default: 32}
graph:
  1:
    class_type: EmptyImage
    inputs: {width: "${width}", height: 16, batch_size: 1, color: "${color}"}
  2:
    class_type: SaveImage
    inputs: {images: [1, 0], filename_prefix: picture}
""",
    "inverted": """\
summary: The negative of a picture
params:
  image: {type: image}
graph:
  1:
    class_type: LoadImage
    inputs: {image: "${image}"}
  2:
    class_type: ImageInvert
    inputs: {image: [1, 0]}
  3:
    class_type: SaveImage
    inputs: {images: [2, 0], filename_prefix: inverted}
""",
    # Of the real ComfyUI with probe_nodes alone: 100 s, in steps of a tenth of one.
    "slow": """\
summary: A picture that takes its time
params:
  color: {type: integer, default: 0}
graph:
  1:
    class_type: EmptyImage
    inputs: {width: 32, height: 32, batch_size: 1, color: "${color}"}
  2:
    class_type: ProbeSleep
    inputs: {image: [1, 0], steps: 1000, seconds: 0.1, preview: false}
    _meta: {title: Take time}
  3:
    class_type: SaveImage
    inputs: {images: [2, 0], filename_prefix: slow}
""",
}

# The same on the preview engine, which takes its time for steps of a sampler alone.
SLOW_SAMPLER = (
    JOBS["slow"]
    .replace("seed: {type: seed}", "color: {type: integer, default: 0}")
    .replace("seed: ${seed}", "seed: ${color}")
    .replace("class_type: KSampler", "class_type: KSampler\n    _meta: {title: Take time}")
)

REAL = '''\
"""Starts the ComfyUI of the tests, with this folder as its base directory."""

import os
import sys

os.environ["PYTHONPATH"] = {site!r}
os.execv({python!r}, [
    {python!r}, {main!r}, "--base-directory", {directory!r}, "--cpu",
    "--disable-all-custom-nodes", "--whitelist-custom-nodes", "probe_nodes", *sys.argv[1:],
])
'''
PREVIEW = '''\
"""Starts the preview engine, with this folder as its base directory."""

import os
import sys

os.environ["PYTHONPATH"] = {root!r}
port = sys.argv[sys.argv.index("--port") + 1]
os.execv({python!r}, [
    {python!r}, "-m", "generator.preview", "--no-packs", "--base-directory", {directory!r},
    "--port", port, *{options!r},
])
'''


@dataclass(frozen=True)
class Project:
    """A project that is rendered; `engine` is what X-Engine says."""

    folder: Path
    app: str
    engine: str

    @property
    def build(self) -> Path:
        return self.folder / "build"

    @property
    def comfyui(self) -> Path:
        return self.folder / "comfy" / "ComfyUI"

    @property
    def is_real(self) -> bool:
        return self.engine != "preview"

    def render(self) -> None:
        """Render the project anew."""
        assert main(["build", "--quiet", "--project", str(self.folder)]) == 0

    def replace(self, path: str, *pairs: tuple[str, str]) -> None:
        """Replace texts of a file, each of which must be there."""
        file = self.folder / path
        text = file.read_text("utf-8")
        for old, new in pairs:
            assert old in text, (path, old)
            text = text.replace(old, new)
        file.write_text(text, "utf-8")


def write_project(
    folder: Path,
    app: str = "modal-tests",
    *,
    auth: str = "api-key",
    real: bool | None = None,
    workflows: dict[str, str] | None = None,
    models: str = PROBE_YAML,
    options: tuple[str, ...] = (),
    gpu: str = GPU_YAML,
) -> Project:
    """Write a project and its ComfyUI, and render it.

    `real` is whether that is a real one; by default, when there is one. `options` are those of the
    preview engine.
    """
    is_real = install.folder().is_dir() if real is None else real
    (folder / "workflows").mkdir(parents=True)
    values: dict[str, Any] = {"app": app, "commit": COMMIT, "folder": folder, "auth": auth}
    (folder / "gpu.yaml").write_text(gpu.format(**values, port=free_port()), "utf-8")
    (folder / "models.yaml").write_text(models, "utf-8")
    for name, text in (WORKFLOWS if workflows is None else workflows).items():
        if is_real or "Probe" not in text:
            (folder / "workflows" / f"{name}.yaml").write_text(text, "utf-8")
    engine = f"comfyui/{install.COMFYUI_VERSION}" if is_real else "preview"
    project = Project(folder, app, engine)
    _write_comfyui(project.comfyui, is_real, options)
    project.render()
    return project


def _write_comfyui(directory: Path, is_real: bool, options: tuple[str, ...]) -> None:
    for name in ("input", "output", "temp", "models", "user", "custom_nodes/probe_nodes"):
        (directory / name).mkdir(parents=True)
    shutil.copy(
        ROOT / "tests" / "engine" / "probe_nodes.py",
        directory / "custom_nodes" / "probe_nodes" / "__init__.py",
    )
    if is_real:
        root = install.folder()
        text = REAL.format(
            site=str(root / "site"),
            python=str(install.python(root)),
            main=str(install.main_py(root)),
            directory=str(directory),
        )
    else:
        text = PREVIEW.format(
            root=str(ROOT), python=sys.executable, directory=str(directory), options=options
        )
    (directory / "main.py").write_text(text, "utf-8")
