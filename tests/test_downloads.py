"""Model files: downloaded, verified and linked, and how that fails."""

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from templates.utils import patience, urls
from templates.utils.downloads import (
    DownloadError,
    ModelFile,
    Places,
    Progress,
    ProgressLines,
    download,
    link,
)

from .conftest import ROOT
from .hub_server import HubServer, Repo, hub_server

REPO = "some/repo"
TOKEN = "hf_secret"
PIECE = 1000


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    # The client writes in pieces of 10 MB: small ones, so that small files have several.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", PIECE)
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "cache", {"mine": tmp_path / "volume"})


def content(name: str, size: int = 100_000) -> bytes:
    """Return bytes that no other name has."""
    return (hashlib.sha256(name.encode()).digest() * (size // 32 + 1))[:size]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def add(hub: HubServer, name: str, size: int = 100_000) -> ModelFile:
    """Add a file to the repository, and return its model as a lock has it."""
    data = content(name, size)
    commit = hub.add(REPO, {f"files/{name}.safetensors": data})
    source = {"hf": REPO, "file": f"files/{name}.safetensors"}
    path = f"checkpoints/{name}.safetensors"
    return ModelFile(name, path, source, commit, len(data), sha256(data))


def at_url(hub: HubServer, name: str, headers: dict[str, str] | None = None) -> ModelFile:
    """Put a file at a plain URL, and return its model."""
    data = content(name)
    hub.other[f"/{name}"] = (headers or {}, data)
    source = {"url": f"{hub.url}/{name}", "sha256": sha256(data)}
    return ModelFile(name, f"vae/{name}.safetensors", source, None, None, sha256(data))


def reasons(models: list[ModelFile], places: Places, token: str = "") -> list[str]:
    """Return why a download failed."""
    with pytest.raises(DownloadError) as error:
        download(models, places, hf_token=token)
    return list(error.value.reasons)


def linked(models: list[ModelFile], places: Places) -> dict[str, bytes]:
    """Link the models, and return what is found below the models folder by its path."""
    folder = places.cache.parent / "ComfyUI" / "models"
    link(models, places, folder)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink()
    }


def test_models_are_downloaded_and_linked_under_their_names(hub: HubServer, places: Places) -> None:
    hub_file, url_file = add(hub, "a"), at_url(hub, "b")
    volume_file = ModelFile("c", "loras/c.safetensors", {"volume": "mine"})
    (places.volumes["mine"] / "loras").mkdir(parents=True)
    (places.volumes["mine"] / "loras/c.safetensors").write_bytes(b"c")
    models = [hub_file, url_file, volume_file]
    folder = places.cache.parent / "models"
    assert link(models, places, folder) == [
        "model a: it is not downloaded",
        "model b: it is not downloaded",
    ]
    download(models, places)
    assert link(models, places, folder) == []
    assert linked(models, places) == {
        "checkpoints/a.safetensors": content("a"),
        "vae/b.safetensors": content("b"),
        "loras/c.safetensors": b"c",
    }
    snapshot = places.cache / "hub/models--some--repo/snapshots" / str(hub_file.revision)
    assert (snapshot / "files/a.safetensors").read_bytes() == content("a")


def test_eight_files_are_downloaded_at_once(hub: HubServer, places: Places) -> None:
    """Those of Hugging Face and those at URLs; the server sends nothing of any before it has eight."""
    hub.gate = threading.Barrier(8, timeout=10)
    models = [add(hub, f"{n}") if n % 2 else at_url(hub, f"{n}") for n in range(16)]
    download(models, places)
    assert linked(models, places) == {model.path: whole(model) for model in models}
    assert not hub.gate.broken


def test_what_is_whole_costs_no_request(hub: HubServer, places: Places) -> None:
    models = [add(hub, "a"), at_url(hub, "b")]
    download(models, places)
    hub.asked.clear()
    download(models, places)
    assert hub.asked == []


def test_a_changed_revision_downloads_that_model_only(hub: HubServer, places: Places) -> None:
    models = [add(hub, name) for name in "abc"]
    download(models, places)
    hub.asked.clear()
    changed = b"changed" * 1000
    commit = hub.add(REPO, {models[1].source["file"]: changed})
    models[1] = replace(models[1], revision=commit, size=len(changed), sha256=sha256(changed))
    download(models, places)
    assert hub.downloads() == {f"/cdn/{sha256(changed)}": 1}
    assert linked(models, places)["checkpoints/b.safetensors"] == changed


def test_a_new_revision_of_the_same_bytes_downloads_nothing(hub: HubServer, places: Places) -> None:
    model = add(hub, "a")
    download([model], places)
    hub.asked.clear()
    download([replace(model, revision=hub.add(REPO, {"other": b"x"}))], places)
    assert hub.asked == []


def test_what_is_linked_is_what_the_lock_says(hub: HubServer, places: Places) -> None:
    """A link that leads to the file of another lock is replaced, or goes."""
    old, new = add(hub, "a"), add(hub, "b")
    new = replace(new, name="a", path=old.path)
    download([old], places)
    assert linked([old], places) == {old.path: content("a")}
    assert linked([new], places) == {}
    download([new], places)
    assert linked([new], places) == {old.path: content("b")}
    assert linked([old], places) == {old.path: content("a")}


def test_a_file_of_somebody_else_is_not_replaced(hub: HubServer, places: Places) -> None:
    model = add(hub, "a")
    download([model], places)
    folder = places.cache.parent / "models"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / model.path).write_bytes(b"mine")
    [reason] = link([model], places, folder)
    assert reason.endswith("is a file already, and no link")
    assert (folder / model.path).read_bytes() == b"mine"


def test_without_a_lock_the_newest_revision_is_taken(hub: HubServer, places: Places) -> None:
    """The server's own word is then all there is to verify the bytes by."""
    model = replace(add(hub, "a"), revision=None, size=None, sha256=None)
    download([model], places)
    assert linked([model], places) == {model.path: content("a")}
    other = replace(add(hub, "b"), revision=None, size=None, sha256=None)
    hub.wrong.add(content("b"))
    [reason] = reasons([model, other], places)
    assert "its SHA-256 is" in reason


def test_without_a_lock_a_small_file_is_verified_by_its_git_hash(
    hub: HubServer, places: Places
) -> None:
    """Which is all that the server says of files in git itself; of equal size, it is another file."""
    model = replace(add(hub, "a"), revision=None, size=None, sha256=None)
    hub.repos[REPO].plain = (model.source["file"],)
    hub.wrong.add(content("a"))
    [reason] = reasons([model], places)
    assert reason.startswith("model a: its git hash is ")
    assert linked([model], places) == {}
    hub.wrong.clear()
    download([model], places)
    assert linked([model], places) == {model.path: content("a")}


def test_what_nothing_can_be_verified_by_is_refused(
    hub: HubServer, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.hub_server._git_blob", lambda _: "a-tag-of-another-kind")
    model = replace(add(hub, "a"), revision=None, size=None, sha256=None)
    hub.repos[REPO].plain = (model.source["file"],)
    assert reasons([model], places) == ["model a: there is no hash to verify it by; make lock"]
    assert linked([model], places) == {}


def test_each_file_that_a_volume_lacks_is_told(hub: HubServer, places: Places) -> None:
    models = [
        ModelFile(name, f"loras/{name}.safetensors", {"volume": "mine"}, sha256=sha)
        for name, sha in (("a", None), ("b", None), ("c", "1" * 64), ("d", "1" * 64))
    ]
    found = reasons([*models, add(hub, "e")], places)
    assert [reason.partition(":")[0] for reason in found] == [f"model {name}" for name in "abcd"]


def test_progress_counts_the_bytes_of_all_files(hub: HubServer, places: Places) -> None:
    models = [add(hub, "a"), add(hub, "b"), at_url(hub, "c")]
    seen: list[Progress] = []
    download(models, places, on_progress=seen.append)
    assert {p.name: (p.done, p.size) for p in seen} == {
        "a": (100_000, 100_000), "b": (100_000, 100_000), "c": (100_000, 0),
    }  # fmt: skip
    assert (seen[-1].all_done, seen[-1].all_size) == (300_000, 200_000)
    assert [p.all_done for p in seen] == sorted(p.all_done for p in seen)


@pytest.mark.parametrize("cuts", [[1], [50_000], [40_000, 20_000, 90_000], [0, 0, 99_999]])
@pytest.mark.parametrize("kind", ["hub", "url"])
def test_a_connection_cut_in_mid_file(
    hub: HubServer, places: Places, kind: str, cuts: list[int]
) -> None:
    """The rest is asked for, not all of it."""
    model = add(hub, "a") if kind == "hub" else at_url(hub, "a")
    hub.cuts[content("a")] = list(cuts)
    download([model], places)
    assert linked([model], places) == {model.path: content("a")}
    assert 100_000 <= hub.sent() < 100_000 + len(cuts) * PIECE
    assert hub.cuts[content("a")] == []


@pytest.mark.parametrize("kind", ["hub", "url"])
def test_a_connection_that_is_always_cut(hub: HubServer, places: Places, kind: str) -> None:
    model = add(hub, "a") if kind == "hub" else at_url(hub, "a")
    hub.cuts[content("a")] = [0] * 50
    [reason] = reasons([model], places)
    assert reason.startswith("model a: the connection to 127.0.0.1 broke (")
    assert reason.endswith(", 5 times in a row")
    assert linked([model], places) == {}


@pytest.mark.parametrize("kind", ["hub", "url"])
def test_a_server_that_has_no_ranges(hub: HubServer, places: Places, kind: str) -> None:
    """Then all of it is sent again, and what was there before is not kept."""
    hub.ranges = False
    model = add(hub, "a") if kind == "hub" else at_url(hub, "a")
    hub.cuts[content("a")] = [50_000]
    download([model], places)
    assert linked([model], places) == {model.path: content("a")}


def busy_paths(model: ModelFile) -> list[str]:
    if "url" in model.source:
        return [f"/{model.name}"]
    resolve = f"/{REPO}/resolve/{model.revision}/{model.source['file']}"
    return [resolve, f"/cdn/{model.sha256}"]


@pytest.mark.parametrize("kind", ["hub", "url"])
def test_too_many_requests(
    hub: HubServer, places: Places, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server asks to wait is waited, wherever it asks."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    model = add(hub, "a") if kind == "hub" else at_url(hub, "a")
    paths = busy_paths(model)
    hub.busy.update(dict.fromkeys(paths, 2))
    hub.retry_after = "7"
    download([model], places)
    assert [s for s in waited if s >= 1] == [7.0] * 2 * len(paths)
    assert linked([model], places) == {model.path: content("a")}


@pytest.mark.parametrize(
    ("retry_after", "end"),
    [("86400", "asks to wait 86400 seconds: try again later"), ("0", "5 times in a row")],
)
@pytest.mark.parametrize("kind", ["hub", "url"])
def test_too_many_requests_for_too_long(
    hub: HubServer, places: Places, kind: str, retry_after: str, end: str
) -> None:
    model = add(hub, "a") if kind == "hub" else at_url(hub, "a")
    hub.retry_after = retry_after
    for path in busy_paths(model):
        hub.busy = type(hub.busy)({path: 100})
        [reason] = reasons([model], places)
        assert reason.startswith("model a: the server wants fewer requests (status 429), ")
        assert reason.endswith(end)


@pytest.mark.parametrize("kind", ["hub", "url"])
def test_a_wrong_hash(hub: HubServer, places: Places, kind: str) -> None:
    """The bytes are not kept, so that they are asked for again."""
    model = add(hub, "a") if kind == "hub" else at_url(hub, "a")
    hub.wrong.add(content("a"))
    [reason] = reasons([model], places)
    assert reason == (
        f"model a: its SHA-256 is {sha256(bytes(100_000))}, not {model.sha256}: "
        "this is another file, or a damaged one"
    )
    assert linked([model], places) == {}
    hub.wrong.clear()
    download([model], places)
    assert linked([model], places) == {model.path: content("a")}


@pytest.mark.parametrize("kind", ["hub", "url"])
def test_a_damaged_part_is_fetched_anew(hub: HubServer, places: Places, kind: str) -> None:
    model = add(hub, "a") if kind == "hub" else at_url(hub, "a")
    part = places.cache / "parts" / f"{model.sha256}.part"
    if kind == "hub":
        part = places.cache / f"hub/models--some--repo/blobs/{model.sha256}.incomplete"
    for data in (b"damaged" * 100, bytes(100_000), bytes(100_001)):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        if len(data) > 100_000 and kind == "hub":
            continue
        download([model], places)
        assert linked([model], places) == {model.path: content("a")}
        places.file(model).resolve().unlink()


def test_a_locked_file_that_the_server_has_changed(hub: HubServer, places: Places) -> None:
    """It is seen before a byte of any file is downloaded."""
    model, other = add(hub, "a"), add(hub, "b")
    wrong = [replace(model, sha256="0" * 64), replace(other, size=99)]
    assert [r.split(":")[:2] for r in reasons(wrong, places)] == [
        ["model a", f" its SHA-256 is {model.sha256}, not {'0' * 64}"],
        ["model b", " its size is 100000 bytes, not 99"],
    ]
    assert hub.sent() == 0


def test_all_reasons_are_told_at_once(hub: HubServer, places: Places) -> None:
    good = add(hub, "good")
    hub.repos["acme/gated"] = Repo({"0" * 40: {"x": b"x"}}, token=TOKEN, gated=True)
    hub.repos["acme/private"] = Repo({"0" * 40: {"x": b"x"}}, token=TOKEN)

    def model(name: str, repo: str, file: str, revision: str = "0" * 40, **more: bool) -> ModelFile:
        source = {"hf": repo, "file": file}
        return ModelFile(name, f"vae/{name}", source, revision, None, sha256(name.encode()), **more)

    models = [
        good,
        model("1-known", "acme/gated", "x", gated=True),
        model("2-gated", "acme/gated", "x"),
        model("3-private", "acme/private", "x"),
        model("4-nowhere", "acme/nowhere", "x"),
        model("5-file", REPO, "nothing", str(good.revision)),
        model("6-revision", REPO, "x", "1" * 40),
        ModelFile("7-volume", "loras/x.safetensors", {"volume": "mine"}),
        ModelFile("8-volume", "loras/x.safetensors", {"volume": "other"}),
    ]
    assert [r.removeprefix("model ") for r in reasons(models[:7], places)] == [
        "1-known: acme/gated is gated, and there is no HF_TOKEN",
        "2-gated: acme/gated is gated, and there is no token: accept its terms at "
        "https://huggingface.co/acme/gated, and give its HF_TOKEN",
        "3-private: there is no repository acme/private, or it is private: there is no token "
        "(status 401)",
        "4-nowhere: there is no repository acme/nowhere, or it is private: there is no token "
        "(status 401)",
        f"5-file: some/repo at {good.revision} has no file nothing",
        f"6-revision: some/repo has no revision {'1' * 40}",
    ]
    assert hub.sent() == 0
    assert reasons(models, places) == [
        "model 7-volume: Volume mine has no file loras/x.safetensors; upload it: "
        "python -m generator upload FILE --folder loras --volume mine",
        "model 8-volume: Volume other is not mounted",
    ]


def test_a_file_that_only_comes_over_xet(
    hub: HubServer, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over 50 GB, as the client counts; fewer here."""
    monkeypatch.setattr("huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE", 99_999)
    [reason] = reasons([add(hub, "a")], places)
    assert "some/repo: The file is too large to be downloaded" in reason


def test_the_token_opens_and_goes_to_its_server_alone(hub: HubServer, places: Places) -> None:
    data = content("a")
    hub.repos["acme/gated"] = Repo({"0" * 40: {"x": data}}, token=TOKEN, gated=True)
    source = {"hf": "acme/gated", "file": "x"}
    gated = ModelFile("a", "vae/a.pt", source, "0" * 40, None, sha256(data), gated=True)
    models = [gated, at_url(hub, "b")]
    [reason] = reasons(models, places, "hf_of_somebody")
    assert "the account of the token has no access: accept its terms at https://" in reason
    hub.asked.clear()
    download(models, places, hf_token=TOKEN)
    assert {a.path: a.authorization for a in hub.asked} == {
        f"/acme/gated/resolve/{'0' * 40}/x": f"Bearer {TOKEN}",
        f"/cdn/{gated.sha256}": "",
        "/b": "",
    }


def test_no_token_is_taken_from_the_machine(
    hub: HubServer, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_machine")
    download([add(hub, "a")], places)
    assert {a.authorization for a in hub.asked} == {""}


@pytest.mark.parametrize("token", ["hf_tok€n", "hf_one\nhf_two", "hf_x\x7f"])
def test_a_token_that_cannot_be_sent(hub: HubServer, places: Places, token: str) -> None:
    """It is said at once, and asked for of nobody."""
    at_hub = ModelFile("a", "vae/a", {"hf": "acme/any", "file": "a"}, "0" * 40)
    with pytest.raises(DownloadError) as failed:
        download([at_hub], places, hf_token=token)
    [reason] = failed.value.reasons
    place = next(n for n, letter in enumerate(token, 1) if not "!" <= letter <= "~")
    assert reason == (
        f"model a: HF_TOKEN is no token: character {place} of {len(token)} is none that a token has; "
        "copy it again"
    )
    at_civitai = ModelFile("b", "vae/b", {"url": "https://civitai.com/b"}, sha256="0" * 64)
    with pytest.raises(DownloadError) as failed:
        download([at_civitai], places, civitai_key=token)
    [reason] = failed.value.reasons
    assert reason.startswith("model b: CIVITAI_API_KEY is no token: ")
    assert hub.asked == []


def test_space_around_a_token_is_left_out(hub: HubServer, places: Places) -> None:
    data = b"x" * 100
    hub.repos["acme/gated"] = Repo({"0" * 40: {"x": data}}, token=TOKEN, gated=True)
    model = ModelFile("x", "vae/x", {"hf": "acme/gated", "file": "x"}, "0" * 40)
    download([model], places, hf_token=f" {TOKEN}\n")
    assert places.file(model).read_bytes() == data


def test_reasons_hold_no_token(hub: HubServer, places: Places) -> None:
    """Not even one that somebody wrote into a URL."""
    model = at_url(hub, "a")
    url = f"{hub.url}/{TOKEN}/nothing?token={TOKEN}"
    [reason] = reasons([replace(model, source={"url": url})], places, TOKEN)
    assert reason == f"model a: {hub.url.rpartition(':')[0]}/…/nothing is answered with status 404"


def test_the_key_of_civitai_goes_to_civitai_alone(
    hub: HubServer, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It redirects to a host that signs its URLs."""
    monkeypatch.setattr(urls, "CIVITAI", (hub.url,))
    model = at_url(hub, "a")
    hub.other["/api/download/models/7"] = ({"Location": f"{hub.cdn_url}/a?signed=1"}, b"")
    model = replace(model, source={"url": f"{hub.url}/api/download/models/7"})
    elsewhere = at_url(hub, "b")
    elsewhere = replace(elsewhere, source={"url": f"{hub.cdn_url}/b"})
    download([model, elsewhere], places, civitai_key="civ_secret")
    assert {a.path: a.authorization for a in hub.asked} == {
        "/api/download/models/7": "Bearer civ_secret",
        "/a": "",
        "/b": "",
    }


@pytest.mark.parametrize(
    ("headers", "end"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, "with a web page, not with a file"),
        ({"Content-Encoding": "gzip"}, "with compressed data"),
    ],
)
def test_a_url_that_is_answered_with_something_else(
    hub: HubServer, places: Places, headers: dict[str, str], end: str
) -> None:
    [reason] = reasons([at_url(hub, "a", headers)], places)
    assert reason.endswith(f"/a is answered {end}")


@pytest.mark.parametrize("kind", ["hub", "url"])
def test_a_full_disk(hub: HubServer, places: Places, kind: str) -> None:
    """/dev/full refuses as a full disk does."""
    model = replace(add(hub, "a"), size=100_000) if kind == "hub" else at_url(hub, "a")
    part = places.cache / "parts" / f"{model.sha256}.part"
    if kind == "hub":
        part = places.cache / f"hub/models--some--repo/blobs/{model.sha256}.incomplete"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    [reason] = reasons([model], places)
    assert reason.startswith(f"model a: the disk of {places.cache} is full")
    assert linked([model], places) == {}


def test_progress_is_told_now_and_then(hub: HubServer, places: Places) -> None:
    lines: list[str] = []
    report = ProgressLines(lines.append, every=3600)
    download([add(hub, "a"), add(hub, "b")], places, on_progress=report)
    [first, last] = lines
    assert first.startswith("0.0 of 0.2 MB")
    assert last == "0.2 of 0.2 MB, 100 %"


def test_an_error_can_be_sent_to_another_machine() -> None:
    error = pickle.loads(pickle.dumps(DownloadError(["b", "a", "b"])))
    assert isinstance(error, DownloadError)
    assert error.reasons == ("a", "b")
    assert str(error) == "a\nb"


PROGRAM = """
import sys
from pathlib import Path
import huggingface_hub.constants
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 16_000
from templates.utils.downloads import Places, download
from tests.test_downloads import several
from tests.hub_server import HubServer
hub = HubServer(url=sys.argv[2])
download(several(hub), Places(Path(sys.argv[1])), parallel=2,
         on_progress=lambda p: print(p.all_done, flush=True))
"""


def several(hub: HubServer) -> list[ModelFile]:
    """Files of Hugging Face and of plain URLs."""
    files = [add(hub, name, 400_000) for name in "abc"]
    return [*files, *(at_url(hub, name) for name in "xyz")]


def test_a_killed_download_goes_on_where_it_was(hub: HubServer, places: Places) -> None:
    """No byte of a finished file is sent again, and no half file is ever linked."""
    models = several(hub)
    hub.rate = 400_000
    command = [sys.executable, "-c", PROGRAM, str(places.cache), hub.url]
    for pieces in (12, 30, 30):
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        ) as process:
            assert process.stdout is not None
            assert all(process.stdout.readline() for _ in range(pieces))
            process.send_signal(signal.SIGKILL)
        finished = {m.path for m in models if places.file(m).is_file()}
        assert linked(models, places).keys() == finished
        assert all(data in map(whole, models) for data in linked(models, places).values())
    assert len(finished) not in (0, len(models))
    hub.rate = 0
    time.sleep(0.1)
    before = hub.downloads()
    download(models, places)
    again = hub.downloads() - before
    assert not {m.sha256 for m in models if m.path in finished} & {p[5:] for p in again}
    assert linked(models, places) == {m.path: whole(m) for m in models}
    assert any(a.start for a in hub.asked)
    # What was on its way when the process was killed was sent and not written.
    assert hub.sent() < sum(len(whole(m)) for m in models) * 1.5


def whole(model: ModelFile) -> bytes:
    return content(model.name, model.size or 100_000)
