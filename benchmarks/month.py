"""The row on a month of a fleet: what caches take, and what they are worth, by what is deleted."""

from __future__ import annotations

import asyncio
import logging
import random
import statistics
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from benchmarks import table
from benchmarks.scale import Scale
from cacheproxy.buildkit.cache import (
    DIFF_ID,
    Alternative,
    Cache,
    Config,
    Layer,
    LayerDescriptor,
    Record,
    Result,
)
from cacheproxy.buildkit.manifest import CacheManifest, read_cache, read_manifest, write_cache
from cacheproxy.collection.collector import Collector
from cacheproxy.collection.evictions import Evicted
from cacheproxy.collection.marks import Marks
from cacheproxy.collection.reach import mark_reachable
from cacheproxy.collection.retention import Policies, Policy
from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import Bytes, SpoolFolder
from cacheproxy.errors import BlobUnknown, ManifestUnknown, RegistryError
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.registry import CacheRules, Registry
from cacheproxy.registry.sources import Window, Windows
from cacheproxy.registry.tickets import Tickets
from cacheproxy.settings import Collection
from cacheproxy.storage.layout import Namespace
from tests.collection.rooms import LAYER, LEASE, Time
from tests.memory import MemoryBucket

_DAYS: Final = 30
_QUICK_DAYS: Final = 7
_BUILDS: Final = 200
"""A day, of all repositories together."""
_REPOSITORIES: Final = [Repository(f"fleet/app-{number}") for number in range(20)]
_TAG: Final = Tag("cache")
_BRANCHES: Final = 4
_BRANCH_DAYS: Final = 3.0
_BASES: Final = 2
_BASE_DAYS: Final = 7.0
_HOUR: Final = 3600.0
_DAY: Final = 24 * _HOUR
_CYCLE: Final = Collection().interval_seconds
_SHARE: Final = 0.25
"""The budget, of what it takes to delete nothing."""
_NEWEST: Final = 10
_LEAST_LIVE: Final = 0.8
_MOST_LOST: Final = 0.02
_MIB: Final = 1 << 20
_GIB: Final = 1 << 30
_WEEK: Final = 7 * 86400 * 10**9

_BASE_MIB: Final = (30, 20, 10)
_SYSTEM_MIB: Final = (120, 5)
_DEPENDENCIES_MIB: Final = (2, 150, 20)
_SOURCE_MIB: Final = (1, 40, 15, 5, 2)


@dataclass(frozen=True, slots=True)
class _Rules:
    """What is kept. `collected` is the policy of cycles, None: there are none. `newest` is how many
    exports have tags of their own, the older ones being deleted by who pushes."""

    name: str
    sources: int
    collected: Policy | None
    newest: int | None = None


@dataclass(frozen=True, slots=True)
class _Build:
    """A build at `at`, in seconds from the start, of these versions of what it is made of."""

    at: float
    repository: Repository
    base: str
    steps: tuple[tuple[str, int], ...]
    """What each step is known by, all below it included, and the bytes of its layer."""


@dataclass(slots=True)
class _Found:
    """What came of a month."""

    stored: list[int] = field(default_factory=list)
    live: list[float] = field(default_factory=list)
    """Each day: bytes, and the share of them that is live."""
    steps: int = 0
    hits: int = 0
    rejected: int = 0
    lost: int = 0
    """Layers that were served, and gone when they were exported again."""
    builds: int = 0
    build_calls: int = 0
    cycles: int = 0
    cycle_calls: int = 0

    @property
    def hit_rate(self) -> float:
        return self.hits / self.steps


def month(folder: Path, scale: Scale) -> None:
    """The same builds under several policies."""
    days = _QUICK_DAYS if scale.quick else _DAYS
    builds = list(_builds(days))
    without = _Rules("never delete", 32, None)
    newest = _Rules(f"newest {_NEWEST}, not merged", 1, Policy(), _NEWEST)
    with ProcessPoolExecutor(2) as pool:
        begun = [
            pool.submit(_live_through, folder, each, builds, days) for each in (without, newest)
        ]
        never = begun[0].result()
        budget = Policy(cache_bytes=int(_SHARE * never.stored[-1]))
        rules = _Rules(f"budget of {_SHARE:.0%}", 32, budget)
        kept = pool.submit(_live_through, folder, rules, builds, days).result()
        last = begun[1].result()
    _print(f"{days} days, never delete", never, None)
    _print(f"{days} days, {rules.name}", kept, never)
    _print(f"{days} days, {newest.name}", last, None)


def _print(row: str, found: _Found, never: _Found | None) -> None:
    """With targets, if it is beside what it takes to delete nothing."""
    live = statistics.mean(found.live[len(found.live) // 2 :])
    targets: dict[str, table.Target] = {}
    if never is not None:
        targets = {
            "live / stored": table.at_least(_LEAST_LIVE, live),
            "% hits": table.at_least((never.hit_rate - _MOST_LOST) * 100, found.hit_rate * 100),
            "rejected": table.at_most(0, found.rejected),
            "lost layers": table.at_most(0, found.lost),
        }
    figures = {
        "GiB at end": found.stored[-1] / _GIB,
        "GiB at most": max(found.stored) / _GIB,
        "live / stored": live,
        "% hits": found.hit_rate * 100,
        "rejected": found.rejected,
        "lost layers": found.lost,
        "calls / build": found.build_calls / found.builds,
        "calls / cycle": found.cycle_calls / max(found.cycles, 1),
    }
    for unit, figure in figures.items():
        table.print_line(row, unit, {"cacheproxy": figure}, targets.get(unit))
        row = ""


class _Repository:
    """How one comes along: versions of its main line, and of branches that end after some days."""

    def __init__(self, name: Repository, number: int, chance: random.Random) -> None:
        self._name = name
        self._image = number % _BASES
        self._chance = chance
        self._versions = 0
        self._main = (0, 0)
        self._branches: list[tuple[float, tuple[int, int]]] = []

    def build(self, at: float) -> _Build:
        base = f"image {self._image}, {int(at / _DAY / _BASE_DAYS)}"
        return _Build(at, self._name, base, tuple(self._steps(base, *self._changed(at))))

    def _changed(self, at: float) -> tuple[int, int]:
        """The versions of dependencies and source that are built now."""
        chance = self._chance
        self._branches = [each for each in self._branches if at - each[0] < _BRANCH_DAYS * _DAY]
        if chance.random() < 0.3:
            self._main = self._next(self._main)
            return self._main
        if not self._branches or (len(self._branches) < _BRANCHES and chance.random() < 0.2):
            self._branches.append((at, self._main))
        place = chance.randrange(len(self._branches))
        born, versions = self._branches[place]
        self._branches[place] = (born, self._next(versions))
        return self._branches[place][1]

    def _next(self, versions: tuple[int, int]) -> tuple[int, int]:
        """Mostly the source is another one, rarely the dependencies; or it is only tried again."""
        self._versions += 1
        drawn = self._chance.random()
        if drawn < 0.05:
            return self._versions, self._versions
        return (versions[0], self._versions) if drawn < 0.9 else versions

    def _steps(self, base: str, dependencies: int, source: int) -> Iterator[tuple[str, int]]:
        known = f"{self._name} on {base}"
        for changed, sizes in (
            ("", _SYSTEM_MIB),
            (f", dependencies {dependencies}", _DEPENDENCIES_MIB),
            (f", source {source}", _SOURCE_MIB),
        ):
            known += changed
            for number, size in enumerate(sizes):
                key = f"{known}: {len(sizes)} {number}"
                yield key, int(size * _MIB * random.Random(key).uniform(0.5, 1.5))


def _builds(days: int) -> Iterator[_Build]:
    chance = random.Random(20)
    fleet = [_Repository(name, number, chance) for number, name in enumerate(_REPOSITORIES)]
    often = [1 / (1 + number) ** 0.7 for number in range(len(fleet))]
    for at in sorted([chance.uniform(0, days * _DAY) for _ in range(days * _BUILDS)]):
        yield chance.choices(fleet, often)[0].build(at)


class _Bucket(MemoryBucket):
    """Keeps its keys in order, where sorting them for every listing would take the most time."""

    def __init__(self, clock: Time) -> None:
        super().__init__(clock)
        self._order: list[str] = []

    def place(
        self,
        key: str,
        data: bytes,
        metadata: Mapping[str, str] | None = None,
        size: int | None = None,
    ) -> None:
        if key not in self.objects:
            insort(self._order, key)
        super().place(key, data, metadata, size)

    def remove(self, key: str) -> None:
        if key in self.objects:
            del self._order[bisect_left(self._order, key)]
        super().remove(key)

    def _keys(self) -> Sequence[str]:
        return self._order.copy()


def _live_through(folder: Path, rules: _Rules, builds: Sequence[_Build], days: int) -> _Found:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    spool = folder / rules.name
    spool.mkdir()
    return asyncio.run(_Fleet(spool, rules).live(builds, days))


class _Fleet:
    """A registry and its collector under one policy, and the builders that come and go."""

    def __init__(self, folder: Path, rules: _Rules) -> None:
        self._rules = rules
        self._time = Time()
        self._began = self._time.now
        self._bucket = _Bucket(self._time)
        self._namespace = Namespace()
        self._registry = Registry(
            self._bucket,
            self._namespace,
            Contents(self._bucket, SpoolFolder(str(folder))),
            Tickets(b"", 0.0, self._time),
            CacheRules(Windows(Window(rules.sources, _WEEK))),
            self._time.nanoseconds,
            (self._time, self._time),
        )
        self._chance = random.Random(1)
        self._promised: dict[str, float] = {}
        self._tags: dict[Repository, list[Tag]] = {name: [] for name in _REPOSITORIES}
        self._found = _Found()

    async def live(self, builds: Sequence[_Build], days: int) -> _Found:
        """Do all builds when it is their time, and cycles and looks in between."""
        await self._registry.condemned.poll()
        chores = iter([number * _CYCLE for number in range(1, int(days * _DAY / _CYCLE) + 1)])
        chore = next(chores, None)
        for build in [*builds, None]:
            while chore is not None and (build is None or chore <= build.at):
                self._pass_to(chore)
                await self._cycle(chore)
                chore = next(chores, None)
            if build is not None:
                self._pass_to(build.at)
                await self._build(build)
        return self._found

    def _pass_to(self, at: float) -> None:
        self._time.now = max(self._time.now, self._began + at)

    async def _cycle(self, at: float) -> None:
        calls = self._bucket.calls
        if self._rules.collected is not None:
            collector = Collector(
                self._bucket,
                self._namespace,
                self._registry.tags,
                Policies(self._rules.collected),
                LEASE,
                clock=self._time.nanoseconds,
            )
            report = await collector.collect()
            assert report is not None
        self._found.cycles += 1
        self._found.cycle_calls += self._bucket.calls - calls
        if at % _DAY == 0:
            await self._look()

    async def _look(self) -> None:
        """See how much there is, and how much of it is for something."""
        old = self._time.now - LEASE
        sizes = {key: found.size for key, found in self._bucket.objects.items()}
        with Marks() as marks:
            for repository in _REPOSITORIES:
                await mark_reachable(
                    self._bucket,
                    self._namespace,
                    self._registry.tags,
                    repository,
                    old,
                    marks,
                    Evicted(),
                )
            marked = await marks.has(list(sizes))
        live = sum(
            [
                size
                for key, size in sizes.items()
                if key in marked
                or self._bucket.objects[key].modified >= old
                or self._promised.get(key, 0.0) >= old
            ]
        )
        self._found.stored.append(sum(sizes.values()))
        self._found.live.append(live / sum(sizes.values()))

    async def _build(self, build: _Build) -> None:
        """Import, run what is not a hit, export."""
        calls = self._bucket.calls
        await self._registry.uses.write()
        await self._registry.condemned.poll()
        chain, created_at = await self._import(build)
        base = [self._layer(f"{build.base}: {n}", n * _MIB) for n in _BASE_MIB]
        hits = max(len(chain) - len(base), 0)
        self._found.builds += 1
        self._found.hits += hits
        self._found.steps += len(build.steps)
        self._time.now += 60.0 + 20.0 * (len(build.steps) - hits)
        now = self._time.nanoseconds()
        new = [self._layer(f"{now} {key}", size) for key, size in build.steps[hits:]]
        layers = [*(chain or base), *new]
        created = [created_at] * hits + [now] * (len(build.steps) - hits)
        try:
            await self._export(build, layers, created, served=len(chain))
        except RegistryError:
            self._found.rejected += 1
        self._found.build_calls += self._bucket.calls - calls

    async def _import(self, build: _Build) -> tuple[list[tuple[str, LayerDescriptor]], int]:
        """The layers of the topmost step that is a hit, base first, and when that was made."""
        try:
            manifest = await self._registry.manifests.get(build.repository, _TAG)
        except ManifestUnknown:
            return [], 0
        about = read_manifest(manifest.data)
        assert isinstance(about, CacheManifest)
        config_digest = Digest(about.config_digest)
        config = await self._registry.blobs.read(build.repository, config_digest, _MIB)
        assert config is not None
        self._promise(config_digest)
        for digest in about.descriptors:
            self._promise(Digest(digest))
        cache = read_cache(manifest.data, config)
        assert isinstance(cache, Cache)
        made = {each.digest: each.results[0] for each in cache.config.records if each.results}
        for key, _ in reversed(build.steps):
            if (result := made.get(_named(key))) is not None:
                return list(_chain(cache, result.layer)), result.created_at
        return [], 0

    async def _export(
        self,
        build: _Build,
        layers: Sequence[tuple[str, LayerDescriptor]],
        created: Sequence[int],
        served: int,
    ) -> None:
        """Push what is missing; the first `served` layers were said to be there."""
        for place, (digest, layer) in enumerate(layers):
            await self._push(build.repository, Digest(digest), layer.size, place < served)
        below = len(layers) - len(build.steps)
        records = [Record(_named(build.base))]
        for at, (key, _) in enumerate(build.steps):
            result = Result(below + at, created[at])
            records.append(Record(_named(key), ((Alternative("", at),),), (result,)))
        config = Config(
            tuple([Layer(digest, place - 1) for place, (digest, _) in enumerate(layers)]),
            tuple(records),
        )
        written = write_cache(Cache(config, dict(layers)))
        config_digest = Digest(written.config_digest)
        await self._registry.blobs.push(build.repository, config_digest, Bytes(written.config))
        tags = self._tags[build.repository]
        own = [] if self._rules.newest is None else [Tag(f"build-{self._found.builds}")]
        await self._registry.manifests.push(
            build.repository, _TAG, own, written.manifest, written.media_type
        )
        tags += own
        while self._rules.newest is not None and len(tags) > self._rules.newest:
            await self._registry.manifests.delete(build.repository, tags.pop(0))

    async def _push(self, repository: Repository, digest: Digest, size: int, served: bool) -> None:
        try:
            await self._registry.blobs.size(repository, digest)
        except BlobUnknown:
            self._found.lost += served
            key = self._namespace.blob(digest)
            store = partial(self._store, key, size)
            await self._registry.blobs.show(repository, digest, size, "", store)
        self._promise(digest)

    async def _store(self, key: str, size: int) -> None:
        """The bytes come from nowhere and go nowhere; that costs a request like others."""
        self._bucket.calls += 1
        self._bucket.place(key, b"", _NO_METADATA, size)

    def _promise(self, digest: Digest) -> None:
        self._promised[self._namespace.blob(digest)] = self._time.now

    def _layer(self, content: str, size: int) -> tuple[str, LayerDescriptor]:
        digest = _named(content)
        return digest, LayerDescriptor(LAYER, size, ((DIFF_ID, _named(f"tar of {content}")),))


_NO_METADATA: Final = {"": ""}  # one for all, where each would have one of its own


def _chain(cache: Cache, layer: int) -> Sequence[tuple[str, LayerDescriptor]]:
    """A layer and all that are below it, the lowest first."""
    found = []
    while layer >= 0:
        blob = cache.config.layers[layer].blob
        found.append((blob, cache.descriptors[blob]))
        layer = cache.config.layers[layer].parent
    return found[::-1]


def _named(content: str) -> str:
    return str(digest_of(content.encode()))
