"""Which tags are in use: remembered, and written into their records from time to time.

Retention and the windows of caches go by it. What is not yet written is lost in a crash.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from cacheproxy.errors import Unavailable
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.sources import used
from cacheproxy.registry.tags import USE_NANOSECONDS, TagRecord, Tags

_Sources = frozenset[str]

_NONE: Final[_Sources] = frozenset()


class Uses:
    """`clock` gives nanoseconds since 1970."""

    def __init__(self, tags: Tags, clock: Callable[[], int]) -> None:
        self._tags = tags
        self._clock = clock
        self._noted: dict[tuple[Repository, Tag], tuple[_Sources, int]] = {}

    def note(
        self,
        repository: Repository,
        tag: Tag,
        sources: _Sources = _NONE,
        within: int = USE_NANOSECONDS,
    ) -> None:
        """The tag was resolved; it is a cache that was made of `sources`, if it has any.

        The use is written if the one in the record is older than `within` nanoseconds.
        """
        self._noted[repository, tag] = (sources, min(within, USE_NANOSECONDS))

    async def write(self) -> None:
        """Write down what was noted.

        Raises:
            Unavailable: all was tried; what failed is tried again the next time.
        """
        noted, self._noted = self._noted, {}
        failure: Unavailable | None = None
        for (repository, tag), note in noted.items():
            try:
                await self._tags.change(repository, tag, partial(_used, *note, self._clock()))
            except Unavailable as error:
                self._noted.setdefault((repository, tag), note)
                failure = error
        if failure is not None:
            raise failure


def _used(sources: _Sources, within: int, now: int, old: TagRecord | None) -> TagRecord | None:
    if old is None:
        return None
    known = [each.used_at for each in old.sources if each.digest in sources]
    if not old.sources:
        known = [old.used_at]
    if not known or now - min(known) < within:
        return old
    return msgspec.structs.replace(old, used_at=now, sources=used(old.sources, sources, now))
