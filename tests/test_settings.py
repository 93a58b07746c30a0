"""gpu.yaml and models.yaml: secrets in the wrong place, Volumes in the way, and what images lack."""

import pytest

from generator.check.image import PACKAGES
from generator.diagnostics import Diagnostic
from generator.schema import schema
from generator.workers import app_values
from templates.image_build.requirements import name_of

from .conftest import GPU_YAML, MakeProject, load_and_check

IMAGE = """\
graph:
  1: {class_type: EmptyImage, inputs: {width: 64, height: 64, batch_size: 1, color: 0}}
  2: {class_type: SaveImage, inputs: {images: [1, 0], filename_prefix: x}}
"""
MODELS = """\
models:
  a: {{source: {{url: "{url}", sha256: {sha256}}}, folder: loras, filename: a.safetensors}}
packs:
  ComfyUI-GGUF: {{git: "{git}", commit: {commit}, pip: ["{pip}"]}}
"""
GIT = "https://github.com/city96/ComfyUI-GGUF"


def faults(
    make_project: MakeProject, gpu: str = "", models: str = "models: {}\n"
) -> list[Diagnostic]:
    """Return the errors of a project whose gpu.yaml has something more."""
    root = make_project({"it": IMAGE}, models=models, gpu=GPU_YAML + gpu)
    return [d for d in load_and_check(root)[1] if d.severity.name == "ERROR"]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ("API_KEYS, HF_TOKEN", "API_KEYS for the gateway, HF_TOKEN for the download"),
        ("HF_TOKEN, S3_KEY", "HF_TOKEN for the download, S3_KEY for the workers"),
        ("CIVITAI_TOKEN, S3_KEY", "CIVITAI_TOKEN for the download, S3_KEY for the workers"),
        ("API_KEYS, S3_KEY", "API_KEYS for the gateway, S3_KEY for the workers"),
        (
            "S3_KEY, CIVITAI_API_KEY, API_KEYS, HF_TOKEN",
            "API_KEYS for the gateway, CIVITAI_API_KEY HF_TOKEN for the download, S3_KEY for the workers",
        ),
    ],
)
def test_a_secret_that_mixes(make_project: MakeProject, variables: str, said: str) -> None:
    secrets = f"secrets: {{api-keys: [API_KEYS], it: [{variables}]}}\n"
    [fault] = faults(make_project, secrets)
    assert (fault.code, fault.line, fault.column) == ("mixed-secret", 7, 37)
    assert f'"it" mixes {said};' in fault.message
    assert "modal secret create" in (fault.hint or "")


def test_secrets_that_are_apart(make_project: MakeProject) -> None:
    """Each reaches what reads it, and nothing else."""
    secrets = (
        "secrets: {api-keys: [API_KEYS], hf: [HF_TOKEN, HF_ENDPOINT], civitai: [CIVITAI_API_KEY], "
        "mine: [S3_KEY, S3_NAME]}\n"
    )
    root = make_project({"it": IMAGE}, gpu=GPU_YAML + secrets)
    checked, found = load_and_check(root)
    assert checked is not None
    assert found == []
    values = app_values(checked)
    names = ("api-keys", "hf", "civitai", "mine")
    seen = {
        reader: [name for name in names if f'"{name}"' in values[f"{reader}_secrets"]]
        for reader in ("gateway", "download", "worker")
    }
    assert seen == {"gateway": ["api-keys"], "download": ["hf", "civitai"], "worker": ["mine"]}


def addresses(url: str = "https://a.example/x", git: str = GIT, pip: str = "gguf") -> str:
    return MODELS.format(url=url, git=git, pip=pip, sha256="a" * 64, commit="b" * 40)


@pytest.mark.parametrize(
    "models",
    [
        addresses("https://ann:s3cret@a.example/x"),
        addresses("https://s3cret@a.example/x"),
        addresses("https://a.example/x?token=s3cret"),
        addresses("https://a.example/x?type=Model&api_key=s3cret"),
        addresses("https://a.example/x?API-KEY=s3cret"),
        addresses("https://a.example/x?key=s3cret"),
        addresses("https://a.blob.example/x?sv=2024&sig=s3cret"),
        addresses("https://s3.example/x?X-Amz-Date=1&X-Amz-Signature=s3cret"),
        addresses("https://a.example/x#access_token=s3cret"),
        addresses(git="https://s3cret@github.com/city96/ComfyUI-GGUF"),
        addresses(pip="gguf @ git+https://ann:s3cret@a.example/gguf"),
        addresses(pip="gguf @ https://a.example/gguf.whl?token=s3cret"),
    ],
)
def test_a_secret_in_an_address(make_project: MakeProject, models: str) -> None:
    """It is told where it stands, and not what it is."""
    [fault] = faults(make_project, models=models)
    assert fault.code == "secret-in-address"
    line = models.splitlines()[fault.line - 1]
    assert "s3cret" in line[fault.column - 1 :]
    assert "s3cret" not in f"{fault.message}{fault.hint}"
    assert "leave it out" in (fault.hint or "")


@pytest.mark.parametrize(
    "models",
    [
        addresses("https://civitai.com/api/download/models/1?type=Model&format=SafeTensor"),
        addresses("https://a.example/tokens/key?version=2&keyframes=1"),
        addresses("https://a.example/x@1.0/y"),
        addresses(pip="gguf @ git+ssh://git@a.example/gguf"),
        addresses(pip="gguf[extra]>=1; python_version >= '3.11'"),
    ],
)
def test_an_address_without_a_secret(make_project: MakeProject, models: str) -> None:
    assert faults(make_project, models=models) == []


PINS: list[str] = schema("gpu")["properties"]["requirements"]["default"]


def test_the_default_has_what_is_needed() -> None:
    assert [name_of(pin) for pin in PINS] == list(PACKAGES)


@pytest.mark.parametrize("package", list(PACKAGES))
def test_a_requirement_that_is_missing(make_project: MakeProject, package: str) -> None:
    [pin] = [pin for pin in PINS if name_of(pin) == package]
    written = ", ".join([*(one for one in PINS if one != pin), "timm==1.0.22"])
    [fault] = faults(make_project, f"requirements: [{written}]\n")
    assert (fault.code, fault.line, fault.column) == ("missing-requirement", 7, 15)
    assert f"{package} ({PACKAGES[package]})" in fault.message
    assert fault.hint == f"add {pin}"


def test_requirements_in_other_words(make_project: MakeProject) -> None:
    """Other versions, extras and spellings are as good, and git may stand anywhere."""
    pins = ["Python_Multipart==0.1", '"fastapi[standard]==0.120.0"', "Pillow==13.0.0"]
    names = {name_of(pin.strip('"')) for pin in pins}
    pins += [pin for pin in PINS if name_of(pin) not in names]
    assert faults(make_project, f"requirements: [{', '.join(pins)}]\napt: [curl, git]\n") == []


def test_an_image_without_git(make_project: MakeProject) -> None:
    [fault] = faults(make_project, "apt: [ffmpeg]\n")
    assert (fault.code, fault.hint) == ("missing-requirement", "add git")


@pytest.mark.parametrize(
    ("volumes", "said"),
    [
        ("other: /cache", "hf-hub-cache, of the models that are downloaded, is at /cache"),
        ("other: /cache/mine", "hf-hub-cache, of the models that are downloaded, is at /cache"),
        ("hf-hub-cache: /a, other: /a/b", 'volume "hf-hub-cache" is mounted at /a, and this one'),
        ("hf-hub-cache: /a/b, other: /a", 'volume "other" is mounted at /a, and this one'),
        (
            "other: /root/comfy",
            "ComfyUI is at /root/comfy/ComfyUI, and a Volume at /root/comfy hides",
        ),
        ("other: /root/comfy/ComfyUI/models", "ComfyUI is at"),
        ("other: /root/build", "the app itself is at /root/build"),
    ],
)
def test_a_volume_in_the_way(make_project: MakeProject, volumes: str, said: str) -> None:
    [fault] = faults(make_project, f"volumes: {{{volumes}}}\n")
    assert fault.code == "bad-volume"
    assert said in fault.message


@pytest.mark.parametrize(
    "volumes", ["hf-hub-cache: /a, other: /cache", "hf-hub-cache: /a, b: /ab", "mine: /root/models"]
)
def test_volumes_that_are_apart(make_project: MakeProject, volumes: str) -> None:
    assert faults(make_project, f"volumes: {{{volumes}}}\n") == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("L41S", 'did you mean "L40S"?'),
        ("A100-90GB", 'did you mean "A100-'),
        ("MI300X", "it had T4, L4, "),
        ("A100-80GB", None),
        ("a100", None),
        ("l4", None),
    ],
)
def test_a_gpu_that_modal_has_not(make_project: MakeProject, name: str, hint: str | None) -> None:
    """A warning where the name stands, for Modal may have newer ones."""
    gpu = GPU_YAML + f"  mine: {{modal: {name}, vram_gb: 48, price_per_second: 0.001}}\n"
    found = load_and_check(make_project({"it": IMAGE}, models="models: {}\n", gpu=gpu))[1]
    told = [(d.severity.name, d.line, d.column) for d in found if d.code == "unlisted-gpu"]
    line = len(gpu.splitlines())
    assert told == ([] if hint is None else [("WARNING", line, 17)])
    assert all((d.hint or "").startswith(hint or "") for d in found if d.code == "unlisted-gpu")
