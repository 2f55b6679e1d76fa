"""The tree of keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.oci.digest import Digest
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.storage.layout import FORMAT_KEY, SECRET_KEY, Namespace, last_component

_NS = Namespace()
_WORDS = ["a", "b", "blobs", "repositories", "uploads", "sha256", "default", "tags", "format"]
_REPOSITORIES = st.lists(st.sampled_from(_WORDS), min_size=1, max_size=3).map(
    lambda words: Repository.parse("/".join(words))
)
_TAGS = st.sampled_from([*_WORDS, "_manifests", "_deleted", "a" * 128, "x.json"]).map(Tag.parse)
_DIGESTS = st.sampled_from(["sha256:" + c * 64 for c in "ab"] + ["sha512:" + "a" * 128]).map(
    Digest.parse
)
_SESSIONS = st.sampled_from(["session", "other"])
_OFFSETS = st.integers(0, 1 << 40)
_KEYS = st.one_of(
    st.tuples(st.just("format")).map(lambda what: (what, FORMAT_KEY)),
    st.tuples(st.just("secret")).map(lambda what: (what, SECRET_KEY)),
    _DIGESTS.map(lambda digest: (("blob", digest), _NS.blob(digest))),
    st.tuples(_REPOSITORIES, _DIGESTS).map(lambda of: (("manifest", *of), _NS.manifest(*of))),
    st.tuples(_REPOSITORIES, _TAGS).map(lambda of: (("tag", *of), _NS.tag(*of))),
    st.tuples(_REPOSITORIES, _DIGESTS, _DIGESTS).map(
        lambda of: (("referrer", *of), _NS.referrer(*of))
    ),
    _REPOSITORIES.map(lambda name: (("deleted", name), _NS.deleted(name))),
    st.tuples(_SESSIONS, _OFFSETS).map(lambda of: (("chunk", *of), _NS.chunk(*of))),
    st.tuples(_SESSIONS, _DIGESTS).map(lambda of: (("last", *of), _NS.last(*of))),
    _SESSIONS.map(lambda session: (("closed", session), _NS.closed(session))),
)


@given(_KEYS, _KEYS)
def test_keys_of_two_things_are_two_and_neither_is_a_folder_of_the_other(
    one: tuple[object, str], other: tuple[object, str]
) -> None:
    """No names that clients choose make one thing overwrite another, or stand in its way."""
    assert (one[1] == other[1]) == (one[0] == other[0])
    assert not one[1].startswith(other[1] + "/")


@given(_KEYS)
def test_key_of_anything_has_no_component_of_the_folder_itself(key: tuple[object, str]) -> None:
    """A component that is empty or begins with a dot is no key's, so it is free for the bucket."""
    assert all(part and not part.startswith(".") for part in key[1].split("/"))


@given(_REPOSITORIES, _TAGS, _DIGESTS, _OFFSETS)
def test_keys_lie_under_the_prefix_that_lists_them(
    repository: Repository, tag: Tag, digest: Digest, offset: int
) -> None:
    """What a listing is asked for, it finds."""
    assert _NS.tag(repository, tag) == _NS.tags(repository) + tag
    assert _NS.manifest(repository, digest).startswith(_NS.manifests(repository))
    assert _NS.manifests(repository).startswith(_NS.repositories(repository))
    assert _NS.chunk("x", offset).startswith(_NS.upload("x"))
    assert _NS.last("x", digest).startswith(_NS.upload("x"))
    assert _NS.upload("x").startswith(_NS.uploads())


@given(_OFFSETS, _OFFSETS)
def test_chunks_are_listed_in_the_order_of_their_offsets(one: int, other: int) -> None:
    """The order of code points is that of the numbers, and `closed` comes last."""
    assert (_NS.chunk("x", one) < _NS.chunk("x", other)) == (one < other)
    assert _NS.chunk("x", one) < _NS.closed("x")
    assert int(last_component(_NS.chunk("x", one))) == one
