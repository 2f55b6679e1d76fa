"""What is condemned, as one replica knows it, and its rescue.

Every 200 and 201 about an object is a promise: it stays for a lease. Promises are not recorded.
What keeps them is that nothing is deleted before it was condemned for a lease and for as long as a
replica may not know that; and that a replica which knows rescues the object before it promises it.
The argument, where T is when a batch could be read by everybody:

- A replica promises at p, having read the batches at q, with p - q at most VALID + WORK + PAUSE.
- q before T: the promise ends before T + SLACK + lease, which is when dooming begins.
- q after T: the object is known to be condemned, and is rescued, from each batch that has it. That
  fails if it is doomed: then it is as absent as if it were gone.
- What is promised was there when it was looked up, perhaps before q. If it was deleted since, its
  batch is known here or was: a replica with polls in time reads a batch while it is condemned, and
  hears when it is doomed, and when it is gone. Whoever has been told meanwhile looks again; a poll
  that comes too late tells that nothing is known, for batches may have come and gone unseen.
- A manifest rescues all that it leads to when it is pushed and whenever it is served: it may have
  been rescued itself, or pushed, by who did not know yet that some of that is condemned.
- A manifest that is pushed does so after it was written, and before it is answered for. With q
  before T, it is there when the collector marks again before it dooms.
- What is written where something is doomed could be deleted, so that waits. Who began to write with
  q before T has ended before the batch is doomed, or looks whether it is there.
- What is damaged is not rescued by a promise, for nothing could keep that. Who writes it anew takes
  it out of the batch, before that and after it, unless that fails because it took long; so that
  what is still in it, and damaged, can be doomed.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

from cacheproxy.errors import Conflict, Unavailable
from cacheproxy.registry.batches import (
    VALID_SECONDS,
    WORK_SECONDS,
    Batch,
    read_batch,
    write_batch,
)
from cacheproxy.registry.shared import Shared
from cacheproxy.storage.bucket import Bucket, Stored
from cacheproxy.storage.deadline import CLOCKS, Clocks, Deadline
from cacheproxy.storage.layout import Namespace

_SETTLE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 1.0

Forget = Callable[[Collection[str] | None], None]
"""Told of keys of which nothing may be taken for known any more; None: of all keys."""

Sleep = Callable[[float], Awaitable[None]]


class Condemned:
    """Not to be asked before the first `poll`."""

    def __init__(
        self,
        bucket: Bucket,
        namespace: Namespace,
        clocks: Clocks = CLOCKS,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.changes = 0
        """How often something was told to `on_gone`. Who looks up an object sees by this whether
        what it has found may be gone already."""
        self._bucket = bucket
        self._namespace = namespace
        self._clocks = clocks
        self._sleep = sleep
        self._valid = Deadline(0, clocks)
        self._versions: dict[str, Stored] = {}  # without their data
        self._named = _Named()
        self._damaged = _Named()
        self._doomed: set[str] = set()
        self._polling: Shared[None, None] = Shared()
        self._forget: list[Forget] = []

    def on_gone(self, forget: Forget) -> None:
        """Have `forget` told of what is doomed, or may have been deleted."""
        self._forget.append(forget)

    @property
    def doomed(self) -> bool:
        """Whether something is being deleted, as far as is known; or was, by who has died."""
        return bool(self._doomed)

    @property
    def nothing(self) -> bool:
        """Whether no object is condemned, for certain."""
        return not self._named.batches_of and not self._valid.is_over()

    def clear(self, keys: Iterable[str]) -> bool:
        """Whether none of the objects is condemned, for certain: then they may be promised."""
        return not self._valid.is_over() and self._named.batches_of.keys().isdisjoint(keys)

    async def rescue(self, keys: Collection[str], *, written: bool = False) -> frozenset[str]:
        """Take the objects out of their batches; those that are doomed are returned. What is
        damaged stays in its batch, unless it is `written` anew."""
        while self._valid.is_over():
            await self.poll()
        batches: dict[str, set[str]] = defaultdict(set)
        for named in (self._named, self._damaged) if written else (self._named,):
            for key in keys:
                for batch in named.batches_of.get(key, ()):
                    batches[batch].add(key)
        doomed: frozenset[str] = frozenset()
        for batch, condemned in batches.items():
            doomed |= await self._rescue(batch, condemned)
        return doomed

    async def settle(self, keys: Collection[str]) -> Deadline:
        """Return when the objects can be written: none of them is being deleted.

        What is written after the deadline may be deleted all the same.

        Raises:
            Unavailable: one is, for too long.
        """
        patience = Deadline(_SETTLE_SECONDS, self._clocks)
        while True:
            written = Deadline(WORK_SECONDS, self._clocks)
            if not await self.rescue(keys, written=True):
                return written
            if patience.is_over():
                raise Unavailable("what is pushed is just being deleted")
            await self._sleep(_LOOK_SECONDS)

    async def poll(self) -> None:
        """Learn what is condemned. Raises Unavailable; what was known stays, and gets old."""
        await self._polling.get(None, self._poll)

    async def _poll(self) -> None:
        valid = Deadline(VALID_SECONDS, self._clocks)
        batches = [listed.key async for listed in self._bucket.list(self._namespace.batches())]
        for batch in batches:
            await self._look(batch)
        for batch in (self._versions.keys() | self._named.keys_of.keys()) - set(batches):
            self._drop(batch)
        if self._valid.is_over():  # batches may have come and gone since the last time
            self._tell(None)
        self._valid = valid

    async def _look(self, key: str) -> None:
        known = self._versions.get(key)
        stored = await self._bucket.read(key, known)
        if stored is None:
            self._drop(key)
        elif known is None or stored.version != known.version:
            self._remember(key, read_batch(stored.data))
            self._versions[key] = Stored(b"", {}, stored.version)

    async def _rescue(self, key: str, rescued: Collection[str]) -> frozenset[str]:
        while (stored := await self._bucket.read(key)) is not None:
            batch = read_batch(stored.data)
            self._remember(key, batch)
            if batch.doomed:
                return frozenset(batch.keys) & frozenset(rescued)
            left = batch.without(rescued)
            if left == batch:
                return frozenset()  # somebody else was first
            try:
                await self._bucket.put(key, write_batch(left), match=stored.match)
            except Conflict:
                continue
            self._set(key, left)
            return frozenset()
        self._drop(key)
        return frozenset()

    def _remember(self, key: str, batch: Batch) -> None:
        gone, replaced = self._set(key, batch)
        told = set(replaced)
        if not batch.keys:
            told |= gone  # rescued or deleted: who knows
        elif batch.doomed and key not in self._doomed:
            self._doomed.add(key)
            told.update(batch.keys)
        if told:
            self._tell(told)

    def _drop(self, key: str) -> None:
        self._versions.pop(key, None)
        self._remember(key, Batch(()))

    def _set(self, key: str, batch: Batch) -> tuple[frozenset[str], frozenset[str]]:
        """What it has named before and does not now: as condemned, and as damaged."""
        keys, none = frozenset(batch.keys), frozenset[str]()
        damaged = batch.damaged and not batch.doomed
        if not keys:
            self._doomed.discard(key)
        return (
            self._named.set(key, none if damaged else keys),
            self._damaged.set(key, keys if damaged else none),
        )

    def _tell(self, keys: Collection[str] | None) -> None:
        self.changes += 1
        for forget in self._forget:
            forget(keys)


class _Named:
    """Which batches name an object, and which objects a batch names."""

    def __init__(self) -> None:
        self.batches_of: dict[str, frozenset[str]] = {}
        self.keys_of: dict[str, frozenset[str]] = {}

    def set(self, batch: str, keys: frozenset[str]) -> frozenset[str]:
        """Let the batch name these; those are returned that it has named besides."""
        this = frozenset((batch,))
        known = self.keys_of.pop(batch, frozenset())
        gone = known - keys
        for each in gone:
            if left := self.batches_of.pop(each) - this:
                self.batches_of[each] = left
        for each in keys - known:
            others = self.batches_of.get(each)
            self.batches_of[each] = this if others is None else others | this
        if keys:
            self.keys_of[batch] = keys
        return gone
