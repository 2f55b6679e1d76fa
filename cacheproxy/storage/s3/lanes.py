"""Lanes: few large bodies go to S3 at a time, so that each of them gets on.

All at once they would share the way there, and each be as late as the last: too late for its limit.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from cacheproxy.errors import Unavailable

_LANES: Final = 16


class Lanes:
    """Who waits for a lane goes on waiting while bodies arrive on the others."""

    def __init__(self, count: int = _LANES) -> None:
        self._free = asyncio.Semaphore(count)
        self._moved = 0.0

    @asynccontextmanager
    async def lane(self, seconds: float) -> AsyncIterator[float]:
        """A lane, and how many of the seconds are left: those are gone in which nothing arrived.

        Raises:
            Unavailable: nothing has arrived for so long.
        """
        left = await self._wait(seconds)
        try:
            yield left
            self._moved = asyncio.get_running_loop().time()
        finally:
            self._free.release()

    async def _wait(self, seconds: float) -> float:
        clock = asyncio.get_running_loop().time
        began = clock()
        while (left := max(self._moved, began) + seconds - clock()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._free.acquire()
            except TimeoutError:
                continue
            return max(self._moved, began) + seconds - clock()
        raise Unavailable("the bucket takes no more")
