"""A whole registry without the wire."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import SpoolFolder
from cacheproxy.registry.registry import Registry
from cacheproxy.registry.tickets import Tickets
from cacheproxy.registry.uploads import Uploads
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.layout import Namespace


class Rooms:
    """The stores over one folder; `wrap` puts another bucket before it. `now` is the clock."""

    def __init__(self, folder: Path, bucket: Bucket | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = FolderBucket(str(folder))
        bucket = bucket or self.folder
        self.now = 1_000_000.0
        namespace = Namespace()
        contents = Contents(bucket, SpoolFolder(self.folder.spool))
        registry = Registry(bucket, namespace, contents, clock=lambda: int(self.now * 1e9))
        self.hidden = registry.hidden
        self.tags = registry.tags
        self.referrers = registry.referrers
        self.blobs = registry.blobs
        self.manifests = registry.manifests
        self.catalog = registry.catalog
        tickets = Tickets(b"secret", 100.0, lambda: self.now)
        self.uploads = Uploads(bucket, namespace, contents, self.blobs, tickets)

    @property
    def spooled(self) -> list[str]:
        """Files that are neither objects nor gone."""
        return os.listdir(self.folder.spool)


class Bytes:
    """A body of known content; with `announced` it claims another length."""

    def __init__(self, content: bytes, announced: int | None = None) -> None:
        self._content = content
        self.length: int | None = len(content) if announced is None else announced

    async def batches(self) -> AsyncGenerator[bytes, None]:
        for start in range(0, len(self._content), 3):
            yield self._content[start : start + 3]
