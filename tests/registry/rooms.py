"""A whole registry without the wire."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import SpoolFolder
from cacheproxy.content.tier import Tier
from cacheproxy.registry.registry import CacheRules, Registry
from cacheproxy.registry.sources import MayPush, anybody_may_push
from cacheproxy.registry.tickets import Tickets
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.layout import Namespace
from cacheproxy.storage.pieces import Pieces

_RULES = CacheRules()

TICKETS = Tickets(b"secret", 100.0, time.time)


class Rooms:
    """The stores over one folder, or over `bucket`, which stands before it; with `tier`, by way
    of such a folder. `now` is the clock."""

    def __init__(
        self,
        folder: Path,
        bucket: Bucket | None = None,
        rules: CacheRules = _RULES,
        tier: Path | None = None,
        may_push: MayPush = anybody_may_push,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = FolderBucket(str(folder))
        bucket = bucket or self.folder
        self.now = 1_000_000.0
        namespace = Namespace()
        contents = Contents(bucket, SpoolFolder(self.folder.spool))
        if tier is not None:
            disk = Tier(str(tier), 1 << 30)
            contents = Contents(bucket, SpoolFolder(disk.spool), disk)
        tickets = Tickets(b"secret", 100.0, lambda: self.now)
        registry = Registry(
            bucket,
            namespace,
            contents,
            tickets,
            rules,
            lambda: int(self.now * 1e9),
            may_push=may_push,
        )
        self.condemned = registry.condemned
        self.hidden = registry.hidden
        self.uses = registry.uses
        self.tags = registry.tags
        self.referrers = registry.referrers
        self.blobs = registry.blobs
        self.manifests = registry.manifests
        self.caches = registry.caches
        self.catalog = registry.catalog
        self.uploads = registry.uploads

    @property
    def spooled(self) -> list[str]:
        """Files that are neither objects nor gone."""
        return os.listdir(self.folder.spool)


class Bytes:
    """A body of known content; with `announced` it claims another length."""

    def __init__(self, content: bytes, announced: int | None = None) -> None:
        self._content = content
        self.length: int | None = len(content) if announced is None else announced

    async def batches(self) -> AsyncGenerator[Pieces, None]:
        for start in range(0, len(self._content), 3):
            yield Pieces([self._content[start : start + 3]])
