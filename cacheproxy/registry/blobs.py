"""Blobs: content that a whole namespace shares, seen through a repository."""

from cacheproxy.content.spool import Body, SpoolFolder
from cacheproxy.errors import BlobUnknown
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.existence import Existence
from cacheproxy.registry.hidden import Hidden
from cacheproxy.storage.bucket import Bucket, LocalFile
from cacheproxy.storage.layout import Namespace


class Blobs:
    def __init__(
        self, bucket: Bucket, namespace: Namespace, spools: SpoolFolder, hidden: Hidden
    ) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._spools = spools
        self._hidden = hidden
        self._existence = Existence(bucket, namespace)

    async def size(self, repository: Repository, digest: Digest) -> int:
        """The blob's size in bytes. Raises BlobUnknown."""
        size = await self._existence.size(digest)
        if size is None or await self._hidden.has(repository, digest):
            raise BlobUnknown(f"{digest} is not in {repository}")
        return size

    async def open(self, repository: Repository, digest: Digest) -> LocalFile:
        """The blob's bytes, to be closed by the caller. Raises BlobUnknown."""
        file = await self._bucket.open(self._namespace.blob(digest))
        if file is None:
            self._existence.refuted(digest)
            raise BlobUnknown(f"{digest} is not in {repository}")
        try:
            if await self._hidden.has(repository, digest):
                raise BlobUnknown(f"{digest} is not in {repository}")
        except BaseException:
            file.close()
            raise
        return file

    async def push(self, repository: Repository, digest: Digest, body: Body) -> int:
        """Store `body` in one pass, durably, if it has this digest; returns its size in bytes.

        Pushers of the same digest do not wait for each other: each is verified on its own.

        Raises:
            DigestInvalid, SizeInvalid, StorageFull: nothing was stored.
        """
        async with self._spools.new(digest.algorithm) as spool:
            await spool.fill(body)
            await spool.commit(self._namespace.blob(digest), digest)
        self._existence.proven(digest, spool.size)
        await self._hidden.remove(repository, [digest])
        return spool.size

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
        return True

    async def delete(self, repository: Repository, digest: Digest) -> None:
        """Hide the blob from `repository`. Raises BlobUnknown."""
        await self.size(repository, digest)
        await self._hidden.add(repository, digest)
