"""Trying again: the one policy for every request that a bucket needs."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Final, TypeVar

from cacheproxy.errors import Unavailable

T = TypeVar("T")

_FIRST_WAIT_SECONDS: Final = 0.05
_LONGEST_WAIT_SECONDS: Final = 5.0


class Passing(Exception):
    """An attempt failed in a way in which the next one may not. Never leaves `persist`."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The attempt after `before` others, while `seconds` are left for all."""

    before: int
    seconds: float


async def persist(attempt: Callable[[Attempt], Awaitable[T]], seconds: float) -> T:
    """What `attempt` gives, tried again for so many seconds with growing, random waits between.

    Raises:
        Unavailable: there is no time for another one.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + seconds
    telling: Passing | None = None
    for before in count():
        try:
            return await attempt(Attempt(before, end - clock()))
        except Passing as failure:
            # The end of our time may cut the last attempt short, which says nothing about S3.
            if telling is None or not isinstance(failure.__cause__, TimeoutError):
                telling = failure
            wait = wait_seconds(before, random.random())
            if clock() + wait >= end:
                raise Unavailable(str(telling)) from telling
        await asyncio.sleep(wait)
    raise AssertionError


def wait_seconds(before: int, chance: float) -> float:
    """How long to wait after the attempt that had `before` others; `chance` is from 0 to 1.

    It is spread, so that what failed together is not tried again together.
    """
    longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** min(before, 16))
    return longest * (0.5 + chance / 2)
