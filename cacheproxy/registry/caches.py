"""Cache tags: what BuildKit exports to one tag is served as one cache.

An export that overwrote the one before would take from all other runners what they had cached. So
the tag keeps its latest exports as sources, and leads to their union; by digest everybody gets
exactly what was pushed. The union is made when it is next asked for, is stored like any manifest,
and its digest goes into the tag's record, so that every replica serves the same.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec
import structlog

from cacheproxy.oci.digest import Digest
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.recent import Recent
from cacheproxy.registry.shared import Shared
from cacheproxy.registry.sources import (
    NO_PUSHER,
    MayPush,
    Pusher,
    Source,
    Windows,
    anybody_may_push,
    pushed,
    trusted_of,
)
from cacheproxy.registry.tags import TagRecord, Tags
from cacheproxy.registry.union import Union
from cacheproxy.registry.unions import Unions
from cacheproxy.registry.uses import Uses

log = structlog.get_logger()

_RECENT_TAGS: Final = 10_000

# In a short window uses are written so often that it is not left between two of them.
_USES_IN_WINDOW: Final = 4

# By so much the clocks of servers may differ.
_CLOCKS_NANOSECONDS: Final = 10**9

_Of = tuple[str, ...]
"""The digests of the sources of a union, in their order."""


@dataclass(frozen=True, slots=True)
class _Look:
    """A look at a tag: its record as it was then, and those sources of it that count."""

    repository: Repository
    tag: Tag
    record: TagRecord
    sources: tuple[Source, ...]

    @property
    def of(self) -> _Of:
        return tuple([source.digest for source in self.sources])


class Caches:
    """`verify_seconds` is for how long what a tag leads to is taken to be whole. What was pushed by
    who `may_push` no more is no source: nobody trusts it, and it stays for when that changes."""

    def __init__(
        self,
        tags: Tags,
        uses: Uses,
        unions: Unions,
        windows: Windows,
        verify_seconds: float,
        clock: Callable[[], int] = time.time_ns,
        seconds: Callable[[], float] = time.monotonic,
        may_push: MayPush = anybody_may_push,
    ) -> None:
        self._tags = tags
        self._uses = uses
        self._unions = unions
        self._windows = windows
        self._may_push = may_push
        self._clock = clock
        self._served: Recent[tuple[Repository, Tag], tuple[_Of, Digest, int]] = Recent(
            verify_seconds, _RECENT_TAGS, seconds
        )
        self._making: Shared[tuple[Repository, Tag, _Of], Digest | None] = Shared()

    async def push(
        self,
        repository: Repository,
        tag: Tag,
        digest: Digest,
        pusher: Pusher = NO_PUSHER,
        config: str = "",
    ) -> bool:
        """Make a cache that is stored a source of the tag; the oldest of too many go. Returns
        whether it is one already, or one with this config is."""
        now = self._clock()
        known = False
        window = self._windows.of(repository)

        def change(old: TagRecord | None) -> TagRecord:
            nonlocal known
            old = old if old is not None and old.sources else TagRecord(digest)
            known = any(
                source.digest == digest or (config and source.config == config)
                for source in old.sources
            )
            sources = window.of(pushed(old.sources, digest, now, pusher, config), now)
            return msgspec.structs.replace(old, sources=sources)

        await self._tags.change(repository, tag, change)
        return known

    async def pushed_since(self, repository: Repository, tag: Tag, at: int) -> bool:
        """Whether any server was pushed an export to this tag since `at`, in nanoseconds."""
        record = await self._tags.read(repository, tag)
        sources = () if record is None else record.sources
        return any(source.pushed_at >= at - _CLOCKS_NANOSECONDS for source in sources)

    async def resolve(self, repository: Repository, tag: Tag, record: TagRecord) -> Digest | None:
        """The manifest to which a tag with this record leads; None if nothing of it is left."""
        window = self._windows.of(repository)
        trusted = trusted_of(record.sources, repository, self._may_push)
        look = _Look(repository, tag, record, window.of(trusted, self._clock()))
        if not look.sources:
            return None
        within = window.nanoseconds // _USES_IN_WINDOW
        self._uses.note(repository, tag, frozenset(look.of), within)
        served = self._served.get((repository, tag))
        if served == (look.of, record.digest, self._unions.losses):
            return record.digest
        # Of the same sources another server has made something else: what is here may be gone.
        anew = served is not None and served[0] == look.of
        serve = partial(self._serve, look, anew)
        return await self._making.get((repository, tag, look.of), serve)

    async def _serve(self, look: _Look, anew: bool) -> Digest | None:
        record = look.record
        losses = self._unions.losses
        digest: Digest | None = record.digest
        fresh = record.united == look.of
        if not fresh or not await self._unions.holds(look.repository, record.digest, anew=anew):
            digest = await self._unite(look, anew)
        if digest is not None:
            self._served.put((look.repository, look.tag), (look.of, digest, losses))
        return digest

    async def _unite(self, look: _Look, anew: bool) -> Digest | None:
        """Make the union, store it, and let the record tell, unless that has changed meanwhile."""
        union = await self._unions.make(look.repository, look.sources, anew=anew)
        if union is None:
            return None
        united = look.of if union.complete else ()  # what is missing may come
        digest = union.manifest.digest
        known = look.record.digest == digest
        if not known or not await self._unions.holds(look.repository, digest):
            _log(look, union)
            await self._unions.store(look.repository, union)
        if not known or look.record.united != united:
            told = partial(_told, look.record, digest, united)
            await self._tags.change(look.repository, look.tag, told)
        return digest


def _told(seen: TagRecord, digest: Digest, united: _Of, old: TagRecord | None) -> TagRecord | None:
    if old is None or _digests(old) != _digests(seen):
        return old  # who reads it next makes another union
    return msgspec.structs.replace(old, digest=digest, united=united)


def _digests(record: TagRecord) -> frozenset[str]:
    return frozenset([source.digest for source in record.sources])


def _log(look: _Look, union: Union) -> None:
    log.info(
        "cache_united",
        repository=look.repository,
        tag=look.tag,
        digest=union.manifest.digest,
        sources=len(union.parts),
        missing_layers=len(frozenset().union(*[part.missing for part in union.parts])),
        left_out_results=union.left_out.results if union.left_out else 0,
    )
