"""`cacheproxy stats`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from cacheproxy.cli import text
from cacheproxy.cli.options import as_json, loaded, on_bucket
from cacheproxy.cli.text import size, table
from cacheproxy.cli.visiting import visit_each

if TYPE_CHECKING:
    from cacheproxy.collection.stats import Numbers, Stats


@click.command()
@as_json
@on_bucket
def stats(as_json: bool, file: str | None, **flags: Any) -> None:
    """Count what is stored, by repository and in all.

    Blobs to which no tag leads are counted about: what is just being pushed is among them, and what
    only manifests without tags need, such as signatures.
    """
    from cacheproxy.collection.stats import gather_stats

    found = visit_each(loaded(file, flags), gather_stats)
    click.echo(text.in_all(found, _lines, json=as_json))


def _lines(stats: "Stats") -> Iterator[str]:
    rows = [
        ("blobs stored", f"{stats.blobs.count:,}", size(stats.blobs.bytes)),
        ("  no tag leads to", f"{stats.untagged.count:,}", size(stats.untagged.bytes)),
        ("needed, by repository", f"{stats.all.needed.count:,}", size(stats.all.needed.bytes)),
    ]
    if stats.quarantined.count:
        rows.append(("quarantined", f"{stats.quarantined.count:,}", size(stats.quarantined.bytes)))
    yield from table(("", ">COUNT", ">SIZE"), rows)
    if stats.deduplication is not None:
        yield f"each byte that is stored serves {stats.deduplication:.2f} bytes that are needed"
    if stats.all.unreadable:
        yield f"{stats.all.unreadable:,} tags or manifests cannot be read: see `cacheproxy fsck`"
    yield ""
    heads = (">TAGS", ">CACHES", ">SOURCES", ">UNIONS", ">MANIFESTS", ">BLOBS", ">SIZE")
    repositories = sorted(stats.repositories.items(), key=lambda item: -item[1].needed.bytes)
    rows_of = [(name, *_cells(numbers)) for name, numbers in repositories]
    yield from table(("REPOSITORY", *heads), [*rows_of, ("in all", *_cells(stats.all))])


def _cells(numbers: "Numbers") -> tuple[str, ...]:
    counts = (
        *(numbers.tags, numbers.cache_tags, numbers.sources, numbers.unions),
        *(numbers.manifests.count, numbers.needed.count),
    )
    return (*[f"{count:,}" for count in counts], size(numbers.needed.bytes))
