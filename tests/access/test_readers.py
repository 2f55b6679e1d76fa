"""Whether all repositories of a namespace have the same readers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheproxy.access.policy import EVERY_USER, Action, Policy, Rule
from cacheproxy.access.readers import Readers
from cacheproxy.oci.names import Names
from cacheproxy.oci.reference import Pattern, Repository
from tests.access.doors import policy

_PULL = Action.PULL
_MEMBER = "-"
"""Begins the names of those who are in one group only, and whom no rule names."""

_PATTERNS = st.lists(
    st.sampled_from(["*", "a", "a/*", "b/*", "a/b", "*b", "*/b", "[!a]*", "d"]).map(Pattern),
    max_size=3,
).map(tuple)
_USERS = st.sampled_from(["ann", "bob"])
_GROUPS = st.sampled_from(["g", "h"])
_RULES = st.builds(
    Rule,
    actions=st.frozensets(st.sampled_from(Action)),
    repositories=_PATTERNS,
    users=st.frozensets(st.one_of(_USERS, st.just(EVERY_USER))),
    groups=st.lists(_GROUPS).map(tuple),
    anonymous=st.booleans(),
)
# Those that make a difference to these patterns are no longer.
_NAMES = [
    Repository(text)
    for size in range(1, 5)
    for text in map("".join, product("abd/", repeat=size))
    if "" not in text.split("/")
]


def _is_in(names: Names, name: Repository) -> bool:
    return any(pattern.matches(name) for pattern in names.patterns) and not any(
        pattern.matches(name) for pattern in names.besides
    )


@given(
    st.lists(_RULES, max_size=5),
    st.dictionaries(_GROUPS, st.frozensets(_USERS)),
    st.builds(Names, _PATTERNS, _PATTERNS),
)
@settings(max_examples=300, deadline=None)
def test_a_division_is_found_exactly_where_there_is_one(
    rules: list[Rule], groups: Mapping[str, frozenset[str]], names: Names
) -> None:
    """By asking the policy for everybody there may be, and for all names that differ."""
    members = {name: {*users, f"{_MEMBER}{name}"} for name, users in groups.items()}
    asked = Policy(rules, members)
    everybody = (None, "somebody", "ann", "bob", *[f"{_MEMBER}{name}" for name in groups])
    inside = [name for name in _NAMES if _is_in(names, name)]
    divided = any(
        len({asked.allows(user, _PULL, name) for name in inside}) > 1 for user in everybody
    )

    found = Readers(Policy(rules, groups)).division(names)

    assert (found is not None) == divided
    if found is not None:
        _check(found.inside, found.rule, rules, names)
        if found.other is not None:
            _check(found.outside, found.other, rules, names)
        assert _is_in(names, found.outside)
        assert any(
            asked.allows(user, _PULL, found.inside) and not asked.allows(user, _PULL, found.outside)
            for user in everybody
        )


def _check(name: Repository, number: int, rules: list[Rule], names: Names) -> None:
    """The rule with this number is about pulling from that repository."""
    rule = rules[number - 1]
    assert _is_in(names, name)
    assert _PULL in rule.actions
    assert any(pattern.matches(name) for pattern in rule.repositories)


def _names(*patterns: str, besides: tuple[str, ...] = ()) -> Names:
    return Names(tuple(map(Pattern, patterns)), tuple(map(Pattern, besides)))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (_names("*"), ("everybody", 1, "base/a", "ci/a", 2)),
        (_names("*", besides=("base/*",)), ("group ci", 2, "ci/a", "a", 7)),
        (_names("*", besides=("base/*", "ci/*")), None),
        (_names("base/*"), None),
        (_names("ci/*"), None),
        (_names("ci/*", "base/*"), ("everybody", 1, "base/a", "ci/a", 2)),
        (_names("ci/*", "other"), ("group ci", 2, "ci/a", "other", 7)),
    ],
)
def test_two_repositories_and_two_rules_are_told(
    names: Names, found: tuple[str, int, str, str, int] | None
) -> None:
    """Of the policy of these tests; whoever may push or delete only is no reader."""
    division = Readers(policy()).division(names)

    if found is None:
        assert division is None
    else:
        assert division is not None
        told = (division.who, division.rule, division.inside, division.outside, division.other)
        assert told == found


def test_what_nobody_may_pull_from_is_told_without_a_rule() -> None:
    """It is as apart as what others may pull from."""
    division = Readers(policy("rules: [{users: [x], actions: [pull], repositories: ['ci/*']}]"))
    found = division.division(_names("*"))

    assert found is not None
    assert (found.who, found.inside, found.outside, found.other) == ("user x", "ci/a", "a", None)


def test_rules_add_up_to_the_whole() -> None:
    """Nobody is divided by two rules that have half of it each."""
    text = """
groups: {g: [ann]}
rules:
  - {users: [ann], actions: [pull], repositories: ["a/*"]}
  - {users: [ann], actions: [pull], repositories: ["[!a]*", "a", "a[!/]*"]}
  - {users: ["*"], actions: [pull], repositories: ["*"]}
"""
    assert Readers(policy(text)).division(_names("*")) is None
