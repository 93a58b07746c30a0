"""`python -m generator catalog`: node schemas from a ComfyUI that runs, here the preview engine."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from generator.cli import main
from generator.graph.catalog import open_catalog
from generator.observe import ObserveError, observe
from generator.preview.folders import Folders
from generator.preview.schemas import Schemas
from generator.preview.server import Server, serving
from generator.project import CATALOGS

from .conftest import CheckProject, MakeProject

CATALOG = open_catalog(CATALOGS, version="0.3.71")
PACK = "ComfyUI_InstantID"
# What /object_info of the preview engine leaves out, for it knows nothing of the canvas.
CANVAS = {
    "audio_upload", "control_after_generate", "dynamicPrompts", "file_upload", "image_folder",
    "image_upload", "remote", "video_upload",
}  # fmt: skip


@contextlib.contextmanager
def engine(base: Path) -> Iterator[str]:
    """Run a preview engine with one pack in a thread, and yield its URL."""
    folders = Folders(base)
    folders.make()
    folders.add_model("checkpoints/there.safetensors")
    with served(Server(Schemas(CATALOG, folders, [PACK]), folders, pace=0)) as url:
        yield url


@contextlib.contextmanager
def served(server: Server) -> Iterator[str]:
    """Run a server in a thread, and yield its URL."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    urls: list[str] = []

    async def run() -> None:
        async with serving(server) as url:
            urls.append(url)
            await stop.wait()

    thread = Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        while not urls:
            assert thread.is_alive()
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def files(base: Path) -> set[Path]:
    return set(base.rglob("*"))


def test_what_is_observed_is_the_catalog(tmp_path: Path) -> None:
    with engine(tmp_path) as url:
        before = {path for path in files(tmp_path) if path.is_file()}
        core, pack = observe(url, tmp_path / "models", {PACK: "abc"})
        assert {path for path in files(tmp_path) if path.is_file()} == before
    assert (core["comfyui"], pack["pack"], pack["commit"]) == ("0.3.71", PACK, "abc")
    assert set(core["nodes"]) == set(CATALOG.core.header["classes"])
    assert set(pack["nodes"]) == set(CATALOG.packs[PACK].header["classes"])
    for name, node in core["nodes"].items():
        stored = json.loads(CATALOG.core.line(name))
        outputs = [[output["name"], output["type"]] for output in node["outputs"]]
        assert outputs == stored["outputs"]
        assert node.get("output_node", False) == stored.get("output_node", False)
        assert list(node["inputs"]) == list(stored["inputs"]), name
        for key, taken in node["inputs"].items():
            wanted = {k: v for k, v in stored["inputs"][key].items() if k not in CANVAS}
            assert described(taken) == described(wanted), (name, key)


def described(taken: dict[str, Any]) -> dict[str, Any]:
    """Return an input without what is said by leaving it out, and lists of folders as sets."""
    plain = {k: v for k, v in taken.items() if v is not False and k != "input_files"}
    return plain | {"folders": set(taken.get("folders", ()))}


def test_without_a_models_folder_no_file_is_taken_for_an_option(tmp_path: Path) -> None:
    with engine(tmp_path) as url:
        core, _ = observe(url, None)
    taken = core["nodes"]["CheckpointLoaderSimple"]["inputs"]["ckpt_name"]
    assert taken["options"] == []
    assert "folders" not in taken


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "ftp://x", "http://[", ""])
def test_what_is_no_comfyui(url: str) -> None:
    with pytest.raises(ObserveError):
        observe(url, None)


def test_a_models_folder_that_is_none(tmp_path: Path) -> None:
    with engine(tmp_path / "base") as url, pytest.raises(ObserveError, match="models"):
        observe(url, tmp_path / "nowhere" / "models")


def test_a_pack_gets_its_schemas(make_project: MakeProject, check_project: CheckProject) -> None:
    """A pack that nobody has schemas of is warned of, until the command has made them."""
    pack = "packs: {Mine: {git: 'https://x/Mine', commit: %s}}" % ("e" * 40)
    workflow = (
        "graph:\n  1: {class_type: MyNode, inputs: {size: many}}\n"
        "  2: {class_type: PreviewAny, inputs: {source: [1, 0]}}\n"
    )
    root = make_project({"it": workflow}, models=f"models: {{}}\n{pack}\n")
    assert {d.code for d in check_project(root)[1]} == {"no-schemas"}
    catalogs = root / "catalogs" / "packs"
    catalogs.mkdir(parents=True)
    node = {"inputs": {"size": {"type": "INT"}}, "outputs": [["x", "INT"]]}
    header = {"comfyui": "0.3.71", "pack": "Mine", "repo": "", "commit": "", "classes": ["MyNode"]}
    (catalogs / "Mine.jsonl").write_text(f"{json.dumps(header)}\n{json.dumps(node)}\n")
    assert [(d.code, d.input) for d in check_project(root)[1]] == [("literal-type", "size")]


def test_the_command(
    tmp_path: Path, make_project: MakeProject, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_project({"it": "graph: {1: {class_type: PreviewImage, inputs: {images: [2, 0]}}}"})
    base = tmp_path / "engine"
    with engine(base) as url:
        command = ["catalog", "--project", str(root), "--url", url]
        assert main([*command, "--models", str(base / "models")]) == 0
        assert main(["catalog", "--project", str(root), "--url", url, "--quiet"]) == 0
    shown = capsys.readouterr().err
    assert f"{root}/catalogs/packs/{PACK}.jsonl: " in shown
    written = open_catalog(root / "catalogs", version="0.3.71")
    assert written.names() == CATALOG.names([PACK])
    assert main(["catalog", "--project", str(root), "--url", "http://127.0.0.1:9"]) == 2
    assert "does not answer" in capsys.readouterr().err


def test_the_extensions_that_an_input_lists(tmp_path: Path) -> None:
    """They are found by markers too: loaders of quantized models list those alone."""
    folders = Folders(tmp_path)
    folders.make()
    schemas = Schemas(CATALOG, folders, ["ComfyUI-GGUF"])
    with served(Server(schemas, folders, pace=0)) as url:
        core, pack = observe(url, tmp_path / "models")
    inputs = {name: node["inputs"] for name, node in (core["nodes"] | pack["nodes"]).items()}
    assert "extensions" not in inputs["UNETLoader"]["unet_name"]
    assert inputs["UnetLoaderGGUF"]["unet_name"]["extensions"] == [".gguf"]
    assert inputs["CLIPLoaderGGUF"]["clip_name"]["extensions"] == [".gguf", ".safetensors"]
