"""What is kept for how long: pure decisions about tags, and about the sources of caches."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cacheproxy.oci.reference import Pattern, Repository, Tag
from cacheproxy.registry.tags import TagRecord

SECOND = 10**9


@dataclass(frozen=True, slots=True)
class Policy:
    """None: without limit. All are seconds, but `cache_bytes` and the number `image_tags`."""

    cache_unused: float | None = None
    cache_bytes: int | None = None
    image_tags: int | None = None
    image_age: float | None = None
    image_unpulled: float | None = None
    untagged: float = 86400.0


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies of repositories: that of the first pattern that matches, else `default`."""

    default: Policy = Policy()
    rules: Sequence[tuple[Pattern, Policy]] = ()

    def of(self, repository: Repository) -> Policy:
        for pattern, policy in self.rules:
            if pattern.matches(repository):
                return policy
        return self.default


@dataclass(frozen=True, slots=True)
class TagState:
    repository: Repository
    tag: Tag
    record: TagRecord

    @property
    def is_cache(self) -> bool:
        return bool(self.record.sources)

    @property
    def last_used(self) -> int:
        """When it was last pushed or resolved, in nanoseconds since 1970."""
        sources = self.record.sources
        return max(
            [
                self.record.pushed_at,
                self.record.used_at,
                *[each.last_used for each in sources],
            ]
        )


def expired(tags: Iterable[TagState], policy: Policy, now: int) -> list[TagState]:
    """Those tags of one repository that the policy does not keep, at `now` in nanoseconds."""
    images = sorted(
        [state for state in tags if not state.is_cache],
        key=lambda state: (-state.record.pushed_at, state.tag),
    )
    gone = [
        state
        for state in tags
        if state.is_cache and _over(now - state.last_used, policy.cache_unused)
    ]
    for place, state in enumerate(images):
        if (
            (policy.image_tags is not None and place >= policy.image_tags)
            or _over(now - state.record.pushed_at, policy.image_age)
            or _over(now - state.last_used, policy.image_unpulled)
        ):
            gone.append(state)
    return gone


def _over(nanoseconds: int, limit: float | None) -> bool:
    return limit is not None and nanoseconds > limit * SECOND
