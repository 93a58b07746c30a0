"""A plan as a person reads it: aligned text, in colour on a terminal."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from ..graph.words import printable
from .plan import Plan, RouteChange

_MARKS: Final = {"added": "+", "removed": "-", "changed": "~"}
_BREAKS: Final = "breaks callers"
_RED: Final = "\033[31m"
_GREEN: Final = "\033[32m"
_YELLOW: Final = "\033[33m"
_BOLD: Final = "\033[1m"
_END: Final = "\033[0m"
_COLOURS: Final = {"added": _GREEN, "removed": _RED, "changed": _YELLOW}


def as_table(plan: Plan, *, colour: bool = False) -> str:
    """Return a plan as lines of text, without escape codes unless `colour` is set."""
    return "\n".join(_Report(plan, colour=colour).lines()) + "\n"


def size_text(size: int | None) -> str:
    """Return a number of bytes as people say it, in powers of 1000."""
    if size is None:
        return "unknown"
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError


class _Report:
    def __init__(self, plan: Plan, *, colour: bool) -> None:
        self._plan = plan
        self._colour = colour

    def lines(self) -> Iterator[str]:
        plan = self._plan
        name = printable(plan.app) + (f" in {plan.environment}" if plan.environment else "")
        if plan.deployed is None:
            yield f"{name}: nothing is deployed yet"
        elif plan.changes_nothing:
            yield f"{name}: what is deployed is the same (spec {printable(plan.spec[:12])})"
        else:
            yield f"{name}: spec {printable(plan.deployed[:12])} → {printable(plan.spec[:12])}"
        for title, lines in (
            ("Routes", self._routes()),
            ("Callers of all routes", self._gateway()),
            ("Images", self._images()),
            ("Models", self._models()),
            ("Settings", map(printable, plan.settings)),
            (self._cost_title(), self._costs()),
        ):
            found = list(lines)
            if found:
                yield ""
                yield self._in(_BOLD, title)
                yield from (f"  {line}".rstrip() for line in found)

    def _in(self, code: str, text: str) -> str:
        return f"{code}{text}{_END}" if self._colour else text

    def _routes(self) -> Iterator[str]:
        plan = self._plan
        width = max((len(route.route) for route in plan.routes), default=0)
        for route in plan.routes:
            yield from self._route(route, width)
        if plan.unchanged:
            yield f"= unchanged: {printable(' '.join(plan.unchanged))}"

    def _route(self, route: RouteChange, width: int) -> Iterator[str]:
        start = self._in(
            _COLOURS[route.kind], f"{_MARKS[route.kind]} {printable(route.route):{width}}"
        )
        for number, change in enumerate(route.changes):
            yield (
                (" " * (width + 2) if number else start)
                + f"  {printable(change.text)}"
                + (self._broken() if change.breaking else "")
            )

    def _broken(self) -> str:
        return self._in(_RED, f"  [{_BREAKS}]")

    def _gateway(self) -> Iterator[str]:
        for change in self._plan.gateway:
            yield printable(change.text) + (self._broken() if change.breaking else "")

    def _images(self) -> Iterator[str]:
        for image in self._plan.images:
            if not image.kept:
                text = "all layers are built"
            elif not image.changed and not image.after:
                text = "as it is"
            else:
                parts = [f"built {', '.join(image.changed)}"] if image.changed else []
                parts += [f"and after that {', '.join(image.after)}"] if image.after else []
                text = f"{' '.join(parts)}; kept {', '.join(image.kept)}"
            yield printable(f"{image.image}: {text}")

    def _models(self) -> Iterator[str]:
        plan = self._plan
        if plan.downloads:
            sizes = [d.size for d in plan.downloads if d.size is not None]
            unknown = len(plan.downloads) - len(sizes)
            more = f", and {unknown} of unknown size" if unknown else ""
            unless = "" if plan.knows_volume else ", unless the Volume has it"
            yield f"to download{unless}: {size_text(sum(sizes))}{more}"
            rows = [(d.model, size_text(d.size), d.file) for d in plan.downloads]
            yield from _table(rows, right=(1,))
        elif plan.knows_volume:
            yield "nothing to download"
        elif plan.deployed:
            yield "nothing to download, if the Volume still has what is deployed"
        for (licence, routes), group in groupby(plan.licences, key=lambda x: (x.licence, x.routes)):
            names = ", ".join(printable(one.model) for one in group)
            text = f"{printable(licence)}: {names}, in {printable(' '.join(routes))}"
            yield f"{self._in(_YELLOW, 'no commercial use')}: {text}"

    def _cost_title(self) -> str:
        plan = self._plan
        date = (
            f"prices of {printable(plan.priced)}"
            if plan.priced
            else "gpu.yaml does not say of when"
        )
        times = f", × {plan.price_multiplier}" if plan.price_multiplier != 1 else ""
        return f"Cost in USD ({date}{times})"

    def _costs(self) -> Iterator[str]:
        plan = self._plan
        rows = [
            (
                worker.worker,
                worker.gpu,
                f"{worker.hour:.2f}",
                f"{worker.idle_hour:.2f}",
                f"{worker.scaledown:.3f}",
                f"{worker.buffer_hour:.2f}",
            )
            for worker in plan.workers
        ]
        heads = ("worker", "GPU", "hour up", "idle hour", "scale-down", "buffer hour")
        if not rows:
            yield "no endpoint is on, so there are no workers"
            return
        yield from _table([heads, *rows], right=(2, 3, 4, 5))
        if not all(worker.is_whole for worker in plan.workers):
            yield "the GPU alone: gpu.yaml has no prices of cores and memory"
        requests = [
            (
                request.route,
                request.gpu,
                "unknown" if request.seconds is None else f"{request.seconds:.1f}",
                "unknown" if request.cost is None else f"{request.cost:.6f}",
            )
            for request in plan.requests
        ]
        yield from _table([("request", "GPU", "seconds", "USD"), *requests], right=(2, 3))
        if any(request.seconds is None for request in plan.requests):
            yield (
                "unknown: make deploy SMOKE=1 measures what makes pictures or texts, and seconds.json "
                "takes the rest: docs/cost.md"
            )


def _table(rows: Sequence[tuple[str, ...]], right: tuple[int, ...]) -> Iterator[str]:
    """Return rows as lines of columns; those in `right` are aligned there."""
    texts = [tuple(map(printable, row)) for row in rows]
    widths = [max(len(row[n]) for row in texts) for n in range(len(texts[0]))]
    for row in texts:
        cells = (
            text.rjust(width) if number in right else text.ljust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
