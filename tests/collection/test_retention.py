"""What policies keep: pure decisions about tags."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.collection.retention import SECOND, Policies, Policy, TagState, expired
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.reference import Pattern, Repository, Tag
from cacheproxy.registry.sources import Source
from cacheproxy.registry.tags import TagRecord

_APP = Repository("ci/app")
_DIGEST = digest_of(b"manifest")
_NOW = 1000


def _image(name: str, pushed: int, used: int = 0) -> TagState:
    """An image, with the seconds when it was pushed and pulled."""
    record = TagRecord(_DIGEST, pushed_at=pushed * SECOND, used_at=used * SECOND)
    return TagState(_APP, Tag(name), record)


def _cache(name: str, pushed: int, used: int) -> TagState:
    source = Source(_DIGEST, 0, pushed * SECOND, used * SECOND)
    return TagState(_APP, Tag(name), TagRecord(_DIGEST, sources=(source,)))


def _gone(policy: Policy, *tags: TagState) -> set[str]:
    return {each.tag for each in expired(tags, policy, _NOW * SECOND)}


def test_without_limits_all_stays() -> None:
    assert _gone(Policy(), _image("a", 0), _cache("b", 0, 0)) == set()


def test_as_many_images_stay_as_are_to_those_pushed_last() -> None:
    """Whatever was pulled; caches do not count."""
    tags = [_image("a", 1, used=999), _image("b", 2), _image("c", 3), _cache("d", 9, 9)]
    assert _gone(Policy(image_tags=2), *tags) == {"a"}


def test_images_go_by_their_age_and_by_their_last_pull() -> None:
    """Whichever limit is reached first; a push counts as a pull."""
    old, idle, new = _image("old", 0, used=999), _image("idle", 500), _image("new", 950)
    assert _gone(Policy(image_age=900.0), old, idle, new) == {"old"}
    assert _gone(Policy(image_unpulled=400.0), old, idle, new) == {"idle"}
    assert _gone(Policy(image_age=900.0, image_unpulled=400.0), old, idle, new) == {"old", "idle"}


def test_caches_go_by_their_last_use() -> None:
    """An export is one, too; limits of images are not theirs."""
    tags = [_cache("pushed", 900, 0), _cache("pulled", 0, 900), _cache("idle", 100, 100)]
    assert _gone(Policy(cache_unused=500.0), *tags) == {"idle"}
    assert _gone(Policy(image_tags=1, image_age=1.0, image_unpulled=1.0), *tags) == set()


def test_a_limit_is_not_over_before_it_is() -> None:
    assert _gone(Policy(image_age=100.0), _image("a", _NOW - 100)) == set()
    assert _gone(Policy(image_age=100.0), _image("a", _NOW - 101)) == {"a"}


def test_the_first_pattern_counts() -> None:
    few, many = Policy(image_tags=1), Policy(image_tags=9)
    policies = Policies(Policy(), [(Pattern("pr/*"), few), (Pattern("pr/main"), many)])

    assert policies.of(Repository("pr/main")) == few
    assert policies.of(Repository("other")) == Policy()


_seconds = st.integers(0, _NOW)
_limit = st.none() | st.floats(0, _NOW)
_policies = st.builds(
    Policy,
    cache_unused=_limit,
    image_tags=st.none() | st.integers(1, 4),
    image_age=_limit,
    image_unpulled=_limit,
)
_tags = st.lists(
    st.builds(_image, st.sampled_from("abcdef"), _seconds, _seconds)
    | st.builds(_cache, st.sampled_from("uvwxyz"), _seconds, _seconds),
    unique_by=lambda state: state.tag,
)


@given(_tags, _policies, _seconds)
def test_what_goes_now_goes_later_too(tags: list[TagState], policy: Policy, later: int) -> None:
    """And nothing is named twice where one limit is exceeded."""
    now = expired(tags, policy, _NOW * SECOND)
    then = expired(tags, policy, (_NOW + later) * SECOND)
    assert {each.tag for each in now} <= {each.tag for each in then}
    assert len({each.tag for each in now}) == len(now)


@given(_tags, _policies)
def test_without_a_limit_no_more_goes_than_with_it(tags: list[TagState], policy: Policy) -> None:
    gone = {each.tag for each in expired(tags, policy, _NOW * SECOND)}
    for fewer in (
        replace(policy, cache_unused=None),
        replace(policy, image_tags=None),
        replace(policy, image_age=None),
        replace(policy, image_unpulled=None),
    ):
        assert {each.tag for each in expired(tags, fewer, _NOW * SECOND)} <= gone


@given(_tags, st.integers(1, 4))
def test_the_order_of_tags_decides_nothing(tags: list[TagState], count: int) -> None:
    policy = Policy(image_tags=count)
    gone = {each.tag for each in expired(tags, policy, _NOW * SECOND)}
    assert gone == {each.tag for each in expired(tags[::-1], policy, _NOW * SECOND)}
