"""The records of the gateway: its endpoints, and what they share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

from ..graph.records import Graph
from ..params import Request
from .graphs import Graphs
from .limits import Limits, Places, Rate
from .listeners import Listeners
from .media import MediaReader


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: what it takes, the graph that it builds, and where that runs.

    `media_types` are what it may reply with. `seed` and `graph` name the attributes of its request
    that are a seed and a whole graph, where there are any. `profile` is a GPU profile, `group` a
    group of endpoints that has workers of its own, `timeout` the longest run in seconds, `file`
    where the endpoint is written.
    """

    name: str
    route: str
    request: type[Request]
    build: Callable[[Any], Graph]
    media_types: Sequence[str]
    profile: str
    timeout: float
    file: str
    summary: str = ""
    description: str = ""
    seed: str | None = None
    graph: str | None = None
    group: str = ""
    enabled: bool = True

    @property
    def graph_param(self) -> str | None:
        """The graph param's name as callers write it."""
        return self._param(self.graph)

    @property
    def seed_param(self) -> str | None:
        """The seed's name as callers write it."""
        return self._param(self.seed)

    def _param(self, attribute: str | None) -> str | None:
        return attribute and (self.request.model_fields[attribute].alias or attribute)


@dataclass(frozen=True, slots=True)
class Gateway:
    """What all endpoints share, and the endpoints themselves by route.

    `deadline` is in seconds: a request that takes longer is answered with 202. `routes` are what
    manifest.json says of each: the classes and models that it needs, and more. `listeners` are the
    callers that wait for jobs, `listening` the requests that are kept open for it.
    """

    graphs: Graphs
    media: MediaReader
    deadline: float
    max_body_bytes: int
    limits: Limits
    rate: Rate
    listening: Places
    routes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    listeners: Listeners = field(default_factory=Listeners)


def gateway_of(app: FastAPI) -> Gateway:
    """Return the gateway of an app.

    Raises:
        TypeError: when `new_app` did not make the app.
    """
    gateway = getattr(app.state, "gateway", None)
    if not isinstance(gateway, Gateway):
        raise TypeError("this app has no gateway; new_app in gateway/app.py makes one that has")
    return gateway
