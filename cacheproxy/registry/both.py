"""Two things that need not wait for each other: each costs a way to the bucket and back."""

import asyncio
from collections.abc import Awaitable


async def both(first: Awaitable[object], second: Awaitable[object]) -> None:
    """Wait for both. If one fails, the other is ended, and the failure is that one's."""

    async def wait(what: Awaitable[object]) -> None:
        await what

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait(first))
            group.create_task(wait(second))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures.exceptions[0].__cause__
