"""What a deployment costs, as far as that can be said before it runs.

A container bills every second that it is up: its GPU, and the larger of what is reserved and what is
used of cores and memory (https://modal.com/pricing, https://modal.com/docs/guide/resources). Only
what is reserved is known beforehand, so these are lower bounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_HOUR: Final = 3600

# What Modal reserves for a container that asks for nothing: an eighth of a core, and 128 MiB
# (https://modal.com/docs/guide/resources).
_DEFAULT_CORES: Final = 0.125
_DEFAULT_GIB: Final = 0.125


@dataclass(frozen=True, slots=True)
class WorkerCost:
    """What workers of one kind cost, in USD.

    `hour` is of one container that is up; `idle_hour` of those that are kept running without
    requests; `scaledown` of the seconds that a container waits for more once it has nothing to do;
    `buffer_hour` of the idle ones beside a busy one. `is_whole` says that cores and memory are in
    it: gpu.yaml may have no prices of them.
    """

    worker: str
    gpu: str
    hour: float
    idle_hour: float
    scaledown: float
    buffer_hour: float
    is_whole: bool


@dataclass(frozen=True, slots=True)
class RequestCost:
    """What a request to an endpoint costs, in USD; None where no seconds are recorded.

    That is what X-Cost-USD says: the seconds of its run times the price of the GPU. The seconds are
    those of a run on `gpu`; on another GPU they say nothing.
    """

    route: str
    gpu: str
    seconds: float | None
    cost: float | None


def worker_costs(manifest: Mapping[str, Any]) -> list[WorkerCost]:
    """Return what the workers cost that the endpoints of a manifest need."""
    scaling = manifest["scaling"]
    costs: list[WorkerCost] = []
    for worker, profile in workers_of(manifest).items():
        gpu = manifest["gpus"][profile]
        second, is_whole = _second(gpu, manifest["prices"])
        costs.append(
            WorkerCost(
                worker=worker,
                gpu=gpu["modal"],
                hour=second * _HOUR,
                idle_hour=scaling["min_containers"] * second * _HOUR,
                scaledown=scaling["scaledown"] * second,
                buffer_hour=scaling["buffer_containers"] * second * _HOUR,
                is_whole=is_whole,
            )
        )
    return costs


def workers_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the profile of each kind of worker; a group of a profile has workers of its own.

    A route that is off has none.
    """
    found = {
        f"{route['gpu']}/{route['group']}" if route["group"] else route["gpu"]: route["gpu"]
        for route in manifest["routes"].values()
        if route["enabled"]
    }
    return dict(sorted(found.items()))


def request_costs(
    manifest: Mapping[str, Any], recorded: Mapping[str, Mapping[str, Any]]
) -> list[RequestCost]:
    """Return what a request to each endpoint that is on costs.

    `recorded` holds the seconds of a run and the GPU that it ran on, by route.
    """
    costs: list[RequestCost] = []
    for path, route in manifest["routes"].items():
        if not route["enabled"]:
            continue
        gpu = manifest["gpus"][route["gpu"]]
        entry = recorded.get(path, {})
        is_same = str(entry.get("gpu", "")).casefold() == gpu["modal"].casefold()
        seconds = float(entry["seconds"]) if is_same else None
        price = gpu["price_per_second"] * manifest["prices"]["multiplier"]
        cost = None if seconds is None else seconds * price
        costs.append(RequestCost(path, gpu["modal"], seconds, cost))
    return costs


def _second(gpu: Mapping[str, Any], prices: Mapping[str, Any]) -> tuple[float, bool]:
    """Return what a second of a container costs in USD, and whether cores and memory are in it."""
    core, gib = prices["cpu_per_second"], prices["memory_per_second"]
    cores = _DEFAULT_CORES if gpu["cpu"] is None else gpu["cpu"]
    memory = _DEFAULT_GIB if gpu["memory_gb"] is None else gpu["memory_gb"]
    rest = cores * (core or 0.0) + memory * (gib or 0.0)
    is_whole = core is not None and gib is not None
    return (gpu["price_per_second"] + rest) * prices["multiplier"], is_whole
