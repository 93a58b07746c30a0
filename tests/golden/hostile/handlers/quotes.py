"""Endpoints of the quotes handler.

POST /hostile/quotes, from workflows/quotes.yaml.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from pydantic import Field

from ..gateway.backend import Backend
from ..gateway.endpoints import add_endpoint
from ..gateway.service import Endpoint
from ..graph.records import Graph
from ..params import Options, Request, affix, text


class QuotesRequest(Request):
    """What POST /hostile/quotes takes."""

    prompt: str = Field(
        "\"'\\\r\n\t\x00\u2028\u202e{{ x }}{% y %}{# z #}\"\"\"''' ${not_a_slot} 🦊 é",
        max_length=10000,
        description='"""\\N{DIGIT ONE} {prompt} %s \u202etxt\u2066 {{ 7*7 }} ${prompt}',
        examples=['"', "'", "\\", "{{ }}", '"""', "🦊"],
    )
    choice: Literal["it's", '"quoted"', "{{ x }}", "a\\b", "${y}", ""] = Field("{{ x }}")
    affixed: str = Field("", max_length=10000)
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


def build_quotes_workflow(item: QuotesRequest | Mapping[str, Any]) -> Graph:
    """Return the graph that POST /hostile/quotes runs.

    \"\"\" ends a docstring, {{ 7*7 }} a template, \\ a line, \u202e turns it round.
    """
    item = QuotesRequest.of(item)
    affixed = affix(item.affixed, prefix='"{{ ', suffix=" }}\\\n'")
    item_ = affix(item.item, prefix=">")
    text_ = affix(item.text, suffix="<")
    return {
        "010": {
            "class_type": "Any Switch (rgthree)",
            "inputs": {
                "quote\"'\\{{ input }}\u2028": f"{{\"text\": '{item.prompt}' {{{{ braces }}}} ${{literal}} \\ \x00\u202e}}",
                "57:8": ["57:8", 0],
                "nested": {
                    "{{ key }}": [
                        item.prompt,
                        {"deep": f"a {item.count} b {item.ratio} c {text(item.flag)}"},
                        "null_",
                        1.5,
                    ]
                },
                "affixed": affixed,
                "affixed_text": f"x{affixed}y",
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
                "choice": item.choice,
                "matched": item.matched,
            },
            "_meta": {"title": '""" title {{ x }} \\'},
        },
        "57:8": {
            "class_type": "EmptyImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0},
        },
        'node " {{ id }} \\ \u2028': {
            "class_type": "PreviewAny",
            "inputs": {"source": ["010", 0]},
        },
        "4": {
            "class_type": "PreviewImage",
            "inputs": {"images": ["57:8", 0]},
        },
    }


def setup_quotes_endpoints(app: FastAPI, backend: Backend) -> None:
    """Add POST /hostile/quotes to an app."""
    add_endpoint(
        app,
        backend,
        Endpoint(
            name="quotes",
            route="/hostile/quotes",
            request=QuotesRequest,
            build=build_quotes_workflow,
            media_types=["text/plain", "image/png"],
            profile="small",
            timeout=1800,
            file="workflows/quotes.yaml",
            summary='""" ends a docstring, {{ 7*7 }} a template, \\ a line, \u202e turns it round',
            description="'''\r\n\"\"\"\u2028\u2029\x85\x00{% raw %}${prompt}{# x #}",
        ),
    )
