"""Buckets that fail or are far away, for flows that must survive it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from cacheproxy.errors import Unavailable
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.bucket import (
    ABSENT,
    Bucket,
    Head,
    Listed,
    LocalFile,
    Match,
    Stored,
    Stream,
    Upload,
)
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.pieces import Pieces


class FaultyBucket:
    """Passes calls on, but the one with number `fail_at` fails: before it does anything, or with
    `late` after it has done all, as when an answer is lost."""

    def __init__(self, inner: Bucket, fail_at: int, late: bool = False) -> None:
        self._inner = inner
        self._left = fail_at
        self._late = late
        self.local = inner.local

    @property
    def reached(self) -> bool:
        """Whether the call with that number has come; some cannot fail late."""
        return self._left <= 0

    def arm(self, fail_at: int) -> None:
        """Let the call with this number from now on fail; 0: none."""
        self._left = fail_at

    def before(self) -> None:
        self._left -= 1
        if self._left == 0 and not self._late:
            raise Unavailable("injected")

    def after(self) -> None:
        if self._left == 0 and self._late:
            self._left = -1_000_000
            raise Unavailable("injected")

    async def head(self, key: str) -> Head | None:
        self.before()
        found = await self._inner.head(key)
        self.after()
        return found

    async def read(self, key: str, known: Stored | None = None) -> Stored | None:
        self.before()
        found = await self._inner.read(key, known)
        self.after()
        return found

    async def open(self, key: str, part: ByteRange | None = None) -> LocalFile | Stream | None:
        self.before()
        return await self._inner.open(key, part)

    async def url(self, key: str, seconds: int) -> str | None:
        return await self._inner.url(key, seconds)

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        match: Match | None = None,
    ) -> None:
        self.before()
        await self._inner.put(key, data, metadata=metadata, match=match)
        self.after()

    @asynccontextmanager
    async def upload(
        self, path: str, key: str, length: int | None, pusher: str = ""
    ) -> AsyncIterator[Upload]:
        async with self._inner.upload(path, key, length, pusher) as upload:
            yield _FaultyUpload(self, upload)

    async def join(self, parts: Sequence[Listed], key: str, pusher: str = "") -> None:
        self.before()
        await self._inner.join(parts, key, pusher)
        self.after()

    async def delete(self, key: str, *, match: Match | None = None) -> None:
        self.before()
        await self._inner.delete(key, match=match)
        self.after()

    async def deletion(self, key: str, seconds: int) -> Callable[[], Awaitable[None]]:
        self.before()
        send = await self._inner.deletion(key, seconds)

        async def counted() -> None:
            self.before()
            await send()
            self.after()

        return counted

    async def list(
        self, prefix: str, *, after: str = "", folders: bool = False
    ) -> AsyncIterator[Listed]:
        self.before()
        async for listed in self._inner.list(prefix, after=after, folders=folders):
            yield listed

    async def now(self) -> float:
        self.before()
        return await self._inner.now()

    async def ping(self) -> None:
        self.before()
        await self._inner.ping()

    async def sweep(self, seconds: float) -> int:
        self.before()
        return await self._inner.sweep(seconds)


class _FaultyUpload:
    """What a commit does is one more call of its bucket's."""

    def __init__(self, bucket: FaultyBucket, upload: Upload) -> None:
        self._bucket = bucket
        self._upload = upload

    @property
    def sent(self) -> int:
        return self._upload.sent

    async def wrote(self, size: int) -> None:
        await self._upload.wrote(size)

    async def commit(self, digest: Digest | None, size: int, *, absent: bool = False) -> None:
        self._bucket.before()
        await self._upload.commit(digest, size, absent=absent)
        self._bucket.after()


class RemoteBucket(FaultyBucket):
    """The objects of a folder as streams, as if they came from far away.

    What happens to them is set from outside:
    - `gate`: a permit for each batch, and one for the end; none is needed where it is None.
    - `door`: an `open` waits for it.
    - `breaks`: after how many bytes the streams break, one after the other; the others do not.
    - `corrupt`: the byte at this offset is another one.
    - `ahead`: uploads send what was written at once, so that it is not needed any more.
    """

    def __init__(self, inner: FolderBucket, batch_bytes: int = 4, fail_at: int = 0) -> None:
        super().__init__(inner, fail_at)
        self.local = False
        self.batch_bytes = batch_bytes
        self.gate: asyncio.Semaphore | None = None
        self.door = asyncio.Event()
        self.door.set()
        self.breaks: list[int] = []
        self.corrupt = -1
        self.ahead = False
        self.opened: list[tuple[str, ByteRange | None]] = []
        self.streaming = 0
        self.wrote: list[int] = []
        self.pushers: dict[str, str] = {}

    def parts(self, key: str) -> list[ByteRange | None]:
        """What of an object was asked for, call by call."""
        return [part for opened, part in self.opened if opened == key]

    def free(self) -> None:
        """Let go what waits at the gate, and all that will come."""
        gate, self.gate = self.gate, None
        if gate is not None:
            for _ in range(self.streaming):
                gate.release()

    async def head(self, key: str) -> Head | None:
        found = await super().head(key)
        return None if found is None else Head(found.size, self.pushers.get(key, ""))

    async def open(self, key: str, part: ByteRange | None = None) -> Stream | None:
        self.opened.append((key, part))
        await self.door.wait()
        file = await super().open(key)
        if file is None:
            return None
        assert isinstance(file, LocalFile)
        pusher = self.pushers.get(key, "")
        return _RemoteStream(self, file, part or ByteRange(0, file.size), pusher)

    @asynccontextmanager
    async def upload(
        self, path: str, key: str, length: int | None, pusher: str = ""
    ) -> AsyncIterator[Upload]:
        self.pushers[key] = pusher
        yield _Copy(self, path, key)


class _RemoteStream:
    def __init__(self, bucket: RemoteBucket, file: LocalFile, part: ByteRange, pusher: str) -> None:
        self.pusher = pusher
        assert part.start + part.length <= file.size, "nobody asks for what is not there"
        self.size = file.size
        self.length: int | None = part.length
        self._bucket = bucket
        self._file = file
        self._part = part
        self._left = bucket.breaks.pop(0) if bucket.breaks else None
        self._closed = False
        bucket.streaming += 1

    async def batches(self) -> AsyncGenerator[Pieces, None]:
        offset, end = self._part.start, self._part.start + self._part.length
        while True:
            if self._bucket.gate is not None:
                await self._bucket.gate.acquire()
            if self._left == 0:
                raise Unavailable("the connection broke")
            if offset == end:
                return
            count = min(self._bucket.batch_bytes, end - offset, self._left or end)
            batch = bytearray(self._file.read_at(offset, count))
            if 0 <= self._bucket.corrupt - offset < count:
                batch[self._bucket.corrupt - offset] ^= 1
            yield Pieces([bytes(batch)])
            offset += count
            self._left = None if self._left is None else self._left - count

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._bucket.streaming -= 1
            self._file.close()


class _Copy:
    """The upload of a file that stays where it is."""

    def __init__(self, bucket: RemoteBucket, path: str, key: str) -> None:
        self._bucket = bucket
        self._path = path
        self._key = key
        self._data = b""

    @property
    def sent(self) -> int:
        return len(self._data)

    async def wrote(self, size: int) -> None:
        self._bucket.wrote.append(size)
        if self._bucket.ahead:
            self._send(size)

    async def commit(self, digest: Digest | None, size: int, *, absent: bool = False) -> None:
        self._send(size)
        assert digest is None or digest_of(self._data, digest.algorithm) == digest
        await self._bucket.put(self._key, self._data, match=ABSENT if absent else None)

    def _send(self, size: int) -> None:
        with open(self._path, "rb") as file:
            file.seek(self.sent)
            self._data += file.read(size - self.sent)
        assert self.sent == size, "the file has as many bytes as was said"
