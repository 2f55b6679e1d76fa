"""The deletion of a doomed batch: nothing that is written after it is done is ever deleted.

Who deletes first prepares requests that end by themselves, then writes a new fence into the batch,
then sends them. If another one took over meanwhile, that write fails and nothing is sent. Who
takes over waits until what the one before may have sent has ended. So when a batch is done, no
request to delete what was in it is under way, whoever was paused for however long.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from cacheproxy.errors import Conflict, ManifestInvalid
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.manifest import parse_manifest
from cacheproxy.registry.batches import Batch, read_batch, write_batch
from cacheproxy.registry.condemned import Sleep
from cacheproxy.registry.manifest_store import MEDIA_TYPE
from cacheproxy.storage.bucket import Bucket, Stored
from cacheproxy.storage.layout import Namespace

_GOOD_SECONDS: Final = 10
_ENDED_SECONDS: Final = 2.0 * _GOOD_SECONDS
"""When a request has ended for certain, though clocks differ by some seconds."""

_GROUP: Final = 200
_AT_ONCE: Final = 32

_Send = Callable[[], Awaitable[None]]


class TakenOver(Exception):
    """Another collector goes on with the batch."""


class Deletion:
    """Of what the batch at `key` names."""

    def __init__(
        self, bucket: Bucket, namespace: Namespace, key: str, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._key = key
        self._sleep = sleep
        self._fence = ""

    async def doom(self, batch: Batch, stored: Stored) -> None:
        """Doom the condemned batch `stored`, now with the keys of `batch`, and delete these.

        Raises:
            Conflict: something has been rescued meanwhile. Nothing is deleted.
            TakenOver, Unavailable: it is doomed, and has to be gone on with.
        """
        await self._write(msgspec.structs.replace(batch, doomed=True), stored)
        await self._delete(batch.keys)

    async def go_on(self, batch: Batch, stored: Stored) -> None:
        """Delete what is left of a batch that was doomed before.

        Raises:
            Conflict, TakenOver, Unavailable: it has to be gone on with.
        """
        await self._write(batch, stored)
        await self._sleep(_ENDED_SECONDS)
        await self._delete(batch.keys)

    async def _delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _GROUP):
            group = keys[start : start + _GROUP]
            if referrers := await self._referrers(group):
                await self._send(referrers)  # these are found by what refers, so they go before it
            await self._send(group)
        held = await self._held()
        await self._taken_over(self._write(read_batch(held.data).without(keys), held))
        await self._bucket.delete(self._key)

    async def _send(self, keys: Sequence[str]) -> None:
        sends = [await self._bucket.deletion(key, _GOOD_SECONDS) for key in keys]
        held = await self._held()
        await self._taken_over(self._write(read_batch(held.data), held))
        await _send_all(sends)

    async def _referrers(self, keys: Sequence[str]) -> list[str]:
        """The records of those that refer to another manifest."""
        found: list[str] = []
        for key in keys:
            if (digest := self._namespace.manifest_at(key)) is not None:
                found += await self._referrer(key, digest)
        return found

    async def _referrer(self, key: str, digest: Digest) -> list[str]:
        stored = await self._bucket.read(key)
        if stored is None:
            return []
        try:
            subject = parse_manifest(stored.data, stored.metadata.get(MEDIA_TYPE)).subject
        except ManifestInvalid:
            return []
        if subject is None:
            return []
        repository = self._namespace.repository_at(key)
        return [self._namespace.referrer(repository, Digest.parse(subject.digest), digest)]

    async def _write(self, batch: Batch, over: Stored) -> None:
        fence = secrets.token_hex(8)
        batch = msgspec.structs.replace(batch, collector=fence)
        await self._bucket.put(self._key, write_batch(batch), match=over.match)
        self._fence = fence

    async def _held(self) -> Stored:
        """The batch as we have written it. Raises TakenOver."""
        stored = await self._bucket.read(self._key)
        if stored is None or read_batch(stored.data).collector != self._fence:
            raise TakenOver
        return stored

    async def _taken_over(self, write: Awaitable[None]) -> None:
        try:
            await write
        except Conflict as error:
            raise TakenOver from error


async def _send_all(sends: Sequence[_Send]) -> None:
    """Raises Unavailable: one may not have come through, or may still come."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def send(one: _Send) -> None:
        async with room:
            await one()

    for outcome in await asyncio.gather(*map(send, sends), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
