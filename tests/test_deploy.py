"""Planning and deploying from the command line, without Modal; with it: tests/modal."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import httpx
import modal
import pytest
from starlette.datastructures import Headers

from build.gateway.access import ApiKeys
from generator.cli import main
from generator.console import program
from generator.deployment import deploy, modal_app, recorded, service
from generator.deployment.manifest import ManifestError, read_manifest
from generator.deployment.modal_app import ModalError
from generator.lock import Lock, LockedModel, inputs_of_images, write_lock
from generator.ports import free_port

from .api_client import png
from .conftest import GPU_YAML, ROOT, MakeProject, load_and_check
from .test_cli import BAD, GOOD, run

SECRETS = "secrets: {huggingface: [HF_TOKEN], api-keys: [API_KEYS]}\n"


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that Modal does not know."""
    from modal.config import config

    monkeypatch.setattr(type(config), "get", lambda *_, **__: None)
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "none.toml"))


def files_below(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize("arguments", [[], ["--env", "staging"], ["--smoke"]])
def test_without_a_token_it_says_what_to_do(
    make_project: MakeProject, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """And changes nothing."""
    root = make_project({"good": GOOD}, gpu=GPU_YAML + SECRETS)
    before = files_below(root)
    assert main(["deploy", "--project", str(root), *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    where = " --env staging" if "--env" in arguments else ""
    lines = [line.strip() for line in shown.err.splitlines()]
    for command in (
        "token new",
        f"secret create huggingface HF_TOKEN=…{where}",
        f"secret create api-keys API_KEYS=…{where}",
    ):
        assert f"{program('modal')} {command}" in lines
    assert "nothing was changed" in lines
    assert ("COMFYUI_API_KEY" in shown.err) is ("--smoke" in arguments)
    assert files_below(root) == before


def test_programs_are_named_as_they_are_typed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my project"
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "modal").touch(0o755)
    monkeypatch.setattr("sys.executable", str(folder / ".venv" / "bin" / "python"))
    monkeypatch.setenv("PATH", "")
    assert program("modal") == f"'{folder}/.venv/bin/modal'"
    monkeypatch.chdir(folder)
    assert program("modal") == ".venv/bin/modal"
    monkeypatch.setenv("PATH", str(folder / ".venv" / "bin"))
    assert program("modal") == "modal"


def test_make_deploy_without_a_token(tmp_path: Path) -> None:
    done = run("deploy", cwd=ROOT, MODAL_CONFIG_PATH=str(tmp_path / "none.toml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "modal secret create huggingface HF_TOKEN=…" in done.stderr
    assert "warning" not in done.stderr.lower()


@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize("command", ["plan", "status", "logs", "rollback", "stop"])
def test_nothing_is_asked_without_a_token(
    make_project: MakeProject, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    root = make_project({"good": GOOD})
    assert main([command, "--project", str(root)]) == 2
    assert "modal token new" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["plan", "deploy"])
def test_specs_with_errors(
    make_project: MakeProject, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    root = make_project({"bad": BAD})
    assert main([command, "--project", str(root)]) == 1
    assert "unknown-class" in capsys.readouterr().out
    assert not (root / "build").exists()


def built(root: Path) -> Path:
    """Build a project, and return a copy of its manifest."""
    assert main(["build", "--quiet", "--project", str(root)]) == 0
    return Path(shutil.copy(root / "build" / "manifest.json", root / "old.json"))


def test_plan_against_a_file(make_project: MakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_project({"good": GOOD, "other": GOOD})
    old = built(root)
    command = ["plan", "--project", str(root), "--against", str(old)]
    assert main(command) == 0
    assert "what is deployed is the same" in capsys.readouterr().out
    (root / "workflows" / "other.yaml").unlink()
    narrower = GOOD.replace("default: 0", "default: 1, maximum: 9")
    (root / "workflows" / "good.yaml").write_text(narrower, encoding="utf-8")
    assert main(command) == 1
    shown = capsys.readouterr()
    assert re.search(r'~ /good +param "color": default 0 → 1', shown.out)
    assert re.search(r'param "color": maximum \d+ → 9  \[breaks callers\]', shown.out)
    assert re.search(r"- /other +it is gone  \[breaks callers\]", shown.out)
    assert "\033" not in shown.out
    assert main([*command, "--allow-breaking"]) == 0
    capsys.readouterr()
    assert main([*command, "--format", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["breaking"] is True
    assert [route["kind"] for route in document["routes"]] == ["changed", "removed"]


def test_plan_against_what_is_no_manifest(
    make_project: MakeProject, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_project({"good": GOOD})
    for name, text in {"missing.json": None, "broken.json": "{"}.items():
        if text is not None:
            (root / name).write_text(text, encoding="utf-8")
        assert main(["plan", "--project", str(root), "--against", str(root / name)]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert name in shown.err


def test_plan_without_a_token_says_what_else_there_is(
    make_project: MakeProject,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As make and as this command take it."""
    monkeypatch.setattr("generator.deployment.modal_app.has_token", lambda: False)
    assert main(["plan", "--project", str(make_project({"good": GOOD}))]) == 2
    said = capsys.readouterr().err
    assert "this machine has no token of Modal" in said
    for words in ("make plan AGAINST=manifest.json", "--against manifest.json"):
        assert words in said


@pytest.mark.parametrize("name", ["a b", "-x", "a/b", "x" * 65, "ü"])
def test_environments_that_are_none(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", f"--env={name}"]) == 2
    assert "name of an environment" in " ".join(capsys.readouterr().err.split())


# What a deploy does, and in which order


class FakeApp:
    """Stands for the deployed app: notes what is run, and fails where a test says so."""

    deployed: Any = None
    fails: str = ""
    ran: ClassVar[list[str]] = []

    def __init__(self, name: str, environment: str | None) -> None:
        self.name, self.environment = name, environment

    def manifest(self) -> Any:
        if isinstance(self.deployed, BaseException):
            raise self.deployed
        return self.deployed

    def files(self, *_: str) -> frozenset[str]:
        return frozenset()

    def run(self, _: Path, *words: str) -> int:
        self.ran.append(" ".join(words))
        return 3 if self.fails and self.fails in self.ran[-1] else 0

    def url(self) -> str:
        raise ModalError("no URL")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, make_project: MakeProject) -> Path:
    """A project with a model and a lock, and a Modal that is none."""
    models = """\
models:
  model:
    source: {url: "https://example.com/model.pth", sha256: "%s"}
    folder: upscale_models
packs: {}
""" % ("0" * 64)
    graph = GOOD.replace("images: [1, 0]", "images: [4, 0]") + (
        "  3: {class_type: UpscaleModelLoader, inputs: {model_name: model.pth}}\n"
        "  4: {class_type: ImageUpscaleWithModel, inputs: {upscale_model: [3, 0], image: [1, 0]}}\n"
    )
    root = make_project({"good": graph}, models=models)
    checked, diagnostics = load_and_check(root)
    assert checked is not None, diagnostics
    source = {"url": "https://example.com/model.pth"}
    inputs = inputs_of_images(checked.settings, checked.groups)
    model = LockedModel("model", source, None, 10, "0" * 64)
    write_lock(Lock({"model": model}, resolved=inputs), root)
    monkeypatch.setattr(deploy, "has_token", lambda: True)
    monkeypatch.setattr(deploy, "ModalApp", FakeApp)
    monkeypatch.setattr(FakeApp, "deployed", None)
    monkeypatch.setattr(FakeApp, "fails", "")
    monkeypatch.setattr(FakeApp, "ran", [])
    return root


DOWNLOAD = "run -m build.app::download"
DEPLOY = "deploy -m build.app"


@pytest.mark.parametrize(
    ("fails", "ran", "words"),
    [
        (DOWNLOAD, [DOWNLOAD], "Nothing was deployed"),
        (DEPLOY, [DOWNLOAD, DEPLOY], "What was deployed before, if anything, runs on"),
        ("nothing", [DOWNLOAD, DEPLOY], "it is deployed all the same"),
    ],
)
def test_where_a_deploy_stops(
    fake: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fails: str,
    ran: list[str],
    words: str,
) -> None:
    monkeypatch.setattr(FakeApp, "fails", fails)
    assert main(["deploy", "--project", str(fake)]) == 1
    assert FakeApp.ran == ran
    assert words in capsys.readouterr().err


def test_what_is_deployed_says_nothing_of_the_volume(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have lost a file since, so each deploy looks."""
    manifest = read_manifest(built(fake))
    monkeypatch.setattr(FakeApp, "deployed", manifest)
    main(["deploy", "--project", str(fake)])
    assert FakeApp.ran == [DOWNLOAD, DEPLOY]


def test_no_lock(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (fake / "generator.lock").unlink()
    assert main(["deploy", "--project", str(fake)]) == 2
    assert "make lock" in capsys.readouterr().err
    assert FakeApp.ran == []


@pytest.mark.parametrize(
    "error", [ManifestError("of old"), ModalError("not there"), KeyboardInterrupt()]
)
def test_what_is_deployed_is_not_known(
    fake: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
) -> None:
    """Nothing is deployed over what cannot be compared, unless callers may be broken."""
    monkeypatch.setattr(FakeApp, "deployed", error)
    assert main(["deploy", "--project", str(fake)]) == 1
    shown = capsys.readouterr()
    assert "nothing was changed on Modal" in shown.err
    assert FakeApp.ran == []
    main(["deploy", "--project", str(fake), "--allow-breaking"])
    assert (FakeApp.ran == [DOWNLOAD, DEPLOY]) is isinstance(error, ManifestError)
    assert "nothing is deployed yet" not in capsys.readouterr().out


class Call:
    """A call of the deployed function `manifest` that ends as a test says."""

    def __init__(self, ending: Any) -> None:
        self.ending = ending
        self.cancelled = False

    def spawn(self) -> "Call":
        return self

    def get(self, timeout: float) -> Any:
        assert timeout > 0
        if isinstance(self.ending, BaseException):
            raise self.ending
        return self.ending

    def cancel(self) -> None:
        self.cancelled = True


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (TimeoutError(), "has not answered within 180 s"),
        (modal.exception.RemoteError("container\nended"), "fails: container ended"),
        (modal.exception.FunctionTimeoutError("too long"), "fails: too long"),
        (KeyError("routes"), "fails: 'routes'"),
        ({"spec": "x"}, "no manifest"),
        ("text", "no manifest"),
    ],
)
def test_a_deployed_app_that_does_not_say_what_it_is(
    monkeypatch: pytest.MonkeyPatch, ending: Any, words: str
) -> None:
    call = Call(ending)
    monkeypatch.setattr(modal_app.ModalApp, "_function", lambda *_: call)
    with pytest.raises(ManifestError, match=words):
        modal_app.ModalApp("it").manifest()
    assert call.cancelled is (type(ending) is TimeoutError)


@pytest.mark.usefixtures("fake")
def test_a_plan_that_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(modal_app, "ModalApp", FakeApp)
    monkeypatch.setattr(modal_app, "has_token", lambda: True)
    monkeypatch.setattr(FakeApp, "deployed", KeyboardInterrupt())
    assert main(["plan", "--project", str(tmp_path)]) == 2
    assert capsys.readouterr() == ("", "error: interrupted\n")


# Waiting for the new version


@contextmanager
def answering(*answers: tuple[int, str]) -> Iterator[str]:
    """Serve answers one after another, the last one again and again."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def waited(*answers: tuple[int, str], seconds: float = 0.3) -> tuple[dict[str, Any], list[str]]:
    """Wait for the spec "new" with these answers, and return what was found and said."""
    said: list[str] = []
    with answering(*answers) as url:
        found = service.wait_for(url, "new", seconds, lambda _, text: said.append(text))
    return found, said


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_PAUSE_SECONDS", 0.01)


@pytest.mark.usefixtures("impatient")
def test_the_new_version_is_waited_for() -> None:
    found, said = waited((502, ""), (200, '{"spec": "old"}'), (200, '{"spec": "new"}'), seconds=60)
    assert found == {"spec": "new"}
    assert [line.partition("/health ")[2] for line in said] == [
        "answers 502",
        "says spec old, not new",
    ]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, '{"spec": "old"}'), "says spec old, not new, after"),
        ((503, ""), "answers 503, after"),
        ((200, "<html>"), "no JSON, after"),
        ((200, "[]"), "not this project's, after"),
        ((401, ""), "takes no other token"),
    ],
)
def test_a_version_that_does_not_come(answer: tuple[int, str], words: str) -> None:
    with pytest.raises(service.ServiceFault, match=words):
        waited(answer)


def test_nobody_answers() -> None:
    with pytest.raises(service.ServiceFault, match="does not answer"):
        service.health(f"http://127.0.0.1:{free_port()}")


# Trying endpoints

REPLY = {
    "Content-Type": "image/png",
    "X-Job-Id": "job_00000000000000000000000000",
    "X-Cost-USD": "0.001084",
    "X-Execution-Time-Sec": "2.000",
    "X-Queue-Time-Sec": "0.000",
    "X-GPU-Type": "L40S",
    "X-Engine": "comfyui/0.3.71",
    "X-Output-Count": "1",
}
MANIFEST: dict[str, Any] = {"routes": {"/it": {"media_types": ["image/png"]}}}


def tried(data: bytes, **headers: str | None) -> service.Tried:
    """Try an endpoint that replies so."""
    sent = REPLY | {name.replace("_", "-"): text for name, text in headers.items()}

    def reply(request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            return httpx.Response(409)
        assert (request.method, request.url.path) == ("POST", "/it")
        assert request.headers["authorization"] == "Bearer KEY"
        return httpx.Response(200, content=data, headers={k: v for k, v in sent.items() if v})

    real = httpx.Client.__init__

    def init(client: httpx.Client, **options: Any) -> None:
        real(client, **(options | {"transport": httpx.MockTransport(reply), "mounts": None}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.Client, "__init__", init)
        return service.try_endpoint("http://127.0.0.1:1", "KEY", "/it", {}, MANIFEST)


def test_a_reply_that_is_as_it_should_be() -> None:
    found = tried(png())
    assert (found.route, found.gpu, found.seconds, found.cost) == ("/it", "L40S", 2.0, 0.001084)
    assert service.entry_of(found).keys() == {"seconds", "gpu", "date"}


@pytest.mark.parametrize(
    ("data", "headers", "words"),
    [
        (png(), {"Content_Type": "image/webp"}, "replies with image/webp, not image/png"),
        (b"", {}, "replies with nothing"),
        (png()[:60], {}, "damaged"),
        (b"GIF89a", {}, "damaged"),
        (png(), {"X_Cost_USD": None}, "without the header"),
        (png(), {"X_Execution_Time_Sec": "soon"}, "without the header"),
        (png(), {"X_Job_Id": None}, "POST /it"),
    ],
)
def test_replies_that_are_not(data: bytes, headers: dict[str, Any], words: str) -> None:
    with pytest.raises(service.ServiceFault, match=words):
        tried(data, **headers)


@pytest.mark.parametrize("engine", ["comfyui/0.3.71", "preview"])
def test_what_smoke_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """The seconds of what works, on an engine that is one; a fault elsewhere is said at the end."""
    routes = {route: {"enabled": True, "media_types": ["image/png"]} for route in ("/bad", "/good")}
    routes["/film"] = {"enabled": True, "media_types": ["video/mp4"]}
    asked: list[str] = []

    def try_endpoint(_: str, __: str, route: str, *___: Any) -> service.Tried:
        asked.append(route)
        if route == "/bad":
            raise service.ServiceFault("POST /bad: no")
        return service.Tried(route, "image/png", 9, 2.5, "L40S", engine, 0.001)

    monkeypatch.setattr(deploy, "examples", lambda _: {route: {} for route in routes})
    monkeypatch.setattr(deploy, "try_endpoint", try_endpoint)
    with pytest.raises(service.ServiceFault, match="1 of 2 requests failed"):
        deploy._smoke("http://127.0.0.1:1", {"routes": routes}, tmp_path)
    assert asked == ["/bad", "/good"]
    kept = recorded.read_recorded(tmp_path)
    assert set(kept) == ({"/good"} if engine != "preview" else set())
    if kept:
        assert kept["/good"]["seconds"] == 2.5
        assert kept["/good"]["by"] == "make deploy SMOKE=1"


# Seconds of runs


def test_seconds_that_are_recorded(
    make_project: MakeProject, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_project({"good": GOOD})
    old = built(root)
    text = '{"/good": {"seconds": 10, "gpu": "L40S", "date": "2026-07-01"}}'
    (root / "seconds.json").write_text(text, encoding="utf-8")
    assert main(["plan", "--project", str(root), "--against", str(old)]) == 0
    assert re.search(r"/good +L40S +10\.0 +0\.005420", capsys.readouterr().out)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"/good": 3}', '{"/good": {"seconds": "3", "gpu": "L40S"}}', "1" * 5000]
)
def test_seconds_that_cannot_be_read(
    make_project: MakeProject, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    root = make_project({"good": GOOD})
    old = built(root)
    (root / "seconds.json").write_text(text, encoding="utf-8")
    assert main(["plan", "--project", str(root), "--against", str(old)]) == 2
    assert "seconds.json" in capsys.readouterr().err


def test_what_somebody_else_wrote_stays(tmp_path: Path) -> None:
    mine = {"seconds": 1.0, "gpu": "L40S"}
    (tmp_path / "seconds.json").write_text(json.dumps({"/mine": mine}), encoding="utf-8")
    entries = {"/mine": {"seconds": 9.0, "gpu": "T4"}, "/new": {"seconds": 2.0, "gpu": "T4"}}
    recorded.record(tmp_path, entries, "smoke")
    recorded.record(tmp_path, {"/new": {"seconds": 3.0, "gpu": "T4"}}, "smoke")
    assert recorded.read_recorded(tmp_path) == {
        "/mine": mine,
        "/new": {"seconds": 3.0, "gpu": "T4", "by": "smoke"},
    }
    assert [path.name for path in tmp_path.iterdir()] == ["seconds.json"]


# Keys


def test_keys_are_fresh_and_work(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for _ in range(2):
        assert main(["key", "ann", "bob.smith-1"]) == 0
        printed.append(capsys.readouterr().out.strip())
    assert printed[0] != printed[1]
    ann, bob = printed[0].split(",")
    name, key = ann.split(":")
    assert (name, bob.split(":")[0]) == ("ann", "bob.smith-1")
    assert len(key) >= 43
    assert re.fullmatch(r"[A-Za-z0-9_-]+", key)
    access = ApiKeys(printed[0])
    assert access.owner(Headers({"Authorization": f"Bearer {key}"}), is_open=False) == "ann"


def test_keys_need_no_project(tmp_path: Path) -> None:
    done = run("key", "ann", "--quiet", cwd=tmp_path)
    assert done.returncode == 0
    assert re.fullmatch(r"ann:[A-Za-z0-9_-]{43}\n", done.stdout)
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "names", [["a:b"], ["a,b"], ["a b"], [""], ["ann", "ann"], ["é"], ["x" * 65]]
)
def test_names_that_no_key_can_have(names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", *names]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
