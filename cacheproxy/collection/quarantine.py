"""Quarantine: what is damaged is copied aside and deleted, so that it is unknown and pushed again.

Anybody can push the good content meanwhile, and nothing that was acknowledged may be deleted with
the damage. So it is named in a batch first, and doomed only where that still names it, where T is
when that batch could be read by everybody:

- Who pushes, knowing the batch, takes the object out of it first. Dooming is a compare-and-swap of
  the batch: it fails, and is done again without the object.
- Who pushes without knowing it has read the batches before T. What it acknowledges unseen is there
  at T + WRITTEN: so long is waited, then all is looked at once more, and what is good is left. Who
  stores later reads the batches again, and takes it out then; or looks for it when that is gone.
- From then on all goes as with what a collector has doomed: it is absent, who pushes it waits for
  some seconds, and whoever dies is succeeded by any collector.

Until it is doomed nothing changes for clients, and a push at once replaces what is damaged.

A condition on the delete would be less, and too little: not every bucket keeps one; and what rotted
in S3 has the ETag that it was stored with, which is that of the good content too.

Who dies before dooming has moved nothing. Collectors take the batch for void, when it is old.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence

from cacheproxy.collection.deletion import Deletion, TakenOver
from cacheproxy.errors import Conflict
from cacheproxy.registry.batches import WRITTEN_SECONDS, Batch, read_batch, write_batch
from cacheproxy.registry.condemned import Sleep
from cacheproxy.storage.bucket import ABSENT, Bucket, Listed
from cacheproxy.storage.layout import Namespace

IsDamaged = Callable[[str], Awaitable[bool]]
"""Whether the object with this key is there, and is not what it should be."""


class Quarantine:
    def __init__(
        self,
        bucket: Bucket,
        namespace: Namespace,
        is_damaged: IsDamaged,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._is_damaged = is_damaged
        self._sleep = sleep

    async def take(self, keys: Sequence[str]) -> Collection[str]:
        """Move blobs and manifests that are damaged, and stay so for WRITTEN_SECONDS; the keys of
        those that were.

        Raises:
            Unavailable: the bucket cannot be read, or written. Collectors end what was begun.
        """
        batch = f"{self._namespace.batches()}{uuid.uuid4().hex}"
        await self._bucket.put(batch, write_batch(Batch(tuple(keys), damaged=True)), match=ABSENT)
        await self._sleep(WRITTEN_SECONDS)
        sound = {key for key in keys if not await self._copy(key)}
        return await self._delete(batch, sound)

    async def _copy(self, key: str) -> bool:
        """Aside, if it is damaged; whether it is."""
        if not await self._is_damaged(key):
            return False
        to = self._namespace.quarantined(key)
        if self._namespace.manifest_at(key) is None:
            head = await self._bucket.head(key)
            if head is not None:
                await self._bucket.join([Listed(key, head.size)], to)
            return head is not None
        stored = await self._bucket.read(key)
        if stored is not None:
            await self._bucket.put(to, stored.data, metadata=stored.metadata)
        return stored is not None

    async def _delete(self, key: str, sound: Collection[str]) -> Collection[str]:
        """What the batch at `key` names still, without what is sound."""
        while (stored := await self._bucket.read(key)) is not None:
            damaged = read_batch(stored.data).without(sound)
            try:
                if damaged.keys:
                    deletion = Deletion(self._bucket, self._namespace, key, self._sleep)
                    await deletion.doom(damaged, stored)
                else:
                    await self._bucket.put(key, write_batch(damaged), match=stored.match)
                    await self._bucket.delete(key)
            except Conflict:
                continue  # one was just pushed
            except TakenOver:
                pass  # a collector goes on
            return damaged.keys
        return ()
