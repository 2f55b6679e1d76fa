"""Blobs: content that a whole namespace shares, seen through a repository."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import Body
from cacheproxy.errors import BlobUnknown, Unavailable
from cacheproxy.oci.digest import Digest, Hasher
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.condemned import Condemned
from cacheproxy.registry.existence import Existence
from cacheproxy.registry.hidden import Hidden
from cacheproxy.registry.together import together
from cacheproxy.storage.bucket import LocalFile
from cacheproxy.storage.layout import Namespace

_LOOKS: Final = 64  # requests to the bucket that one question after many blobs makes at a time


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that exists: `size` in bytes, who pushed it, where that is known, and whether it was
    `remembered`, so that the bucket was not asked."""

    size: int
    pusher: str
    remembered: bool


class Blobs:
    def __init__(
        self,
        namespace: Namespace,
        contents: Contents,
        existence: Existence,
        hidden: Hidden,
        condemned: Condemned,
    ) -> None:
        self._namespace = namespace
        self._contents = contents
        self._existence = existence
        self._hidden = hidden
        self._condemned = condemned

    @property
    def losses(self) -> int:
        """Another number when something that was here is known not to be here any more."""
        return self._existence.losses + self._hidden.changes

    async def find(self, repository: Repository, digest: Digest) -> Blob:
        """What is known of the blob without its bytes. Raises BlobUnknown."""
        remembered = self._existence.remembered(digest) is not None
        hidden = await self._hidden.has(repository, digest)
        found = None if hidden else await self._existence.find(digest)
        if found is None:
            raise BlobUnknown(f"{digest} is not in {repository}")
        return Blob(found.size, found.pusher, remembered)

    async def size(self, repository: Repository, digest: Digest) -> int:
        """The blob's size in bytes. Raises BlobUnknown."""
        return (await self.find(repository, digest)).size

    async def present(
        self, repository: Repository, digests: Iterable[Digest], within: float
    ) -> dict[str, int]:
        """The sizes of those of the blobs that exist, as known `within` so many seconds.

        What the bucket has lost is stored again, where it is still at hand.
        """
        digests = list(digests)
        keys = [self._namespace.blob(digest) for digest in digests]
        if not self._condemned.clear(keys):
            await self._condemned.rescue(keys)  # all at once; one by one they would cost more
        found: dict[str, int] = {}
        room = asyncio.Semaphore(_LOOKS)

        async def look(digest: Digest) -> None:
            async with room:
                if await self._hidden.has(repository, digest):
                    return
                size = await self._existence.size(digest, within)
                if size is None:
                    size = await self._restore(digest)
                if size is not None:
                    found[digest] = size

        await together(*map(look, digests))
        return found

    async def _restore(self, digest: Digest) -> int | None:
        """Store a blob again that is still at hand, unless it is just being deleted."""
        key = self._namespace.blob(digest)
        if await self._condemned.rescue((key,), written=True):
            return None
        if await self._contents.restore(key, digest) is None:
            return None
        return await self._existence.size(digest)

    async def read(self, repository: Repository, digest: Digest, limit: int) -> bytes | None:
        """A small blob whole, None if it is absent. Raises SizeInvalid: it has more bytes."""
        if await self._hidden.has(repository, digest):
            return None
        return await self._contents.read(self._namespace.blob(digest), digest, limit)

    async def open(
        self, repository: Repository, digest: Digest, part: ByteRange | None = None
    ) -> LocalFile:
        """The blob's bytes, to be closed by the caller, who will read all or only `part` of them.

        Raises:
            BlobUnknown
        """
        if await self._hidden.has(repository, digest):
            raise BlobUnknown(f"{digest} is not in {repository}")
        key = self._namespace.blob(digest)
        if part is None:
            file = await self._contents.open(key, digest)
        else:
            file = await self._contents.open_part(key, part)
        if file is None:
            self._existence.refuted(digest)
            raise BlobUnknown(f"{digest} is not in {repository}")
        if file.verified:
            self._existence.read(digest)
        return file

    async def url(self, repository: Repository, digest: Digest) -> str | None:
        """Where a client can fetch the blob by itself, if it can. Raises BlobUnknown."""
        await self.size(repository, digest)
        return await self._contents.url(self._namespace.blob(digest))

    async def push(
        self, repository: Repository, digest: Digest, body: Body, pusher: str = ""
    ) -> int:
        """Store `body` in one pass, durably, if it has this digest; returns its size in bytes.
        It comes from `pusher`, where that is known.

        Pushers of the same digest do not wait for each other: each is verified on its own.

        Raises:
            DigestInvalid, SizeInvalid, StorageFull: nothing was stored.
        """
        key, hasher = self._namespace.blob(digest), Hasher(digest.algorithm)
        async with self._contents.receive(key, body, hasher, pusher) as received:
            received.verify(digest)
            store = partial(received.commit, digest)
            await self.show(repository, digest, received.size, pusher, store)
        return received.size

    async def show(
        self,
        repository: Repository,
        digest: Digest,
        size: int,
        pusher: str,
        store: Callable[[], Awaitable[None]],
    ) -> None:
        """Show in `repository` a blob that is being stored, and has this content for certain.

        Nothing is stored while it is being deleted: the deletion could come last.
        """
        keys = (self._namespace.blob(digest),)
        settled = await self._condemned.settle(keys)
        await together(store(), self._hidden.remove(repository, [digest]))
        if await self._condemned.rescue(keys, written=True):
            raise Unavailable(f"{digest} is being deleted; push it again")
        if settled.is_over() and await self._existence.size(digest) is None:
            raise Unavailable(f"{digest} was deleted as soon as it was stored; push it again")
        self._existence.proven(digest, size, pusher)

    async def mount(
        self, repository: Repository, digest: Digest, source: Repository | None
    ) -> bool:
        """Show a blob of the namespace in `repository` too; False if there is none to show.

        With `source` it must be visible there (distribution-spec, end-11).
        """
        if await self._existence.size(digest) is None:
            return False
        if source is not None and await self._hidden.has(source, digest):
            return False
        await self._hidden.remove(repository, [digest])
        return await self._existence.size(digest) is not None  # that may have taken long

    async def delete(self, repository: Repository, digest: Digest) -> None:
        """Hide the blob from `repository`. Raises BlobUnknown."""
        await self.size(repository, digest)
        await self._hidden.add(repository, digest)
