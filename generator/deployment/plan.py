"""What the next deploy changes against what is deployed."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

from ..licences import forbids_commercial_use
from .compat import Change, app_changes, route_changes
from .costs import RequestCost, WorkerCost, request_costs, worker_costs, workers_of
from .manifest import Manifest


@dataclass(frozen=True, slots=True)
class RouteChange:
    """What happens to a route: `kind` is added, removed or changed."""

    route: str
    kind: str
    changes: tuple[Change, ...]

    @property
    def breaking(self) -> bool:
        """Whether somebody who asks there is broken."""
        return any(change.breaking for change in self.changes)


@dataclass(frozen=True, slots=True)
class ImageChange:
    """What is built of an image: the layers that `changed`, and those that come `after` one.

    The `kept` ones are not built again.
    """

    image: str
    changed: tuple[str, ...]
    after: tuple[str, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Download:
    """A model file that is not there; `size` is in bytes, None when unknown."""

    model: str
    file: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Licence:
    """A model whose licence forbids commercial use, and the routes that use it."""

    model: str
    licence: str
    routes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a deploy does; `deployed` is the spec hash of what is there, None when nothing is.

    `unchanged` are routes. `downloads` are what the Volume does not have, where `knows_volume`; else
    what the manifest of what is deployed does not have. `settings` say what else changes: GPUs,
    scaling, ComfyUI, Volumes, Secrets. Prices were looked up on the date `priced`, which may be
    empty.
    """

    app: str
    environment: str | None
    deployed: str | None
    spec: str
    routes: tuple[RouteChange, ...]
    unchanged: tuple[str, ...]
    gateway: tuple[Change, ...]
    images: tuple[ImageChange, ...]
    downloads: tuple[Download, ...]
    knows_volume: bool
    settings: tuple[str, ...]
    workers: tuple[WorkerCost, ...]
    requests: tuple[RequestCost, ...]
    priced: str
    price_multiplier: float
    licences: tuple[Licence, ...]

    @property
    def breaking(self) -> bool:
        """Whether callers of what is deployed are broken."""
        return any(r.breaking for r in self.routes) or any(c.breaking for c in self.gateway)

    @property
    def changes_nothing(self) -> bool:
        """Whether the same is deployed already."""
        return self.deployed == self.spec

    def document(self) -> dict[str, Any]:
        """Return the plan as JSON, with whether it breaks callers."""
        document = asdict(self)
        for entry, route in zip(document["routes"], self.routes, strict=True):
            entry["breaking"] = route.breaking
        return {"breaking": self.breaking, **document}


def make_plan(
    deployed: Manifest | None,
    upcoming: Manifest,
    *,
    environment: str | None = None,
    recorded: Mapping[str, Mapping[str, Any]] | None = None,
    there: Collection[str] | None = None,
) -> Plan:
    """Compare two manifests; None says that nothing is deployed.

    `recorded` holds the seconds of a run by route, as `request_costs` takes it. `there` are the
    SHA-256 of the models on the Volume, None where that was not asked.
    """
    old = deployed["routes"] if deployed else {}
    new = upcoming["routes"]
    changes = tuple(_route_changes(old, new))
    images = deployed["images"] if deployed else {}
    return Plan(
        app=upcoming["app"],
        environment=environment,
        deployed=deployed["spec"] if deployed else None,
        spec=upcoming["spec"],
        routes=changes,
        unchanged=tuple(sorted({*old} & {*new} - {change.route for change in changes})),
        gateway=tuple(app_changes(deployed["gateway"], upcoming["gateway"])) if deployed else (),
        images=tuple(
            _image_change(name, images.get(name, {}), layers)
            for name, layers in upcoming["images"].items()
        ),
        downloads=_downloads(deployed["models"] if deployed else {}, upcoming["models"], there),
        knows_volume=there is not None and all(map(_is_listed, upcoming["models"].values())),
        settings=tuple(_settings(deployed, upcoming)) if deployed else (),
        workers=tuple(worker_costs(upcoming)),
        requests=tuple(request_costs(upcoming, recorded or {})),
        priced=upcoming["prices"]["priced"],
        price_multiplier=upcoming["prices"]["multiplier"],
        licences=_licences(upcoming),
    )


def _route_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[RouteChange]:
    found: list[RouteChange] = []
    for route in sorted({*old, *new}):
        if route not in new:
            was_on = old[route]["enabled"]
            text = "it is gone" if was_on else "it is gone; it was off"
            found.append(RouteChange(route, "removed", (Change(text, breaking=was_on),)))
        elif route not in old:
            text = "it is new" if new[route]["enabled"] else "it is new, and off"
            found.append(RouteChange(route, "added", (Change(text),)))
        elif changes := route_changes(old[route], new[route]):
            found.append(RouteChange(route, "changed", tuple(changes)))
    return found


def _image_change(image: str, old: Mapping[str, str], new: Mapping[str, str]) -> ImageChange:
    """A layer is kept when it and all before it are the same, in the same order."""
    pairs = zip(old.items(), new.items(), strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    kept, built = list(new)[:same], list(new)[same:]
    changed = [name for name in built if old.get(name) != new[name]]
    after = [name for name in built if name not in changed]
    return ImageChange(image, tuple(changed), tuple(after), tuple(kept))


def _downloads(
    old: Mapping[str, Any], new: Mapping[str, Any], there: Collection[str] | None
) -> tuple[Download, ...]:
    """Return the files that are to be fetched, which those are not that people put on a Volume.

    They are those that the Volume does not have; where nobody knows that of one, those that no
    model of what is deployed has.
    """
    deployed = {_identity(model) for model in old.values()}

    def is_there(model: Mapping[str, Any]) -> bool:
        if there is not None and model["sha256"]:
            return model["sha256"] in there
        return _identity(model) in deployed

    return tuple(
        Download(name, model["file"], model["size"])
        for name, model in sorted(new.items())
        if "volume" not in model["source"] and not is_there(model)
    )


def _is_listed(model: Mapping[str, Any]) -> bool:
    """Say whether the list of a Volume's files tells of a model: by its hash, which a lock knows."""
    return "volume" in model["source"] or bool(model["sha256"])


def _identity(model: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what tells a file from others: its hash, else where it comes from."""
    if digest := model["sha256"]:
        return ("sha256", str(digest))
    source = (f"{key}={value}" for key, value in sorted(model["source"].items()))
    return (*source, str(model["revision"]))


def _settings(old: Manifest, new: Manifest) -> list[str]:
    before, after = workers_of(old), workers_of(new)
    found = [f"worker {name} is new" for name in after if name not in before]
    found += [f"worker {name} is gone" for name in before if name not in after]
    words = {"modal": "GPU", "cpu": "cores", "memory_gb": "GiB of memory", "fallback": "fallback"}
    words |= {"price_per_second": "USD per second"}
    for profile in sorted({*after.values()} & {*old["gpus"]}):
        was, now = old["gpus"][profile], new["gpus"][profile]
        found += [
            f"{profile}, {word}: {_shown(was.get(key))} → {_shown(now.get(key))}"
            for key, word in words.items()
            if was.get(key) != now.get(key)
        ]
    found += _differences("", old["scaling"], new["scaling"])
    containers = [{"containers": one["gateway"]["max_containers"]} for one in (old, new)]
    found += _differences("gateway, max. ", *containers)
    for word, key in (("ComfyUI, ", "engine"), ("Volume ", "volumes"), ("Secret ", "secrets")):
        found += _differences(word, old[key], new[key])
    if old["prices"]["multiplier"] != new["prices"]["multiplier"]:
        multipliers = old["prices"]["multiplier"], new["prices"]["multiplier"]
        found.append("price_multiplier: {} → {}".format(*multipliers))
    return found


def _differences(what: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{what}{key}: {_shown(was.get(key))} → {_shown(now.get(key))}"
        for key in sorted({*was, *now})
        if was.get(key) != now.get(key)
    ]


def _licences(manifest: Manifest) -> tuple[Licence, ...]:
    found = (
        Licence(name, model["license"], _routes_of(manifest, name))
        for name, model in manifest["models"].items()
        if model["license"] and forbids_commercial_use(model["license"])
    )
    return tuple(sorted(found, key=lambda one: (one.licence, one.routes, one.model)))


def _routes_of(manifest: Manifest, model: str) -> tuple[str, ...]:
    """Return the routes that are on and use a model."""
    routes = manifest["routes"].items()
    return tuple(r for r, about in routes if about["enabled"] and model in about["models"])


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
