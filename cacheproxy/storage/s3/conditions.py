"""Conditions of writes, for a bucket that ignores them: one writer to a key at a time.

One server alone writes to such a bucket, with the processes that it has started. They share a file,
of which each byte is a stripe of keys: the kernel locks it for one process at a time, and frees it
when that ends. Inside a process the tasks wait for each other.
"""

import asyncio
import fcntl
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from cacheproxy.errors import Unavailable
from cacheproxy.storage.deadline import Deadline

_STRIPES: Final = 64
_LOOK_SECONDS: Final = 0.02
_PATIENCE_SECONDS: Final = 60.0


class Conditions:
    """`descriptor` is that of the shared file; None: no other process writes."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._stripes = [asyncio.Lock() for _ in range(_STRIPES)]

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """Be the only one inside who writes on conditions to this key.

        Raises:
            Unavailable: another process does, for too long.
        """
        stripe = zlib.crc32(key.encode()) % _STRIPES
        async with self._stripes[stripe]:
            if self._descriptor is None:
                yield
                return
            await _lock(self._descriptor, stripe)
            try:
                yield
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, stripe)


async def _lock(descriptor: int, stripe: int) -> None:
    """Asked for again and again: one who hangs must not hold up the threads of who waits."""
    patience = Deadline(_PATIENCE_SECONDS)
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, stripe)
            return
        except (BlockingIOError, PermissionError) as error:
            if patience.is_over():
                raise Unavailable("another process writes there, for too long") from error
        await asyncio.sleep(_LOOK_SECONDS)
