"""Repository names, tags and references."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import DigestInvalid, ManifestInvalid, NameInvalid, RegistryError
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.reference import Repository, Tag, parse_reference


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "0",
        "library/alpine",
        "a/b/c/d/e",
        "a-b.c_d__e/f--g",
        "a--b",
        "a---b",
        "a__b",
        "a.b-c_d",
        "1/2",
        "blobs",
    ],
)
def test_repository_in_the_words_of_the_spec_is_taken(text: str) -> None:
    """distribution-spec: components of letters and digits, joined by the separators it lists."""
    assert Repository.parse(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "a/", "/a", "a//b", "A", "_a", "a_", "ä"),
        *("a..b", "./a", "a/.", "a/..", ".a", "a.", "-a", "a-", "a/_b", "_manifests", "a/_tags/x"),
        *("Ab", "a b", "a\n", "a\0", "a%2fb", "a\\b", "a:b", "a._b", "a___b", "\u0430"),
    ],
)
def test_repository_that_could_be_something_else_is_refused(text: str) -> None:
    """Dots alone, a leading underscore, upper case and characters that look like others."""
    with pytest.raises(NameInvalid):
        Repository.parse(text)


def test_repository_of_255_characters_is_the_longest() -> None:
    """The limit counts the whole name, slashes too."""
    longest = "/".join(["a"] * 128)

    assert len(Repository.parse(longest)) == 255
    with pytest.raises(NameInvalid, match="at most 255"):
        Repository.parse(longest + "a")


@given(st.text(alphabet="ab0._-/A", max_size=20))
def test_repository_of_any_text_is_a_safe_path_or_refused(text: str) -> None:
    """No component is empty, or begins with a dot or an underscore, as our own keys do."""
    try:
        found = Repository.parse(text)
    except NameInvalid:
        return

    assert all(component[:1].isalnum() for component in found.split("/"))


@pytest.mark.parametrize("text", ["latest", "_x", "V1.2-rc_3", "0", "a" * 128, "a..b"])
def test_tag_in_the_words_of_the_spec_is_taken(text: str) -> None:
    """Upper case and a leading underscore are for tags what they are not for repositories."""
    assert parse_reference(text) == Tag(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", ".a", "-a", "a/b", "a" * 129, "a b", "a\n", "\xe4"]
)
def test_tag_that_is_none_is_refused(text: str) -> None:
    """A leading dot, a slash and the 129th character make it no tag."""
    with pytest.raises(ManifestInvalid):
        parse_reference(text)


def test_reference_with_a_colon_is_a_digest() -> None:
    """No tag can hold a colon, so it decides."""
    text = "sha256:" + "a" * 64

    assert isinstance(parse_reference(text), Digest)
    with pytest.raises(DigestInvalid):
        parse_reference("latest:")


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
