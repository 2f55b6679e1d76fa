"""Things that need not wait for each other: each costs a way to the bucket and back."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager


async def together(*awaitables: Awaitable[object]) -> None:
    """Wait for all. If one fails, the others are ended, and the failure is that one's."""

    async def wait(what: Awaitable[object]) -> None:
        await what

    with one_failure():
        async with asyncio.TaskGroup() as group:
            for each in awaitables:
                group.create_task(wait(each))


@contextmanager
def one_failure() -> Iterator[None]:
    """Let the first failure of a group of tasks out, and not the group."""
    try:
        yield
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures.exceptions[0].__cause__
