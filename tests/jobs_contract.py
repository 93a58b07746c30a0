"""What jobs do, whatever runs them: the tests that every backend must pass.

A backend joins with a fixture `served` in its module, and a class that inherits JobsContract.
"""

import json
import re
import secrets
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from .api_client import AS_JSON, JSON, problem, size

SECONDS = 30
ASYNC = {"Prefer": "respond-async"}
KEYS = "ann:secret-of-ann,bob:secret-of-bob"
# Seconds within which a run must have stopped once that is asked for.
STOP_SECONDS = 2.0

Body = dict[str, Any]
Call = tuple[str, Body]

# A request that runs longer than this is answered with 202.
DEADLINE = 2
GPU_YAML = f"""\
app: jobs
python: "3.11"
comfyui: {{version: 0.3.71, commit: c55fd7481626d8bee8044ea7512ea996d13a1b90}}
gpus:
  default: l40s
  l40s: {{modal: L40S, vram_gb: 48, price_per_second: 0.000542}}
gateway: {{deadline: {DEADLINE}, operators: [bob]}}
"""
MODELS_YAML = """\
models:
  model:
    source: {volume: ryla-models, file: checkpoints/flux1-schnell-fp8.safetensors}
    folder: checkpoints
packs: {}
"""
PROBE_YAML = """\
models: {}
packs:
  probe_nodes:
    git: https://example.com/probe_nodes
    commit: "0000000000000000000000000000000000000000"
"""
WORKFLOWS = {
    "picture": """\
summary: A picture of one colour
params:
  color: {type: integer}
graph:
  1:
    class_type: EmptyImage
    inputs: {width: 32, height: 16, batch_size: 1, color: "${color}"}
  2:
    class_type: SaveImage
    inputs: {images: [1, 0], filename_prefix: picture}
""",
    "several": """\
summary: Two pictures and a text
params:
  color: {type: integer}
graph:
  1:
    class_type: EmptyImage
    inputs: {width: 40, height: 24, batch_size: 1, color: "${color}"}
  2:
    class_type: SaveImage
    inputs: {images: [1, 0], filename_prefix: same}
  3:
    class_type: SaveImage
    inputs: {images: [1, 0], filename_prefix: same}
  4:
    class_type: PreviewAny
    inputs: {source: "füchse ${color}"}
""",
    # Its encoder takes no odd sizes, so node 3 raises.
    "failing": """\
summary: A node that raises
params:
  color: {type: integer}
graph:
  1:
    class_type: EmptyImage
    inputs: {width: 33, height: 33, batch_size: 2, color: "${color}"}
  2:
    class_type: CreateVideo
    inputs: {images: [1, 0], fps: 8}
  3:
    class_type: SaveVideo
    inputs: {video: [2, 0], filename_prefix: failing, format: mp4, codec: h264}
""",
    "slow": """\
summary: A picture of many steps
params:
  steps: {type: integer, default: 10000}
  seed: {type: seed}
graph:
  1:
    class_type: CheckpointLoaderSimple
    inputs: {ckpt_name: flux1-schnell-fp8.safetensors}
  2:
    class_type: CLIPTextEncode
    inputs: {text: "", clip: [1, 1]}
  3:
    class_type: EmptyLatentImage
    inputs: {width: 64, height: 64, batch_size: 1}
  4:
    class_type: KSampler
    inputs:
      seed: ${seed}
      steps: ${steps}
      cfg: 1.0
      sampler_name: euler
      scheduler: simple
      denoise: 1.0
      model: [1, 0]
      positive: [2, 0]
      negative: [2, 0]
      latent_image: [3, 0]
  5:
    class_type: VAEDecode
    inputs: {samples: [4, 0], vae: [1, 2]}
  6:
    class_type: SaveImage
    inputs: {images: [5, 0], filename_prefix: slow}
""",
}


# For a real ComfyUI, which has no model here, but probe_nodes of tests/engine.
SLOW_PROBE = """\
summary: A picture of many steps
params:
  steps: {type: integer, default: 10000}
  seed: {type: seed}
graph:
  1:
    class_type: EmptyImage
    inputs: {width: 64, height: 64, batch_size: 1, color: "${seed}"}
  4:
    class_type: ProbeSleep
    inputs: {image: [1, 0], steps: "${steps}", seconds: 0.02, preview: true}
  6:
    class_type: SaveImage
    inputs: {images: [4, 0], filename_prefix: slow}
"""


def write_project(
    root: Path,
    *,
    real: bool = False,
    gpu: str = GPU_YAML,
    more: Mapping[str, str] | None = None,
) -> Path:
    """Write the project that the tests ask, and return its folder.

    `real` says that a real ComfyUI with probe_nodes runs it; `more` are workflows by their names.
    """
    (root / "workflows").mkdir(parents=True)
    (root / "gpu.yaml").write_text(gpu, encoding="utf-8")
    (root / "models.yaml").write_text(PROBE_YAML if real else MODELS_YAML, encoding="utf-8")
    workflows = WORKFLOWS | ({"slow": SLOW_PROBE} if real else {}) | dict(more or {})
    for name, text in workflows.items():
        (root / "workflows" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return root


@dataclass(frozen=True)
class Served:
    """The project of `write_project`, served at `url` with KEYS.

    `engine` is what X-Engine says, `sampler` the class of the node that takes its time: about
    0.02 s for a step.
    """

    url: str
    engine: str = "preview"
    sampler: str = "KSampler"


class Event(NamedTuple):
    """A server-sent event; `id` is None where it has none."""

    id: int | None
    name: str
    data: Body


@dataclass
class Jobs:
    """A service that a test asks with a key; what it starts is stopped after the test."""

    served: Served
    client: httpx.Client
    started: list[str] = field(default_factory=list)
    count: int = 0

    def headers(self, owner: str = "ann", more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {"X-API-Key": f"secret-of-{owner}", **(more or {})}

    def ask(
        self, method: str, path: str, body: Body | None = None, owner: str = "ann", **headers: str
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        reply = self.client.request(method, path, json=body, headers=self.headers(owner, named))
        if job := reply.headers.get("x-job-id"):
            self.started.append(job)
            assert re.fullmatch(r"job_[0-9a-z]{26}", job)
        # Ids of what is behind the service are nobody's business.
        for value in (*reply.headers.values(), reply.text if "json" in _type(reply) else ""):
            assert not re.search(r"\b(fc|fu|in|ta)-[0-9A-Za-z]{6,}", value), value
        return reply

    def post(self, path: str, body: Body, owner: str = "ann", **headers: str) -> httpx.Response:
        return self.ask("POST", path, body, owner, **headers)

    def get(self, path: str, owner: str = "ann", **headers: str) -> httpx.Response:
        return self.ask("GET", path, None, owner, **headers)

    def delete(self, job: str, owner: str = "ann") -> httpx.Response:
        return self.ask("DELETE", f"/jobs/{job}", None, owner)

    def key(self) -> str:
        """Return an idempotency key that was not used before."""
        return secrets.token_hex(8)

    def ended(self, reply: httpx.Response) -> httpx.Response:
        """Return a reply, or what its job ends with when it took longer than the deadline."""
        limit = time.monotonic() + SECONDS
        while reply.status_code == 202 and time.monotonic() < limit:
            reply = self.get(f"/jobs/{reply.json()['job']}/result", prefer="wait=20")
        return reply

    def usage(self, owner: str = "ann") -> dict[tuple[str, str], Body]:
        """Return the rows of /usage that a key sees, by route and owner."""
        reply = self.get("/usage", owner)
        assert reply.status_code == 200, reply.text
        return {(row["route"], row["owner"]): row for row in reply.json()["rows"]}

    def color(self) -> int:
        """Return a number that no other request of the test has."""
        self.count += 1
        return self.count

    def picture(self, owner: str = "ann", **headers: str) -> httpx.Response:
        """Return the reply of a run that takes no time."""
        reply = self.post("/picture", {"color": self.color()}, owner, **headers)
        assert reply.status_code == 200, reply.text
        return reply

    def start(self, path: str = "/slow", body: Body | None = None, owner: str = "ann") -> str:
        """Start a job and return its id; /slow has no end without one."""
        body = {"seed": self.color()} if body is None else body
        reply = self.post(path, body, owner, prefer="respond-async")
        assert reply.status_code == 202, reply.text
        job: str = reply.json()["job"]
        return job

    def until(self, job: str, wanted: Callable[[Body], object], owner: str = "ann") -> Body:
        """Return a job as JSON once it is as wanted."""
        limit = time.monotonic() + SECONDS
        while time.monotonic() < limit:
            reply = self.get(f"/jobs/{job}", owner)
            assert reply.status_code == 200, reply.text
            found: Body = reply.json()
            if wanted(found):
                return found
            time.sleep(0.02)
        pytest.fail(f"the job stays as it is: {found}")

    def running(self, job: str, owner: str = "ann") -> Body:
        return self.until(job, lambda found: found["status"] == "running", owner)

    @contextmanager
    def listening(
        self, job: str, query: str = "", owner: str = "ann", **headers: str
    ) -> Iterator[httpx.Response]:
        """Listen to a job, as a response that is not read yet."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with self.client.stream(
            "GET", f"/jobs/{job}/events{query}", headers=self.headers(owner, named)
        ) as reply:
            yield reply

    def events(self, job: str, query: str = "", **headers: str) -> list[Event]:
        """Return what is told of a job until its stream ends."""
        with self.listening(job, query, **headers) as reply:
            assert reply.status_code == 200, reply.read()
            assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
            return list(read_events(reply))


def read_events(reply: httpx.Response) -> Iterator[Event]:
    """Yield the events of a response as they come."""
    fields: dict[str, str] = {}
    for line in reply.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            assert name not in fields
            fields[name] = value
            continue
        if "event" in fields:
            assert fields.keys() <= {"id", "event", "data"}
            number = int(fields["id"]) if "id" in fields else None
            yield Event(number, fields["event"], json.loads(fields["data"]))
        fields = {}


def named(events: list[Event], name: str) -> list[Body]:
    """Return the data of the events of a name."""
    return [event.data for event in events if event.name == name]


def _more(row: Body, before: Body) -> Body:
    """Return by how much the counts of a row of /usage have grown."""
    names = ("requests", "rejected", "repeated", "succeeded", "failed", "cancelled")
    more = {name: row[name] - before.get(name, 0) for name in names}
    return {name: count for name, count in more.items() if count}


def _type(reply: httpx.Response) -> str:
    return str(reply.headers.get("content-type", ""))


def _is_final(job: Body) -> bool:
    return job["status"] not in ("queued", "running")


_ROUTES = [
    *(("GET", ""), ("GET", "/result"), ("GET", "/outputs/0"), ("GET", "/events")),
    ("DELETE", ""),
]


class JobsContract:
    """What every backend must do."""

    @pytest.fixture
    def jobs(self, served: Served) -> Iterator[Jobs]:
        with httpx.Client(base_url=served.url, timeout=SECONDS) as client:
            found = Jobs(served, client)
            yield found
            for job in found.started:
                for owner in ("ann", "bob"):
                    client.delete(f"/jobs/{job}", headers=found.headers(owner))

    # Asking for one

    def test_a_job_instead_of_a_reply(self, jobs: Jobs) -> None:
        before = datetime.now(UTC)
        reply = jobs.post("/slow", {"seed": 4}, prefer="respond-async")
        assert reply.status_code == 202
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["preference-applied"] == "respond-async"
        assert int(reply.headers["retry-after"]) > 0
        assert reply.headers["x-seed"] == "4"
        job = reply.json()
        assert reply.headers["location"] == f"/jobs/{job['job']}"
        assert reply.headers["x-job-id"] == job["job"]
        assert (job["seed"], job["route"], job["outputs"]) == (4, "/slow", [])
        assert (job["problem"], job["cost"], job["seconds"]) == (None, None, None)
        assert job["status"] in ("queued", "running")
        created = datetime.fromisoformat(job["created"])
        assert abs(created - before) < timedelta(seconds=SECONDS)

    def test_a_job_is_waited_for(self, jobs: Jobs) -> None:
        body = {"color": jobs.color()}
        job = jobs.start("/picture", body)
        ended = jobs.get(f"/jobs/{job}", prefer="wait=20")
        assert ended.json()["status"] == "succeeded"
        assert "retry-after" not in ended.headers
        [output] = ended.json()["outputs"]
        assert (output["node"], output["kind"], output["media_type"]) == (
            "2",
            "images",
            "image/png",
        )
        assert (output["width"], output["height"], output["data"]) == (32, 16, None)
        assert output["url"] == f"/jobs/{job}/outputs/0"
        assert ended.json()["engine"] == jobs.served.engine
        assert ended.json()["cost"] >= 0
        result = jobs.get(f"/jobs/{job}/result")
        assert result.status_code == 200
        assert len(result.content) == output["bytes"]
        assert size(result.content) == (32, 16)
        assert result.headers["x-output-count"] == "1"
        assert jobs.get(output["url"]).content == result.content

    def test_the_result_of_a_job_is_the_reply(self, jobs: Jobs) -> None:
        for accept in ("*/*", "application/json"):
            reply = jobs.picture(accept=accept)
            again = jobs.get(f"/jobs/{reply.headers['x-job-id']}/result", accept=accept)
            assert again.status_code == 200
            assert _of_job(again) == _of_job(reply)
            assert again.content == reply.content

    def test_every_output_has_a_number(self, jobs: Jobs) -> None:
        found = jobs.post("/several", {"color": jobs.color()}, accept=JSON["Accept"]).json()
        kinds = [(output["node"], output["media_type"]) for output in found["outputs"]]
        assert kinds == [("2", "image/png"), ("3", "image/png"), ("4", "text/plain")]
        for number, output in enumerate(found["outputs"]):
            assert output["url"] == f"/jobs/{found['job']}/outputs/{number}"
            reply = jobs.get(output["url"])
            assert reply.status_code == 200
            assert len(reply.content) == output["bytes"]
            assert reply.headers["content-type"].startswith(output["media_type"])
        assert jobs.get(found["outputs"][2]["url"]).text == f"füchse {jobs.count}"
        for missing in ("3", "9" * 23, "9" * 5000, "00", "-1", "x", "0x0"):
            problem(jobs.get(f"/jobs/{found['job']}/outputs/{missing}"), 404, "not-found")

    def test_ids_and_results_are_each_job_s_own(self, jobs: Jobs) -> None:
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda _: jobs.picture(), range(8)))
        assert len({reply.headers["x-job-id"] for reply in replies}) == 8
        for reply in replies:
            again = jobs.get(f"/jobs/{reply.headers['x-job-id']}/result")
            assert again.content == reply.content

    # On its way

    def test_a_job_on_its_way(self, jobs: Jobs) -> None:
        """It waits, tells its steps, and can be waited for no longer than one says."""
        first = jobs.start()
        found = jobs.until(first, lambda job: job["progress"] and job["progress"]["max"])
        assert found["status"] == "running"
        sampler = jobs.served.sampler
        assert (found["progress"]["node"], found["progress"]["title"]) == ("4", sampler)
        assert 1 <= found["progress"]["value"] <= found["progress"]["max"] == 10000
        second = jobs.start()
        waiting = jobs.until(second, lambda job: job["position"] is not None)
        assert (waiting["status"], waiting["position"]) == ("queued", 1)
        reply = jobs.get(f"/jobs/{second}")
        assert int(reply.headers["retry-after"]) > 0
        result = jobs.get(f"/jobs/{second}/result")
        assert result.status_code == 202
        assert result.headers["location"] == f"/jobs/{second}"
        assert jobs.get(f"/jobs/{second}", prefer="wait=0").json()["status"] == "queued"
        start = time.monotonic()
        reply = jobs.get(f"/jobs/{first}", prefer="wait=1")
        assert reply.json()["status"] == "running"
        assert time.monotonic() - start > 0.9
        problem(jobs.get(f"/jobs/{second}/outputs/0"), 404, "not-found")

    def test_after_the_deadline_comes_a_job(self, jobs: Jobs) -> None:
        """No caller waits for longer, whatever they prefer."""

        def waited(prefer: str) -> float:
            headers = {"prefer": prefer} if prefer else {}
            start = time.monotonic()
            reply = jobs.post("/slow", {"seed": jobs.color()}, **headers)
            seconds = time.monotonic() - start
            assert reply.status_code == 202
            assert reply.headers["location"] == f"/jobs/{reply.json()['job']}"
            assert int(reply.headers["retry-after"]) > 0
            assert "preference-applied" not in reply.headers
            assert reply.json()["status"] in ("queued", "running")
            return seconds

        with ThreadPoolExecutor(3) as pool:
            full = list(pool.map(waited, ("", "wait=60", "respond-async, wait=60")))
        assert min(full) > DEADLINE - 0.1

    @pytest.mark.parametrize("prefer", ["wait=0", "handling=lenient, wait=0; x=y", 'wait="0"'])
    def test_a_caller_may_wait_for_less(self, jobs: Jobs, prefer: str) -> None:
        start = time.monotonic()
        assert jobs.post("/slow", {"seed": jobs.color()}, prefer=prefer).status_code == 202
        assert time.monotonic() - start < DEADLINE

    def test_two_wait_for_one(self, jobs: Jobs) -> None:
        job = jobs.start("/slow", {"steps": 20})
        with ThreadPoolExecutor(2) as pool:
            replies = list(
                pool.map(lambda _: jobs.get(f"/jobs/{job}/result", prefer="wait=20"), range(2))
            )
        assert [reply.status_code for reply in replies] == [200, 200]
        assert replies[0].content == replies[1].content

    # Listening

    def test_what_happens_to_a_job(self, jobs: Jobs) -> None:
        """Everything, in its order, to whoever listens from the start, later, or afterwards."""
        job = jobs.start("/slow", {"steps": 60, "seed": jobs.color()})
        with ThreadPoolExecutor(3) as pool:
            early = [pool.submit(jobs.events, job) for _ in range(2)]
            jobs.until(job, lambda found: found["progress"] and found["progress"]["value"])
            late = pool.submit(jobs.events, job)
            events = early[0].result()
            assert early[1].result() == events
            assert late.result() == events
        assert jobs.events(job) == events
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        # What the engine has of its runs before goes by the tests before.
        names = [event.name for event in events if event.name != "cached"]
        order = ["queued", "started", "node", "progress", "output", "end"]
        assert list(dict.fromkeys(names)) == order
        assert events[0].data == {"position": None}
        assert named(events, "queued")[-1] == {"position": 0}
        [started] = named(events, "started")
        [ended] = named(events, "end")
        assert started == {"gpu": ended["gpu"], "engine": jobs.served.engine}
        nodes = named(events, "node")
        for number, node in enumerate(nodes):
            assert node.keys() == {"node", "class_type", "title", "done", "of"}
            assert (node["done"], node["of"]) == (number, len(nodes))
        sampler = next(node for node in nodes if node["node"] == "4")
        assert sampler["class_type"] == sampler["title"] == jobs.served.sampler
        assert (nodes[-1]["node"], nodes[-1]["class_type"]) == ("6", "SaveImage")
        steps = named(events, "progress")
        assert {(step["node"], step["max"]) for step in steps} == {("4", 60)}
        values = [step["value"] for step in steps]
        assert values == sorted(set(values))
        assert len(values) > 2
        assert values[-1] == 60
        [output] = named(events, "output")
        assert output == {
            "number": 0,
            "node": "6",
            "kind": "images",
            "media_type": "image/png",
            "url": f"/jobs/{job}/outputs/0",
        }
        assert ended == jobs.get(f"/jobs/{job}").json()
        assert ended["status"] == "succeeded"
        assert ended["seconds"] > 0

    def test_what_the_engine_has_already_is_told(self, jobs: Jobs) -> None:
        """Such nodes do not run; an engine that has nothing of a run says nothing of it."""
        body = {"color": jobs.color()}
        first, again = (jobs.events(jobs.start("/several", body)) for _ in range(2))
        assert named(first, "cached") == []
        assert named(again, "cached") == [{"nodes": ["1"]}]
        assert "1" in {node["node"] for node in named(first, "node")}
        assert "1" not in {node["node"] for node in named(again, "node")}
        names = [event.name for event in again]
        assert names.index("started") < names.index("cached") < names.index("node")

    def test_events_are_not_kept_back(self, jobs: Jobs) -> None:
        job = jobs.start()
        with jobs.listening(job) as reply:
            assert reply.headers["cache-control"] == "no-store"
            assert reply.headers["x-accel-buffering"] == "no"
            assert "content-length" not in reply.headers
            steps = [e.data for e in islice(read_events(reply), 20) if e.name == "progress"]
        assert steps[-1]["value"] < steps[-1]["max"] == 10000
        # Who listened may go; the job goes on.
        assert jobs.get(f"/jobs/{job}").json()["status"] == "running"

    def test_who_comes_back_hears_the_rest(self, jobs: Jobs) -> None:
        job = jobs.start("/slow", {"steps": 20, "seed": jobs.color()})
        with jobs.listening(job) as reply:
            first = list(islice(read_events(reply), 4))
        last = str(first[-1].id)
        events = first + jobs.events(job, last_event_id=last)
        assert jobs.events(job) == events
        for after in (1, 3, len(events) - 1):
            assert jobs.events(job, f"?after={after}") == events[after:]
            # A browser that comes back asks for its first address, and says what it has.
            assert jobs.events(job, "?after=2", last_event_id=str(after)) == events[after:]
        for after in (len(events) + 1, 10**15 - 1):
            assert jobs.events(job, f"?after={after}") == events[-1:]
        with jobs.listening(job, last_event_id=str(len(events))) as reply:
            assert (reply.status_code, reply.read()) == (204, b"")

    def test_who_waits_hears_its_place(self, jobs: Jobs) -> None:
        first = jobs.start()
        jobs.running(first)
        second = jobs.start()
        # Else the third might reach the engine before it.
        jobs.until(second, lambda job: job["position"] == 1)
        third = jobs.start()
        with jobs.listening(third) as reply:
            events = read_events(reply)
            places = [next(events).data["position"] for _ in range(2)]
            assert jobs.delete(second).status_code == 200
            places.append(next(events).data["position"])
            assert places == [None, 2, 1]
            assert jobs.delete(first).status_code == 200
            # Whether it is told that it is the next before it starts is a matter of luck.
            event = next(events)
            event = next(events) if event.data == {"position": 0} else event
            assert event.name == "started"
            assert jobs.delete(third).status_code == 200
            *_, end = events
        assert (end.name, end.data["status"]) == ("end", "cancelled")
        assert end.data["problem"]["code"] == "job-cancelled"
        assert [e.name for e in jobs.events(second)] == ["queued"] * 2 + ["end"]

    def test_how_a_job_fails_is_told(self, jobs: Jobs) -> None:
        job = jobs.start("/failing", {"color": jobs.color()})
        events = jobs.events(job)
        assert events[-1].name == "end"
        assert events[-1].data == jobs.get(f"/jobs/{job}").json()
        assert events[-1].data["problem"]["code"] == "node-failed"
        assert named(events, "node")[-1]["node"] == "3"
        assert named(events, "output") == []

    def test_every_output_is_told(self, jobs: Jobs) -> None:
        job = jobs.start("/several", {"color": jobs.color()})
        outputs = named(jobs.events(job), "output")
        assert [output["number"] for output in outputs] == [0, 1, 2]
        for output in outputs:
            reply = jobs.get(output["url"])
            assert reply.headers["content-type"].startswith(output["media_type"])

    def test_pictures_on_their_way(self, jobs: Jobs) -> None:
        """They come to whoever asks, have no id, and are not there any more afterwards."""
        job = jobs.start("/slow", {"steps": 150, "seed": jobs.color()})
        with ThreadPoolExecutor(2) as pool:
            plain, shown = (pool.submit(jobs.events, job, q) for q in ("", "?previews=true"))
            assert named(plain.result(), "preview") == []
            pictures = [event for event in shown.result() if event.name == "preview"]
            assert [e for e in shown.result() if e.name != "preview"] == plain.result()
        assert len(pictures) > 1
        for picture in pictures:
            assert picture.id is None
            assert (picture.data["node"], picture.data["media_type"]) == ("4", "image/jpeg")
            assert min(size(b64decode(picture.data["data"]))) > 0
        assert jobs.events(job, "?previews=true") == plain.result()

    @pytest.mark.parametrize(
        ("query", "headers"),
        [
            ("?after=x", {}),
            ("?after=-1", {}),
            ("?after=", {}),
            (f"?after={10**15}", {}),
            (f"?after={'9' * 5000}", {}),
            ("?after=%D9%A1", {}),
            ("?previews=maybe", {}),
            ("", {"last-event-id": "x"}),
            ("", {"last-event-id": "9" * 5000}),
            ("?after=1", {"last-event-id": "-1"}),
        ],
    )
    def test_what_is_no_event_s_id(self, jobs: Jobs, query: str, headers: dict[str, str]) -> None:
        job = jobs.picture().headers["x-job-id"]
        problem(jobs.get(f"/jobs/{job}/events{query}", **headers), 400, "bad-request")

    # Stopping

    def test_jobs_are_cancelled(self, jobs: Jobs) -> None:
        """The one that waits and the one that runs; then the engine is free again."""
        running = jobs.start()
        jobs.running(running)
        queued = jobs.start()
        jobs.until(queued, lambda job: job["position"] == 1)
        for job in (queued, running):
            start = time.monotonic()
            reply = jobs.delete(job)
            assert time.monotonic() - start < STOP_SECONDS
            assert reply.status_code == 200, reply.text
            found = reply.json()
            assert (found["status"], found["outputs"]) == ("cancelled", [])
            assert found["problem"]["code"] == "job-cancelled"
            assert (found["position"], found["progress"]) == (None, None)
            assert jobs.get(f"/jobs/{job}").json() == found
            document = problem(jobs.get(f"/jobs/{job}/result"), 409, "job-cancelled")
            assert document["job"] == job
            assert jobs.delete(job).json() == found
        assert jobs.picture().status_code == 200

    def test_what_has_ended_is_not_cancelled(self, jobs: Jobs) -> None:
        job = jobs.picture().headers["x-job-id"]
        document = problem(jobs.delete(job), 409, "job-ended")
        assert "succeeded" in document["detail"]
        assert jobs.get(f"/jobs/{job}/result").status_code == 200

    def test_who_waits_hears_of_the_cancelling(self, jobs: Jobs) -> None:
        job = jobs.start()
        jobs.running(job)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(jobs.get, f"/jobs/{job}/result", prefer="wait=20")
            time.sleep(0.2)
            assert jobs.delete(job).status_code == 200
            assert problem(waiting.result(), 409, "job-cancelled")["job"] == job

    def test_a_caller_that_leaves_cancels_its_job(self, jobs: Jobs) -> None:
        """Else the engine would work on for nobody, and this last request had to wait for it."""
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(
                    f"{jobs.served.url}/slow",
                    json={"seed": jobs.color()},
                    headers=jobs.headers(),
                    timeout=0.5,
                )
        start = time.monotonic()
        jobs.picture()
        assert time.monotonic() - start < STOP_SECONDS

    def test_a_caller_that_leaves_a_job_keeps_it(self, jobs: Jobs) -> None:
        """Who asked for a job, or only waits for one, may go away."""
        job = jobs.start("/slow", {"steps": 30})
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(
                f"{jobs.served.url}/jobs/{job}",
                headers=jobs.headers(more={"Prefer": "wait=30"}),
                timeout=0.2,
            )
        assert jobs.until(job, _is_final)["status"] == "succeeded"

    # What is not there, and what goes wrong

    @pytest.mark.parametrize(("method", "path"), _ROUTES)
    @pytest.mark.parametrize("job", ["job_00000000000000000000000000", "x", "%2e%2e", "%00", "%ff"])
    def test_unknown_jobs(self, jobs: Jobs, method: str, path: str, job: str) -> None:
        problem(jobs.ask(method, f"/jobs/{job}{path}"), 404, "unknown-job")

    def test_jobs_of_others_are_not_there(self, jobs: Jobs) -> None:
        done = jobs.picture().headers["x-job-id"]
        job = jobs.start()
        unknown = "job_00000000000000000000000000"
        for theirs in (job, done):
            for method, path in [(method, f"/jobs/{{}}{path}") for method, path in _ROUTES]:
                found = problem(
                    jobs.ask(method, path.format(theirs), owner="bob"), 404, "unknown-job"
                )
                missing = jobs.ask(method, path.format(unknown), owner="bob")
                assert missing.json() == found
                without = jobs.client.request(method, path.format(theirs))
                problem(without, 401, "unauthorized")
        assert jobs.running(job)["job"] == job
        assert jobs.delete(job).status_code == 200

    def test_a_job_that_fails(self, jobs: Jobs) -> None:
        """Its problem says which node, and where that is written; it is kept like a result."""
        document = problem(jobs.post("/failing", {"color": jobs.color()}), 500, "node-failed")
        assert (document["node"], document["class_type"]) == ("3", "SaveVideo")
        assert document["file"] == "workflows/failing.yaml"
        line = WORKFLOWS["failing"].splitlines()[document["line"] - 1]
        assert "SaveVideo" in line
        job = document["job"]
        found = jobs.get(f"/jobs/{job}").json()
        assert (found["status"], found["outputs"]) == ("failed", [])
        assert found["problem"] == document
        assert problem(jobs.get(f"/jobs/{job}/result"), 500, "node-failed") == document
        problem(jobs.get(f"/jobs/{job}/outputs/0"), 404, "not-found")
        assert "failed" in problem(jobs.delete(job), 409, "job-ended")["detail"]
        again = jobs.get(
            f"/jobs/{jobs.start('/failing', {'color': jobs.color()})}", prefer="wait=20"
        )
        assert (again.status_code, again.json()["status"]) == (200, "failed")
        assert jobs.picture().status_code == 200

    def test_what_is_refused_is_no_job(self, jobs: Jobs) -> None:
        for body in ({}, {"color": "red"}, {"color": 1, "colour": 2}):
            reply = jobs.post("/picture", body, prefer="respond-async")
            problem(reply, 422, "bad-params")
            assert "location" not in reply.headers
            assert "x-job-id" not in reply.headers

    # Asking again, with the same key

    def test_a_request_that_is_sent_again(self, jobs: Jobs) -> None:
        """Its reply is that of the first, down to the seed that was drawn for it."""
        key = jobs.key()
        first, *others = [
            jobs.ended(jobs.post("/slow", {"steps": 2}, idempotency_key=sent))
            for sent in (key, key, f'"{key}"')
        ]
        assert first.status_code == 200, first.text
        for again in others:
            assert again.status_code == 200
            assert _of_job(again) == _of_job(first)
            assert again.content == first.content
        again = jobs.post("/slow", {"steps": 2}, idempotency_key=key, prefer="respond-async")
        assert (again.status_code, again.json()["status"]) == (202, "succeeded")
        assert again.json()["job"] == first.headers["x-job-id"]
        without = jobs.ended(jobs.post("/slow", {"steps": 2}))
        assert without.headers["x-job-id"] != first.headers["x-job-id"]

    def test_many_requests_at_once_with_one_key(self, jobs: Jobs) -> None:
        """They all wait for the same run."""
        key, body = jobs.key(), {"steps": 30}
        with ThreadPoolExecutor(8) as pool:
            asked = pool.map(lambda _: jobs.post("/slow", body, idempotency_key=key), range(8))
            replies = [jobs.ended(reply) for reply in asked]
        assert {reply.status_code for reply in replies} == {200}
        assert len({reply.headers["x-job-id"] for reply in replies}) == 1
        assert len({reply.content for reply in replies}) == 1

    def test_how_a_request_is_written_does_not_count(self, jobs: Jobs) -> None:
        key = jobs.key()
        body = {"steps": 2, "seed": 7}
        first = jobs.ended(jobs.post("/slow", body, idempotency_key=key))
        headers = jobs.headers(more={"Idempotency-Key": key})
        text = b' {"seed": 7,\n "steps": 2}'
        fields = {"steps": (None, "2"), "seed": (None, "7")}
        for again in (
            jobs.client.post("/slow", content=text, headers=headers | AS_JSON),
            jobs.client.post("/slow", files=fields, headers=headers),
        ):
            assert again.status_code == 200, again.text
            assert again.headers["x-job-id"] == first.headers["x-job-id"]

    def test_a_key_stands_for_one_request(self, jobs: Jobs) -> None:
        key = jobs.key()
        job = jobs.post("/slow", {"seed": 1}, idempotency_key=key, prefer="respond-async")
        for path, body in [("/slow", {"seed": 2}), ("/slow", {}), ("/picture", {"color": 1})]:
            document = problem(
                jobs.post(path, body, idempotency_key=key), 409, "idempotency-conflict"
            )
            assert key in document["detail"]
        again = jobs.post("/slow", {"seed": 1}, idempotency_key=key, prefer="respond-async")
        assert again.json()["job"] == job.json()["job"]

    def test_keys_of_others_are_others(self, jobs: Jobs) -> None:
        """Nobody learns of another's request by its key."""
        key, body = jobs.key(), {"steps": 2}
        first = jobs.ended(jobs.post("/slow", body, idempotency_key=key))
        theirs = jobs.post("/slow", body, "bob", idempotency_key=key)
        other = jobs.post("/slow", {"steps": 3}, "bob", idempotency_key=key)
        assert theirs.status_code in (200, 202)
        assert theirs.headers["x-job-id"] != first.headers["x-job-id"]
        problem(other, 409, "idempotency-conflict")
        problem(jobs.get(f"/jobs/{first.headers['x-job-id']}", "bob"), 404, "unknown-job")

    def test_one_of_two_callers_leaves(self, jobs: Jobs) -> None:
        """The run goes on for the other, and for who comes back with the key."""
        key, body = jobs.key(), {"steps": 60}

        def ask(seconds: float) -> httpx.Response:
            headers = jobs.headers(more={"Idempotency-Key": key})
            url = f"{jobs.served.url}/slow"
            return jobs.ended(httpx.post(url, json=body, headers=headers, timeout=seconds))

        with ThreadPoolExecutor(1) as pool:
            staying = pool.submit(ask, SECONDS)
            time.sleep(0.2)
            with pytest.raises(httpx.ReadTimeout):
                ask(0.3)
            first = staying.result()
        assert first.status_code == 200, first.text
        assert ask(SECONDS).headers["x-job-id"] == first.headers["x-job-id"]
        key = jobs.key()
        with pytest.raises(httpx.ReadTimeout):
            ask(0.4)
        assert ask(SECONDS).status_code == 200

    def test_a_failure_is_not_tried_again(self, jobs: Jobs) -> None:
        key, body = jobs.key(), {"color": jobs.color()}
        first, again = (jobs.post("/failing", body, idempotency_key=key) for _ in range(2))
        assert problem(first, 500, "node-failed") == problem(again, 500, "node-failed")
        key = jobs.key()
        job = jobs.post("/slow", {}, idempotency_key=key, prefer="respond-async").json()["job"]
        assert jobs.delete(job).status_code == 200
        document = problem(jobs.post("/slow", {}, idempotency_key=key), 409, "job-cancelled")
        assert document["job"] == job

    def test_what_is_refused_uses_no_key(self, jobs: Jobs) -> None:
        key = jobs.key()
        problem(jobs.post("/picture", {}, idempotency_key=key), 422, "bad-params")
        assert jobs.picture(idempotency_key=key).status_code == 200

    @pytest.mark.parametrize("key", ["", "a b", "a,b", '"a', 'a"', '""', "a\\b", "x" * 256])
    def test_what_is_no_key(self, jobs: Jobs, key: str) -> None:
        reply = jobs.post("/picture", {"color": 1}, idempotency_key=key)
        assert "Idempotency-Key" in problem(reply, 400, "bad-request")["detail"]

    def test_the_longest_key(self, jobs: Jobs) -> None:
        key = jobs.key()
        key += "~" * (255 - len(key))
        color = jobs.color()
        first, again = (
            jobs.post("/picture", {"color": color}, idempotency_key=key) for _ in range(2)
        )
        assert first.headers["x-job-id"] == again.headers["x-job-id"]

    def test_two_keys_of_one_request(self, jobs: Jobs) -> None:
        headers = [*jobs.headers().items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
        reply = jobs.client.post("/picture", json={"color": 1}, headers=headers)
        problem(reply, 400, "bad-request")

    # What it took

    def test_what_a_job_took(self, jobs: Jobs) -> None:
        """X-Cost-USD is that of execution alone; nobody started a worker for it."""
        reply = jobs.picture()
        found = jobs.get(f"/jobs/{reply.headers['x-job-id']}").json()
        took = found["timings"]
        assert took["startup"] == {"seconds": 0, "usd": 0}
        assert took["queue"]["usd"] == 0
        assert 0 <= took["queue"]["seconds"] < SECONDS
        assert took["execution"] == {"seconds": found["seconds"], "usd": found["cost"]}
        assert took["execution"]["seconds"] == float(reply.headers["x-execution-time-sec"])
        assert took["execution"]["usd"] == float(reply.headers["x-cost-usd"])

    def test_what_a_job_took_that_waited(self, jobs: Jobs) -> None:
        first = jobs.start("/slow", {"steps": 80})
        assert jobs.running(first)["timings"] is None
        second = jobs.start("/slow", {"steps": 1})
        found = jobs.get(f"/jobs/{second}", prefer="wait=20").json()
        took = jobs.get(f"/jobs/{first}").json()["timings"]
        assert took["execution"]["seconds"] > 0.5
        # It waited for what was left of the other's run.
        assert found["timings"]["queue"]["seconds"] > took["execution"]["seconds"] / 4
        assert found["timings"]["execution"]["seconds"] < took["execution"]["seconds"]

    def test_what_a_job_took_that_failed_or_was_cancelled(self, jobs: Jobs) -> None:
        document = problem(jobs.post("/failing", {"color": jobs.color()}), 500, "node-failed")
        took = jobs.get(f"/jobs/{document['job']}").json()["timings"]
        assert 0 <= took["execution"]["seconds"] < SECONDS
        running = jobs.start()
        jobs.until(running, lambda job: (job["progress"] or {}).get("value"))
        waiting = jobs.start()
        jobs.until(waiting, lambda job: job["position"] == 1)
        time.sleep(0.5)
        assert jobs.delete(waiting).status_code == 200
        took = jobs.delete(running).json()["timings"]
        assert 0.5 < took["execution"]["seconds"] < SECONDS
        assert took == jobs.get(f"/jobs/{running}").json()["timings"]
        took = jobs.get(f"/jobs/{waiting}").json()["timings"]
        assert took["execution"] == {"seconds": 0, "usd": 0}
        assert 0.4 < took["queue"]["seconds"] < SECONDS

    def test_usage(self, jobs: Jobs) -> None:
        """Each key sees its own, an operator's all; what comes again is counted again."""
        before = jobs.usage("bob")
        start = time.time()
        taken = [jobs.picture() for _ in range(3)]
        jobs.picture("bob")
        problem(jobs.post("/failing", {"color": jobs.color()}), 500, "node-failed")
        problem(jobs.post("/picture", {"colour": 1}), 422, "bad-params")
        key, body = jobs.key(), {"color": jobs.color()}
        for _ in range(3):
            jobs.ended(jobs.post("/picture", body, idempotency_key=key))
        job = jobs.start()
        jobs.running(job)
        assert jobs.delete(job).json()["status"] == "cancelled"
        wanted = {
            ("/picture", "ann"): {"requests": 7, "succeeded": 4, "rejected": 1, "repeated": 2},
            ("/picture", "bob"): {"requests": 1, "succeeded": 1},
            ("/failing", "ann"): {"requests": 1, "failed": 1},
            ("/slow", "ann"): {"requests": 1, "cancelled": 1},
        }
        limit = time.monotonic() + SECONDS

        def counted() -> dict[tuple[str, str], Body]:
            found = jobs.usage("bob")
            more = {key: _more(row, before.get(key, {})) for key, row in found.items()}
            return {key: row for key, row in more.items() if row}

        # A container tells the others after some seconds.
        while counted() != wanted and time.monotonic() < limit:
            time.sleep(0.2)
        assert counted() == wanted
        after = jobs.usage("bob")
        seconds = sum(float(reply.headers["x-execution-time-sec"]) for reply in taken)
        row = before.get(("/picture", "ann"), {"seconds": {"execution": 0}})
        grown = after["/picture", "ann"]["seconds"]["execution"] - row["seconds"]["execution"]
        assert seconds < grown < 2 * seconds + 1
        assert after["/slow", "ann"]["seconds"]["execution"] > 0
        row = after["/picture", "ann"]
        assert row["success_rate"] == round(
            row["succeeded"] / (row["succeeded"] + row["failed"]), 4
        )
        own = jobs.usage("ann")
        assert {owner for _, owner in own} == {"ann"}
        assert {key for key in after if key[1] == "ann"} == {*own}
        document = jobs.get("/usage").json()
        since, until = (datetime.fromisoformat(document[key]) for key in ("since", "until"))
        assert since.timestamp() < start < until.timestamp()
        problem(jobs.client.get("/usage"), 401, "unauthorized")

    # What is kept

    def test_results_are_kept(self, jobs: Jobs) -> None:
        replies = [jobs.picture() for _ in range(10)]
        for reply in replies:
            again = jobs.get(f"/jobs/{reply.headers['x-job-id']}/result")
            assert again.content == reply.content
            assert _of_job(again) == _of_job(reply)


def _of_job(reply: httpx.Response) -> dict[str, str]:
    """Return the headers that say something of a job; others are of the connection."""
    names = (
        *("content-type", "content-length", "content-disposition"),
        *("content-security-policy", "cache-control"),
    )
    return {k: v for k, v in reply.headers.items() if k.startswith("x-") or k in names}
