"""The page at / as it is served; what it does in a browser is tested in tests/browser."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .api_client import Api, Service, part, problem, running, serve
from .conftest import ROOT

FOLDER = ROOT / "templates" / "playground"
FILES = sorted(path.name for path in FOLDER.iterdir())
ADDRESSES = {name: "/" if name == "index.html" else f"/static/playground/{name}" for name in FILES}
GRAPH = "/workflows/flux/graph"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("page")) as found:
        yield found


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    access = part("build", "gateway.access").ApiKeys("ann:secret")
    with running(tmp_path_factory.mktemp("keyed"), access=access) as found:
        yield found


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_page_is_served(name: str, api: Api) -> None:
    reply = api.get(ADDRESSES[name])
    assert reply.status_code == 200
    assert reply.content == (FOLDER / name).read_bytes()
    types = {
        "html": "text/html",
        "css": "text/css",
        "js": "text/javascript",
        "svg": "image/svg+xml",
    }
    assert reply.headers["content-type"].startswith(types[name.rpartition(".")[2]])
    policy = reply.headers["content-security-policy"].split("; ")
    assert policy[:3] == ["default-src 'none'", "script-src 'self'", "style-src 'self'"]
    assert {"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", [*ADDRESSES.values(), GRAPH])
def test_a_browser_that_has_a_file_is_not_sent_it_again(path: str, api: Api) -> None:
    first = api.get(path)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = api.get(path, headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert "content-security-policy" in again.headers
    assert api.get(path, headers={"If-None-Match": '"other"'}).content == first.content


def test_the_page_is_small() -> None:
    assert sum((FOLDER / name).stat().st_size for name in FILES) < 150_000


def test_the_page_holds_no_script_and_no_style_of_its_own() -> None:
    text = (FOLDER / "index.html").read_text("utf-8")
    assert re.findall(r"<script[^>]*>(?!</script>)", text) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", text) == []


def test_the_page_asks_for_what_there_is_and_for_nothing_elsewhere() -> None:
    """All addresses are relative, and every file is one that another asks for."""
    asked: set[str] = set()
    for name in FILES:
        text = (FOLDER / name).read_text("utf-8")
        addresses = set(re.findall(r"https?://[^\s\"'`)]*", text))
        assert addresses <= {"http://www.w3.org/2000/svg", "https://"}, name
        if name.endswith(".js"):
            asked |= set(re.findall(r'from "\./([^"]+)"', text))
        if name == "index.html":
            places = re.findall(r'(?:src|href)="([^"#]+)"', text)
            assert all(not place.startswith("/") for place in places)
            asked |= {p.removeprefix("static/playground/") for p in places if p != "docs"}
    assert asked == set(FILES) - {"index.html"}


@pytest.mark.parametrize(
    "name",
    ["nothing.js", "graphs", "..%2fmanifest.json", "%2e%2e/manifest.json", "graphs%2fflux.svg"],
)
def test_nothing_else_is_served(name: str, api: Api) -> None:
    problem(api.get(f"/static/playground/{name}"), 404, "not-found")


def test_the_graph_of_every_workflow_is_a_picture(api: Api) -> None:
    for workflow in api.get("/workflows").json():
        reply = api.get(f"/workflows/{workflow['name']}/graph")
        if workflow["graph"]:
            problem(reply, 404, "not-found")
            continue
        assert reply.headers["content-type"] == "image/svg+xml"
        assert reply.headers["content-security-policy"].startswith("default-src 'none';")
        assert reply.text.startswith("<svg ")
        assert 'data-node="' in reply.text
    found = problem(api.get("/workflows/fluxx/graph"), 404, "not-found")
    assert 'did you mean "flux"?' in found["detail"]


def test_workflows_say_which_param_is_which(api: Api) -> None:
    found = {workflow["name"]: workflow for workflow in api.get("/workflows").json()}
    assert found["flux"]["seed"] == "seed"
    assert found["flux"]["graph"] is None
    assert found["workflow"]["graph"] == "workflow"
    assert found["workflow"]["seed"] is None
    properties = found["wan2"]["params"]["properties"]
    assert properties["length"]["x-step"] == [1, 4]
    options = found["flux-lora"]["params"]["properties"]["lora_name"]["anyOf"]
    assert options[0]["x-folder"] == "loras"
    assert found["seedvr2"]["params"]["properties"]["image"]["x-media"] == "image"


def test_the_files_of_a_model_folder_are_listed(api: Api) -> None:
    files = ["character-demo.safetensors"]
    assert api.get("/models/loras").json() == {"folder": "loras", "files": files}


@pytest.mark.parametrize("folder", ["checkpoints", "lora", "%2e%2e", "loras%2f..", "x" * 300])
def test_only_folders_that_params_name_are_listed(folder: str, api: Api) -> None:
    found = problem(api.get(f"/models/{folder}"), 404, "not-found")
    assert ('did you mean "loras"?' in found["detail"]) == (folder == "lora")


def test_a_folder_that_nobody_can_list(tmp_path: Path) -> None:
    async def test(service: Service) -> None:
        async def none(_: str) -> None:
            return None

        service.backend.models = none  # type: ignore[attr-defined]
        reply = await service.client.get("/models/loras")
        assert reply.json() == {"folder": "loras", "files": None}

    serve(tmp_path, test)


@pytest.mark.parametrize("path", [GRAPH, "/models/loras", "/workflows"])
def test_what_the_page_shows_needs_a_key(path: str, keyed: Api) -> None:
    problem(keyed.get(path), 401, "unauthorized")
    assert keyed.get(path, headers={"X-API-Key": "secret"}).status_code == 200


def test_the_page_is_open_behind_a_prefix(keyed: Api) -> None:
    """An app below another one sees the prefix in its paths."""

    async def asked(path: str) -> int:
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": "/some/where", "headers": [], "server": ("localhost", 80), "state": {},
        }  # fmt: skip
        await keyed.service.app(scope, receive, send)
        [status] = statuses
        return status

    for path in ADDRESSES.values():
        assert keyed.run(asked(f"/some/where{path}")) == 200
    assert keyed.run(asked("/some/where/workflows")) == 401
    assert keyed.run(asked("/workflows")) == 401
