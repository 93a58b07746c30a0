"""generator/graph/prompt.py: which text is the positive one, in the graphs that people build."""

import copy
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.graph.catalog import open_catalog
from generator.graph.prompt import positive_encoders, with_positive_text
from generator.graph.records import Graph
from generator.project import CATALOGS

NEW = "a blue whale"


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def text(value: Any, **inputs: Any) -> dict[str, Any]:
    return node("CLIPTextEncode", text=value, clip=["4", 1], **inputs)


def sampler(positive: list[Any], negative: list[Any], **inputs: Any) -> dict[str, Any]:
    return node("KSampler", seed=1, model=["4", 0], positive=positive, negative=negative, **inputs)


def control(positive: list[Any], negative: list[Any]) -> dict[str, Any]:
    return node(
        "ControlNetApplyAdvanced", positive=positive, negative=negative, control_net=["8", 0]
    )


LOADER = {"4": node("CheckpointLoaderSimple", ckpt_name="x.safetensors")}
TEXTS = LOADER | {"6": text("a fox"), "7": text("blurry")}

# Graphs, and the inputs that hold their positive text.
GRAPHS: dict[str, tuple[Graph, str]] = {
    "KSampler": (TEXTS | {"3": sampler(["6", 0], ["7", 0])}, "6.text"),
    "KSampler, ids the other way round": (TEXTS | {"3": sampler(["7", 0], ["6", 0])}, "7.text"),
    "KSamplerAdvanced": (
        TEXTS | {"3": node("KSamplerAdvanced", positive=["6", 0], negative=["7", 0])},
        "6.text",
    ),
    "SamplerCustom": (
        TEXTS | {"3": node("SamplerCustom", positive=["6", 0], negative=["7", 0])},
        "6.text",
    ),
    "SamplerCustomAdvanced, BasicGuider": (
        TEXTS
        | {
            "3": node("SamplerCustomAdvanced", guider=["22", 0], noise=["25", 0]),
            "22": node("BasicGuider", model=["4", 0], conditioning=["26", 0]),
            "25": node("RandomNoise", noise_seed=1),
            "26": node("FluxGuidance", conditioning=["6", 0], guidance=3.5),
        },
        "6.text",
    ),
    "SamplerCustomAdvanced, CFGGuider": (
        TEXTS
        | {
            "3": node("SamplerCustomAdvanced", guider=["22", 0]),
            "22": node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=1.0),
        },
        "6.text",
    ),
    "SamplerCustomAdvanced, DualCFGGuider": (
        TEXTS
        | {
            "3": node("SamplerCustomAdvanced", guider=["22", 0]),
            "22": node("DualCFGGuider", cond1=["6", 0], cond2=["7", 0], negative=["7", 0]),
        },
        "6.text",
    ),
    "KSampler, then BasicGuider": (
        TEXTS
        | {
            "3": sampler(["6", 0], ["7", 0]),
            "9": text("a fox, sharp"),
            "22": node("BasicGuider", model=["4", 0], conditioning=["9", 0]),
            "23": node("SamplerCustomAdvanced", guider=["22", 0], latent_image=["3", 0]),
        },
        "6.text 9.text",
    ),
    "BasicGuider behind ControlNetApplyAdvanced": (
        TEXTS
        | {
            "12": control(["6", 0], ["7", 0]),
            "22": node("BasicGuider", model=["4", 0], conditioning=["12", 0]),
            "23": node("SamplerCustomAdvanced", guider=["22", 0]),
        },
        "6.text",
    ),
    "ControlNetApplyAdvanced": (
        TEXTS | {"12": control(["6", 0], ["7", 0]), "3": sampler(["12", 0], ["12", 1])},
        "6.text",
    ),
    "ControlNetApplyAdvanced, twice": (
        TEXTS
        | {
            "12": control(["6", 0], ["7", 0]),
            "13": control(["12", 0], ["12", 1]),
            "3": sampler(["13", 0], ["13", 1]),
        },
        "6.text",
    ),
    "ControlNetApplyAdvanced, crossed before the sampler": (
        TEXTS | {"12": control(["7", 0], ["6", 0]), "3": sampler(["12", 1], ["12", 0])},
        "6.text",
    ),
    "ControlNetApplyAdvanced, one for each side": (
        TEXTS
        | {
            "12": control(["6", 0], ["6", 0]),
            "13": control(["7", 0], ["7", 0]),
            "3": sampler(["12", 0], ["13", 0]),
        },
        "6.text",
    ),
    "ApplyInstantID, whose first output is the model": (
        TEXTS
        | {
            "12": node(
                "ApplyInstantID", model=["4", 0], positive=["6", 0], negative=["7", 0], weight=0.8
            ),
            "3": sampler(["12", 1], ["12", 2]),
        },
        "6.text",
    ),
    "InpaintModelConditioning": (
        TEXTS
        | {
            "12": node("InpaintModelConditioning", positive=["6", 0], negative=["7", 0]),
            "3": sampler(["12", 0], ["12", 1], latent_image=["12", 2]),
        },
        "6.text",
    ),
    "FluxGuidance and StyleModelApply": (
        TEXTS
        | {
            "26": node("FluxGuidance", conditioning=["27", 0], guidance=3.5),
            "27": node("StyleModelApply", conditioning=["6", 0], style_model=["28", 0]),
            "3": sampler(["26", 0], ["7", 0]),
        },
        "6.text",
    ),
    "ConditioningCombine": (
        TEXTS
        | {
            "8": text("in the snow"),
            "12": node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["8", 0]),
            "3": sampler(["12", 0], ["7", 0]),
        },
        "6.text 8.text",
    ),
    "ConditioningAverage, of two Combines": (
        TEXTS
        | {
            "8": text("in the snow"),
            "12": node("ConditioningConcat", conditioning_to=["6", 0], conditioning_from=["8", 0]),
            "13": node(
                "ConditioningAverage", conditioning_to=["12", 0], conditioning_from=["8", 0]
            ),
            "3": sampler(["13", 0], ["7", 0]),
        },
        "6.text 8.text",
    ),
    "PairConditioningCombine": (
        TEXTS
        | {
            "8": text("in the snow"),
            "12": node(
                "PairConditioningCombine",
                positive_A=["6", 0],
                negative_A=["7", 0],
                positive_B=["8", 0],
                negative_B=["7", 0],
            ),
            "3": sampler(["12", 0], ["12", 1]),
        },
        "6.text 8.text",
    ),
    "CLIPTextEncodeSDXL": (
        LOADER
        | {
            "6": node("CLIPTextEncodeSDXL", text_g="a fox", text_l="snow", width=1024),
            "7": node("CLIPTextEncodeSDXL", text_g="blurry", text_l="dull", width=1024),
            "3": sampler(["6", 0], ["7", 0]),
        },
        "6.text_g 6.text_l",
    ),
    "CLIPTextEncodeFlux": (
        LOADER
        | {
            "6": node("CLIPTextEncodeFlux", clip_l="a fox", t5xxl="a fox in snow", guidance=3.5),
            "7": node("CLIPTextEncodeFlux", clip_l="", t5xxl="", guidance=3.5),
            "3": sampler(["6", 0], ["7", 0]),
        },
        "6.clip_l 6.t5xxl",
    ),
    "TextEncodeQwenImageEdit": (
        LOADER
        | {
            "6": node("TextEncodeQwenImageEdit", clip=["4", 1], prompt="a fox", image=["1", 0]),
            "7": node("TextEncodeQwenImageEdit", clip=["4", 1], prompt="", image=["1", 0]),
            "3": sampler(["6", 0], ["7", 0]),
        },
        "6.prompt",
    ),
    "ConditioningZeroOut of the positive": (
        LOADER
        | {
            "6": text("a fox"),
            "12": node("ConditioningZeroOut", conditioning=["6", 0]),
            "3": sampler(["6", 0], ["12", 0]),
        },
        "6.text",
    ),
    "ConditioningZeroOut of another text": (
        TEXTS
        | {
            "12": node("ConditioningZeroOut", conditioning=["7", 0]),
            "3": sampler(["6", 0], ["12", 0]),
        },
        "6.text",
    ),
    "text over a link that the negative shares": (
        LOADER
        | {
            "1": node("PrimitiveString", value="a fox"),
            "6": text(["1", 0]),
            "7": text(["1", 0]),
            "3": sampler(["6", 0], ["7", 0]),
        },
        "6.text",
    ),
    "two samplers with texts of their own": (
        TEXTS
        | {
            "8": text("a fox, sharp"),
            "9": text("soft"),
            "3": sampler(["6", 0], ["7", 0]),
            "5": sampler(["8", 0], ["9", 0], latent_image=["3", 0]),
        },
        "6.text 8.text",
    ),
    "two samplers of one text": (
        TEXTS
        | {
            "3": sampler(["6", 0], ["7", 0]),
            "5": sampler(["6", 0], ["7", 0], latent_image=["3", 0]),
        },
        "6.text",
    ),
    "no negative": (
        LOADER | {"6": text("a fox"), "3": node("XlabsSampler", positive=["6", 0])},
        "6.text",
    ),
    "subgraph ids, and an index that is a float": (
        {"57:6": text("a fox"), "57:7": text("dull"), "57:3": sampler(["57:6", 0.0], ["57:7", 0])},
        "57:6.text",
    ),
    "a text that feeds nothing": (
        TEXTS | {"8": text("unused"), "3": sampler(["6", 0], ["7", 0])},
        "6.text",
    ),
    "a loop beside the text": (
        TEXTS
        | {
            "12": node("ConditioningCombine", conditioning_1=["13", 0], conditioning_2=["6", 0]),
            "13": node("FluxGuidance", conditioning=["12", 0], guidance=3.5),
            "3": sampler(["13", 0], ["7", 0]),
        },
        "6.text",
    ),
}
NO_TEXT: dict[str, Graph] = {
    "empty": {},
    "no sampler": TEXTS | {"9": node("SaveImage", images=["8", 0])},
    "positive is no link": TEXTS | {"3": node("KSampler", positive="6", negative=["7", 0])},
    "positive is half a link": TEXTS | {"3": node("KSampler", positive=["6"], negative=["7", 0])},
    "no such node": LOADER | {"3": sampler(["6", 0], ["7", 0])},
    "a node without text": LOADER | {"3": sampler(["4", 0], ["4", 0])},
    "negative only": TEXTS | {"3": node("KSampler", negative=["7", 0])},
    "a loop of one": {"3": sampler(["3", 0], ["3", 0])},
    "a loop of two": {
        "1": node("FluxGuidance", conditioning=["2", 0]),
        "2": node("FluxGuidance", conditioning=["1", 0]),
        "3": sampler(["1", 0], ["2", 0]),
    },
    "a loop of pairs": {
        "1": control(["2", 0], ["2", 1]),
        "2": control(["1", 1], ["1", 0]),
        "3": sampler(["1", 0], ["1", 1]),
    },
}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_positive_text_is_replaced_and_nothing_else(name: str) -> None:
    graph, places = GRAPHS[name]
    before = copy.deepcopy(graph)
    expected = copy.deepcopy(graph)
    for place in places.split():
        changed, input_name = place.rsplit(".", 1)
        assert input_name in expected[changed]["inputs"]
        expected[changed]["inputs"][input_name] = NEW
    assert with_positive_text(graph, NEW) == expected
    assert graph == before


@pytest.mark.parametrize("name", NO_TEXT)
def test_without_a_positive_text(name: str) -> None:
    """A fault, for the caller asked for another text and would get none."""
    assert positive_encoders(NO_TEXT[name]) == []
    with pytest.raises(ValueError, match="no positive text"):
        with_positive_text(NO_TEXT[name], NEW)


def test_encoders_come_in_the_order_of_the_graph() -> None:
    graph = {
        "9": text("c"),
        "3": sampler(["12", 0], ["7", 0]),
        "1": text("a"),
        "7": text("dull"),
        "12": node("ConditioningCombine", conditioning_1=["1", 0], conditioning_2=["5", 0]),
        "5": node("ConditioningConcat", conditioning_to=["9", 0], conditioning_from=["1", 0]),
    }
    assert positive_encoders(graph) == ["9", "1"]
    assert list(with_positive_text(graph, NEW)) == list(graph)


def test_a_long_chain() -> None:
    """No recursion: a graph may be longer than Python's stack is deep."""
    graph = LOADER | {"0": text("a fox"), "3": sampler(["c5000", 0], ["7", 0])}
    for i in range(5001):
        source = f"c{i - 1}" if i else "0"
        graph[f"c{i}"] = node("FluxGuidance", conditioning=[source, 0], guidance=3.5)
    assert positive_encoders(graph) == ["0"]


@cache
def text_encoders() -> dict[str, list[str]]:
    """Return ComfyUI's own text encoders, each with the texts that people write into it."""
    catalog = open_catalog(CATALOGS, version="0.3.71")
    known = [catalog.get(name, [])[0] for name in catalog.names([])]
    texts = {
        one.name: [n for n, i in one.inputs.items() if i.type == "STRING" and i.multiline]
        for one in known
        if "Encode" in one.name and any(output.type == "CONDITIONING" for output in one.outputs)
    }
    return {name: inputs for name, inputs in texts.items() if inputs}


def test_the_catalog_has_text_encoders() -> None:
    assert {"CLIPTextEncode", "CLIPTextEncodeFlux", "CLIPTextEncodeSDXL"} <= set(text_encoders())


@pytest.mark.parametrize("name", text_encoders())
def test_every_text_encoder_of_comfyui_is_found(name: str) -> None:
    """Whatever its inputs are called."""
    inputs = dict.fromkeys(text_encoders()[name], "a fox")
    graph = LOADER | {"6": node(name, clip=["4", 1], **inputs), "3": sampler(["6", 0], ["6", 0])}
    assert NEW in with_positive_text(graph, NEW)["6"]["inputs"].values()


IDS = st.sampled_from("123456")
INPUT_NAMES = st.sampled_from(
    "positive negative conditioning conditioning_1 cond1 guider samples text t5xxl clip".split()
)
VALUES = st.tuples(IDS, st.integers(-1, 3)).map(list) | st.text(max_size=3) | st.none()
CLASSES = st.sampled_from("KSampler BasicGuider CLIPTextEncode ControlNetApplyAdvanced".split())
NODES = st.builds(
    lambda class_type, inputs: {"class_type": class_type, "inputs": inputs},
    CLASSES,
    st.dictionaries(INPUT_NAMES, VALUES, max_size=5),
)


@given(st.dictionaries(IDS, NODES))
def test_on_any_graph_only_texts_change(graph: Graph) -> None:
    """Or there is none, which is a ValueError; a second time, nothing is left to change."""
    before = copy.deepcopy(graph)
    try:
        result = with_positive_text(graph, NEW)
    except ValueError:
        assert positive_encoders(graph) == []
        return
    finally:
        assert graph == before
    encoders = positive_encoders(graph)
    assert positive_encoders(result) == encoders
    assert with_positive_text(result, NEW) == result
    assert [*result][: len(graph)] == [*graph]
    for key, content in graph.items():
        changes = {
            name
            for name, value in content["inputs"].items()
            if value != result[key]["inputs"][name]
        }
        assert key in encoders or changes.isdisjoint({"text", "t5xxl"})
        assert key not in encoders or NEW in result[key]["inputs"].values()


# One encoder for both sides


def test_a_text_of_both_sides_stays_on_the_negative_one() -> None:
    shared = LOADER | {
        "6": text("a fox"),
        "12": node("FluxGuidance", conditioning=["6", 0], guidance=3.5),
        "13": control(["12", 0], ["12", 0]),
        "3": sampler(["13", 0], ["13", 1]),
    }
    before = copy.deepcopy(shared)
    changed = with_positive_text(shared, NEW)
    assert shared == before
    assert changed == LOADER | {
        "6": text(NEW),
        "12": shared["12"],
        "13": shared["13"],
        "3": sampler(["13", 0], ["13_negative", 1]),
        "6_negative": text("a fox"),
        "12_negative": node("FluxGuidance", conditioning=["6_negative", 0], guidance=3.5),
        "13_negative": control(["12_negative", 0], ["12_negative", 0]),
    }


def test_a_copy_takes_no_id_that_is_in_use() -> None:
    shared = LOADER | {
        "6": text("a fox"),
        "6_negative": text("unused"),
        "3": sampler(["6", 0], ["6", 0]),
    }
    changed = with_positive_text(shared, NEW)
    assert changed["6_negative"] == text("unused")
    assert changed["3"] == sampler(["6", 0], ["6_negative_", 0])
    assert changed["6_negative_"] == text("a fox")


def test_a_negative_that_is_emptied_needs_no_copy() -> None:
    graph = LOADER | {
        "6": text("a fox"),
        "12": node("ConditioningZeroOut", conditioning=["6", 0]),
        "3": sampler(["6", 0], ["12", 0]),
    }
    assert with_positive_text(graph, NEW) == graph | {"6": text(NEW)}
