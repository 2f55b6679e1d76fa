"""How the sources of a cache tag become one cache that names nothing but what exists.

Pure: what is stored is loaded by `unions`, and what is made is stored there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cacheproxy.buildkit import merge
from cacheproxy.buildkit.cache import Cache, Opaque
from cacheproxy.buildkit.compact import compact
from cacheproxy.buildkit.keeping import LeftOut
from cacheproxy.buildkit.lineages import lineages
from cacheproxy.buildkit.manifest import CacheManifest, read_cache, without_layers, write_cache
from cacheproxy.oci.digest import digest_of
from cacheproxy.registry.manifest_store import StoredManifest
from cacheproxy.registry.sources import Source

Sizes = Mapping[str, int]
"""The sizes of the blobs that exist, in bytes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What BuildKit imports: the most bytes of a cache's config, and of its manifest."""

    config_bytes: int
    manifest_bytes: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A source as it is stored, or what is left of it."""

    source: Source
    manifest: StoredManifest | None = None
    about: CacheManifest | Opaque | None = None
    """What the manifest says."""
    config: bytes | None = None
    """None: it is gone, or was not loaded because it is too large."""
    gone: bool = False
    """Whether manifest or config do not exist any more."""

    @property
    def layers(self) -> frozenset[str]:
        """The digests of the layers that the manifest names."""
        named = self.about.descriptors if isinstance(self.about, CacheManifest) else ()
        return frozenset(named)

    @property
    def blobs(self) -> frozenset[str]:
        """The layers, and the config: what was read may be a copy of what the bucket has lost."""
        if isinstance(self.about, CacheManifest):
            return self.layers | {self.about.config_digest}
        return frozenset()


@dataclass(frozen=True, slots=True)
class Part:
    """A source, and the cache that it is, or why it cannot be merged."""

    loaded: Loaded
    cache: Cache | Opaque
    missing: frozenset[str]
    """The layers that it names and that do not exist."""


@dataclass(frozen=True, slots=True)
class Union:
    """A cache to be served, how it came about, and what is not in it."""

    manifest: StoredManifest
    cache: Cache | Opaque
    parts: tuple[Part, ...]
    config: bytes | None = None
    """Its config, where that is not the one of a source."""
    records: Mapping[str, int] = field(default_factory=dict)
    """How many records each source has in the union, before that was compacted."""
    left_out: LeftOut | None = None
    """What did not fit, where something was made to fit."""
    disputed: frozenset[str] = frozenset()
    """Layers that were left out because sources contradict each other about their contents."""

    @property
    def complete(self) -> bool:
        """Whether all exists that its sources name."""
        return not any(part.missing or part.loaded.gone for part in self.parts)


def unite(loaded: Sequence[Loaded], stored: Sizes, limits: Limits) -> Union | None:
    """The union of sources, the latest first; None if nothing is left of them.

    One alone is served as it was pushed, if BuildKit can import that. One that BuildKit could not
    read, or that is not understood here, is left out as long as there are others.
    """
    parts = tuple([Part(each, _read(each), each.layers - stored.keys()) for each in loaded])
    caches = [part for part in parts if isinstance(part.cache, Cache)]
    if len(caches) == 1 and (alone := _as_pushed(caches[0], stored, limits)) is not None:
        return Union(alone, caches[0].cache, parts)
    if caches:
        return _united(parts, stored, limits)
    for part in parts:
        if part.loaded.manifest is not None and not part.loaded.gone:
            return Union(_trimmed(part.loaded.manifest, part.missing), part.cache, parts)
    return None


def _read(loaded: Loaded) -> Cache | Opaque:
    if loaded.manifest is None:
        return Opaque("its manifest is gone")
    if isinstance(loaded.about, Opaque):
        return loaded.about
    if loaded.config is None:
        return Opaque("its config is gone" if loaded.gone else "its config is too large to merge")
    return read_cache(loaded.manifest.data, loaded.config) or Opaque("it is no cache")


def _as_pushed(part: Part, stored: Sizes, limits: Limits) -> StoredManifest | None:
    manifest, config = part.loaded.manifest, part.loaded.config
    if manifest is None or config is None or isinstance(part.cache, Opaque):
        return None
    fits = len(config) <= limits.config_bytes and len(manifest.data) <= limits.manifest_bytes
    layers = part.cache.descriptors.items()
    right = all(stored.get(digest) == layer.size for digest, layer in layers)
    return manifest if fits and right else None


def _united(parts: tuple[Part, ...], stored: Sizes, limits: Limits) -> Union:
    sources = [
        merge.Source(part.cache, part.loaded.source.received_at, part.loaded.source.digest)
        for part in parts
        if isinstance(part.cache, Cache)
    ]
    merged = merge.merge(sources, stored)
    cache, left_out = compact(
        merged.cache,
        lineages(merged, sources),
        config_limit=limits.config_bytes,
        manifest_limit=limits.manifest_bytes,
    )
    written = write_cache(cache)
    digest, pushers = digest_of(written.manifest), _pushers(parts)
    return Union(
        StoredManifest(digest, written.media_type, written.manifest, pushers),
        cache,
        parts,
        written.config,
        {
            source.digest: len(records)
            for source, records in zip(sources, merged.members, strict=True)
        },
        left_out,
        merged.disputed,
    )


def _trimmed(manifest: StoredManifest, missing: frozenset[str]) -> StoredManifest:
    if not missing:
        return manifest
    data = without_layers(manifest.data, missing)
    return StoredManifest(digest_of(data), manifest.media_type, data, manifest.pushers)


def _pushers(parts: Sequence[Part]) -> tuple[str, ...]:
    """The first two of those whose caches are in the union."""
    found = {part.loaded.source.pusher for part in parts if isinstance(part.cache, Cache)}
    return tuple(sorted(found - {""})[:2])
