"""The spool: bytes on their way.

A spool is a growing temporary file, hashed as it is written. It can be followed while it grows;
its last byte is withheld until the whole is verified, so that nobody takes what is wrong for right.
It becomes an object or an entry of the tier by its path, or it is discarded.
"""

import asyncio
import fcntl
import os
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Final, Protocol

from cacheproxy.errors import DigestInvalid, RegistryError, SizeInvalid, Unavailable
from cacheproxy.oci.digest import Digest, Hasher
from cacheproxy.storage.blocking import in_thread, os_errors
from cacheproxy.storage.bucket import LocalFile
from cacheproxy.storage.files import CREATE, WRITE, is_at, punch, try_lock, unlink
from cacheproxy.storage.pieces import Pieces

_DEAD_SECONDS: Final = 3600.0


class Body(Protocol):
    """Bytes that arrive: `length` where it was announced, and the batches as they come."""

    length: int | None

    def batches(self) -> AsyncGenerator[Pieces, None]:
        """Non-empty batches until the end. Raises RegistryError if the sender fails."""


class Bytes:
    """Bytes that are here already, as a Body."""

    def __init__(self, data: bytes) -> None:
        self.length: int | None = len(data)
        self._data = data

    async def batches(self) -> AsyncGenerator[Pieces, None]:
        if self._data:
            yield Pieces([self._data])


class Change:
    """Something has changed; who waits looks again."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        await self._event.wait()


class Spool:
    """A file in the making. Made by `SpoolFolder.new`, whose lock on it says that it is in use."""

    def __init__(self, path: str, hasher: Hasher) -> None:
        self.path = path
        self.size = 0
        self.holes = 0
        """Up to which byte the file was given back to the disk."""
        self._hasher = hasher
        self._verified = False
        self._failure: RegistryError | None = None
        self._grown = Change()
        self._fd = os.open(path, WRITE, 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    async def reserve(self, length: int) -> None:
        """Take so much room, so that a full disk is known at once. Raises StorageFull."""
        if length:
            with os_errors:
                await in_thread(os.posix_fallocate, self._fd, 0, length)

    async def fill(self, body: Body, wrote: Callable[[int], Awaitable[None]] | None = None) -> None:
        """Append all of `body`; `wrote` is told the size of the file after each batch.

        Raises:
            SizeInvalid: the body is not as long as it was announced.
            StorageFull: there is no room for it.
        """
        begin = self.size
        async with aclosing(body.batches()) as batches:
            async for batch in batches:
                with os_errors:
                    await in_thread(self._write, batch)
                self._grown.tell()
                if wrote is not None:
                    await wrote(self.size)
        if body.length is not None and body.length != self.size - begin:
            raise SizeInvalid(f"{self.size - begin} bytes came, {body.length} were announced")

    def punch(self, end: int) -> None:
        """Give the bytes before `end` back to the disk."""
        if end > self.holes:
            with os_errors:
                punch(self._fd, self.holes, end - self.holes)
            self.holes = end

    def verify(self, digest: Digest) -> None:
        """Let followers have the last byte. Raises DigestInvalid: it is another content."""
        if (found := self._hasher.digest()) != digest:
            raise DigestInvalid(f"the content is {found}, not {digest}")
        self._verified = True
        self._grown.tell()

    def fail(self, failure: RegistryError) -> None:
        """Tell followers that no more will come."""
        self._failure = failure
        self._grown.tell()

    def follow(self, size: int) -> "Follower":
        """The file as it grows to `size` bytes; the caller closes it."""
        return Follower(self, os.dup(self._fd), size)

    async def reached(self, offset: int, size: int) -> int:
        """Up to which byte the file can be read, as soon as that is more than `offset`."""
        while True:
            end = self.size if self._verified else min(self.size, size - 1)
            if end > offset:
                return end
            if self._failure is not None:
                raise Unavailable("the blob could not be read") from self._failure
            await self._grown.wait()

    def discard(self) -> None:
        """Close, and remove the file if it was not taken from its path: then another may be there
        by now. Never raises."""
        if is_at(self._fd, self.path):
            unlink(self.path)
        os.close(self._fd)
        self._fd = -1  # the number may be another file's at once

    def _write(self, batch: Pieces) -> None:
        """At an offset of its own: the position of the file is moved by who sends from it."""
        batch.hash(self._hasher)
        batch.write_at(self._fd, self.size)
        self.size += batch.size


class Follower(LocalFile):
    """A spool read while it is written, by a descriptor of its own."""

    __slots__ = ("_spool",)

    verified = False

    def __init__(self, spool: Spool, fd: int, size: int) -> None:
        super().__init__(fd, size)
        self._spool = spool

    async def ready(self, offset: int) -> int:
        """See `LocalFile`. Raises Unavailable: the rest will not come."""
        return await self._spool.reached(offset, self.size)


class SpoolFolder:
    """Makes spools in a folder, which is made anew if it vanishes."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @asynccontextmanager
    async def new(self, hasher: Hasher, path: str = "") -> AsyncIterator[Spool]:
        """An empty spool, discarded on exit; its digest is that of all that `hasher` has seen.

        It lies at `path`, in the folder, if others are to find it there, perhaps empty already.
        """
        with os_errors:
            os.makedirs(self.folder, exist_ok=True)
            spool = Spool(path or os.path.join(self.folder, uuid.uuid4().hex), hasher)
        try:
            yield spool
        finally:
            spool.discard()

    def scratch(self) -> int:
        """The descriptor of an empty file without a name; the caller closes it."""
        with os_errors:
            os.makedirs(self.folder, exist_ok=True)
            path = os.path.join(self.folder, uuid.uuid4().hex)
            fd = os.open(path, CREATE, 0o644)
            os.unlink(path)
        return fd

    def sweep(self) -> int:
        """Remove what dead processes left; returns how many files that was. Blocks."""
        with os_errors:
            try:
                entries = list(os.scandir(self.folder))
            except FileNotFoundError:
                return 0
            return sum(_is_dead(entry) and unlink(entry.path) for entry in entries)


def _is_dead(entry: os.DirEntry[str]) -> bool:
    """Whether nobody holds the lock of a spool; one that was just made may not be locked yet."""
    try:
        if time.time() - entry.stat().st_mtime < _DEAD_SECONDS:
            return False
        fd = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return try_lock(fd)
    finally:
        os.close(fd)
