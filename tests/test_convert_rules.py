"""What the canvas holds and what becomes of it: rules that the templates show in part only."""

import copy
from collections.abc import Sequence
from typing import Any, Final

import pytest

from generator.graph.catalog import open_catalog
from generator.graph.convert import Conversion, convert
from generator.project import CATALOGS

CATALOG: Final = open_catalog(CATALOGS, version="0.3.71")

Node = dict[str, Any]
Link = Sequence[Any]


def node(id: int | str, type: str, *values: Any, **more: Any) -> Node:
    return {"id": id, "type": type, "widgets_values": list(values), **more}


def canvas(nodes: Sequence[Node], links: Sequence[Link] = (), **more: Any) -> dict[str, Any]:
    """Return a workflow; each link is origin, slot, target, name of the input, type."""
    nodes = copy.deepcopy(list(nodes))
    by_id = {n["id"]: n for n in nodes}
    table = []
    for key, (origin, slot, target, name, kind) in enumerate(links, start=1):
        outputs = by_id[origin].setdefault("outputs", []) if origin in by_id else []
        while len(outputs) <= slot:
            outputs.append({"name": "", "type": kind, "links": []})
        if outputs:
            outputs[slot]["links"].append(key)
        inputs = by_id[target].setdefault("inputs", [])
        named = [i for i in inputs if i["name"] == name]
        if not named:
            named = [{"name": name, "type": kind, "link": None}]
            inputs += named
        named[0]["link"] = key
        table.append([key, origin, slot, target, inputs.index(named[0]), kind])
    return {"nodes": nodes, "links": table, "version": 0.4, **more}


def converted(document: Any) -> dict[str, Any]:
    """Return the inputs of a workflow's nodes."""
    made = convert(document, CATALOG)
    assert [f for f in made.findings if f.severity == "error"] == []
    return {key: content["inputs"] for key, content in made.graph.items()}


def faults(document: Any) -> list[tuple[str, str | None, str | None]]:
    made: Conversion = convert(document, CATALOG)
    return [(f.code, f.node, f.input) for f in made.findings if f.severity == "error"]


EMPTY = node(1, "EmptyImage", 64, 48, 1, 0)
INVERT = node(2, "ImageInvert")
SAVE = node(3, "SaveImage", "x")
CHAIN: Final = [(1, 0, 2, "image", "IMAGE"), (2, 0, 3, "images", "IMAGE")]
ALL: Final = {
    "1": {"width": 64, "height": 48, "batch_size": 1, "color": 0},
    "2": {"image": ["1", 0]},
    "3": {"filename_prefix": "x", "images": ["2", 0]},
}


def test_widgets_and_links() -> None:
    assert converted(canvas([EMPTY, INVERT, SAVE], CHAIN)) == ALL


def test_links_as_mappings() -> None:
    """Version 1 of the format has them so."""
    document = canvas([EMPTY, INVERT, SAVE], CHAIN)
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    document["links"] = [dict(zip(keys, link, strict=True)) for link in document["links"]]
    assert converted(document | {"version": 1}) == ALL


@pytest.mark.parametrize("mode", [2, 4], ids=["muted", "bypassed"])
def test_nodes_that_do_not_run(mode: int) -> None:
    """A muted node leaves its links' ends open; a bypassed one passes on what comes in."""
    found = converted(canvas([EMPTY, INVERT | {"mode": mode}, SAVE], CHAIN))
    assert found["3"].get("images") == (["1", 0] if mode == 4 else None)
    assert "2" not in found


def test_a_bypassed_node_passes_on_what_fits() -> None:
    """LoraLoader gives MODEL and CLIP; VAEDecode takes no IMAGE, so nothing comes out."""
    nodes = [
        node(1, "CheckpointLoaderSimple", "a.safetensors"),
        node(2, "LoraLoader", "b.safetensors", 1, 1, mode=4),
        node(3, "CLIPTextEncode", "a fox"),
        node(4, "VAEDecode", mode=4),
        node(5, "SaveImage", "x"),
        node(6, "KSampler", 5, "randomize", 20, 8, "euler", "normal", 1),
    ]
    links = [
        (1, 0, 2, "model", "MODEL"),
        (1, 1, 2, "clip", "CLIP"),
        (2, 1, 3, "clip", "CLIP"),
        (2, 0, 6, "model", "MODEL"),
        (6, 0, 4, "samples", "LATENT"),
        (1, 2, 4, "vae", "VAE"),
        (4, 0, 5, "images", "IMAGE"),
    ]
    found = converted(canvas(nodes, links))
    assert found["3"]["clip"] == ["1", 1]
    assert found["6"]["model"] == ["1", 0]
    assert found["5"] == {"filename_prefix": "x"}


def test_reroutes() -> None:
    """Two in a row, and one that nothing comes into."""
    nodes = [EMPTY, node(10, "Reroute"), node(11, "Reroute"), SAVE, node(4, "ImageInvert"),
             node(12, "Reroute")]  # fmt: skip
    links = [
        (1, 0, 10, "", "*"),
        (10, 0, 11, "", "*"),
        (11, 0, 3, "images", "IMAGE"),
        (12, 0, 4, "image", "IMAGE"),
    ]
    document = canvas(nodes, links)
    document["nodes"][-1]["inputs"] = [{"name": "", "type": "*", "link": None}]
    found = converted(document)
    assert found["3"]["images"] == ["1", 0]
    assert found["4"] == {}


def test_get_and_set_nodes() -> None:
    nodes = [EMPTY, node(10, "SetNode", "pic"), node(11, "GetNode", "pic"), SAVE]
    links = [(1, 0, 10, "IMAGE", "IMAGE"), (11, 0, 3, "images", "IMAGE")]
    assert converted(canvas(nodes, links))["3"]["images"] == ["1", 0]


def test_a_primitive_node() -> None:
    """Its value goes into all widgets that it is linked to, rounded to what all of them take."""
    nodes = [EMPTY, node(2, "EmptyLatentImage", 64, 64, 1), node(9, "PrimitiveNode", 100.6, "fixed"),
             node(3, "PreviewAny"), node(4, "PreviewAny")]  # fmt: skip
    links = [
        (9, 0, 1, "width", "INT"),
        (9, 0, 2, "width", "INT"),
        (1, 0, 3, "source", "*"),
        (2, 0, 4, "source", "*"),
    ]
    found = converted(canvas(nodes, links))
    assert (found["1"]["width"], found["2"]["width"]) == (104, 104)
    found = converted(canvas([nodes[0], nodes[2], nodes[3]], [links[0], links[2]]))
    assert found["1"]["width"] == 101


@pytest.mark.parametrize(("value", "held"), [(7.26, 7.3), (7, 7), (500, 100)])
def test_a_primitive_node_with_a_fraction(value: Any, held: Any) -> None:
    nodes = [node(1, "KSampler", 5, "fixed", 20, 8, "euler", "normal", 1),
             node(9, "PrimitiveNode", value)]  # fmt: skip
    assert converted(canvas(nodes, [(9, 0, 1, "cfg", "FLOAT")]))["1"]["cfg"] == held


def test_what_widgets_hold() -> None:
    """Text areas hold texts with plain line ends; a list would be taken for a link."""
    found = converted(canvas([node(1, "CLIPTextEncode", "a\r\nb"), node(2, "CLIPTextEncode", 5)]))
    assert (found["1"]["text"], found["2"]["text"]) == ("a\nb", "5")
    found = converted(canvas([node(1, "PreviewImage"), node(2, "EmptyImage", [1, 2], 1, 1, 0)]))
    assert found["2"]["width"] == {"__value__": [1, 2]}


def test_prefixes_of_file_names() -> None:
    """They may ask for other nodes' values, by the node's alias, class or title; dates stay."""
    prefix = "%date:yyyy%/%EmptyImage.width%-%Big one.height%-%Nobody.x%-%EmptyImage.x%-%width%"
    nodes = [EMPTY, node(2, "EmptyImage", 7, 8, 1, 0, title="Big one"), SAVE]
    nodes[2] = node(3, "SaveImage", prefix)
    found = converted(canvas(nodes))["3"]["filename_prefix"]
    assert found == "%date:yyyy%/64-8-%Nobody.x%-%EmptyImage.x%-%width%"


def test_values_by_name() -> None:
    document = canvas([node(1, "EmptyImage")])
    document["nodes"][0]["widgets_values"] = {"color": 3, "width": 8, "height": 9, "batch_size": 1}
    assert converted(document)["1"] == {"width": 8, "height": 9, "batch_size": 1, "color": 3}


def test_widgets_beyond_the_schema() -> None:
    """VHS_VideoCombine's go by format, rgthree's Power Lora Loader has one for each LoRA."""
    values = {"frame_rate": 8, "loop_count": 0, "filename_prefix": "x", "format": "video/h264-mp4",
              "pingpong": False, "save_output": True, "crf": 19, "videopreview": {}}  # fmt: skip
    loras = [{}, {"type": "Header"}, {"on": True, "lora": "a.safetensors", "strength": 1,
             "strengthTwo": None}, {"on": False, "lora": "b.safetensors", "strength": 2}, {}, ""]  # fmt: skip
    document = canvas([node(1, "VHS_VideoCombine"), node(2, "Power Lora Loader (rgthree)", *loras)])
    document["nodes"][0]["widgets_values"] = values
    found = converted(document)
    assert found["1"] == {name: value for name, value in values.items() if name != "videopreview"}
    assert found["2"] == {
        "lora_1": {"on": True, "lora": "a.safetensors", "strength": 1},
        "lora_2": {"on": False, "lora": "b.safetensors", "strength": 2},
    }


def test_choices_in_a_text() -> None:
    made = convert(canvas([node(1, "CLIPTextEncode", "{red|blue} fox // not that")]), CATALOG)
    assert made.graph["1"]["inputs"]["text"] == "red fox "
    assert [(f.code, f.severity, f.node, f.input) for f in made.findings] == [
        ("dynamic-prompt", "warning", "1", "text")
    ]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("a {b|c{d|e}} f", "a b f"),
        ("{a{b|c}", "ab"),
        ("x // y\nz /* w\n */!", "x \nz !"),
        ("a } b | c", "a } b | c"),
        (r"\{a\|b\} {q}", "{a|b} q"),
        ("{x|{y|z}|w} {k{l|m}n|o}!", "x kln!"),
        (r"{\}|b} \n", r"} \n"),
        ("{" * 100_000, ""),
        ("{|a}", ""),
    ],
)
def test_how_texts_choose(text: str, chosen: str) -> None:
    assert converted(canvas([node(1, "CLIPTextEncode", text)]))["1"]["text"] == chosen


def subgraph(key: str, nodes: Sequence[Node], links: Sequence[Link] = (), **more: Any) -> Node:
    """Return the definition of a subgraph; -10 and -20 are its inputs and outputs."""
    made = canvas(nodes, [link for link in links if link[0] != -10 and link[2] != -20])
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    table = [dict(zip(keys, link, strict=True)) for link in made["links"]]
    inputs: dict[int, Node] = {}
    outputs: dict[int, Node] = {}
    by_id = {n["id"]: n for n in made["nodes"]}
    for number, (origin, slot, target, name, kind) in enumerate(links, start=100):
        if origin == -10:
            found = inputs.setdefault(slot, {"name": name, "type": kind, "linkIds": []})
            found["linkIds"].append(number)
            slots = by_id[target].setdefault("inputs", [])
            slots.append({"name": name, "type": kind, "link": number, "widget": {"name": name}})
            place = [n.name for n in _slots(by_id[target]["type"])].index(name)
            table.append(dict(zip(keys, (number, -10, slot, target, place, kind), strict=True)))
        elif target == -20:
            outputs[name] = {"name": kind, "type": kind, "linkIds": [number]}
            table.append(dict(zip(keys, (number, origin, slot, -20, name, kind), strict=True)))
    return {
        "id": key,
        "name": key,
        "version": 1,
        "state": {},
        "inputNode": {"id": -10, "bounding": [0, 0, 1, 1]},
        "outputNode": {"id": -20, "bounding": [0, 0, 1, 1]},
        "nodes": made["nodes"],
        "links": table,
        "inputs": [inputs[slot] for slot in sorted(inputs)],
        "outputs": [outputs[slot] for slot in sorted(outputs)],
        **more,
    }


def _slots(type: str) -> list[Any]:
    from generator.graph.ui_records import UiInput
    from generator.graph.widgets import inputs_shown

    [class_type] = CATALOG.get(type, ())
    return [UiInput(name, taken.type) for name, taken, _ in inputs_shown(class_type)]


INNER: Final = subgraph(
    "inner",
    [node(7, "EmptyImage", 64, 48, 1, 0), node(8, "ImageInvert")],
    [
        (7, 0, 8, "image", "IMAGE"),
        (-10, 0, 7, "width", "INT"),
        (8, 0, -20, 0, "IMAGE"),
    ],
)


def test_a_subgraph() -> None:
    """Its nodes come under the id of the node that stands for it, whose widgets count."""
    first = node(57, "inner", 100)
    second = node(58, "inner", 200)
    nodes = [first, second, SAVE, node(4, "PreviewImage")]
    links = [(57, 0, 3, "images", "IMAGE"), (58, 0, 4, "images", "IMAGE")]
    found = converted(canvas(nodes, links, definitions={"subgraphs": [INNER]}))
    assert found["3"]["images"] == ["57:8", 0]
    assert found["57:8"] == {"image": ["57:7", 0]}
    assert [found[key]["width"] for key in ("57:7", "58:7")] == [100, 200]


def test_proxy_widgets_name_the_values() -> None:
    first = node(57, "inner", None, 300)
    first["properties"] = {"proxyWidgets": [["7", "height"], ["-1", "width"]]}
    document = canvas(
        [first, SAVE],
        [(57, 0, 3, "images", "IMAGE")],
        definitions={"subgraphs": [INNER]},
    )
    found = converted(document)["57:7"]
    assert (found["width"], found["height"]) == (300, 48)


def test_proxies_alone_leave_the_values_to_the_inner_nodes() -> None:
    first = node(57, "inner", 300)
    first["properties"] = {"proxyWidgets": [["7", "width"]]}
    document = canvas(
        [first, SAVE],
        [(57, 0, 3, "images", "IMAGE")],
        definitions={"subgraphs": [INNER]},
    )
    assert converted(document)["57:7"]["width"] == 64


def test_a_link_into_a_subgraph_goes_before_its_widget() -> None:
    nodes = [node(57, "inner", 100), SAVE, node(5, "PrimitiveInt", 7, "fixed")]
    links = [(57, 0, 3, "images", "IMAGE"), (5, 0, 57, "width", "INT")]
    found = converted(canvas(nodes, links, definitions={"subgraphs": [INNER]}))
    assert found["57:7"]["width"] == ["5", 0]


def test_subgraphs_in_subgraphs() -> None:
    outer = subgraph("outer", [node(4, "inner", 100)], [(4, 0, -20, 0, "IMAGE")])
    document = canvas(
        [node(9, "outer"), SAVE],
        [(9, 0, 3, "images", "IMAGE")],
        definitions={"subgraphs": [outer, INNER]},
    )
    found = converted(document)
    assert list(found) == ["3", "9:4:7", "9:4:8"]
    assert found["3"]["images"] == ["9:4:8", 0]
    assert found["9:4:7"]["width"] == 100


def test_a_bypassed_subgraph() -> None:
    inner = subgraph(
        "tint",
        [node(8, "ImageInvert", mode=4)],
        [(8, 0, -20, 0, "IMAGE"), (-10, 0, 8, "image", "IMAGE")],
    )
    nodes = [EMPTY, node(57, "tint", mode=4), SAVE]
    links = [(1, 0, 57, "image", "IMAGE"), (57, 0, 3, "images", "IMAGE")]
    found = converted(canvas(nodes, links, definitions={"subgraphs": [inner]}))
    assert found["3"]["images"] == ["1", 0]
    assert list(found) == ["1", "3"]


def test_a_group_node() -> None:
    """Its widgets and links are those of the nodes in it, and so are its values."""
    group: dict[str, Any] = {
        "nodes": [node(-1, "EmptyImage", 64, 48, 1, 0), node(-1, "ImageBlend", 0.5, "normal")],
        "links": [[0, 0, 1, 0, 7, "IMAGE"]],
        "external": [],
    }
    for inner in group["nodes"]:
        inner["outputs"] = [{"name": "IMAGE", "type": "IMAGE", "links": []}]
    group["nodes"][1]["inputs"] = [
        {"name": "image1", "type": "IMAGE"},
        {"name": "image2", "type": "IMAGE"},
    ]
    nodes = [EMPTY, node(20, "workflow>tint", 32, 33, 2, 5, 0.25, "screen"), SAVE]
    links = [(1, 0, 20, "image2", "IMAGE"), (20, 0, 3, "images", "IMAGE")]
    found = converted(canvas(nodes, links, extra={"groupNodes": {"tint": group}}))
    assert found["20:0"] == {"width": 32, "height": 33, "batch_size": 2, "color": 5}
    assert found["20:1"] == {
        "blend_factor": 0.25,
        "blend_mode": "screen",
        "image1": ["20:0", 0],
        "image2": ["1", 0],
    }
    assert found["3"]["images"] == ["20:1", 0]


def test_what_the_canvas_knows() -> None:
    document = canvas(
        [
            EMPTY | {"title": "Start", "pos": [10, 20], "properties": {"cnr_id": "comfy-core"}},
            node(57, "inner", 100, title="Tint", pos={"0": 1, "1": 2}),
        ],
        definitions={"subgraphs": [INNER]},
        groups=[{"title": "Step 1", "bounding": [0, 0, 100, 100]}],
    )
    made = convert(document, CATALOG)
    first = made.canvas["1"]
    assert (first.title, first.position, first.groups) == ("Start", (10, 20), ("Step 1",))
    assert first.properties == {"cnr_id": "comfy-core"}
    assert made.graph["1"]["_meta"] == {"title": "Start"}
    assert made.canvas["57:7"].subgraphs == ("Tint",)


def test_a_class_that_nobody_knows() -> None:
    """It is named with the pack that the file names, and the rest is still converted."""
    unknown = node(2, "NoSuchThing", 5, properties={"cnr_id": "such-pack"})
    made = convert(canvas([EMPTY, unknown], [(1, 0, 2, "image", "IMAGE")]), CATALOG)
    [fault] = made.findings
    assert (fault.code, fault.node) == ("unknown-class", "2")
    assert fault.hint == 'the file says it is of pack "such-pack"'
    assert made.graph["2"]["inputs"] == {"image": ["1", 0]}


def test_values_of_a_class_that_nobody_knows() -> None:
    """Newer files name them; else the file's inputs do, when there are as many."""
    named = {"size": 5, "seed": 7, "control_after_generate": "fixed"}
    first = node(1, "NoSuchThing", 5, 7, "fixed", widgets_values_named=named)
    slots = [{"name": name, "type": "INT", "widget": {"name": name}} for name in ("a", "b")]
    document = canvas([first, node(2, "NoSuchThing", 1, 2, inputs=slots)])
    made = convert(document, CATALOG)
    assert made.graph["1"]["inputs"] == {"size": 5, "seed": 7}
    assert made.graph["2"]["inputs"] == {"a": 1, "b": 2}


def test_a_subgraph_that_holds_itself() -> None:
    inner = subgraph("a", [node(1, "b")])
    other = subgraph("b", [node(2, "a")])
    document = canvas([node(9, "a")], definitions={"subgraphs": [inner, other]})
    assert faults(document) == [("cycle", "2", None)]


@pytest.mark.parametrize("wide", [2, 10])
def test_subgraphs_that_hold_too_many_nodes(wide: int) -> None:
    """Few definitions may stand for more nodes than there are atoms."""
    definitions = [
        subgraph(f"s{n}", [node(i, f"s{n + 1}") for i in range(wide)]) for n in range(60)
    ]
    definitions.append(subgraph("s60", [node(1, "ImageInvert")]))
    document = canvas([node(9, "s0")], definitions={"subgraphs": definitions})
    assert [code for code, _, _ in faults(document)] == ["too-large"]


def test_subgraphs_that_nest_too_deep() -> None:
    definitions = [subgraph(f"s{n}", [node(1, f"s{n + 1}")]) for n in range(5000)]
    document = canvas([node(9, "s0")], definitions={"subgraphs": definitions})
    assert [code for code, _, _ in faults(document)] == ["too-large"]


def test_reroutes_in_a_circle() -> None:
    nodes = [node(10, "Reroute"), node(11, "Reroute"), SAVE]
    links = [(10, 0, 11, "", "*"), (11, 0, 10, "", "*"), (11, 0, 3, "images", "IMAGE")]
    assert faults(canvas(nodes, links)) == [("cycle", "3", "images")]


def test_links_to_nowhere() -> None:
    document = canvas([EMPTY, INVERT, SAVE], CHAIN)
    document["nodes"][2]["inputs"][0]["link"] = 77
    assert faults(document) == [("dangling-link", "3", "images")]
    document = canvas([EMPTY, INVERT, SAVE], CHAIN)
    del document["nodes"][0]
    assert faults(document) == [("dangling-link", "2", "image")]


def test_widgets_without_values() -> None:
    document = canvas([node(1, "CheckpointLoaderSimple"), node(2, "KSampler")])
    assert faults(document)[0] == ("missing-input", "1", "ckpt_name")
    assert ("missing-input", "2", "seed") in faults(document)
    null = canvas([node(1, "CheckpointLoaderSimple", None)])
    assert faults(null) == [("missing-input", "1", "ckpt_name")]
    made = convert(canvas([node(1, "SaveImage")]), CATALOG)
    assert made.graph["1"]["inputs"] == {"filename_prefix": "ComfyUI"}
    assert [(f.code, f.severity) for f in made.findings] == [("default-taken", "warning")]


def test_a_newer_version() -> None:
    assert faults(canvas([EMPTY]) | {"version": 2}) == [("other-format", None, None)]
