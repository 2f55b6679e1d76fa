"""A budget of bytes or objects: upkeep must not take what builds need."""

import asyncio
import time
from collections.abc import Awaitable, Callable


class Budget:
    """So many of them a second for all who take from it; what was not taken is not saved up."""

    def __init__(
        self,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._per_second = per_second
        self._clock = clock
        self._sleep = sleep
        self._spent_until = 0.0

    async def take(self, count: int) -> None:
        """Return when what was taken before is paid for."""
        now = self._clock()
        begin = max(now, self._spent_until)
        self._spent_until = begin + count / self._per_second
        if begin > now:
            await self._sleep(begin - now)
