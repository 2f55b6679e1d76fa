"""A window on an object: a part of it, read as far ahead as its reader needs and no further."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Self

import structlog

from cacheproxy.content.spool import Change, SpoolFolder
from cacheproxy.errors import RegistryError, Unavailable
from cacheproxy.oci.digest import Digest, Hasher
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.blocking import in_thread, os_errors
from cacheproxy.storage.bucket import Bucket, LocalFile, Origin, Stream
from cacheproxy.storage.pieces import Pieces

log = structlog.get_logger()

# One request to the bucket. A reader that stops holds two pieces on the disk, and no connection.
_PIECE_BYTES: Final = 16 << 20

# How often a body may break before it has brought another byte.
_BREAKS: Final = 3


class Reading:
    """A part of an object as a `content.spool.Body`, taken up again where it breaks."""

    def __init__(self, bucket: Bucket, key: str, part: ByteRange, first: Stream) -> None:
        self.length: int | None = part.length
        self._bucket = bucket
        self._key = key
        self._part = part
        self._stream = first

    async def batches(self) -> AsyncGenerator[Pieces, None]:
        offset, end, breaks = self._part.start, self._part.start + self._part.length, 0
        while True:
            try:
                async with aclosing(self._stream.batches()) as batches:
                    async for batch in batches:
                        breaks, offset = 0, offset + batch.size
                        yield batch
                return
            except Unavailable:
                breaks += 1
                if offset == end:
                    return  # it broke behind the last byte
                if breaks == _BREAKS:
                    raise
            finally:
                self._stream.close()
            self._stream = await _open(self._bucket, self._key, ByteRange(offset, end - offset))


class Window(LocalFile):
    """`size` is that of the object; the bytes of `part` can be read, in order, once.

    `fd` is that of the piece which the last `ready` was about. A piece is a file of its own, for
    the kernel may still be sending it when its reader is done with it: then closing the file takes
    nothing away, while punching a hole would have zeros sent.

    With a digest, `part` is the whole, and its last byte is withheld until all is verified.
    """

    __slots__ = (
        "_change",
        "_end",
        "_failure",
        "_files",
        "_hasher",
        "_pusher",
        "_read",
        "_stream",
        "_task",
    )

    verified = False

    def __init__(self, size: int, start: int, first: Stream) -> None:
        super().__init__(-1, size, Origin.BUCKET)
        self._pusher = first.pusher
        self._change = Change()
        self._read = self._end = start
        self._files: list[tuple[int, int]] = []  # where a piece ends, and its descriptor
        self._failure: RegistryError | None = None
        self._stream: Stream | None = first
        self._task: asyncio.Task[None] | None = None
        self._hasher: Hasher | None = None  # as long as something is withheld

    @classmethod
    async def open(
        cls,
        bucket: Bucket,
        spools: SpoolFolder,
        key: str,
        part: ByteRange,
        digest: Digest | None = None,
    ) -> Self | None:
        """A window on an object, None if it is absent; the caller closes it."""
        pieces = _pieces(part)
        first = await bucket.open(key, pieces[0])
        if first is None:
            return None
        assert not isinstance(first, LocalFile), "a local object needs no window"
        window = cls(first.size, part.start, first)
        window._hasher = None if digest is None else Hasher(digest.algorithm)
        window._task = asyncio.create_task(window._fetch(bucket, spools, key, pieces, digest))
        window._task.add_done_callback(window._ended)
        return window

    @property
    def pusher(self) -> str:
        return self._pusher

    async def ready(self, offset: int) -> int:
        """See `LocalFile`. Raises Unavailable: the rest will not come."""
        self._read = offset
        self._change.tell()
        while (until := self._readable()) <= offset:
            if self._failure is not None:
                raise Unavailable("the blob could not be read") from self._failure
            await self._change.wait()
        while self._files[0][0] <= offset:
            os.close(self._files.pop(0)[1])
        end, self.fd = self._files[0]
        return min(end, until)

    def close(self) -> None:
        """The files go when nobody writes to them any more."""
        if self._task is not None and not self._task.cancel():
            self._close_files()

    def _readable(self) -> int:
        return self._end if self._hasher is None else min(self._end, self.size - 1)

    async def _fetch(
        self,
        bucket: Bucket,
        spools: SpoolFolder,
        key: str,
        pieces: list[ByteRange],
        digest: Digest | None,
    ) -> None:
        """Read each piece into a file when the reader is in the one before it."""
        try:
            for piece in pieces:
                while piece.start - self._read > _PIECE_BYTES:
                    await self._change.wait()
                if self._stream is None:
                    self._stream = await _open(bucket, key, piece)
                await self._take(Reading(bucket, key, piece, self._stream), spools.scratch(), piece)
                self._stream = None
            if self._hasher is not None and self._hasher.digest() != digest:
                log.error("blob_is_damaged", digest=digest)
                raise Unavailable("the blob is damaged in the bucket")
            self._hasher = None
            self._change.tell()
        except RegistryError as error:
            self._fail(error)

    async def _take(self, body: Reading, fd: int, piece: ByteRange) -> None:
        self._files.append((piece.start + piece.length, fd))
        async with aclosing(body.batches()) as batches:
            async for batch in batches:
                with os_errors:
                    await in_thread(self._write, fd, batch)
                self._end += batch.size
                self._change.tell()

    def _write(self, fd: int, batch: Pieces) -> None:
        if self._hasher is not None:
            batch.hash(self._hasher)
        batch.write_at(fd, self._end)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Let go of the stream, also if the task was cancelled before it began."""
        if self._stream is not None:
            self._stream.close()
        if task.cancelled():
            self._close_files()
        elif error := task.exception():
            log.error("window_crashed", exc_info=error)
            self._fail(Unavailable("the server has failed"))

    def _fail(self, failure: RegistryError) -> None:
        self._failure = failure
        self._change.tell()

    def _close_files(self) -> None:
        while self._files:
            os.close(self._files.pop()[1])


def _pieces(part: ByteRange) -> list[ByteRange]:
    end = part.start + part.length
    starts = range(part.start, end, _PIECE_BYTES)
    return [ByteRange(start, min(_PIECE_BYTES, end - start)) for start in starts]


async def _open(bucket: Bucket, key: str, part: ByteRange) -> Stream:
    stream = await bucket.open(key, part)
    if stream is None:
        raise Unavailable("the object has vanished while it was read")
    assert not isinstance(stream, LocalFile), "a local object is not read this way"
    return stream
