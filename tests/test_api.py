"""What the API promises: every endpoint, its replies, jobs, keys and documents."""

import asyncio
import base64
import hmac
import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import av
import httpx
import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from starlette.datastructures import Headers

from build.gateway.access import Access, ApiKeys, Loopback
from build.params import MAX_SEED

from .api_client import (
    AS_FORM,
    FLUX,
    GPU,
    JSON,
    PRICE,
    SECONDS,
    SMALL,
    Api,
    Service,
    asked,
    engine,
    listening,
    multipart,
    new_app,
    own_package,
    part,
    png,
    pointers,
    problem,
    running,
    serve,
    size,
)
from .conftest import ROOT

Body = dict[str, Any]
Factory = pytest.TempPathFactory

FACE = base64.b64encode(png()).decode()
LORA = {**FLUX, "lora_id": "demo"}
INSTANTID = {**FLUX, "reference_image": FACE}
WAN = {"prompt": "a fox runs", "width": 64, "height": 48, "length": 5, "steps": 1}
# Route, body, media type and size of what comes back.
CALLS: dict[str, tuple[str, Body, str, tuple[int, int]]] = {
    "flux": ("/flux", {**FLUX, "width": 128, "height": 96}, "image/png", (128, 96)),
    "flux-dev": ("/flux-dev", {**FLUX, "width": 96, "height": 128}, "image/png", (96, 128)),
    "flux-lora, id": ("/flux-lora", LORA, "image/png", (64, 64)),
    "flux-lora, name": (
        "/flux-lora",
        {**FLUX, "lora_name": "character-demo.safetensors"},
        "image/png",
        (64, 64),
    ),
    "flux-instantid": ("/flux-instantid", INSTANTID, "image/png", (64, 64)),
    "wan2": ("/wan2", WAN, "image/webp", (64, 48)),
    "seedvr2": ("/seedvr2", {"image": FACE, "resolution": 96}, "image/png", (128, 96)),
}
HEADERS = {
    "x-job-id": r"job_[0-9a-z]{26}",
    "x-seed": r"\d+",
    "x-cost-usd": r"\d+\.\d{6}",
    "x-execution-time-sec": r"\d+\.\d{3}",
    "x-queue-time-sec": r"\d+\.\d{3}",
    "x-gpu-type": GPU,
    "x-engine": "preview",
    "x-output-count": "1",
}
# A video whose encoder takes no odd sizes.
ODD = """\
summary: A video
params:
  width: {type: integer}
graph:
  1:
    class_type: EmptyImage
    inputs: {width: "${width}", height: 32, batch_size: 2, color: 0}
  2:
    class_type: CreateVideo
    inputs: {images: [1, 0], fps: 8}
  3:
    class_type: SaveVideo
    inputs: {video: [2, 0], filename_prefix: odd, format: mp4, codec: h264}
"""
ASYNC = {"Prefer": "respond-async"}
# Long enough to be found at work, however slow the machine.
LONG = {**FLUX, "steps": 100}


@pytest.fixture(scope="module")
def api(tmp_path_factory: Factory) -> Iterator[Api]:
    """The shipped project."""
    with running(tmp_path_factory.mktemp("shipped")) as found:
        yield found


@pytest.fixture(scope="module")
def package(tmp_path_factory: Factory) -> str:
    """A project with /workflow and an origin that may ask."""
    return own_package(tmp_path_factory.mktemp("own"), "odd_package", odd=ODD)


@pytest.fixture(scope="module")
def own(tmp_path_factory: Factory, package: str) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("base"), package=package) as found:
        yield found


# Endpoints


@pytest.mark.parametrize("name", CALLS)
def test_every_endpoint_answers(api: Api, name: str) -> None:
    route, body, media_type, expected = CALLS[name]
    reply = api.post(route, body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == media_type
    assert size(reply.content) == expected
    for header, pattern in HEADERS.items():
        assert re.fullmatch(pattern, reply.headers[header]), (header, reply.headers[header])
    assert api.works[-1].route == route
    assert api.works[-1].job == reply.headers["x-job-id"]


def test_every_endpoint_is_tried() -> None:
    routes = {path for path, *_ in CALLS.values()}
    manifest = json.loads((ROOT / "build" / "manifest.json").read_bytes())
    assert routes | {"/workflow"} == set(manifest["routes"])


def test_the_defaults_are_enough(api: Api) -> None:
    reply = api.post("/flux", {"prompt": "a fox"})
    assert size(reply.content) == (1024, 1024)


def test_wan2_makes_frames(api: Api) -> None:
    webp = api.post("/wan2", WAN)
    with Image.open(io.BytesIO(webp.content)) as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("WEBP", 5)
    mp4 = api.post("/wan2", {**WAN, "format": "mp4"})
    assert mp4.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(mp4.content), "r") as container:
        frames = [*container.decode(video=0)]
    assert [(frame.width, frame.height) for frame in frames] == [(64, 48)] * 5
    [output] = api.post("/wan2", {**WAN, "format": "mp4"}, headers=JSON).json()["outputs"]
    assert output["media_type"] == "video/mp4"


@pytest.mark.parametrize("parts", ["url-safe text", "data URI", "upload"])
def test_a_picture_comes_in_three_ways(api: Api, parts: str) -> None:
    """The same picture and params give the same bytes."""
    body: Body = {**INSTANTID, "seed": 5}
    expected = api.post("/flux-instantid", body)
    if parts == "upload":
        del body["reference_image"]
        files = {"reference_image": ("../../me.png", png(), "text/plain")}
        form = {name: str(value) for name, value in body.items()}
        reply = api.request("POST", "/flux-instantid", data=form, files=files)
    else:
        start = "data:image/png;base64," if parts == "data URI" else " \n"
        reply = api.post("/flux-instantid", {**body, "reference_image": start + FACE})
    assert reply.status_code == 200, reply.text
    assert reply.content == expected.content
    [(name, data)] = api.works[-1].files.items()
    assert re.fullmatch(r"[0-9a-f]{64}\.[a-z]+", name)
    assert size(data) == (64, 48)
    assert api.works[-1].files == api.works[-2].files


def test_a_form_without_files(api: Api) -> None:
    """Its texts are converted, where those of JSON are not."""
    form = {
        "prompt": (None, "7"),
        "width": (None, "64"),
        "height": (None, "64"),
        "cfg": (None, "2"),
    }
    reply = api.request("POST", "/flux", files=form)
    assert size(reply.content) == (64, 64)
    inputs = api.works[-1].graph
    assert inputs["6"]["inputs"]["text"] == "7"
    assert inputs["5"]["inputs"]["cfg"] == 2.0


# Prices and seeds


def test_the_cost_is_seconds_times_price(tmp_path_factory: Factory) -> None:
    """Of the GPU that the engine has; none where nobody bills it."""

    async def test(api: Service) -> None:
        reply = await api.client.post("/flux", json={**FLUX, "steps": 5})
        seconds = float(reply.headers["x-execution-time-sec"])
        assert seconds >= 0.1
        assert float(reply.headers["x-cost-usd"]) == pytest.approx(seconds * PRICE, abs=1e-6)
        found = (await api.client.post("/flux", json=FLUX, headers=JSON)).json()
        assert found["cost"] == pytest.approx(found["seconds"] * PRICE, abs=1e-6)

    serve(tmp_path_factory.mktemp("paced"), test, pace=0.02)

    async def free(api: Service) -> None:
        reply = await api.client.post("/flux", json=FLUX)
        assert reply.headers["x-cost-usd"] == "0.000000"
        assert reply.headers["x-gpu-type"] == GPU

    serve(tmp_path_factory.mktemp("free"), free, prices={"L40S": 1.0})


@pytest.mark.parametrize("seed", [0, 7, MAX_SEED])
def test_a_seed_is_kept(api: Api, seed: int) -> None:
    body = {**FLUX, "seed": seed}
    first, second = api.post("/flux", body), api.post("/flux", body)
    assert first.headers["x-seed"] == str(seed)
    assert api.works[-1].graph["5"]["inputs"]["seed"] == seed
    assert first.content == second.content


def test_seeds_are_drawn(api: Api) -> None:
    replies = [api.post("/flux", FLUX) for _ in range(4)]
    seeds = {int(reply.headers["x-seed"]) for reply in replies}
    assert len(seeds) == 4
    assert len({reply.content for reply in replies}) == 4
    assert api.works[-1].graph["5"]["inputs"]["seed"] == int(replies[-1].headers["x-seed"])


# JSON


def test_json_says_everything(api: Api) -> None:
    reply = api.post("/flux", {**FLUX, "seed": 3}, headers=JSON)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    found = reply.json()
    assert set(found) >= {"job", "seed", "engine", "gpu", "seconds", "cost", "outputs"}
    assert (found["status"], found["route"], found["seed"]) == ("succeeded", "/flux", 3)
    assert (found["engine"], found["gpu"], found["problem"]) == ("preview", GPU, None)
    age = datetime.now(UTC) - datetime.fromisoformat(found["created"])
    assert timedelta() <= age < timedelta(seconds=SECONDS)
    [output] = found["outputs"]
    data = base64.b64decode(output.pop("data"))
    assert output == {
        "node": "9",
        "kind": "images",
        "media_type": "image/png",
        "filename": "flux_00001_.png",
        "bytes": len(data),
        "width": 64,
        "height": 64,
        "url": f"/jobs/{found['job']}/outputs/0",
    }
    assert size(data) == (64, 64)
    fetched = api.get(output["url"])
    assert fetched.content == data
    assert fetched.headers["content-type"] == "image/png"
    assert fetched.headers["x-content-type-options"] == "nosniff"
    assert fetched.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert reply.headers["x-job-id"] == found["job"]
    later = api.get(f"/jobs/{found['job']}").json()
    assert later == {**found, "outputs": [{**output, "data": None}]}


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("application/json", True),
        ("application/json;q=0.9, image/*;q=0.5", True),
        ("APPLICATION/JSON", True),
        ("image/png;q=0, */*", True),
        ("application/json, text/plain, */*", False),
        ("*/*", False),
        ("image/png", False),
        ("application/json;q=0", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8", False),
        ("video/mp4", False),
        ("", False),
        (";q=,,/;;q=x", False),
    ],
)
def test_what_a_client_accepts(api: Api, accept: str, is_json: bool) -> None:
    """The bytes come unless JSON is put before them: `*/*` behind it is what axios sends."""
    reply = api.post("/flux", FLUX, headers={"Accept": accept})
    assert reply.status_code == 200
    assert reply.headers["content-type"] == ("application/json" if is_json else "image/png")


# Jobs: the rest is in jobs_contract.py


def test_the_deadline_is_that_of_the_project(package: str) -> None:
    assert part(package, "api").SETTINGS.deadline == 100


# Models that are not there


@pytest.mark.parametrize(
    ("given", "name"),
    [({"lora_id": "nobody"}, "character-nobody"), ({"lora_name": "a/b.safetensors"}, "a/b")],
)
def test_a_lora_that_is_not_there(api: Api, given: Body, name: str) -> None:
    before = len(api.works)
    document = problem(api.post("/flux-lora", {**FLUX, **given}), 404, "unknown-model")
    assert pointers(document) == [f"#/{next(iter(given))}"]
    assert f"{name}.safetensors" in document["detail"]
    assert len(api.works) == before


def test_a_lora_with_a_near_name(api: Api) -> None:
    body = {**FLUX, "lora_name": "character-dem.safetensors"}
    document = problem(api.post("/flux-lora", body), 404, "unknown-model")
    assert 'did you mean "character-demo.safetensors"?' in document["detail"]


def test_a_lora_that_comes_later(tmp_path_factory: Factory) -> None:
    """What the engine lists is asked for each time."""
    base = tmp_path_factory.mktemp("base")

    async def test(api: Service) -> None:
        body = {**FLUX, "lora_id": "late"}
        problem(await api.client.post("/flux-lora", json=body), 404, "unknown-model")
        demo = base / "models" / "loras" / "character-demo.safetensors"
        demo.with_name("character-late.safetensors").write_bytes(demo.read_bytes())
        assert (await api.client.post("/flux-lora", json=body)).status_code == 200

    serve(base, test)


# /workflow


def saved(**image: int) -> Body:
    """Return a graph of two outputs."""
    inputs = {"width": 32, "height": 16, "batch_size": 1, "color": 255, **image}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a", "images": ["1", 0]}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def on_canvas(**more: Any) -> Body:
    """Return what `saved` is in UI format, the picture's size from a subgraph."""
    inner = {
        "id": "picture",
        "name": "A picture",
        "nodes": [{"id": 1, "type": "EmptyImage", "widgets_values": [32, 16, 1, 255]}],
        "links": [],
        "outputs": [{"name": "IMAGE", "type": "IMAGE", "linkIds": [1]}],
    }
    link = {"id": 1, "origin_id": 1, "origin_slot": 0, "target_id": -20, "target_slot": 0}
    images = {"name": "images", "type": "IMAGE", "link": 1}
    return {
        "nodes": [
            {"id": 1, "type": "picture", "outputs": [{"type": "IMAGE", "links": [1]}]},
            {"id": 2, "type": "SaveImage", "inputs": [images], "widgets_values": ["a"]},
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"]],
        "definitions": {"subgraphs": [inner | {"links": [link]}]},
        "version": 0.4,
        **more,
    }


def loaded(name: str = "cat.png") -> Body:
    """Return a graph that loads a file."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a", "images": ["1", 0]}},
    }


def sampled() -> Body:
    """Return a graph with a positive and a negative text."""
    name = ROOT / "tests" / "fixtures" / "test_workflows" / "flux.json"
    graph: Body = json.loads(name.read_bytes())
    graph["3"]["inputs"] |= {"width": 64, "height": 64}
    return graph


def test_a_switched_off_endpoint(api: Api) -> None:
    """It says who can switch it on, whatever is sent."""
    for content in (json.dumps({"workflow": saved()}), "{", ""):
        reply = api.request("POST", "/workflow", content=content)
        assert "workflows/workflow.yaml" in problem(reply, 403, "workflow-off")["detail"]
    about = {entry["route"]: entry["enabled"] for entry in api.get("/workflows").json()}
    assert about.pop("/workflow") is False
    assert set(about.values()) == {True}


def test_a_graph_runs(own: Api) -> None:
    reply = own.post("/workflow", {"workflow": saved()})
    assert reply.status_code == 200, reply.text
    assert size(reply.content) == (32, 16)
    assert reply.headers["x-output-count"] == "2"
    assert "x-seed" not in reply.headers
    assert own.works[-1].graph == saved()


def test_every_output_of_a_graph(own: Api) -> None:
    found = own.post("/workflow", {"workflow": saved(color=1)}, headers=JSON).json()
    assert [output["node"] for output in found["outputs"]] == ["2", "3"]
    for number, output in enumerate(found["outputs"]):
        assert output["url"] == f"/jobs/{found['job']}/outputs/{number}"
        assert own.get(output["url"]).content == base64.b64decode(output["data"])
    assert found["seed"] is None
    problem(own.get(f"/jobs/{found['job']}/outputs/2"), 404, "not-found")


def test_a_text_output(own: Api) -> None:
    """Alone it is the reply; beside a picture it is not."""
    text: Body = {
        "7": {"class_type": "PrimitiveString", "inputs": {"value": "füchse\n"}},
        "8": {"class_type": "PreviewAny", "inputs": {"source": ["7", 0]}},
    }
    reply = own.post("/workflow", {"workflow": text})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.text == "füchse\n"
    both = own.post("/workflow", {"workflow": text | saved(color=2)})
    assert both.headers["content-type"] == "image/png"
    assert both.headers["x-output-count"] == "3"
    found = own.post("/workflow", {"workflow": text | saved(color=3)}, headers=JSON).json()
    first = found["outputs"][0]
    assert (first["node"], first["filename"], first["media_type"]) == ("8", None, "text/plain")
    assert base64.b64decode(first["data"]).decode() == "füchse\n"
    assert own.get(first["url"]).text == "füchse\n"


def test_a_prompt_replaces_the_positive_text(own: Api) -> None:
    reply = own.post("/workflow", {"workflow": sampled(), "prompt": "a whale"})
    assert reply.status_code == 200, reply.text
    texts = {node: own.works[-1].graph[node]["inputs"]["text"] for node in ("6", "7")}
    assert texts == {"6": "a whale", "7": "blurry"}
    document = problem(
        own.post("/workflow", {"workflow": saved(), "prompt": "a whale"}), 422, "bad-graph"
    )
    assert pointers(document) == ["#/prompt"]


@pytest.mark.parametrize("name", ["cat.png", "pictures/my cat (1).png", "../../etc/passwd", "Ä"])
@pytest.mark.parametrize("is_form", [False, True])
def test_files_come_with_a_graph(own: Api, name: str, is_form: bool) -> None:
    """The name is the caller's own; the engine gets another."""
    if is_form:
        workflow = ('name="workflow"', json.dumps(loaded(name)).encode())
        content = multipart(workflow, (f'name="files"; filename="{name}"', png()))
        reply = own.request("POST", "/workflow", content=content, headers=AS_FORM)
    else:
        reply = own.post("/workflow", {"workflow": loaded(name), "files": {name: FACE}})
    assert reply.status_code == 200, reply.text
    assert size(reply.content) == (64, 48)
    sent = own.works[-1].graph["1"]["inputs"]["image"]
    assert re.fullmatch(r"[0-9a-f]{64}\.[a-z]+", sent)
    assert [*own.works[-1].files] == [sent]


def test_a_graph_may_be_a_file_of_a_form(own: Api) -> None:
    """As curl sends it: -F workflow=@graph.json"""
    part = ('name="workflow"; filename="graph.json"', json.dumps(saved()).encode())
    reply = own.request("POST", "/workflow", content=multipart(part), headers=AS_FORM)
    assert reply.status_code == 200, reply.text
    broken = ('name="workflow"; filename="graph.json"', b"{")
    document = problem(
        own.request("POST", "/workflow", content=multipart(broken), headers=AS_FORM), 422
    )
    assert pointers(document) == ["#/workflow"]


def with_node(node: str, **content: Any) -> Body:
    """Return a graph that runs, one node of it changed."""
    graph = saved()
    graph[node] = {**graph[node], **content}
    return graph


def with_input(node: str, name: str, value: object) -> Body:
    return with_node(node, inputs={**saved()[node]["inputs"], name: value})


def with_model(name: str) -> Body:
    graph = sampled()
    graph["4"]["inputs"]["ckpt_name"] = name
    return graph


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({"workflow": loaded()}, "#/workflow/1/inputs/image", 'no file "cat.png" was sent'),
        (
            {"workflow": saved(), "files": {"cat.png": FACE}},
            "#/files/cat.png",
            "no node of the graph loads this file",
        ),
        (
            {"workflow": with_node("1", class_type="EmptyImag")},
            "#/workflow/1",
            'did you mean "EmptyImage"?',
        ),
        (
            {"workflow": with_input("2", "images", ["7", 0])},
            "#/workflow/2/inputs/images",
            'no node "7"',
        ),
        ({"workflow": with_input("2", "images", ["1", 1])}, "#/workflow/2/inputs/images", "output"),
        ({"workflow": with_input("2", "images", ["1"])}, "#/workflow/2/inputs/images", "link"),
        ({"workflow": with_input("1", "width", 0)}, "#/workflow/1/inputs/width", "1"),
        ({"workflow": with_input("1", "widht", 0)}, "#/workflow/1/inputs/widht", '"width"'),
        (
            {"workflow": with_model("flux1-schnell-fp9.safetensors")},
            "#/workflow/4/inputs/ckpt_name",
            'did you mean "flux1-schnell-fp8.safetensors"?',
        ),
        ({"workflow": {"1": saved()["1"]}}, "#/workflow", "no output node"),
        ({"workflow": {"1": {}}}, "#/workflow", "class_type"),
        ({"workflow": {}}, "#/workflow", "1 item"),
        ({"workflow": None}, "#/workflow", "object"),
        ({"workflow": saved(), "files": {"": FACE}}, "#/files//[key]", "1 character"),
        ({"workflow": saved(), "files": {"a": 1}}, "#/files/a", "string"),
    ],
)
def test_graphs_that_are_refused(own: Api, body: Body, pointer: str, words: str) -> None:
    """Before they reach the engine, with the place and what to do."""
    before = len(own.works)
    document = problem(own.post("/workflow", body), 422)
    assert document["code"] in ("bad-graph", "bad-params")
    assert pointers(document)[0] == pointer
    assert words in document["errors"][0]["detail"]
    assert len(own.works) == before


@pytest.mark.parametrize("is_form", [False, True])
def test_a_workflow_in_ui_format(own: Api, is_form: bool) -> None:
    """It is converted, and runs."""
    if is_form:
        content = json.dumps(on_canvas()).encode()
        reply = own.request("POST", "/workflow", files={"workflow": ("a.json", content)})
    else:
        reply = own.post("/workflow", {"workflow": on_canvas()})
    assert reply.status_code == 200, reply.text
    assert size(reply.content) == (32, 16)
    assert own.works[-1].graph["2"]["inputs"]["images"] == ["1:1", 0]


@pytest.mark.parametrize(
    ("more", "pointer", "words"),
    [
        ({"links": []}, "#/workflow", "link 1 is not in the file"),
        ({"links": 5}, "#/workflow", "links is no list"),
        ({"nodes": [{"id": 7}]}, "#/workflow", "this node has no type"),
        ({"nodes": [{"id": 7, "type": "NoSuchThing"}]}, "#/workflow/7", 'no class "NoSuchThing"'),
        ({"nodes": []}, "#/workflow", "at least 1"),
        ({"nodes": [{"id": 7, "type": "CheckpointLoaderSimple"}]}, "#/workflow", "no default"),
        ({"definitions": {"subgraphs": 7}}, "#/workflow/1", 'no class "picture"'),
        ({"version": 9}, "#/workflow", "version 9 of the UI format"),
    ],
)
def test_workflows_in_ui_format_that_are_refused(
    own: Api, more: Body, pointer: str, words: str
) -> None:
    before = len(own.works)
    document = problem(own.post("/workflow", {"workflow": on_canvas(**more)}), 422)
    assert document["code"] in ("bad-graph", "bad-params")
    assert pointers(document)[0] == pointer
    assert words in document["errors"][0]["detail"]
    assert len(own.works) == before


def test_a_cycle_is_refused(own: Api) -> None:
    graph = {
        "1": {"class_type": "ImageInvert", "inputs": {"image": ["4", 0]}},
        "4": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "2": saved()["2"],
    }
    document = problem(own.post("/workflow", {"workflow": graph}), 422, "bad-graph")
    assert sorted(pointers(document)) == ["#/workflow/1/inputs/image", "#/workflow/4/inputs/image"]
    assert "wait for each other" in document["detail"]


def test_what_no_output_needs_may_be_wrong(own: Api) -> None:
    """The engine runs such graphs too, and exports are full of leftovers."""
    graph = saved(color=9) | {"4": {"class_type": "ImageInvert", "inputs": {"image": ["77", 0]}}}
    assert own.post("/workflow", {"workflow": graph}).status_code == 200


def test_a_node_that_raises(own: Api) -> None:
    """The reply says which node, and where it and its params are written."""
    document = problem(own.post("/odd", {"width": 33}), 500, "node-failed")
    assert (document["node"], document["class_type"]) == ("3", "SaveVideo")
    assert document["file"] == "workflows/odd.yaml"
    assert "SaveVideo" in ODD.splitlines()[document["line"] - 1]
    assert document["job"] == own.works[-1].job
    assert own.post("/odd", {"width": 34}).headers["content-type"] == "video/mp4"
    found = own.get(f"/jobs/{document['job']}").json()
    assert found["status"] == "failed"
    assert found["problem"] == document
    problem(own.get(f"/jobs/{document['job']}/result"), 500, "node-failed")
    # That is nothing that everybody may read.
    assert own.get("/health").json()["workers"][0]["last_error"] is None


def test_what_the_engine_refuses(tmp_path_factory: Factory) -> None:
    """A model of the service's own that is gone: no fault of the caller's."""
    base = tmp_path_factory.mktemp("base")

    async def test(api: Service) -> None:
        (base / "models" / "checkpoints" / "flux1-schnell-fp8.safetensors").unlink()
        document = problem(await api.client.post("/flux", json=FLUX), 500, "engine-refused")
        [error] = document["errors"]
        assert (error["node"], error["input"]) == ("4", "ckpt_name")
        assert (error["file"], error["params"]) == ("workflows/flux.yaml", [])
        lines = (ROOT / "workflows" / "flux.yaml").read_text(encoding="utf-8").splitlines()
        assert "ckpt_name" in lines[error["line"] - 1]
        assert document["line"] == error["line"]

    serve(base, test)


# What there is


def test_health_and_readiness(api: Api) -> None:
    health = api.get("/health").json()
    manifest = json.loads((ROOT / "build" / "manifest.json").read_bytes())
    assert (health["status"], health["app"]) == ("ok", "ryla-comfyui")
    assert (health["spec"], health["comfyui"]) == (manifest["spec"], "0.3.71")
    [worker] = health["workers"]
    assert (worker["ready"], worker["engine"], worker["gpu"]) == (True, "preview", GPU)
    assert worker["last_error"] is None
    assert api.get("/ready").status_code == 200
    assert api.get("/ready").json() == {"ready": True}


def test_an_engine_that_is_gone(tmp_path_factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    """/health answers all the same; /ready and what needs the engine say 503."""
    local = part("build", "gateway.local")
    monkeypatch.setattr(local, "_MOST_SECONDS_GONE", 1)

    async def run() -> None:
        async with engine(tmp_path_factory.mktemp("base")) as (_, url):
            backend = await local.LocalBackend(url).__aenter__()
        try:
            async with asked(new_app("build", backend)) as client, asyncio.timeout(SECONDS):
                while (reply := await client.get("/ready")).status_code == 200:
                    await asyncio.sleep(0.005)
                problem(reply, 503, "engine-unreachable")
                assert int(reply.headers["retry-after"]) > 0
                health = await client.get("/health")
                assert health.status_code == 200
                assert health.json()["workers"][0]["ready"] is False
                for route, body in (("/flux-lora", LORA), ("/flux", FLUX)):
                    reply = await client.post(route, json=body)
                    problem(reply, 503, "engine-unreachable")
                    assert int(reply.headers["retry-after"]) > 0
        finally:
            await backend.__aexit__(None, None, None)

    asyncio.run(run())


def test_the_list_of_endpoints(api: Api) -> None:
    found = {entry["route"]: entry for entry in api.get("/workflows").json()}
    assert set(found) == {"/workflow", *(route for route, *_ in CALLS.values())}
    flux = found["/flux"]
    assert (flux["name"], flux["gpu"], flux["media_types"]) == ("flux", "l40s", ["image/png"])
    assert found["/wan2"]["media_types"] == ["image/webp", "video/mp4"]
    for entry in found.values():
        Draft202012Validator.check_schema(entry["params"])
    assert flux["params"]["required"] == ["prompt"]
    lora = Draft202012Validator(found["/flux-lora"]["params"])
    assert lora.is_valid(LORA)
    assert not lora.is_valid(FLUX)


def test_the_docs_ask_no_other_host(api: Api) -> None:
    page = api.get("/docs")
    assert page.status_code == 200
    assert not re.search(r"(https?:)?//\w", page.text), page.text
    places = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page.text)
    assert len(places) >= 4
    for place in places:
        assert place.startswith("/")
        reply = api.get(place)
        assert reply.status_code == 200, place
        assert reply.content
        if place.endswith(".css"):
            assert not re.search(r"@import|url\(\s*[\"']?(https?:)?//", reply.text)
    assert re.search(r"[\"']?validatorUrl[\"']?\s*:\s*null", page.text)


def test_the_docs_begin_with_the_endpoints(api: Api) -> None:
    document = api.get("/openapi.json").json()
    operations = [one for path in document["paths"].values() for one in path.values()]
    names = [tag["name"] for tag in document["tags"]]
    assert names[0] == "endpoints"
    assert set(names) == {tag for one in operations for tag in one["tags"]}
    assert all(" " in one["summary"] for one in operations), "a word alone says no more than a path"


def test_the_docs_can_be_tried(api: Api) -> None:
    """The body that /docs suggests is one that the endpoint takes."""
    document = api.get("/openapi.json").json()
    content = document["paths"]["/flux"]["post"]["requestBody"]["content"]["application/json"]
    assert api.post("/flux", content["example"] | SMALL).status_code == 200
    assert "securitySchemes" not in document["components"]


def test_the_openapi_document_says_that_there_are_keys() -> None:
    access = part("build", "gateway.access").ApiKeys("me:secret")
    document = new_app("build", None, access).openapi()
    assert document["security"] == [{"bearer": []}, {"header": []}]
    assert document["components"]["securitySchemes"]["header"]["name"] == "X-API-Key"
    assert "secret" not in json.dumps(document)


@pytest.mark.parametrize("name", ["api", "own"])
def test_the_openapi_document(name: str, request: pytest.FixtureRequest) -> None:
    """Every reference leads somewhere, and every schema is one."""
    found: Api = request.getfixturevalue(name)
    document = found.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1.")
    assert set(document) <= {
        "openapi",
        "info",
        "paths",
        "components",
        "tags",
        "servers",
        "security",
    }
    assert {"title", "version"} <= set(document["info"])
    references = [*values(document, "$ref")]
    assert references
    for reference in references:
        target: Any = document
        for name_ in reference.removeprefix("#/").split("/"):
            target = target[name_]
        assert isinstance(target, dict)
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    ids: list[str] = []
    for path, item in document["paths"].items():
        assert set(item) <= {"get", "post", "delete"}
        for method, operation in item.items():
            ids.append(operation["operationId"])
            check_operation(path, method, operation)
    assert len(set(ids)) == len(ids)
    routes = {entry["route"] for entry in found.get("/workflows").json()}
    below = ("", "/result", "/events", "/outputs/{number}")
    jobs = {f"/jobs/{{job}}{path}" for path in below}
    page = {"/models/{folder}", "/workflows/{name}/graph"}
    about = {"/health", "/ready", "/usage", "/workflows"}
    assert set(document["paths"]) == routes | jobs | page | about


def values(value: object, key: str) -> Iterator[Any]:
    """Yield what stands under a key, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from values(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from values(inner, key)


def check_operation(path: str, method: str, operation: Body) -> None:
    parameters = operation.get("parameters", [])
    declared = {p["name"] for p in parameters if p["in"] == "path"}
    assert declared == set(re.findall(r"{(\w+)", path))
    keys = [(p["name"], p["in"]) for p in parameters]
    assert len(set(keys)) == len(keys)
    for parameter in parameters:
        Draft202012Validator.check_schema(parameter["schema"])
    assert ("requestBody" in operation) == (method == "post")
    for content in values(operation, "content"):
        for media_type, entry in content.items():
            assert re.fullmatch(r"[\w*]+/[\w*.+-]+", media_type)
            Draft202012Validator.check_schema(entry.get("schema", {}))
    for status, reply in operation["responses"].items():
        assert re.fullmatch(r"[1-5]\d\d", status)
        assert reply["description"]
        if status[0] in "45":
            assert set(reply["content"]) == {"application/problem+json"}


def test_replies_are_as_the_openapi_document_says(api: Api) -> None:
    document = api.get("/openapi.json").json()
    operation = document["paths"]["/flux"]["post"]
    job = {"$ref": "#/components/schemas/JobDocument", **document}
    reply = api.post("/flux", FLUX, headers=JSON)
    Draft202012Validator(job).validate(reply.json())
    described = {name.lower() for name in operation["responses"]["200"]["headers"]}
    assert described == set(HEADERS)
    pending = api.post("/flux", FLUX, headers=ASYNC)
    Draft202012Validator(job).validate(pending.json())
    for header in operation["responses"]["202"]["headers"]:
        assert header.lower() in pending.headers
    fault = {"$ref": "#/components/schemas/ProblemDocument", **document}
    for wrong in ({}, {"prompt": 1}):
        refused = api.post("/flux", wrong)
        Draft202012Validator(fault).validate(refused.json())
        assert str(refused.status_code) in operation["responses"]
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert names == {"Prefer", "Idempotency-Key"}
    assert "409" in operation["responses"]
    for status in ("429", "503"):
        assert "Retry-After" in operation["responses"][status]["headers"]
    bodies = operation["requestBody"]["content"]
    assert set(bodies) == {"application/json", "multipart/form-data"}
    form_schema = document["paths"]["/seedvr2"]["post"]["requestBody"]["content"]
    image = form_schema["multipart/form-data"]["schema"]["properties"]["image"]
    assert image["format"] == "binary"


@pytest.mark.parametrize("name", CALLS)
def test_bodies_are_as_the_openapi_document_says(api: Api, name: str) -> None:
    route, body, media_type, _ = CALLS[name]
    document = api.get("/openapi.json").json()
    operation = document["paths"][route]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator({**schema, **document})
    validator.validate(body)
    assert not validator.is_valid({**body, "promt": "x"})
    assert media_type in operation["responses"]["200"]["content"]


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/flx", 'did you mean "/flux"?'),
        ("POST", "/flux-inst", "nothing answers"),
        ("GET", "/jobs", "nothing answers"),
        ("GET", "/static/docs/../../api.py", "nothing answers"),
        ("GET", "/static/docs/%2e%2e/%2e%2e/core.py", "nothing answers"),
        ("GET", "/redoc", "nothing answers"),
        ("GET", "/%00", "nothing answers"),
        ("GET", "/%F0%9F%A6%8A%0A", "nothing answers"),
        ("GET", "/" + "x" * 5000, "nothing answers"),
    ],
)
def test_where_nothing_is(api: Api, method: str, path: str, words: str) -> None:
    document = problem(api.request(method, path), 404, "not-found")
    assert words in document["detail"]
    assert len(document["detail"]) < 600


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/flux", "POST"),
        ("PUT", "/flux", "POST"),
        ("DELETE", "/wan2", "POST"),
        ("POST", "/health", "GET"),
        ("POST", "/jobs/x/result", "GET"),
        ("OPTIONS", "/flux", "POST"),
    ],
)
def test_methods_that_do_not_work(api: Api, method: str, path: str, allowed: str) -> None:
    reply = api.request(method, path)
    document = problem(reply, 405, "wrong-method")
    assert allowed in reply.headers["allow"]
    assert document["detail"].endswith(f"; {reply.headers['allow']} does")


# Who may ask


KEYS = "ann:secret-1, bob : secret-2 ,"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: Factory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("keyed"), access=ApiKeys(KEYS)) as found:
        yield found


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer secret-1"},
        {"Authorization": "bearer  secret-2 "},
        {"X-API-Key": "secret-2"},
        {"Authorization": "Basic eDp5", "X-API-Key": "secret-1"},
    ],
)
def test_keys_that_are_known(keyed: Api, headers: dict[str, str]) -> None:
    assert keyed.post("/flux", FLUX, headers=headers).status_code == 200
    assert keyed.works[-1].owner == ("ann" if "secret-1" in str(headers) else "bob")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer secret-3"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "secret-1"},
        {"Authorization": "Basic secret-1"},
        {"X-API-Key": ""},
        {"X-API-Key": "secret"},
        {"X-API-Key": "secret-1secret-1"},
        {"X-API-Key": "ann"},
        {"X-API-Key": b"secret-\xff"},
        {"Authorization": "Bearer secret-3", "X-API-Key": "secret-1"},
    ],
)
def test_keys_that_are_not(keyed: Api, headers: Any) -> None:
    before = len(keyed.works)
    for method, path in [
        ("POST", "/flux"),
        ("POST", "/workflow"),
        ("GET", "/jobs/x"),
        ("GET", "/ready"),
        ("GET", "/workflows"),
        ("GET", "/nothing"),
    ]:
        reply = keyed.request(method, path, headers=headers)
        problem(reply, 401, "unauthorized")
        assert reply.headers["www-authenticate"].startswith("Bearer")
        assert "secret" not in reply.text
    assert len(keyed.works) == before


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/health", "/openapi.json", "/docs"),
        *("/static/docs/swagger-ui.css", "/static/playground/main.js"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}], ids=["no key", "wrong key"])
def test_what_is_open(keyed: Api, path: str, headers: dict[str, str]) -> None:
    assert keyed.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/static/docs/../../flux", "/docs/../flux", "//flux", "/docs/x"])
def test_no_way_around_the_key(keyed: Api, path: str) -> None:
    before = len(keyed.works)
    assert keyed.request("POST", path, json=FLUX).status_code in (401, 404, 405)
    assert len(keyed.works) == before


@pytest.mark.parametrize("key", ["secret-1", "secret-2", "secret-3", "x"])
def test_keys_are_compared_in_constant_time(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all of them, whichever is right, and by what takes as long for all."""
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(known: bytes, given: bytes) -> bool:
        compared.append((known, given))
        return real(known, given)

    monkeypatch.setattr("build.gateway.access.hmac.compare_digest", compare)
    access = ApiKeys("ann:secret-1,bob:secret-2,eve:secret-0")
    headers = Headers({"X-API-Key": key})
    owner = access.owner(headers, is_open=True)
    assert owner == {"secret-1": "ann", "secret-2": "bob"}.get(key, "")
    assert len(compared) == 3
    assert {len(part) for pair in compared for part in pair} == {32}


@pytest.mark.parametrize("text", ["", " ", ",,", "ann", "ann:", ":key", "ann:a,bob", "ann: ,b:c"])
def test_keys_that_do_not_read(text: str) -> None:
    with pytest.raises(ValueError, match="key") as caught:
        ApiKeys(text)
    assert "ann:a" not in str(caught.value)


def test_the_shipped_project_wants_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    create_api = part("build", "api").create_api
    monkeypatch.delenv("API_KEYS", raising=False)
    with pytest.raises(ValueError, match="API_KEYS"):
        create_api(None)
    monkeypatch.setenv("API_KEYS", "ann:secret-1")
    assert create_api(None) is not None


@pytest.fixture(scope="module")
def local(tmp_path_factory: Factory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("local"), access=Loopback()) as found:
        yield found


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:8000", "LOCALHOST:1", "[::1]", "[::1]:8000", "127.0.0.2"]
)
@pytest.mark.parametrize("origin", [None, "http://localhost:3000", "http://127.0.0.1"])
def test_this_machine_may_ask(local: Api, host: str, origin: str | None) -> None:
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    assert local.get("/workflows", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "localhost@evil.example",
        "0.0.0.0",
        "192.168.0.1",
        "[::]",
        "[::1",
        "",
        "localhost:x@y",
    ],
)
def test_other_hosts_are_not_served(local: Api, host: str) -> None:
    """A page of another host may have its name lead to this machine."""
    for path in ("/flux", "/health", "/docs"):
        reply = local.request("POST" if path == "/flux" else "GET", path, headers={"Host": host})
        problem(reply, 403, "forbidden-host")


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "http://localhost.evil.example", "file://", "x"],
)
def test_pages_of_others_may_not_ask(local: Api, origin: str) -> None:
    before = len(local.works)
    problem(local.post("/flux", FLUX, headers={"Origin": origin}), 403, "forbidden-origin")
    assert len(local.works) == before


def test_origins_that_are_named_may_ask(tmp_path_factory: Factory) -> None:
    async def test(api: Service) -> None:
        for origin, status in {"https://app.example": 200, "https://app.example.org": 403}.items():
            reply = await api.client.get("/workflows", headers={"Origin": origin})
            assert reply.status_code == status

    serve(tmp_path_factory.mktemp("local"), test, access=Loopback(["https://app.example"]))


def test_a_host_through_a_socket(local: Api) -> None:
    """What a server makes of the header is what is looked at."""

    async def test() -> None:
        async with listening(local.service.app) as url, httpx.AsyncClient() as client:
            assert (await client.get(f"{url}/health")).status_code == 200
            reply = await client.get(f"{url}/health", headers={"Host": "evil.example"})
            problem(reply, 403, "forbidden-host")

    local.run(test())


@pytest.mark.parametrize("access", [lambda: None, lambda: ApiKeys(KEYS)], ids=["open", "keys"])
def test_pages_of_configured_origins(
    tmp_path_factory: Factory, package: str, access: Callable[[], Access | None]
) -> None:
    """A browser asks first, without a key, and is told what it may read."""
    ours, theirs = "https://app.example.com", "https://evil.example"
    asks = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,prefer",
    }

    async def test(api: Service) -> None:
        reply = await api.client.options("/flux", headers={"Origin": ours, **asks})
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] == ours
        assert "POST" in reply.headers["access-control-allow-methods"]
        allowed = reply.headers["access-control-allow-headers"].lower()
        assert "authorization" in allowed
        assert "prefer" in allowed
        refused = await api.client.options("/flux", headers={"Origin": theirs, **asks})
        assert "access-control-allow-origin" not in refused.headers
        for body in (FLUX, {}):
            headers = {"Origin": ours, "X-API-Key": "secret-1"}
            reply = await api.client.post("/flux", json=body, headers=headers)
            assert reply.status_code == (200 if body else 422)
            assert reply.headers["access-control-allow-origin"] == ours
            exposed = reply.headers["access-control-expose-headers"].lower()
            assert {*HEADERS, "location", "retry-after"} <= {*exposed.split(", ")}

    serve(tmp_path_factory.mktemp("cors"), test, package=package, access=access())


def test_pages_may_read_of_a_fault_of_the_service(tmp_path_factory: Factory, package: str) -> None:
    """The fault itself is logged once, and goes no further."""
    ours = "https://app.example.com"

    async def fails(work: Any, room: Any) -> str:  # noqa: ARG001
        raise RuntimeError("secret")

    async def test(api: Service) -> None:
        api.backend.submit = fails  # type: ignore[method-assign]
        reply = await api.client.post("/flux", json=FLUX, headers={"Origin": ours})
        problem(reply, 500, "internal-error")
        assert reply.headers["access-control-allow-origin"] == ours

    serve(tmp_path_factory.mktemp("fault"), test, package=package)


def test_no_origin_is_allowed_unless_it_is_named(api: Api) -> None:
    reply = api.post("/flux", FLUX, headers={"Origin": "https://app.example.com"})
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("path", ["/health", "/ready", "/workflows"])
def test_uptime_checks_may_ask_with_head(api: Api, path: str) -> None:
    reply = api.request("HEAD", path)
    assert (reply.status_code, reply.content) == (200, b"")
