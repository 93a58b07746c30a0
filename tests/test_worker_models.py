"""The model files of a worker: those of Volumes that changed since its container started."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from templates.gateway.backend import BackendUnavailableError
from templates.graph.catalog import Catalog, open_catalog
from templates.utils.downloads import ModelFile, Places
from templates.worker_models import Version, WorkerModels

from .conftest import ROOT

HOUR = 3600.0


class Volume:
    """A Volume with the files of a folder, and a mount that shows them as they were once."""

    def __init__(self, base: Path) -> None:
        self.mount = base / "mount"
        self.mount.mkdir()
        self.now: dict[str, tuple[bytes, float]] = {}
        self.fetched: list[str] = []
        self.asked = 0

    def put(self, path: str, data: bytes, age: float = 0.0) -> None:
        self.now[path] = data, time.time() - age

    def start_container(self) -> None:
        for path, (data, changed) in self.now.items():
            file = self.mount / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            os.utime(file, (changed, changed))

    async def files(self) -> dict[str, Version]:
        self.asked += 1
        return {path: (len(data), changed) for path, (data, changed) in self.now.items()}

    async def fetch(self, path: str, target: Path) -> None:
        await asyncio.sleep(0)
        self.fetched.append(path)
        target.write_bytes(self.now[path][0])


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def catalog() -> Catalog:
    return open_catalog(ROOT / "generator" / "catalogs", version="0.3.71")


def started(volume: Volume, *models: ModelFile, schemas: bool = True) -> WorkerModels:
    """Return the models of a worker whose container starts now."""
    volume.start_container()
    folder = volume.mount.parent / "models"
    (folder / "vae_approx").mkdir(parents=True, exist_ok=True)
    (folder / "vae_approx" / "taesd.safetensors").write_bytes(b"comfyui's")
    made = WorkerModels(
        folder,
        models,
        Places(volume.mount.parent / "cache", {"mine": volume.mount}),
        uploads=volume,
        catalog=catalog() if schemas else None,
    )
    assert made.link() == []
    return made


def graph(**classes: dict[str, Any]) -> dict[str, Any]:
    return {
        str(number): {"class_type": name.rstrip("_"), "inputs": inputs}
        for number, (name, inputs) in enumerate(classes.items())
    }


def lora(name: object) -> dict[str, Any]:
    return graph(LoraLoaderModelOnly={"model": ["9", 0], "lora_name": name, "strength_model": 1})


def read(volume: Volume, models: WorkerModels, name: str, folder: str = "loras") -> bytes:
    """Return the file that a run with a LoRA reads."""
    sent = asyncio.run(models.placed(lora(name)))
    there: str = sent["0"]["inputs"]["lora_name"]
    return (volume.mount.parent / "models" / folder / there).read_bytes()


def test_what_the_mount_shows_is_not_fetched(volume: Volume) -> None:
    volume.put("loras/a.safetensors", b"a", HOUR)
    models = started(volume)
    assert asyncio.run(models.placed(lora("a.safetensors"))) == lora("a.safetensors")
    assert read(volume, models, "a.safetensors") == b"a"
    assert volume.fetched == []


def test_what_was_uploaded_right_before_the_start(volume: Volume) -> None:
    """It is what the mount shows if that has its time, and else it is fetched to be sure."""
    volume.put("loras/a.safetensors", b"a", 10.0)
    models = started(volume)
    assert read(volume, models, "a.safetensors") == b"a"
    assert volume.fetched == []
    os.utime(volume.mount / "loras/a.safetensors", (1.0, 1.0))
    for file in (volume.mount.parent / "models/loras").iterdir():
        file.unlink()
    assert models.link() == []
    assert read(volume, models, "a.safetensors") == b"a"
    assert volume.fetched == ["loras/a.safetensors"]


def test_a_younger_file_is_fetched_once(volume: Volume) -> None:
    models = started(volume)
    volume.put("loras/people/ann.safetensors", b"ann")
    for _ in range(2):
        assert read(volume, models, "people/ann.safetensors") == b"ann"
    assert volume.fetched == ["loras/people/ann.safetensors"]


def test_a_file_of_that_name_in_another_folder_is_another_one(volume: Volume) -> None:
    volume.put("vae/a.safetensors", b"vae", HOUR)
    models = started(volume)
    volume.put("loras/a.safetensors", b"lora")
    assert read(volume, models, "a.safetensors") == b"lora"
    assert volume.fetched == ["loras/a.safetensors"]


@pytest.mark.parametrize("schemas", [True, False])
@pytest.mark.parametrize("new", [b"new", b"newer"])
def test_a_file_that_was_replaced_is_read_anew(volume: Volume, new: bytes, schemas: bool) -> None:
    """Under another name, for ComfyUI would not load one of the same name again."""
    volume.put("loras/a.safetensors", b"old", HOUR)
    models = started(volume, schemas=schemas)
    assert read(volume, models, "a.safetensors") == b"old"
    for data in (new, b"one more", new):
        volume.put("loras/a.safetensors", data)
        sent = asyncio.run(models.placed(lora("a.safetensors")))["0"]["inputs"]["lora_name"]
        assert sent != "a.safetensors"
        assert sent.endswith(".safetensors")
        assert read(volume, models, "a.safetensors") == data
    # Runs in flight may read it.
    assert (volume.mount.parent / "models/loras/a.safetensors").read_bytes() == b"old"
    count = len(volume.fetched)
    assert read(volume, models, "a.safetensors") == new
    assert len(volume.fetched) == count


def test_a_fetched_file_that_was_replaced_is_read_anew(volume: Volume) -> None:
    models = started(volume)
    for data in (b"one", b"two"):
        volume.put("loras/a.safetensors", data, HOUR - len(volume.fetched))
        assert read(volume, models, "a.safetensors") == data


def test_a_file_in_two_folders_whose_input_nobody_knows(volume: Volume) -> None:
    """Whichever folder it is read from, it is the present one."""
    volume.put("loras/a.safetensors", b"old", HOUR)
    volume.put("vae/a.safetensors", b"vae", HOUR)
    models = started(volume, schemas=False)
    volume.put("loras/a.safetensors", b"new")
    assert read(volume, models, "a.safetensors") == b"new"
    assert read(volume, models, "a.safetensors", "vae") == b"vae"


def test_declared_files_and_comfyui_s_own_are_not_replaced(volume: Volume) -> None:
    """And where no other file is named, the Volume is not asked."""
    volume.put("loras/a.safetensors", b"declared", HOUR)
    declared = ModelFile("a", "loras/a.safetensors", {"volume": "mine"})
    models = started(volume, declared)
    volume.put("loras/a.safetensors", b"new")
    assert read(volume, models, "a.safetensors") == b"declared"
    assert volume.asked == 0
    volume.put("vae_approx/taesd.safetensors", b"mine")
    own = graph(Probe={"name": "taesd.safetensors"})
    assert asyncio.run(models.placed(own)) == own
    assert (
        volume.mount.parent / "models/vae_approx/taesd.safetensors"
    ).read_bytes() == b"comfyui's"


def test_two_runs_at_once_fetch_a_file_once(volume: Volume) -> None:
    async def both() -> None:
        await asyncio.gather(*(models.placed(lora("a.safetensors")) for _ in range(2)))

    models = started(volume)
    volume.put("loras/a.safetensors", b"a")
    asyncio.run(both())
    assert volume.fetched == ["loras/a.safetensors"]


def test_texts_that_name_no_file_are_left_alone(volume: Volume) -> None:
    models = started(volume)
    volume.put("loras/a.safetensors", b"a")
    sent = graph(
        CLIPTextEncode={"text": "a fox, a.safetensors", "clip": ["1", 1]},
        Power_Lora_Loader={"lora_1": {"on": True, "lora": "b.safetensors", "strength": [1, 2.5]}},
        LoraLoader={"lora_name": "../a.safetensors"},
    )
    assert asyncio.run(models.placed(sent)) == sent
    assert volume.fetched == []


def test_a_volume_that_does_not_answer(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    async def files() -> dict[str, Version]:
        raise BackendUnavailableError("Modal does not answer")

    models = started(volume)
    monkeypatch.setattr(volume, "files", files)
    with pytest.raises(BackendUnavailableError):
        asyncio.run(models.placed(lora("a.safetensors")))
