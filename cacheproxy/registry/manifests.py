"""Manifests: small documents of one repository, stored and served byte for byte."""

from dataclasses import dataclass

from cacheproxy.buildkit.manifest import CacheManifest, read_manifest
from cacheproxy.errors import DigestInvalid, ManifestBlobUnknown, ManifestUnknown, Unavailable
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.manifest import Manifest, parse_manifest
from cacheproxy.oci.reference import Reference, Repository, Tag
from cacheproxy.registry.batches import WORK_SECONDS
from cacheproxy.registry.caches import Caches
from cacheproxy.registry.hidden import Hidden
from cacheproxy.registry.manifest_store import ManifestStore, StoredManifest
from cacheproxy.registry.referrers import Referrers
from cacheproxy.registry.sources import NO_PUSHER, Pusher
from cacheproxy.registry.tags import Tags
from cacheproxy.registry.together import together
from cacheproxy.registry.uses import Uses
from cacheproxy.storage.deadline import CLOCKS, Clocks, Deadline


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did; `subject` is the digest the manifest refers to, if it does. `known_export`
    tells of a cache that has tags whether all of them had it already."""

    digest: Digest
    subject: Digest | None
    known_export: bool | None


class Manifests:
    def __init__(
        self,
        store: ManifestStore,
        tags: Tags,
        uses: Uses,
        caches: Caches,
        referrers: Referrers,
        hidden: Hidden,
        clocks: Clocks = CLOCKS,
    ) -> None:
        self._store = store
        self._tags = tags
        self._uses = uses
        self._caches = caches
        self._referrers = referrers
        self._hidden = hidden
        self._clocks = clocks

    async def get(self, repository: Repository, reference: Reference) -> StoredManifest:
        """The manifest with this tag or digest. Raises ManifestUnknown."""
        deadline = Deadline(WORK_SECONDS, self._clocks)
        digest = await self._resolve(repository, reference)
        found = None if digest is None else await self._store.get(repository, digest)
        if found is None:
            raise ManifestUnknown(f"{reference} is not in {repository}")
        _in_time(deadline)  # a cache is whole, as was seen on the way
        return found

    def remembers(self, repository: Repository, reference: Reference) -> bool:
        """Whether the bucket need not be asked for it; where tags lead, it always is."""
        return isinstance(reference, Digest) and self._store.remembers(repository, reference)

    async def push(
        self,
        repository: Repository,
        reference: Reference,
        tags: list[Tag],
        data: bytes,
        content_type: str | None,
        pusher: Pusher = NO_PUSHER,
    ) -> Pushed:
        """Store `data`, durably, under its digest, then point the reference and `tags` to it.

        What it refers to need not exist: clients push manifests before their layers, attestations
        before their subjects, and indexes of which they have a part.

        Raises:
            ManifestInvalid: see `parse_manifest`.
            DigestInvalid: the reference is the digest of something else.
            ManifestBlobUnknown: what it refers to is being deleted.
        """
        deadline = Deadline(WORK_SECONDS, self._clocks)
        if isinstance(reference, Digest):
            digest = digest_of(data, reference.algorithm)
            if digest != reference:
                raise DigestInvalid(f"the content is {digest}, not {reference}")
        else:
            digest = digest_of(data)
            tags = [reference, *tags]
        manifest = parse_manifest(data, content_type)
        subject = Digest.parse(manifest.subject.digest) if manifest.subject else None
        stored = StoredManifest(
            digest, manifest.media_type, data, (pusher.client,) if pusher.client else ()
        )
        await together(
            self._store.put(repository, stored),
            self._hidden.remove(repository, [each.digest for each in manifest.references]),
        )
        doomed = await self._store.keep(repository, stored)
        if doomed and not stored.is_cache:  # a cache is served without it
            raise ManifestBlobUnknown(f"{doomed[0]} is being deleted; push it again")
        if subject is not None:
            await self._referrers.add(repository, subject, digest, len(data), manifest)
        known: list[bool] = []
        about = read_manifest(data)
        config = about.config_digest if isinstance(about, CacheManifest) else ""
        for tag in tags:
            _in_time(deadline)
            if stored.is_cache:
                known.append(await self._caches.push(repository, tag, digest, pusher, config))
            else:
                await self._tags.point(repository, tag, digest)
        _in_time(deadline)
        return Pushed(digest, subject, all(known) if known else None)

    async def delete(self, repository: Repository, reference: Reference) -> None:
        """Remove a tag; or a manifest with its tags and its entry in the referrers of its subject.
        A cache loses this source; the tag goes if it has no other, or if the manifest is its union.

        The manifest goes last: an interrupted delete can be repeated while it is there.

        Raises:
            ManifestUnknown: there is no such tag or manifest.
        """
        if isinstance(reference, Tag):
            if not await self._tags.delete(repository, reference):
                raise ManifestUnknown(f"{reference} is not in {repository}")
            return
        found = await self.get(repository, reference)
        manifest: Manifest = parse_manifest(found.data, found.media_type)
        await self._tags.forget(repository, found.digest)
        if manifest.subject is not None:
            subject = Digest.parse(manifest.subject.digest)
            await self._referrers.remove(repository, subject, found.digest)
        await self._store.delete(repository, found.digest)

    async def _resolve(self, repository: Repository, reference: Reference) -> Digest | None:
        if isinstance(reference, Digest):
            return reference
        record = await self._tags.read(repository, reference)
        if record is None:
            return None
        if not record.sources:
            self._uses.note(repository, reference)
            return record.digest
        return await self._caches.resolve(repository, reference, record)


def _in_time(deadline: Deadline) -> None:
    if deadline.is_over():
        raise Unavailable("this took too long: what the manifest refers to may be gone")
