"""The graph checks: each code on small graphs, and beside a real engine's recorded verdicts."""

import gzip
import json
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.graph.catalog import ClassType, open_catalog
from generator.graph.check import Finding, Unknown, check_graph

from .conftest import ROOT

RECORDED = json.loads(
    gzip.decompress((ROOT / "tests" / "fixtures" / "verdicts.json.gz").read_bytes())
)["graphs"]
CATALOG = open_catalog(ROOT / "generator" / "catalogs", version="0.3.71")
# What the engine accepts, and is refused here all the same.
STRICTER = {
    "unknown_input": {"unknown-input"},
    "bad_combo_v3": {"not-an-option", "unlisted-file"},
    "literal_for_link": {"literal-for-link"},
}
Graph = dict[str, Any]


def classes_of(graph: object) -> dict[str, ClassType]:
    """Return the classes that the core and the packs have, by node."""
    found = {}
    for node, content in graph.items() if isinstance(graph, dict) else ():
        name = content.get("class_type") if isinstance(content, dict) else None
        if isinstance(name, str) and (known := CATALOG.get(name, CATALOG.packs)):
            found[node] = known[0]
    return found


def check(graph: object, **options: Any) -> list[Finding]:
    return check_graph(graph, classes_of(graph), CATALOG, **options)


def node(class_type: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def image(**inputs: object) -> dict[str, Any]:
    return node("EmptyImage", **{"width": 64, "height": 64, "batch_size": 1, "color": 0} | inputs)


def saved(*link: object, **nodes: Any) -> Graph:
    """Return a graph that saves what a node gives; `n1` is node 1."""
    graph = {name.removeprefix("n"): content for name, content in nodes.items()}
    return graph | {"9": node("SaveImage", images=list(link or ("1", 0)), filename_prefix="x")}


def sampler(**inputs: object) -> Graph:
    """Return a graph of a sampler whose links all lead somewhere; `inputs` replace its own."""
    own = {
        "model": ["1", 0],
        "positive": ["2", 0],
        "negative": ["2", 0],
        "latent_image": ["3", 0],
        "seed": 1,
        "steps": 20,
        "cfg": 4.98,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": 1.0,
    }
    return saved(
        "5",
        0,
        n1=node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
        n2=node("CLIPTextEncode", text="x", clip=["1", 1]),
        n3=node("EmptyLatentImage", width=64, height=64, batch_size=1),
        n4={"class_type": "KSampler", "inputs": {k: v for k, v in (own | inputs).items() if v}},
        n5=node("VAEDecode", samples=["4", 0], vae=["1", 2]),
    )


def video(**inputs: object) -> Graph:
    return {
        "1": image(),
        "2": node("CreateVideo", images=["1", 0], fps=16),
        "3": node(
            "SaveVideo",
            **{"video": ["2", 0], "filename_prefix": "x", "format": "auto", "codec": "auto"}
            | inputs,
        ),
    }


LISTED = "the engine goes by the extension, and by / between folders; listed are {}"
ALL = ".bin, .ckpt, .pkl, .pt, .pt2, .pth, .safetensors, .sft"
WRONG: dict[str, tuple[Graph, list[tuple[str, str | None, str | None, str | None]]]] = {
    "a required link is absent": (
        sampler(model=None),
        [("missing-input", "4", "model", "link it to an output of type MODEL")],
    ),
    "a required value is absent": (
        sampler(steps=None),
        [("missing-input", "4", "steps", "the default is 20")],
    ),
    "an input that the class lacks": (
        sampler(seeed=1),
        [("unknown-input", "4", "seeed", 'did you mean "seed"?')],
    ),
    "an input that is near none": (sampler(zz=1), [("unknown-input", "4", "zz", None)]),
    "a dangling link in such an input": (
        sampler(zz=["7", 0]),
        [("unknown-input", "4", "zz", None), ("dangling-link", "4", "zz", None)],
    ),
    "an input of the frontend": (
        {"1": image(), "2": node("PreviewAny", source=["1", 0], preview="")},
        [("frontend-input", "2", "preview", "leave it out")],
    ),
    "a literal for an input that takes anything": (
        {"1": node("PreviewAny", source="x")},
        [("literal-for-link", "1", "source", 'a link is ["node id", output number]')],
    ),
    "a text that is no integer": (
        sampler(steps="many"),
        [("literal-type", "4", "steps", "write a whole number")],
    ),
    "a text that int() does not read": (
        sampler(steps="64.5"),
        [("literal-type", "4", "steps", "write a whole number")],
    ),
    "a mapping for a number": (
        sampler(cfg={"a": 1}),
        [("literal-type", "4", "cfg", "write a number")],
    ),
    "infinity for an integer": (
        sampler(steps=float("inf")),
        [("literal-type", "4", "steps", "write a whole number")],
    ),
    "a number for a file": (
        saved(n1=node("LoadImage", image=5)),
        [("literal-type", "1", "image", None)],
    ),
    "below the minimum": (sampler(steps=-1), [("out-of-range", "4", "steps", None)]),
    "above the maximum": (sampler(denoise=1.01), [("out-of-range", "4", "denoise", None)]),
    "out of range as a text": (sampler(steps="99999"), [("out-of-range", "4", "steps", None)]),
    "out of range in a wrapped value": (
        sampler(steps={"__value__": 99999}),
        [("out-of-range", "4", "steps", None)],
    ),
    "off the step": (
        saved(n1=node("VAEDecode", samples=["2", 0], vae=["3", 2])) | {
            "2": node("EmptyLatentImage", width=100, height=64, batch_size=1),
            "3": node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
        },
        [("off-step", "2", "width", "nearest are 96 and 104")],
    ),
    "no option of a checked choice": (
        sampler(sampler_name="eulr"),
        [("not-an-option", "4", "sampler_name", 'did you mean "euler"?')],
    ),
    "no option of a V3 choice": (
        video(format="bogus"),
        [("not-an-option", "3", "format", 'options are "auto", "mp4"')],
    ),
    "a name that no model folder lists": (
        sampler() | {"1": node("CheckpointLoaderSimple", ckpt_name="a.txt")},
        [("unlisted-file", "1", "ckpt_name", LISTED.format(ALL))],
    ),
    "a quantized model in ComfyUI's own loader": (
        {
            "1": node("UNETLoader", unet_name="flux1-dev-Q4_K_S.gguf", weight_dtype="default"),
            "2": node("PreviewAny", source=["1", 0]),
        },
        [("unlisted-file", "1", "unet_name", LISTED.format(ALL))],
    ),
    "another model in a loader of quantized ones": (
        {
            "1": node("UnetLoaderGGUF", unet_name="flux1-dev.safetensors"),
            "2": node("PreviewAny", source=["1", 0]),
        },
        [("unlisted-file", "1", "unet_name", LISTED.format(".gguf"))],
    ),
    "a choice that nobody knows": (
        {
            "1": node("DiffusersLoader", model_path="sdxl"),
            "2": node("PreviewAny", source=["1", 0]),
        },
        [
            (
                "unchecked-file",
                "1",
                "model_path",
                "a model that it names stands under models: of the workflow, else it is not there",
            )
        ],
    ),
    "a text for a 3D file": (
        {"1": node("Preview3D", model_file="hello")},
        [
            (
                "unlisted-file",
                "1",
                "model_file",
                "the engine goes by the extension, and by / between folders",
            )
        ],
    ),
    "a name that no input for pictures lists": (
        saved(n1=node("LoadImage", image="a")),
        [
            (
                "unlisted-file",
                "1",
                "image",
                "the engine goes by the extension, and by / between folders",
            )
        ],
    ),
    "a literal for a link": (
        sampler(model="flux"),
        [("literal-for-link", "4", "model", 'a link is ["node id", output number]')],
    ),
    "a link with an integer for the node": (
        saved(1, 0, n1=image()),
        [("bad-link", "9", "images", 'node ids are texts: ["1", 0]')],
    ),
    "a link with a float for the output": (
        saved("1", 0.0, n1=image()),
        [("bad-link", "9", "images", 'outputs are whole numbers from 0: ["1", 0]')],
    ),
    "a list for a number": (
        saved(n1=image(width=[1, 2, 3])),
        [("bad-link", "1", "width", 'a list that is a value goes in {"__value__": …}')],
    ),
    "a slot in a list": (
        saved(n1=image(width=[Unknown(), 0])),
        [("bad-link", "1", "width", 'a list that is a value goes in {"__value__": …}')],
    ),
    "a link of one item": (saved(n1=node("ImageInvert", image=["2"])), [("bad-link", "1", "image", None)]),
    "a link to nowhere": (saved("7", 0), [("dangling-link", "9", "images", None)]),
    "a link to nowhere, of an unknown class": (
        saved(n1=node("NoSuchClass", any=["7", 0])),
        [("dangling-link", "1", "any", None)],
    ),
    "an output beyond the last": (
        saved("1", 1, n1=image()),
        [("bad-output-index", "9", "images", 'did you mean ["1", 0]?')],
    ),
    "an output before the first": (
        sampler(model=["1", -4]),
        [("bad-output-index", "4", "model", 'did you mean ["1", 0]?')],
    ),
    "an output of another type": (
        sampler(model=["1", 1]),
        [("link-type", "4", "model", 'did you mean ["1", 0]?')],
    ),
    "an output of a node without the type": (
        sampler(latent_image=["2", 0]),
        [
            ("unreachable", "3", None, "link it to what needs it, or remove it"),
            ("link-type", "4", "latent_image", None),
        ],
    ),
    "an INT for a FLOAT": (
        sampler(cfg=["6", 0]) | {"6": node("PrimitiveInt", value=1)},
        [("link-type", "4", "cfg", None)],
    ),
    "a STRING for a choice": (
        sampler(sampler_name=["6", 0]) | {"6": node("PrimitiveString", value="euler")},
        [("link-type", "4", "sampler_name", None)],
    ),
    "a link for a file": (
        saved(n1=node("LoadImage", image=["2", 0]), n2=node("easy ifElse", boolean=True, on_true=["3", 0], on_false=["3", 0]), n3=image()),
        [("link-type", "1", "image", None)],
    ),
    "a node that waits for itself": (
        saved(n1=node("ImageInvert", image=["1", 0])),
        [("cycle", "1", "image", "link it to a node that does not need this one")],
    ),
    "nodes that wait for each other": (
        saved(n1=node("ImageInvert", image=["2", 0]), n2=node("ImageInvert", image=["1", 0])),
        [
            ("cycle", "1", "image", "link it to a node that does not need this one"),
            ("cycle", "2", "image", "link it to a node that does not need this one"),
        ],
    ),
    "no output node": (
        {"1": image(width="x")},
        [
            ("no-output", None, None, "add a node that saves or previews, such as SaveImage"),
            ("literal-type", "1", "width", "write a whole number"),
        ],
    ),
    "an empty graph": (
        {},
        [("no-output", None, None, "add a node that saves or previews, such as SaveImage")],
    ),
    "a node that no output needs": (
        saved(n1=image(), n2=image(width="x")),
        [("unreachable", "2", None, "link it to what needs it, or remove it")],
    ),
    "a node that is none": (
        saved(n1=image()) | {"2": 5},
        [("bad-graph", "2", None, None)],
    ),
    "a node without a class": (
        saved(n1=image()) | {"2": {"inputs": {}}},
        [("bad-graph", "2", None, "add its class_type, or remove the node")],
    ),
    "a node without inputs": (
        saved(n1={"class_type": "EmptyImage"}),
        [("bad-graph", "1", None, "add inputs: {}")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str) -> None:
    graph, expected = WRONG[name]
    found = check(graph)
    assert [(f.code, f.node, f.input, f.hint) for f in found] == expected
    warnings = {"frontend-input", "off-step", "unreachable", "deprecated"}
    assert {f.code for f in found if f.severity == "warning"} <= warnings
    assert not {f.code for f in found if f.severity == "error"} & warnings


RIGHT: dict[str, Graph] = {
    "a sampler": sampler(),
    "a text that is an integer": sampler(steps="64"),
    "a float for an integer": sampler(steps=64.7),
    "a boolean for an integer": sampler(steps=True),
    "a wrapped value": sampler(steps={"__value__": 64}),
    "a float off the step": sampler(cfg=4.987654),
    "an unknown value": sampler(steps=Unknown(), sampler_name=Unknown(), model=Unknown()),
    "an unknown value, wrapped": sampler(steps={"__value__": Unknown()}),
    "a list that is wrapped": {"1": node("PreviewAny", source={"__value__": [1, 2, 3]})},
    "an empty latent of another model": sampler(latent_image=["6", 0])
    | {"6": node("EmptySD3LatentImage", width=64, height=64, batch_size=1)}
    | {"3": node("PreviewImage", images=["5", 0])},
    "null for an optional link": saved(
        n1=node("ImageStitch", image1=["2", 0], image2=None, direction="right",
                match_image_size=True, spacing_width=0, spacing_color="white"),
        n2=image(),
    ),
    "the type of a union": {
        "1": node("VHS_VideoCombine", images=["2", 0], frame_rate=8, loop_count=0,
                  filename_prefix="x", format="video/h264-mp4", pingpong=False, save_output=True,
                  pix_fmt="yuv420p", crf=19),
        "2": image(),
    },
    "inputs beyond the schema of an open class": saved(
        n1=node("ImageBatchMulti", inputcount=3, image_1=["2", 0], image_2=["2", 0],
                image_3=["2", 0]),
        n2=image(),
    ),
    "an option that is no file": sampler()
    | {"6": node("VAELoader", vae_name="pixel_space")}
    | {"5": node("VAEDecode", samples=["4", 0], vae=["6", 0])},
    "an output counted from the last": saved("1", -1, n1=image()),
    "a wildcard": {"1": node("PreviewAny", source=["2", 0]), "2": image()},
    "a class that nobody knows": saved(n1=node("NoSuchClass", a=[1], b="x")),
    "what only a class that nobody knows needs": {"1": image(), "2": node("No", a=["1", 0])},
    "an upload in another folder": saved(n1=node("LoadImage", image="a.png [output]")),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    assert check(RIGHT[name]) == []


def test_deprecated_and_api_nodes() -> None:
    """A deprecated class is a warning; a vendor's API an error, unless it is allowed."""
    deprecated = next(n for n in CATALOG.core.header["classes"] if CATALOG.get(n, ())[0].deprecated)
    found = check({"1": node(deprecated), "2": node("PreviewAny", source=["1", 0])})
    assert ("deprecated", "warning", "1") in [(f.code, f.severity, f.node) for f in found]
    vendor = next(n for n in CATALOG.core.header["classes"] if CATALOG.get(n, ())[0].api_node)
    graph = {"1": node(vendor), "2": node("PreviewAny", source=["1", 0])}
    assert ("api-node", "error", "1") in [(f.code, f.severity, f.node) for f in check(graph)]
    assert all("replace it" in (f.hint or "") for f in check(graph) if f.code == "api-node")
    assert "api-node" not in {f.code for f in check(graph, allow_api_nodes=True)}


def test_faults_of_what_a_chosen_output_does_not_need() -> None:
    graph = saved(n1=image(), n2=image(width="x"), n3=node("PreviewImage", images=["2", 0]))
    assert [(f.code, f.node) for f in check(graph)] == [("literal-type", "2")]
    found = check(graph, outputs=["9"])
    assert [(f.code, f.node) for f in found] == [("unreachable", "2"), ("unreachable", "3")]


def test_messages_quote_nothing_that_repaints_a_terminal() -> None:
    graph = sampler(**{"\u202e\x1b[2J\ud800": 1}, sampler_name="\x1b\n\u2066", model="\x00" * 999)
    huge = 10**5000
    graph["4"]["inputs"] |= {"steps": huge, "positive": [huge, 0], "negative": ["2", huge]}
    graph["5"]["inputs"] = {"samples": ["4", 0], "vae": [huge, huge]}
    assert len(check(graph)) > 5
    for finding in check(graph):
        assert f"{finding.message}{finding.hint or ''}".isprintable()
        assert len(finding.message) < 500


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"{case['kind']}-{case['name']}")
def test_recorded_verdicts(case: dict[str, Any]) -> None:
    """What the engine refuses is refused, at the nodes that it names; what it runs is clean."""
    found = [f for f in check(case["graph"], allow_api_nodes=True) if f.severity == "error"]
    verdict = case["verdict"]
    unknown = {
        name
        for name, content in case["graph"].items()
        if "class_type" in content and content["class_type"] not in CATALOG.core
    }
    assert verdict["node_errors"].keys() <= {f.node for f in found}
    if not verdict["valid"]:
        assert found or unknown
    elif not verdict["node_errors"]:
        assert {f.code for f in found} <= STRICTER.get(case["kind"], set())


@pytest.mark.parametrize("kind", STRICTER)
def test_what_only_this_check_refuses(kind: str) -> None:
    """The planted fault is found."""
    for case in (case for case in RECORDED if case["kind"] == kind):
        codes = {f.code for f in check(case["graph"]) if f.severity == "error"}
        assert codes & STRICTER[kind], case["name"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda item: (
        st.lists(item, max_size=4) | st.dictionaries(st.text(max_size=5), item, max_size=4)
    ),
    max_leaves=10,
)
IDS = st.sampled_from(["1", "2", "3"])
LINKS = st.tuples(IDS, st.integers(-1, 3)).map(list)
NAMES = st.sampled_from(
    ["KSampler", "LoadImage", "SaveImage", "PreviewAny", "SaveVideo", "VHS_VideoCombine", "No", ""]
)


@st.composite
def nodes(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(NAMES)
    known = CATALOG.get(name, CATALOG.packs)
    inputs = st.sampled_from([*known[0].inputs]) if known else st.text(max_size=3)
    return {
        "class_type": name,
        "inputs": draw(st.dictionaries(inputs, LINKS | JSON, max_size=8)),
    }


@settings(max_examples=300)
@given(JSON | st.dictionaries(st.text(max_size=3) | IDS, nodes() | JSON, max_size=5))
def test_nothing_that_json_holds_raises(graph: object) -> None:
    for finding in check(graph):
        assert finding.severity in ("error", "warning")
        assert finding.message.isprintable()


def test_large_graphs_take_linear_time() -> None:
    """Chains, and one cycle of all nodes, of which each is reported."""
    size = 2_000
    chain = saved(
        str(size - 1),
        0,
        **{f"n{i}": node("ImageInvert", image=[str(i - 1), 0]) for i in range(10, size)},
        n8=image(),
    )
    chain["10"]["inputs"]["image"] = ["8", 0]
    start = process_time()
    assert [(f.code, f.node) for f in check(chain)] == [("too-deep", "959")]
    chain["10"]["inputs"]["image"] = [str(size - 1), 0]
    assert sum(f.code == "cycle" for f in check(chain)) == size - 10
    assert process_time() - start < 2


def test_a_chain_that_the_engine_can_follow() -> None:
    chain = saved(
        "948", 0, **{f"n{i}": node("ImageInvert", image=[str(i - 1), 0]) for i in range(1, 949)}
    )
    chain = {name: content for name, content in chain.items() if name != "9"} | {
        "0": image(),
        "9": node("ImageInvert", image=["8", 0]),
        "save": node("PreviewImage", images=["948", 0]),
    }
    assert check(chain) == []
    chain["0"] = node("ImageInvert", image=["-1", 0])
    chain["-1"] = image()
    assert [(f.code, f.node) for f in check(chain)] == [("too-deep", "save")]
