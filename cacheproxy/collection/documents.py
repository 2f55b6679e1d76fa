"""Manifests as the bucket has them, and what they need."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cacheproxy.errors import ManifestInvalid
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.manifest import MEDIA_TYPES, parse_manifest
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.manifest_store import MEDIA_TYPE
from cacheproxy.registry.recent import Recent
from cacheproxy.registry.tags import TagRecord
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace

_SECONDS: Final = 600.0
_REFERENCES: Final = 200_000  # some 40 MiB

# Layers that registries need not have: image-spec, layer.md, "Non-Distributable Layers".
_ELSEWHERE: Final = (".nondistributable.", ".foreign.")


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest: the blobs that it needs, with the sizes that it claims, and its children."""

    blobs: Mapping[Digest, int]
    manifests: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Damage:
    """A manifest that cannot be served, and why."""

    reason: str


class Documents:
    """Remembers what was read lately, as most is looked at more than once."""

    def __init__(self, bucket: Bucket, namespace: Namespace) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._recent: Recent[tuple[Repository, Digest], Document | Damage] = Recent(
            _SECONDS, _REFERENCES
        )

    async def get(self, repository: Repository, digest: Digest) -> Document | Damage | None:
        """The manifest with this digest; None if there is none. Raises Unavailable."""
        if (recent := self._recent.get((repository, digest))) is not None:
            return recent
        stored = await self._bucket.read(self._namespace.manifest(repository, digest))
        if stored is None:
            return None
        found = _document(stored.data, stored.metadata, digest)
        weight = len(found.blobs) + len(found.manifests) if isinstance(found, Document) else 0
        self._recent.put((repository, digest), found, 1 + weight)
        return found


def needed_by(record: TagRecord) -> list[Digest]:
    """What a tag cannot do without: its image; or the sources of its cache."""
    return [Digest(source.digest) for source in record.sources] or [record.digest]


def _document(data: bytes, metadata: Mapping[str, str], digest: Digest) -> Document | Damage:
    if (found := digest_of(data, digest.algorithm)) != digest:
        return Damage(f"its content is {found}")
    if MEDIA_TYPE not in metadata:
        return Damage("its media type is lost")
    try:
        manifest = parse_manifest(data, metadata[MEDIA_TYPE])
    except ManifestInvalid as error:
        return Damage(error.detail)
    blobs: dict[Digest, int] = {}
    manifests = []
    for each in manifest.references:
        if (child := Digest.maybe(each.digest)) is None:
            continue
        if each.media_type in MEDIA_TYPES:
            manifests.append(child)
        elif not any(mark in each.media_type for mark in _ELSEWHERE):
            blobs[child] = each.size
    return Document(blobs, tuple(manifests))
