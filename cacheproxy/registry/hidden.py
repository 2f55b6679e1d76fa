"""Blobs that a repository hides.

A blob belongs to its namespace, so deleting it from one repository must not take it from the
others: the repository only stops showing it. Its bytes go when collection finds them unreferenced.

Every server remembers the sets and polls for what others hide, so that looking at a blob costs
nothing here. What it remembers may be a poll old, hence two rules: a blob that seems hidden is
looked up again before its absence is told, and whoever shows blobs again starts from the bucket.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cacheproxy.errors import Conflict, Unavailable
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.reference import Repository
from cacheproxy.storage.bucket import ABSENT, Bucket, Match, Stored
from cacheproxy.storage.layout import Namespace

_Sets = dict[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class _Polled:
    """A set as a poll has found it. `stored` is its record, without the data."""

    hidden: frozenset[str]
    stored: Stored


class Hidden:
    """The sets of hidden blobs, one small record per repository that has any."""

    def __init__(self, bucket: Bucket, namespace: Namespace) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._remembered: _Sets = {}
        self._polled: dict[str, _Polled] = {}
        self.changes = 0
        """How often the sets were found to have changed."""

    async def has(self, repository: Repository, digest: Digest) -> bool:
        """Whether the repository hides the blob, as far as the last poll knows."""
        if digest not in self._remembered.get(self._namespace.deleted(repository), ()):
            return False
        return digest in (await self._load(repository))[0]

    async def add(self, repository: Repository, digest: Digest) -> None:
        await self._change(repository, lambda hidden: hidden | {digest})

    async def remove(self, repository: Repository, digests: Iterable[str]) -> None:
        """Show these blobs again; costs one look where nothing is hidden."""
        shown = frozenset(digests)
        await self._change(repository, lambda hidden: hidden - shown)

    async def poll(self) -> None:
        """Learn what other servers hide. Raises Unavailable; what was known stays."""
        while True:
            changes = self.changes
            polled: dict[str, _Polled] = {}
            async for listed in self._bucket.list(self._namespace.all_deleted()):
                if (record := await self._look(listed.key)) is not None:
                    polled[listed.key] = record
            if changes == self.changes:  # else a set that was changed here meanwhile is newer
                found = {key: record.hidden for key, record in polled.items()}
                self.changes += found != self._remembered
                self._remembered, self._polled = found, polled
                return

    async def _look(self, key: str) -> _Polled | None:
        """A set as it is; one that is as at the last poll costs no transfer."""
        known = self._polled.get(key)
        stored = await self._bucket.read(key, known.stored if known else None)
        if stored is None:
            return None
        if known is not None and stored.version == known.stored.version:
            return known
        return _Polled(_digests(stored.data), Stored(b"", {}, stored.version))

    async def _load(self, repository: Repository) -> tuple[frozenset[str], Match]:
        stored = await self._bucket.read(self._namespace.deleted(repository))
        if stored is None:
            return frozenset(), ABSENT
        return _digests(stored.data), stored.match

    async def _change(
        self, repository: Repository, change: Callable[[frozenset[str]], frozenset[str]]
    ) -> None:
        key = self._namespace.deleted(repository)
        while True:
            old, match = await self._load(repository)
            new = change(old)
            try:
                if new != old and new:
                    await self._bucket.put(key, json.dumps(sorted(new)).encode(), match=match)
                elif new != old:
                    await self._bucket.delete(key, match=match)
            except Conflict:
                continue  # another writer was first: look again
            self._remember(key, new)
            return

    def _remember(self, key: str, hidden: frozenset[str]) -> None:
        if hidden != self._remembered.get(key, frozenset()):
            self.changes += 1
            self._remembered[key] = hidden


def _digests(record: bytes) -> frozenset[str]:
    try:
        return frozenset(json.loads(record))
    except ValueError as error:
        raise Unavailable("what the repository hides is damaged in the bucket") from error
