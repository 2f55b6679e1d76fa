"""Statistics: what is stored, what of it is needed, and what sharing blobs saves.

Beside running servers they are of no one moment: what is pushed meanwhile may be counted in part.
Sizes of blobs that manifests need are those that the manifests claim.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Final

from cacheproxy.collection.documents import Document, Documents
from cacheproxy.collection.each import for_each, in_batches
from cacheproxy.collection.marks import Marks
from cacheproxy.collection.reach import led_to
from cacheproxy.errors import Unavailable
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.catalog import Catalog
from cacheproxy.registry.tags import TagRecord, Tags
from cacheproxy.storage.bucket import Bucket, Listed
from cacheproxy.storage.layout import FORMAT_KEY, Namespace, last_component

_READS: Final = 16
_BATCH: Final = 1000


@dataclass(slots=True)
class Count:
    """Things, and their bytes."""

    count: int = 0
    bytes: int = 0

    def add(self, sizes: Iterable[int]) -> None:
        for size in sizes:
            self.count += 1
            self.bytes += size


@dataclass(slots=True)
class Numbers:
    """Of one repository, or of all."""

    tags: int = 0
    cache_tags: int = 0
    sources: int = 0
    """Of cache tags, whether or not they are in the window."""
    unions: int = 0
    """Cache tags that lead to something that was made of several sources, or of what is left."""
    manifests: Count = field(default_factory=Count)
    needed: Count = field(default_factory=Count)
    """Blobs that its manifests name, each once; of all: once for each repository."""
    unreadable: int = 0
    """Tags and manifests that are damaged or cannot be read, and so count only as such."""


@dataclass(slots=True)
class Stats:
    repositories: dict[str, Numbers] = field(default_factory=dict)
    all: Numbers = field(default_factory=Numbers)
    blobs: Count = field(default_factory=Count)
    untagged: Count = field(default_factory=Count)
    """Blobs to which no tag leads, about: what is being pushed is among them, and what is needed
    by manifests without tags only, such as those that refer to others."""
    quarantined: Count = field(default_factory=Count)
    deduplication: float | None = None
    """Bytes of `needed` for each byte that is stored."""


async def gather_stats(bucket: Bucket, namespace: Namespace) -> Stats:
    """Raises Unavailable: the bucket cannot be read."""
    stats = Stats()
    with Marks() as tagged:
        async for name in Catalog(bucket, namespace).list(remains=True):
            with Marks() as read, Marks() as needed:
                look = _Repository(bucket, namespace, Repository(name), tagged, read, needed)
                await look.run()
            stats.repositories[name] = look.numbers
            _add(stats.all, look.numbers)
        async for batch in in_batches(bucket.list(namespace.blobs()), _BATCH):
            sizes = {each.key: each.size for each in batch}
            stats.blobs.add(sizes.values())
            untagged = sizes.keys() - await tagged.has(sizes.keys())
            stats.untagged.add(sizes[key] for key in untagged)
    async for listed in bucket.list(namespace.quarantined("")):
        stats.quarantined.add((listed.size,))
    if stats.blobs.bytes:
        stats.deduplication = stats.all.needed.bytes / stats.blobs.bytes
    return stats


class _Repository:
    """One repository: its tags first, then the manifests to which none leads."""

    def __init__(
        self,
        bucket: Bucket,
        namespace: Namespace,
        repository: Repository,
        tagged: Marks,
        read: Marks,
        needed: Marks,
    ) -> None:
        self.numbers = Numbers()
        self._bucket = bucket
        self._namespace = namespace
        self._repository = repository
        self._tags = Tags(bucket, namespace)
        self._documents = Documents(bucket, namespace)
        self._tagged = tagged
        self._read = read
        self._needed = needed

    async def run(self) -> None:
        await for_each(self._tags.list(self._repository), self._follow_tag, _READS)
        manifests = self._bucket.list(self._namespace.manifests(self._repository))
        async for batch in in_batches(manifests, _BATCH):
            self.numbers.manifests.add(each.size for each in batch)
            await for_each(_each(batch), self._take_untagged, _READS)

    async def _follow_tag(self, name: str) -> None:
        self.numbers.tags += 1
        try:
            record = await self._tags.read(self._repository, Tag(name))
        except Unavailable:
            await self._tell_unreadable()
            return
        if record is not None:
            self._count(record)
            for digest in set(led_to(record)):
                await self._follow(digest)

    def _count(self, record: TagRecord) -> None:
        if record.sources:
            self.numbers.cache_tags += 1
            self.numbers.sources += len(record.sources)
            pushed = {source.digest for source in record.sources}
            self.numbers.unions += record.digest not in pushed

    async def _follow(self, root: Digest) -> None:
        ahead = [root]
        while ahead:
            new = await self._read.add(ahead)
            ahead = []
            for text in new:
                found = await self._take(Digest(text))
                if found is not None:
                    await self._tagged.add([self._namespace.blob(blob) for blob in found.blobs])
                    ahead += found.manifests

    async def _take_untagged(self, listed: Listed) -> None:
        digest = _digest(listed.key)
        if await self._read.add((digest,)):
            await self._take(digest)

    async def _take(self, digest: Digest) -> Document | None:
        """Count what the manifest needs, if there is one."""
        try:
            found = await self._documents.get(self._repository, digest)
        except Unavailable:
            await self._tell_unreadable()
            return None
        if isinstance(found, Document):
            new = await self._needed.add(found.blobs.keys())
            self.numbers.needed.add(found.blobs[Digest(text)] for text in new)
            return found
        self.numbers.unreadable += found is not None
        return None

    async def _tell_unreadable(self) -> None:
        """Raises Unavailable: it is not only this that cannot be read."""
        await self._bucket.head(FORMAT_KEY)
        self.numbers.unreadable += 1


def _digest(key: str) -> Digest:
    algorithm, _, hex_ = key.rpartition("/")
    return Digest(f"{last_component(algorithm)}:{hex_}")


async def _each(batch: Iterable[Listed]) -> AsyncIterator[Listed]:
    for listed in batch:
        yield listed


def _add(total: Numbers, one: Numbers) -> None:
    total.tags += one.tags
    total.cache_tags += one.cache_tags
    total.sources += one.sources
    total.unions += one.unions
    total.unreadable += one.unreadable
    for mine, others in ((total.manifests, one.manifests), (total.needed, one.needed)):
        mine.count += others.count
        mine.bytes += others.bytes
