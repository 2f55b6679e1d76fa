"""What a cache tag is made of: its sources, their union, and what is not in that and why."""

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from cacheproxy.buildkit.cache import Cache, Opaque
from cacheproxy.content.contents import Contents
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.condemned import Condemned
from cacheproxy.registry.registry import CacheRules, Registry
from cacheproxy.registry.sources import (
    MayPush,
    Source,
    Window,
    anybody_may_push,
    trusted_of,
)
from cacheproxy.registry.tags import TagRecord, Tags
from cacheproxy.registry.tickets import Tickets
from cacheproxy.registry.union import Limits, Part, Union
from cacheproxy.registry.unions import Unions
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of a cache: layers are counted by digest, `bytes` are those of the layers."""

    records: int
    results: int
    layers: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Omitted:
    records: int
    results: int
    layers: int


@dataclass(frozen=True, slots=True)
class SourceReport:
    """An export; `has` counts what it has, layers if they exist, and `united` what of that the
    union has too. Records count as the same by the digest of their step."""

    digest: str
    first_received: datetime
    last_pushed: datetime
    last_used: datetime
    left_out: str | None
    """Why nothing of it is in the union."""
    missing_layers: tuple[str, ...]
    has: Amount | None
    united: Amount | None


@dataclass(frozen=True, slots=True)
class UnionReport:
    """What the tag leads to."""

    digest: str
    recorded: bool
    """Whether the tag's record has it; if not, who reads the tag next makes it."""
    form: str | None
    has: Amount | None
    """None, like the form: it is not understood, and served as it was pushed."""
    manifest_bytes: int
    config_bytes: int | None
    disputed_layers: tuple[str, ...]
    """Left out, as sources contradict each other about their contents."""
    did_not_fit: Omitted | None
    """What the limits of what BuildKit imports left no room for."""


@dataclass(frozen=True, slots=True)
class TagReport:
    repository: str
    tag: str
    union: UnionReport | None
    """None: nothing is left, and the tag is answered 404."""
    sources: tuple[SourceReport, ...]


class NoCache(Exception):
    """The tag is not a cache's, in one sentence."""


class _Unpromised(Condemned):
    """For who only looks: what is condemned still answers, and is not rescued for it."""

    def clear(self, keys: Iterable[str]) -> bool:
        return True

    async def rescue(self, keys: Collection[str], *, written: bool = False) -> frozenset[str]:
        return frozenset()


async def unions_to_look_at(
    bucket: Bucket, namespace: Namespace, contents: Contents, limits: Limits
) -> Unions:
    """Makes unions as a server does, for who changes nothing."""
    rules = CacheRules(limits=limits, verify_seconds=0.0)
    condemned = _Unpromised(bucket, namespace)
    tickets = Tickets(b"", 0.0, time.time)  # nothing is uploaded
    registry = Registry(bucket, namespace, contents, tickets, rules, condemned=condemned)
    await registry.hidden.poll()
    return registry.unions


async def cache_record(tags: Tags, repository: Repository, tag: Tag) -> TagRecord:
    """The record of a cache tag. Raises NoCache: the tag is an image's, or there is none."""
    record = await tags.read(repository, tag)
    if record is None:
        raise NoCache(f"there is no tag {repository}:{tag}")
    if not record.sources:
        raise NoCache(f"{repository}:{tag} is no cache: it leads to {record.digest}")
    return record


async def inspect(
    tags: Tags,
    unions: Unions,
    window: Window,
    repository: Repository,
    tag: Tag,
    may_push: MayPush = anybody_may_push,
) -> TagReport:
    """What a server makes of the tag now. Nothing is stored. Raises NoCache."""
    record, now = await cache_record(tags, repository, tag), time.time_ns()
    trusted = trusted_of(record.sources, repository, may_push)
    inside = window.of(trusted, now)
    union = await unions.make(repository, inside)
    if union is None:
        reports = [_report(each, "its manifest or config is gone") for each in inside]
    else:
        reports = [_part(part, union) for part in union.parts]
    reports += [
        _report(each, _outside(each, window, now) if each in trusted else _untrusted(each))
        for each in record.sources
        if each not in inside
    ]
    made = None if union is None else _union(union, record.digest)
    return TagReport(repository, tag, made, tuple(reports))


def _union(union: Union, recorded: str) -> UnionReport:
    cache, config, left_out = union.cache, union.config, union.left_out
    if config is None:
        config = next((part.loaded.config for part in union.parts if part.cache is cache), None)
    return UnionReport(
        digest=union.manifest.digest,
        recorded=recorded == union.manifest.digest,
        form=cache.form if isinstance(cache, Cache) else None,
        has=_amount(cache, frozenset()) if isinstance(cache, Cache) else None,
        manifest_bytes=len(union.manifest.data),
        config_bytes=None if config is None else len(config),
        disputed_layers=tuple(sorted(union.disputed)),
        did_not_fit=Omitted(*left_out) if left_out and any(left_out) else None,
    )


def _part(part: Part, union: Union) -> SourceReport:
    cache, source, missing = part.cache, part.loaded.source, tuple(sorted(part.missing))
    if isinstance(cache, Opaque):
        return _report(source, None if cache is union.cache else cache.reason, missing)
    has = _amount(cache, part.missing)
    united = _united(cache, union.cache) if isinstance(union.cache, Cache) else None
    return _report(source, None, missing, has, united)


def _report(
    source: Source,
    left_out: str | None,
    missing: tuple[str, ...] = (),
    has: Amount | None = None,
    united: Amount | None = None,
) -> SourceReport:
    return SourceReport(
        source.digest,
        _time(source.received_at),
        _time(source.pushed_at),
        _time(source.used_at),
        left_out,
        missing,
        has,
        united,
    )


def _outside(source: Source, window: Window, now: int) -> str:
    if source.last_used < now - window.nanoseconds:
        return "it was neither pushed nor used for longer than the window"
    return f"it is not among the latest {window.sources}"


def _untrusted(source: Source) -> str:
    who = " and ".join("somebody unknown" if user is None else user for user in source.users)
    return f"it was pushed by {who}, who may not push here now"


def _amount(cache: Cache, missing: frozenset[str]) -> Amount:
    sizes = [layer.size for blob, layer in cache.descriptors.items() if blob not in missing]
    records = cache.config.records
    results = sum([len(record.results) for record in records])
    return Amount(len(records), results, len(sizes), sum(sizes))


def _united(cache: Cache, union: Cache) -> Amount:
    known = {record.digest for record in union.config.records}
    made = {record.digest for record in union.config.records if record.results}
    records = cache.config.records
    sizes = [layer.size for blob, layer in cache.descriptors.items() if blob in union.descriptors]
    return Amount(
        sum([record.digest in known for record in records]),
        sum([len(record.results) for record in records if record.digest in made]),
        len(sizes),
        sum(sizes),
    )


def _time(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC)
