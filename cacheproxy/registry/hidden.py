"""Blobs that a repository hides.

A blob belongs to its namespace, so deleting it from one repository must not take it from the
others: the repository only stops showing it. Its bytes go when collection finds them unreferenced.
"""

import json
from collections.abc import Callable, Iterable

from cacheproxy.errors import Conflict
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.reference import Repository
from cacheproxy.storage.bucket import ABSENT, Bucket, Match
from cacheproxy.storage.layout import Namespace


class Hidden:
    """The sets of hidden blobs, one small record per repository that has any."""

    def __init__(self, bucket: Bucket, namespace: Namespace) -> None:
        self._bucket = bucket
        self._namespace = namespace

    async def has(self, repository: Repository, digest: Digest) -> bool:
        return digest in (await self._load(repository))[0]

    async def add(self, repository: Repository, digest: Digest) -> None:
        await self._change(repository, lambda hidden: hidden | {digest})

    async def remove(self, repository: Repository, digests: Iterable[str]) -> None:
        """Show these blobs again; costs one look where nothing is hidden."""
        shown = frozenset(digests)
        await self._change(repository, lambda hidden: hidden - shown)

    async def _load(self, repository: Repository) -> tuple[frozenset[str], Match]:
        stored = await self._bucket.read(self._namespace.deleted(repository))
        if stored is None:
            return frozenset(), ABSENT
        return frozenset(json.loads(stored.data)), Match(stored.version)

    async def _change(
        self, repository: Repository, change: Callable[[frozenset[str]], frozenset[str]]
    ) -> None:
        key = self._namespace.deleted(repository)
        while True:
            old, match = await self._load(repository)
            new = change(old)
            if new == old:
                return
            try:
                if new:
                    await self._bucket.put(key, json.dumps(sorted(new)).encode(), match=match)
                else:
                    await self._bucket.delete(key, match=match)
            except Conflict:
                continue  # another writer was first: look again
            return
