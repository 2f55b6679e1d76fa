"""Which sources descend from each other: fairness is between lineages, not between pushes.

A branch that is built fifty times a day has fifty sources in the tag, all nearly the same; the
platform that is built once a day has one. They are two lineages.
"""

from collections.abc import Sequence

from cacheproxy.buildkit.cache import Cache
from cacheproxy.buildkit.merge import Merged, Source

Lineage = tuple[frozenset[int], ...]
"""The records of each source of one lineage, newest source first."""


def lineages(merged: Merged, sources: Sequence[Source]) -> tuple[Lineage, ...]:
    """The lineages of the sources of a union, that with the newest source first.

    A source is of the lineage whose newest source it shares most records with: more than half of
    those of the smaller of the two. Sources that have nothing in the union are of none.
    """
    found: list[list[frozenset[int]]] = []
    order = sorted(
        range(len(sources)),
        key=lambda at: (
            -sources[at].received_at,
            -newest(merged.cache, merged.members[at]),
            sources[at].digest,
        ),
    )
    for members in (merged.members[at] for at in order):
        if members:
            best = max(found, key=lambda lineage: _share(members, lineage[0]), default=None)
            if best is not None and _share(members, best[0]) > 0.5:
                best.append(members)
            else:
                found.append([members])
    return tuple([tuple(lineage) for lineage in found])


def newest(cache: Cache, members: frozenset[int]) -> int:
    """When the newest result of `members` was created, ns since 1970; 0 if there is none."""
    records = cache.config.records
    return max([result.created_at for at in members for result in records[at].results], default=0)


def _share(one: frozenset[int], other: frozenset[int]) -> float:
    return len(one & other) / min(len(one), len(other))
