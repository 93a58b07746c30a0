"""Endpoints of the absent handler.

POST /absent, from workflows/absent.yaml, which extends quotes.yaml.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from pydantic import Field

from ..gateway.backend import Backend
from ..gateway.endpoints import add_endpoint
from ..gateway.service import Endpoint
from ..graph.records import Graph, needed, without
from ..params import Image, Options, Request, affix, given, text


class AbsentRequest(Request):
    """What POST /absent takes."""

    ONE_OF = (("left", "right"),)

    matched: str = Field('"a"', max_length=10000, pattern="^[\"'\\\\a-z{}]*$")
    ratio: Annotated[float, Options((0.5, 1, 2.25))] = Field(1.0)
    count: Annotated[int, Options((1, 2, 4))] = Field(4)
    flag: bool = Field(True)
    json_: str = Field("", alias="json", max_length=10000)
    copy_: int = Field(0, alias="copy", ge=-5, le=5)
    class_: str = Field("class", alias="class", max_length=10000)
    model_config_: bool = Field(False, alias="model_config")
    str_: str = Field("str", alias="str", max_length=10000)
    item: str = Field("item", max_length=10000)
    text: str = Field("text", max_length=10000)
    mask: Image | None = Field(None)
    word: str | None = Field(None, max_length=10000)
    left: str | None = Field(None, max_length=10000)
    right: str | None = Field(None, max_length=10000)
    format: Literal['a"b', "{{ c }}"] = Field('a"b')


def build_absent_workflow(item: AbsentRequest | Mapping[str, Any]) -> Graph:
    """Return the graph that POST /absent runs.

    Params that may be absent, and a choice of outputs.
    """
    item = AbsentRequest.of(item)
    word = affix(item.word, suffix='"')
    item_ = affix(item.item, prefix=">")
    text_ = affix(item.text, suffix="<")
    right = given(item.right, affix(item.left, prefix="{{"))
    graph: Graph = {
        "010": {
            "class_type": "Any Switch (rgthree)",
            "inputs": {
                "57:8": ["57:8", 0],
                "affixed_text": f"word: {text(word)}.",
                "typed": item.count,
                "ratio": item.ratio,
                "flag": item.flag,
                "class": item.class_,
                "json": item.json_,
                "copy": item.copy_,
                "model_config": item.model_config_,
                "str": item.str_,
                "item": item_,
                "text": text_,
                "choice": right,
                "matched": item.matched,
                "word": word,
            },
        },
        "57:8": {
            "class_type": "EmptyImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0},
        },
        'node " {{ id }} \\ \u2028': {
            "class_type": "PreviewAny",
            "inputs": {"source": ["23", 0]},
        },
        "4": {
            "class_type": "PreviewImage",
            "inputs": {"images": ["57:8", 0]},
        },
        "20": {
            "class_type": "LoadImage",
            "inputs": {"image": item.mask},
        },
        "21": {
            "class_type": "ImageInvert",
            "inputs": {"image": ["20", 0]},
        },
        "23": {
            "class_type": "Any Switch (rgthree)",
            "inputs": {"any_1": ["010", 0], "any_2": ["21", 0]},
        },
    }
    if item.mask is None:
        graph = without(graph, "20", "21", ("23", "any_2"))
    if item.word is None:
        graph = without(graph, ("010", "word"))
    return needed(graph, {'a"b': "4", "{{ c }}": 'node " {{ id }} \\ \u2028'}[item.format])


def setup_absent_endpoints(app: FastAPI, backend: Backend) -> None:
    """Add POST /absent to an app."""
    add_endpoint(
        app,
        backend,
        Endpoint(
            name="absent",
            route="/absent",
            request=AbsentRequest,
            build=build_absent_workflow,
            media_types=["image/png", "text/plain"],
            profile="small",
            timeout=1800,
            file="workflows/absent.yaml",
            summary="Params that may be absent, and a choice of outputs",
        ),
    )
