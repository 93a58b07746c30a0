"""`make plan` and `make deploy` against the control plane on this machine."""

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from generator.deployment.manifest import read_manifest
from generator.deployment.plan import make_plan
from generator.lock import Lock, LockedModel, LockedPack, inputs_of_images, write_lock
from generator.schema import schema
from tests.conftest import ROOT, load_and_check
from tests.hub_server import HubServer, hub_server
from tests.jobs_contract import PROBE_YAML

from .conftest import SECRETS
from .local import PROXY_KEYS, SECONDS, LocalModal, local_modal
from .project import Project, write_project

KEY = {"X-API-Key": "secret-of-ann"}
PICTURE = """\
summary: A picture of one colour
params:
  color: {type: integer, minimum: 0, examples: [7]}
  width: {type: integer, default: 32, maximum: 512}
graph:
  1:
    class_type: EmptyImage
    inputs: {width: "${width}", height: 16, batch_size: 1, color: "${color}"}
  2:
    class_type: SaveImage
    inputs: {images: [1, 0], filename_prefix: picture}
"""
UPSCALED = (
    PICTURE.replace("images: [1, 0]", "images: [6, 0]")
    + """\
  3:
    class_type: UpscaleModelLoader
    inputs: {model_name: first.safetensors}
  4:
    class_type: ImageUpscaleWithModel
    inputs: {upscale_model: [3, 0], image: [1, 0]}
  5:
    class_type: UpscaleModelLoader
    inputs: {model_name: second.safetensors}
  6:
    class_type: ImageUpscaleWithModel
    inputs: {upscale_model: [5, 0], image: [4, 0]}
"""
)
WORKFLOWS = {
    "picture": PICTURE,
    "other": PICTURE.replace(", examples: [7]", ""),
    "moving": PICTURE.replace("class_type: SaveImage", "class_type: SaveAnimatedWEBP").replace(
        "filename_prefix: picture",
        "filename_prefix: x, fps: 8, lossless: false, quality: 90, method: default",
    ),
}


@pytest.fixture(scope="module")
def modal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModal]:
    """A Modal of this module's own, for it counts deployments."""
    with local_modal(tmp_path_factory.mktemp("modal"), SECRETS) as found:
        yield found


def lock(project: Project, *models: LockedModel) -> None:
    """Write a lock that fits the specs: its requirements are never installed."""
    checked, diagnostics = load_and_check(project.folder)
    assert checked is not None, diagnostics
    write_lock(
        Lock(
            models={model.name: model for model in models},
            packs={
                p.name: LockedPack(p.name, p.git, p.commit) for p in checked.models.packs.values()
            },
            resolved=inputs_of_images(checked.settings, checked.groups),
        ),
        project.folder,
    )


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    """A project that is not deployed yet, with an app of its own."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name)
    project = write_project(tmp_path / "it", name, real=False, workflows=WORKFLOWS)
    lock(project)
    return project


def generator(
    modal: LocalModal, project: Project, *arguments: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's folder; nothing that Modal's SDK says may be a warning."""
    done = subprocess.run(
        [str(modal.python), "-W", "error", "-m", "generator", *arguments],
        cwd=project.folder,
        env=modal.environment | {"PYTHONPATH": str(ROOT)} | more,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "deprecat" not in (done.stdout + done.stderr).lower()
    return done


def deployed(modal: LocalModal, project: Project, *arguments: str, **more: str) -> str:
    """Deploy a project, which must go well, and return what was printed."""
    done = generator(modal, project, "deploy", *arguments, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def spec(project: Project) -> str:
    return str(json.loads((project.build / "manifest.json").read_bytes())["spec"])


def test_a_first_deploy_and_another(modal: LocalModal, project: Project) -> None:
    before = modal.plane.deployments
    plan = generator(modal, project, "plan")
    assert (plan.returncode, modal.plane.deployments) == (0, before)
    assert f"{project.app}: nothing is deployed yet" in plan.stdout
    said = deployed(modal, project)
    assert modal.plane.deployments == before + 1
    assert f"{project.app}: nothing is deployed yet" in said
    url = modal.url(project.app)
    assert f"deployed: {url}, docs at {url}/docs" in said
    assert f"POST {url}/picture" in said
    assert httpx.get(f"{url}/health", timeout=SECONDS).json()["spec"] == spec(project)
    # The curl that it prints works, with a key.
    [curl] = re.findall(r"^try: curl -X POST (\S+) .*-d '(.*)' -o (\S+) -D -$", said, re.MULTILINE)
    assert curl[0] in (f"{url}/picture", f"{url}/moving")
    reply = httpx.post(curl[0], headers=KEY, json=json.loads(curl[1]), timeout=SECONDS)
    assert reply.headers["content-type"].startswith(f"image/{curl[2].rpartition('.')[2]}")
    for tag in ("manifest", "gateway", "L40sWorker.*"):
        assert "deprecat" not in modal.log(project.app, tag).lower()
    again = generator(modal, project, "plan", "--format", "json")
    document = json.loads(again.stdout)
    assert document["deployed"] == document["spec"] == spec(project)
    assert (document["routes"], document["breaking"]) == ([], False)


def test_callers_are_not_broken_by_accident(modal: LocalModal, project: Project) -> None:
    deployed(modal, project)
    before, first = modal.plane.deployments, spec(project)
    (project.folder / "workflows" / "other.yaml").unlink()
    project.replace("workflows/picture.yaml", ("maximum: 512", "maximum: 64"))
    refused = generator(modal, project, "deploy")
    assert refused.returncode == 1
    assert re.search(r"- /other +it is gone  \[breaks callers\]", refused.stdout)
    assert 'param "width": maximum 512 → 64  [breaks callers]' in refused.stdout
    assert "Nothing was changed on Modal" in refused.stderr
    assert "ALLOW_BREAKING=1" in refused.stderr
    assert modal.plane.deployments == before
    url = modal.url(project.app)
    assert httpx.get(f"{url}/health", timeout=SECONDS).json()["spec"] == first
    assert generator(modal, project, "plan").returncode == 1
    deployed(modal, project, "--allow-breaking")
    assert modal.plane.deployments == before + 1
    health = httpx.get(f"{url}/health", timeout=SECONDS).json()
    assert health["spec"] == spec(project) != first
    reply = httpx.post(f"{url}/other", headers=KEY, json={"color": 1}, timeout=SECONDS)
    assert reply.status_code == 404


def test_smoke(modal: LocalModal, project: Project) -> None:
    """One request to each endpoint that is cheap; without a key nothing is deployed."""
    before = modal.plane.deployments
    refused = generator(modal, project, "deploy", "--smoke")
    assert (refused.returncode, modal.plane.deployments) == (2, before)
    assert "COMFYUI_API_KEY" in refused.stderr
    done = generator(modal, project, "deploy", "--smoke", COMFYUI_API_KEY="secret-of-ann")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^works: /picture: image/png, [\d,]+ bytes", done.stderr, re.MULTILINE)
    assert "not tried: /moving: it may make image/webp" in done.stderr
    assert "not tried: /other: a param that it requires has no example" in done.stderr
    # A preview engine's seconds say nothing of a GPU.
    assert not (project.folder / "seconds.json").exists()
    wrong = generator(modal, project, "deploy", "--smoke", COMFYUI_API_KEY="wrong")
    assert wrong.returncode == 1
    assert "failed: POST /picture" in wrong.stderr
    assert "it is deployed all the same" in wrong.stderr


def test_a_secret_that_is_missing(tmp_path: Path, project: Project) -> None:
    with local_modal(tmp_path / "modal", {"huggingface": {"HF_TOKEN": "x"}}) as modal:
        done = generator(modal, project, "deploy")
        assert done.returncode == 1
        assert modal.plane.deployments == 0
    assert "What was deployed before, if anything, runs on" in done.stderr
    assert "modal secret create NAME KEY=VALUE" in done.stderr
    assert "api-keys" in done.stdout + done.stderr


def test_behind_the_proxy(modal: LocalModal, tmp_path: Path) -> None:
    """Modal's edge asks for a token, of whoever deploys too."""
    project = write_project(
        tmp_path / "it", "proxied", real=False, workflows=WORKFLOWS, auth="proxy"
    )
    lock(project)
    token = {"MODAL_KEY": PROXY_KEYS["Modal-Key"], "MODAL_SECRET": PROXY_KEYS["Modal-Secret"]}
    without = generator(modal, project, "deploy")
    assert without.returncode == 2
    assert "MODAL_KEY and MODAL_SECRET" in without.stderr
    said = deployed(modal, project, "--smoke", **token)
    assert "-H 'modal-key: KEY' -H 'modal-secret: SECRET'" in said
    wrong = generator(modal, project, "status", **(token | {"MODAL_SECRET": "ws-wrong"}))
    assert wrong.returncode == 2
    assert "takes no other token" in wrong.stderr


def test_a_lock_that_is_missing_or_old(modal: LocalModal, project: Project) -> None:
    before = modal.plane.deployments
    project.replace("models.yaml", ('0000000000"', '0000000001"'))
    old = generator(modal, project, "deploy")
    assert (old.returncode, modal.plane.deployments) == (1, before)
    assert "generator.lock" in old.stdout
    (project.folder / "generator.lock").unlink()
    without = generator(modal, project, "deploy")
    assert (without.returncode, modal.plane.deployments) == (2, before)
    assert "make lock" in without.stderr
    assert "nothing was changed" in without.stderr


def test_an_app_of_somebody_else(modal: LocalModal, project: Project) -> None:
    (project.folder / "foreign.py").write_text(
        f"import modal\napp = modal.App({project.app!r})\n"
        "@app.function(image=modal.Image.debian_slim(python_version='3.11'))\n"
        "def hello() -> None: ...\n",
        "utf-8",
    )
    modal.cli("deploy", "foreign.py", cwd=project.folder)
    before = modal.plane.deployments
    for command in ("plan", "deploy"):
        done = generator(modal, project, command)
        assert done.returncode == (2 if command == "plan" else 1)
        assert "it is not this project's" in done.stderr
    assert modal.plane.deployments == before


def test_environments_are_apart(modal: LocalModal, project: Project) -> None:
    said = deployed(modal, project, "--env", "staging")
    assert f"{project.app} in staging: nothing is deployed yet" in said
    assert f"{modal.http_url}/{project.app}@staging/gateway" in said
    assert (
        "what is deployed is the same"
        in generator(modal, project, "plan", "--env", "staging").stdout
    )
    assert "nothing is deployed yet" in generator(modal, project, "plan").stdout


def locked(hub: HubServer, name: str, sha256: str = "") -> LockedModel:
    """Return a model of the hub, at its newest revision."""
    repo = hub.repos[f"example/{name}"]
    data = repo.revisions[repo.head]["model.safetensors"]
    source = {"hf": f"example/{name}", "file": "model.safetensors"}
    digest = sha256 or hashlib.sha256(data).hexdigest()
    return LockedModel(name, source, repo.head, len(data), digest)


def test_models_are_there_before_the_app(
    modal: LocalModal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong one stops the deploy; what is there already is not fetched again."""
    models = "models:\n" + "".join(
        f"  {name}:\n    source: {{hf: example/{name}, file: model.safetensors}}\n"
        f"    folder: upscale_models\n    filename: {name}.safetensors\n"
        for name in ("first", "second")
    )
    with hub_server() as hub:
        for name in ("first", "second"):
            hub.add(f"example/{name}", {"model.safetensors": name.encode() * 1000})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        project = write_project(
            tmp_path / "it",
            "with-models",
            real=False,
            workflows={"it": UPSCALED},
            models=PROBE_YAML.replace("models: {}\n", models),
        )
        lock(project, locked(hub, "first", "0" * 64), locked(hub, "second"))
        before = modal.plane.deployments
        done = generator(modal, project, "deploy")
        assert (done.returncode, modal.plane.deployments) == (1, before)
        assert "Nothing was deployed" in done.stderr
        lock(project, locked(hub, "first"), locked(hub, "second"))
        said = deployed(modal, project)
        assert re.search(r"first +5\.0 kB +upscale_models/first\.safetensors", said)
        assert "to download: 11.0 kB\n" in said
        assert {b"first" * 1000, b"second" * 1000} <= model_files(modal)
        fetched = hub.downloads()
        project.replace("workflows/it.yaml", ("default: 32", "default: 48"))
        assert "nothing to download" in deployed(modal, project)
        assert hub.downloads() == fetched
        hub.add("example/first", {"model.safetensors": b"newer" * 1000})
        lock(project, locked(hub, "first"), locked(hub, "second"))
        assert "to download: 5.0 kB\n" in deployed(modal, project)
        [again] = hub.downloads() - fetched
        assert again.endswith(f"/{locked(hub, 'first').sha256}")
        lose(modal, locked(hub, "second"))
        plan = generator(modal, project, "plan")
        assert "what is deployed is the same" in plan.stdout
        assert "to download: 6.0 kB\n" in plan.stdout
        deployed(modal, project)
        assert b"second" * 1000 in model_files(modal)
        assert "nothing to download\n" in generator(modal, project, "plan").stdout


def model_files(modal: LocalModal) -> set[bytes]:
    """Return what the files of models on the Volume hold."""
    verified = modal.plane.volume_path("hf-hub-cache") / "verified"
    return {path.read_bytes() for path in verified.iterdir()}


def lose(modal: LocalModal, model: LockedModel) -> None:
    """Delete a model's file from the Volume, as somebody does who needs the space."""
    verified = modal.plane.volume_path("hf-hub-cache") / "verified" / model.sha256
    verified.resolve().unlink()
    verified.unlink()


def test_a_model_that_the_volume_lists_and_has_lost(
    modal: LocalModal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to what is gone is in the list of files: the deploy looks behind it."""
    with hub_server() as hub:
        hub.add("example/first", {"model.safetensors": b"first" * 1000})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        workflow = UPSCALED.replace("second.safetensors", "first.safetensors")
        models = (
            "models: {first: {source: {hf: example/first, file: model.safetensors}, "
            "folder: upscale_models, filename: first.safetensors}}\n"
        )
        project = write_project(
            tmp_path / "it",
            "lost-models",
            real=False,
            workflows={"it": workflow},
            models=PROBE_YAML.replace("models: {}\n", models),
        )
        lock(project, locked(hub, "first"))
        deployed(modal, project)
        cache = modal.plane.volume_path("hf-hub-cache")
        (cache / "verified" / locked(hub, "first").sha256).resolve().unlink()
        deployed(modal, project)
        assert b"first" * 1000 in model_files(modal)


def test_afterwards(modal: LocalModal, project: Project) -> None:
    """status, logs, rollback and stop are Modal's own commands with the app's name filled in."""
    assert "no app" in generator(modal, project, "status").stderr
    deployed(modal, project, "--smoke", COMFYUI_API_KEY=KEY["X-API-Key"])
    status = generator(modal, project, "status")
    assert status.returncode == 0, status.stderr
    assert f"{project.app}: {modal.url(project.app)}" in status.stdout
    assert spec(project)[:12] in status.stdout
    assert re.search(r"\bv1\b", status.stdout)
    logs = generator(modal, project, "logs")
    assert logs.returncode == 0, logs.stderr
    assert '"event": "finished"' in logs.stdout
    back = generator(modal, project, "rollback")
    assert back.returncode == 1
    assert "paid plan" in back.stderr
    stop = generator(modal, project, "stop", "--yes")
    assert stop.returncode == 0, stop.stderr
    assert "nothing is deployed yet" in generator(modal, project, "plan").stdout


REQUIREMENTS = schema("gpu")["properties"]["requirements"]["default"]
CHANGES = [
    ("workflows/picture.yaml", "default: 32", "default: 48"),
    (
        "workflows/picture.yaml",
        "[1, 0], filename_prefix: picture}",
        "[3, 0], filename_prefix: x}\n  3:\n    class_type: ImageInvert\n    inputs: {image: [1, 0]}",
    ),
    ("models.yaml", '0000000000"', '0000000001"'),
    ("gpu.yaml", "scaledown: 120", "scaledown: 100"),
    ("gpu.yaml", "auth:", f"requirements: [{', '.join(REQUIREMENTS)}, timm==1.0.22]\nauth:"),
    ("gpu.yaml", "auth:", "apt: [git, wget]\nauth:"),
    ("gpu.yaml", 'python: "3.11"', 'python: "3.12"'),
]


def test_the_plan_knows_what_is_built(modal: LocalModal, tmp_path: Path) -> None:
    """An image is another one exactly when the plan says that some layer of it is built."""
    uses_pack = PICTURE.replace("params:", "packs: [probe_nodes]\nparams:")
    project = write_project(tmp_path / "it", "layers", real=False, workflows={"picture": uses_pack})

    def images() -> dict[str, str]:
        modal.deploy(project.folder)
        tags = {"gateway_image": "gateway", "worker_image": "L40sWorker.*"}
        return {name: modal.plane.function("layers", tag).image_id for name, tag in tags.items()}

    said: list[dict[str, bool]] = []
    done: list[dict[str, bool]] = []
    before, manifest = images(), read_manifest(project.build / "manifest.json")
    for change in CHANGES:
        project.replace(change[0], change[1:])
        project.render()
        after, upcoming = images(), read_manifest(project.build / "manifest.json")
        plan = make_plan(manifest, upcoming)
        said.append({image.image: bool(image.changed) for image in plan.images})
        done.append({name: before[name] != after[name] for name in before})
        before, manifest = after, upcoming
    assert said == done
    assert [tuple(images.values()) for images in said] == [
        (False, False),
        (False, True),
        (False, True),
        (False, False),
        (True, True),
        (True, True),
        (True, True),
    ]
