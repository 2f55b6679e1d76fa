"""Which blobs exist: BuildKit asks for every layer of every export, so the answer is remembered."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Final

from cacheproxy.oci.digest import Digest
from cacheproxy.registry.condemned import Condemned
from cacheproxy.registry.recent import Recent
from cacheproxy.registry.shared import Shared
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace

_RECENT_SECONDS: Final = 600.0
_RECENT_BLOBS: Final = 200_000  # some 60 MiB


@dataclass(frozen=True, slots=True)
class Known:
    """A blob that exists: `size` in bytes, and who pushed it, where that is known."""

    size: int
    pusher: str
    seen: float
    """When the bucket was asked for it, in seconds."""


class Existence:
    """The sizes of the blobs of a namespace, in bytes.

    Only presence is remembered: absence ends with the next push, anywhere.
    """

    def __init__(
        self,
        bucket: Bucket,
        namespace: Namespace,
        condemned: Condemned,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._condemned = condemned
        condemned.on_gone(self._forget)
        self._clock = clock
        self._recent: Recent[Digest, Known] = Recent(_RECENT_SECONDS, _RECENT_BLOBS, clock)
        self.losses = 0
        """How many blobs were found not to exist though they did."""
        self._asking: Shared[Digest, Known | None] = Shared()

    async def size(self, digest: Digest, within: float | None = None) -> int | None:
        """The blob's size, see `find`."""
        found = await self.find(digest, within)
        return None if found is None else found.size

    async def find(self, digest: Digest, within: float | None = None) -> Known | None:
        """The blob as remembered, or by a look that all share. What is remembered must have been
        in the bucket `within` so many seconds, if that is given.

        What is found is a promise; what is condemned is rescued for it, and what is doomed absent.
        """
        if self._condemned.nothing and (found := self.remembered(digest, within)) is not None:
            return found  # most of the time, so that its key need not be made
        key = self._namespace.blob(digest)
        while True:
            changes = self._condemned.changes
            found = self.remembered(digest, within)
            if found is None:
                found = await self._asking.get(digest, partial(self._look, digest))
            if found is None:
                return None
            if not self._condemned.clear((key,)):
                if await self._condemned.rescue((key,)):
                    return None
            elif changes == self._condemned.changes:
                return found

    def remembered(self, digest: Digest, within: float | None = None) -> Known | None:
        """The blob as far as that is known without a look; it may be condemned since."""
        recent = self._recent.get(digest)
        if recent is None or (within is not None and self._clock() - recent.seen >= within):
            return None
        return recent

    def proven(self, digest: Digest, size: int, pusher: str) -> None:
        """The blob has just been stored."""
        self._recent.put(digest, Known(size, pusher, self._clock()))

    def read(self, digest: Digest) -> None:
        """The blob has just been read: perhaps from a copy of what was deleted, so that what is
        not known to exist is not known now either."""
        if (recent := self._recent.get(digest)) is not None:
            self._recent.put(digest, recent)

    def refuted(self, digest: Digest) -> None:
        """The blob was looked for in the bucket and is not there."""
        if self._recent.get(digest) is not None:
            self.losses += 1
        self._recent.drop(digest)

    def _forget(self, keys: Collection[str] | None) -> None:
        if keys is None:
            self._recent.clear()
        for key in keys or ():
            if (digest := self._namespace.blob_at(key)) is not None:
                self._recent.drop(digest)

    async def _look(self, digest: Digest) -> Known | None:
        while True:
            asked, changes = self._clock(), self._condemned.changes
            head = await self._bucket.head(self._namespace.blob(digest))
            if head is None:
                self.refuted(digest)
                return None
            if changes == self._condemned.changes:  # else it may be gone since
                known = Known(head.size, head.pusher, asked)
                self._recent.put(digest, known)
                return known
