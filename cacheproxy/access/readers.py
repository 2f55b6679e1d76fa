"""Whether all repositories of a namespace have the same readers.

They share their blobs: who may pull from one of them, and knows a digest, can read that blob. So
whoever may pull from one of them must be allowed to pull from all of them.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain

from cacheproxy.access.policy import EVERY_USER, Action, Policy, Rule
from cacheproxy.oci.names import Names
from cacheproxy.oci.reference import Repository


@dataclass(frozen=True, slots=True)
class Division:
    """Somebody may pull from `inside`, by the rule with that number, and not from `outside`.

    Others may, by the rule with the number `other`; None: nobody may.
    """

    who: str
    rule: int
    inside: Repository
    outside: Repository
    other: int | None


class Readers:
    """Everybody whom a policy lets pull, as far as they differ in the rules that let them."""

    def __init__(self, policy: Policy) -> None:
        self._pulls = {
            number: rule
            for number, rule in enumerate(policy.rules, 1)
            if Action.PULL in rule.actions
        }
        self._rules_of: dict[tuple[int, ...], str] = {}
        for who, users, groups in _everybody(policy):
            own = [number for number, rule in self._pulls.items() if _is_for(rule, users, groups)]
            self._rules_of.setdefault(tuple(own), who)

    def division(self, names: Names) -> Division | None:
        """How the repositories with these names are divided, if they are.

        For each reader an example is looked for of what they may pull from, and one of what they
        may not. Each look has a bound.

        Raises:
            Intricate: the bound was reached.
        """
        for own, who in self._rules_of.items():
            allowed = tuple(chain(*[self._pulls[number].repositories for number in own]))
            inside = names.example(allowed)
            outside = None if inside is None else names.example(without=allowed)
            if inside is None or outside is None:
                continue
            [rule, *_] = [number for number in own if _covers(self._pulls[number], inside)]
            for number, other in self._pulls.items():
                if example := names.example(other.repositories, allowed):
                    return Division(who, rule, inside, example, number)
            return Division(who, rule, inside, outside, None)
        return None


def _everybody(policy: Policy) -> Iterator[tuple[str, Collection[str], Collection[str]]]:
    """Who there is, with the names and the groups by which rules are about them."""
    yield "everybody", (), ()
    yield "every user", (EVERY_USER,), ()
    for group in policy.groups:
        yield f"group {group}", (EVERY_USER,), (group,)
    named = {user for rule in policy.rules for user in rule.users}
    for user in sorted(named.union(*policy.groups.values()) - {EVERY_USER}):
        groups = [group for group, members in policy.groups.items() if user in members]
        yield f"user {user}", (EVERY_USER, user), groups


def _is_for(rule: Rule, users: Collection[str], groups: Collection[str]) -> bool:
    named = not rule.users.isdisjoint(users) or any(group in rule.groups for group in groups)
    return rule.anonymous or named


def _covers(rule: Rule, repository: Repository) -> bool:
    return any(pattern.matches(repository) for pattern in rule.repositories)
