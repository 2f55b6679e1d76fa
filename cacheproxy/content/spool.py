"""The spool: bytes on their way into the bucket.

A spool is a growing temporary file, hashed as it is written. It is committed with the digest and
size that it must have and becomes an object, or it is discarded on any exit without commit.
"""

import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

from cacheproxy.errors import DigestInvalid, SizeInvalid
from cacheproxy.oci.digest import Digest, Hasher
from cacheproxy.storage.blocking import in_thread, os_errors
from cacheproxy.storage.bucket import Bucket


class Body(Protocol):
    """Bytes that arrive: `length` where it was announced, and the batches as they come."""

    length: int | None

    def batches(self) -> AsyncGenerator[bytes, None]:
        """Non-empty batches until the end. Raises RegistryError if the sender fails."""


class Spool:
    """A file in the making. Made by `SpoolFolder.new`."""

    def __init__(self, path: str, bucket: Bucket, hasher: Hasher) -> None:
        self._path = path
        self._bucket = bucket
        self._hasher = hasher
        self._size = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    @property
    def size(self) -> int:
        return self._size

    async def fill(self, body: Body) -> None:
        """Write all of `body`.

        Reserves the announced length first, so that a full disk is known before the transfer.

        Raises:
            SizeInvalid: the body is not as long as it was announced.
            StorageFull: there is no room for it.
        """
        if body.length:
            with os_errors:
                await in_thread(os.posix_fallocate, self._fd, 0, body.length)
        async with aclosing(body.batches()) as batches:
            async for batch in batches:
                with os_errors:
                    await in_thread(self._write, batch)
        if body.length is not None and body.length != self.size:
            raise SizeInvalid(f"{self.size} bytes came, {body.length} were announced")

    async def commit(self, key: str, digest: Digest | None = None, *, absent: bool = False) -> None:
        """Make the file the object `key` if its content has this digest, where one is given.

        Raises:
            DigestInvalid: the content has another one. Nothing is stored.
            Conflict: the object was to be `absent` and is not.
        """
        if digest is not None and (found := self._hasher.digest()) != digest:
            raise DigestInvalid(f"the content is {found}, not {digest}")
        await self._bucket.adopt(self._path, key, absent=absent)

    def discard(self) -> None:
        """Close, and remove the file if it did not become an object. Never raises."""
        os.close(self._fd)
        if os.path.exists(self._path):
            os.unlink(self._path)

    def _write(self, batch: bytes) -> None:
        self._hasher.update(batch)
        self._size += len(batch)
        view = memoryview(batch)
        while view:
            view = view[os.write(self._fd, view) :]


class SpoolFolder:
    """Makes spools in `folder`, which lies where `bucket` adopts files from."""

    def __init__(self, folder: str, bucket: Bucket) -> None:
        self._folder = folder
        self._bucket = bucket

    @asynccontextmanager
    async def new(
        self, algorithm: str = "sha256", *, after: Hasher | None = None
    ) -> AsyncIterator[Spool]:
        """An empty spool that is discarded on exit unless it was committed.

        With `after`, its digest is that of what was hashed before and its own content together.
        """
        with os_errors:
            path = os.path.join(self._folder, uuid.uuid4().hex)
            spool = Spool(path, self._bucket, after or Hasher(algorithm))
        try:
            yield spool
        finally:
            spool.discard()
