"""The sources of a cache tag: the exports that its cache is the union of."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from cacheproxy.oci.reference import Pattern, Repository


class Source(msgspec.Struct, frozen=True):
    """The manifest of an export, by its digest. All times are nanoseconds since 1970."""

    digest: str
    received_at: int
    """When it first came."""
    pushed_at: int
    """When it last came: exports that change nothing are pushed again. Later than those of all
    sources that came before, also where the clocks of servers differ."""
    used_at: int
    """When the tag last was resolved while this was one of its sources, within an hour or so."""

    pusher: str = ""
    """The client that pushed it first, where that is known."""
    users: tuple[str | None, ...] = (None,)
    """Who has pushed it, the latest last; None is somebody unknown."""

    config: str = ""
    """The digest of its config, which tells all that it has; what else is in its manifest depends
    on where the builder had that from. Nothing where it is not understood."""

    @property
    def last_used(self) -> int:
        """When it was last of use to anybody, by being pushed or by being resolved."""
        return max(self.used_at, self.pushed_at)


@dataclass(frozen=True, slots=True)
class Pusher:
    """Who pushes: the name of a client, where it has one, and the user that it is, if any."""

    client: str = ""
    user: str | None = None


NO_PUSHER: Final = Pusher()

_USERS: Final = 8
"""How many of those who push the same are remembered."""

MayPush = Callable[[str | None, Repository], bool]
"""Whether a user, or with None anybody, may push to a repository now."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which sources a tag has: so many, none of which was last used or pushed longer ago."""

    sources: int
    nanoseconds: int

    def of(self, sources: Iterable[Source], now: int) -> tuple[Source, ...]:
        """The sources in the window, that pushed last first. The latest of all is always in it:
        when a tag dies is not for the window to say."""
        latest = sorted(sources, key=lambda source: (-source.pushed_at, source.digest))
        oldest = now - self.nanoseconds
        young = [each for each in latest[1:] if each.last_used >= oldest]
        return tuple([*latest[:1], *young][: self.sources])


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of repositories: that of the first pattern that matches, else `default`."""

    default: Window
    rules: Sequence[tuple[Pattern, Window]] = ()

    def of(self, repository: Repository) -> Window:
        for pattern, window in self.rules:
            if pattern.matches(repository):
                return window
        return self.default


def pushed(
    sources: Iterable[Source],
    digest: str,
    now: int,
    pusher: Pusher = NO_PUSHER,
    config: str = "",
) -> tuple[Source, ...]:
    """The sources when `digest`, with this config, is pushed, perhaps again."""
    known = {source.digest: source for source in sources}
    first = known.get(digest, Source(digest, now, now, now, pusher.client, (), config))
    pushed_at = max([now, *[source.pushed_at + 1 for source in known.values()]])
    users = [*[user for user in first.users if user != pusher.user], pusher.user]
    known[digest] = msgspec.structs.replace(
        first, pushed_at=pushed_at, used_at=now, users=tuple(users[-_USERS:])
    )
    return tuple(known.values())


def trusted_of(
    sources: Iterable[Source], repository: Repository, may_push: MayPush
) -> list[Source]:
    """The sources that somebody has pushed who may still push."""
    return [
        source for source in sources if any(may_push(user, repository) for user in source.users)
    ]


def anybody_may_push(user: str | None, repository: Repository) -> bool:
    return True


def used(sources: Iterable[Source], digests: frozenset[str], now: int) -> tuple[Source, ...]:
    """The sources after those with `digests` were used."""
    return tuple(
        [
            msgspec.structs.replace(each, used_at=max(now, each.used_at))
            if each.digest in digests
            else each
            for each in sources
        ]
    )
