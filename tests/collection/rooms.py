"""A registry and its collectors over a bucket in memory, in a time that passes when told to."""

from __future__ import annotations

import json
from pathlib import Path

from cacheproxy.collection.collector import Collector, Report
from cacheproxy.collection.retention import Policies
from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import SpoolFolder
from cacheproxy.errors import ManifestUnknown
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.manifest import OCI_MANIFEST
from cacheproxy.oci.reference import Reference, Repository, Tag
from cacheproxy.registry.registry import Registry
from cacheproxy.storage.layout import Namespace
from tests.memory import MemoryBucket
from tests.registry.rooms import TICKETS, Bytes

APP = Repository("ci/app")
LEASE = 24 * 3600.0
_KEEP = Policies()
_DEFAULT = Namespace()
LAYER = "application/vnd.oci.image.layer.v1.tar"


class Time:
    """Seconds since 1970."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def nanoseconds(self) -> int:
        return int(self.now * 1e9)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Store:
    """What replicas and collectors share; `beside` is another namespace in the same bucket."""

    def __init__(
        self, folder: Path, namespace: Namespace = _DEFAULT, beside: Store | None = None
    ) -> None:
        self.time: Time = beside.time if beside else Time()
        self.bucket: MemoryBucket = beside.bucket if beside else MemoryBucket(self.time)
        self.namespace = namespace
        self._contents = Contents(self.bucket, SpoolFolder(str(folder)))

    async def replica(self) -> Registry:
        """One that has just started."""
        clocks = (self.time, self.time)
        replica = Registry(
            self.bucket,
            self.namespace,
            self._contents,
            TICKETS,
            clock=self.time.nanoseconds,
            clocks=clocks,
        )
        await replica.condemned.poll()
        return replica

    def collector(self, policies: Policies = _KEEP) -> Collector:
        registry = Registry(self.bucket, self.namespace, self._contents, TICKETS)
        return Collector(
            self.bucket,
            self.namespace,
            registry.tags,
            policies,
            LEASE,
            clock=self.time.nanoseconds,
            sleep=self.time.sleep,
        )

    async def collect(self, policies: Policies = _KEEP) -> Report:
        report = await self.collector(policies).collect()
        assert report is not None
        return report

    def has(self, content: bytes) -> bool:
        return self.namespace.blob(digest_of(content)) in self.bucket.objects

    @property
    def batches(self) -> list[str]:
        return [key for key in self.bucket.objects if key.startswith(self.namespace.batches())]


def image(*layers: bytes) -> bytes:
    """A manifest whose config is its first layer."""
    described = [
        {"mediaType": LAYER, "digest": digest_of(layer), "size": len(layer)} for layer in layers
    ]
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described[0],
        "layers": described,
    }
    return json.dumps(body).encode()


async def push(replica: Registry, content: bytes) -> Digest:
    digest = digest_of(content)
    await replica.blobs.push(APP, digest, Bytes(content))
    return digest


async def tag(replica: Registry, name: str, manifest: bytes) -> Digest:
    pushed = await replica.manifests.push(APP, Tag(name), [], manifest, OCI_MANIFEST)
    return pushed.digest


async def found(replica: Registry, reference: Reference) -> bool:
    try:
        await replica.manifests.get(APP, reference)
    except ManifestUnknown:
        return False
    return True
