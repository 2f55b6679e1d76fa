"""Referrers: the manifests of a repository that name another one as their subject."""

from collections.abc import AsyncIterator
from typing import Final

import msgspec

from cacheproxy.errors import Unavailable
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.manifest import Descriptor, Manifest
from cacheproxy.oci.reference import Repository
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace

_decoder: Final = msgspec.json.Decoder(Descriptor)


class Referrers:
    """One record per referrer, so that concurrent pushes cannot lose one another's."""

    def __init__(self, bucket: Bucket, namespace: Namespace) -> None:
        self._bucket = bucket
        self._namespace = namespace

    async def add(
        self, repository: Repository, subject: Digest, digest: Digest, size: int, manifest: Manifest
    ) -> None:
        descriptor = Descriptor(
            media_type=manifest.media_type,
            digest=str(digest),
            size=size,
            artifact_type=manifest.artifact_type,
            annotations=manifest.annotations,
        )
        key = self._namespace.referrer(repository, subject, digest)
        await self._bucket.put(key, msgspec.json.encode(descriptor))

    async def remove(self, repository: Repository, subject: Digest, digest: Digest) -> None:
        await self._bucket.delete(self._namespace.referrer(repository, subject, digest))

    async def list(
        self, repository: Repository, subject: Digest, after: str = ""
    ) -> AsyncIterator[Descriptor]:
        """The descriptors of the manifests whose subject this is, by digest, behind `after`.

        The subject itself need not exist.
        """
        prefix = self._namespace.referrers(repository, subject)
        async for listed in self._bucket.list(prefix, after=prefix + after.replace(":", "-")):
            stored = await self._bucket.read(listed.key)
            if stored is not None:
                yield _descriptor(stored.data)


def _descriptor(record: bytes) -> Descriptor:
    try:
        return _decoder.decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable("a referrer is damaged in the bucket") from error
