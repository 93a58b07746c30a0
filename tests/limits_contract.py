"""What limits do, whatever runs the jobs: the tests that every backend must pass.

A backend joins with a fixture `served` in its module, and a class that inherits LimitsContract.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

import httpx
import pytest

from .api_client import AS_JSON, pointers, problem
from .jobs_contract import DEADLINE, SECONDS, STOP_SECONDS, Body, Jobs, Served

MOST_JOBS: Final = 5
MOST_OF_ONE: Final = 3
PER_MINUTE: Final = 60
MOST_LISTENERS: Final = 3

LIMITS_YAML: Final = f"""\
limits:
  body_mb: 1
  text_characters: 20
  output_pixels: 100000
  jobs: {MOST_JOBS}
  jobs_per_key: {MOST_OF_ONE}
  requests_per_minute: {PER_MINUTE}
  listeners_per_key: {MOST_LISTENERS}
"""
WORKFLOWS: Final = {
    "sized": """\
summary: Pictures of one size, and a text
params:
  width: {type: integer, default: 16}
  height: {type: integer, default: 16}
  frames: {type: integer, default: 1}
  text: {type: string, default: "", description: What the text is.}
graph:
  1:
    class_type: EmptyImage
    inputs: {width: "${width}", height: "${height}", batch_size: "${frames}", color: 0}
  2:
    class_type: SaveImage
    inputs: {images: [1, 0], filename_prefix: sized}
  3:
    class_type: PreviewAny
    inputs: {source: "text ${text}"}
""",
    "whole": """\
summary: Any graph
params:
  workflow: {type: graph}
graph: ${workflow}
""",
}


class LimitsContract:
    """What every backend must do."""

    @pytest.fixture
    def jobs(self, served: Served) -> Iterator[Jobs]:
        with httpx.Client(base_url=served.url, timeout=SECONDS) as client:
            found = Jobs(served, client)
            yield found
            for job in found.started:
                for owner in ("ann", "bob"):
                    client.delete(f"/jobs/{job}", headers=found.headers(owner))

    def test_jobs_of_one_key(self, jobs: Jobs) -> None:
        """A job that ended gives its place back, whatever way it ended."""
        jobs.picture()
        problem(jobs.post("/failing", {"color": jobs.color()}), 500, "node-failed")
        jobs.delete(jobs.start())
        started = [self._taken(jobs) for _ in range(MOST_OF_ONE)]
        reply = jobs.post("/picture", {"color": 1})
        document = problem(reply, 429, "too-many-jobs")
        assert f"{MOST_OF_ONE} jobs" in document["detail"]
        assert int(reply.headers["retry-after"]) > 0
        assert "x-job-id" not in reply.headers
        assert jobs.delete(started[0]).status_code == 200
        self._taken(jobs)
        for job in started[1:]:
            assert jobs.get(f"/jobs/{job}").json()["status"] in ("queued", "running")

    def test_jobs_of_all_keys(self, jobs: Jobs) -> None:
        started = {
            owner: [jobs.start(owner=owner) for _ in range(number)]
            for owner, number in (("ann", MOST_OF_ONE), ("bob", MOST_JOBS - MOST_OF_ONE))
        }
        reply = jobs.post("/picture", {"color": 1}, "bob")
        document = problem(reply, 429, "queue-full")
        assert f"{MOST_JOBS} jobs" in document["detail"]
        assert int(reply.headers["retry-after"]) > 0
        for job in started["ann"]:
            jobs.delete(job, "ann")
        jobs.delete(started["bob"][0], "bob")
        self._taken(jobs, "bob")

    def test_at_once(self, jobs: Jobs) -> None:
        """As many are taken as there is room for, however they come."""

        def ask(_: int) -> int:
            return jobs.post("/slow", {}, prefer="respond-async").status_code

        with ThreadPoolExecutor(8) as pool:
            statuses = sorted(pool.map(ask, range(8)))
        assert statuses == [202] * MOST_OF_ONE + [429] * (8 - MOST_OF_ONE)

    def test_a_request_that_is_sent_again_takes_no_place(self, jobs: Jobs) -> None:
        key = jobs.key()
        first = jobs.post("/slow", {}, idempotency_key=key, prefer="respond-async")
        for _ in range(MOST_OF_ONE - 1):
            jobs.start()
        other = jobs.key()
        problem(jobs.post("/slow", {}, idempotency_key=other), 429, "too-many-jobs")
        again = jobs.post("/slow", {}, idempotency_key=key, prefer="respond-async")
        assert again.json()["job"] == first.json()["job"]
        # What was refused has used up no key, not even for another request.
        jobs.delete(first.json()["job"])
        self._taken(jobs, idempotency_key=other)

    @pytest.mark.parametrize(
        ("body", "wrong"),
        [
            ({"width": 400, "height": 251}, ["#/width", "#/height"]),
            (
                {"width": 100, "height": 101, "frames": 10},
                ["#/width", "#/height", "#/frames"],
            ),
        ],
    )
    def test_pixels(self, jobs: Jobs, body: Body, wrong: list[str]) -> None:
        document = problem(jobs.post("/sized", body), 422, "bad-params")
        assert pointers(document) == wrong
        for error in document["errors"]:
            assert "at most 100,000" in error["detail"]
        graph = {
            "1": {"class_type": "PrimitiveInt", "inputs": {"value": 4000}},
            "2": {
                "class_type": "EmptyImage",
                "inputs": {"width": ["1", 0], "height": 300, "batch_size": 1, "color": 0},
            },
            "3": {
                "class_type": "SaveImage",
                "inputs": {"images": ["2", 0], "filename_prefix": "x"},
            },
        }
        document = problem(jobs.post("/whole", {"workflow": graph}), 422, "bad-graph")
        assert pointers(document) == ["#/workflow/1/inputs/value", "#/workflow/2/inputs/height"]

    def test_pixels_that_are_just_few_enough(self, jobs: Jobs) -> None:
        assert jobs.post("/sized", {"width": 400, "height": 250}).status_code == 200

    def test_texts(self, jobs: Jobs) -> None:
        document = problem(jobs.post("/sized", {"text": "x" * 21}), 422, "bad-params")
        assert pointers(document) == ["#/text"]
        assert jobs.post("/sized", {"text": "ö" * 20}).status_code == 200
        graph = {
            "1": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "x" * 21}},
            "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
        }
        document = problem(jobs.post("/whole", {"workflow": graph}), 422, "bad-graph")
        assert pointers(document) == ["#/workflow/1/inputs/value"]

    def test_bodies(self, jobs: Jobs) -> None:
        body = b'{"color": 1' + b" " * 10**6 + b"}"
        headers = jobs.headers(more=AS_JSON)
        problem(jobs.client.post("/picture", content=body, headers=headers), 413, "too-large")

    def test_requests_of_one_key(self, jobs: Jobs) -> None:
        """What only asks for jobs and documents goes on; so do other keys."""
        job = jobs.picture("bob").headers["x-job-id"]
        # Others of these tests have asked too, and a place comes back each second.
        for _ in range(2 * PER_MINUTE):
            reply = jobs.post("/picture", {}, "bob")
            if reply.status_code == 429:
                break
        document = problem(reply, 429, "too-many-requests")
        assert str(PER_MINUTE) in document["detail"]
        seconds = int(reply.headers["retry-after"])
        assert 1 <= seconds <= 60
        for path in (f"/jobs/{job}", f"/jobs/{job}/result", "/health", "/workflows"):
            assert jobs.get(path, "bob").status_code == 200
        problem(jobs.post("/picture", {}, "ann"), 422, "bad-params")
        time.sleep(seconds)
        problem(jobs.post("/picture", {}, "bob"), 422, "bad-params")

    def test_listeners_of_one_key(self, jobs: Jobs) -> None:
        """A stream too many is refused, and nobody waits; a place comes back with who leaves."""
        job, other = jobs.start(), self._taken(jobs, "bob")
        with ExitStack() as streams:
            for _ in range(MOST_LISTENERS):
                assert streams.enter_context(jobs.listening(job)).status_code == 200
            with jobs.listening(job) as reply:
                reply.read()
            document = problem(reply, 429, "too-many-listeners")
            assert f"{MOST_LISTENERS} requests" in document["detail"]
            assert int(reply.headers["retry-after"]) > 0
            begun = time.monotonic()
            found = jobs.get(f"/jobs/{job}", prefer="wait=20")
            assert found.json()["job"] == job
            result = jobs.get(f"/jobs/{job}/result", prefer="wait=20")
            assert result.status_code == 202
            # Who is answered at once is told to pause.
            assert [reply.headers["retry-after"] for reply in (found, result)] == ["1", "1"]
            assert time.monotonic() - begun < SECONDS / 3
            with jobs.listening(other, owner="bob") as reply:
                assert reply.status_code == 200
        limit = time.monotonic() + SECONDS / 3
        while time.monotonic() < limit:
            with jobs.listening(job) as reply:
                if reply.status_code == 200:
                    return
            time.sleep(0.2)
        pytest.fail(f"nobody can listen any more: {reply.status_code}")

    def test_who_sends_a_request_again_listens(self, jobs: Jobs) -> None:
        """One job of one key is not to keep all requests waiting that a gateway answers at a time."""
        key = jobs.key()
        job = self._taken(jobs, idempotency_key=key)
        with ExitStack() as streams:
            for _ in range(MOST_LISTENERS):
                assert streams.enter_context(jobs.listening(job)).status_code == 200
            begun = time.monotonic()
            body = {"seed": jobs.count}
            again = jobs.post("/slow", body, idempotency_key=key)
            assert time.monotonic() - begun < DEADLINE
            assert (again.status_code, again.json()["job"]) == (202, job)

    def test_who_waits_listens(self, jobs: Jobs) -> None:
        """Requests that wait for a job take the places of streams."""
        job = jobs.start()

        def wait(_: int) -> str:
            # Whoever comes while there is no place is answered at once.
            while True:
                found = jobs.get(f"/jobs/{job}", prefer="wait=20").json()
                if found["status"] not in ("queued", "running"):
                    return str(found["status"])
                time.sleep(0.05)

        with ThreadPoolExecutor(MOST_LISTENERS) as pool:
            waiting = [pool.submit(wait, number) for number in range(MOST_LISTENERS)]
            limit = time.monotonic() + SECONDS / 3
            while time.monotonic() < limit:
                with jobs.listening(job) as reply:
                    if reply.status_code == 429:
                        break
                time.sleep(0.2)
            jobs.delete(job)
            assert {future.result() for future in waiting} == {"cancelled"}
            assert reply.status_code == 429

    @staticmethod
    def _taken(jobs: Jobs, owner: str = "ann", **headers: str) -> str:
        """Return a job that is started as soon as there is room for it."""
        limit = time.monotonic() + 2 * STOP_SECONDS
        while True:
            body = {"seed": jobs.color()}
            reply = jobs.post("/slow", body, owner, prefer="respond-async", **headers)
            if reply.status_code == 202:
                job: str = reply.json()["job"]
                return job
            problem(reply, 429)
            assert time.monotonic() < limit, reply.text
            time.sleep(0.2)
