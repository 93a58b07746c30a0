"""Jobs of the backend on Modal: the tests that every backend must pass, on what is deployed."""

import os
import signal
import time
from contextlib import ExitStack

import pytest

from tests.jobs_contract import Jobs, JobsContract, Served, read_events

from .local import SECONDS, LocalModal
from .served import serve

# A container is told with its next heartbeat that a caller has gone.
LEAVE_SECONDS = 5


@pytest.fixture(scope="module")
def served(modal: LocalModal, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """The project on a preview engine in a worker, which is up."""
    deployed = serve(modal, tmp_path_factory.mktemp("jobs") / "it", "jobs")
    return Served(deployed.url)


class TestModalBackend(JobsContract):
    """What every backend must do."""

    def test_who_leaves_is_read_for_no_more(self, jobs: Jobs, modal: LocalModal) -> None:
        """One question for all who listen at a gateway, and none when nobody does."""
        job = jobs.start()
        jobs.running(job)
        assert modal.plane.reading == 0
        with ExitStack() as stack:
            for _ in range(8):
                reply = stack.enter_context(jobs.listening(job))
                assert next(read_events(reply)).name == "queued"
            assert 1 <= modal.plane.most_reading <= len(modal.tasks("jobs", "gateway"))
        limit = time.monotonic() + LEAVE_SECONDS
        while modal.plane.reading:
            assert time.monotonic() < limit, "somebody still reads"
            time.sleep(0.05)
        assert jobs.get(f"/jobs/{job}").json()["status"] == "running"

    def test_events_are_kept_for_a_day(self, jobs: Jobs, modal: LocalModal) -> None:
        """After that there is what the job itself tells, and whoever was cut off hears of its end."""
        job = jobs.start("/picture", {"color": jobs.color()})
        events = jobs.events(job)
        [partitions] = [p for p in modal.plane.queues.values() if job.encode() in p]
        assert modal.plane.queue_seconds[job.encode()] == 24 * 3600
        del partitions[job.encode()]
        again = jobs.events(job)
        assert [event.name for event in again] == ["queued", "output", "end"]
        assert again[-1].data == events[-1].data
        assert jobs.events(job, last_event_id="4") == again[-1:]

    def test_a_list_that_is_full_stops_no_job(self, jobs: Jobs, modal: LocalModal) -> None:
        job = jobs.start("/slow", {"steps": 100, "seed": jobs.color()})
        jobs.running(job)
        limit = time.monotonic() + SECONDS
        while not (
            found := [q[job.encode()] for q in modal.plane.queues.values() if q.get(job.encode())]
        ):
            assert time.monotonic() < limit, "nothing is told"
            time.sleep(0.01)
        [told] = found
        told.extend([told[0]] * (5000 - len(told)))
        events = jobs.events(job)
        assert len(events) == 5000 + 3
        assert [event.id for event in events] == list(range(1, 5004))
        assert (events[-1].name, events[-1].data["status"]) == ("end", "succeeded")
        assert "is full" in modal.log("jobs", "L40sWorker.*")

    def test_the_end_of_a_job_whose_worker_is_killed(self, jobs: Jobs, modal: LocalModal) -> None:
        job = jobs.start()
        with jobs.listening(job) as reply:
            events = read_events(reply)
            assert next(event for event in events if event.name == "progress")
            [worker] = [task for task in modal.tasks("jobs", "L40sWorker.*") if task.is_up]
            os.kill(worker.process.pid, signal.SIGKILL)
            *_, end = events
        assert end.name == "end"
        assert end.data["problem"]["code"] == "engine-lost"
        assert jobs.events(job)[-1] == end
        # The next is heard of too, from before there is a worker for it.
        following = jobs.events(jobs.start("/picture", {"color": jobs.color()}))
        assert following[-1].data["status"] == "succeeded"
