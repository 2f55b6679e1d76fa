"""Manifests by digest: the documents of a repository, stored and read byte for byte."""

from dataclasses import dataclass
from typing import Final

from cacheproxy.errors import Unavailable
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.recent import Recent
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


class ManifestStore:
    def __init__(self, bucket: Bucket, namespace: Namespace) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._recent: Recent[tuple[Repository, Digest], StoredManifest] = Recent(
            _RECENT_SECONDS, _RECENT_BYTES
        )

    async def get(self, repository: Repository, digest: Digest) -> StoredManifest | None:
        """The manifest with this digest. Raises Unavailable: what is stored is another content."""
        if (recent := self._recent.get((repository, digest))) is not None:
            return recent
        stored = await self._bucket.read(self._namespace.manifest(repository, digest))
        if stored is None:
            return None
        if digest_of(stored.data, digest.algorithm) != digest:
            raise Unavailable("the manifest is damaged in the bucket")
        found = StoredManifest(digest, stored.metadata[_MEDIA_TYPE], stored.data)
        self._recent.put((repository, digest), found, len(found.data))
        return found

    async def put(self, repository: Repository, manifest: StoredManifest) -> None:
        key = self._namespace.manifest(repository, manifest.digest)
        metadata = {_MEDIA_TYPE: manifest.media_type}
        await self._bucket.put(key, manifest.data, metadata=metadata)
        self._recent.put((repository, manifest.digest), manifest, len(manifest.data))

    async def delete(self, repository: Repository, digest: Digest) -> None:
        self._recent.drop((repository, digest))
        await self._bucket.delete(self._namespace.manifest(repository, digest))
        self._recent.drop((repository, digest))  # it may have been read in between
