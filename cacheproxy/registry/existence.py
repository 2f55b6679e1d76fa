"""Which blobs exist: BuildKit asks for every layer of every export, so the answer is remembered."""

import asyncio
from functools import partial
from typing import Final

from cacheproxy.oci.digest import Digest
from cacheproxy.registry.recent import Recent
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace

_RECENT_SECONDS: Final = 600.0
_RECENT_BLOBS: Final = 200_000  # some 60 MiB


class Existence:
    """The sizes of the blobs of a namespace, in bytes.

    Only presence is remembered: absence ends with the next push, anywhere.
    """

    def __init__(self, bucket: Bucket, namespace: Namespace) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._recent: Recent[Digest, int] = Recent(_RECENT_SECONDS, _RECENT_BLOBS)
        self._asking: dict[Digest, asyncio.Task[int | None]] = {}

    async def size(self, digest: Digest) -> int | None:
        """The blob's size, from memory or by one look that all share who ask meanwhile."""
        size = self._recent.get(digest)
        if size is not None:
            return size
        asking = self._asking.get(digest)
        if asking is None:
            asking = asyncio.create_task(self._look(digest))
            self._asking[digest] = asking
            asking.add_done_callback(partial(self._looked, digest))
        return await asyncio.shield(asking)  # whoever leaves does not end it for the others

    def proven(self, digest: Digest, size: int) -> None:
        """The blob has just been stored or read."""
        self._recent.put(digest, size)

    def refuted(self, digest: Digest) -> None:
        """The blob was looked for in the bucket and is not there."""
        self._recent.drop(digest)

    async def _look(self, digest: Digest) -> int | None:
        size = await self._bucket.head(self._namespace.blob(digest))
        if size is not None:
            self._recent.put(digest, size)
        return size

    def _looked(self, digest: Digest, asking: asyncio.Task[int | None]) -> None:
        del self._asking[digest]
        if not asking.cancelled():
            asking.exception()  # looked at, also when all who asked have left
