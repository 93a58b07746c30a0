"""What hostile, clumsy and unlucky callers send: it ends as a problem, and costs nothing."""

import asyncio
import base64
import contextlib
import gc
import gzip
import json
import socket
import struct
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .api_client import (
    AS_FORM,
    AS_JSON,
    FLUX,
    Api,
    Service,
    asked,
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
)
from .test_api import FACE, LONG, loaded, saved

Body = dict[str, Any]
Factory = pytest.TempPathFactory

ROUTES = ["/flux", "/flux-dev", "/flux-lora", "/flux-instantid", "/wan2", "/seedvr2", "/workflow"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: Factory) -> str:
    return own_package(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def own(tmp_path_factory: Factory, package: str) -> Iterator[Api]:
    """A project with /workflow, that reads 1 MB and pictures of a million pixels."""
    with running(tmp_path_factory.mktemp("base"), package=package) as found:
        yield found


@pytest.fixture
def trap() -> Iterator[socket.socket]:
    """A server of this machine that nobody may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener
        with pytest.raises(BlockingIOError):
            listener.accept()


def sent(own: Api, route: str, content: bytes | str, **headers: str) -> httpx.Response:
    """Send a body, from which no job may come."""
    before = len(own.works)
    encoded = {name: value.encode("latin-1") for name, value in (AS_JSON | headers).items()}
    reply = own.request("POST", route, content=content, headers=encoded)
    assert len(own.works) == before
    return reply


def posted(own: Api, route: str, body: object) -> httpx.Response:
    return sent(own, route, json.dumps(body))


# Bodies that are no JSON


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        (b"", None),
        (b" \n", None),
        (b"{", None),
        (b'{"prompt": "x",}', None),
        (b"{'prompt': 'x'}", None),
        (b'{"prompt": "x"} {}', None),
        (b'{"prompt": "a\nb"}', None),
        (b"\xff\xfe{}", None),
        (b'{"prompt": "\xff"}', None),
        (b'{"prompt": "\xed\xa0\x80"}', None),
        (json.dumps(FLUX).encode("utf-16"), None),
        (json.dumps(FLUX).encode("utf-16-le"), None),
        (json.dumps(FLUX).encode("utf-8-sig"), None),
        (b'{"prompt": "\\ud83"}', None),
        (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
        (b"[" * 100_000, None),
        (b'{"a":' * 100_000, None),
        (b'{"prompt": "a", "prompt": "b"}', None),
        (b'{"prompt": "a", "x": {"y": 1, "y": 1}}', None),
        (b'{"prompt": "a", "\\ud83e": 1, "\\ud83e": 1}', None),
        (gzip.compress(json.dumps(FLUX).encode(), mtime=0), None),
        (b"\0", None),
        (b"nul", None),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "",
)
@pytest.mark.parametrize("route", ["/flux", "/workflow"])
def test_what_is_no_json(own: Api, route: str, content: bytes, pointer: str | None) -> None:
    document = problem(sent(own, route, content), 400, "bad-body")
    assert pointers(document) == ([pointer] if pointer else [])


@pytest.mark.parametrize("content", ["null", "true", "1", '"x"', "[]", "[{}]", "NaN", "1e400"])
@pytest.mark.parametrize("route", ROUTES)
def test_what_is_no_object(own: Api, route: str, content: str) -> None:
    document = problem(sent(own, route, content), 422, "bad-params")
    assert "object" in document["detail"]


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json5",
        "image/png",
        "multipart/mixed; boundary=B",
        "application/json, text/plain",
        ";",
        "\xff/json",
    ],
)
def test_other_types_are_not_read(own: Api, content_type: str) -> None:
    content = "prompt=a+fox" if "urlencoded" in content_type else json.dumps(FLUX)
    reply = sent(own, "/flux", content, **{"Content-Type": content_type})
    document = problem(reply, 415, "wrong-media-type")
    assert "application/json" in document["detail"]


def test_a_body_without_a_type(own: Api) -> None:
    reply = own.request("POST", "/flux", content=json.dumps(FLUX))
    assert "no Content-Type" in problem(reply, 415, "wrong-media-type")["detail"]


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/ld+json"]
)
def test_types_that_are_json_too(own: Api, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    reply = own.request("POST", "/flux", content=json.dumps(FLUX), headers=headers)
    assert reply.status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x"])
def test_compressed_bodies_are_not_read(own: Api, encoding: str) -> None:
    content = gzip.compress(json.dumps(FLUX).encode())
    reply = sent(own, "/flux", content, **{"Content-Encoding": encoding})
    problem(reply, 415, "wrong-media-type")


# Params that are wrong


@pytest.mark.parametrize(
    ("route", "body", "pointer", "words"),
    [
        ("/flux", "{}", "#/prompt", "required"),
        ("/flux", '{"prompt": ""}', "#/prompt", "1 character"),
        ("/flux", '{"prompt": null}', "#/prompt", "string"),
        ("/flux", '{"prompt": 1}', "#/prompt", "string"),
        ("/flux", '{"prompt": ["a"]}', "#/prompt", "string"),
        ("/flux", '{"prompt": "\\ud83e"}', "#/prompt", "nicode"),
        ("/flux", '{"prompt": "\\ude00\\ud83d"}', "#/prompt", "nicode"),
        ("/flux", '{"prompt": "a", "\\ud83e": 1}', "#/\\ud83e", "nicode"),
        ("/workflow", '{"a/\\udfff": {}}', "#/a~1\\udfff", "nicode"),
        ("/flux", '{"prompt": "a", "width": "64"}', "#/width", "integer"),
        ("/flux", '{"prompt": "a", "width": 64.0}', "#/width", "integer"),
        ("/flux", '{"prompt": "a", "width": true}', "#/width", "integer"),
        ("/flux", '{"prompt": "a", "width": 65}', "#/width", "multiple of 8"),
        ("/flux", '{"prompt": "a", "width": 1000000000}', "#/width", "2048"),
        ("/flux", '{"prompt": "a", "width": -64}', "#/width", "16"),
        ("/flux", '{"prompt": "a", "width": 1e400}', "#/width", "integer"),
        ("/flux", '{"prompt": "a", "width": NaN}', "#/width", "integer"),
        ("/flux", '{"prompt": "a", "width": %s}' % ("9" * 5000), "#/width", "integer"),
        ("/flux", '{"prompt": "a", "seed": %s}' % ("9" * 300), "#/seed", "9007199254740991"),
        ("/flux", '{"prompt": "a", "seed": -1}', "#/seed", "0"),
        ("/flux", '{"prompt": "a", "seed": 18446744073709551616}', "#/seed", "9007199254740991"),
        ("/flux", '{"prompt": "a", "cfg": NaN}', "#/cfg", "finite"),
        ("/flux", '{"prompt": "a", "cfg": -Infinity}', "#/cfg", "finite"),
        ("/flux", '{"prompt": "a", "cfg": 1e400}', "#/cfg", "finite"),
        ("/flux", '{"prompt": "a", "cfg": %s}' % ("9" * 5000), "#/cfg", "finite"),
        ("/flux", '{"prompt": "a", "cfg": "1"}', "#/cfg", "number"),
        ("/flux", '{"prompt": "a", "promt": "b"}', "#/promt", 'did you mean "prompt"?'),
        ("/flux", '{"prompt": "a", "__class__": 1}', "#/__class__", "no such param"),
        ("/flux", '{"prompt": "a", "files": {}}', "#/files", "no such param"),
        ("/flux", '{"prompt": "a", "a/b~c": 1}', "#/a~1b~0c", "no such param"),
        ("/wan2", '{"prompt": "a", "length": 32}', "#/length", "multiple of 4"),
        ("/flux", '{"prompt": "a", "steps": 0}', "#/steps", "between 1 and 100; it is 0"),
        ("/flux", '{"prompt": "a", "cfg": 100.5}', "#/cfg", "between 0 and 100; it is 100.5"),
        (
            "/flux",
            '{"prompt": "a", "width": 4097}',
            "#/width",
            "between 16 and 2048, a multiple of 8; it is 4097",
        ),
        (
            "/flux",
            '{"prompt": "a", "width": 4096}',
            "#/width",
            "16 and 2048, a multiple of 8; it is 4096",
        ),
        ("/flux", f'{{"prompt": "a", "seed": {2**53}}}', "#/seed", f"0 and {2**53 - 1}; it is"),
        (
            "/wan2",
            '{"prompt": "a", "length": -8}',
            "#/length",
            "1 and 161, 1 plus a multiple of 4; it is -8",
        ),
        ("/wan2", '{"prompt": "a", "format": "gif"}', "#/format", "'webp' or 'mp4'"),
        ("/flux-lora", '{"prompt": "a"}', "#", "exactly one of lora_id, lora_name"),
        (
            "/flux-lora",
            '{"prompt": "a", "lora_id": "a", "lora_name": "a.pt"}',
            "#",
            "exactly one of lora_id, lora_name",
        ),
        ("/flux-lora", '{"prompt": "a", "lora_id": "../a"}', "#/lora_id", "pattern"),
        ("/flux-lora", '{"prompt": "a", "lora_id": "a\\n"}', "#/lora_id", "pattern"),
        ("/seedvr2", "{}", "#/image", "required"),
        ("/seedvr2", '{"image": ""}', "#/image", "1 character"),
        ("/seedvr2", '{"image": {"url": "http://x"}}', "#/image", "string"),
        ("/seedvr2", '{"image": "\\ud83e"}', "#/image", "nicode"),
        ("/workflow", "{}", "#/workflow", "required"),
        (
            "/workflow",
            '{"workflow": {"\\ud83e": {"class_type": "a", "inputs": {}}}}',
            "#/workflow",
            "nicode",
        ),
        ("/workflow", '{"workflow": "{}"}', "#/workflow", "object"),
    ],
    ids=lambda value: str(value)[:32],
)
def test_params_that_are_wrong(own: Api, route: str, body: str, pointer: str, words: str) -> None:
    document = problem(sent(own, route, body), 422, "bad-params")
    assert pointer in pointers(document)
    error = next(e for e in document["errors"] if e["pointer"] == pointer)
    assert words in error["detail"]
    assert error["code"]
    assert words in document["detail"]


@pytest.mark.parametrize("count", [10_000, 10_001])
def test_a_body_of_keys(own: Api, count: int) -> None:
    """Each wrong one takes its time, and the service has others to answer."""
    content = json.dumps({str(number): 1 for number in range(count)})
    start = time.monotonic()
    problem(sent(own, "/flux", content), 422 if count == 10_000 else 400)
    assert time.monotonic() - start < 2


def test_a_body_of_values(own: Api) -> None:
    """Each takes memory; no request has that many."""
    content = '{"prompt": [' + "1," * 300_001 + "1]}"
    problem(sent(own, "/flux", content), 413, "too-large")
    problem(sent(own, "/workflow", content), 413, "too-large")


def test_a_graph_of_inputs_that_no_class_has(own: Api) -> None:
    """Nobody needs the name that is nearest to each of a hundred thousand."""
    node = {"class_type": "EmptyImage", "inputs": {f"widht{n}": 1 for n in range(1000)}}
    graph = saved() | {f"x{n}": node for n in range(50)}
    graph |= {
        f"s{n}": {"class_type": "PreviewImage", "inputs": {"images": [f"x{n}", 0]}}
        for n in range(50)
    }
    start = time.monotonic()
    document = problem(posted(own, "/workflow", {"workflow": graph}), 422, "bad-graph")
    assert time.monotonic() - start < 5
    assert document["more_errors"] > 40_000


def test_others_are_answered_while_a_graph_is_checked(own: Api) -> None:
    graph = saved()
    graph["1"]["inputs"]["width"] = [[1]] * 100_000
    body = json.dumps({"workflow": graph})

    async def both() -> tuple[httpx.Response, list[float]]:
        client = own.service.client
        sending = asyncio.create_task(client.post("/workflow", content=body, headers=AS_JSON))
        waits: list[float] = []
        while not sending.done():
            start = time.monotonic()
            assert (await client.get("/health")).status_code == 200
            waits.append(time.monotonic() - start)
            await asyncio.sleep(0.01)
        return await sending, waits

    reply, waits = own.run(both())
    problem(reply, 422, "bad-graph")
    assert len(waits) > 1


def test_a_thousand_faults_are_counted(own: Api) -> None:
    body = {f"x{number}" * 30: 1 for number in range(1000)}
    reply = posted(own, "/flux", body)
    document = problem(reply, 422, "bad-params")
    assert len(document["errors"]) + document["more_errors"] == 1001
    assert len(reply.content) < 10_000


@pytest.mark.parametrize(("faults", "end"), [(3, "no such param"), (4, "; and 1 more")])
def test_the_sentence_says_how_many_faults_it_leaves_out(own: Api, faults: int, end: str) -> None:
    body = {**FLUX, **{f"x{number}": 1 for number in range(faults)}}
    document = problem(posted(own, "/flux", body), 422, "bad-params")
    assert document["detail"].startswith(f"{faults} faults in the params: x0: ")
    assert document["detail"].endswith(end)


def test_a_graph_that_is_no_object(own: Api) -> None:
    """The words are those of JSON, not of Python."""
    document = problem(posted(own, "/workflow", {"workflow": [1]}), 422, "bad-params")
    assert document["detail"].endswith("workflow: this should be an object")


@pytest.mark.parametrize(
    "value",
    ["[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500, "1e400", "9" * 5000, '"\\udfff"'],
    ids=lambda value: str(value)[:8],
)
def test_values_deep_in_a_graph(own: Api, value: str) -> None:
    graph = json.dumps(saved()).replace("255", value)
    document = problem(sent(own, "/workflow", f'{{"workflow": {graph}}}'), 422, "bad-params")
    assert pointers(document) == ["#/workflow"]


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "/etc/passwd.safetensors",
        "../x.safetensors",
        "a/../../x.safetensors",
        "a/./x.safetensors",
        "a//x.safetensors",
        "..\\x.safetensors",
        "C:\\x.safetensors",
        "x\0.safetensors",
        "x.safetensors\0",
        "x\n.safetensors",
        "file:///etc/passwd",
        "http://169.254.169.254/x.safetensors",
        "x.txt",
        "",
        " ",
        ".",
        "\ud83e.safetensors",
    ],
)
def test_model_files_stay_in_their_folder(own: Api, name: str) -> None:
    reply = posted(own, "/flux-lora", {**FLUX, "lora_name": name})
    assert pointers(problem(reply, 422, "bad-params")) == ["#/lora_name"]
    reply = posted(own, "/flux-lora", {**FLUX, "lora_id": name})
    assert pointers(problem(reply, 422, "bad-params")) == ["#/lora_id"]


# Media


def bomb(width: int, height: int) -> bytes:
    """Return a small PNG that says that it is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


MEDIA = {
    "metadata of a cloud": "http://169.254.169.254/latest/meta-data/",
    "metadata in IPv6": "http://[fd00:ec2::254]/",
    "mapped": "http://[::ffff:127.0.0.1]/",
    "any": "http://0.0.0.0/",
    "private": "http://10.0.0.1/x.png",
    "integer": "http://2130706433/",
    "octal": "http://0177.0.0.1/",
    "no host": "http:///x",
    "bad port": "http://localhost:99999/",
    "user": "http://localhost@127.0.0.1/",
    "file": "file:///etc/passwd",
    "other scheme": "gopher://127.0.0.1/",
    "ftp": "ftp://127.0.0.1/x.png",
    "javascript": "javascript:alert(1)",
    "path": "../../etc/passwd",
    "absolute path": "/etc/passwd",
    "name": "cat.png",
    "url of text": "data:text/html;base64,PGI+",
    "data without base64": "data:image/png,x",
    "no base64": "!!!!",
    "cut base64": FACE[:-3],
    "url-safe base64": "-_-_",
    "blank": "  ",
    "truncated": text(png()[:-40]),
    "header only": text(png()[:33]),
    "text": text(b"hello, I am a picture"),
    "html": text(b"<svg onload=alert(1)>"),
    "zip": text(b"PK\3\4" + bytes(100)),
    "bomb": text(bomb(100_000, 100_000)),
    "wide bomb": text(bomb(2**31 - 1, 1)),
    "empty": text(bomb(0, 0)),
    "too many pixels": text(png(1001, 1000)),
}


@pytest.mark.parametrize("name", [*MEDIA, "here", "here by name", "here in capitals"])
def test_media_that_are_refused(own: Api, name: str, trap: socket.socket) -> None:
    """In every place that takes them; nothing is fetched."""
    port = trap.getsockname()[1]
    own_addresses = {
        "here": f"http://127.0.0.1:{port}/x.png",
        "here by name": f"http://localhost:{port}/x.png",
        "here in capitals": f"  HTTP://LOCALHOST:{port}/x.png",
    }
    value = (MEDIA | own_addresses)[name]
    reply = posted(own, "/seedvr2", {"image": value})
    assert pointers(problem(reply, 422, "bad-media")) == ["#/image"]
    reply = posted(own, "/flux-instantid", {**FLUX, "reference_image": value})
    assert pointers(problem(reply, 422, "bad-media")) == ["#/reference_image"]
    body = {"workflow": loaded("cat/1.png"), "files": {"cat/1.png": value}}
    reply = posted(own, "/workflow", body)
    assert pointers(problem(reply, 422, "bad-media")) == ["#/files/cat~11.png"]
    assert "/etc" not in reply.text
    if "bomb" in name or "pixels" in name:
        assert "pixels" in reply.text


def test_a_picture_of_just_the_size_is_taken(own: Api) -> None:
    body = {"image": text(png(1000, 1000)), "resolution": 16}
    assert own.post("/seedvr2", body).status_code == 200


def test_a_graph_reads_no_files_of_the_engine(own: Api) -> None:
    """Only what came with it, whatever it is called."""
    for name in ("../../etc/passwd", "/etc/passwd", "a.png [output]", "x" * 64 + ".png"):
        document = problem(posted(own, "/workflow", {"workflow": loaded(name)}), 422, "bad-graph")
        assert pointers(document) == ["#/workflow/1/inputs/image"]


@pytest.mark.parametrize("count", [17, 500])
def test_too_many_files(own: Api, count: int) -> None:
    files = {f"{number}.png": FACE for number in range(count)}
    document = problem(posted(own, "/workflow", {"workflow": saved(), "files": files}), 422)
    assert pointers(document) == ["#/files"]


# Forms


PROMPT = ('name="prompt"', b"a fox")
PICTURE = ('name="image"; filename="x.png"', png())


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("multipart/form-data", multipart(PROMPT)),
        ("multipart/form-data; boundary=", multipart(PROMPT)),
        ("multipart/form-data; boundary=C", multipart(PROMPT)),
        ("multipart/form-data; boundary=" + "x" * 5000, multipart(PROMPT)),
        ("multipart/form-data; boundary=B", b""),
        ("multipart/form-data; boundary=B", b"{}"),
        ("multipart/form-data; boundary=B", multipart(PROMPT, end=b"")),
        ("multipart/form-data; boundary=B", multipart(PROMPT)[:-7]),
        ("multipart/form-data; boundary=B", multipart(PROMPT, PICTURE)[:-30]),
        ("multipart/form-data; boundary=B", multipart(PROMPT, PICTURE)[:120]),
        ("multipart/form-data; boundary=B", multipart(("x", b"a fox"))),
        ("multipart/form-data; boundary=B", b"--B\r\n\r\na fox\r\n--B--\r\n"),
        ("multipart/form-data; boundary=B", b"--B\r\n: x\r\n\r\na fox\r\n--B--\r\n"),
        ("multipart/form-data; boundary=B", b"--B\r\nX" + b"x" * 100_000),
        ("multipart/form-data; boundary=B", multipart(*[('name="x"', b"")] * 501)),
        ("multipart/form-data; boundary=B", multipart(*[PICTURE] * 501)),
        ("multipart/form-data; boundary=B", b"--B-"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_forms_that_are_damaged(own: Api, content_type: str, content: bytes) -> None:
    reply = sent(own, "/flux", content, **{"Content-Type": content_type})
    problem(reply, 400, "bad-body")


@pytest.mark.parametrize(
    ("route", "parts", "pointer"),
    [
        ("/flux", [PROMPT, PROMPT], "#/prompt"),
        ("/flux", [PROMPT, ('name="prompt"; filename="x.txt"', b"a fox")], "#/prompt"),
        ("/flux", [('name="prompt"; filename="x.txt"', b"a fox")], "#/prompt"),
        ("/flux", [PROMPT, ('name="width"', b"6O")], "#/width"),
        ("/flux", [PROMPT, ('name="width"', b"64.5")], "#/width"),
        ("/flux", [PROMPT, ('name="width"', b"9" * 5000)], "#/width"),
        ("/flux", [PROMPT, ('name="cfg"', b"nan")], "#/cfg"),
        ("/flux", [PROMPT, ('name="cfg"', b"1e400")], "#/cfg"),
        ("/flux", [PROMPT, ('name="seed"', b"")], "#/seed"),
        ("/flux", [PROMPT, ('name="promt"', b"x")], "#/promt"),
        ("/flux", [PROMPT, ('name=""', b"x")], "#/"),
        ("/flux", [PROMPT, ('name="image"; filename="x.png"', png())], "#/image"),
        ("/seedvr2", [], "#/image"),
        ("/seedvr2", [PICTURE, PICTURE], "#/image"),
        ("/seedvr2", [PICTURE, ('name="image"', b"x")], "#/image"),
        ("/seedvr2", [('name="image"', b"hello")], "#/image"),
        ("/seedvr2", [('name="image"', b"")], "#/image"),
        ("/seedvr2", [('name="image"', b"http://127.0.0.1/")], "#/image"),
        ("/seedvr2", [('name="image"; filename="../../x.png"', b"")], "#/image"),
        ("/seedvr2", [('name="image"; filename="x.png"', b"hello")], "#/image"),
        ("/seedvr2", [('name="image"; filename="x.png"', png()[:-40])], "#/image"),
        ("/seedvr2", [('name="image"; filename="x.png"', bomb(10**5, 10**5))], "#/image"),
        ("/workflow", [('name="workflow"', b"{")], "#/workflow"),
        ("/workflow", [('name="workflow"', b"\xff")], "#/workflow"),
        ("/workflow", [('name="workflow"', b"[" * 100_000)], "#/workflow"),
        ("/workflow", [('name="workflow"', b'{"a": 1, "a": 1}')], "#/workflow"),
        ("/workflow", [('name="workflow"', b"[]")], "#/workflow"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_forms_that_are_wrong(
    own: Api, route: str, parts: list[tuple[str, bytes]], pointer: str
) -> None:
    document = problem(sent(own, route, multipart(*parts), **AS_FORM), 422)
    assert pointer in pointers(document)


@pytest.mark.parametrize(
    ("names", "pointer"),
    [
        (["cat.png", "cat.png"], "#/files"),
        (["dog.png"], "#/workflow/1/inputs/image"),
        (["cat.png", "../../etc/passwd"], "#/files/..~1..~1etc~1passwd"),
        ([""], "#/files//[key]"),
        (["x" * 300], None),
    ],
)
def test_uploads_for_a_graph(own: Api, names: list[str], pointer: str | None) -> None:
    parts = [('name="workflow"', json.dumps(loaded()).encode())]
    parts += [(f'name="files"; filename="{name}"', png()) for name in names]
    document = problem(sent(own, "/workflow", multipart(*parts), **AS_FORM), 422)
    if pointer:
        assert pointer in pointers(document)


# Bodies over the limit


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=B"])
@pytest.mark.parametrize("way", ["declared", "streamed", "lied about"])
def test_bodies_over_the_limit(own: Api, content_type: str, way: str) -> None:
    """They are read no further, whatever they say of themselves."""
    read: list[int] = []

    async def stream() -> AsyncIterator[bytes]:
        yield multipart(
            PICTURE, end=b'--B\r\nContent-Disposition: form-data; name="x"; filename="y"\r\n\r\n'
        )
        for number in range(40):
            read.append(number)
            yield bytes(100_000)

    headers = {"Content-Type": content_type}
    if way == "declared":
        headers["Content-Length"] = "1000001"
    elif way == "lied about":
        headers["Content-Length"] = "10"
    before = len(own.works)
    reply = own.request("POST", "/seedvr2", content=stream(), headers=headers)
    document = problem(reply, 413, "too-large")
    assert "1000000" in document["detail"]
    assert len(read) == 0 if way == "declared" else 9 <= len(read) <= 11
    assert len(own.works) == before


@pytest.mark.parametrize("length", ["0", "-5", "x", "", "\xb2", "9" * 50, "1e3", "+5"])
def test_lengths_that_are_no_numbers(own: Api, length: str) -> None:
    """The header is a caller's text like any other; a server in front may let it through."""
    headers = {"Content-Type": b"application/json", "Content-Length": length.encode("latin-1")}
    reply = own.request("POST", "/flux", content=json.dumps(FLUX), headers=headers)
    assert reply.status_code == (413 if length == "9" * 50 else 200), reply.text


def test_a_body_at_the_limit(own: Api) -> None:
    body = json.dumps(FLUX)
    reply = own.request("POST", "/flux", content=body.ljust(1_000_000), headers=AS_JSON)
    assert reply.status_code == 200


# Headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "x" * 10_000},
        {"Accept": ",".join(["a/b;q=1"] * 1000)},
        {"Accept": "\xff/*;q=\xff"},
        {"Prefer": "wait=-1"},
        {"Prefer": "wait=x, wait"},
        {"Prefer": "wait=\xb2"},
        {"Prefer": 'wait="3"'},
        {"Prefer": "wait=" + "9" * 400},
        {"Prefer": "=,;,respond-asyn;wait"},
        {"Authorization": "Bearer \xff"},
        {"X-Forwarded-For": "evil"},
    ],
    ids=lambda value: str(value)[:40],
)
def test_headers_that_make_no_sense(own: Api, headers: dict[str, str]) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    assert own.request("POST", "/flux", json=FLUX, headers=encoded).status_code == 200


# Whatever else


class Fake:
    """A backend whose runs are done at once."""

    def __init__(self, package: str) -> None:
        self.journal = part(package, "gateway.journal").Journal()
        self._records = part(package, "gateway.backend")
        self._file = part(package, "utils.comfyui_records").File(
            "9", "images", "x.png", "image/png", png(), animated=False
        )
        self.works: list[Any] = []

    async def submit(self, work: Any, _: Any) -> str:
        self.works.append(work)
        job: str = work.job
        return job

    async def wait(self, job: str, seconds: float) -> Any:  # noqa: ARG002
        records = self._records
        work = next((w for w in reversed(self.works) if w.job == job), None)
        if work is None:
            raise records.UnknownJobError(job)
        result = records.Result((self._file,), 0.5, 0.0, "L40S", 1.0, "comfyui/0.3.71", False)
        return records.Job(
            job, work.route, work.owner, work.seed, 0.0, records.Status.SUCCEEDED, result=result
        )

    async def cancel(self, job: str) -> Any:
        raise self._records.JobEndedError(job)

    async def models(self, folder: str) -> list[str]:  # noqa: ARG002
        return ["character-demo.safetensors"]

    async def workers(self) -> list[Any]:
        return []


@pytest.fixture(scope="module")
def fake(package: str) -> Iterator[Api]:
    """An API whose backend does nothing."""
    with asyncio.Runner() as runner:
        backend: Any = Fake(package)
        backend.backend = backend
        app = new_app(package, backend)
        context = asked(app)
        client = runner.run(context.__aenter__())
        yield Api(runner, Service(app, backend, client))
        runner.run(context.__aexit__(None, None, None))


NUMBERS = st.one_of(
    st.integers(),
    st.integers(0, 4096),
    st.floats(),
    st.sampled_from([2**53, 2**63, 2**64, -(2**64), 10**400, 1e308, 64, 0]),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.text(max_size=20),
    st.text(st.characters(categories=["Cs", "Cc", "L"]), max_size=5),
    st.sampled_from(["a fox", FACE, "data:image/png;base64,", "cat.png", "demo", "mp4", "../x.pt"]),
)
KEYS_OF = st.one_of(
    st.sampled_from(
        """prompt negative_prompt width height steps cfg guidance seed lora_id lora_name lora_strength
        trigger_word reference_image image resolution length fps quality format workflow files
        face_provider""".split()
    ),
    st.text(max_size=6),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(max_size=4), st.sampled_from("123")), inner, max_size=4),
    ),
    max_leaves=12,
)
BODIES = st.one_of(
    VALUES,
    st.dictionaries(KEYS_OF, VALUES, max_size=6),
    st.dictionaries(KEYS_OF, SCALARS, max_size=6).map(lambda more: {**FLUX, **more}),
    st.dictionaries(KEYS_OF, SCALARS, max_size=3).map(lambda more: {"image": FACE, **more}),
)
CLASSES = st.sampled_from(
    """LoadImage SaveImage PreviewImage KSampler CLIPTextEncode EmptyImage ImageInvert FluxGuidance
    CheckpointLoaderSimple VAEDecode EmptyLatentImage PreviewAny LoadAudio CreateVideo SaveVideo
    ConditioningCombine ControlNetApplyAdvanced BasicGuider PrimitiveInt Nonsense""".split()
)
INPUT_NAMES = st.one_of(
    st.sampled_from(
        """image images filename_prefix positive negative conditioning clip model vae text seed steps
        latent_image width height ckpt_name source audio video value guidance samples""".split()
    ),
    st.text(max_size=5),
)
NODES = st.sampled_from(["1", "2", "3", "4", "57:8", ""])
LINKS = st.tuples(st.one_of(NODES, NUMBERS), st.one_of(st.integers(-1, 3), SCALARS)).map(list)
GRAPHS = st.dictionaries(
    NODES,
    st.fixed_dictionaries(
        {
            "class_type": CLASSES,
            "inputs": st.dictionaries(INPUT_NAMES, st.one_of(LINKS, VALUES), max_size=6),
        },
        optional={"_meta": VALUES, "is_changed": VALUES},
    ),
    min_size=1,
    max_size=5,
)
HOSTILE = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def checked(fake: Api, route: str, **options: Any) -> None:
    """Check that the reply is a picture, from one job, or a problem of the caller's, from none."""
    fake.works.clear()
    reply = fake.request("POST", route, **options)
    if reply.status_code == 200:
        assert reply.headers["content-type"] in ("image/png", "application/json")
    else:
        assert 400 <= reply.status_code < 500, reply.text
        problem(reply, reply.status_code)
    assert len(fake.works) == (reply.status_code == 200)


@HOSTILE
@given(body=BODIES, route=st.sampled_from(ROUTES))
def test_any_json_ends_well(fake: Api, body: object, route: str) -> None:
    checked(fake, route, content=json.dumps(body), headers=AS_JSON)


@HOSTILE
@given(
    graph=GRAPHS,
    more=st.fixed_dictionaries(
        {},
        optional={
            "prompt": st.one_of(st.none(), st.text(max_size=5)),
            "files": st.dictionaries(st.sampled_from(["cat.png", "a"]), st.just(FACE)),
        },
    ),
)
def test_any_graph_ends_well(fake: Api, graph: Body, more: Body) -> None:
    content = json.dumps({"workflow": graph, **more})
    checked(fake, "/workflow", content=content, headers=AS_JSON)


@HOSTILE
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=50).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(
            st.tuples(
                st.one_of(
                    KEYS_OF.map(lambda key: f'name="{key}"'),
                    KEYS_OF.map(lambda key: f'name="{key}"; filename="x.png"'),
                ).map(lambda head: head.encode("utf-8", "replace").decode()),
                st.one_of(st.binary(max_size=20), st.just(png()), st.sampled_from([b"64", b"1"])),
            ),
            max_size=4,
        ).map(lambda parts: multipart(*parts)),
    ),
    content_type=st.sampled_from(
        ["application/json", "multipart/form-data; boundary=B", "multipart/form-data", "text/plain"]
    ),
    route=st.sampled_from(ROUTES),
)
def test_any_bytes_end_well(fake: Api, content: bytes, content_type: str, route: str) -> None:
    checked(fake, route, content=content, headers={"Content-Type": content_type})


@HOSTILE
@given(
    headers=st.dictionaries(
        st.sampled_from(
            ["Accept", "Prefer", "Authorization", "Origin", "Content-Length", "Content-Encoding"]
        ),
        st.text(st.characters(max_codepoint=255), max_size=20),
    )
)
def test_any_headers_end_well(fake: Api, headers: dict[str, str]) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    checked(fake, "/flux", json=FLUX, headers=encoded)


def test_a_fault_of_the_service(fake: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 500, and says nothing of what is inside."""

    async def fails(_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(fake.service.backend, "submit", fails)

    async def test() -> httpx.Response:
        transport = httpx.ASGITransport(fake.service.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/flux", json=FLUX)

    reply = fake.run(test())
    problem(reply, 500, "internal-error")
    assert "secret" not in reply.text


# Clients that go away


async def opened(url: str, route: str, body: bytes, length: int | None = None) -> Any:
    """Send a request through a socket, and return its reader and writer."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {route} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return reader, writer


def test_a_client_that_leaves_cancels_its_job(tmp_path: Path) -> None:
    """The one that runs and the one that waits; who stays is served."""

    async def test(api: Service) -> None:
        async with listening(api.app) as url:
            clients = [
                await opened(url, "/flux", json.dumps({**LONG, "seed": seed}).encode())
                for seed in (1, 2)
            ]
            while len(api.backend.works) < 2:
                await asyncio.sleep(0.005)
            jobs = [work.job for work in api.backend.works]
            assert api.engine is not None
            while api.engine.engine.remaining < 2:
                await asyncio.sleep(0.005)
            staying = asyncio.create_task(api.client.post("/flux", json={**FLUX, "seed": 3}))
            for _, writer in reversed(clients):
                writer.close()
                await writer.wait_closed()
            for job in jobs:
                # Who asks the API for a job wants it to go on.
                while (await api.backend.wait(job, 1)).status != "cancelled":
                    pass
            staid = await staying
            assert (staid.status_code, staid.headers["x-seed"]) == (200, "3")
            assert api.engine.engine.remaining == 0

    serve(tmp_path, test, pace=0.5)


def test_a_client_that_leaves_in_the_middle_of_its_body(tmp_path: Path) -> None:
    async def test(api: Service) -> None:
        async with listening(api.app) as url:
            for length in (10_000, 1_000_000_000_000):
                reader, writer = await opened(url, "/flux", b'{"prompt":', length)
                if length > 10_000:
                    assert b" 413 " in await reader.readline()
                writer.close()
                await writer.wait_closed()
            async with httpx.AsyncClient() as client:
                assert (await client.post(f"{url}/flux", json=FLUX)).status_code == 200
        assert len(api.backend.works) == 1

    serve(tmp_path, test)


def test_a_body_that_comes_slowly(tmp_path: Path) -> None:
    """In pieces that even cut a letter in two; the parser waits for all of them."""
    body = json.dumps({**FLUX, "prompt": "füchse"}, ensure_ascii=False).encode()

    async def test(api: Service) -> None:
        async with listening(api.app) as url:
            reader, writer = await opened(url, "/flux", b"", len(body))
            for start in range(0, len(body), 7):
                writer.write(body[start : start + 7])
                await writer.drain()
                # What was sent is read before the rest is.
                await api.client.get("/health")
            assert b" 200 " in await reader.readline()
            writer.close()
            await writer.wait_closed()
        assert api.backend.works[0].graph["6"]["inputs"]["text"] == "füchse"

    serve(tmp_path, test)


def test_a_body_over_the_limit_through_a_socket(own: Api) -> None:
    """Who is still sending reads the answer all the same."""

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(80):
            yield bytes(100_000)

    async def test() -> None:
        async with listening(own.service.app) as url, httpx.AsyncClient() as client:
            for content in (bytes(8_000_000), stream()):
                reply = await client.post(f"{url}/flux", content=content, headers=AS_JSON)
                problem(reply, 413, "too-large")
            assert (await client.post(f"{url}/flux", json=FLUX)).status_code == 200

    own.run(test())


# Many at once


def test_eight_at_once(tmp_path: Path) -> None:
    """They run one after another; each pays for its own time, and gets its own picture."""

    async def test(api: Service) -> None:
        bodies = [{**FLUX, "steps": 4, "seed": seed} for seed in range(8)]
        clock = asyncio.get_running_loop().time
        start = clock()
        replies = await asyncio.gather(*(api.client.post("/flux", json=body) for body in bodies))
        wall = clock() - start
        assert [reply.status_code for reply in replies] == [200] * 8
        assert [reply.headers["x-seed"] for reply in replies] == [str(n) for n in range(8)]
        seconds = [float(reply.headers["x-execution-time-sec"]) for reply in replies]
        assert min(seconds) >= 0.08
        assert sum(seconds) <= wall
        queued = sorted(float(reply.headers["x-queue-time-sec"]) for reply in replies)
        assert all(after - before >= 0.04 for before, after in pairwise(queued))
        assert queued[-1] <= wall - seconds[-1] / 2
        assert len({reply.content for reply in replies}) == 8
        for body, reply in zip(bodies, replies, strict=True):
            alone = await api.client.post("/flux", json=body)
            assert alone.content == reply.content

    serve(tmp_path, test, pace=0.02)


# What is kept


async def kept(api: Service, count: int) -> list[bool]:
    """Run jobs, and say which of them are there still."""
    jobs: list[str] = []
    for seed in range(count):
        reply = await api.client.post("/flux", json={**FLUX, "seed": seed})
        jobs.append(reply.headers["x-job-id"])
        assert (await api.client.get(f"/jobs/{jobs[-1]}/result")).content == reply.content
    found = [await api.client.get(f"/jobs/{job}") for job in jobs]
    for reply in found:
        if reply.status_code != 200:
            problem(reply, 404, "unknown-job")
    return [reply.status_code == 200 for reply in found]


def test_no_more_jobs_are_kept_than_said(tmp_path: Path) -> None:
    async def test(api: Service) -> None:
        assert await kept(api, 5) == [False, False, True, True, True]

    serve(tmp_path, test, keep_jobs=3)


def test_no_more_bytes_are_kept_than_said(tmp_path: Path) -> None:
    """But always the last one."""

    async def test(api: Service) -> None:
        assert await kept(api, 4) == [False, False, True, True]
        wide = {**FLUX, "width": 512, "height": 512}
        reply = await api.client.post("/flux", json=wide)
        assert len(reply.content) > 12_000
        result = await api.client.get(f"/jobs/{reply.headers['x-job-id']}/result")
        assert result.content == reply.content
        assert await kept(api, 1) == [True]
        gone = await api.client.get(f"/jobs/{reply.headers['x-job-id']}")
        problem(gone, 404, "unknown-job")

    serve(tmp_path, test, keep_bytes=12_000)


def test_events_count_among_the_bytes_that_are_kept(tmp_path: Path) -> None:
    async def test(api: Service) -> None:
        first, last = [await api.started("/flux", {**FLUX, "seed": n}) for n in (1, 2)]
        for job in (first, last):
            await api.until(job, "succeeded")
        assert (await api.client.get(f"/jobs/{first}")).status_code == 200
        chatty = await api.started("/flux", {**FLUX, "seed": 3})
        log = api.backend.backend._running[chatty].log
        log.add(log._events[0]._replace(data="x" * 100_000))
        await api.until(chatty, "succeeded")
        for job in (first, last):
            problem(await api.client.get(f"/jobs/{job}"), 404, "unknown-job")

    serve(tmp_path, test, pace=0.05, keep_bytes=100_000)


@pytest.mark.parametrize("name", ["x", "x" * 8000, "job_" + "u" * 26, "job_" + "0" * 27, "worker"])
def test_what_is_no_id_of_a_job_is_asked_of_no_backend(
    own: Api, package: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(*_: object) -> None:
        pytest.fail("it was asked")

    monkeypatch.setattr(f"{package}.gateway.local.LocalBackend.wait", wait)
    for path in ("", "/result", "/outputs/0", "/events"):
        problem(own.get(f"/jobs/{name}{path}"), 404, "unknown-job")
    problem(own.request("DELETE", f"/jobs/{name}"), 404, "unknown-job")


def test_large_outputs_are_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In files without a name, which go when nobody holds their job any more."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "temporary").mkdir()

    def on_disk() -> int:
        links: list[str] = []
        for path in [*Path("/proc/self/fd").iterdir()]:
            with contextlib.suppress(FileNotFoundError):
                links.append(str(path.readlink()))
        return sum(link.startswith(str(tmp_path / "temporary")) for link in links)

    async def test(api: Service) -> None:
        small = await api.client.post("/flux", json={**FLUX, "seed": 1})
        assert len(small.content) < 5_000
        assert on_disk() == 0
        body = {**FLUX, "width": 512, "height": 512, "seed": 2}
        replies = await asyncio.gather(
            *(api.client.post("/flux", json={**body, "steps": n}) for n in (1, 2))
        )
        assert on_disk() == 2
        assert list((tmp_path / "temporary").iterdir()) == []
        for reply in replies:
            assert len(reply.content) > 9_000
            job = reply.headers["x-job-id"]
            for path in ("result", "outputs/0"):
                again = await asyncio.gather(
                    *(api.client.get(f"/jobs/{job}/{path}") for _ in range(3))
                )
                assert all(found.content == reply.content for found in again)
            with monkeypatch.context() as patch:
                # What is said of a job needs no byte of its outputs.
                patch.setattr("build.gateway.spool.Spooled.read", lambda _: pytest.fail("read"))
                about = (await api.client.get(f"/jobs/{job}")).json()
            assert about["outputs"][0]["bytes"] == len(reply.content)
            assert (about["outputs"][0]["width"], about["outputs"][0]["data"]) == (512, None)
        for seed in range(3, 6):
            await api.client.post("/flux", json={**FLUX, "seed": seed})
        gc.collect()
        assert on_disk() == 0

    serve(tmp_path / "base", test, keep_jobs=3, most_in_memory=5_000)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("a fault")], ids=repr
)
def test_an_output_that_cannot_be_kept_on_disk_is_not_lost(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failing(_: bytes) -> None:
        raise error

    async def test(api: Service) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("build.gateway.local.Spooled", failing)
            reply = await api.client.post("/flux", json=FLUX)
        assert reply.status_code == 200
        job = reply.headers["x-job-id"]
        result = await api.client.get(f"/jobs/{job}/result")
        assert result.content == reply.content
        # It takes no place of those that run.
        assert not api.backend.backend._running
        assert f"job {job}: its outputs stay in memory" in caplog.text

    serve(tmp_path, test, most_in_memory=0)


def test_what_is_not_sent_is_not_read(
    tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that a job made, a reply brings one output; as JSON, those that are not too large."""
    sizes: list[int] = []

    async def test(api: Service) -> None:
        body = {"workflow": graph_of_sizes(16, 512, 64)}
        reply = await api.client.post("/workflow", json=body, headers={"Accept": "image/*"})
        assert reply.status_code == 200, reply.text
        job = (await api.client.get(f"/jobs/{reply.headers['x-job-id']}")).json()
        bytes_of = [output["bytes"] for output in job["outputs"]]
        assert len(bytes_of) == len(set(bytes_of)) == 3

        read = part(package, "gateway.spool").Spooled.read

        def noted(spooled: Any) -> bytes:
            data: bytes = read(spooled)
            sizes.append(len(data))
            return data

        monkeypatch.setattr(f"{package}.gateway.spool.Spooled.read", noted)
        path = f"/jobs/{job['job']}"
        again = await api.client.get(f"{path}/result", headers={"Accept": "image/*"})
        assert again.content == reply.content
        assert sizes == [bytes_of[0]]
        sizes.clear()
        await api.client.get(f"{path}/outputs/1")
        assert sizes == [bytes_of[1]]
        sizes.clear()
        monkeypatch.setattr(f"{package}.gateway.replies._MOST_DATA", max(bytes_of))
        found = await api.client.get(f"{path}/result", headers={"Accept": "application/json"})
        small = [size for size in bytes_of if size < max(bytes_of)]
        assert sizes == small
        outputs = found.json()["outputs"]
        assert [o["bytes"] for o in outputs if o["data"] is not None] == small
        sizes.clear()
        monkeypatch.setattr(f"{package}.gateway.replies._MOST_DATA_TOGETHER", max(small))
        found = await api.client.get(f"{path}/result", headers={"Accept": "application/json"})
        assert sizes == [o["bytes"] for o in found.json()["outputs"] if o["data"]] == small[:1]

    serve(tmp_path, test, package=package, most_in_memory=0)


def graph_of_sizes(*sizes: int) -> dict[str, Any]:
    """Return a graph that makes a picture of each size, in an output node of its own."""
    graph: dict[str, Any] = {}
    for number, size in enumerate(sizes):
        inputs = {"width": size, "height": size, "batch_size": 1, "color": number}
        graph[f"1{number}"] = {"class_type": "EmptyImage", "inputs": inputs}
        graph[f"2{number}"] = {
            "class_type": "SaveImage",
            "inputs": {"images": [f"1{number}", 0], "filename_prefix": f"p{number}"},
        }
    return graph


def test_a_job_that_runs_is_kept(tmp_path: Path) -> None:
    async def test(api: Service) -> None:
        first = await api.started("/flux", {**FLUX, "steps": 20, "seed": 100})
        for seed in range(3):
            await api.started("/flux", {**FLUX, "seed": seed})
        ended = await api.until(first, lambda job: job["status"] not in ("queued", "running"))
        assert ended["status"] == "succeeded"

    serve(tmp_path, test, pace=0.01, keep_jobs=1)


# What a review found


@pytest.mark.parametrize("charset", ["punycode", "latin-1", "nonsense", '"UTF-16"'])
def test_other_charsets_are_not_read(own: Api, charset: str) -> None:
    """Some of Python's codecs take hours for a megabyte."""
    content_type = f"multipart/form-data; boundary=B; charset={charset}"
    content = multipart(('name="prompt"', b"a" * 1000))
    reply = sent(own, "/flux", content, **{"Content-Type": content_type})
    problem(reply, 415, "wrong-media-type")


def test_a_field_that_is_no_utf_8(own: Api) -> None:
    content = multipart(('name="prompt"', b"a \xff\xfe\xed\xa0\x80 fox"))
    document = problem(sent(own, "/flux", content, **AS_FORM), 422, "bad-params")
    assert pointers(document) == ["#/prompt"]


@pytest.mark.parametrize(
    ("class_type", "inputs"),
    [
        ("LoadImage", {"image": {"__value__": "/etc/passwd"}}),
        ("LoadImage", {"image": {"__value__": "../../outside.png"}}),
        ("LoadImageOutput", {"image": "../../outside.png [output]"}),
        ("LoadImageOutput", {"image": "old.png [output]"}),
        ("LoadLatent", {"latent": "../../../etc/passwd"}),
        ("LoadImageSetFromFolderNode", {"folder": "../.."}),
        ("CheckpointLoaderSimple", {"ckpt_name": {"__value__": "../../x.safetensors"}}),
    ],
)
def test_a_graph_reaches_no_other_files(
    own: Api, class_type: str, inputs: dict[str, object]
) -> None:
    """Files that the caller did not send are out of reach, however their names are written."""
    graph = {
        "1": {"class_type": class_type, "inputs": inputs},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    submitted = len(own.works)
    document = problem(own.post("/workflow", {"workflow": graph}), 422, "bad-graph")
    name = next(iter(inputs))
    assert f"#/workflow/1/inputs/{name}" in pointers(document)
    assert len(own.works) == submitted


def test_a_graph_of_too_many_nodes(own: Api) -> None:
    node = {"class_type": "EmptyImage", "inputs": {}}
    graph = {str(n): node for n in range(2001)}
    document = problem(own.post("/workflow", {"workflow": graph}), 422, "bad-params")
    assert pointers(document) == ["#/workflow"]
