"""Tags: names in a repository that point to a manifest and can be moved."""

from collections.abc import AsyncIterator

import msgspec

from cacheproxy.errors import Conflict
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.storage.bucket import Bucket, Match
from cacheproxy.storage.layout import Namespace, last_component


class _Record(msgspec.Struct, frozen=True):
    digest: str
    version: int = 1


class Tags:
    def __init__(self, bucket: Bucket, namespace: Namespace) -> None:
        self._bucket = bucket
        self._namespace = namespace

    async def resolve(self, repository: Repository, tag: Tag) -> Digest | None:
        """The digest that the tag points to."""
        stored = await self._bucket.read(self._namespace.tag(repository, tag))
        return None if stored is None else _digest(stored.data)

    async def point(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """Let the tag point to `digest`, wherever it pointed before."""
        record = msgspec.json.encode(_Record(str(digest)))
        await self._bucket.put(self._namespace.tag(repository, tag), record)

    async def delete(self, repository: Repository, tag: Tag) -> bool:
        """Remove the tag; False if there was none."""
        return await self._bucket.delete(self._namespace.tag(repository, tag))

    async def delete_pointing_to(self, repository: Repository, digest: Digest) -> None:
        """Remove the tags that point to `digest`, but none that is moved meanwhile."""
        async for key in self._bucket.list(self._namespace.tags(repository)):
            stored = await self._bucket.read(key)
            if stored is None or _digest(stored.data) != digest:
                continue
            try:
                await self._bucket.delete(key, match=Match(stored.version))
            except Conflict:
                continue  # moved since: it points to something else now

    async def list(self, repository: Repository, after: str = "") -> AsyncIterator[str]:
        """The tags behind `after`, in the order of their code points."""
        prefix = self._namespace.tags(repository)
        async for key in self._bucket.list(prefix, after=prefix + after):
            yield last_component(key)


def _digest(record: bytes) -> Digest:
    return Digest(msgspec.json.decode(record, type=_Record).digest)
