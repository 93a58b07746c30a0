"""How long `validate` takes, against parsing the same files with PyYAML's C loader alone.

python -m bench.validate [--workflows N] [--rounds N]
"""

import argparse
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

BOUND: Final = 4.0
SAMPLERS: Final = 25

HEAD: Final = """\
summary: x
params:
  prompt: {type: string}
  seed: {type: seed}
graph:
  1: {class_type: CheckpointLoaderSimple, inputs: {ckpt_name: m.safetensors}}
  2: {class_type: CLIPTextEncode, inputs: {text: "${prompt}", clip: [1, 1]}}
  3: {class_type: EmptyLatentImage, inputs: {width: 512, height: 512, batch_size: 1}}
"""
SAMPLER: Final = """\
  SELF:
    class_type: KSampler
    inputs:
      model: [1, 0]
      positive: [2, 0]
      negative: [2, 0]
      latent_image: [BEFORE, 0]
      seed: ${seed}
      steps: 20
      cfg: 7.5
      sampler_name: euler
      scheduler: normal
      denoise: 0.5
"""
TAIL: Final = """\
  29: {class_type: VAEDecode, inputs: {samples: [28, 0], vae: [1, 2]}}
  30: {class_type: SaveImage, inputs: {images: [29, 0], filename_prefix: x}}
"""
MODELS: Final = """\
models:
  m: {source: {volume: v}, folder: checkpoints, filename: m.safetensors}
packs: {}
"""
GPU: Final = """\
app: bench
python: "3.11"
comfyui: {version: 0.3.71, commit: c55fd7481626d8bee8044ea7512ea996d13a1b90}
volumes: {v: /v}
gpus:
  default: l40s
  l40s: {modal: L40S, vram_gb: 48, price_per_second: 0.000542}
"""
PARSE: Final = """\
import pathlib, sys, yaml
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.yaml")):
    yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
"""


def write_project(root: Path, count: int) -> None:
    """Write a project of workflows with 30 nodes each."""
    (root / "workflows").mkdir()
    (root / "models.yaml").write_text(MODELS)
    (root / "gpu.yaml").write_text(GPU)
    samplers = (
        SAMPLER.replace("SELF", str(node)).replace("BEFORE", str(node - 1))
        for node in range(4, 4 + SAMPLERS)
    )
    text = HEAD + "".join(samplers) + TAIL
    for number in range(count):
        (root / "workflows" / f"w{number}.yaml").write_text(text)


def seconds(command: list[str]) -> float:
    """Return the processor time of a command, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Measure in turn, and return 1 when the bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workflows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    count = options.workflows
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write_project(root, count)
        validate = [sys.executable, "-m", "generator", "validate", "--project", str(root)]
        parse = [sys.executable, "-c", PARSE, str(root)]
        ratios: list[float] = []
        for _ in range(options.rounds):
            parsing, validating = seconds(parse), seconds(validate)
            ratios.append(validating / parsing)
            print(f"parse {parsing:6.2f} s   validate {validating:6.2f} s   {ratios[-1]:.2f} ×")
    ratio = statistics.median(ratios)
    # The largest child, which is a validate; in KiB on Linux.
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{count} workflows of 30 nodes: {ratio:.2f} × (at most {BOUND:g}), {memory:.0f} MiB")
    return int(ratio > BOUND)


if __name__ == "__main__":
    sys.exit(main())
