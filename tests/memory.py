"""A bucket in memory, with a clock that is set, and with every call in the hands of the test."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from cacheproxy.errors import Conflict
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.bucket import ABSENT, Head, Listed, LocalFile, Match, Stored, Upload


@dataclass(frozen=True, slots=True)
class Object:
    """With a `size` of its own where the data are only told of."""

    data: bytes
    modified: float
    version: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    size: int = 0


Step = Callable[[str, str], Awaitable[None]]
"""Told of a call before and after its effect: the name of the call, and the key."""


async def _go_on(call: str, key: str) -> None:
    pass


class MemoryBucket:
    """See `Bucket`. `clock` gives seconds since 1970; whoever sets `step` is asked at each call."""

    local = True

    def __init__(self, clock: Callable[[], float]) -> None:
        self.objects: dict[str, Object] = {}
        self.step: Step = _go_on
        self.calls = 0
        self._clock = clock
        self._versions = count(1)
        self._sorted: Sequence[str] | None = None

    def place(
        self,
        key: str,
        data: bytes,
        metadata: Mapping[str, str] | None = None,
        size: int | None = None,
    ) -> None:
        """Put an object there, perhaps one of which only the size is told."""
        if key not in self.objects:
            self._sorted = None
        size = len(data) if size is None else size
        version = str(next(self._versions))
        self.objects[key] = Object(data, self._clock(), version, metadata or {}, size)

    def remove(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            self._sorted = None

    async def head(self, key: str) -> Head | None:
        async with self._call("head", key):
            found = self.objects.get(key)
        return None if found is None else Head(found.size)

    async def read(self, key: str, known: Stored | None = None) -> Stored | None:
        async with self._call("read", key):
            found = self.objects.get(key)
        if found is None:
            return None
        if known is not None and known.version == found.version:
            return known
        return Stored(found.data, found.metadata, found.version)

    async def open(self, key: str, part: ByteRange | None = None) -> LocalFile | None:
        async with self._call("open", key):
            found = self.objects.get(key)
        if found is None:
            return None
        fd = os.memfd_create("object")
        os.write(fd, found.data)
        return LocalFile(fd, len(found.data))

    async def url(self, key: str, seconds: int) -> None:
        """What is here has no URL."""

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        match: Match | None = None,
    ) -> None:
        async with self._call("put", key):
            self._check(key, match)
            self.place(key, data, metadata)

    @asynccontextmanager
    async def upload(
        self, path: str, key: str, length: int | None, pusher: str = ""
    ) -> AsyncIterator[Upload]:
        yield _Upload(self, path, key)

    async def join(self, parts: Sequence[Listed], key: str, pusher: str = "") -> None:
        async with self._call("join", key):
            self.place(key, b"".join(self.objects[part.key].data for part in parts))

    async def delete(self, key: str, *, match: Match | None = None) -> None:
        async with self._call("delete", key):
            self._check(key, match)
            self.remove(key)

    async def deletion(self, key: str, seconds: int) -> Callable[[], Awaitable[None]]:
        end = self._clock() + seconds

        async def send() -> None:
            async with self._call("deletion", key):
                if self._clock() < end:
                    self.remove(key)

        return send

    async def list(
        self, prefix: str, *, after: str = "", folders: bool = False
    ) -> AsyncIterator[Listed]:
        async with self._call("list", prefix):
            keys = self._keys()
        at = bisect_right(keys, max(prefix, after))
        told = ""
        while at < len(keys) and keys[at].startswith(prefix):
            key, at = keys[at], at + 1
            below, slash, _ = key[len(prefix) :].partition("/")
            if folders and slash:
                folder = prefix + below + "/"
                if folder not in (told, after):
                    yield Listed(folder)
                told = folder
            elif (found := self.objects.get(key)) is not None:
                yield Listed(key, found.size, found.modified)

    async def now(self) -> float:
        async with self._call("now", ""):
            return self._clock()

    async def ping(self) -> None:
        async with self._call("ping", ""):
            pass

    async def sweep(self, seconds: float) -> int:
        return 0

    def _keys(self) -> Sequence[str]:
        if self._sorted is None:
            self._sorted = sorted(self.objects)
        return self._sorted

    def _check(self, key: str, match: Match | None) -> None:
        if match is not None:
            found = self.objects.get(key)
            if match.version != (None if found is None else found.version):
                raise Conflict(key)

    @asynccontextmanager
    async def _call(self, call: str, key: str) -> AsyncIterator[None]:
        self.calls += 1
        await self.step(call, key)
        yield
        await self.step(f"after {call}", key)


class _Upload:
    sent = 0

    def __init__(self, bucket: MemoryBucket, path: str, key: str) -> None:
        self._bucket = bucket
        self._path = path
        self._key = key

    async def wrote(self, size: int) -> None:
        """Nothing goes ahead."""

    async def commit(self, digest: Digest | None, size: int, *, absent: bool = False) -> None:
        with open(self._path, "rb") as file:
            await self._bucket.put(self._key, file.read(), match=ABSENT if absent else None)
