"""Names, digests and ranges: what they are, and what they refuse."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import (
    DigestInvalid,
    ManifestInvalid,
    NameInvalid,
    RangeNotSatisfiable,
    RegistryError,
)
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.manifest import OCI_INDEX, OCI_MANIFEST, parse_manifest
from cacheproxy.oci.ranges import MAX_RANGES, parse_ranges
from cacheproxy.oci.reference import Repository, Tag, parse_reference

_HEX = "a" * 64


@given(st.binary())
def test_a_digest_is_that_of_the_content(content: bytes) -> None:
    """Both algorithms are the standard library's, and what they give is a digest."""
    for algorithm in ("sha256", "sha512"):
        found = digest_of(content, algorithm)

        assert found == f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
        assert Digest.parse(found) == found
        assert (found.algorithm, found.hex) == tuple(found.split(":"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        f"sha256:{_HEX[1:]}",
        f"sha256:{_HEX}a",
        f"sha256:{_HEX.upper()}",
        f"sha512:{_HEX}",
        f"SHA256:{_HEX}",
        f"md5:{_HEX}",
        "sha256:../../../etc/passwd",
        f"sha256:{_HEX}\n",
    ],
)
def test_anything_else_is_no_digest(text: str) -> None:
    """Another length, case or algorithm is refused."""
    with pytest.raises(DigestInvalid):
        Digest.parse(text)


@pytest.mark.parametrize("text", ["a", "a/b", "a-b.c_d__e/f--g", "0", "a" * 255])
def test_a_repository_has_such_a_name(text: str) -> None:
    """distribution-spec: components of lower-case letters and digits, with separators inside."""
    assert Repository.parse(text) == text


@pytest.mark.parametrize(
    "text", ["", "/", "a/", "/a", "a//b", "A", "_a", "a_", "a___b", "..", "a/../b", "a" * 256, "ä"]
)
def test_anything_else_is_no_repository(text: str) -> None:
    """What could be a path, or collide with a key of ours, is refused."""
    with pytest.raises(NameInvalid):
        Repository.parse(text)


@given(st.text(max_size=200))
def test_a_reference_is_a_tag_or_a_digest_or_refused(text: str) -> None:
    """Whatever a client sends, a reference holds no slash and begins with no dot."""
    try:
        found = parse_reference(text)
    except RegistryError:
        return

    assert isinstance(found, Tag | Digest)
    assert "/" not in found
    assert not found.startswith(".")


@given(size=st.integers(0, 100), header=st.from_regex(r"bytes=[0-9,\- ]{0,20}", fullmatch=True))
def test_a_range_lies_within_the_content(size: int, header: str) -> None:
    """Whatever is asked for, what is answered is there, and no more than there is."""
    try:
        ranges = parse_ranges(header, size)
    except RangeNotSatisfiable:
        return

    for each in ranges or ():
        assert 0 <= each.start <= each.last < size
    assert sum(each.length for each in ranges or ()) <= size


def test_too_many_ranges_are_ignored() -> None:
    """RFC 9110, 14.2: a server may ignore what only an attacker asks for."""
    assert parse_ranges("bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)), 10_000) is None


@given(st.binary() | st.from_regex(r'\{"schemaVersion": ?2,.*\}').map(str.encode))
def test_any_bytes_are_a_manifest_or_refused(data: bytes) -> None:
    """No input makes anything but a manifest or one clear error."""
    try:
        parse_manifest(data, OCI_MANIFEST)
    except ManifestInvalid:
        return


def test_lists_that_are_null_are_empty() -> None:
    """Go writes absent lists and maps as null."""
    data = b'{"schemaVersion":2,"manifests":[],"layers":null,"annotations":null,"subject":null}'

    assert parse_manifest(data, OCI_INDEX).references == ()


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b'{"schemaVersion":2,"manifests":[]}', None),
        (b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % OCI_INDEX.encode(), OCI_MANIFEST),
        (b'{"schemaVersion":2,"manifests":[],"layers":[{}]}', OCI_INDEX),
        (b'{"schemaVersion":2,"layers":[]}', OCI_MANIFEST),
        (b'{"schemaVersion":1,"signatures":[]}', None),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    data: bytes, content_type: str | None
) -> None:
    """Two parsers must not see two different things in one document."""
    with pytest.raises(ManifestInvalid):
        parse_manifest(data, content_type)
