"""A content room with a tier before a bucket that is far away, and what comes in and goes out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import partial
from pathlib import Path
from typing import Any

from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import SpoolFolder
from cacheproxy.content.tier import Tier
from cacheproxy.errors import BlobUploadInvalid
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.storage.bucket import LocalFile
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.pieces import Pieces
from tests.fakes import FaultyBucket, RemoteBucket

KEY = "blobs/x"


class Room:
    """Contents over a `remote` bucket with a tier of `limit` bytes; or over a `local` one, without.

    The bucket's call with number `fail_at` fails.
    """

    def __init__(
        self, place: Path, limit: int = 1 << 30, *, local: bool = False, fail_at: int = 0
    ) -> None:
        bucket = place / "bucket"
        bucket.mkdir(parents=True, exist_ok=True)
        self.folder = FolderBucket(str(bucket))
        self.remote = RemoteBucket(self.folder, fail_at=fail_at)
        self.tier = Tier(str(place / "tier"), limit)
        self.spools = SpoolFolder(self.folder.spool if local else self.tier.spool)
        self.contents = self.another()
        if local:
            self.contents = Contents(FaultyBucket(self.folder, fail_at), self.spools)

    def another(self) -> Contents:
        """The contents as another process of the machine has them."""
        return Contents(self.remote, self.spools, self.tier)

    @property
    def spooled(self) -> list[str]:
        """Files that are neither entries nor gone."""
        return os.listdir(self.spools.folder)

    async def hold(self, content: bytes) -> Digest:
        """Let the bucket have this content under `KEY`."""
        await self.folder.put(KEY, content)
        return digest_of(content)

    async def stored(self) -> bytes | None:
        """What the bucket has under `KEY`."""
        stored = await self.folder.read(KEY)
        return None if stored is None else stored.data

    def entry(self) -> bytes | None:
        """What the tier has under `KEY`."""
        file = self.tier.open(KEY)
        if file is None:
            return None
        with file:
            return file.read_at(0, file.size)

    async def get(self, digest: Digest) -> bytes | None:
        """The whole content, as a client gets it."""
        file = await self.contents.open(KEY, digest)
        return None if file is None else await read(file)


async def read(file: LocalFile, start: int = 0, end: int | None = None) -> bytes:
    """The bytes of a file as they become ready; closes it."""
    end, got = file.size if end is None else end, b""
    with file:
        while start + len(got) < end:
            at = start + len(got)
            got += file.read_at(at, min(await file.ready(at), end) - at)
    return got


class Batches:
    """A body of these batches that announces `length`; it waits for `go` before the last one."""

    def __init__(
        self, *batches: bytes, length: int | None = None, go: asyncio.Event | None = None
    ) -> None:
        self.length = length
        self.reached = asyncio.Event()
        self.closed = False
        self._batches = batches
        self._go = go

    async def batches(self) -> AsyncGenerator[Pieces, None]:
        try:
            for batch in self._batches[:-1]:
                yield Pieces([batch])
            self.reached.set()
            if self._go is not None:
                await self._go.wait()
            for batch in self._batches[-1:]:
                yield Pieces([batch])
        finally:
            self.closed = True


class Broken:
    """A body whose sender goes away after some bytes."""

    length: int | None = None

    async def batches(self) -> AsyncGenerator[Pieces, None]:
        yield Pieces([b"some"])
        raise BlobUploadInvalid("the client went away")


class CancelledAt:
    """Awaits a coroutine, and cancels its task the time `at` that it waits."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], at: int) -> None:
        self._steps = coroutine.__await__()
        self._left = at

    @property
    def reached(self) -> bool:
        """Whether it has waited so often."""
        return self._left <= 0

    def __await__(self) -> Generator[Any, Any, None]:
        step: Callable[[], Any] = partial(next, self._steps)
        while True:
            try:
                waits_for = step()
            except StopIteration:
                return
            self._left -= 1
            task = asyncio.current_task()
            if self._left == 0 and task is not None:
                task.cancel()
            try:
                yield waits_for
                step = partial(next, self._steps)
            except BaseException as error:
                step = partial(self._steps.throw, error)


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


async def settle() -> None:
    """Let all go on that can without a thread."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(what: Callable[[], bool]) -> None:
    """Wait for something that no event tells of."""
    async with asyncio.timeout(60):
        while not what():
            await asyncio.sleep(0)
