"""Tags: names in a repository that point to a manifest and can be moved."""

from collections.abc import AsyncIterator
from typing import Final

import msgspec

from cacheproxy.errors import Conflict, DigestInvalid, Unavailable
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.recent import Recent
from cacheproxy.storage.bucket import ABSENT, Bucket, Stored
from cacheproxy.storage.layout import Namespace, last_component

_RECENT_SECONDS: Final = 3600.0
_RECENT_TAGS: Final = 10_000


class _Record(msgspec.Struct, frozen=True):
    digest: str
    version: int = 1


class Tags:
    def __init__(self, bucket: Bucket, namespace: Namespace) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._recent: Recent[str, Stored] = Recent(_RECENT_SECONDS, _RECENT_TAGS)

    async def resolve(self, repository: Repository, tag: Tag) -> Digest | None:
        """The digest that the tag points to now, wherever it was moved."""
        stored = await self._read(self._namespace.tag(repository, tag))
        return None if stored is None else _digest(stored.data)

    async def point(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """Let the tag point to `digest`, wherever it pointed before."""
        key = self._namespace.tag(repository, tag)
        record = msgspec.json.encode(_Record(str(digest)))
        stored = self._recent.get(key)  # a guess, which mostly saves the look before the write
        if stored is not None and stored.data == record:
            stored = await self._read(key)
        while stored is None or stored.data != record:
            try:
                await self._bucket.put(key, record, match=stored.match if stored else ABSENT)
            except Conflict:
                stored = await self._read(key)
            else:
                self._recent.drop(key)
                return

    async def delete(self, repository: Repository, tag: Tag) -> bool:
        """Remove the tag; False if there was none."""
        key = self._namespace.tag(repository, tag)
        if await self._bucket.head(key) is None:
            return False
        await self._bucket.delete(key)
        return True

    async def delete_pointing_to(self, repository: Repository, digest: Digest) -> None:
        """Remove the tags that point to `digest`, but none that is moved meanwhile."""
        async for listed in self._bucket.list(self._namespace.tags(repository)):
            key = listed.key
            stored = await self._bucket.read(key)
            if stored is None or _digest(stored.data) != digest:
                continue
            try:
                await self._bucket.delete(key, match=stored.match)
            except Conflict:
                continue  # moved since: it points to something else now

    async def _read(self, key: str) -> Stored | None:
        """The record as it is now; one that is remembered is asked for, but not sent again."""
        stored = await self._bucket.read(key, self._recent.get(key))
        if stored is None:
            self._recent.drop(key)
        else:
            _digest(stored.data)  # what is damaged is not remembered
            self._recent.put(key, stored)
        return stored

    async def list(self, repository: Repository, after: str = "") -> AsyncIterator[str]:
        """The tags behind `after`, in the order of their code points."""
        prefix = self._namespace.tags(repository)
        async for listed in self._bucket.list(prefix, after=prefix + after):
            yield last_component(listed.key)


def _digest(record: bytes) -> Digest:
    try:
        return Digest.parse(msgspec.json.decode(record, type=_Record).digest)
    except (msgspec.DecodeError, UnicodeDecodeError, DigestInvalid) as error:
        raise Unavailable("the tag is damaged in the bucket") from error
