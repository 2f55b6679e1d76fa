"""Manifests: small documents of one repository, stored and served byte for byte."""

from dataclasses import dataclass
from typing import Final

from cacheproxy.errors import DigestInvalid, ManifestUnknown, Unavailable
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.manifest import Manifest, parse_manifest
from cacheproxy.oci.reference import Reference, Repository, Tag
from cacheproxy.registry.both import both
from cacheproxy.registry.hidden import Hidden
from cacheproxy.registry.recent import Recent
from cacheproxy.registry.referrers import Referrers
from cacheproxy.registry.tags import Tags
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace

_MEDIA_TYPE: Final = "media-type"

# What is remembered: for how long a manifest may outlive its deletion by another server, and how
# many bytes of them.
_RECENT_SECONDS: Final = 60.0
_RECENT_BYTES: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class StoredManifest:
    digest: Digest
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did; `subject` is the digest the manifest refers to, if it does."""

    digest: Digest
    subject: Digest | None


class Manifests:
    def __init__(
        self,
        bucket: Bucket,
        namespace: Namespace,
        tags: Tags,
        referrers: Referrers,
        hidden: Hidden,
    ) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._tags = tags
        self._referrers = referrers
        self._hidden = hidden
        self._recent: Recent[tuple[Repository, Digest], StoredManifest] = Recent(
            _RECENT_SECONDS, _RECENT_BYTES
        )

    async def get(self, repository: Repository, reference: Reference) -> StoredManifest:
        """The manifest with this tag or digest. Raises ManifestUnknown."""
        digest = await self._resolve(repository, reference)
        if (recent := self._recent.get((repository, digest))) is not None:
            return recent
        stored = await self._bucket.read(self._namespace.manifest(repository, digest))
        if stored is None:
            raise ManifestUnknown(f"{reference} is not in {repository}")
        if digest_of(stored.data, digest.algorithm) != digest:
            raise Unavailable("the manifest is damaged in the bucket")
        found = StoredManifest(digest, stored.metadata[_MEDIA_TYPE], stored.data)
        self._recent.put((repository, digest), found, len(found.data))
        return found

    async def push(
        self,
        repository: Repository,
        reference: Reference,
        tags: list[Tag],
        data: bytes,
        content_type: str | None,
    ) -> Pushed:
        """Store `data`, durably, under its digest, then point the reference and `tags` to it.

        What it refers to need not exist: clients push manifests before their layers, attestations
        before their subjects, and indexes of which they have a part.

        Raises:
            ManifestInvalid: see `parse_manifest`.
            DigestInvalid: the reference is the digest of something else.
        """
        if isinstance(reference, Digest):
            digest = digest_of(data, reference.algorithm)
            if digest != reference:
                raise DigestInvalid(f"the content is {digest}, not {reference}")
        else:
            digest = digest_of(data)
            tags = [reference, *tags]
        manifest = parse_manifest(data, content_type)
        subject = Digest.parse(manifest.subject.digest) if manifest.subject else None
        await both(
            self._store(repository, StoredManifest(digest, manifest.media_type, data)),
            self._hidden.remove(repository, [each.digest for each in manifest.references]),
        )
        if subject is not None:
            await self._referrers.add(repository, subject, digest, len(data), manifest)
        for tag in tags:
            await self._tags.point(repository, tag, digest)
        return Pushed(digest, subject)

    async def delete(self, repository: Repository, reference: Reference) -> None:
        """Remove a tag; or a manifest with its tags and its entry in the referrers of its subject.

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
        await self._tags.delete_pointing_to(repository, found.digest)
        if manifest.subject is not None:
            subject = Digest.parse(manifest.subject.digest)
            await self._referrers.remove(repository, subject, found.digest)
        self._recent.drop((repository, found.digest))
        await self._bucket.delete(self._namespace.manifest(repository, found.digest))
        self._recent.drop((repository, found.digest))  # it may have been read in between

    async def _store(self, repository: Repository, manifest: StoredManifest) -> None:
        key = self._namespace.manifest(repository, manifest.digest)
        metadata = {_MEDIA_TYPE: manifest.media_type}
        await self._bucket.put(key, manifest.data, metadata=metadata)
        self._recent.put((repository, manifest.digest), manifest, len(manifest.data))

    async def _resolve(self, repository: Repository, reference: Reference) -> Digest:
        if isinstance(reference, Digest):
            return reference
        digest = await self._tags.resolve(repository, reference)
        if digest is None:
            raise ManifestUnknown(f"{reference} is not in {repository}")
        return digest
