"""Manifests by digest: the documents of a repository, stored and read byte for byte."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote

from cacheproxy.buildkit.manifest import is_cache
from cacheproxy.errors import ManifestInvalid, Unavailable
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.manifest import MEDIA_TYPES, Descriptor, parse_manifest
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.condemned import Condemned
from cacheproxy.registry.recent import Recent
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace

MEDIA_TYPE: Final = "media-type"
"""The name of the metadata that says what a manifest is."""

_PUSHERS: Final = "pushers"

# What is remembered: for how long a manifest may outlive its deletion by another server, and how
# many bytes of them.
_RECENT_SECONDS: Final = 60.0
_RECENT_BYTES: Final = 32 << 20
_RECENT_LED_TO: Final = 100_000  # some 20 MiB

_READS: Final = 16


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest, byte for byte. Of those whose work it is, two `pushers` at most are known: that
    tells whether it is somebody else's."""

    digest: Digest
    media_type: str
    data: bytes
    pushers: tuple[str, ...] = ()
    is_cache: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_cache", is_cache(self.data))  # once, as it is often asked


class ManifestStore:
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
        self._recent: Recent[str, StoredManifest] = Recent(_RECENT_SECONDS, _RECENT_BYTES, clock)
        self._led_to: Recent[str, frozenset[str]] = Recent(_RECENT_SECONDS, _RECENT_LED_TO, clock)
        condemned.on_gone(self._forget)

    async def get(self, repository: Repository, digest: Digest) -> StoredManifest | None:
        """The manifest with this digest, which stays for a lease with all that it leads to.

        Raises:
            Unavailable: what is stored is another content.
        """
        key = self._namespace.manifest(repository, digest)
        if self._condemned.nothing and (recent := self._recent.get(key)) is not None:
            return recent  # most of the time, so that what it leads to need not be known
        doomed: frozenset[str] = frozenset()
        while True:
            changes = self._condemned.changes
            try:
                found = self._recent.get(key) or await self._read(key, digest)
            except _Damaged as error:
                raise Unavailable("the manifest is damaged in the bucket") from error
            if found is None:
                return None
            keys = {key} | await self._leads_to(repository, found)
            if not self._condemned.clear(keys - doomed):
                doomed = await self._condemned.rescue(keys)
                if key in doomed:
                    return None
            elif changes == self._condemned.changes:
                return found

    def remembers(self, repository: Repository, digest: Digest) -> bool:
        return self._recent.get(self._namespace.manifest(repository, digest)) is not None

    async def put(self, repository: Repository, manifest: StoredManifest) -> None:
        """Store it. Raises Unavailable: it is just being deleted, and for too long."""
        key = self._namespace.manifest(repository, manifest.digest)
        settled = await self._condemned.settle((key,))
        metadata = {MEDIA_TYPE: manifest.media_type}
        if manifest.pushers:
            metadata[_PUSHERS] = ",".join(map(quote, manifest.pushers))
        await self._bucket.put(key, manifest.data, metadata=metadata)
        if not self._condemned.clear((key,)) and await self._condemned.rescue((key,)):
            raise Unavailable(f"{manifest.digest} is being deleted; push it again")
        if settled.is_over():
            raise Unavailable(f"{manifest.digest} may be deleted already; push it again")
        self._recent.put(key, manifest, len(manifest.data))

    async def keep(self, repository: Repository, manifest: StoredManifest) -> list[str]:
        """Rescue all that a manifest leads to; the keys of what of it is doomed are returned."""
        doomed: frozenset[str] = frozenset()
        while True:
            keys = await self._leads_to(repository, manifest)
            if self._condemned.clear(keys - doomed):
                return sorted(doomed)
            doomed = await self._condemned.rescue(keys)

    async def delete(self, repository: Repository, digest: Digest) -> None:
        key = self._namespace.manifest(repository, digest)
        self._recent.drop(key)
        await self._bucket.delete(key)
        self._recent.drop(key)  # it may have been read in between

    async def _read(self, key: str, digest: Digest) -> StoredManifest | None:
        while True:
            changes = self._condemned.changes
            stored = await self._bucket.read(key)
            if stored is None:
                return None
            if digest_of(stored.data, digest.algorithm) != digest:
                raise _Damaged
            media_type, pushers = stored.metadata[MEDIA_TYPE], _pushers(stored.metadata)
            found = StoredManifest(digest, media_type, stored.data, pushers)
            if changes == self._condemned.changes:  # else it may be gone since
                self._recent.put(key, found, len(found.data))
                return found

    async def _leads_to(self, repository: Repository, manifest: StoredManifest) -> frozenset[str]:
        """The keys of all that a manifest leads to, whether that is there or not; none of them if
        nothing is condemned, since only then they are asked for."""
        if self._condemned.nothing:
            return frozenset()
        key = self._namespace.manifest(repository, manifest.digest)
        led_to = self._led_to.get(key)
        if led_to is None:
            led_to = await self._follow(repository, manifest)
            self._led_to.put(key, led_to, len(led_to) + 1)
        return led_to

    async def _follow(self, repository: Repository, manifest: StoredManifest) -> frozenset[str]:
        found: set[str] = set()
        ahead = [manifest]
        while ahead:
            children: dict[str, Digest] = {}
            for reference, digest in _references(ahead.pop()):
                key = self._namespace.manifest(repository, digest)
                if key not in found and reference.media_type in MEDIA_TYPES:
                    children[key] = digest
                found |= {key, self._namespace.blob(digest)}
            ahead += await self._children(children)
        return frozenset(found)

    async def _children(self, keys: dict[str, Digest]) -> list[StoredManifest]:
        """Those of the manifests that are there; a damaged one leads nowhere."""
        room = asyncio.Semaphore(_READS)

        async def child(key: str, digest: Digest) -> StoredManifest | None:
            async with room:
                with suppress(_Damaged):
                    return self._recent.get(key) or await self._read(key, digest)
            return None

        found = await asyncio.gather(*[child(key, digest) for key, digest in keys.items()])
        return [each for each in found if each is not None]

    def _forget(self, keys: Collection[str] | None) -> None:
        if keys is None:
            self._recent.clear()
        for key in keys or ():
            self._recent.drop(key)


def _pushers(metadata: Mapping[str, str]) -> tuple[str, ...]:
    told = metadata.get(_PUSHERS)
    return tuple(map(unquote, told.split(","))) if told else ()


class _Damaged(Exception):
    """What is stored is another content."""


def _references(manifest: StoredManifest) -> Iterator[tuple[Descriptor, Digest]]:
    """What a manifest refers to. It may be a manifest or a blob, whatever its type: BuildKit's
    older caches are indexes of blobs."""
    with suppress(ManifestInvalid):
        for reference in parse_manifest(manifest.data, manifest.media_type).references:
            if (digest := Digest.maybe(reference.digest)) is not None:
                yield reference, digest
