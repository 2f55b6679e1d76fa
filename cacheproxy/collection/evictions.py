"""Evictions: what policies do not keep, found by reading tags, and taken out of their records."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from cacheproxy.buildkit.manifest import CacheManifest, read_manifest
from cacheproxy.collection.budget import Budget
from cacheproxy.collection.each import in_batches
from cacheproxy.collection.marks import Marks
from cacheproxy.collection.retention import Policies, Policy, TagState, expired
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.sources import Source
from cacheproxy.registry.tags import TagRecord, Tags
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace

_READS: Final = 16

_TagName = tuple[Repository, Tag]


@dataclass(frozen=True, slots=True)
class _CacheSource:
    repository: Repository
    tag: Tag
    source: Source


@dataclass(slots=True)
class Evicted:
    """Tags with the records that they had, and sources of caches."""

    tags: dict[_TagName, TagRecord] = field(default_factory=dict)
    sources: dict[_TagName, set[Source]] = field(default_factory=lambda: defaultdict(set))

    def left_of(self, repository: Repository, tag: Tag, record: TagRecord) -> TagRecord | None:
        """What is left of the record, unless it was changed since."""
        if self.tags.get((repository, tag)) == record:
            return None
        return _without(self.sources.get((repository, tag), set()), record)


class Evictions:
    def __init__(
        self,
        bucket: Bucket,
        namespace: Namespace,
        tags: Tags,
        policies: Policies,
        budget: Budget | None = None,
    ) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._tags = tags
        self._policies = policies
        self._budget = budget

    async def plan(self, repositories: Sequence[Repository], now: int) -> Evicted:
        """What is to go at `now`, in nanoseconds since 1970."""
        evicted = Evicted()
        budgets: dict[Policy, list[_CacheSource]] = defaultdict(list)
        for repository in repositories:
            policy = self._policies.of(repository)
            read = tag_states(self._tags, repository)
            states = [state async for batch in read for state in batch]
            gone = expired(states, policy, now)
            evicted.tags.update({(each.repository, each.tag): each.record for each in gone})
            if policy.cache_bytes is not None:
                living = [state for state in states if (repository, state.tag) not in evicted.tags]
                budgets[policy] += [
                    _CacheSource(repository, state.tag, source)
                    for state in living
                    for source in state.record.sources
                ]
        for policy, sources in budgets.items():
            for each in await self._over(policy.cache_bytes or 0, sources):
                evicted.sources[each.repository, each.tag].add(each.source)
        return evicted

    async def apply(self, evicted: Evicted) -> None:
        """Take out what was not pushed or used meanwhile."""
        for (repository, tag), record in evicted.tags.items():
            await self._tags.change(repository, tag, partial(_unless_changed, record))
        for (repository, tag), sources in evicted.sources.items():
            await self._tags.change(repository, tag, partial(_without, sources))

    async def _over(self, budget: int, sources: Iterable[_CacheSource]) -> list[_CacheSource]:
        """The sources for whose layers there is no room besides those used later. A layer that
        several have is counted once, so a source that adds nothing always stays."""
        over = []
        latest = sorted(sources, key=lambda each: (-each.source.last_used, each.source.digest))
        with Marks(self._budget) as counted:
            for start in range(0, len(latest), _READS):
                batch = latest[start : start + _READS]
                sizes = await self._sizes(batch)
                known = await counted.has(set().union(*sizes))
                taken: set[str] = set()
                for each, of in zip(batch, sizes, strict=True):
                    new = of.keys() - known - taken
                    size = sum([of[digest] for digest in new])
                    if size > budget:
                        over.append(each)
                    else:
                        budget -= size
                        taken |= new
                await counted.add(taken)
        return over

    async def _sizes(self, batch: Sequence[_CacheSource]) -> list[dict[str, int]]:
        """Of the blobs of each source, by digest; of one that cannot be read, none."""
        keys = [
            self._namespace.manifest(each.repository, Digest(each.source.digest)) for each in batch
        ]
        found = await asyncio.gather(*map(self._bucket.read, keys))
        return [{} if stored is None else _sizes(stored.data) for stored in found]


def _sizes(manifest: bytes) -> dict[str, int]:
    about = read_manifest(manifest)
    if not isinstance(about, CacheManifest):
        return {}
    sizes = {digest: layer.size for digest, layer in about.descriptors.items()}
    return sizes | {about.config_digest: about.config_size}


async def tag_states(tags: Tags, repository: Repository) -> AsyncIterator[list[TagState]]:
    """The tags of a repository, some at a time. Raises Unavailable: one cannot be read."""
    async for names in in_batches(tags.list(repository), _READS):
        found = [Tag(name) for name in names]
        records = await asyncio.gather(*[tags.read(repository, tag) for tag in found])
        yield [
            TagState(repository, tag, record)
            for tag, record in zip(found, records, strict=True)
            if record is not None
        ]


def _unless_changed(known: TagRecord, old: TagRecord | None) -> TagRecord | None:
    return None if old == known else old


def _without(sources: set[Source], old: TagRecord | None) -> TagRecord | None:
    """The record without these sources, as they are here; None if nothing is left of it."""
    if old is None or sources.isdisjoint(old.sources):
        return old
    return old.without(sources.__contains__)
