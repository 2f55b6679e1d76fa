"""Digests: which are taken, which are refused, and how they are computed."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import DigestInvalid
from cacheproxy.oci.digest import Digest, Hasher, digest_of


@pytest.mark.parametrize("text", ["md5:" + "a" * 32, "blake3:abc", "sha384:" + "a" * 96, "a+b.c:x"])
def test_digest_of_another_algorithm_is_told_so(text: str) -> None:
    """A well-formed digest is refused with the reason that its algorithm is not supported."""
    with pytest.raises(DigestInvalid, match="neither sha256 nor sha512"):
        Digest.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "a" * 64 + "\n",
        "sha512:" + "a" * 64,
        "SHA256:" + "a" * 64,
        ":" + "a" * 64,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha512:" + "a" * 127,
        "sha256:../../" + "a" * 58,
        "sha256:" + "a" * 60 + "/../",
        "sha256:%2e%2e%2f" + "a" * 55,
        "sha256:" + "a" * 63 + "\0",
        "sha256:" + "\u0661" * 64,
        " sha256:" + "a" * 64,
    ],
)
def test_digest_that_is_malformed_is_told_so(text: str) -> None:
    """Upper case, another length and whatever might be a path are no digests."""
    with pytest.raises(DigestInvalid, match="is not a digest"):
        Digest.parse(text)


@given(st.text(max_size=150))
def test_digest_of_any_text_is_safe_or_refused(text: str) -> None:
    """What is taken holds nothing but its algorithm and lower-case hexadecimal digits."""
    try:
        found = Digest.parse(text)
    except DigestInvalid:
        return

    assert set(found.hex) <= set("0123456789abcdef")


@given(st.lists(st.binary(max_size=50), max_size=10), st.sampled_from(["sha256", "sha512"]))
def test_hasher_in_pieces_is_the_hash_of_the_whole(pieces: list[bytes], algorithm: str) -> None:
    """How the bytes are cut changes neither the digest nor the count."""
    hasher = Hasher(algorithm)
    for piece in pieces:
        hasher.update(memoryview(piece))
    whole = b"".join(pieces)

    assert hasher.digest() == f"{algorithm}:{hashlib.new(algorithm, whole).hexdigest()}"
    assert hasher.size == len(whole)


@pytest.mark.parametrize("algorithm", ["md5", "SHA256", "", "sha256 "])
def test_hasher_of_another_algorithm_is_refused(algorithm: str) -> None:
    """`digest-algorithm` of a client decides nothing but between the two."""
    with pytest.raises(DigestInvalid):
        digest_of(b"", algorithm)


@given(st.binary())
def test_a_digest_is_that_of_the_content(content: bytes) -> None:
    """Both algorithms are the standard library's, and what they give is a digest."""
    for algorithm in ("sha256", "sha512"):
        found = digest_of(content, algorithm)

        assert found == f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
        assert Digest.parse(found) == found
        assert (found.algorithm, found.hex) == tuple(found.split(":"))
