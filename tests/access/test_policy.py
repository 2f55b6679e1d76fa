"""Rules and what they decide."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.access.policy import EVERY_USER, Action, Policy, Rule
from cacheproxy.oci.reference import Pattern, Repository
from cacheproxy.rules import access_policy
from cacheproxy.settings import ConfigError
from tests.access.doors import auth_of, policy

_PULL, _PUSH, _DELETE, _METRICS = Action.PULL, Action.PUSH, Action.DELETE, Action.METRICS

_USERS = st.sampled_from(["ann", "bob", "eve"])
_NAMES = st.sampled_from(["a", "a/b", "ci/app", "ci/other"]).map(Repository)
_RULES = st.builds(
    Rule,
    actions=st.frozensets(st.sampled_from(Action)),
    repositories=st.lists(st.sampled_from(["*", "a", "ci/*", "x"]).map(Pattern)).map(tuple),
    users=st.frozensets(st.one_of(_USERS, st.just(EVERY_USER))),
    groups=st.lists(st.sampled_from(["g", "h"])).map(tuple),
    anonymous=st.booleans(),
)
_GROUPS = st.dictionaries(st.sampled_from(["g", "h"]), st.frozensets(_USERS))


@pytest.mark.parametrize(
    ("user", "action", "repository", "allowed"),
    [
        ("runner", _PULL, "ci/app", True),
        ("runner", _PUSH, "ci/app", True),
        ("runner", _DELETE, "ci/app", False),
        ("runner", _PULL, "other", False),
        ("runner", _PUSH, "base/busybox", False),
        ("runner", _PULL, "base/busybox", True),
        ("stranger", _PULL, "ci/app", False),
        (None, _PULL, "base/busybox", True),
        (None, _PULL, "ci/app", False),
        (None, _PUSH, "base/busybox", False),
        ("pusher", _PULL, "ci/app", False),
        ("cleaner", _DELETE, "ci/app", True),
        ("cleaner", _PUSH, "ci/app", False),
        ("scraper", _METRICS, None, True),
        ("runner", _METRICS, None, False),
        (None, _METRICS, None, False),
    ],
)
def test_what_no_rule_allows_is_denied(
    user: str | None, action: Action, repository: str | None, allowed: bool
) -> None:
    """Users, groups and everybody, each action by itself, where a pattern matches."""
    name = Repository(repository) if repository else None
    assert policy().allows(user, action, name) is allowed


@given(st.lists(_RULES), _GROUPS, st.one_of(st.none(), _USERS), st.sampled_from(Action), _NAMES)
def test_a_policy_is_the_sum_of_its_rules(
    rules: list[Rule],
    groups: dict[str, frozenset[str]],
    user: str | None,
    action: Action,
    repository: Repository,
) -> None:
    """Allowed is what one rule allows by itself, however they are ordered; and the explanation
    says the same as the decision."""

    def by_itself(rule: Rule) -> bool:
        known = user is not None and (
            user in rule.users
            or EVERY_USER in rule.users
            or any(user in groups.get(group, ()) for group in rule.groups)
        )
        where = action is _METRICS or any(fnmatchcase(repository, p) for p in rule.repositories)
        return (rule.anonymous or known) and action in rule.actions and where

    expected = any(map(by_itself, rules))
    for order in (rules, rules[::-1]):
        found = Policy(order, groups)
        assert found.allows(user, action, repository) is expected
        assert found.explain(user, action, repository).allowed is expected


@given(st.one_of(st.none(), _USERS), st.sampled_from(Action), _NAMES)
def test_without_rules_nothing_is_allowed(
    user: str | None, action: Action, repository: Repository
) -> None:
    """Default deny."""
    assert not Policy().allows(user, action, repository)


def test_a_decision_is_explained() -> None:
    """By the rule that allows it, or by what each rule lacks."""
    found = policy()
    allowed = found.explain("runner", _PUSH, Repository("ci/app"))
    denied = found.explain("runner", _DELETE, Repository("ci/app"))

    assert allowed.why == ("rule 2 allows it: user runner is in group ci, 'ci/*' matches",)
    assert denied.why[0] == "no rule allows it"
    assert "rule 2 does not: it is about pull, push" in denied.why
    assert "rule 5 does not: it is for others" in denied.why


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ('{actions: [pull], repositories: ["*"]}', "rule 1 is for nobody"),
        ('{groups: [none], actions: [pull], repositories: ["*"]}', "the group none"),
        ('{users: [x], actions: [], repositories: ["*"]}', "has no actions"),
        ("{users: [x], actions: [pull]}", "has no repositories"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(rule: str, says: str) -> None:
    """Whoever wrote it meant something else."""
    with pytest.raises(ConfigError, match=says):
        access_policy(auth_of(f"rules: [{rule}]"))


@pytest.mark.parametrize(
    "rule",
    [
        '{users: [x], actions: [puls], repositories: ["*"]}',
        '{user: [x], actions: [pull], repositories: ["*"]}',
        '{users: x, actions: [pull], repositories: ["*"]}',
    ],
)
def test_a_rule_with_a_slip_is_refused(rule: str) -> None:
    """Unknown actions and fields, and what is no list."""
    with pytest.raises(ConfigError, match=r"auth\.rules"):
        auth_of(f"rules: [{rule}]")
