"""Builds are written as a whole or not at all, and never over what is not ours."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from generator import publish as module
from generator.publish import PublishError, publish

from .conftest import ROOT

Files = dict[str, bytes]


def files(**contents: str) -> Files:
    """Files by name, with __ for a slash and a manifest that names them."""
    found = {
        name.replace("__", "/") + ".py": text.encode() for name, text in sorted(contents.items())
    }
    manifest = {"generator": "0", "spec": "", "routes": {}, "files": dict.fromkeys(found, "")}
    return found | {"manifest.json": json.dumps(manifest).encode()}


def content(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def states(folder: Path) -> dict[Path, tuple[int, ...]]:
    """Return what every write changes; that somebody has read a folder does not count."""
    found = {path: path.stat() for path in folder.rglob("*")}
    return {
        path: (s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        for path, s in found.items()
    }


def test_writes_then_does_nothing(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "build"
    assert publish(files(a="1", b__c="2"), target) is True
    before = states(target)
    assert publish(files(a="1", b__c="2"), target) is False
    assert states(target) == before
    assert content(target) == files(a="1", b__c="2")
    assert os.listdir(target.parent) == ["build"]  # noqa: PTH208


def test_replaces_adds_and_removes(tmp_path: Path) -> None:
    target = tmp_path / "build"
    publish(files(same="1", changed="1", gone__away="1"), target)
    stamp = (target / "same.py").stat().st_mtime_ns
    assert publish(files(same="1", changed="2", new="1"), target) is True
    assert content(target) == files(same="1", changed="2", new="1")
    assert not (target / "gone").exists()
    assert (target / "same.py").stat().st_mtime_ns == stamp


def test_mends_a_file_that_somebody_edited(tmp_path: Path) -> None:
    target = tmp_path / "build"
    publish(files(a="1"), target)
    (target / "a.py").write_text("edited")
    assert publish(files(a="1"), target) is True
    assert content(target) == files(a="1")


def test_keeps_files_of_others(tmp_path: Path) -> None:
    target = tmp_path / "build"
    publish(files(a="1"), target)
    (target / "notes").mkdir()
    (target / "notes" / "mine.txt").write_text("mine")
    (target / "link").symlink_to("notes/mine.txt")
    publish(files(b="1"), target)
    assert content(target) == files(b="1") | {"notes/mine.txt": b"mine", "link": b"mine"}
    assert (target / "link").is_symlink()


def test_refuses_to_overwrite_files_of_others(tmp_path: Path) -> None:
    target = tmp_path / "build"
    publish(files(a="1"), target)
    (target / "b.py").write_text("mine")
    with pytest.raises(PublishError, match=r"b\.py was not made by the generator"):
        publish(files(a="2", b="1"), target)
    assert content(target) == files(a="1") | {"b.py": b"mine"}


@pytest.mark.parametrize(
    "manifest", [None, "{", "[]", '{"files": 3}', '{"files": {"thesis.txt": ""}}']
)
def test_refuses_a_folder_that_is_no_build(tmp_path: Path, manifest: str | None) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    before = content(tmp_path)
    with pytest.raises(PublishError, match="holds no build of ours"):
        publish(files(a="1"), tmp_path)
    assert content(tmp_path) == before


def test_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("x")
    with pytest.raises(PublishError, match="is a file"):
        publish(files(a="1"), tmp_path / "build")


def test_a_manifest_that_names_outside_files_removes_none(tmp_path: Path) -> None:
    target = tmp_path / "build"
    publish(files(a="1"), target)
    (tmp_path / "precious").write_text("x")
    manifest = json.loads((target / "manifest.json").read_bytes())
    manifest["files"]["../precious"] = ""
    (target / "manifest.json").write_text(json.dumps(manifest))
    publish(files(b="1"), target)
    assert (tmp_path / "precious").read_text() == "x"
    assert content(target) == files(b="1")


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_full_disk_leaves_the_old_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """However far the writing came, the target is as it was, and nothing lies beside it."""
    target = tmp_path / "build"
    publish(files(a="1", b="1"), target)
    count = 0

    def fsync(_: int) -> None:
        nonlocal count
        count += 1
        if count > written:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(PublishError, match="No space left on device"):
        publish(files(a="2", b="2", c="2"), target)
    assert content(target) == files(a="1", b="1")
    assert os.listdir(tmp_path) == ["build"]  # noqa: PTH208


def test_without_exchange_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system cannot swap two folders in one step, the result is the same."""
    monkeypatch.setattr(module, "_RENAME_EXCHANGE", 1 << 30)  # EINVAL
    target = tmp_path / "build"
    publish(files(a="1"), target)
    publish(files(a="2"), target)
    assert content(target) == files(a="2")
    assert os.listdir(tmp_path) == ["build"]  # noqa: PTH208


def test_killed_at_any_moment_leaves_a_whole_build(tmp_path: Path) -> None:
    """A build is the old one or the new one, whenever the process is killed."""
    target = tmp_path / "build"
    old = files(**{f"file_{i}": "old" for i in range(40)})
    new = files(**{f"file_{i}": "new" for i in range(40)})
    program = (
        "import pathlib, sys; from generator.publish import publish;"
        "from tests.test_publish import files;"
        "print('ready', flush=True);"
        "[publish(files(**{f'file_{i}': text for i in range(40)}), pathlib.Path(sys.argv[1]))"
        " for _ in range(1000) for text in ('new', 'old')]"
    )
    for delay in (0.001, 0.01, 0.02, 0.05, 0.1):
        publish(old, target)
        with subprocess.Popen(
            [sys.executable, "-c", program, str(target)], cwd=ROOT, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        assert content(target) in (old, new)
