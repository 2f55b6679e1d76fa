"""Whose turn it is to collect: one at a time is enough. Correctness does not rest on it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from cacheproxy.errors import Conflict, Unavailable
from cacheproxy.storage.bucket import ABSENT, Bucket, Stored

_TURN_SECONDS: Final = 120.0
_RENEW_SECONDS: Final = 20.0


class _Turn(msgspec.Struct, frozen=True):
    """Times are by the clock of the bucket."""

    collector: str = ""
    until: float = 0.0
    ended: float = 0.0
    """When a whole cycle ended last."""

    def is_free(self, now: float, rest: float, collector: str = "") -> bool:
        """Whether this collector may have it, and no cycle has ended in the last `rest` seconds."""
        mine = self.collector == collector or self.until <= now
        return mine and now >= self.ended + rest


async def is_free(bucket: Bucket, key: str, rest: float = 0.0) -> bool:
    """Whether `turn` would be given to whoever asked for it now. It costs two looks."""
    held = _read(await bucket.read(key))
    return held.is_free(await bucket.now(), rest)


@asynccontextmanager
async def turn(
    bucket: Bucket,
    key: str,
    collector: str,
    rest: float | None = None,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[bool]:
    """Whether it is this collector's turn, for as long as the context lasts.

    With `rest` it is for a whole cycle, and only if none has ended in the last so many seconds.
    """
    if not await _take(bucket, key, collector, rest):
        yield False
        return
    renewing = asyncio.create_task(_renew(bucket, key, collector, sleep))
    whole = False
    try:
        yield True
        whole = rest is not None
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        with suppress(Unavailable, Conflict):
            await _leave(bucket, key, collector, whole)


async def _renew(
    bucket: Bucket, key: str, collector: str, sleep: Callable[[float], Awaitable[None]]
) -> None:
    while True:
        await sleep(_RENEW_SECONDS)
        with suppress(Unavailable):  # the next one may come through
            if not await _take(bucket, key, collector):
                return  # it was too long away; what it deletes is fenced by the batches


async def _take(bucket: Bucket, key: str, collector: str, rest: float | None = None) -> bool:
    """Take the turn, or keep it; False if it is another one's, or nobody's yet."""
    stored = await bucket.read(key)
    held = _read(stored)
    now = await bucket.now()
    if not held.is_free(now, rest or 0.0, collector):
        return False
    mine = _Turn(collector, now + _TURN_SECONDS, held.ended)
    try:
        await bucket.put(key, msgspec.json.encode(mine), match=stored.match if stored else ABSENT)
    except Conflict:
        return False
    return True


async def _leave(bucket: Bucket, key: str, collector: str, whole: bool) -> None:
    stored = await bucket.read(key)
    held = _read(stored)
    if stored is not None and held.collector == collector:
        left = _Turn(ended=await bucket.now() if whole else held.ended)
        await bucket.put(key, msgspec.json.encode(left), match=stored.match)


def _read(stored: Stored | None) -> _Turn:
    """One that is damaged is nobody's."""
    if stored is None:
        return _Turn()
    try:
        return msgspec.json.decode(stored.data, type=_Turn)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Turn()
