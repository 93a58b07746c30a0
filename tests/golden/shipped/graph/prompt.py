"""Find and replace the positive text of a graph."""

from collections.abc import Iterator

from .records import Graph, Link, links

# Inputs of text encoders, of one text and of several.
_TEXT_INPUTS = ("text", "text_g", "text_l", "clip_l", "clip_g", "t5xxl", "llama", "prompt")


def with_positive_text(graph: Graph, text: str) -> Graph:
    """Return a graph with another positive text; its negative text stays as it is.

    From every `positive` input (for guiders that have none, from `conditioning`) the links are
    followed back to the text encoders.

    Raises:
        ValueError: when no text encoder is found.
    """
    encoders = positive_encoders(graph)
    if not encoders:
        raise ValueError("the graph has no positive text: no text encoder feeds a sampler")
    changed = dict(graph)
    for node in encoders:
        inputs = graph[node]["inputs"]
        texts = {name: text for name in _TEXT_INPUTS if name in inputs}
        changed[node] = {**graph[node], "inputs": {**inputs, **texts}}
    return changed


def positive_encoders(graph: Graph) -> list[str]:
    """Return the ids of the text encoders that feed positive conditioning, in the graph's order."""
    found: set[str] = set()
    seen: set[Link] = set()
    pending = _starts(graph)
    while pending:
        link = pending.pop()
        if link in seen or link.node not in graph:
            continue
        seen.add(link)
        inputs = graph[link.node]["inputs"]
        if any(name in inputs for name in _TEXT_INPUTS) and "positive" not in inputs:
            found.add(link.node)
        else:
            pending += _upstream(graph, link)
    return [node for node in graph if node in found]


def _starts(graph: Graph) -> list[Link]:
    inputs = [node["inputs"] for node in graph.values()]
    positive = [link for one in inputs for name, link in links(one) if name == "positive"]
    if positive:
        return positive
    return [
        link
        for node in graph.values()
        if node["class_type"].endswith("Guider")
        for name, link in links(node["inputs"])
        if name == "conditioning"
    ]


def _upstream(graph: Graph, link: Link) -> Iterator[Link]:
    """Yield what a link's conditioning is made of; the second output of a pair is the negative."""
    found = dict(links(graph[link.node]["inputs"]))
    if "positive" in found and "negative" in found:
        yield found["negative" if link.output == 1 else "positive"]
        return
    for name, upstream in found.items():
        if name == "positive" or name.startswith(("cond", "samples", "guider")):
            yield upstream
