"""From settings to the values that rooms take."""

from ipaddress import ip_network
from itertools import islice
from typing import TypeVar

import msgspec

from cacheproxy.access.clients import ClientNames, Clients
from cacheproxy.access.policy import Action, Rule
from cacheproxy.access.policy import Policy as AccessPolicy
from cacheproxy.access.readers import Division, Readers
from cacheproxy.collection.retention import Policies, Policy
from cacheproxy.errors import NameInvalid
from cacheproxy.oci.names import Intricate, Names
from cacheproxy.oci.reference import Pattern
from cacheproxy.registry.registry import CacheRules
from cacheproxy.registry.sources import Window, Windows
from cacheproxy.registry.union import Limits
from cacheproxy.settings import (
    AccessRule,
    Auth,
    Cache,
    CacheRule,
    ConfigError,
    Retention,
    RetentionRule,
    Storage,
)
from cacheproxy.settings import Clients as ClientSettings
from cacheproxy.storage.layout import Namespace
from cacheproxy.storage.namespaces import Namespaces

S = TypeVar("S", bound=msgspec.Struct)


def cache_rules(settings: Cache) -> CacheRules:
    """How cache tags are served."""
    windows = Windows(
        _window(settings),
        [
            (Pattern(rule.repositories), _window(_overridden(settings, rule)))
            for rule in settings.rules
        ],
    )
    limits = Limits(settings.config_bytes, settings.manifest_bytes)
    return CacheRules(windows, limits, settings.verify_seconds)


def policies(settings: Retention) -> Policies:
    """What is kept for how long."""
    return Policies(
        _policy(settings),
        [
            (Pattern(rule.repositories), _policy(_overridden(settings, rule)))
            for rule in settings.rules
        ],
    )


def access_policy(settings: Auth) -> AccessPolicy:
    """Who may do what. Raises ConfigError: a rule means nothing."""
    rules = [_rule(number, rule, settings) for number, rule in enumerate(settings.rules, 1)]
    return AccessPolicy(rules, settings.groups)


def clients(settings: ClientSettings, names: ClientNames) -> Clients:
    """How clients are called."""
    networks = {
        ip_network(network): name for name, of in settings.networks.items() for network in of
    }
    trusted = list(map(ip_network, settings.trusted_proxies))
    return Clients(names, settings.header, networks, trusted)


def namespaces(settings: Storage) -> Namespaces:
    """Which repositories share their blobs. Raises ConfigError: a namespace is none."""
    found: dict[Namespace, tuple[Pattern, ...]] = {}
    for number, rule in enumerate(settings.namespaces, 1):
        try:
            namespace = Namespace.parse(rule.name)
        except NameInvalid as error:
            raise ConfigError(f"storage.namespaces: namespace {number}: {error.detail}") from None
        if namespace in found:
            raise ConfigError(f"storage.namespaces: there are two with the name {rule.name}")
        if not rule.repositories:
            raise ConfigError(f"storage.namespaces: namespace {rule.name} has no repositories")
        found[namespace] = tuple(map(Pattern, rule.repositories))
    spaces = Namespaces(tuple(found.items()))
    for namespace, names in islice(spaces.names(), len(found)):  # what is left may be none
        _check_names(namespace, names)
    return spaces


def _check_names(namespace: Namespace, names: Names) -> None:
    """Raises ConfigError: the namespace can have no repository."""
    try:
        if names.example() is not None:
            return
        shadowed = Names(names.patterns).example() is not None
    except Intricate:
        return  # it may have some
    why = (
        "earlier ones have all that its patterns match"
        if shadowed
        else "its patterns match no name of one"
    )
    raise ConfigError(
        f"storage.namespaces: namespace {namespace.name} can have no repository: {why}"
    )


def check_readers(policy: AccessPolicy, namespaces: Namespaces) -> None:
    """Raises ConfigError: the repositories of a namespace have different readers."""
    readers = Readers(policy)
    for namespace, names in namespaces.names():
        try:
            division = readers.division(names)
        except Intricate:
            raise ConfigError(
                f"auth.rules: whether the repositories of namespace {namespace.name} have the same"
                " readers cannot be told: the patterns are too intricate, use fewer wildcards"
            ) from None
        if division is not None:
            raise ConfigError(_divided(namespace, division))


def _divided(namespace: Namespace, division: Division) -> str:
    inside, outside, other = division.inside, division.outside, division.other
    others = "no rule lets anybody" if other is None else f"rule {other} lets others"
    return (
        f"auth.rules: in namespace {namespace.name}, rule {division.rule} lets {division.who} pull"
        f" {inside} but not {outside}, which {others} pull; repositories that share their blobs"
        " need the same readers: see storage.namespaces"
    )


def _rule(number: int, rule: AccessRule, settings: Auth) -> Rule:
    def wrong(problem: str) -> ConfigError:
        return ConfigError(f"auth.rules: rule {number} {problem}")

    if not (rule.users or rule.groups or rule.anonymous):
        raise wrong("is for nobody: it has neither users nor groups nor `anonymous: true`")
    if unknown := [group for group in rule.groups if group not in settings.groups]:
        raise wrong(f"names the group {unknown[0]}, which is not in auth.groups")
    if not rule.actions:
        raise wrong("has no actions")
    if not rule.repositories and set(rule.actions) != {"metrics"}:
        raise wrong('has no repositories; all of them are `["*"]`')
    return Rule(
        frozenset(map(Action, rule.actions)),
        tuple(map(Pattern, rule.repositories)),
        frozenset(rule.users),
        rule.groups,
        rule.anonymous,
    )


def _overridden(settings: S, rule: CacheRule | RetentionRule) -> S:
    told = msgspec.structs.asdict(rule)
    del told["repositories"]
    return msgspec.structs.replace(
        settings, **{name: value for name, value in told.items() if value is not None}
    )


def _window(settings: Cache) -> Window:
    return Window(settings.sources, int(settings.window_seconds * 1e9))


def _policy(settings: Retention) -> Policy:
    """0 is without limit."""
    return Policy(
        cache_unused=settings.cache_unused_seconds or None,
        cache_bytes=settings.cache_bytes or None,
        image_tags=settings.image_tags or None,
        image_age=settings.image_seconds or None,
        image_unpulled=settings.image_unpulled_seconds or None,
        untagged=settings.untagged_seconds,
    )
