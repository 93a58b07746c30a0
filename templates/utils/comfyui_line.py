"""The order in which runs are sent to an engine."""

import bisect

from .comfyui_job import Job


class Line:
    """Runs that are to be sent, one at a time: first the one that was asked for first.

    Two requests that are on their way at once may arrive in either order, and an engine works in
    the order of arrival. A run may send while its `turn` is set; `hold` keeps it so until the run
    lets go or leaves, else it is another's as soon as an earlier run joins.
    """

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._called: Job | None = None
        self._is_held = False

    def join(self, job: Job) -> None:
        """Give a run its place, unless it has it already."""
        if job not in self._jobs:
            bisect.insort(self._jobs, job, key=lambda one: one.number)
            self._call_first()

    def hold(self, job: Job) -> None:
        """Keep the turn, which is this run's."""
        assert job is self._called
        self._is_held = True

    def let_go(self, job: Job) -> None:
        """Keep the turn no longer, but the place."""
        if job is self._called:
            self._is_held = False
            self._call_first()

    def leave(self, job: Job) -> None:
        """Take a run out, if it has a place, and let the next one go."""
        if job in self._jobs:
            self._jobs.remove(job)
            self.let_go(job)

    def _call_first(self) -> None:
        first = self._jobs[0] if self._jobs else None
        if self._is_held or first is self._called:
            return
        if self._called is not None:
            self._called.turn.clear()
        if first is not None:
            first.turn.set()
        self._called = first
