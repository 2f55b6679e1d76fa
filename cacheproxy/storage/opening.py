"""From a storage URL to a bucket: claimed once by the server and opened by each of its processes;
joined by those that they start; visited by commands, beside servers that run."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import replace
from typing import Protocol
from urllib.parse import unquote, urlsplit

from cacheproxy.errors import StorageInvalid
from cacheproxy.storage.bucket import Bucket, Observe
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.format import check_format, has_format
from cacheproxy.storage.layout import FORMAT_KEY
from cacheproxy.storage.s3.options import S3Options


class Place(Protocol):
    """Where a registry keeps what it has."""

    @property
    def conditions(self) -> int | None:
        """Once it is claimed, the descriptor that processes must inherit to write beside this one;
        None: they need none."""

    def claimed(self, workers: int) -> AbstractContextManager[None]:
        """Make sure, before any of so many processes opens it, that it can be used.

        Raises:
            StorageInvalid, FolderInUse, Unavailable: it cannot, and why.
        """

    def opened(self, observe: Observe | None = None) -> AbstractAsyncContextManager[Bucket]:
        """The bucket, for one process. Raises as `claimed`."""

    def joined(self, conditions: int | None) -> AbstractAsyncContextManager[Bucket]:
        """The bucket for a process that a server has started, and that has inherited `conditions`
        from it. Raises as `claimed`."""

    def visited(self, *, writing: bool = False) -> AbstractAsyncContextManager[Bucket]:
        """The bucket for a command, which may only read it unless it is `writing`. Servers run on;
        none is needed.

        Raises:
            StorageInvalid, Unavailable: there is none, or it cannot be used like this, and why.
        """


def place(url: str, options: S3Options) -> Place:
    """What `file:///folder` or `s3://bucket/prefix` names. Raises StorageInvalid."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and path not in ("", "/"):
        return _Folder(path)
    if parts.scheme == "s3" and parts.netloc:
        # Only who uses it pays for it: importing botocore takes longer than all else at start.
        from cacheproxy.storage.s3.place import S3Place

        prefix = path.strip("/")
        return S3Place(replace(options, bucket=parts.netloc, prefix=f"{prefix}/" if prefix else ""))
    raise StorageInvalid(f"{url!r} is neither file:///folder nor s3://bucket/prefix")


class _Folder:
    """A folder, made if need be, and owned by one server."""

    conditions = None

    def __init__(self, root: str) -> None:
        self._root = root

    @contextmanager
    def claimed(self, workers: int) -> Iterator[None]:
        bucket = FolderBucket(self._root)
        lock = bucket.claim()
        try:
            asyncio.run(check_format(bucket))
            yield
        finally:
            os.close(lock)

    @asynccontextmanager
    async def opened(self, observe: Observe | None = None) -> AsyncIterator[Bucket]:
        yield FolderBucket(self._root)

    @asynccontextmanager
    async def joined(self, conditions: int | None) -> AsyncIterator[Bucket]:
        bucket = FolderBucket(self._root)
        with _visiting(bucket):
            yield bucket

    @asynccontextmanager
    async def visited(self, *, writing: bool = False) -> AsyncIterator[Bucket]:
        format_file = os.path.join(self._root, FORMAT_KEY)
        if not os.path.isfile(format_file):  # looked for first: a bucket makes its folders
            raise StorageInvalid(f"no server has stored anything in {self._root} yet")
        bucket = FolderBucket(self._root)
        await has_format(bucket)
        if not writing:
            yield bucket
            return
        if os.stat(format_file).st_uid != os.geteuid():
            raise StorageInvalid(f"{self._root} is another user's, whom this would lock out")
        with _visiting(bucket):
            yield bucket


@contextmanager
def _visiting(bucket: FolderBucket) -> Iterator[None]:
    visit = bucket.visit()
    try:
        yield
    finally:
        os.close(visit)
