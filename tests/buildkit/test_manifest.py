"""Manifests of caches, in both of BuildKit's forms."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.buildkit.cache import CACHE_CONFIG, Cache, LayerDescriptor, Opaque
from cacheproxy.buildkit.config import write_config
from cacheproxy.buildkit.manifest import (
    IMAGE,
    INDEX,
    CacheManifest,
    is_cache,
    read_cache,
    read_manifest,
    write_cache,
)
from cacheproxy.buildkit.merge import Source, merge
from tests.buildkit.generating import digest, random_cache, random_sources

CONFIG = {"mediaType": CACHE_CONFIG, "digest": digest("config"), "size": 10}
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DIFF_ID, CREATED = "containerd.io/uncompressed", "buildkit/createdat"
LAYER = {
    "mediaType": GZIP,
    "digest": digest("layer"),
    "size": 20,
    "annotations": {DIFF_ID: digest("tar"), CREATED: "2026-01-02T03:04:05Z"},
}
DESCRIPTOR = LayerDescriptor(
    GZIP, 20, ((CREATED, "2026-01-02T03:04:05Z"), (DIFF_ID, digest("tar")))
)
DOCKER = "application/vnd.docker"


def read(manifest: Any) -> CacheManifest | Opaque | None:
    data = json.dumps(manifest).encode()
    found = read_manifest(data)
    assert is_cache(data) == (found is not None)
    return found


@pytest.mark.parametrize("media_type", [IMAGE, f"{DOCKER}.distribution.manifest.v2+json", None])
def test_an_image_manifest_with_a_cache_config_is_a_cache(media_type: str | None) -> None:
    """The form since v0.21; mediaType may be missing."""
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": CONFIG, "layers": [LAYER]}

    expected = CacheManifest("image", digest("config"), 10, {digest("layer"): DESCRIPTOR})
    assert read(manifest) == expected


@pytest.mark.parametrize(
    "media_type", [INDEX, f"{DOCKER}.distribution.manifest.list.v2+json", None]
)
def test_an_index_with_a_cache_config_is_a_cache(media_type: str | None) -> None:
    """The older form, in which layers are listed as if they were manifests."""
    manifest = {"schemaVersion": 2, "mediaType": media_type, "manifests": [LAYER, CONFIG]}

    expected = CacheManifest("index", digest("config"), 10, {digest("layer"): DESCRIPTOR})
    assert read(manifest) == expected


@pytest.mark.parametrize(
    "manifest",
    [
        {"schemaVersion": 2, "config": {**CONFIG, "mediaType": "other"}, "layers": [LAYER]},
        {"schemaVersion": 2, "config": {**CONFIG, "mediaType": "other"}, "layers": [CONFIG]},
        {"schemaVersion": 2, "manifests": [LAYER]},
        {"schemaVersion": 2, "manifests": [], "annotations": {"about": CACHE_CONFIG}},
        {"schemaVersion": 2, "annotations": {"about": CACHE_CONFIG}},
        {},
        [CACHE_CONFIG],
    ],
)
def test_all_else_is_not_a_cache(manifest: Any) -> None:
    """The media type in the place of the config decides, not its occurrence."""
    assert read(manifest) is None
    assert read_cache(json.dumps(manifest).encode(), b"{}") is None


@pytest.mark.parametrize(
    "manifest",
    [
        {"config": CONFIG, "layers": [], "mediaType": INDEX},
        {"manifests": [CONFIG], "mediaType": IMAGE},
        {"manifests": [CONFIG], "config": CONFIG},
        {"manifests": [CONFIG, {**CONFIG, "digest": digest("another")}]},
    ],
)
def test_what_contradicts_itself_is_opaque(manifest: Any) -> None:
    """BuildKit refuses these, or takes the last config."""
    assert isinstance(read(manifest), Opaque)


@pytest.mark.parametrize(
    ("docker", "oci"),
    [
        ("diff.tar", "v1.tar"),
        ("diff.tar.gzip", "v1.tar+gzip"),
        ("diff.tar.zstd", "v1.tar+zstd"),
        ("foreign.diff.tar.gzip", "nondistributable.v1.tar+gzip"),
    ],
)
def test_layers_have_oci_types(docker: str, oci: str) -> None:
    """Docker's types become OCI's, as BuildKit itself converts them for an image manifest."""
    layer = {**LAYER, "mediaType": f"{DOCKER}.image.rootfs.{docker}"}
    found = read({"config": CONFIG, "layers": [layer]})

    assert isinstance(found, CacheManifest)
    assert found.descriptors[digest("layer")].media_type == f"application/vnd.oci.image.layer.{oci}"


def test_other_repositories_are_not_named() -> None:
    """Of where a layer came from nothing is kept: it may be a repository that others cannot see."""
    annotations = {DIFF_ID: "x", "containerd.io/distribution.source.docker.io": "library/alpine"}
    found = read({"config": CONFIG, "layers": [{**LAYER, "annotations": annotations}]})

    assert isinstance(found, CacheManifest)
    assert found.descriptors[digest("layer")].annotations == ((DIFF_ID, "x"),)


def test_an_opaque_config_makes_the_cache_opaque() -> None:
    """The manifest alone does not make it readable."""
    manifest = json.dumps({"config": CONFIG, "layers": []}).encode()

    assert isinstance(read_cache(manifest, b'{"new": 1}'), Opaque)


def test_a_cache_is_written_in_the_form_that_it_has() -> None:
    """With BuildKit's media types, and the config last in an index."""
    cache = random_cache(Random(4))
    descriptors = {digest("layer"): DESCRIPTOR}
    config = write_config(cache.config)

    image = write_cache(Cache(cache.config, descriptors, "image"))
    index = write_cache(Cache(cache.config, descriptors, "index"))

    about = {"mediaType": CACHE_CONFIG, "digest": image.config_digest, "size": len(config)}
    assert image.config == index.config == config
    assert (image.media_type, index.media_type) == (IMAGE, INDEX)
    assert json.loads(image.manifest) == {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": about,
        "layers": [LAYER],
    }
    assert json.loads(index.manifest) == {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [LAYER, about],
    }


def test_an_empty_image_manifest_has_layers() -> None:
    """The image spec demands the field, though it may be empty."""
    assert json.loads(write_cache(merge([]).cache).manifest)["layers"] == []


@given(st.randoms(use_true_random=False))
def test_a_cache_that_is_written_is_read_as_the_same(random: Random) -> None:
    """In both forms, up to the order of records."""
    union = merge(random_sources(random)).cache
    written = write_cache(union)

    read = read_cache(written.manifest, written.config)

    assert isinstance(read, Cache)
    assert merge([Source(read, 10**15)]).cache == union
