"""Many things of one kind, some of them at a time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from cacheproxy.registry.together import one_failure

T = TypeVar("T")


async def for_each(
    found: AsyncIterator[T], work: Callable[[T], Awaitable[None]], at_once: int
) -> None:
    """Do `work` for all that is found, and for no more than `at_once` of them at a time.

    If one fails, the others are ended, and the failure is that one's.
    """
    room = asyncio.Semaphore(at_once)

    async def one(each: T) -> None:
        try:
            await work(each)
        finally:
            room.release()

    with one_failure():
        async with asyncio.TaskGroup() as group:
            async for each in found:
                await room.acquire()
                group.create_task(one(each))


async def in_batches(found: AsyncIterator[T], size: int) -> AsyncIterator[list[T]]:
    """What is found, `size` at a time."""
    batch: list[T] = []
    async for each in found:
        batch.append(each)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
