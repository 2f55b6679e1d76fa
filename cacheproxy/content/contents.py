"""Contents: what a bucket holds, brought here and sent there through files on the local disk."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from cacheproxy.content.fills import Fills
from cacheproxy.content.spool import Body, Spool, SpoolFolder
from cacheproxy.content.tier import Tier
from cacheproxy.content.window import Reading, Window
from cacheproxy.errors import SizeInvalid, StorageFull, Unavailable
from cacheproxy.oci.digest import Digest, Hasher
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.blocking import in_thread, os_errors
from cacheproxy.storage.bucket import Bucket, LocalFile, Upload
from cacheproxy.storage.files import set_pusher

_URL_SECONDS: Final = 3600
_PIECE_BYTES: Final = 8 << 20


class Received:
    """A body that has come in whole, and waits to be committed."""

    def __init__(
        self, key: str, spool: Spool, upload: Upload, tier: Tier | None, pusher: str
    ) -> None:
        self._key = key
        self._pusher = pusher
        self._spool = spool
        self._upload = upload
        self._tier = tier

    @property
    def size(self) -> int:
        return self._spool.size

    def verify(self, digest: Digest) -> None:
        """Raises DigestInvalid: the content has another digest."""
        self._spool.verify(digest)

    async def commit(self, digest: Digest) -> None:
        """Make it an object, and an entry of the tier; nothing is stored if `verify` raises."""
        self.verify(digest)
        await self._upload.commit(digest, self.size)
        if self._tier is not None and not self._spool.holes:
            set_pusher(self._spool.path, self._pusher)
            await self._tier.admit(self._spool.path, self._key, self.size)

    async def commit_part(self, *, absent: bool = False) -> None:
        """Make it an object that is a part of something. Raises Conflict, see `Upload.commit`."""
        await self._upload.commit(None, self.size, absent=absent)


class Contents:
    """The objects of `bucket`: with `tier` by way of its disk, else they are local themselves."""

    def __init__(self, bucket: Bucket, spools: SpoolFolder, tier: Tier | None = None) -> None:
        self._bucket = bucket
        self._spools = spools
        self._tier = tier
        self._fills = None if tier is None else Fills(bucket, spools, tier)

    async def open(self, key: str, digest: Digest) -> LocalFile | None:
        """The content of a blob, to be closed by the caller: perhaps a file that still grows."""
        if self._tier is None or self._fills is None:
            return await self._open_local(key)
        return self._tier.open(key) or await self._fills.follow(key, digest)

    async def open_part(self, key: str, part: ByteRange) -> LocalFile | None:
        """The content, of which only `part` will be read: that is not waited for behind the rest,
        and fills nothing."""
        if self._tier is None:
            return await self._open_local(key)
        return self._tier.open(key) or await Window.open(self._bucket, self._spools, key, part)

    async def read(self, key: str, digest: Digest, limit: int) -> bytes | None:
        """A small content whole, None if it is absent. Raises SizeInvalid: it has more bytes."""
        file = await self.open(key, digest)
        if file is None:
            return None
        with file:
            if file.size > limit:
                raise SizeInvalid(f"{digest} has {file.size} bytes, at most {limit} are read")
            data = bytearray()
            with os_errors:
                while len(data) < file.size:
                    end = await file.ready(len(data))
                    batch = await in_thread(file.read_at, len(data), end - len(data))
                    if not batch:
                        raise Unavailable("the file is shorter than it was")
                    data += batch
        return bytes(data)

    async def restore(self, key: str, digest: Digest) -> int | None:
        """Store again what the bucket has lost, if the tier has it; its size in bytes then."""
        if self._tier is None or (file := self._tier.open(key)) is None:
            return None
        with file:
            hasher = Hasher(digest.algorithm)
            await _hash(file, hasher)
            if hasher.digest() != digest:
                return None
            path = f"/proc/self/fd/{file.fd}"  # also if it is evicted meanwhile
            async with self._bucket.upload(path, key, file.size, file.pusher) as upload:
                await upload.commit(digest, file.size)
            return file.size

    async def url(self, key: str) -> str | None:
        """Where a client can fetch the content by itself, for as long as a download may take."""
        return await self._bucket.url(key, _URL_SECONDS)

    @asynccontextmanager
    async def receive(
        self, key: str, body: Body, hasher: Hasher, pusher: str = ""
    ) -> AsyncIterator[Received]:
        """All of `body`, most of which may be on its way to become the object `key`. It comes from
        `pusher`, where that is known.

        The digest is that of all that `hasher` has seen. Without commit, nothing is stored.

        Raises:
            SizeInvalid, StorageFull: see `Spool.fill`.
        """
        async with (
            self._spools.new(hasher) as spool,
            self._bucket.upload(spool.path, key, body.length, pusher) as upload,
        ):
            whole = await self._reserve(spool, body.length)

            async def wrote(size: int) -> None:
                await upload.wrote(size)
                if not whole:
                    spool.punch(upload.sent)

            await spool.fill(body, wrote)
            yield Received(key, spool, upload, self._tier, pusher)

    async def read_into(
        self,
        key: str,
        hasher: Hasher,
        size: int | None = None,
        took: Callable[[int], Awaitable[None]] | None = None,
    ) -> bool:
        """Hash an object, of `size` bytes where that is known; False if it is absent.

        `took` is told how many bytes come, as they do, and may let the rest wait.

        Raises:
            Unavailable: it cannot be read, or has another size.
        """
        content = await self._bucket.open(key)
        if content is None:
            return False
        try:
            if size not in (None, content.size):
                raise Unavailable("an object is not as long in the bucket as it was")
            if isinstance(content, LocalFile):
                await _hash(content, hasher, took)
            else:
                whole = ByteRange(0, content.size)
                async for batch in Reading(self._bucket, key, whole, content).batches():
                    await in_thread(batch.hash, hasher)
                    if took is not None:
                        await took(batch.size)
        finally:
            content.close()
        return True

    async def sweep(self) -> int:
        """Remove the spools of dead processes; returns how many those were."""
        return await in_thread(self._spools.sweep)

    async def close(self) -> None:
        """End what runs in the background."""
        if self._tier is not None and self._fills is not None:
            await self._fills.close()
            await self._tier.settle()

    async def _open_local(self, key: str) -> LocalFile | None:
        content = await self._bucket.open(key)
        assert content is None or isinstance(content, LocalFile), "only a local bucket has no tier"
        return content

    async def _reserve(self, spool: Spool, length: int | None) -> bool:
        """Whether the spool can hold the whole; else it holds what is not sent yet."""
        if self._tier is not None and (length is None or not self._tier.admits(length)):
            return False
        try:
            await spool.reserve(length or 0)
        except StorageFull:
            if self._tier is None:
                raise
            return False
        return True


async def _hash(
    file: LocalFile, hasher: Hasher, took: Callable[[int], Awaitable[None]] | None = None
) -> None:
    offset = 0
    while offset < file.size and (count := await in_thread(_hash_piece, file, hasher, offset)):
        offset += count
        if took is not None:
            await took(count)


def _hash_piece(file: LocalFile, hasher: Hasher, start: int) -> int:
    """Hash what a thread can in a moment; how many bytes that was."""
    offset = start
    with os_errors:
        while offset < start + _PIECE_BYTES and (data := file.read_at(offset, 1 << 20)):
            hasher.update(data)
            offset += len(data)
    return offset - start
