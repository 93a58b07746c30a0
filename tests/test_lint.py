"""`python -m generator lint`: bare graphs, by the rules of validate."""

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from generator.cli import main

from .conftest import ROOT, MakeProject

GRAPH = """\
{
  "1": {"class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
  "2": {"class_type": "SaveImage",
        "inputs": {"images": ["1", 0], "filename_prefix": "x"}}
}
"""
LOADER = """\
{"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "NAME"}},
 "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "x", "clip": ["1", 1]}},
 "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
 "4": {"class_type": "KSampler",
       "inputs": {"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0],
                  "latent_image": ["3", 0], "seed": 0, "steps": 4, "cfg": 4.98,
                  "sampler_name": "euler", "scheduler": "simple", "denoise": 1}},
 "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
 "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "x"}}}
"""
RECORDED = json.loads(
    gzip.decompress((ROOT / "tests" / "fixtures" / "verdicts.json.gz").read_bytes())
)["graphs"]


@pytest.fixture(name="alone")
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder without a project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lint(*arguments: str) -> int:
    return main(["lint", *arguments])


def reported(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_a_clean_graph(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (alone / "graph.json").write_text(GRAPH)
    assert lint("--no-models", "graph.json") == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "1 file: nothing to report\n"


def test_faults_have_lines_and_columns(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = GRAPH.replace('64, "height"', '64, "heigth"').replace("SaveImage", "SaveImag")
    (alone / "graph.json").write_text(wrong)
    assert lint("--no-models", "graph.json") == 1
    assert capsys.readouterr().out == (
        'graph.json:2:3: error[missing-input] node "1" input "height": EmptyImage needs this '
        "input; the default is 512\n"
        'graph.json:3:33: error[unknown-input] node "1" input "heigth": EmptyImage has no such '
        'input; did you mean "height"?\n'
        'graph.json:4:3: error[unknown-class] node "2": no class "SaveImag"; '
        'did you mean "SaveImage"?\n'
    )


def test_many_files_and_json(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (alone / "good.json").write_text(GRAPH)
    (alone / "bad.json").write_text(GRAPH.replace('["1", 0]', '["7", 0]'))
    assert lint("--no-models", "--format", "json", "good.json", "bad.json") == 1
    [one] = reported(capsys)
    assert one["file"] == "bad.json"
    assert [d for d in one["diagnostics"] if d["severity"] == "error"] == [
        {
            "line": 5,
            "column": 30,
            "severity": "error",
            "code": "dangling-link",
            "message": 'there is no node "7"',
            "node": "2",
            "input": "images",
            "hint": None,
        }
    ]


def test_github_annotations(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (alone / "bad.json").write_text(GRAPH.replace('["1", 0]', '["7", 0]'))
    assert lint("--no-models", "--format", "github", "bad.json") == 1
    assert capsys.readouterr().out.splitlines()[1] == (
        '::error file=bad.json,line=5,col=30,title=dangling-link::node "2" input "images": '
        'there is no node "7"'
    )


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("{", "syntax", 1),
        ("", "syntax", 1),
        ('{"1":\n  nope}', "syntax", 2),
        ("[]", "bad-graph", 1),
        ("null", "bad-graph", 1),
        ('{"nodes": [], "links": []}', "no-output", 1),
        ('{"1": 5}', "bad-graph", 1),
        ("[" * 100_000, "too-large", 1),
        ('{"1": ' + "9" * 5000 + "}", "too-large", 1),
    ],
)
def test_files_that_hold_no_graph(
    alone: Path, capsys: pytest.CaptureFixture[str], text: str, code: str, line: int
) -> None:
    (alone / "graph.json").write_text(text)
    assert lint("--no-models", "--format", "json", "graph.json") == 1
    [one] = reported(capsys)
    assert (code, line) in [(d["code"], d["line"]) for d in one["diagnostics"]]


def test_a_key_that_stands_twice(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ComfyUI takes the last without a word."""
    (alone / "graph.json").write_text(GRAPH.replace('  "2":', '  "1":'))
    assert lint("--no-models", "graph.json") == 1
    assert "graph.json:4:3: error[duplicate-key]" in capsys.readouterr().out


def test_files_that_cannot_be_read(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (alone / "latin.json").write_bytes(b'{\n"\xe9": 1}')
    (alone / "folder.json").mkdir()
    names = ["folder.json", "latin.json", "none.json"]
    assert lint("--no-models", "--format", "json", *names) == 1
    found = [(one["file"], one["diagnostics"][0]["code"]) for one in reported(capsys)]
    assert found == [
        ("folder.json", "unreadable"),
        ("latin.json", "not-utf8"),
        ("none.json", "unreadable"),
    ]


def test_the_body_of_a_prompt_is_read_too(alone: Path) -> None:
    """What scripts send to ComfyUI wraps the graph."""
    (alone / "body.json").write_text('{"client_id": "x", "prompt": ' + GRAPH + "}")
    assert lint("--no-models", "body.json") == 0


def test_without_a_project_models_cannot_be_asked_for(
    alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (alone / "graph.json").write_text(GRAPH)
    assert lint("graph.json") == 2
    assert "--no-models" in capsys.readouterr().err


def test_models_are_those_of_the_project(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {
        "flux1-schnell-fp8.safetensors": None,
        "flux1-schnell-fp9.safetensors": "undeclared-model",
        "ae.safetensors": "wrong-folder",
        "flux1.txt": "unlisted-file",
    }
    for name, code in names.items():
        (alone / "graph.json").write_text(LOADER.replace("NAME", name))
        lint("--project", str(ROOT), "--format", "json", "graph.json")
        codes = {d["code"] for one in reported(capsys) for d in one["diagnostics"]}
        assert codes == ({code} if code else set()), name


def test_no_models_asks_for_a_name_only(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (alone / "graph.json").write_text(LOADER.replace("NAME", "any/thing.safetensors"))
    assert lint("--no-models", "graph.json") == 0
    (alone / "graph.json").write_text(LOADER.replace("NAME", "thing.zip"))
    assert lint("--no-models", "graph.json") == 1
    assert "unlisted-file" in capsys.readouterr().out


def test_packs_are_those_of_the_project(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a project, every pack that there are schemas of counts as installed."""
    node = {"class_type": "ImageResizeKJv2", "inputs": {}}
    (alone / "graph.json").write_text(json.dumps(json.loads(GRAPH) | {"3": node}))
    lint("--project", str(ROOT), "graph.json")
    assert "undeclared-pack" in capsys.readouterr().out
    lint("--no-models", "graph.json")
    assert "undeclared-pack" not in capsys.readouterr().out


def test_api_nodes_can_be_allowed(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vendor = next(c for c in RECORDED if c["name"].startswith("api_") and c["kind"] == "original")
    (alone / "graph.json").write_text(json.dumps(vendor["graph"]))
    assert lint("--no-models", "graph.json") == 1
    assert "api-node" in capsys.readouterr().out
    assert lint("--no-models", "--allow-api-nodes", "graph.json") == 0


PACK = "Mine: {git: 'https://x/Mine', commit: %s}" % ("e" * 40)


def test_packs_without_schemas(
    alone: Path, make_project: MakeProject, capsys: pytest.CaptureFixture[str]
) -> None:
    """One warning for a file; what may be theirs passes, and what is misspelt does not."""
    root = make_project({}, models=f"models: {{}}\npacks: {{{PACK}}}\n")
    graph = json.loads(GRAPH.replace('["1", 0]', '["4", 0]'))
    graph |= {
        "3": {"class_type": "MyUpscaler", "inputs": {"image": ["1", 0]}},
        "4": {"class_type": "MySharpener", "inputs": {"image": ["3", 0]}},
    }
    (alone / "graph.json").write_text(json.dumps(graph, indent=1))
    assert lint("--project", str(root), "--format", "json", "graph.json") == 0
    [[warning]] = [one["diagnostics"] for one in reported(capsys)]
    assert (warning["code"], warning["severity"], warning["node"]) == ("no-schemas", "warning", "3")
    assert 'classes "MySharpener", "MyUpscaler" go unchecked' in warning["message"]
    assert "python -m generator catalog --url URL" in warning["hint"]
    graph["3"]["class_type"] = "ImageScaleyB"
    graph["7"] = "nonsense"
    (alone / "graph.json").write_text(json.dumps(graph, indent=1))
    assert lint("--project", str(root), "--format", "json", "graph.json") == 1
    found = {(d["code"], d["node"]) for one in reported(capsys) for d in one["diagnostics"]}
    assert {("unknown-class", "3"), ("no-schemas", "4"), ("bad-graph", "7")} <= found


FACE = """\
{"1": {"class_type": "InstantIDFaceAnalysis", "inputs": {"provider": "CPU"}},
 "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
 "3": {"class_type": "InstantIDFaceAnalysis", "inputs": {"provider": "CPU"}}}
"""


def test_files_that_no_input_names(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are asked for where models are, of nodes that run."""
    (alone / "graph.json").write_text(FACE)
    assert lint("--no-models", "--quiet", "graph.json") == 0
    assert lint("--project", str(ROOT), "--quiet", "graph.json") == 0
    folder = alone / "models" / "insightface" / "models" / "antelopev2"
    folder.mkdir(parents=True)
    for name in ("1k3d68", "2d106det", "genderage", "glintr100"):
        (folder / f"{name}.onnx").touch()
    capsys.readouterr()
    assert lint("--models", "models", "--format", "json", "--quiet", "graph.json") == 1
    [[found]] = [one["diagnostics"] for one in reported(capsys)]
    assert (found["code"], found["node"]) == ("implicit-model", "1")
    assert found["message"].endswith(
        "are not below models: insightface/models/antelopev2/scrfd_10g_bnkps.onnx"
    )
    (folder / "scrfd_10g_bnkps.onnx").touch()
    assert lint("--models", "models", "--quiet", "graph.json") == 0


# What docs/lint.md shows

DOCS = (ROOT / "docs" / "lint.md").read_text(encoding="utf-8")


def shown(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)


def command(line: str) -> list[str]:
    """Return the arguments of a command of the generator."""
    return shlex.split(line.partition("-m generator ")[2])


def test_the_first_example(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (alone / "graph.json").write_text(GRAPH.replace('64, "height"', '64, "heigth"'))
    assert main(command(shown("sh")[0])) == 1
    assert shown("")[0] in capsys.readouterr().out


def test_the_options_are_all_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint("--help") == 0
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert options == set(re.findall(r"^\| `(--[a-z-]+)", DOCS, re.MULTILINE))


def test_the_hooks(alone: Path) -> None:
    """The hook that the example names exists, and its command checks what it is given."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    entries = {hook["id"]: hook for hook in hooks}
    example = yaml.safe_load(shown("yaml")[0])
    [wanted] = example["repos"][0]["hooks"]
    assert wanted["id"] in entries
    assert re.match(wanted["files"], "graphs/a.json")
    (alone / "good.json").write_text(GRAPH)
    (alone / "bad.json").write_text("{}}")
    entry = command(entries["comfyui-lint"]["entry"])
    assert main([*entry, "good.json"]) == 0
    assert main([*entry, "good.json", "bad.json"]) == 1
    validate = entries["comfyui-validate"]
    assert main([*command(validate["entry"]), "--project", str(ROOT)]) == 0
    assert validate["pass_filenames"] is False
    for name in ("gpu.yaml", "models.yaml", "workflows/flux.yaml"):
        assert re.match(validate["files"], name)


def test_the_github_workflow(alone: Path) -> None:
    """Its last step is run by a shell as GitHub runs it, with this Python as the one set up."""
    workflow = yaml.safe_load(shown("yaml")[1])
    *before, last = workflow["jobs"]["lint"]["steps"]
    assert [step.get("uses", "").partition("@")[0] for step in before] == [
        "actions/checkout",
        "actions/setup-python",
        "",
    ]
    (alone / "graphs").mkdir()
    (alone / "graphs" / "good.json").write_text(GRAPH)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    step = ["bash", "-e", "-o", "pipefail", "-c", last["run"]]
    env = {"PATH": path, "PYTHONPATH": str(ROOT)}
    clean = subprocess.run(step, cwd=alone, env=env, capture_output=True, text=True, check=False)
    assert (clean.returncode, clean.stdout) == (0, "")
    (alone / "graphs" / "bad.json").write_text(GRAPH.replace('["1", 0]', '["7", 0]'))
    found = subprocess.run(step, cwd=alone, env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stdout.count("::error file=graphs/bad.json,line=5") == 1


# ComfyUI's models folder

FLUX = """\
{"1": {"class_type": "UNETLoader",
       "inputs": {"unet_name": "flux1-dev.safetensors", "weight_dtype": "default"}},
 "2": {"class_type": "LoraLoaderModelOnly",
       "inputs": {"model": ["1", 0], "lora_name": "style.safetensors", "strength_model": 1}},
 "3": {"class_type": "ModelSave", "inputs": {"model": ["2", 0], "filename_prefix": "x"}}}
"""


def write_lora(path: Path, key: str) -> None:
    """Write a LoRA with one tensor."""
    header = json.dumps({key: {"dtype": "F16", "shape": [1, 1], "data_offsets": [0, 2]}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")


@pytest.mark.parametrize(
    ("key", "codes"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", []),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", ["family-mismatch"]),
    ],
    ids=["flux", "sdxl"],
)
def test_a_header_tells_the_family(
    alone: Path, capsys: pytest.CaptureFixture[str], key: str, codes: list[str]
) -> None:
    write_lora(alone / "models" / "loras" / "style.safetensors", key)
    (alone / "models" / "diffusion_models").mkdir()
    (alone / "models" / "diffusion_models" / "flux1-dev.safetensors").touch()
    (alone / "graph.json").write_text(FLUX)
    lint("--models", "models", "--format", "json", "graph.json")
    found = [d for one in reported(capsys) for d in one["diagnostics"]]
    assert [d["code"] for d in found] == codes
    assert [(d["node"], d["input"]) for d in found] == [("2", "lora_name")] * len(codes)


def test_a_file_that_is_not_there(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lora(alone / "models" / "loras" / "styles.safetensors", "x")
    (alone / "graph.json").write_text(FLUX)
    lint("--models", "models", "--format", "json", "graph.json")
    [one] = reported(capsys)
    found = {d["input"]: d for d in one["diagnostics"]}
    assert {d["code"] for d in found.values()} == {"no-such-model"}
    assert set(found) == {"unet_name", "lora_name"}
    assert found["lora_name"]["hint"] == 'did you mean "styles.safetensors"?'


def test_a_header_that_cannot_be_read(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = alone / "models" / "loras"
    folder.mkdir(parents=True)
    (folder / "style.safetensors").write_bytes(b"<html>not found</html>")
    (alone / "models" / "diffusion_models").mkdir()
    (alone / "models" / "diffusion_models" / "flux1-dev.safetensors").touch()
    (alone / "graph.json").write_text(FLUX)
    assert lint("--models", "models", "--format", "json", "graph.json") == 0
    [one] = reported(capsys)
    assert [(d["code"], d["severity"], d["input"]) for d in one["diagnostics"]] == [
        ("unread-header", "warning", "lora_name")
    ]
