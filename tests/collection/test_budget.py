"""The pace of upkeep."""

from __future__ import annotations

from cacheproxy.collection.budget import Budget


class _Time:
    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_what_is_taken_takes_its_time() -> None:
    """So many bytes a second, however they are cut."""
    time = _Time()
    budget = Budget(10.0, time.clock, time.sleep)
    for count in (5, 20, 1, 0, 4, 0):
        await budget.take(count)

    assert time.now == 103.0


async def test_nothing_is_saved_up() -> None:
    """Who was slow does not hurry afterwards."""
    time = _Time()
    budget = Budget(10.0, time.clock, time.sleep)
    time.now += 1000
    await budget.take(50)
    await budget.take(0)

    assert time.now == 1105.0
