"""Buckets that fail, for flows that must survive it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from cacheproxy.errors import Unavailable
from cacheproxy.storage.bucket import Bucket, LocalFile, Match, Stored


class FaultyBucket:
    """Passes calls on, but the one with number `fail_at` fails: before it does anything, or with
    `late` after it has done all, as when an answer is lost."""

    def __init__(self, inner: Bucket, fail_at: int, late: bool = False) -> None:
        self._inner = inner
        self._left = fail_at
        self._late = late

    @property
    def reached(self) -> bool:
        """Whether the call with that number has come; some cannot fail late."""
        return self._left <= 0

    def _before(self) -> None:
        self._left -= 1
        if self._left == 0 and not self._late:
            raise Unavailable("injected")

    def _after(self) -> None:
        if self._left == 0 and self._late:
            self._left = -1_000_000
            raise Unavailable("injected")

    async def head(self, key: str) -> int | None:
        self._before()
        found = await self._inner.head(key)
        self._after()
        return found

    async def read(self, key: str) -> Stored | None:
        self._before()
        found = await self._inner.read(key)
        self._after()
        return found

    async def open(self, key: str) -> LocalFile | None:
        self._before()
        return await self._inner.open(key)

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        match: Match | None = None,
    ) -> None:
        self._before()
        await self._inner.put(key, data, metadata=metadata, match=match)
        self._after()

    async def adopt(self, path: str, key: str, *, absent: bool = False) -> None:
        self._before()
        await self._inner.adopt(path, key, absent=absent)
        self._after()

    async def join(self, parts: Sequence[str], key: str) -> None:
        self._before()
        await self._inner.join(parts, key)
        self._after()

    async def delete(self, key: str, *, match: Match | None = None) -> bool:
        self._before()
        found = await self._inner.delete(key, match=match)
        self._after()
        return found

    async def list(
        self, prefix: str, *, after: str = "", folders: bool = False
    ) -> AsyncIterator[str]:
        self._before()
        async for key in self._inner.list(prefix, after=after, folders=folders):
            yield key

    async def ping(self) -> None:
        self._before()
        await self._inner.ping()
