"""The order in which runs are sent to an engine."""

from .comfyui_job import Job


class Line:
    """Runs that are to be sent: one at a time, in the order in which they joined.

    Two requests that are on their way at once may arrive in either order, and an engine works in
    the order of arrival.
    """

    def __init__(self) -> None:
        self._jobs: dict[Job, None] = {}

    def join(self, job: Job) -> None:
        """Put a run at the end, unless it has a place already."""
        self._jobs.setdefault(job)
        self._let_first()

    def leave(self, job: Job) -> None:
        """Take a run out, and let the next one go."""
        if job in self._jobs:
            del self._jobs[job]
            job.turn.clear()
            self._let_first()

    def _let_first(self) -> None:
        if self._jobs:
            next(iter(self._jobs)).turn.set()
