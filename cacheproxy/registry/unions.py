"""Unions on their way from the bucket and into it."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from cacheproxy.buildkit.cache import Opaque
from cacheproxy.buildkit.manifest import CacheManifest, read_manifest
from cacheproxy.content.spool import Bytes
from cacheproxy.errors import SizeInvalid
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.blobs import Blobs
from cacheproxy.registry.manifest_store import ManifestStore
from cacheproxy.registry.sources import Source
from cacheproxy.registry.together import together
from cacheproxy.registry.union import Limits, Loaded, Sizes, Union, unite
from cacheproxy.storage.blocking import in_thread

# Parsed, a config takes some ten times as much memory as it has bytes.
_CONFIG_BYTES: Final = 16 << 20
_CONFIGS_BYTES: Final = 128 << 20

_LOADS: Final = 16


class Unions:
    """`verify_seconds` is for how long a layer is taken to exist since it was last looked for."""

    def __init__(
        self, store: ManifestStore, blobs: Blobs, limits: Limits, verify_seconds: float
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._limits = limits
        self._verify_seconds = verify_seconds
        self._turn = asyncio.Lock()  # one by one, as each takes much memory

    @property
    def losses(self) -> int:
        """Another number when a layer of some cache may be gone."""
        return self._blobs.losses

    async def make(
        self, repository: Repository, sources: Sequence[Source], *, anew: bool = False
    ) -> Union | None:
        """The union of the sources, the latest first; see `unite`. It is not stored. `anew`: all
        layers are looked for now."""
        async with self._turn:
            loaded = await self._load(repository, sources)
            named = {digest for each in loaded for digest in each.blobs}
            stored = await self._stored(repository, named, anew)
            return await in_thread(unite, loaded, stored, self._limits)

    async def store(self, repository: Repository, union: Union) -> None:
        """Let the union be fetched by digest."""
        manifest = self._store.put(repository, union.manifest)
        if union.config is None:
            await manifest
        else:
            config = digest_of(union.config)
            await together(manifest, self._blobs.push(repository, config, Bytes(union.config)))

    async def holds(self, repository: Repository, digest: Digest, *, anew: bool = False) -> bool:
        """Whether the cache with this manifest exists, with all that it names; `anew` as above."""
        manifest = await self._store.get(repository, digest)
        about = None if manifest is None else read_manifest(manifest.data)
        if not isinstance(about, CacheManifest):
            return isinstance(about, Opaque)
        named = {about.config_digest, *about.descriptors}
        return len(await self._stored(repository, named, anew)) == len(named)

    async def _stored(self, repository: Repository, named: Iterable[str], anew: bool) -> Sizes:
        digests = [digest for text in named if (digest := Digest.maybe(text)) is not None]
        return await self._blobs.present(repository, digests, 0 if anew else self._verify_seconds)

    async def _load(self, repository: Repository, sources: Sequence[Source]) -> list[Loaded]:
        """The sources, without the configs for which the ones before leave no room."""
        loaded: list[Loaded] = []
        left = _CONFIGS_BYTES
        for start in range(0, len(sources), _LOADS):
            batch = sources[start : start + _LOADS]
            for each in await asyncio.gather(*[self._load_one(repository, one) for one in batch]):
                left -= len(each.config or b"")
                if left < 0:
                    each = Loaded(each.source, each.manifest, each.about)
                loaded.append(each)
        return loaded

    async def _load_one(self, repository: Repository, source: Source) -> Loaded:
        manifest = await self._store.get(repository, Digest(source.digest))
        if manifest is None:
            return Loaded(source, gone=True)
        about = read_manifest(manifest.data)
        if not isinstance(about, CacheManifest):
            return Loaded(source, manifest, about)
        try:
            config = await self._config(repository, about)
        except SizeInvalid:
            return Loaded(source, manifest, about)
        return Loaded(source, manifest, about, config, gone=config is None)

    async def _config(self, repository: Repository, about: CacheManifest) -> bytes | None:
        digest = Digest.maybe(about.config_digest)
        config = digest and await self._blobs.read(repository, digest, _CONFIG_BYTES)
        if not digest or not config or digest_of(config, digest.algorithm) != digest:
            return None
        return config
