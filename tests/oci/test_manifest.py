"""Manifests: what is read in them, and what is refused."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import ManifestInvalid
from cacheproxy.oci.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MEDIA_TYPES,
    OCI_ARTIFACT,
    OCI_INDEX,
    OCI_MANIFEST,
    parse_manifest,
)

_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
_BUILDKIT_CONFIG = "application/vnd.buildkit.cacheconfig.v0"


def _descriptor(letter: str, media_type: str = _LAYER) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": "sha256:" + letter * 64, "size": 7}


def _data(**fields: Any) -> bytes:
    return json.dumps({"schemaVersion": 2} | fields).encode()


_IMAGE = {"config": _descriptor("c", "application/x"), "layers": [_descriptor("a")]}


def _children(data: bytes, content_type: str) -> list[str]:
    return [each.digest[7] for each in parse_manifest(data, content_type).references]


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_image_refers_to_its_config_and_layers(media_type: str) -> None:
    """In the order of the document, the config first."""
    data = _data(config=_descriptor("c"), layers=[_descriptor("a"), _descriptor("b")])

    assert _children(data, media_type) == ["c", "a", "b"]


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_index_refers_to_its_manifests(media_type: str) -> None:
    """In the order of the document, also where one comes twice."""
    data = _data(manifests=[_descriptor(each, OCI_MANIFEST) for each in "bab"])

    assert _children(data, media_type) == ["b", "a", "b"]


def test_index_of_a_buildkit_cache_refers_to_blobs() -> None:
    """BuildKit's older caches are indexes whose children are layers and a cache config."""
    data = _data(manifests=[_descriptor("a"), _descriptor("b", _BUILDKIT_CONFIG)])
    found = parse_manifest(data, OCI_INDEX)

    assert [each.media_type for each in found.references] == [_LAYER, _BUILDKIT_CONFIG]


def test_artifact_refers_to_its_blobs() -> None:
    """The artifact manifest that the image-spec has dropped is still read."""
    data = json.dumps({"blobs": [_descriptor("a")], "artifactType": "x/y"}).encode()
    found = parse_manifest(data, OCI_ARTIFACT)

    assert (found.artifact_type, len(found.references)) == ("x/y", 1)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (_IMAGE, "application/x"),
        (_IMAGE | {"artifactType": ""}, "application/x"),
        (_IMAGE | {"artifactType": "application/y"}, "application/y"),
    ],
)
def test_artifact_type_is_by_default_that_of_the_config(
    fields: dict[str, Any], expected: str
) -> None:
    """distribution-spec, listing referrers: an empty or absent type is the config's media type."""
    assert parse_manifest(_data(**fields), OCI_MANIFEST).artifact_type == expected


def test_index_without_an_artifact_type_has_none() -> None:
    """distribution-spec: only an image has a config to take it from."""
    assert parse_manifest(_data(manifests=[]), OCI_INDEX).artifact_type is None


def test_manifest_of_go_with_nulls_is_read() -> None:
    """Go writes absent lists, maps and pointers as null."""
    nulls = dict.fromkeys(["blobs", "manifests", "subject", "annotations", "artifactType"])
    found = parse_manifest(_data(**_IMAGE, **nulls), OCI_MANIFEST)

    assert (found.subject, found.annotations, len(found.references)) == (None, None, 2)


def test_subject_and_annotations_are_read() -> None:
    """They are what the referrers API tells."""
    subject = _descriptor("d", OCI_MANIFEST)
    found = parse_manifest(_data(**_IMAGE, subject=subject, annotations={"a": "b"}), OCI_MANIFEST)

    assert found.subject is not None
    assert (found.subject.digest, found.annotations) == (subject["digest"], {"a": "b"})


@pytest.mark.parametrize("content_type", [None, "", OCI_INDEX, f"{OCI_INDEX}; charset=utf-8"])
def test_media_type_is_that_of_the_header_or_of_the_body(content_type: str | None) -> None:
    """Either may be missing, and parameters say nothing."""
    data = _data(manifests=[], mediaType=OCI_INDEX)

    assert parse_manifest(data, content_type).media_type == OCI_INDEX


@pytest.mark.parametrize(
    ("fields", "content_type", "told"),
    [
        (_IMAGE, None, "neither Content-Type nor mediaType"),
        (_IMAGE | {"mediaType": OCI_MANIFEST}, DOCKER_MANIFEST, "but mediaType"),
        (_IMAGE, "application/json", "not a known manifest type"),
        (_IMAGE | {"manifests": [_descriptor("a")]}, OCI_MANIFEST, "has no manifests"),
        ({"layers": []}, OCI_MANIFEST, "has a config"),
        ({}, OCI_INDEX, "an index has manifests"),
        ({"manifests": [], "layers": [_descriptor("a")]}, OCI_INDEX, "neither config nor layers"),
        ({"manifests": [], "config": _descriptor("a")}, DOCKER_LIST, "neither config nor layers"),
        ({"schemaVersion": 1, "fsLayers": []}, DOCKER_MANIFEST, "schema 1"),
        (_IMAGE | {"signatures": []}, OCI_MANIFEST, "schema 1"),
        (_IMAGE | {"schemaVersion": 3}, OCI_MANIFEST, "schemaVersion must be 2"),
        (_IMAGE | {"schemaVersion": None}, OCI_MANIFEST, "schemaVersion must be 2"),
    ],
)
def test_manifest_that_is_ambiguous_is_told_why(
    fields: dict[str, Any], content_type: str | None, told: str
) -> None:
    """Two parsers must not see two things in one document, and the client learns what is wrong."""
    with pytest.raises(ManifestInvalid, match=told):
        parse_manifest(_data(**fields), content_type)


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "sha256"},
        {"digest": ""},
        {"digest": "sha256:" + "a" * 64 + "\n"},
        {"digest": "../../etc/passwd"},
        {"digest": "a:" + "b" * 1023},
        {"size": -1},
        {"size": "7"},
        {"size": 1.5},
        {"size": None},
        {"mediaType": None},
    ],
)
def test_descriptor_that_is_none_is_refused(change: dict[str, Any]) -> None:
    """A digest has the grammar of the image-spec, a size is a number of bytes."""
    data = _data(config=_descriptor("c") | change)

    with pytest.raises(ManifestInvalid):
        parse_manifest(data, OCI_MANIFEST)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"layers":' + b"[" * 100_000,
        b'{"schemaVersion":2,"manifests":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"schemaVersion":' + b"9" * 100_000 + b"}",
        b'{"schemaVersion":1e999}',
        b'{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"a:b","size":1e400}]}',
        b'{"schemaVersion":2,"mediaType":"\xff"}',
        b'{"schemaVersion":2,"manifests":[]}\xff',
        b"\xef\xbb\xbf{}",
        b'{"schemaVersion":2,"manifests":[]',
    ],
    ids=lambda data: repr(data[:40]),
)
def test_manifest_made_to_break_the_parser_is_refused(data: bytes) -> None:
    """JSON bombs, huge numbers and broken text are a client's error, not a crash."""
    with pytest.raises(ManifestInvalid):
        parse_manifest(data, OCI_INDEX)


@pytest.mark.parametrize(
    "fields",
    [
        {"annotations": {f"{number:x}": "" for number in range(100_000)}},
        {"layers": [_descriptor("a")] * 5_000},
        {"unknown": [[]] * 300_000},
        {"unknown": [{"": 0}] * 150_000},
    ],
    ids=["annotations", "layers", "lists", "tables"],
)
def test_manifest_of_many_small_things_costs_little_more_than_its_bytes(
    fields: dict[str, Any],
) -> None:
    """Everything in it has a size of its own in memory, however few bytes it is on the wire."""
    data = _data(**_IMAGE | fields)
    tracemalloc.start()
    try:
        parse_manifest(data, OCI_MANIFEST)
        assert tracemalloc.get_traced_memory()[1] < 12 * len(data)
    finally:
        tracemalloc.stop()


_TEXTS = st.from_regex(r'\{"schemaVersion": ?2,.*\}').map(str.encode)


@given(st.binary(max_size=300) | _TEXTS, st.sampled_from([*sorted(MEDIA_TYPES), None]))
def test_manifest_of_any_bytes_is_read_or_refused(data: bytes, content_type: str | None) -> None:
    """Nothing that a client can send makes another error."""
    try:
        parse_manifest(data, content_type)
    except ManifestInvalid:
        return


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_FIELDS = ["schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "annotations"]


@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON | st.just(_descriptor("a"))))
def test_manifest_of_any_fields_is_read_or_refused(fields: dict[str, Any]) -> None:
    """Fields of any type, which the parser of JSON alone would let through."""
    try:
        found = parse_manifest(_data(**fields), OCI_MANIFEST)
    except ManifestInvalid:
        return

    assert found.references


@pytest.mark.parametrize("text", ['"\\ud800"', '"\\udc00x"', '"\\u0000"'])
def test_annotation_of_a_manifest_that_is_read_can_be_told(text: str) -> None:
    """Half a surrogate pair is refused, or else it can be written as JSON again."""
    data = b'{"schemaVersion":2,"manifests":[],"annotations":{"a":%s}}' % text.encode()
    try:
        found = parse_manifest(data, OCI_INDEX)
    except ManifestInvalid:
        return

    assert msgspec.json.decode(msgspec.json.encode(found.annotations)) == found.annotations


def test_lists_that_are_null_are_empty() -> None:
    """Go writes absent lists and maps as null."""
    data = b'{"schemaVersion":2,"manifests":[],"layers":null,"annotations":null,"subject":null}'

    assert parse_manifest(data, OCI_INDEX).references == ()
