"""A lock object for a bucket that only one server may use, since it ignores conditions.

Without conditions no lock is certain, so a new owner waits and looks again. A lock that is not
renewed is that of a dead owner.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from cacheproxy.errors import StorageInvalid, Unavailable
from cacheproxy.storage.bucket import Bucket

LOCK_KEY: Final = ".lock"


class BucketInUse(StorageInvalid):
    """Another server owns the bucket."""


class _Lock(msgspec.Struct):
    owner: str
    renewed: float
    """Seconds since the epoch, by the owner's clock."""


@dataclass(frozen=True, slots=True)
class Pace:
    """In seconds: how often a lock is renewed, when it is stale, how long two owners may race."""

    renew: float = 5.0
    stale: float = 30.0
    settle: float = 3.0


class _Owner:
    def __init__(self, bucket: Bucket, pace: Pace, clock: Callable[[], float]) -> None:
        self._bucket = bucket
        self._pace = pace
        self._clock = clock
        self._name = f"{socket.gethostname()} pid {os.getpid()} ({secrets.token_hex(4)})"

    async def refuse_others(self) -> None:
        """Raises BucketInUse if another owner has renewed the lock lately."""
        stored = await self._bucket.read(LOCK_KEY)
        if stored is None:
            return
        try:
            lock = msgspec.json.decode(stored.data, type=_Lock)
        except msgspec.DecodeError:
            return
        if lock.owner != self._name and self._clock() - lock.renewed < self._pace.stale:
            raise BucketInUse(f"the bucket is in use by {lock.owner}")

    async def renew(self) -> None:
        lock = _Lock(self._name, self._clock())
        await self._bucket.put(LOCK_KEY, msgspec.json.encode(lock))

    async def keep(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Renew for ever. Raises BucketInUse when another owner has come meanwhile."""
        while True:
            await sleep(self._pace.renew)
            with suppress(Unavailable):  # neither can another one write now
                await self.refuse_others()
                await self.renew()

    async def release(self) -> None:
        with suppress(Unavailable, BucketInUse):
            await self.refuse_others()
            await self._bucket.delete(LOCK_KEY)


async def refuse_owned(bucket: Bucket) -> None:
    """Raises BucketInUse if there is an owner, and which."""
    await _Owner(bucket, Pace(), time.time).refuse_others()


@asynccontextmanager
async def exclusive_lock(
    bucket: Bucket,
    pace: Pace = Pace(),
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[None]:
    """Own the bucket inside; what runs inside is cancelled when it is owned by another.

    Raises:
        BucketInUse: another server owns it, and which.
    """
    owner = _Owner(bucket, pace, clock)
    await owner.refuse_others()
    await owner.renew()
    await sleep(pace.settle)
    await owner.refuse_others()
    keeping = asyncio.create_task(owner.keep(sleep))
    try:
        async with _cancelled_by(keeping):
            yield
    finally:
        await owner.release()


@asynccontextmanager
async def _cancelled_by(task: asyncio.Task[None]) -> AsyncIterator[None]:
    """Raise inside what `task` raises; it ends with what is inside."""
    inside = asyncio.current_task()
    assert inside is not None

    def interrupt(ended: asyncio.Task[None]) -> None:
        if not ended.cancelled():
            inside.cancel()

    task.add_done_callback(interrupt)
    try:
        yield
    except asyncio.CancelledError:
        if task.done() and not task.cancelled() and (error := task.exception()):
            inside.uncancel()
            raise error from None
        raise
    finally:
        task.remove_done_callback(interrupt)
        task.cancel()
