"""Lanes: how long a body waits for its turn."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from cacheproxy.errors import Unavailable
from cacheproxy.storage.s3.lanes import Lanes


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the loop, added to what it is."""
    loop = asyncio.get_running_loop()
    added, real = [0.0], loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + added[0])
    return added


async def test_as_many_as_there_are_lanes_go_at_once() -> None:
    """The next one goes when one of them has arrived."""
    lanes = Lanes(2)
    inside: list[int] = []
    go = asyncio.Event()

    async def body(number: int) -> None:
        async with lanes.lane(60):
            inside.append(number)
            await go.wait()

    bodies = [asyncio.create_task(body(number)) for number in range(3)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert inside == [0, 1]
    go.set()
    await asyncio.gather(*bodies)

    assert inside == [0, 1, 2]


async def test_who_waits_while_nothing_arrives_is_refused_in_its_time(clock: list[float]) -> None:
    """With S3 gone, a queue is not as long as all that stand in it."""
    lanes = Lanes(1)
    async with lanes.lane(60):
        waiting = asyncio.create_task(_enter(lanes, 30))
        await asyncio.sleep(0)
        clock[0] += 31

        with pytest.raises(Unavailable):
            await waiting


async def test_who_waits_while_others_arrive_has_all_its_time_left(clock: list[float]) -> None:
    """A slow S3 is not one that is gone."""
    lanes = Lanes(1)
    async with AsyncExitStack() as first:
        await first.enter_async_context(lanes.lane(60))
        waiting = asyncio.create_task(_enter(lanes, 30))
        await asyncio.sleep(0)
        clock[0] += 29
        await first.aclose()

        assert await waiting == pytest.approx(30, abs=1)


async def test_a_failure_is_no_arrival(clock: list[float]) -> None:
    """Those that fail give their lane away, but no time."""
    lanes = Lanes(1)
    first = lanes.lane(60)
    await first.__aenter__()
    waiting = asyncio.create_task(_enter(lanes, 30))
    await asyncio.sleep(0)
    clock[0] += 20
    await first.__aexit__(Unavailable, Unavailable("S3 is gone"), None)

    assert await waiting == pytest.approx(10, abs=1)


async def _enter(lanes: Lanes, seconds: float) -> float:
    async with lanes.lane(seconds) as left:
        return left
