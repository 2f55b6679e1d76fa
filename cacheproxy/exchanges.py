"""Which requests are imports and exports of caches, as BuildKit makes them.

An import asks for the tag, then fetches the manifest. An export asks for the tag too, tells by
Accept that it has a manifest for it, and pushes that unless the tag leads there already: then what
is unchanged is seen by nothing more coming.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cacheproxy.api.call import Call, Kind
from cacheproxy.buildkit.accept import is_of_pusher
from cacheproxy.oci.reference import Repository, Tag

_PUSH_NANOSECONDS: Final = 30 * 10**9
"""What has not been pushed so long after the look at its tag is not going to be."""

_LOOKS: Final = 10_000


class Exchange(StrEnum):
    """A cache that changed hands, or did not."""

    FOUND = "found"
    NOT_FOUND = "not_found"
    STORED = "stored"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a tag by who has an export for it; `at` is nanoseconds since 1970."""

    client: str
    repository: Repository
    tag: Tag
    at: int


class Exchanges:
    """Told from requests in the order in which they end. Times are nanoseconds since 1970."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque()
        """Those that no push has followed here; oldest first."""

    def ended(self, call: Call, status: int, at: int) -> Exchange | None:
        """What a request was that ended then with this status."""
        if call.endpoint == "end-7" and call.known_export is not None:
            self._pushed(call)
            return Exchange.UNCHANGED if call.known_export else Exchange.STORED
        if call.endpoint != "end-3":
            return None
        is_cache = call.found is not None and call.found.kind is Kind.CACHE_MANIFEST
        if call.request.method == "GET" and is_cache:  # by tag or by digest
            return Exchange.FOUND if status < 400 else None
        if ":" in call.target or not (is_cache or status == 404):
            return None  # most requests, so that they cost next to nothing
        if not is_of_pusher(call.request.headers.get("Accept", "")):
            return Exchange.NOT_FOUND if status == 404 else None
        if is_cache:
            look = Look(call.client, call.repository, Tag(call.target), at)
            self._looks.append(look)
        return None

    def settled(self, now: int) -> list[Look]:
        """Looks whose exports have changed nothing, if they were not pushed to another process."""
        settled: list[Look] = []
        oldest = now - _PUSH_NANOSECONDS
        while self._looks and (self._looks[0].at <= oldest or len(self._looks) > _LOOKS):
            settled.append(self._looks.popleft())
        return settled

    def _pushed(self, call: Call) -> None:
        """This push follows one of the looks."""
        of = (call.client, call.repository, call.target)
        for look in reversed(self._looks):
            if (look.client, look.repository, look.tag) == of:
                self._looks.remove(look)
                return
