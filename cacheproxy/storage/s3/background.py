"""Tidying that nobody need wait for: it must neither be cut short nor hold up who failed."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

_WAIT_SECONDS: Final = 5.0


class Background:
    """Work that goes on, with nobody told of its failure: what it leaves is swept some day."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, and wait for it some seconds; a cancelled caller waits no more."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        await asyncio.wait([task], timeout=_WAIT_SECONDS)

    async def end(self) -> None:
        """Wait some seconds for what still goes on, then cancel it."""
        if not self._tasks:
            return
        tasks = list(self._tasks)
        _, late = await asyncio.wait(tasks, timeout=_WAIT_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that it is not logged as lost
