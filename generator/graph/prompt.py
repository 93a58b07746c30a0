"""Find and replace the positive text of a graph."""

from collections.abc import Iterator

from .records import Graph, Link, links

# Inputs of text encoders that say what is wanted; one class has several.
_TEXT_INPUTS = (
    "text", "text_g", "text_l", "clip_g", "clip_l", "t5xxl", "llama", "prompt", "user_prompt",
    "bert", "mt5xl", "tags",
)  # fmt: skip


class NoPositiveTextError(ValueError):
    """The graph has no positive text."""


def with_positive_text(graph: Graph, text: str) -> Graph:
    """Return a graph with another positive text; its negative text stays as it is.

    Raises:
        NoPositiveTextError: when no text encoder is found that feeds positive conditioning.
    """
    encoders = positive_encoders(graph)
    if not encoders:
        raise NoPositiveTextError("the graph has no positive text: no text encoder feeds a sampler")
    changed = dict(graph)
    for node in encoders:
        inputs = graph[node]["inputs"]
        texts = {name: text for name in _TEXT_INPUTS if name in inputs}
        changed[node] = {**graph[node], "inputs": {**inputs, **texts}}
    return changed


def positive_encoders(graph: Graph) -> list[str]:
    """Return the ids of the text encoders that feed positive conditioning, in the graph's order.

    The links are followed back from where positive conditioning ends: the samplers and guiders.
    """
    found: set[str] = set()
    seen: set[Link] = set()
    pending = list(_ends(graph))
    while pending:
        link = pending.pop()
        if link in seen or link.node not in graph:
            continue
        seen.add(link)
        inputs = graph[link.node]["inputs"]
        upstream = _upstream(graph, link)
        if not upstream and any(name in inputs for name in _TEXT_INPUTS):
            found.add(link.node)
        pending += upstream
    return [node for node in graph if node in found]


def _ends(graph: Graph) -> Iterator[Link]:
    """Yield the positive conditioning of the nodes whose own conditioning goes nowhere further."""
    passing = {
        link.node
        for node in graph.values()
        for name, link in links(node["inputs"])
        if _is_conditioning(name)
    }
    for node_id, node in graph.items():
        if node_id in passing:
            continue
        for name, link in links(node["inputs"]):
            is_guider = node["class_type"].endswith("Guider")
            if name == "positive" or (is_guider and name in ("conditioning", "cond1")):
                yield link


def _upstream(graph: Graph, link: Link) -> list[Link]:
    """Return what a link's conditioning is made of.

    Nodes that take a pair return a pair: positive, then negative; after the model, if they patch
    one.
    """
    found = dict(links(graph[link.node]["inputs"]))
    if any(name.startswith("positive") for name in found):
        negative = 2 if "model" in found else 1
        side = "negative" if link.output == negative else "positive"
        return [upstream for name, upstream in found.items() if name.startswith(side)]
    return [upstream for name, upstream in found.items() if name.startswith("cond")]


def _is_conditioning(name: str) -> bool:
    return name.startswith(("positive", "negative", "cond"))
