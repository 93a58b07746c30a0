"""Find the positive and negative text of a graph, and replace the positive."""

from collections.abc import Collection, Iterable, Iterator

from .records import Graph, Link, links

# Inputs of text encoders that say what is wanted; one class has several.
TEXT_INPUTS = (
    "text", "text_g", "text_l", "clip_g", "clip_l", "t5xxl", "llama", "prompt", "user_prompt",
    "bert", "mt5xl", "tags",
)  # fmt: skip


# What comes out of these holds nothing of the text that goes in.
_EMPTYING = frozenset(("ConditioningZeroOut",))


class NoPositiveTextError(ValueError):
    """The graph has no positive text."""


def with_positive_text(graph: Graph, text: str) -> Graph:
    """Return a graph with another positive text; its negative text stays as it is.

    Nodes whose text is both get copies that keep the old text, for the negative side alone.

    Raises:
        NoPositiveTextError: when no text encoder is found that feeds positive conditioning.
    """
    encoders = positive_encoders(graph)
    if not encoders:
        raise NoPositiveTextError("the graph has no positive text: no text encoder feeds a sampler")
    changed = graph | _negative_apart(graph, encoders)
    for node in encoders:
        inputs = graph[node]["inputs"]
        texts = {name: text for name in TEXT_INPUTS if name in inputs}
        changed[node] = {**graph[node], "inputs": {**inputs, **texts}}
    return changed


def positive_encoders(graph: Graph) -> list[str]:
    """Return the ids of the text encoders that feed positive conditioning, in the graph's order.

    The links are followed back from where positive conditioning ends: the samplers and guiders.
    """
    found, _ = _walk(graph, _positive_ends(graph))
    return [node for node in graph if node in found]


def negative_encoders(graph: Graph) -> list[str]:
    """Return the ids of the text encoders that feed negative conditioning; as `positive_encoders`."""
    ends = (link for _, name, link in _ends(graph) if name.startswith("negative"))
    found, _ = _walk(graph, ends)
    return [node for node in graph if node in found]


def _negative_apart(graph: Graph, encoders: Collection[str]) -> Graph:
    """Return the nodes to add or change, so that no negative conditioning is of these encoders.

    What both sides use is copied; what the negative side has for itself takes the copies.
    """
    ends = [(node, name, link) for node, name, link in _ends(graph) if name.startswith("negative")]
    found, walked = _walk(graph, (link for _, _, link in ends))
    if not found.intersection(encoders):
        return {}
    _, positive = _walk(graph, _positive_ends(graph))
    shared = {link.node for link in walked} & {link.node for link in positive}
    copies = {node: _unused(f"{node}_negative", graph) for node in shared}
    used = {(link.node, name) for link in walked for name in graph[link.node]["inputs"]}
    used |= {(node, name) for node, name, _ in ends}
    apart: Graph = {}
    for node in sorted({node for node, _ in used}):
        inputs = graph[node]["inputs"]
        own = {
            name: [copies[link.node], *inputs[name][1:]]
            for name, link in links(inputs)
            if (node, name) in used and link in walked and link.node in copies
        }
        apart[copies.get(node, node)] = graph[node] | {"inputs": inputs | own}
    return apart


def _positive_ends(graph: Graph) -> Iterator[Link]:
    for node, name, link in _ends(graph):
        is_guider = graph[node]["class_type"].endswith("Guider")
        if name == "positive" or (is_guider and name in ("conditioning", "cond1")):
            yield link


def _unused(name: str, graph: Graph) -> str:
    while name in graph:
        name += "_"
    return name


def _walk(graph: Graph, ends: Iterable[Link]) -> tuple[set[str], set[Link]]:
    """Return the text encoders upstream of some conditioning, and all links on the way."""
    found: set[str] = set()
    seen: set[Link] = set()
    pending = list(ends)
    while pending:
        link = pending.pop()
        if link in seen or link.node not in graph:
            continue
        seen.add(link)
        if graph[link.node]["class_type"] in _EMPTYING:
            continue
        inputs = graph[link.node]["inputs"]
        upstream = _upstream(graph, link)
        if not upstream and any(name in inputs for name in TEXT_INPUTS):
            found.add(link.node)
        pending += upstream
    return found, seen


def _ends(graph: Graph) -> Iterator[tuple[str, str, Link]]:
    """Yield node, input and link of the conditioning that nodes take and do not pass on."""
    passing = {
        link.node
        for node in graph.values()
        for name, link in links(node["inputs"])
        if _is_conditioning(name)
    }
    for node_id, node in graph.items():
        if node_id not in passing:
            for name, link in links(node["inputs"]):
                if _is_conditioning(name):
                    yield node_id, name, link


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
