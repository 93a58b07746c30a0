"""GET /usage: how the endpoints were used, for whoever may know."""

from collections.abc import Collection
from datetime import UTC, datetime

from pydantic import BaseModel, Field

from .usage import Counts, Segment


class Seconds(BaseModel):
    """What jobs took, in seconds."""

    startup: float
    queue: float
    execution: float


class Usd(BaseModel):
    """What jobs cost, in USD."""

    startup: float
    execution: float


class UsageRow(BaseModel):
    """The requests to a route with a key."""

    route: str
    owner: str | None = Field(description="The name of the key; null where there are no keys.")
    requests: int
    rejected: int = Field(description="They became no job.")
    repeated: int = Field(description="They had become a job before, by their idempotency key.")
    succeeded: int
    failed: int
    cancelled: int
    success_rate: float | None = Field(
        description="succeeded / (succeeded + failed); null while there is neither."
    )
    seconds: Seconds
    usd: Usd


class UsageDocument(BaseModel):
    """How the endpoints were used since a time, by route and key."""

    since: datetime
    until: datetime
    rows: list[UsageRow]


def usage_document(found: Segment, owner: str, operators: Collection[str]) -> UsageDocument:
    """Return what the owner of a key may see: its own rows; `operators` see the rows of all keys."""
    return UsageDocument(
        since=datetime.fromtimestamp(found.since, UTC),
        until=datetime.now(UTC),
        rows=[
            _row(route, name, counts)
            for (route, name), counts in sorted(found.counts.items())
            if name == owner or owner in operators
        ],
    )


def _row(route: str, owner: str, counts: Counts) -> UsageRow:
    rate = counts.success_rate
    return UsageRow(
        route=route,
        owner=owner or None,
        requests=counts.requests,
        rejected=counts.rejected,
        repeated=counts.repeated,
        succeeded=counts.succeeded,
        failed=counts.failed,
        cancelled=counts.cancelled,
        success_rate=None if rate is None else round(rate, 4),
        seconds=Seconds(
            startup=round(counts.startup_seconds, 3),
            queue=round(counts.queue_seconds, 3),
            execution=round(counts.execution_seconds, 3),
        ),
        usd=Usd(startup=round(counts.startup_usd, 6), execution=round(counts.execution_usd, 6)),
    )
