"""Uploading LoRAs: what is refused, what goes onto the Volume, and what the gateway makes of it."""

import asyncio
import json
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modal as modal_sdk
import pytest

from build.gateway.backend import BackendUnavailableError, UnreadModelError
from build.gateway.modal_calls import VolumeFiles
from build.gateway.uploads import UploadedHeaders
from generator.check import Checked
from generator.deployment.upload import UploadError, checked_upload
from generator.preview.folders import demo_lora

from .api_client import FLUX, Api, pointers, problem, running
from .conftest import ROOT, load_and_check
from .modal.local import LocalModal, local_modal

SDXL_KEY = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"


def safetensors(*keys: tuple[str, tuple[int, ...]], size: int = 0) -> bytes:
    header = {
        name: {"dtype": "F16", "shape": shape, "data_offsets": [0, size]} for name, shape in keys
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


FLUX_LORA = demo_lora()
SDXL_LORA = safetensors((SDXL_KEY, (4, 2048)))
UNKNOWN_LORA = safetensors(("something", (1,)))


@pytest.fixture(scope="module")
def shipped() -> Checked:
    checked, _ = load_and_check(ROOT)
    assert checked is not None
    return checked


def put(folder: Path, data: bytes, name: str = "style.safetensors") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refused(checked: Checked, file: Path, folder: str = "loras", **options: Any) -> str:
    with pytest.raises(UploadError) as error:
        checked_upload(checked, file, folder, **options)
    return str(error.value)


def test_a_lora_that_fits(shipped: Checked, tmp_path: Path) -> None:
    found = checked_upload(shipped, put(tmp_path, FLUX_LORA), "loras")
    assert (found.volume, found.path, found.family) == (
        "ryla-models", "loras/style.safetensors", "flux",
    )  # fmt: skip
    assert [(fit.workflow.route, fit.misfit) for fit in found.fits] == [("/flux-lora", None)]


def test_a_lora_of_another_family(shipped: Checked, tmp_path: Path) -> None:
    file = put(tmp_path, SDXL_LORA)
    reason = refused(shipped, file)
    assert reason.startswith(f"no endpoint can use {file}; --any-family uploads it all the same\n")
    assert '/flux-lora: this LoRA is of sdxl, but the model (node "1", flux1-dev' in reason
    found = checked_upload(shipped, file, "loras", any_family=True)
    assert (found.family, [bool(fit.misfit) for fit in found.fits]) == ("sdxl", [True])


def test_a_lora_of_unknown_family(shipped: Checked, tmp_path: Path) -> None:
    """Its name is asked, and else it may be any."""
    assert checked_upload(shipped, put(tmp_path, UNKNOWN_LORA), "loras").family == "unknown"
    named = put(tmp_path, UNKNOWN_LORA, "style-sdxl.safetensors")
    assert "this LoRA is of sdxl" in refused(shipped, named)


def test_a_folder_that_no_caller_chooses_from(shipped: Checked, tmp_path: Path) -> None:
    """Such as one that a model with source volume is in."""
    found = checked_upload(shipped, put(tmp_path, SDXL_LORA), "controlnet")
    assert found.fits == ()


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"<html>not found</html>", "no safetensors file: a header has at most 100000000 bytes"),
        (b"", "the file is cut off in its header: 0 of 8 bytes"),
        (FLUX_LORA[:-1], "the file is cut off: its last 1 bytes are missing"),
    ],
)
def test_a_file_that_is_none(shipped: Checked, tmp_path: Path, data: bytes, end: str) -> None:
    file = put(tmp_path, data)
    assert f"{file}: {end}" in refused(shipped, file)


@pytest.mark.parametrize(
    ("name", "folder", "options", "reason"),
    [
        ("a.pt", "loras", {}, '"a.pt" is no name of a safetensors file'),
        ("a.safetensors", "loras", {"name": "a.bin"}, '"a.bin" is no name of a safetensors file'),
        ("a.safetensors", "loras", {"name": "../a.safetensors"}, "is no name of a safetensors"),
        ("a.safetensors", "Loras", {}, 'nothing reads a folder "Loras"; did you mean "loras"?'),
        ("a.safetensors", "models/loras", {}, 'nothing reads a folder "models/loras"'),
        ("ae.safetensors", "vae", {}, 'vae/ae.safetensors is model "flux-vae" of models.yaml'),
        ("a.safetensors", "loras", {"volume": "mine"},
         'no Volume "mine": volumes: of gpu.yaml has ryla-models for uploads'),
        ("a.safetensors", "loras", {"volume": "hf-hub-cache"}, 'no Volume "hf-hub-cache"'),
    ],
)  # fmt: skip
def test_places_that_are_wrong(
    shipped: Checked,
    tmp_path: Path,
    name: str,
    folder: str,
    options: dict[str, str],
    reason: str,
) -> None:
    assert reason in refused(shipped, put(tmp_path, FLUX_LORA, name), folder, **options)


def test_a_file_that_is_not_there(shipped: Checked, tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(shipped, tmp_path / "a.safetensors")


# The command, on a Modal of this machine


@pytest.fixture(scope="module")
def modal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModal]:
    with local_modal(tmp_path_factory.mktemp("modal")) as found:
        yield found


def upload(modal: LocalModal, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "generator", "upload", "--folder", "loras", *arguments],
        cwd=ROOT,
        env=modal.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command(modal: LocalModal, tmp_path: Path) -> None:
    file = modal.plane.volume_path("ryla-models") / "loras" / "people" / "ann.safetensors"
    name = ("--name", "people/ann.safetensors")
    run = upload(modal, str(put(tmp_path, FLUX_LORA)), *name)
    assert run.returncode == 0, run.stderr
    assert "/flux-lora: can use it\n" in run.stderr
    assert run.stderr.endswith(
        "loras/people/ann.safetensors is on the Volume ryla-models, for the next request\n"
    )
    assert file.read_bytes() == FLUX_LORA
    other = str(put(tmp_path, UNKNOWN_LORA))
    run = upload(modal, other, *name)
    assert run.returncode == 1
    assert "has a file loras/people/ann.safetensors of" in run.stderr
    assert file.read_bytes() == FLUX_LORA
    assert upload(modal, other, *name, "--force").returncode == 0
    assert file.read_bytes() == UNKNOWN_LORA


def test_the_command_refuses_before_it_asks_modal(modal: LocalModal, tmp_path: Path) -> None:
    run = upload(modal, str(put(tmp_path, SDXL_LORA, "wrong.safetensors")))
    assert run.returncode == 1
    assert "error: no endpoint can use" in run.stderr
    assert not (modal.plane.volume_path("ryla-models") / "loras/wrong.safetensors").exists()


def test_without_a_token(modal: LocalModal, tmp_path: Path) -> None:
    environment = {k: v for k, v in modal.environment.items() if "TOKEN" not in k}
    file = put(tmp_path, FLUX_LORA)
    run = subprocess.run(
        [sys.executable, "-m", "generator", "upload", "--folder", "loras", str(file)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "modal token new" in run.stderr


READ = """\
import asyncio, json, sys
from pathlib import Path
import modal
from build.gateway.modal_calls import VolumeFiles

async def main():
    files = VolumeFiles([modal.Volume.from_name(name) for name in ("empty", "full")])
    families = {}
    for name in sys.argv[2:]:
        found = await files.families("loras", name)
        families[name] = sorted(found) if found else None
    await files.fetch("loras/people/ann.safetensors", Path(sys.argv[1]))
    print(json.dumps([sorted(await files.listing("loras")), sorted(await files.files()), families]))

asyncio.run(main())
"""


def test_a_gateway_reads_volumes(modal: LocalModal, tmp_path: Path) -> None:
    """Their lists and headers, and whole files for workers."""
    modal.cli("volume", "create", "empty", cwd=tmp_path)
    modal.cli("volume", "create", "full", cwd=tmp_path)
    folder = modal.plane.volume_path("full") / "loras"
    (folder / "people").mkdir(parents=True)
    put(folder, FLUX_LORA)
    put(folder, SDXL_LORA, "people/ann.safetensors")
    put(folder, b"x", "a.txt")
    names = ["style.safetensors", "people/ann.safetensors", "nothing.safetensors"]
    run = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "copy"), *names],
        cwd=ROOT,
        env=modal.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [
        ["a.txt", "people/ann.safetensors", "style.safetensors"],
        ["loras/a.txt", "loras/people/ann.safetensors", "loras/style.safetensors"],
        {names[0]: ["flux"], names[1]: ["sdxl"], names[2]: None},
    ]
    assert (tmp_path / "copy").read_bytes() == SDXL_LORA


class Broken:
    """A Volume that hands out fewer bytes of a file than it lists, or breaks off."""

    def __init__(self, breaks_off: bool) -> None:
        self._breaks_off = breaks_off
        self.listdir = self.read_file = self

    async def _list(self) -> list[Any]:
        kind = SimpleNamespace(name="FILE")
        return [SimpleNamespace(path="loras/a.safetensors", size=8, mtime=1, type=kind)]

    async def _read(self) -> AsyncGenerator[bytes, None]:
        yield b"half"
        if self._breaks_off:
            raise modal_sdk.exception.ConnectionError("cut off")

    def aio(self, _: str, recursive: bool = False) -> Any:
        return self._list() if recursive else self._read()


@pytest.mark.parametrize("breaks_off", [True, False])
def test_half_a_file_is_never_there(tmp_path: Path, breaks_off: bool) -> None:
    """Neither under its name nor under another one."""
    volume: Any = Broken(breaks_off)
    with pytest.raises(BackendUnavailableError):
        asyncio.run(VolumeFiles([volume]).fetch("loras/a.safetensors", tmp_path / "a"))
    assert [*tmp_path.iterdir()] == []


# Headers


class Chunks:
    """A file in pieces, and how many of them were asked for."""

    def __init__(self, data: bytes, size: int = 1000) -> None:
        self.data, self.size, self.asked = data, size, 0

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        for at in range(0, len(self.data), self.size):
            self.asked += 1
            yield self.data[at : at + self.size]


def families(headers: UploadedHeaders, name: str, chunks: Chunks, time: int = 0) -> Any:
    version = (len(chunks.data), time)
    return asyncio.run(headers.families(f"loras/{name}", version, chunks()))


def test_only_the_header_is_read_and_only_once() -> None:
    headers, chunks = UploadedHeaders(), Chunks(FLUX_LORA)
    assert families(headers, "a.safetensors", chunks) == {"flux"}
    assert chunks.asked == 1
    assert len(chunks.data) > 5 * chunks.size
    assert families(headers, "a.safetensors", chunks) == {"flux"}
    assert chunks.asked == 1
    chunks.data = SDXL_LORA
    assert families(headers, "a.safetensors", chunks, time=1) == {"sdxl"}
    assert families(headers, "b.bin", Chunks(b"x")) is None
    assert families(headers, "c.safetensors", Chunks(UNKNOWN_LORA)) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html>not found</html>", "no safetensors file"),
        (struct.pack("<Q", 10**15) + b"{}", "a header has at most 32000000 bytes"),
        (FLUX_LORA[:100], "cut off in its header"),
        (FLUX_LORA[:-2], "its last 2 bytes are missing"),
        (b"", "0 of 8 bytes"),
    ],
)
def test_files_that_are_none(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadModelError, match=reason):
        families(UploadedHeaders(), "a.safetensors", Chunks(data, 7))


# What a caller hears


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("shipped")) as found:
        yield found


@pytest.fixture(scope="module")
def uploads() -> dict[str, bytes]:
    """The files on a Volume, by their names in loras."""
    return {}


@pytest.fixture
def with_uploads(api: Api, uploads: dict[str, bytes]) -> Iterator[Api]:
    """An API whose backend has them."""
    headers = UploadedHeaders()
    backend: Any = api.service.backend

    async def listing(folder: str) -> list[str]:
        return [*(await backend.backend.models(folder)), *uploads]

    async def read(folder: str, name: str) -> Any:
        if name not in uploads:
            return None
        chunks = Chunks(uploads[name])
        return await headers.families(f"{folder}/{name}", (len(chunks.data), 0), chunks())

    backend.models, backend.families = listing, read
    yield api
    del backend.models, backend.families


def test_a_lora_of_another_family_wakes_no_gpu(
    with_uploads: Api, uploads: dict[str, bytes]
) -> None:
    uploads["pretty.safetensors"] = SDXL_LORA
    uploads["character-pretty.safetensors"] = SDXL_LORA
    before = len(with_uploads.works)
    for given in ({"lora_name": "pretty.safetensors"}, {"lora_id": "pretty"}):
        document = problem(with_uploads.post("/flux-lora", {**FLUX, **given}), 422, "bad-model")
        assert pointers(document) == [f"#/{next(iter(given))}"]
        assert document["detail"].startswith(
            'this LoRA is of sdxl, but the model (node "1", flux1-dev'
        )
        assert document["errors"][0]["code"] == "family-mismatch"
    assert len(with_uploads.works) == before


def test_a_lora_of_another_family_by_its_name(with_uploads: Api, uploads: dict[str, bytes]) -> None:
    uploads["style-sdxl.safetensors"] = UNKNOWN_LORA
    body = {**FLUX, "lora_name": "style-sdxl.safetensors"}
    problem(with_uploads.post("/flux-lora", body), 422, "bad-model")


def test_a_lora_that_is_damaged(with_uploads: Api, uploads: dict[str, bytes]) -> None:
    uploads["half.safetensors"] = FLUX_LORA[:-1]
    body = {**FLUX, "lora_name": "half.safetensors"}
    document = problem(with_uploads.post("/flux-lora", body), 422, "bad-model")
    assert document["detail"] == (
        "half.safetensors in loras cannot be used: the file is cut off: its last 1 bytes are missing"
    )
    assert document["errors"][0]["code"] == "unread-header"


def test_a_lora_that_fits_is_submitted(with_uploads: Api, uploads: dict[str, bytes]) -> None:
    uploads["good.safetensors"] = FLUX_LORA
    body = {**FLUX, "lora_name": "good.safetensors"}
    before = len(with_uploads.works)
    with_uploads.post("/flux-lora", body)
    assert len(with_uploads.works) == before + 1
