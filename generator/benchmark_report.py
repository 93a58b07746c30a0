"""What a benchmark found, as a table, as JSON and as a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .benchmark import Measured, Sample, percentile

if TYPE_CHECKING:
    from rich.table import Table

_COLOURS: Final = {
    "first": "tab:gray",
    "cold": "tab:blue",
    "warm": "tab:green",
    "failed": "tab:red",
}
_SHARES: Final = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "max": 1.0}


class PlotError(RuntimeError):
    """No plot can be made; the text says why."""


def document(found: Measured) -> dict[str, Any]:
    """Return all of it as JSON. Seconds and USD; a value that nobody knows is null."""
    return {
        "url": found.url,
        "route": found.route,
        "parallel": found.parallel,
        "requests": len(found.samples),
        "succeeded": sum(not s.fault for s in found.samples),
        "success_rate": _rate(found.samples),
        "gpu": sorted({s.gpu for s in found.samples if s.gpu}),
        "engine": sorted({s.engine for s in found.samples if s.engine}),
        "first": _seconds(found.samples[:1]),
        "cold": _seconds(found.cold),
        "warm": _seconds(found.warm),
        "execution": _spread([s.execution for s in found.warm if s.execution is not None]),
        "startup": _spread([s.startup for s in found.cold if s.startup is not None]),
        "requests_per_second": _throughput(found),
        "usd_per_request": _mean([s.cost for s in found.samples if s.cost is not None]),
        "faults": _faults(found.samples),
        "samples": [
            {
                "number": s.number,
                "began": round(s.began, 3),
                "seconds": round(s.seconds, 3),
                "execution": s.execution,
                "queue": s.queue,
                "startup": s.startup,
                "usd": s.cost,
                "gpu": s.gpu,
                "engine": s.engine,
                "cold": s.cold,
                "fault": s.fault,
            }
            for s in found.samples
        ],
    }


def table(found: Measured) -> "Table":
    """Return the numbers as a table."""
    from rich.table import Table
    from rich.text import Text

    about = document(found)
    shown = Table(title=f"{found.route} at {found.url}", title_justify="left", box=None)
    shown.add_column("")
    for name in _SHARES:
        shown.add_column(name, justify="right")
    shown.add_column("n", justify="right")
    rows = {
        "first request": about["first"],
        "cold requests": about["cold"],
        "warm requests": about["warm"],
        "of that execution": about["execution"],
        "start of a worker": about["startup"],
    }
    for name, spread in rows.items():
        if spread is not None:
            cells = [f"{spread[share]:.2f} s" for share in _SHARES]
            shown.add_row(name, *cells, str(spread["count"]))
    shown.add_section()
    facts = {
        "succeeded": f"{about['succeeded']} of {about['requests']}",
        "throughput": _said(about["requests_per_second"], "{:.2f} requests/s"),
        "cost": _said(about["usd_per_request"], "{:.6f} USD/request"),
        "GPU": ", ".join(about["gpu"]) or "unknown",
        "engine": ", ".join(about["engine"]) or "unknown",
    }
    for name, text in facts.items():
        shown.add_row(name, Text(text))
    return shown


def series(found: Measured) -> dict[str, tuple[Sample, ...]]:
    """Return each sample in the group that a plot shows it in; cold and warm are the table's."""
    good = {
        "first": tuple(s for s in found.samples[:1] if not s.cold),
        "cold": found.cold,
        "warm": found.warm,
    }
    return {
        **{name: tuple(s for s in samples if not s.fault) for name, samples in good.items()},
        "failed": tuple(s for s in found.samples if s.fault),
    }


def plot(found: Measured, path: Path) -> None:
    """Write a picture of it: how long each request took, and which share took how long.

    The suffix of the file says its format: .svg, .png or .pdf.

    Raises:
        PlotError: when matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotError(
            "a plot needs matplotlib: pip install 'comfyui-modal-generator[plot]'"
        ) from error
    figure = Figure(figsize=(10, 4), layout="constrained")
    over_time, shares = figure.subplots(1, 2)
    for name, samples in series(found).items():
        if samples:
            label, colour = f"{name} ({len(samples)})", _COLOURS[name]
            seconds = sorted(s.seconds for s in samples)
            began = [s.began for s in samples]
            over_time.scatter(began, [s.seconds for s in samples], label=label, c=colour, s=18)
            if name in ("cold", "warm"):
                steps = [100 * (n + 1) / len(seconds) for n in range(len(seconds))]
                shares.step(seconds, steps, where="post", color=colour)
    over_time.set(title=f"{found.route}, {found.parallel} at a time")
    over_time.set(xlabel="sent after (s)", ylabel="answered within (s)", ylim=(0, None))
    over_time.legend()
    shares.set(title="Cold and warm requests", xlabel="answered within (s)", ylabel="share (%)")
    shares.set(xlim=(0, None), ylim=(0, 101))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise PlotError(f"{path} cannot be written: {error}") from error


def _seconds(samples: Sequence[Sample]) -> dict[str, Any] | None:
    return _spread([s.seconds for s in samples if not s.fault])


def _spread(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    shares = {name: round(percentile(values, share), 3) for name, share in _SHARES.items()}
    return {"count": len(values), "mean": round(sum(values) / len(values), 3), **shares}


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None


def _rate(samples: Sequence[Sample]) -> float:
    return round(sum(not s.fault for s in samples) / len(samples), 4)


def _throughput(found: Measured) -> float | None:
    """Return how many of the requests after the first succeeded per second."""
    good = sum(not s.fault for s in found.samples[1:])
    return round(good / found.seconds, 3) if good and found.seconds else None


def _faults(samples: Sequence[Sample]) -> dict[str, int]:
    found: dict[str, int] = {}
    for sample in samples:
        if sample.fault:
            found[sample.fault] = found.get(sample.fault, 0) + 1
    return found


def _said(value: float | None, shape: str) -> str:
    return "unknown" if value is None else shape.format(value)
