"""What is counted: by several containers, over hours, with one that is killed or cannot write."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from templates.gateway.backend import BackendUnavailableError
from templates.gateway.timings import Starts, Timings, Watch
from templates.gateway.usage import HOURS, Counts, Usage, ended
from templates.gateway.usage_report import usage_document
from templates.utils.comfyui_records import Started

HOUR = 3600.0
START = 1_000 * HOUR
FLUX = ("/flux", "ann")
TIMINGS = Timings(10.0, 2.0, 4.0, 0.005, 0.002)


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class MemoryTable:
    """A table that counts what is asked of it, and can be out of reach."""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}
        self.calls = 0
        self.is_down = False

    async def _turn(self) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.is_down:
            raise BackendUnavailableError("Modal does not answer")

    async def put(self, key: str, value: Any, *, skip_if_exists: bool = False) -> bool:
        await self._turn()
        if skip_if_exists and key in self.entries:
            return False
        self.entries[key] = value
        return True

    async def delete(self, key: str) -> None:
        await self._turn()
        self.entries.pop(key, None)

    async def items(self) -> AsyncIterator[tuple[str, Any]]:
        await self._turn()
        for pair in [*self.entries.items()]:
            yield pair


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(limited())


def one(usage: Usage, status: str = "succeeded") -> None:
    usage.add(*FLUX, Counts(requests=1))
    usage.add(*FLUX, ended(status, TIMINGS))


async def requests(usage: Usage) -> int:
    return (await usage.read()).counts.get(FLUX, Counts()).requests


def test_without_a_table_a_process_counts_for_itself() -> None:
    async def test() -> None:
        usage = Usage(clock=Clock())
        for status in ("succeeded", "succeeded", "failed", "cancelled", "rejected"):
            one(usage, status)
        found = await usage.read()
        assert found.since == START
        counts = found.counts[FLUX]
        assert counts == Counts(5, 1, 0, 2, 1, 1, 50.0, 10.0, 20.0, 0.025, 0.01)
        assert counts.success_rate == 2 / 3
        assert Counts(rejected=3, cancelled=2).success_rate is None

    run(test)


def test_containers_add_up_and_outlive_each_other() -> None:
    """Each may read, while all count; none is lost, also when a container has gone."""

    async def test() -> None:
        table, clock = MemoryTable(), Clock()
        containers = [Usage(table, clock) for _ in range(4)]

        async def work(usage: Usage) -> None:
            for number in range(25):
                one(usage)
                if number % 5 == 0:
                    await usage.read()

        await asyncio.gather(*map(work, containers))
        for usage in containers:
            await usage.close()
        assert await requests(Usage(table, clock)) == 100
        assert len(table.entries) == 4

    run(test)


def test_counts_are_written_a_while_after_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, it is one write; nothing is written when nothing changes."""
    monkeypatch.setattr("templates.gateway.usage._FLUSH_SECONDS", 0.05)

    async def test() -> None:
        table = MemoryTable()
        usage = Usage(table, Clock())
        for _ in range(100):
            one(usage)
            await asyncio.sleep(0)
        assert table.calls == 0
        await asyncio.sleep(0.2)
        assert table.calls == 1
        # A container that is killed now has lost nothing.
        assert await requests(Usage(table, Clock())) == 100
        table.is_down = True
        one(usage)
        await asyncio.sleep(0.2)
        table.is_down = False
        await asyncio.sleep(0.2)
        assert await requests(Usage(table, Clock())) == 101

    run(test)


def test_what_cannot_be_written_waits() -> None:
    async def test() -> None:
        table = MemoryTable()
        usage = Usage(table, Clock())
        one(usage)
        table.is_down = True
        for _ in range(2):
            with pytest.raises(BackendUnavailableError):
                await usage.read()
        one(usage)
        table.is_down = False
        assert await requests(usage) == 2
        table.is_down = True
        one(usage)
        await usage.close()  # it says so in the log

    run(test)


def test_hours_become_one_entry_each() -> None:
    """So that the table has a bound, whatever number of containers there have been."""

    async def test() -> None:
        table, clock = MemoryTable(), Clock()
        for _ in range(30):
            usage = Usage(table, clock)
            one(usage)
            await usage.close()
        assert len(table.entries) == 30
        clock.now = START + HOUR + 60
        assert await requests(Usage(table, clock)) == 30
        assert len(table.entries) == 30, "a container may still write"
        clock.now = START + HOUR + 1000
        readers = [Usage(table, clock) for _ in range(3)]
        assert [*await asyncio.gather(*map(requests, readers))] == [30] * 3
        assert [*table.entries] == ["1000/sum"]
        one(readers[0])
        assert await requests(readers[0]) == 31
        assert len(table.entries) == 2

    run(test)


def test_a_sum_that_is_half_tidied_counts_once() -> None:
    """Whoever made it may have been killed before it could delete the parts."""

    async def test() -> None:
        table, clock = MemoryTable(), Clock()
        for _ in range(3):
            usage = Usage(table, clock)
            one(usage)
            await usage.close()
        clock.now = START + HOUR + 1000
        left = dict(table.entries)
        assert await requests(Usage(table, clock)) == 3
        table.entries |= left
        assert await requests(Usage(table, clock)) == 3
        assert [*table.entries] == ["1000/sum"]

    run(test)


def test_the_window_moves() -> None:
    async def test() -> None:
        table, clock = MemoryTable(), Clock()
        usage = Usage(table, clock)
        for hour in range(HOURS + 50):
            clock.now = START + hour * HOUR + 1
            one(usage)
            found = await usage.read()
            assert found.counts[FLUX].requests == min(hour + 1, HOURS)
        assert found.since == START + 50 * HOUR + 1
        assert len(table.entries) <= HOURS + 2

    run(test)


def test_who_sees_what() -> None:
    async def test() -> None:
        usage = Usage(clock=Clock())
        for route, owner in [("/wan2", "ann"), ("/flux", "bob"), ("/flux", "ann")]:
            usage.add(route, owner, Counts(requests=1))
        found = await usage.read()

        def seen(owner: str, *operators: str) -> list[tuple[str, str | None]]:
            rows = usage_document(found, owner, operators).rows
            return [(row.route, row.owner) for row in rows]

        assert seen("ann") == [("/flux", "ann"), ("/wan2", "ann")]
        assert seen("bob", "ann") == [("/flux", "bob")]
        assert seen("ann", "ann") == [("/flux", "ann"), ("/flux", "bob"), ("/wan2", "ann")]
        assert seen("eve") == seen("") == []

    run(test)


# What a job took


def test_a_wait_is_start_up_and_queue() -> None:
    """A start is billed once: to the job that came first of those that waited for it."""
    clock = Clock(100.0)
    starts = Starts(clock)
    clock.now = 103.0
    starts.begin()
    clock.now = 110.0
    assert starts.end() == 7.0
    clock.now = 112.0
    first, second = Watch(101.0, starts, clock), Watch(105.0, starts, clock)
    first.take(Started(0.0))
    clock.now = 115.0
    assert first.timings(2.0, is_last=False).startup_usd == 14.0
    assert first.timings(2.0, 2.5) == Timings(7.0, 4.0, 2.5, 14.0, 5.0)
    second.take(Started(0.0))
    clock.now = 116.0
    assert second.timings(2.0) == Timings(5.0, 5.0, 1.0, 0.0, 2.0)
    assert Watch(111.0, starts, clock).timings(2.0) == Timings(0.0, 5.0, 0.0, 0.0, 0.0)


def test_a_start_that_does_not_end() -> None:
    """Nobody knows the GPU, so nobody knows what it costs."""
    clock = Clock(100.0)
    starts = Starts(clock)
    starts.begin()
    clock.now = 130.0
    watch = Watch(90.0, starts, clock)
    assert watch.timings(None) == Timings(30.0, 10.0, 0.0, None, 0.0)


@pytest.mark.parametrize(("price", "usd"), [(2.0, (2.0, 78.0)), (None, (None, 80.0))])
def test_who_does_not_wait_for_all_of_a_start(
    price: float | None, usd: tuple[float | None, float]
) -> None:
    """The rest of it is billed to who comes next, and all of it where it had no price yet."""
    clock = Clock(100.0)
    starts = Starts(clock)
    starts.begin()
    cancelled, waiting = Watch(100.0, starts, clock), Watch(100.0, starts, clock)
    clock.now = 101.0
    assert cancelled.timings(price).startup_usd == usd[0]
    clock.now = 140.0
    starts.end()
    waiting.take(Started(0.0))
    clock.now = 150.0
    found = waiting.timings(2.0)
    assert (found.startup_seconds, found.startup_usd) == (40.0, usd[1])


def test_clocks_that_differ() -> None:
    """A request cannot come after its run; the clock of its gateway is ahead then."""
    clock = Clock(100.0)
    watch = Watch(105.0, Starts(clock), clock)
    watch.take(Started(0.0))
    clock.now = 101.0
    assert watch.timings(1.0) == Timings(0.0, 0.0, 1.0, 0.0, 1.0)
