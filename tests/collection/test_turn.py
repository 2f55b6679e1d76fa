"""Whose turn it is to collect."""

from __future__ import annotations

import asyncio

import pytest

from cacheproxy.collection.turn import is_free, turn
from cacheproxy.errors import Unavailable
from tests.collection.rooms import Time
from tests.memory import MemoryBucket

_KEY = "gc/collector"


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def bucket(time: Time) -> MemoryBucket:
    return MemoryBucket(time)


async def test_it_is_one_at_a_time(bucket: MemoryBucket) -> None:
    async with turn(bucket, _KEY, "one") as mine, turn(bucket, _KEY, "two") as its:
        assert (mine, its) == (True, False)
    async with turn(bucket, _KEY, "two") as mine:
        assert mine


async def test_who_is_refused_leaves_the_turn_to_the_other(bucket: MemoryBucket) -> None:
    async with turn(bucket, _KEY, "one"):
        async with turn(bucket, _KEY, "two"):
            pass
        async with turn(bucket, _KEY, "three") as mine:
            assert not mine


async def test_a_turn_of_the_dead_ends(bucket: MemoryBucket, time: Time) -> None:
    """In two minutes, by the clock of the bucket."""
    dead = turn(bucket, _KEY, "dead")
    assert await dead.__aenter__()
    time.now += 119
    async with turn(bucket, _KEY, "next") as mine:
        assert not mine
    time.now += 2
    async with turn(bucket, _KEY, "next") as mine:
        assert mine
    await dead.__aexit__(None, None, None)


async def test_a_long_turn_is_renewed(bucket: MemoryBucket, time: Time) -> None:
    """For as long as its collector lives."""
    due = asyncio.Semaphore(0)

    async def sleep(seconds: float) -> None:
        await due.acquire()
        time.now += seconds

    async with turn(bucket, _KEY, "long", sleep=sleep):
        for _ in range(12):
            due.release()
            for _ in range(20):
                await asyncio.sleep(0)
        async with turn(bucket, _KEY, "other") as mine:
            assert not mine
        assert time.now == Time().now + 240


async def test_who_was_overtaken_does_not_end_the_turn_of_the_next(
    bucket: MemoryBucket, time: Time
) -> None:
    async with turn(bucket, _KEY, "slow"):
        time.now += 121
        following = turn(bucket, _KEY, "next")
        assert await following.__aenter__()
    async with turn(bucket, _KEY, "third") as mine:
        assert not mine
    await following.__aexit__(None, None, None)


async def test_a_whole_cycle_gives_rest(bucket: MemoryBucket, time: Time) -> None:
    """One that failed gives none."""
    with pytest.raises(Unavailable):
        async with turn(bucket, _KEY, "one", 3600.0):
            raise Unavailable
    async with turn(bucket, _KEY, "one", 3600.0) as mine:
        assert mine
    async with turn(bucket, _KEY, "two", 3600.0) as mine:
        assert not mine
    time.now += 3601
    async with turn(bucket, _KEY, "two", 3600.0) as mine:
        assert mine


async def test_it_can_be_seen_whether_a_turn_is_free(bucket: MemoryBucket, time: Time) -> None:
    """By whoever would ask for it: not while another one has it, nor before there was rest."""
    assert await is_free(bucket, _KEY)
    async with turn(bucket, _KEY, "one", 0.0):
        assert not await is_free(bucket, _KEY)
    assert await is_free(bucket, _KEY)
    assert not await is_free(bucket, _KEY, 3600.0)
    time.now += 3601
    assert await is_free(bucket, _KEY, 3600.0)


async def test_a_damaged_turn_is_nobodys(bucket: MemoryBucket) -> None:
    bucket.place(_KEY, b"{")
    async with turn(bucket, _KEY, "one") as mine:
        assert mine


async def test_two_who_take_it_at_once_do_not_both_have_it(bucket: MemoryBucket) -> None:
    both_read = asyncio.Barrier(2)

    async def step(call: str, key: str) -> None:
        if call == "put" and both_read.n_waiting < 2 and not both_read.broken:
            await both_read.wait()

    bucket.step = step
    turns = [turn(bucket, _KEY, name) for name in ("one", "two")]
    taken = await asyncio.gather(*[each.__aenter__() for each in turns])
    await both_read.abort()

    assert sorted(taken) == [False, True]
    for each in turns:
        await each.__aexit__(None, None, None)
