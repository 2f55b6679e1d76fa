"""Taking one source out of a cache tag."""

from collections.abc import Sequence

from cacheproxy.collection.inspection import cache_record
from cacheproxy.oci.digest import CANONICAL
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.sources import Source
from cacheproxy.registry.tags import TagRecord, Tags


class NoSource(Exception):
    """Which source is meant is not clear, in one sentence."""


async def drop_source(tags: Tags, repository: Repository, tag: Tag, prefix: str) -> tuple[str, int]:
    """Remove the source whose digest begins so, and the tag if it has no other.

    Returns the digest, and how many sources are left. Who reads the tag next makes another union.

    Raises:
        NoCache: see `cache_record`.
        NoSource: none is meant, or more than one may be.
    """
    digest = _meant((await cache_record(tags, repository, tag)).sources, prefix)

    def without(old: TagRecord | None) -> TagRecord | None:
        if old is None or not old.sources:
            return old  # somebody else has removed or moved the tag
        return old.without(lambda source: source.digest == digest)

    record = await tags.change(repository, tag, without)
    return digest, 0 if record is None else len(record.sources)


def _meant(sources: Sequence[Source], prefix: str) -> str:
    whole = prefix if ":" in prefix else f"{CANONICAL}:{prefix}"
    found = [source.digest for source in sources if source.digest.startswith(whole)]
    if len(found) == 1:
        return found[0]
    if found:
        raise NoSource(f"{prefix} may be {' or '.join(found)}")
    raise NoSource(f"none of the {len(sources)} sources begins with {prefix}")
