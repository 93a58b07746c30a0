"""generator.lock: what is asked for, what is kept, and where specs and lock differ."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from generator.check.image import PACKAGES
from generator.cli import main
from generator.lock import Lock, LockedModel, parse, text_of
from generator.render import render
from templates.image_build.requirements import read_asked, read_files
from templates.utils import patience

from .conftest import MakeProject, load_and_check
from .hub_server import HubServer, Repo, hub_server
from .sources import Sources

REPO = "acme/models"
FILES = {"split/a.safetensors": b"a" * 1000, "b.safetensors": b"b" * 2000}
WORKFLOW = """\
graph:
  1: {class_type: CheckpointLoaderSimple, inputs: {ckpt_name: a.safetensors}}
  2: {class_type: EmptyLatentImage, inputs: {width: 64, height: 64, batch_size: 1}}
  3: {class_type: VAEDecode, inputs: {samples: [2, 0], vae: [1, 2]}}
  4: {class_type: SaveImage, inputs: {images: [3, 0], filename_prefix: x}}
packs: [ComfyUI-GGUF]
"""
MODELS = """\
models:
  a:
    source: {{hf: acme/models, file: split/a.safetensors}}
    folder: checkpoints
  b:
    source: {{hf: acme/models, file: b.safetensors}}
    folder: vae
  u:
    source: {{url: "{url}/u.safetensors", sha256: {sha256}}}
    folder: vae
  v:
    source: {{volume: mine, file: loras/v.safetensors}}
    folder: loras
packs:
  ComfyUI-GGUF:
    git: https://github.com/city96/ComfyUI-GGUF
    commit: {commit}
    pip: [gguf]
"""
GPU = """\
app: test-app
python: "3.11"
comfyui: {{version: 0.3.71, commit: {comfyui}}}
requirements: [fastapi==0.115.4, {app}]
volumes: {{mine: /root/models}}
gpus:
  default: l40s
  l40s: {{modal: L40S, vram_gb: 48, price_per_second: 0.000542}}
"""
# What an app needs besides, as wheels with nothing in them.
APP = tuple(name for name in PACKAGES if name != "fastapi")
APP_PINS = ", ".join(f"{name}==1" for name in APP)
LOCK = """\
# What the specs resolve to, by make lock. Commit it, and do not edit it.
version 1
model a file=split/a.safetensors gated=false hf=acme/models license=apache-2.0 revision={revision} sha256={a} size=1000
model b file=b.safetensors gated=false hf=acme/models license=apache-2.0 revision={revision} sha256={b} size=2000
model u gated=false sha256={u} size=3 url={url}/u.safetensors
pack ComfyUI-GGUF commit={pack} git=https://github.com/city96/ComfyUI-GGUF
requirement fastapi==0.115.4
requirement fastapi==0.115.4 group=@gateway
requirement gguf==2.0
requirement numpy==1.9
requirement numpy==1.9 group=@comfyui
requirement torch==3.0
requirement torch==3.0 group=@comfyui
"""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.add(REPO, FILES)
        server.repos[REPO].license = "apache-2.0"
        server.other["/u.safetensors"] = ({}, b"uuu")
        yield server


@pytest.fixture
def sources(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Sources:
    made = Sources(tmp_path_factory.mktemp("sources"), monkeypatch)
    made.wheel("fastapi", "0.115.4")
    for name in APP:
        made.wheel(name, "1")
    made.wheel("torch", "3.0", ["numpy"])
    made.wheel("gguf", "2.0", ["numpy<2"])
    made.wheel("numpy", "1.9")
    made.wheel("numpy", "2.3")
    return made


@pytest.fixture
def project(make_project: MakeProject, hub: HubServer, sources: Sources) -> Path:
    comfyui = sources.commit("comfyanonymous/ComfyUI", requirements_txt="torch\n")
    commit = sources.commit("city96/ComfyUI-GGUF", README_md="no requirements\n")
    return make_project(
        {"it": WORKFLOW},
        models=MODELS.format(url=hub.url, sha256=sha256(b"uuu"), commit=commit),
        gpu=GPU.format(comfyui=comfyui, app=APP_PINS),
    )


@pytest.fixture
def lock(project: Path) -> Callable[..., int]:
    """Return a function that runs the command."""
    return lambda *arguments: main(["lock", "--project", str(project), *arguments])


def text(project: Path) -> str:
    return (project / "generator.lock").read_text()


def lines(project: Path, start: str) -> list[str]:
    return [line for line in text(project).splitlines() if line.startswith(start)]


def requirements(project: Path) -> list[str]:
    """Return the lines of Python packages, but for those of which only the app is made."""
    return [line for line in lines(project, "requirement ") if line.split()[1][:-3] not in APP]


def edit(path: Path, old: str, new: str) -> None:
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new))


def errors(project: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what validate says is an error, without the folder."""
    capsys.readouterr()
    main(["validate", "--project", str(project), "--quiet"])
    return [line.removeprefix(f"{project}/") for line in capsys.readouterr().out.splitlines()]


def test_a_lock_holds_all_that_the_specs_stand_for(
    project: Path, hub: HubServer, lock: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert lock() == 0
    pack = re.findall("commit: (.{40})", (project / "models.yaml").read_text())[0]
    ours = {*lines(project, "requirement ")} - {*requirements(project)}
    assert ours == {
        f"requirement {name}==1{g}" for name in APP for g in ("", " group=@gateway")
    } - {"requirement comfy-cli==1 group=@gateway"}
    found = [line for line in text(project).splitlines(keepends=True) if line.rstrip() not in ours]
    assert "".join(found).partition("resolved ")[0] == LOCK.format(
        revision=hub.repos[REPO].head,
        a=sha256(FILES["split/a.safetensors"]),
        b=sha256(FILES["b.safetensors"]),
        u=sha256(b"uuu"),
        url=hub.url,
        pack=pack,
    )
    assert len(lines(project, "resolved ")) == 3
    assert "3 models (0.0 GB), 1 pack, 16 packages" in capsys.readouterr().err
    assert str(project) not in text(project)
    assert hub.sent() <= 3  # no model was downloaded


def test_a_lock_that_fits_is_kept_and_asks_nobody(
    project: Path, hub: HubServer, lock: Callable[..., int], sources: Sources
) -> None:
    lock()
    before = text(project)
    hub.asked.clear()
    hub.add(REPO, {"b.safetensors": b"newer"})
    sources.wheel("torch", "4.0")
    assert lock() == 0
    assert (text(project), hub.asked) == (before, [])


def test_the_same_specs_give_the_same_bytes(project: Path, lock: Callable[..., int]) -> None:
    lock()
    before = (project / "generator.lock").read_bytes()
    (project / "generator.lock").unlink()
    lock()
    assert (project / "generator.lock").read_bytes() == before
    read, faults = parse(before.decode())
    assert (text_of(read).encode(), faults) == (before, [])


def test_update_locks_what_it_names_anew(
    project: Path, hub: HubServer, lock: Callable[..., int], sources: Sources
) -> None:
    lock()
    old = hub.repos[REPO].head
    new = hub.add(REPO, {"b.safetensors": b"newer"})
    for version in ("3.1", "4.0"):
        sources.wheel("torch", version, ["numpy"])
    sources.wheel("numpy", "1.10")
    assert lock("--update", "b") == 0
    assert f"revision={old}" in lines(project, "model a ")[0]
    assert f"revision={new} sha256={sha256(b'newer')} size=5" in lines(project, "model b ")[0]
    assert "requirement torch==3.0" in text(project)
    assert lock("--update", "torch") == 0
    assert requirements(project)[3:] == [
        "requirement numpy==1.9", "requirement numpy==1.9 group=@comfyui",
        "requirement torch==4.0", "requirement torch==4.0 group=@comfyui",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bb", 'there is no model and no locked package "bb"; did you mean "b"?'),
        ("v", 'model "v" is on a Volume, and not locked'),
        ("ComfyUI-GGUF", "is written in models.yaml: change it there"),
    ],
)
def test_update_refuses_what_it_cannot_update(
    lock: Callable[..., int], capsys: pytest.CaptureFixture[str], name: str, reason: str
) -> None:
    assert lock("--update", name) == 2
    assert reason in capsys.readouterr().err


def test_check_writes_nothing_and_asks_nobody(
    project: Path, hub: HubServer, lock: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert lock("--check") == 1
    assert "there is no" in capsys.readouterr().err
    lock()
    hub.asked.clear()
    assert lock("--check") == 0
    edit(project / "models.yaml", "file: b.safetensors", "file: c.safetensors")
    before = text(project)
    assert lock("--check") == 1
    assert "error[lock-drift]" in capsys.readouterr().out
    assert (text(project), hub.asked) == (before, [])


DRIFTS = {
    "another file": (
        "models.yaml", "file: b.safetensors", "file: c.safetensors",
        'models.yaml:6:13: error[lock-drift] generator.lock has model "b" from elsewhere',
    ),
    "a revision": (
        "models.yaml", "file: b.safetensors", f"file: b.safetensors, revision: {'a' * 40}",
        'models.yaml:6:62: error[lock-drift] generator.lock has another revision of model "b"',
    ),
    "a hash": (
        "models.yaml", sha256(b"uuu"), "a" * 64,
        'another sha256 of model "u"',
    ),
    "a new model": (
        "models.yaml", "  v:\n", "  w: {source: {hf: acme/models, file: x.pt}, folder: vae}\n  v:\n",
        'models.yaml:11:15: error[lock-drift] generator.lock has no model "w"',
    ),
    "a renamed model": (
        "models.yaml", "  b:\n", "  c:\n",
        'generator.lock:4:1: error[lock-drift] models.yaml declares no model "b"',
    ),
    "a pack's commit": (
        "models.yaml", "commit: .{40}", f"commit: {'b' * 40}",
        'models.yaml:17:13: error[lock-drift] generator.lock has another commit of pack "ComfyUI-GGUF"',
    ),
    "a pack's address": (
        "models.yaml", "com/city96/", "com/somebody/",
        'another git of pack "ComfyUI-GGUF"',
    ),
    "a pack's requirements": (
        "models.yaml", r"\[gguf\]", "[gguf<3]",
        "models.yaml:16:5: error[lock-drift] generator.lock was made for other packs, or other "
        "requirements of packs",
    ),
    "the requirements": (
        "gpu.yaml", r"\[fastapi==0.115.4", "[timm==1, fastapi==0.115.4",
        "gpu.yaml:4:15: error[lock-drift] generator.lock was made with other requirements",
    ),
    "the version of Python": (
        "gpu.yaml", '"3.11"', '"3.12"',
        "gpu.yaml:2:9: error[lock-drift] generator.lock was made for Python 3.11",
    ),
    "the commit of ComfyUI": (
        "gpu.yaml", "commit: .{40}", f"commit: {'c' * 40}",
        "gpu.yaml:3:36: error[lock-drift] generator.lock was made for ComfyUI at commit ",
    ),
    "packs in use": (
        "workflows/it.yaml", r"packs: \[ComfyUI-GGUF\]", "",
        "gpu.yaml:1:1: error[lock-drift] generator.lock was made for other packs",
    ),
    "a group": (
        "workflows/it.yaml", "graph:\n", "group: one\ngraph:\n",
        'gpu.yaml:4:15: error[lock-drift] generator.lock has no requirements of the image of group "one"',
    ),
}  # fmt: skip


def test_what_differs_is_an_error_with_its_place(
    project: Path, lock: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    lock()
    for name, (file, old, new, message) in DRIFTS.items():
        before = (project / file).read_text()
        after, count = re.subn(old, new, before)
        assert count == 1, name
        (project / file).write_text(after)
        found = errors(project, capsys)
        (project / file).write_text(before)
        assert any(message in line for line in found), (name, found)
        assert all("run make lock" in line for line in found)
    assert errors(project, capsys) == []


def test_a_gated_model_is_to_be_declared_as_such(
    project: Path, hub: HubServer, lock: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its files are listed to everybody, so the lock itself needs no token."""
    hub.repos[REPO].gated, hub.repos[REPO].token = True, "hf_secret"
    assert lock() == 0
    assert "gated=true" in lines(project, "model a ")[0]
    assert errors(project, capsys) == [
        f"models.yaml:{line}:13: error[lock-drift] acme/models is gated; "
        "add gated: true to the model"
        for line in (3, 6)
    ]


def test_the_locks_of_models_are_rendered(
    project: Path, hub: HubServer, lock: Callable[..., int]
) -> None:
    lock()
    checked, _ = load_and_check(project)
    assert checked is not None
    [model] = json.loads(render(checked)["models.json"])
    assert model == {
        "name": "a",
        "path": "checkpoints/a.safetensors",
        "source": {"hf": REPO, "file": "split/a.safetensors"},
        "revision": hub.repos[REPO].head,
        "size": 1000,
        "sha256": sha256(FILES["split/a.safetensors"]),
        "gated": False,
    }
    assert checked.models.models["a"].license == "apache-2.0"


def test_images_install_what_is_locked(
    project: Path, lock: Callable[..., int], sources: Sources
) -> None:
    """But for what a build of torch brings with it, which another build brings in other versions."""
    sources.wheel("nvidia-cublas-cu12", "12.8")
    edit(project / "models.yaml", "[gguf]", "[gguf, nvidia-cublas-cu12]")
    lock()
    assert "requirement nvidia-cublas-cu12==12.8" in text(project)
    checked, _ = load_and_check(project)
    assert checked is not None
    files = render(checked)
    assert files["constraints.txt"].decode().split() == ["numpy==1.9", "torch==3.0"]
    installed = files["image.py"].decode().partition("requirements(\n")[2].partition(")")[0]
    assert [p for p in re.findall('"([^"]+)"', installed) if p[:-3] not in APP] == [
        "fastapi==0.115.4", "gguf==2.0", "numpy==1.9", "torch==3.0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "old", "new", "locked"),
    [
        ("gpu.yaml", "fastapi==0.115.4", "fastapi==0.116", "fastapi==0.116"),
        ("models.yaml", "[gguf]", "[gguf, extra]", "extra==1.0"),
        ("models.yaml", "[gguf]", '["numpy>=2"]', "numpy==2.3"),
    ],
)
def test_what_packs_and_the_app_ask_for_leaves_comfyui_alone(
    project: Path,
    lock: Callable[..., int],
    sources: Sources,
    file: str,
    old: str,
    new: str,
    locked: str,
) -> None:
    """Also another version of what ComfyUI needs: a later layer installs it over the first."""
    sources.wheel("fastapi", "0.116")
    sources.wheel("extra", "1.0")
    lock()
    before = layers_of(project)
    edit(project / file, old, new)
    assert lock() == 0
    assert f"requirement {locked}\n" in text(project)
    assert "requirement numpy==1.9 group=@comfyui\n" in text(project)
    after = layers_of(project)
    assert [name for name in after if after[name] != before[name]] == ["requirements"]
    # Another ComfyUI is another layer, and so in the workers' versions at once.
    commit = sources.commit("comfyanonymous/ComfyUI", requirements_txt="torch\nextra\n")
    gpu = (project / "gpu.yaml").read_text()
    (project / "gpu.yaml").write_text(re.sub("commit: .{40}", f"commit: {commit}", gpu))
    assert lock() == 0
    ours = {line for line in requirements(project) if "group=" not in line}
    comfyui = {
        one.removesuffix(" group=@comfyui")
        for one in lines(project, "requirement ")
        if "@comfyui" in one
    }
    assert len(comfyui) == 3
    assert comfyui <= ours


def layers_of(project: Path) -> dict[str, str]:
    """Return the digests of the layers of the workers' image."""
    checked, _ = load_and_check(project)
    assert checked is not None
    layers: dict[str, str] = json.loads(render(checked)["manifest.json"])["images"]["worker_image"]
    return layers


def test_the_gateway_has_the_workers_versions(
    project: Path, lock: Callable[..., int], sources: Sources
) -> None:
    """But none of what only ComfyUI and packs need, nor what installs them."""
    sources.wheel("fastapi", "0.116", ["numpy"])
    sources.wheel("comfy-cli", "1", ["rich"])
    sources.wheel("rich", "1.0")
    edit(project / "gpu.yaml", "fastapi==0.115.4", "fastapi==0.116")
    assert lock() == 0
    assert lines(project, "requirement comfy-cli") == ["requirement comfy-cli==1"]
    assert requirements(project) == [
        "requirement fastapi==0.116",
        "requirement fastapi==0.116 group=@gateway",
        "requirement gguf==2.0",
        "requirement numpy==1.9",
        "requirement numpy==1.9 group=@comfyui",
        "requirement numpy==1.9 group=@gateway",
        "requirement rich==1.0",
        "requirement torch==3.0",
        "requirement torch==3.0 group=@comfyui",
    ]
    checked, _ = load_and_check(project)
    assert checked is not None
    image = render(checked)["image.py"].decode()
    installed = image.partition("gateway_image = ")[2].partition("uv_version")[0]
    assert re.findall('"(fastapi|numpy|rich|comfy-cli|httpx)=', installed) == [
        "fastapi",
        "httpx",
        "numpy",
    ]


def unresolved(output: str) -> list[str]:
    return [line.partition("error[unresolved] ")[2] for line in output.splitlines()]


def test_everything_that_cannot_be_locked_is_told_at_once(
    project: Path, hub: HubServer, lock: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is written."""
    hub.repos["acme/private"] = Repo({"0" * 40: {"x.pt": b"x"}}, token="hf_secret")
    edit(project / "models.yaml", "file: b.safetensors", "file: bb.safetensors")
    edit(project / "models.yaml", "u.safetensors", "nothing.safetensors")
    edit(project / "models.yaml", "    commit: ", f"    commit: {'b' * 40} # ")
    edit(
        project / "models.yaml",
        "  v:\n",
        "  w: {source: {hf: acme/nowhere, file: w.pt}, folder: vae}\n"
        "  x: {source: {hf: acme/private, file: x.pt}, folder: vae}\n"
        f"  y: {{source: {{hf: acme/models, file: y.pt, revision: {'a' * 40}}}, folder: vae}}\n"
        "  v:\n",
    )
    assert lock() == 1
    output = capsys.readouterr()
    found = unresolved(output.out)
    assert found[:-1] == [
        'model "b": acme/models has no file bb.safetensors; did you mean "b.safetensors"?',
        'model "u": http://127.0.0.1/nothing.safetensors is answered with status 404',
        'model "w": there is no repository acme/nowhere, or it is private: there is no token '
        "(status 401)",
        'model "x": there is no repository acme/private, or it is private: there is no token '
        "(status 401)",
        f'model "y": acme/models has no revision {"a" * 40}',
    ]
    assert found[-1] == f"https://github.com/city96/ComfyUI-GGUF has no commit {'b' * 40}"
    assert "nothing locked: 6 errors" in output.err
    assert not (project / "generator.lock").exists()


def test_a_token_opens_a_private_repository(
    project: Path,
    hub: HubServer,
    lock: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.repos[REPO].token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert lock() == 0
    assert "hf_secret" not in text(project) + "".join(capsys.readouterr())
    assert {a.authorization for a in hub.asked if a.path == "/u.safetensors"} == {""}


@pytest.mark.usefixtures("project")
def test_a_server_that_is_busy_for_a_while(hub: HubServer, lock: Callable[..., int]) -> None:
    hub.busy[f"/api/models/{REPO}"] = 3
    assert lock() == 0
    assert hub.busy[f"/api/models/{REPO}"] == 0


def test_a_server_that_nobody_reaches(
    lock: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert lock() == 1
    assert unresolved(capsys.readouterr().out) == [
        f'model "{name}": 127.0.0.1 cannot be reached, 5 times in a row' for name in "ab"
    ]


def test_a_repository_that_is_not_there(
    project: Path, lock: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    edit(project / "models.yaml", "com/city96/", "com/nobody/")
    assert lock() == 1
    [found] = unresolved(capsys.readouterr().out)
    assert found.startswith("https://github.com/nobody/ComfyUI-GGUF cannot be read: fatal: ")


def test_a_small_file_is_hashed_here(
    project: Path, hub: HubServer, lock: Callable[..., int]
) -> None:
    """Outside of large-file storage the server says no SHA-256."""
    hub.repos[REPO].plain = ("b.safetensors",)
    assert lock() == 0
    expected = f"sha256={sha256(FILES['b.safetensors'])} size=2000"
    assert lines(project, "model b ")[0].endswith(expected)


def test_a_small_file_that_comes_damaged_is_not_locked(
    hub: HubServer, lock: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Else every download after it would be held to the damaged one."""
    hub.repos[REPO].plain = ("b.safetensors",)
    hub.wrong.add(FILES["b.safetensors"])
    assert lock() == 1
    [found] = unresolved(capsys.readouterr().out)
    assert f"b.safetensors of {REPO} came damaged" in found


def test_packs_bring_their_requirements(
    project: Path, lock: Callable[..., int], sources: Sources
) -> None:
    """Those in their repositories at their commits."""
    sources.wheel("extra", "1.0")
    sources.wheel("late", "1.0")
    commit = sources.commit("city96/ComfyUI-GGUF", requirements_txt="extra # why\n")
    sources.commit("city96/ComfyUI-GGUF", requirements_txt="late\n")
    models = (project / "models.yaml").read_text()
    (project / "models.yaml").write_text(re.sub("commit: .{40}", f"commit: {commit}", models))
    assert lock() == 0
    assert "requirement extra==1.0\n" in text(project)
    assert "late" not in text(project)


def write_pack(project: Path, sources: Sources, **files: str) -> None:
    """Commit files to the pack, and pin that commit."""
    commit = sources.commit("city96/ComfyUI-GGUF", **files)
    models = (project / "models.yaml").read_text()
    (project / "models.yaml").write_text(re.sub("commit: .{40}", f"commit: {commit}", models))


def test_files_that_requirements_name_are_read(
    project: Path, lock: Callable[..., int], sources: Sources
) -> None:
    """At the same commit, from where they are named; constraints bound all, and ask for nothing."""
    for name in ("extra", "inner", "bound", "unasked"):
        sources.wheel(name, "1.0")
        sources.wheel(name, "2.0")
    (sources.repositories / "city96" / "ComfyUI-GGUF" / "more").mkdir()
    write_pack(
        project,
        sources,
        requirements_txt="\ufeff-r more/extra.txt # all of it\nbound\n--constraint=bounds.txt\n",
        **{
            "more/extra.txt": "extra \\\n  ==1.0\n--requirement inner.txt\n-r ../requirements.txt\n",
            "more/inner.txt": "inner<2\n",
            "bounds.txt": "bound<2\nunasked<2\n",
        },
    )
    assert lock() == 0
    found = {line.split()[1] for line in requirements(project)}
    assert {"extra==1.0", "inner==1.0", "bound==1.0"} <= found
    assert "unasked" not in text(project)
    # As the image does it, which reads the files where they lie.
    (project / "custom_nodes").mkdir()
    (sources.repositories / "city96" / "ComfyUI-GGUF").rename(project / "custom_nodes" / "it")
    asked = read_asked(project, [])["it"]
    assert asked == ["extra    ==1.0", "inner<2", "bound"]


@pytest.mark.parametrize(
    "lines", ["-c common.txt\n-r common.txt\n", "-r common.txt\n-c common.txt\n"]
)
def test_a_file_that_bounds_and_asks(
    project: Path, lock: Callable[..., int], sources: Sources, lines: str
) -> None:
    """What one line names as constraints, another may ask for, and both count."""
    for version in ("1.0", "2.0"):
        sources.wheel("both", version)
    files = {"requirements.txt": lines, "common.txt": "both<2\n"}
    assert read_files(files.__getitem__) == (["both<2"], ["both<2"])
    write_pack(project, sources, requirements_txt=lines, **{"common.txt": "both<2\n"})
    assert lock() == 0
    assert "requirement both==1.0\n" in text(project)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-e .", "requirements.txt asks for -e ., a folder or file"),
        ("--editable=./inner", "requirements.txt asks for --editable=./inner, a folder or file"),
        ("./wheels/one.whl", "requirements.txt asks for ./wheels/one.whl, a folder or file"),
        ("one @ file:///one.whl", "requirements.txt asks for one @ file:///one.whl, a folder or"),
        ("-r missing.txt", "requirements.txt names missing.txt, which is not there"),
        (
            "-r ../outside.txt",
            "requirements.txt names ../outside.txt, which is not in the repository",
        ),
        ("-c https://example.com/c.txt", "names https://example.com/c.txt, which is not in the"),
    ],
)
def test_requirements_that_no_lock_can_hold(
    project: Path,
    lock: Callable[..., int],
    sources: Sources,
    capsys: pytest.CaptureFixture[str],
    line: str,
    reason: str,
) -> None:
    write_pack(project, sources, requirements_txt=f"{line}\n")
    assert lock() == 1
    [found] = unresolved(capsys.readouterr().out)
    assert reason in found
    assert found.startswith("https://github.com/city96/ComfyUI-GGUF: ")
    assert "; a fork of it can ask for packages instead" in found


@pytest.mark.parametrize(
    "data", ["gguf\n".encode("utf-16"), "gguf # \U0001f600\n".encode() + b"# \xe9"]
)
def test_requirements_in_no_known_encoding(
    project: Path,
    lock: Callable[..., int],
    sources: Sources,
    capsys: pytest.CaptureFixture[str],
    data: bytes,
) -> None:
    path = sources.repositories / "city96" / "ComfyUI-GGUF" / "requirements.txt"
    path.write_bytes(data)
    write_pack(project, sources)
    assert lock() == 1
    [found] = unresolved(capsys.readouterr().out)
    assert found.startswith(
        "https://github.com/city96/ComfyUI-GGUF: its requirements.txt is no UTF-8"
    )


def test_requirements_that_clash(
    project: Path, lock: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """uv says which do; what is wrong besides is told with it."""
    edit(project / "models.yaml", "file: b.safetensors", "file: bb.safetensors")
    edit(project / "models.yaml", "[gguf]", '[gguf, "numpy>=2", "numpy<2"]')
    assert lock() == 1
    found, model = unresolved(capsys.readouterr().out)
    assert model.startswith('model "b": ')
    assert "numpy>=2" in found
    assert "unsatisfiable" in found
    assert found.endswith("; who asks: ComfyUI-GGUF: numpy>=2; ComfyUI-GGUF: numpy<2")


def test_builds_of_one_library_are_one_package(
    project: Path, lock: Callable[..., int], sources: Sources
) -> None:
    """They would overwrite each other; the one is locked that the image installs."""
    sources.wheel("onnxruntime", "1.0")
    sources.wheel("onnxruntime-gpu", "1.0")
    sources.wheel("needs-it", "1.0", ["onnxruntime"])
    edit(project / "models.yaml", "[gguf]", "[needs-it, onnxruntime-gpu]")
    assert lock() == 0
    assert lines(project, "requirement onnx") == ["requirement onnxruntime-gpu==1.0"]


def test_each_group_has_requirements_of_its_own(project: Path, lock: Callable[..., int]) -> None:
    """So packs that clash can be used in one app."""
    other = WORKFLOW.replace("packs: [ComfyUI-GGUF]", "group: other")
    (project / "workflows" / "other.yaml").write_text(other)
    assert lock() == 0
    assert requirements(project) == [
        "requirement fastapi==0.115.4",
        "requirement fastapi==0.115.4 group=@gateway",
        "requirement fastapi==0.115.4 group=other",
        "requirement gguf==2.0",
        "requirement numpy==1.9",
        "requirement numpy==1.9 group=@comfyui",
        "requirement numpy==2.3 group=other",
        "requirement torch==3.0",
        "requirement torch==3.0 group=@comfyui",
        "requirement torch==3.0 group=other",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "<<<<<<< HEAD",
        "version 2",
        "model a",
        "model a hf=x file=y",
        f"model a gated=maybe hf=x file=y revision={'a' * 40} sha256={'1' * 64}",
        f"model a gated=true hf=x file=y revision=main sha256={'1' * 64}",
        f"model a gated=true hf=x file=y sha256={'1' * 64}",
        f"model a gated=true url=x sha256={'1' * 64} size=many",
        f"model a gated=true url=x sha256={'1' * 64} colour=red",
        "pack x commit=1",
        "requirement a==1 b==2",
        "resolved python=3.11",
        "model 'a",
    ],
)
def test_a_line_that_says_nothing(
    project: Path, lock: Callable[..., int], capsys: pytest.CaptureFixture[str], line: str
) -> None:
    lock()
    before = text(project)
    (project / "generator.lock").write_text(before + line + "\n")
    number = len(before.splitlines()) + 1
    [found] = errors(project, capsys)
    assert found.startswith(f"generator.lock:{number}:1: error[bad-lock] ")
    assert lock() == 0
    assert text(project) == before


def test_a_lock_that_is_no_text(
    project: Path, lock: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "generator.lock").write_bytes(b"\xff")
    [found] = errors(project, capsys)
    assert "error[bad-lock] the lock cannot be read: it is no UTF-8" in found
    assert lock() == 0


def test_words_that_a_line_could_break_on() -> None:
    model = LockedModel(
        "a", {"hf": "x/y", "file": "a 'b\" #c.bin"}, "1" * 40, None, "2" * 64, license="x = [y] 'z"
    )
    lock = Lock(models={"a": model}, requirements={"g": ("a @ https://x/y;z",)})
    read, faults = parse(text_of(lock))
    assert (read, faults) == (lock, [])


def test_faults_of_specs_stop_it(
    project: Path, hub: HubServer, lock: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    edit(project / "workflows/it.yaml", "CheckpointLoaderSimple", "CheckpointLoaderSimpel")
    assert lock() == 1
    assert "unknown-class" in capsys.readouterr().out
    assert hub.asked == []


def test_it_is_written_as_a_whole_or_not_at_all(
    project: Path, lock: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock()
    before = text(project)
    edit(project / "models.yaml", "  u:\n", "  uu:\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert lock() == 2
    assert text(project) == before
    assert [path.name for path in project.glob(".generator.lock*")] == []
