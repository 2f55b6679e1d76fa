"""From settings to the values that rooms take."""

from typing import TypeVar

import msgspec

from cacheproxy.collection.retention import Policies, Policy
from cacheproxy.config import Cache, CacheRule, Retention, RetentionRule
from cacheproxy.oci.reference import Pattern
from cacheproxy.registry.registry import CacheRules
from cacheproxy.registry.sources import Window, Windows
from cacheproxy.registry.union import Limits

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
