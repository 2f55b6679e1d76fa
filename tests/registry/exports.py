"""Exports as BuildKit pushes them, of builds that are chains of steps on one base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cacheproxy.buildkit.cache import (
    DIFF_ID,
    Alternative,
    Cache,
    Config,
    Form,
    Layer,
    LayerDescriptor,
    Record,
    Result,
)
from cacheproxy.buildkit.manifest import (
    CacheManifest,
    Written,
    read_cache,
    read_manifest,
    write_cache,
)
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.manifest_store import StoredManifest
from cacheproxy.storage.bucket import Head
from cacheproxy.storage.layout import Namespace
from tests.buildkit.generating import GZIP, SECOND
from tests.registry.rooms import Bytes, Rooms

APP = Repository("ci/app")
TAG = Tag("cache")

CREATED = 1000 * SECOND
"""When the steps were executed."""


@dataclass(frozen=True)
class Export:
    """What a builder pushes: layers, then the config, then the manifest."""

    written: Written
    layers: Mapping[str, bytes]

    @property
    def digest(self) -> Digest:
        return digest_of(self.written.manifest)

    async def push(self, rooms: Rooms, tag: Tag = TAG, *, without: str = "") -> Digest:
        """Push all of it but for the layer of the step `without`."""
        for name, content in self.layers.items():
            if name != without:
                await rooms.blobs.push(APP, digest_of(content), Bytes(content))
        config = self.written.config
        await rooms.blobs.push(APP, digest_of(config), Bytes(config))
        return await self.push_manifest(rooms, tag)

    async def push_manifest(self, rooms: Rooms, tag: Tag = TAG) -> Digest:
        data, media_type = self.written.manifest, self.written.media_type
        return (await rooms.manifests.push(APP, tag, [], data, media_type)).digest


def export(
    *steps: str,
    created_at: int = CREATED,
    made: Mapping[str, str] | None = None,
    earlier: Mapping[str, int] | None = None,
    form: Form = "image",
) -> Export:
    """The export of a build of these steps, one on top of the other. A step makes a layer of its
    own name, or of the name that `made` has for it. Some were hits, executed `earlier`."""
    times = dict.fromkeys(steps, created_at) | dict(earlier or {})
    cache, layers = _chain(times, made or {}, form)
    return Export(write_cache(cache), layers)


def _chain(
    times: Mapping[str, int], made: Mapping[str, str], form: Form
) -> tuple[Cache, dict[str, bytes]]:
    """The cache of a build of steps, executed when `times` say, and its layers by step."""
    contents = {step: layer_of(made.get(step, step)) for step in times}
    layers = [Layer(named(content), below) for below, content in enumerate(contents.values(), -1)]
    records = [Record(named(b"base"))]
    for at, (step, created_at) in enumerate(times.items()):
        inputs = ((Alternative("", at),),)
        records.append(Record(named(step.encode()), inputs, (Result(at, created_at),)))
    descriptors = {
        named(content): LayerDescriptor(
            GZIP, len(content), ((DIFF_ID, named(b"tar of " + content)),)
        )
        for content in contents.values()
    }
    return Cache(Config(tuple(layers), tuple(records)), descriptors, form), contents


def named(content: bytes) -> str:
    """The digest of a content as caches have it."""
    return str(digest_of(content))


def layer_of(name: str) -> bytes:
    """The content of a layer."""
    return f"layer {name}".encode()


@dataclass(frozen=True)
class Served:
    """What a tag leads to, as a builder reads it."""

    manifest: StoredManifest
    cache: Cache

    @property
    def digest(self) -> Digest:
        return self.manifest.digest

    def hits(self, *steps: str) -> frozenset[str]:
        """Which of these steps have a result."""
        made = {record.digest for record in self.cache.config.records if record.results}
        return frozenset(step for step in steps if digest_of(step.encode()) in made)

    def created_at(self, step: str) -> int:
        """When the result of a step was made, as is said."""
        [record] = [
            record
            for record in self.cache.config.records
            if record.digest == digest_of(step.encode())
        ]
        return record.results[0].created_at


async def import_(rooms: Rooms, reference: Tag | Digest = TAG) -> Served:
    """Read a cache as a builder does: all that it names is there. Raises ManifestUnknown."""
    manifest = await rooms.manifests.get(APP, reference)
    config = await rooms.blobs.read(APP, config_of(manifest), 1 << 20)
    assert config is not None, "the config is gone"
    cache = read_cache(manifest.data, config)
    assert isinstance(cache, Cache), cache
    for digest, layer in cache.descriptors.items():
        assert await rooms.folder.head(Namespace().blob(Digest(digest))) == Head(layer.size)
        assert not await rooms.hidden.has(APP, Digest(digest))
    by_digest = await rooms.manifests.get(APP, manifest.digest)
    assert by_digest == manifest
    return Served(manifest, cache)


def config_of(manifest: StoredManifest) -> Digest:
    """The digest of a cache's config."""
    about = read_manifest(manifest.data)
    assert isinstance(about, CacheManifest), about
    return Digest.parse(about.config_digest)
