"""The collector: retention, then what is unreachable is condemned, doomed, deleted.

                    unmarked, older than a lease          a lease and more later, unmarked still
    an object  ------------------------------> condemned ---------------------------> doomed -> gone
        ^                                          |
        '------------------------------------------'
              rescued: promised or referred to

A cycle does for each object one of these steps, and all of its state is in the bucket: it can end
anywhere, and any other one goes on. Why no promise is broken is told in `registry/condemned.py`,
why nothing new is deleted in `deletion.py`. Requests never wait for it.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from cacheproxy.collection.budget import Budget
from cacheproxy.collection.deletion import Deletion, TakenOver
from cacheproxy.collection.each import in_batches
from cacheproxy.collection.evictions import Evicted, Evictions
from cacheproxy.collection.marks import Marks
from cacheproxy.collection.reach import mark_reachable
from cacheproxy.collection.retention import Policies
from cacheproxy.collection.turn import turn
from cacheproxy.errors import Conflict, Unavailable
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.batches import SLACK_SECONDS, Batch, read_batch, write_batch
from cacheproxy.registry.catalog import Catalog
from cacheproxy.registry.condemned import Sleep
from cacheproxy.registry.tags import Tags
from cacheproxy.storage.bucket import ABSENT, Bucket, Listed, Stored
from cacheproxy.storage.layout import Namespace

log = structlog.get_logger()

_BATCH_KEYS: Final = 5_000
_CONDEMNED_KEYS: Final = 200_000  # every replica has them in memory
_LISTED: Final = 200
_CLOCKS_APART_SECONDS: Final = 5.0


@dataclass(slots=True)
class Report:
    """What a cycle did, or would have done."""

    tags_evicted: int = 0
    sources_evicted: int = 0
    manifests_reachable: int = 0
    condemned: int = 0
    condemned_bytes: int = 0
    waiting: int = 0
    """Objects that were condemned before, and still are."""
    deleted: int = 0


@dataclass(slots=True)
class _Cycle:
    """`began` and all ages are by the clock of the bucket."""

    began: float
    marks: Marks
    report: Report
    repositories: list[Repository]
    held: set[str] = field(default_factory=set)
    """What is condemned, or doomed, and was left so."""


class Collector:
    """`lease_seconds` is how long a promise lasts. `clock` gives nanoseconds since 1970. `budget`
    is how many objects are looked at, where others need the machine meanwhile."""

    def __init__(
        self,
        bucket: Bucket,
        namespace: Namespace,
        tags: Tags,
        policies: Policies,
        lease_seconds: float,
        *,
        budget: Budget | None = None,
        clock: Callable[[], int] = time.time_ns,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._tags = tags
        self._evictions = Evictions(bucket, namespace, tags, policies, budget)
        self._catalog = Catalog(bucket, namespace)
        self._policies = policies
        self._budget = budget
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._sleep = sleep
        self._name = uuid.uuid4().hex

    async def collect(self, *, dry: bool = False, rest: float = 0.0) -> Report | None:
        """One cycle; a dry one only reports.

        None: it is another collector's turn, or one has ended in the last `rest` seconds.

        Raises:
            Unavailable: it could not be ended, and can be tried again.
        """
        if dry:
            return await self._collect(dry)
        async with turn(self._bucket, self._namespace.collector(), self._name, rest) as mine:
            return await self._collect(dry) if mine else None

    async def finish(self) -> None:
        """Go on with what is doomed, where another collector ended in the middle: whoever pushes
        that waits for it.

        Raises:
            Unavailable: it could not be ended, and can be tried again.
        """
        async with turn(self._bucket, self._namespace.collector(), self._name) as mine:
            if not mine:
                return
            async for listed in self._bucket.list(self._namespace.batches()):
                stored = await self._bucket.read(listed.key)
                if stored is not None and (batch := read_batch(stored.data)).doomed:
                    with suppress(Conflict, TakenOver):
                        await self._deletion(listed.key).go_on(batch, stored)

    async def _collect(self, dry: bool) -> Report:
        began = await self._bucket.now()
        if abs(began - self._clock() / 1e9) > _CLOCKS_APART_SECONDS:
            raise Unavailable("the clocks of this machine and of the bucket differ")
        repositories = [Repository(name) async for name in self._catalog.list()]
        with Marks(self._budget) as marks:
            cycle = _Cycle(began, marks, Report(), repositories)
            await self._retain(cycle, dry)
            await self._go_on(cycle, dry)
            await self._condemn(cycle, dry)
        return cycle.report

    async def _retain(self, cycle: _Cycle, dry: bool) -> None:
        """Evict what no policy keeps, and mark what is left."""
        report = cycle.report
        evicted = await self._evictions.plan(cycle.repositories, self._clock())
        report.tags_evicted = len(evicted.tags)
        report.sources_evicted = len(evicted.sources)
        if not dry:
            await self._evictions.apply(evicted)
        for repository in cycle.repositories:
            untagged = self._policies.of(repository).untagged
            report.manifests_reachable += await mark_reachable(
                self._bucket,
                self._namespace,
                self._tags,
                repository,
                cycle.began - untagged,
                cycle.marks,
                evicted if dry else Evicted(),
            )

    async def _go_on(self, cycle: _Cycle, dry: bool) -> None:
        """Take the batches that are there one step on."""
        async for listed in self._bucket.list(self._namespace.batches()):
            while not await self._step(cycle, listed.key, dry):
                pass

    async def _step(self, cycle: _Cycle, key: str, dry: bool) -> bool:
        """Whether the batch is where it can be now; False if it was changed meanwhile."""
        stored = await self._bucket.read(key)
        if stored is None:
            return True
        batch = read_batch(stored.data)
        try:
            if not batch.keys:
                if not dry:
                    await self._bucket.delete(key)
            elif batch.doomed or self._is_due(cycle, batch):
                await self._delete(cycle, key, batch, stored, dry)
            else:
                cycle.held.update(batch.keys)
                cycle.report.waiting += len(batch.keys)
                if batch.since is None and not dry:
                    await self._stamp(key)
        except Conflict:
            return False
        except TakenOver:
            cycle.held.update(batch.keys)
            log.info("batch_taken_over", batch=key)
        return True

    def _is_due(self, cycle: _Cycle, batch: Batch) -> bool:
        """Whether it was condemned for so long that all promises without it have ended."""
        return batch.since is not None and (
            cycle.began - batch.since >= self._lease_seconds + SLACK_SECONDS
        )

    async def _delete(
        self, cycle: _Cycle, key: str, batch: Batch, stored: Stored, dry: bool
    ) -> None:
        """Raises Conflict, TakenOver, Unavailable: see `Deletion`."""
        gone = batch if batch.doomed else batch.without(await self._kept(cycle, batch))
        if dry:
            cycle.held.update(gone.keys)
        elif not gone.keys:
            await self._bucket.put(key, write_batch(gone), match=stored.match)
            await self._bucket.delete(key)
        elif batch.doomed:
            await self._deletion(key).go_on(batch, stored)
        else:
            await self._deletion(key).doom(gone, stored)
        cycle.report.deleted += len(gone.keys)

    async def _kept(self, cycle: _Cycle, batch: Batch) -> Collection[str]:
        """All that was found damaged: who has looked is gone, and it may have been pushed since."""
        return batch.keys if batch.damaged else await cycle.marks.has(batch.keys)

    def _deletion(self, key: str) -> Deletion:
        return Deletion(self._bucket, self._namespace, key, self._sleep)

    async def _condemn(self, cycle: _Cycle, dry: bool) -> None:
        keys: list[str] = []
        async for unmarked in self._unmarked(cycle):
            for listed in unmarked:
                cycle.report.condemned_bytes += listed.size
                keys.append(listed.key)
            while len(keys) >= _BATCH_KEYS:
                await self._write(cycle, keys[:_BATCH_KEYS], dry)
                del keys[:_BATCH_KEYS]
            if len(cycle.held) + cycle.report.condemned + len(keys) >= _CONDEMNED_KEYS:
                break
        if keys:
            await self._write(cycle, keys, dry)

    async def _write(self, cycle: _Cycle, keys: list[str], dry: bool) -> None:
        cycle.report.condemned += len(keys)
        if not dry:
            key = f"{self._namespace.batches()}{uuid.uuid4().hex}"
            await self._bucket.put(key, write_batch(Batch(tuple(keys))), match=ABSENT)
            await self._stamp(key)

    async def _stamp(self, key: str) -> None:
        """Tell since when the batch is there for sure: it was just read, and that takes no time
        back."""
        while (stored := await self._bucket.read(key)) is not None:
            now = await self._bucket.now()
            batch = msgspec.structs.replace(read_batch(stored.data), since=now)
            try:
                await self._bucket.put(key, write_batch(batch), match=stored.match)
            except Conflict:
                continue
            return

    async def _unmarked(self, cycle: _Cycle) -> AsyncIterator[list[Listed]]:
        """Blobs and manifests that are older than a lease, not reachable and not yet condemned."""
        old = cycle.began - self._lease_seconds
        prefixes = [
            self._namespace.blobs(),
            *map(self._namespace.manifests, cycle.repositories),
        ]
        for prefix in prefixes:
            async for batch in in_batches(self._bucket.list(prefix), _LISTED):
                open_ = [
                    listed
                    for listed in batch
                    if listed.modified < old and listed.key not in cycle.held
                ]
                marked = await cycle.marks.has([listed.key for listed in open_])
                yield [listed for listed in open_ if listed.key not in marked]
