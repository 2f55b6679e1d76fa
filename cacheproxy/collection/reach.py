"""What is reachable: what tags lead to, and what was pushed too lately to be anybody's yet.

What cannot be read ends it: as long as a tag or a manifest may lead anywhere, nothing is deleted.
"""

import asyncio
from collections import defaultdict
from typing import Final

from cacheproxy.collection.each import in_batches
from cacheproxy.collection.evictions import Evicted, tag_states
from cacheproxy.collection.marks import Marks
from cacheproxy.errors import ManifestInvalid, Unavailable
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.manifest import MEDIA_TYPES, Manifest, parse_manifest
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.manifest_store import MEDIA_TYPE
from cacheproxy.registry.tags import TagRecord, Tags
from cacheproxy.storage.bucket import Bucket, Stored
from cacheproxy.storage.layout import Namespace, last_component

_READS: Final = 16
_LISTED: Final = 200
_BLOBS: Final = 1_000


async def mark_reachable(
    bucket: Bucket,
    namespace: Namespace,
    tags: Tags,
    repository: Repository,
    young: float,
    marks: Marks,
    evicted: Evicted,
) -> int:
    """Mark the keys of what is reachable in a repository, also from manifests that were written
    since `young`, but not what only leads to what is evicted; returns how many manifests that were.

    Raises:
        Unavailable: the bucket cannot be read, or not what is in it.
    """
    walk = _Walk(
        bucket, namespace, repository, marks, await _referrers(bucket, namespace, repository)
    )
    async for states in tag_states(tags, repository):
        left = [evicted.left_of(repository, state.tag, state.record) for state in states]
        await walk.follow(
            [each for record in left if record is not None for each in led_to(record)]
        )
    async for batch in in_batches(bucket.list(namespace.manifests(repository)), _LISTED):
        found = [namespace.manifest_at(each.key) for each in batch if each.modified >= young]
        await walk.follow([digest for digest in found if digest is not None])
    return walk.manifests


def led_to(record: TagRecord) -> list[Digest]:
    """The manifests to which a tag leads: its image; or its sources, and their union."""
    return [record.digest, *[Digest(source.digest) for source in record.sources]]


class _Walk:
    """Through one repository, along what manifests refer to, and to what refers to them."""

    def __init__(
        self,
        bucket: Bucket,
        namespace: Namespace,
        repository: Repository,
        marks: Marks,
        referrers: dict[Digest, list[Digest]],
    ) -> None:
        self.manifests = 0
        self._bucket = bucket
        self._namespace = namespace
        self._repository = repository
        self._marks = marks
        self._referrers = referrers

    async def follow(self, ahead: list[Digest]) -> None:
        while ahead:
            batch = {self._key(digest): digest for digest in ahead[:_READS]}
            del ahead[:_READS]
            new = list(await self._marks.add(batch))
            blobs: set[str] = set()
            found = await asyncio.gather(*map(self._bucket.read, new))
            for key, stored in zip(new, found, strict=True):
                if stored is not None:
                    self.manifests += 1
                    ahead += self._enter(_parsed(key, stored), blobs)
                if len(blobs) >= _BLOBS:
                    await self._marks.add(blobs)
                    blobs = set()
            await self._marks.add(blobs)
            for key in new:
                ahead += self._referrers.get(batch[key], ())

    def _enter(self, manifest: Manifest, blobs: set[str]) -> list[Digest]:
        """Add to `blobs` what a manifest refers to; what of it are manifests is returned."""
        manifests = []
        for reference in manifest.references:
            if (digest := Digest.maybe(reference.digest)) is not None:
                blobs.add(self._namespace.blob(digest))
                if reference.media_type in MEDIA_TYPES:
                    manifests.append(digest)
        return manifests

    def _key(self, digest: Digest) -> str:
        return self._namespace.manifest(self._repository, digest)


def _parsed(key: str, stored: Stored) -> Manifest:
    try:
        return parse_manifest(stored.data, stored.metadata[MEDIA_TYPE])
    except (ManifestInvalid, KeyError) as error:
        raise Unavailable(f"the manifest {key} is damaged in the bucket") from error


async def _referrers(
    bucket: Bucket, namespace: Namespace, repository: Repository
) -> dict[Digest, list[Digest]]:
    """By subject the manifests that refer to it: they stay as long as that."""
    found: dict[Digest, list[Digest]] = defaultdict(list)
    async for listed in bucket.list(namespace.all_referrers(repository)):
        subject, _, referrer = listed.key.rpartition("/")
        found[_named(last_component(subject))].append(_named(referrer))
    return found


def _named(name: str) -> Digest:
    return Digest(name.replace("-", ":", 1))
