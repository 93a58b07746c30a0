"""What a run costs: seconds on a GPU times the price of that GPU.

Needs nothing but the standard library. The prices are those of gpu.yaml.
Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

import math
import time
from typing import Any, Final

# USD per second, by Modal's name of the GPU (2026-07).
PRICES: Final[dict[str, float]] = {"L40S": 0.000542}
PRICE_MULTIPLIER: Final = 1.0


def price_per_second(gpu_type: str) -> float:
    """Return what a second on a GPU costs, in USD; upper and lower case are the same.

    Raises:
        ValueError: when gpu.yaml has no price of that GPU.
    """
    prices = {name.lower(): price for name, price in PRICES.items()}
    if gpu_type.lower() not in prices:
        raise ValueError(f"no price of GPU {gpu_type!r}; there are prices of {', '.join(PRICES)}")
    return prices[gpu_type.lower()] * PRICE_MULTIPLIER


class CostTracker:
    """Times one run on a GPU and says what it costs.

    Raises:
        ValueError: when gpu.yaml has no price of that GPU.
    """

    def __init__(self, gpu_type: str) -> None:
        self.gpu_type = gpu_type
        self.price_per_second = price_per_second(gpu_type)
        self._started: float | None = None
        self._seconds: float | None = None

    def start(self) -> None:
        """Start the clock, from zero if it ran before."""
        self._started = time.monotonic()
        self._seconds = None

    def stop(self) -> float:
        """Stop the clock and return the seconds since the start.

        Raises:
            RuntimeError: when the clock is not running.
        """
        if self._started is None:
            raise RuntimeError("stop() without start()")
        self._seconds = time.monotonic() - self._started
        self._started = None
        return self._seconds

    @property
    def seconds(self) -> float:
        """Seconds of the last run; while the clock runs, seconds so far; 0.0 before the first."""
        if self._started is not None:
            return time.monotonic() - self._started
        return self._seconds or 0.0

    def calculate_cost(self, seconds: float | None = None) -> float:
        """Return the cost in USD of a number of seconds, by default those on the clock.

        Raises:
            ValueError: when the seconds are negative or not finite.
        """
        seconds = self.seconds if seconds is None else seconds
        if not 0 <= seconds < math.inf:
            raise ValueError(f"no number of seconds: {seconds}")
        return seconds * self.price_per_second

    def get_cost_summary(self) -> dict[str, Any]:
        """Return the run as JSON: GPU, seconds (3 decimals), price and cost (6) in USD."""
        seconds = self.seconds
        return {
            "gpu_type": self.gpu_type,
            "execution_time_sec": round(seconds, 3),
            "price_per_second_usd": self.price_per_second,
            "cost_usd": round(self.calculate_cost(seconds), 6),
        }
