"""Which node of a changed graph is which node of a workflow."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from ..graph.records import Graph, Link, followed
from ..slots import Template
from ..spec import GraphNode, Param

# How much of two nodes must be the same for one to be the other under a new id.
_LEAST: Final = 0.5
# Beyond that many candidates of one class, only those with the same title are compared.
_MOST_PAIRS: Final = 10_000


@dataclass
class Matcher:
    """Pairs the nodes of a workflow with those of a graph: by id and class, then by likeness.

    `titles_of_old` and `titles_of_new` are the nodes' titles, where they have any.
    """

    old: Mapping[str, GraphNode]
    new: Graph
    params: Mapping[str, Param]
    titles_of_old: Mapping[str, str]
    titles_of_new: Mapping[str, str]
    pairs: dict[str, str] = field(default_factory=dict)

    def match(self) -> dict[str, str]:
        """Return the new id of every node that is still there, by its old one."""
        self.pairs = {
            node.id: node.id
            for node in self.old.values()
            if node.id in self.new and self.new[node.id]["class_type"] == node.class_type
        }
        while self._match_next():
            pass
        return self.pairs

    def _match_next(self) -> bool:
        """Pair the two nodes that are most alike, of those that are left; say whether any are."""
        taken = set(self.pairs.values())
        by_class: dict[str, list[str]] = {}
        for new, content in self.new.items():
            if new not in taken:
                by_class.setdefault(content["class_type"], []).append(new)
        best: tuple[float, str, str] | None = None
        for node in self.old.values():
            others = by_class.get(node.class_type, []) if node.id not in self.pairs else []
            if len(others) > _MOST_PAIRS // max(1, len(self.old)):
                title = self.titles_of_old.get(node.id)
                others = [o for o in others if title and self.titles_of_new.get(o) == title]
            for other in others:
                score = self._likeness(node, other)
                if score >= _LEAST and (best is None or score > best[0]):
                    best = (score, node.id, other)
        if best is not None:
            self.pairs[best[1]] = best[2]
        return best is not None

    def _likeness(self, node: GraphNode, other: str) -> float:
        """Return which part of what is known of two nodes is the same, from 0 to 1."""
        marks = list(self._marks(node, other))
        return sum(marks) / len(marks) if marks else 1.0

    def _marks(self, node: GraphNode, other: str) -> Iterator[float]:
        inputs = self.new[other]["inputs"]
        for name in {**node.inputs, **inputs}:
            if name not in node.inputs or name not in inputs:
                yield 0.0
            else:
                yield self._same_value(node.inputs[name].value, inputs[name])
        mine = self.titles_of_old.get(node.id)
        theirs = self.titles_of_new.get(other)
        if mine and theirs:
            yield from (1.0, 1.0) if mine == theirs else (0.0,)
        for consumer, name in self._consumers.get(node.id, ()):
            if consumer in self.pairs:
                link = followed(self.new[self.pairs[consumer]]["inputs"].get(name))
                yield 1.0 if link and link.node == other else 0.0

    @cached_property
    def _consumers(self) -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        for consumer in self.old.values():
            for name, value in consumer.inputs.items():
                if isinstance(value.value, Link):
                    found.setdefault(value.value.node, []).append((consumer.id, name))
        return found

    def _same_value(self, mine: Any, theirs: Any) -> float:
        link = followed(theirs)
        if isinstance(mine, Link):
            if link is None or link.output != mine.output:
                return 0.0
            if mine.node in self.pairs:
                return 1.0 if self.pairs[mine.node] == link.node else 0.0
            is_alike = mine.node in self.old and link.node in self.new
            return 0.5 if is_alike and self._same_class(mine.node, link.node) else 0.0
        if link is not None:
            return 0.0
        if isinstance(mine, Template):
            slot = mine.whole
            param = self.params.get(slot.names[0]) if slot else None
            return 1.0 if param and same(param.default, theirs) else 0.5
        return 1.0 if same(mine, theirs) else 0.0

    def _same_class(self, mine: str, theirs: str) -> bool:
        return bool(self.old[mine].class_type == self.new[theirs]["class_type"])


def same(mine: Any, theirs: Any) -> bool:
    """Say whether two values mean the same to the engine: 1 is 1.0, but not true."""
    if isinstance(mine, bool) or isinstance(theirs, bool):
        return mine is theirs
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return mine.keys() == theirs.keys() and all(same(mine[k], theirs[k]) for k in mine)
    if isinstance(mine, list) and isinstance(theirs, list):
        return len(mine) == len(theirs) and all(map(same, mine, theirs))
    return bool(mine == theirs)
