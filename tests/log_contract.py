"""What may stand in a log, whatever runs the jobs: requests with marks in them, and where these show."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx

from .api_client import png

SECONDS: Final = 60
PROMPT: Final = "MARK-prompt-7f3a"
MEDIA: Final = "MARK-media-91bc"
KEY: Final = "MARK-key-55de"
TOKEN: Final = "hf_MARK-token-20aa"
MARKS: Final = (PROMPT, MEDIA, KEY, TOKEN)

SAY = """\
params:
  prompt: {type: string}
  image: {type: image, optional: true}
graph:
  1:
    class_type: EmptyImage
    inputs: {width: 16, height: 16, batch_size: 1, color: 1}
  2:
    class_type: SaveImage
    inputs: {images: [1, 0], filename_prefix: "${prompt}"}
  3:
    class_type: PreviewAny
    inputs: {source: "${prompt}"}
  4:
    class_type: LoadImage
    inputs: {image: "${image}"}
  5:
    class_type: PreviewImage
    inputs: {images: [4, 0]}
"""
# Its encoder takes no odd sizes.
FAIL = """\
params:
  prompt: {type: string}
graph:
  1:
    class_type: EmptyImage
    inputs: {width: 33, height: 33, batch_size: 2, color: 0}
  2:
    class_type: CreateVideo
    inputs: {images: [1, 0], fps: 8}
  3:
    class_type: SaveVideo
    inputs: {video: [2, 0], filename_prefix: "${prompt}", format: mp4, codec: h264}
"""
ANY = """\
enabled: true
params:
  workflow: {type: graph}
  prompt: {type: string, optional: true}
graph: ${workflow}
"""
# Of a real ComfyUI with probe_nodes: what it says of these holds the prompt.
RAISE = """\
params:
  prompt: {type: string}
graph:
  1:
    class_type: EmptyImage
    inputs: {width: 16, height: 16, batch_size: 1, color: 0}
  2:
    class_type: ProbeRaise
    inputs: {image: [1, 0], message: "${prompt}"}
  3:
    class_type: SaveImage
    inputs: {images: [2, 0], filename_prefix: x}
"""
NAME = """\
params:
  prompt: {type: string}
graph:
  1:
    class_type: ProbeNames
    inputs: {filename: "${prompt}", subfolder: ""}
"""
WORKFLOWS: Final = {"say": SAY, "fail": FAIL, "workflow": ANY}
REAL_WORKFLOWS: Final = WORKFLOWS | {"raise": RAISE, "name": NAME}


@dataclass
class Planted:
    """Sends requests with marks; `headers` are those of a caller who may ask."""

    url: str
    headers: dict[str, str]
    is_real: bool = False

    def post(self, path: str, status: int, **options: Any) -> httpx.Response:
        options["headers"] = self.headers | options.pop("headers", {})
        reply = httpx.post(f"{self.url}{path}", timeout=SECONDS, **options)
        assert reply.status_code == status, (path, reply.status_code, reply.text)
        return reply

    def send(self) -> None:
        """Send what goes well, what is refused, what fails, and what is cancelled."""
        query = f"?prompt={PROMPT}&api_key={KEY}&X-API-Key={KEY}&file={MEDIA}"
        image = png(16, 16)
        self.post(f"/say{query}", 200, json={"prompt": PROMPT})
        form = {"prompt": PROMPT}
        self.post("/say", 200, data=form, files={"image": (f"{MEDIA}.png", image, "image/png")})
        broken = (f"{MEDIA}.png", image[:40], "image/png")
        self.post("/say", 422, data=form, files={"image": broken})
        for url in (f"http://127.0.0.1:1/{MEDIA}.png", f"http://{MEDIA}.invalid/{KEY}.png"):
            self.post("/say", 422, json={"prompt": PROMPT, "image": url})
        self.post("/say", 422, json={"prompt": 7, PROMPT: KEY, MEDIA: PROMPT})
        cut = f'{{"prompt": "{PROMPT}'.encode()
        self.post("/say", 400, content=cut, headers={"Content-Type": "application/json"})
        self.post(f"/{PROMPT}{query}", 404, json={"prompt": PROMPT})
        httpx.get(f"{self.url}/say{query}", headers=self.headers, timeout=SECONDS)
        httpx.get(f"{self.url}/jobs/{PROMPT}{query}", headers=self.headers, timeout=SECONDS)
        self.post("/fail", 500, json={"prompt": PROMPT})
        text = {"class_type": "PrimitiveString", "inputs": {"value": PROMPT}}
        shown = {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}
        graph = {"1": text | {"_meta": {"title": PROMPT}}, "2": shown}
        self.post("/workflow", 200, json={"workflow": graph})
        for wrong in (
            {PROMPT: {"class_type": PROMPT, "inputs": {PROMPT: PROMPT}}},
            {"1": {"class_type": "LoadImage", "inputs": {"image": f"{MEDIA}.png"}}},
            {"1": {"class_type": "EmptyImage", "inputs": {"width": PROMPT}}},
        ):
            self.post("/workflow", 422, json={"workflow": wrong})
        if self.is_real:
            for route in ("/raise", "/name"):
                self.post(route, 500, json={"prompt": PROMPT})

    def refused(self) -> None:
        """Send a key that nobody has, in each way; what is open answers all the same."""
        query = f"?api_key={KEY}"
        for headers in ({"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}):
            for path in (f"/say{query}", f"/usage{query}", f"/jobs/{MEDIA}{query}"):
                reply = httpx.get(f"{self.url}{path}", headers=headers, timeout=SECONDS)
                assert reply.status_code in (401, 404, 405), reply.text
            reply = httpx.post(
                f"{self.url}/say{query}", json={"prompt": PROMPT}, headers=headers, timeout=SECONDS
            )
            assert reply.status_code == 401
            httpx.get(f"{self.url}/health{query}", headers=headers, timeout=SECONDS)


def events(text: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a log; each is JSON."""
    for line in filter(None, text.splitlines()):
        found = json.loads(line)
        assert set(found) >= {"time", "level", "event"}, line
        yield found


def check(text: str) -> None:
    """See that a log tells what happened, and holds no mark."""
    shown = [mark for mark in MARKS if mark.casefold() in text.casefold()]
    assert not shown, [line for line in text.splitlines() if "mark-" in line.casefold()]
    found = [*events(text)]
    names = {event["event"] for event in found}
    assert {"queued", "started", "finished", "failed", "rejected"} <= names
    jobs = {event["job"] for event in found if event["event"] == "queued"}
    for name in ("started", "finished", "failed"):
        told = [event for event in found if event["event"] == name and "job" in event]
        assert told
        assert {event["job"] for event in told} <= jobs
        assert all(event["route"].startswith("/") for event in told)
    ends = [e["job"] for e in found if e["event"] in ("finished", "failed", "cancelled")]
    assert sorted(ends) == sorted(jobs), "each job ends once"
    done = next(event for event in found if event["event"] == "finished")
    assert done["seconds"] > 0
    assert done["usd"] >= 0
    failed = next(e for e in found if e["event"] == "failed" and e["route"] == "/fail")
    assert (failed["code"], failed["node"], failed["class_type"]) == (
        "node-failed",
        "3",
        "SaveVideo",
    )
    codes = {event["code"] for event in found if event["event"] == "rejected"}
    assert {"bad-params", "bad-media", "bad-body", "bad-graph"} <= codes
