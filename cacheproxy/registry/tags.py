"""Tags: names in a repository that lead to a manifest and can be moved.

The record of a tag is changed by compare-and-swap alone, so none of those who change it at once,
on any replica, overwrites another.
"""

import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from cacheproxy.errors import Conflict, DigestInvalid, Unavailable
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.recent import Recent
from cacheproxy.registry.sources import Source
from cacheproxy.storage.bucket import ABSENT, Bucket, Stored
from cacheproxy.storage.layout import Namespace, last_component

_RECENT_SECONDS: Final = 3600.0
_RECENT_BYTES: Final = 16 << 20


USE_NANOSECONDS: Final = 1800 * 10**9
"""How old a push or use may be in a record before it is written again: that costs a write."""


class TagRecord(msgspec.Struct, frozen=True):
    """Where a tag leads. That of an image leads to the manifest `digest`.

    That of a cache has `sources`, and leads to their union. That of the sources `united`, in their
    order, is the manifest `digest`: it may have to be made anew.
    """

    digest: Digest
    version: int = 1
    pushed_at: int = 0
    """When it was last pushed, in nanoseconds since 1970."""
    used_at: int = 0
    """When it was last resolved, within an hour or so. That of a cache is told by its sources."""
    sources: tuple[Source, ...] = ()
    united: tuple[str, ...] = ()

    def without(self, gone: Callable[[Source], bool]) -> "TagRecord | None":
        """The record of the cache that is left; None if it had no other sources."""
        left = tuple([source for source in self.sources if not gone(source)])
        return msgspec.structs.replace(self, sources=left) if left else None


Change = Callable[[TagRecord | None], TagRecord | None]
"""From a tag's record, None if there is none, to what it is to be."""


class Tags:
    def __init__(
        self, bucket: Bucket, namespace: Namespace, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._clock = clock
        self._recent: Recent[str, Stored] = Recent(_RECENT_SECONDS, _RECENT_BYTES)

    async def read(self, repository: Repository, tag: Tag) -> TagRecord | None:
        """The record as it is now, whoever changed it."""
        stored = await self._read(self._namespace.tag(repository, tag))
        return None if stored is None else _record(stored.data)

    async def point(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """Let the tag lead to `digest`, wherever it led before."""
        now = self._clock()
        record = TagRecord(digest, pushed_at=now, used_at=now)

        def change(old: TagRecord | None) -> TagRecord:
            known = old is not None and old.digest == digest and not old.sources
            return old if old and known and now - old.pushed_at < USE_NANOSECONDS else record

        await self.change(repository, tag, change)

    async def change(self, repository: Repository, tag: Tag, change: Change) -> TagRecord | None:
        """Make of the record what `change`, which may be asked repeatedly, makes of it."""
        key = self._namespace.tag(repository, tag)
        stored = self._recent.get(key)  # a guess, which mostly saves the look before the write
        guessed = True
        while True:
            old = None if stored is None else _record(stored.data)
            new = change(old)
            if new == old and not guessed:
                return new
            if new != old:
                try:
                    await self._write(key, new, stored)
                except Conflict:
                    pass  # changed meanwhile, or the guess was wrong
                else:
                    return new
            stored, guessed = await self._read(key), False

    async def delete(self, repository: Repository, tag: Tag) -> bool:
        """Remove the tag; False if there was none."""
        key = self._namespace.tag(repository, tag)
        if await self._bucket.head(key) is None:
            return False
        await self._bucket.delete(key)
        return True

    async def forget(self, repository: Repository, digest: Digest) -> None:
        """Remove the manifest from the tags that lead to it: from caches of which it is a source,
        and the tags that have nothing else. A tag that is moved meanwhile stays."""

        def without(old: TagRecord | None) -> TagRecord | None:
            if old is None:
                return None
            if any(source.digest == digest for source in old.sources):
                return old.without(lambda source: source.digest == digest)
            return None if old.digest == digest else old

        async for listed in self._bucket.list(self._namespace.tags(repository)):
            await self.change(repository, Tag(last_component(listed.key)), without)

    async def list(self, repository: Repository, after: str = "") -> AsyncIterator[str]:
        """The tags behind `after`, in the order of their code points."""
        prefix = self._namespace.tags(repository)
        async for listed in self._bucket.list(prefix, after=prefix + after):
            yield last_component(listed.key)

    async def _read(self, key: str) -> Stored | None:
        """The record as it is now; one that is remembered is asked for, but not sent again."""
        stored = await self._bucket.read(key, self._recent.get(key))
        if stored is None:
            self._recent.drop(key)
        else:
            _record(stored.data)  # what is damaged is not remembered
            self._recent.put(key, stored, len(stored.data))
        return stored

    async def _write(self, key: str, record: TagRecord | None, over: Stored | None) -> None:
        match = over.match if over else ABSENT
        if record is None:
            await self._bucket.delete(key, match=match)
        else:
            await self._bucket.put(key, _encoder.encode(record), match=match)
        self._recent.drop(key)


def _digest(kind: type, text: str) -> Digest:
    return Digest.parse(text)


_encoder: Final = msgspec.json.Encoder(enc_hook=str)
_decoder: Final = msgspec.json.Decoder(TagRecord, dec_hook=_digest)


def _record(data: bytes) -> TagRecord:
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, DigestInvalid) as error:
        raise Unavailable("the tag is damaged in the bucket") from error
