"""The manifest of a cache, in both of BuildKit's forms (cache/remotecache/{import,export}.go)."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Annotated, Final

import msgspec

from cacheproxy.buildkit.cache import CACHE_CONFIG, Cache, Form, LayerDescriptor, Opaque
from cacheproxy.buildkit.config import parse_config, write_config

IMAGE: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
_IMAGES: Final = {IMAGE, "application/vnd.docker.distribution.manifest.v2+json", None}
_INDEXES: Final = {INDEX, "application/vnd.docker.distribution.manifest.list.v2+json", None}

_OCI_LAYER: Final = "application/vnd.oci.image.layer."
_DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs."
# BuildKit's util/compression: what it writes into OCI manifests for each of Docker's types
_OCI_TYPES: Final = {
    f"{_DOCKER_LAYER}diff.tar": f"{_OCI_LAYER}v1.tar",
    f"{_DOCKER_LAYER}diff.tar.gzip": f"{_OCI_LAYER}v1.tar+gzip",
    f"{_DOCKER_LAYER}diff.tar.zstd": f"{_OCI_LAYER}v1.tar+zstd",
    f"{_DOCKER_LAYER}foreign.diff.tar": f"{_OCI_LAYER}nondistributable.v1.tar",
    f"{_DOCKER_LAYER}foreign.diff.tar.gzip": f"{_OCI_LAYER}nondistributable.v1.tar+gzip",
}

# They name other repositories, and would make the bytes depend on who pushed.
_NOT_KEPT: Final = "containerd.io/distribution.source."


class _Descriptor(msgspec.Struct, omit_defaults=True, rename="camel", gc=False):
    media_type: str
    digest: str
    size: Annotated[int, msgspec.Meta(ge=0)]
    annotations: dict[str, str] | None = None


class _Manifest(msgspec.Struct, omit_defaults=True, rename="camel"):
    """Both forms in one, in Go's order of fields."""

    schema_version: int | None = None
    media_type: str | None = None
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None


class CacheManifest(msgspec.Struct, frozen=True):
    """What the manifest of a cache says: where its config is, and its layers by digest."""

    form: Form
    config_digest: str
    config_size: int
    descriptors: Mapping[str, LayerDescriptor]


class Written(msgspec.Struct, frozen=True):
    """A cache as bytes. The manifest names the config by its sha256."""

    config: bytes
    config_digest: str
    manifest: bytes
    media_type: str


_decoder: Final = msgspec.json.Decoder(_Manifest)


def is_cache(manifest: bytes) -> bool:
    """Whether a manifest is a cache's: it has a cacheconfig where BuildKit looks for one."""
    return read_manifest(manifest) is not None


def read_manifest(data: bytes) -> CacheManifest | Opaque | None:
    """What a manifest says, None if it is not a cache's, `Opaque` if BuildKit would not read it."""
    if CACHE_CONFIG.encode() not in data:
        return None  # most manifests, so they cost next to nothing
    try:
        manifest = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if manifest.manifests is not None:
        return _read_index(manifest)
    config = manifest.config
    if config is None or config.media_type != CACHE_CONFIG:
        return None
    if manifest.media_type not in _IMAGES:
        return Opaque("an image manifest whose mediaType is another")
    return _manifest("image", config, manifest.layers or [])


def _read_index(manifest: _Manifest) -> CacheManifest | Opaque | None:
    children = manifest.manifests or []
    configs = [child for child in children if child.media_type == CACHE_CONFIG]
    if not configs:
        return None
    if manifest.config is not None or manifest.layers is not None:
        return Opaque("both an image manifest and an index")
    if manifest.media_type not in _INDEXES:
        return Opaque("an index whose mediaType is another")
    if len(configs) > 1:
        return Opaque("an index with several cache configs")
    layers = [child for child in children if child.media_type != CACHE_CONFIG]
    return _manifest("index", configs[0], layers)


def _manifest(form: Form, config: _Descriptor, layers: list[_Descriptor]) -> CacheManifest:
    descriptors = {
        layer.digest: LayerDescriptor(
            _OCI_TYPES.get(layer.media_type, layer.media_type),
            layer.size,
            tuple(
                sorted(
                    (key, value)
                    for key, value in (layer.annotations or {}).items()
                    if not key.startswith(_NOT_KEPT)
                )
            ),
        )
        for layer in layers
    }
    return CacheManifest(form, config.digest, config.size, descriptors)


def read_cache(manifest: bytes, config: bytes) -> Cache | Opaque | None:
    """A cache from the bytes of its manifest and config; None if the manifest is not a cache's."""
    read = read_manifest(manifest)
    if not isinstance(read, CacheManifest):
        return read
    parsed = parse_config(config)
    if isinstance(parsed, Opaque):
        return parsed
    return Cache(parsed, read.descriptors, read.form)


def without_layers(manifest: bytes, gone: Collection[str]) -> bytes:
    """The manifest of a cache without the descriptors of layers that are gone, which BuildKit then
    takes for misses. All else stays as it is written."""
    tree = msgspec.json.decode(manifest)
    for name in ("layers", "manifests"):
        if tree.get(name):
            tree[name] = [each for each in tree[name] if each["digest"] not in gone]
    return msgspec.json.encode(tree)


def write_cache(cache: Cache) -> Written:
    """A cache as bytes that are the same for equal caches, with OCI media types throughout."""
    config = write_config(cache.config)
    config_digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    about = _Descriptor(CACHE_CONFIG, config_digest, len(config))
    layers = [out_descriptor(*item) for item in sorted(cache.descriptors.items())]
    if cache.form == "image":
        manifest = _Manifest(2, IMAGE, config=about, layers=layers)
    else:
        manifest = _Manifest(2, INDEX, manifests=[*layers, about])
    media_type = manifest.media_type or ""
    return Written(config, config_digest, msgspec.json.encode(manifest), media_type)


def out_descriptor(digest: str, descriptor: LayerDescriptor) -> _Descriptor:
    """The descriptor of a layer as it is written."""
    annotations = dict(descriptor.annotations) or None
    return _Descriptor(descriptor.media_type, digest, descriptor.size, annotations)
