"""Who waits for jobs: a run is stopped with the last caller that waits for it, not with the first.

Counted in this process: of the callers of other gateway containers nothing is known here.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_MOST_KEPT: Final = 10_000


class Listeners:
    """The callers that wait for jobs, and the jobs that are to run on without any."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()
        self._kept: OrderedDict[str, None] = OrderedDict()

    @contextmanager
    def of(self, job: str) -> Iterator[None]:
        """Count a caller in for as long as it waits."""
        self._waiting[job] += 1
        try:
            yield
        finally:
            self._waiting[job] -= 1
            if not self._waiting[job]:
                del self._waiting[job]

    def keep(self, job: str) -> None:
        """Note that a job is to run on: a caller asks for it by its id, or was told to."""
        self._kept[job] = None
        self._kept.move_to_end(job)
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)

    def want(self, job: str) -> bool:
        """Say whether somebody waits for a job, or may ask for it later."""
        return job in self._waiting or job in self._kept
