"""Which blobs exist: BuildKit asks for every layer of every export, so the answer is remembered."""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from cacheproxy.oci.digest import Digest
from cacheproxy.registry.recent import Recent
from cacheproxy.registry.shared import Shared
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace

_RECENT_SECONDS: Final = 600.0
_RECENT_BLOBS: Final = 200_000  # some 60 MiB


class Existence:
    """The sizes of the blobs of a namespace, in bytes.

    Only presence is remembered: absence ends with the next push, anywhere.
    """

    def __init__(
        self, bucket: Bucket, namespace: Namespace, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._clock = clock
        self._recent: Recent[Digest, tuple[int, float]] = Recent(
            _RECENT_SECONDS, _RECENT_BLOBS, clock
        )
        self._asking: Shared[Digest, int | None] = Shared()

    async def size(self, digest: Digest, within: float = _RECENT_SECONDS) -> int | None:
        """The blob's size as known `within` so many seconds, or by a look that all share."""
        recent = self._recent.get(digest)
        if recent is not None and self._clock() - recent[1] < within:
            return recent[0]
        return await self._asking.get(digest, partial(self._look, digest))

    def proven(self, digest: Digest, size: int) -> None:
        """The blob has just been stored or read."""
        self._recent.put(digest, (size, self._clock()))

    def refuted(self, digest: Digest) -> None:
        """The blob was looked for in the bucket and is not there."""
        self._recent.drop(digest)

    async def _look(self, digest: Digest) -> int | None:
        asked = self._clock()
        size = await self._bucket.head(self._namespace.blob(digest))
        if size is None:
            self._recent.drop(digest)
        else:
            self._recent.put(digest, (size, asked))
        return size
