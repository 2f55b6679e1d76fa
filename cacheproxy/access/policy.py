"""Rules, and what they decide: whatever no rule allows is denied."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

from cacheproxy.oci.reference import Pattern, Repository

EVERY_USER: Final = "*"


class Action(Enum):
    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows `actions` on repositories that a pattern matches, to any of those that are named.

    `anonymous` is everybody, with credentials or without; the user `*` is everybody with some.
    """

    actions: frozenset[Action]
    repositories: tuple[Pattern, ...] = ()
    users: frozenset[str] = frozenset()
    groups: tuple[str, ...] = ()
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether something is allowed, and why, in words."""

    allowed: bool
    why: tuple[str, ...]


class Policy:
    """Rules and the members of groups. Its answers are remembered: a new policy is a new object."""

    def __init__(
        self, rules: Sequence[Rule] = (), groups: Mapping[str, Collection[str]] | None = None
    ) -> None:
        self.rules = tuple(rules)
        self.groups = {name: frozenset(members) for name, members in (groups or {}).items()}
        self.allows = lru_cache(10_000)(self._allows)

    def _allows(self, user: str | None, action: Action, repository: Repository | None) -> bool:
        """Whether `user`, or with None anybody, may do this; metrics have no repository."""
        return any(
            action in rule.actions and self._who(rule, user) and _where(rule, action, repository)
            for rule in self.rules
        )

    def explain(self, user: str | None, action: Action, repository: Repository | None) -> Decision:
        """The same decision with its reason: the first rule that allows it, or what is missing."""
        missed: list[str] = []
        for number, rule in enumerate(self.rules, 1):
            who, where = self._who(rule, user), _where(rule, action, repository)
            if who and where and action in rule.actions:
                return Decision(True, (f"rule {number} allows it: {', '.join((who, where))}",))
            if lacks := list(_lacks(who, where, action, rule)):
                missed.append(f"rule {number} does not: {' and '.join(lacks)}")
        return Decision(False, ("no rule allows it", *missed))

    def _who(self, rule: Rule, user: str | None) -> str:
        """Why the rule is about this user, or nothing."""
        if rule.anonymous:
            return "it is for everybody"
        if user is None:
            return ""
        if user in rule.users:
            return f"it names user {user}"
        for group in rule.groups:
            if user in self.groups.get(group, ()):
                return f"user {user} is in group {group}"
        return "it is for every user" if EVERY_USER in rule.users else ""


def _where(rule: Rule, action: Action, repository: Repository | None) -> str:
    """Why the rule is about this repository, or nothing."""
    if action is Action.METRICS:
        return "metrics are of no repository"
    if repository is not None:
        for pattern in rule.repositories:
            if pattern.matches(repository):
                return f"{pattern!r} matches"
    return ""


def _lacks(who: str, where: str, action: Action, rule: Rule) -> Iterator[str]:
    """What keeps a rule from allowing something."""
    if not who:
        yield "it is for others"
    if action not in rule.actions:
        told = ", ".join(each.value for each in Action if each in rule.actions)
        yield f"it is about {told}"
    if not where:
        yield "it is about other repositories"
