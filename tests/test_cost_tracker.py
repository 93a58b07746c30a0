"""build/utils/cost_tracker.py: seconds times the price of gpu.yaml, and nothing else needed."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from build.utils.cost_tracker import PRICE_MULTIPLIER, PRICES, CostTracker, price_per_second
from generator.cli import main
from generator.project import load_project

from .conftest import GPU_YAML, ROOT, MakeProject

L40S = 0.000542

SetClock = Callable[[float], None]


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Return a function that sets the clock of the tracker."""

    def show(seconds: float) -> None:
        monkeypatch.setattr("time.monotonic", lambda: seconds)

    show(1000.0)
    return show


def test_prices_are_those_of_gpu_yaml() -> None:
    settings = load_project(ROOT)[0].settings
    assert settings is not None
    assert {gpu.modal: gpu.price_per_second for gpu in settings.gpus.values()} == PRICES
    assert settings.price_multiplier == PRICE_MULTIPLIER
    assert PRICES["L40S"] == L40S


def test_a_run_costs_its_seconds(clock: SetClock) -> None:
    tracker = CostTracker("L40S")
    tracker.start()
    clock(1012.5)
    assert tracker.stop() == 12.5
    clock(5000.0)
    assert tracker.seconds == 12.5
    assert tracker.calculate_cost() == 12.5 * L40S
    assert tracker.get_cost_summary() == {
        "gpu_type": "L40S",
        "execution_time_sec": 12.5,
        "price_per_second_usd": L40S,
        "cost_usd": 0.006775,
    }


@pytest.mark.parametrize(
    ("seconds", "cost"),
    [(0, 0.0), (0.001, 5.42e-07), (1, 0.000542), (90.0, 0.04878), (3600, 1.9512)],
)
def test_cost_of_given_seconds(seconds: float, cost: float, clock: SetClock) -> None:
    """What the clock says does not count then."""
    tracker = CostTracker("L40S")
    tracker.start()
    clock(9999.0)
    assert tracker.calculate_cost(seconds) == pytest.approx(cost, rel=1e-12, abs=0)


def test_the_summary_is_rounded_and_is_json(clock: SetClock) -> None:
    """Seconds have 3 decimals and dollars 6; the cost is of the seconds before rounding."""
    tracker = CostTracker("L40S")
    tracker.start()
    clock(1001.2347891)
    tracker.stop()
    summary = tracker.get_cost_summary()
    assert summary["execution_time_sec"] == 1.235
    assert summary["cost_usd"] == 0.000669
    assert json.loads(json.dumps(summary)) == summary


def test_before_the_start_nothing_is_owed(clock: SetClock) -> None:
    tracker = CostTracker("L40S")
    clock(2000.0)
    assert tracker.seconds == 0.0
    assert tracker.calculate_cost() == 0.0
    assert tracker.get_cost_summary()["cost_usd"] == 0.0


def test_while_it_runs_the_clock_counts(clock: SetClock) -> None:
    tracker = CostTracker("L40S")
    tracker.start()
    for now in (1000.0, 1001.0, 1004.0):
        clock(now)
        assert tracker.seconds == now - 1000.0
        assert tracker.calculate_cost() == (now - 1000.0) * L40S


def test_a_second_start_begins_at_zero(clock: SetClock) -> None:
    """Whether the first run was stopped or not."""
    tracker = CostTracker("L40S")
    tracker.start()
    clock(1010.0)
    tracker.start()
    clock(1011.0)
    assert tracker.stop() == 1.0
    tracker.start()
    assert tracker.seconds == 0.0
    clock(1013.0)
    assert tracker.stop() == 2.0


@pytest.mark.parametrize("started", [False, True])
def test_stop_without_start(started: bool) -> None:
    """A run stops once."""
    tracker = CostTracker("L40S")
    if started:
        tracker.start()
        tracker.stop()
    with pytest.raises(RuntimeError, match=r"stop\(\) without start\(\)"):
        tracker.stop()


@pytest.mark.parametrize("gpu", ["L40S", "l40s", "L40s"])
def test_case_does_not_matter(gpu: str) -> None:
    assert price_per_second(gpu) == L40S
    assert CostTracker(gpu).calculate_cost(1000) == 1000 * L40S


@pytest.mark.parametrize("gpu", ["", "H1000", "L40S ", "L40", "l40s\n"])
def test_unknown_gpu(gpu: str) -> None:
    """There is no price to fall back on."""
    for call in (price_per_second, CostTracker):
        with pytest.raises(ValueError, match="no price of GPU") as caught:
            call(gpu)
        assert (
            str(caught.value) == f"no price of GPU {gpu!r}; there are prices of {', '.join(PRICES)}"
        )


@pytest.mark.parametrize("seconds", [-1, -0.001, -math.inf])
def test_negative_seconds(seconds: float) -> None:
    with pytest.raises(ValueError, match="no number of seconds"):
        CostTracker("L40S").calculate_cost(seconds)


def test_it_needs_no_other_file(tmp_path: Path) -> None:
    """Copied alone, without installed packages on the path, it works."""
    shutil.copy(ROOT / "build" / "utils" / "cost_tracker.py", tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import cost_tracker as c;"
        "t = c.CostTracker('l40s'); t.start(); assert t.stop() >= 0;"
        "print(c.__file__, t.calculate_cost(1000), c.PRICES)"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", program, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        text=True,
    )
    assert run.stderr == ""
    assert run.stdout == f"{tmp_path / 'cost_tracker.py'} {1000 * L40S} {PRICES}\n"


def test_prices_of_several_gpus(make_project: MakeProject) -> None:
    """Each by Modal's name, times the multiplier."""
    gpu = GPU_YAML + "  big: {modal: A100-80GB, vram_gb: 80, price_per_second: 0.000694}\n"
    node = "1: {class_type: PreviewAny, inputs: {source: {__value__: x}}}"
    root = make_project({"it": f"graph:\n  {node}\n"}, gpu=gpu + "price_multiplier: 1.25\n")
    assert main(["build", "--quiet", "--project", str(root), "--out", str(root / "app")]) == 0
    program = (
        "import cost_tracker as c, json;"
        "print(json.dumps([c.PRICES, c.CostTracker('a100-80gb').calculate_cost(1000)]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root / "app" / "utils",
        capture_output=True,
        check=True,
    )
    prices, cost = json.loads(run.stdout)
    assert prices == {"L40S": L40S, "A100-80GB": 0.000694}
    assert cost == pytest.approx(0.8675)
