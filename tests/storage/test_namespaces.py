"""Which namespace a repository is in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import NameInvalid
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.reference import Pattern, Repository
from cacheproxy.storage.layout import FORMAT_KEY, SECRET_KEY, Namespace
from cacheproxy.storage.namespaces import Namespaces

_BLUE, _RED = Namespace("blue"), Namespace("red")
_NAMESPACES = Namespaces(
    [
        (_BLUE, [Pattern("blue/*"), Pattern("both/blue")]),
        (_RED, [Pattern("red/*"), Pattern("both/*")]),
    ]
)
_REPOSITORIES = [
    Repository(name)
    for name in ("blue/app", "both/blue", "both/red", "red/app", "blue", "ci/app", "a/blue/b")
]


def test_the_first_pattern_that_matches_counts() -> None:
    """The rest is in the default namespace, and with no rules everything is."""
    found = [_NAMESPACES.of(repository) for repository in _REPOSITORIES]

    assert found == [_BLUE, _BLUE, _RED, _RED, *[Namespace()] * 3]
    assert list(_NAMESPACES) == [_BLUE, _RED, Namespace()]
    assert {Namespaces().of(repository) for repository in _REPOSITORIES} == {Namespace()}


@given(st.sampled_from(_REPOSITORIES))
def test_the_names_of_a_namespace_are_those_of_its_repositories(repository: Repository) -> None:
    """Each name is in one of them."""
    exactly = [Pattern(repository)]
    found = [each for each, names in _NAMESPACES.names() if names.example(exactly) == repository]

    assert found == [_NAMESPACES.of(repository)]


def test_the_default_namespace_is_where_everything_was() -> None:
    """What was stored when there was no other is found."""
    digest = digest_of(b"")
    assert Namespace().blob(digest).startswith(f"default/blobs/sha256/{digest.hex[:2]}/")


@pytest.mark.parametrize(
    "text",
    [
        *("default", FORMAT_KEY, SECRET_KEY, "blobs", "repositories", "gc", "uploads", "deleted"),
        *("quarantine", "", ".", "..", "a/b", "a--b", "-a", "a-", "a_b", "_a", "A", "a.b", "a b"),
        *(".spool", ".locks", "é", "a" * 64),
    ],
)
def test_what_is_no_name_of_a_namespace_is_refused(text: str) -> None:
    """Its keys could be something else's, or the names of its files none."""
    with pytest.raises(NameInvalid):
        Namespace.parse(text)


@pytest.mark.parametrize("text", ["a", "team-blue", "0", "a" * 63])
def test_a_name_of_a_namespace_is_a_word_or_more(text: str) -> None:
    """Of letters and digits, with hyphens between them."""
    assert Namespace.parse(text) == Namespace(text)
