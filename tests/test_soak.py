"""A short form of `make soak`."""

import sys

import pytest

from bench.soak import main, report

HELD = {"memory": 100 * 2**20, "tasks": 6, "sockets": 7, "files": 11}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_jobs_of_all_sorts_and_an_engine_that_is_killed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--preview=100", "--comfyui=0", "--every=40"]) == 0, capsys.readouterr().out
    printed = capsys.readouterr().out
    assert "the engine killed 2 times" in printed
    assert "      60 succeeded\n" in printed
    assert "      10 asked for twice\n" in printed
    assert "      10 heard by one who left\n" in printed
    assert "all bounds hold" in printed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "all bounds hold"),
        ({"memory": 131 * 2**20}, "the memory grew to 131.0 MB"),
        ({"tasks": 7}, "1 tasks are left"),
        ({"sockets": 9}, "2 sockets are left"),
        ({"files": 12}, "1 files are left"),
    ],
)
def test_what_is_left_is_said(
    changes: dict[str, int], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make soak` can fail."""
    held = {name: {**HELD, "sockets": 20} for name in ("start", "after 10", "after 100")}
    held["start"] = HELD
    assert report({**held, "at the end": HELD | changes}, []) is (not changes)
    assert said in capsys.readouterr().out
