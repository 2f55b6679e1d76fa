"""`cacheproxy cache`: cache tags, looked at and mended."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from cacheproxy.cli import text
from cacheproxy.cli.options import as_json, loaded, on_bucket, parse_ref, with_settings
from cacheproxy.cli.text import counted, short, size, table, when
from cacheproxy.cli.visiting import contents_of, visit
from cacheproxy.storage.bucket import Bucket

if TYPE_CHECKING:
    from cacheproxy.collection.inspection import Amount, SourceReport, TagReport, UnionReport


@click.group()
def cache() -> None:
    """Look at cache tags, and mend them. REF is `repository:tag`."""


@cache.command()
@click.argument("ref")
@as_json
@with_settings("auth", "storage", "s3", "cache")
def inspect(ref: str, as_json: bool, file: str | None, **flags: Any) -> None:
    """Show what a cache tag is made of: its sources, their union, and what is not in that.

    Layers of sources are counted if they exist. Nothing is changed.
    """
    from cacheproxy.collection.inspection import NoCache, inspect, unions_to_look_at
    from cacheproxy.registry.tags import Tags
    from cacheproxy.rules import cache_rules, namespaces
    from cacheproxy.security import pushers

    config = loaded(file, flags)
    rules, (repository, tag) = cache_rules(config.cache), parse_ref(ref)
    may_push = pushers(config.auth)
    namespace = namespaces(config.storage).of(repository)

    async def work(bucket: Bucket) -> "TagReport":
        async with contents_of(bucket) as contents:
            unions = await unions_to_look_at(bucket, namespace, contents, rules.limits)
            window, tags = rules.windows.of(repository), Tags(bucket, namespace)
            return await inspect(tags, unions, window, repository, tag, may_push)

    try:
        report = visit(config, work)
    except NoCache as error:
        raise click.ClickException(str(error)) from None
    click.echo(text.as_json(report) if as_json else "\n".join(_lines(report)))


@cache.command()
@click.argument("ref")
@click.argument("digest")
@on_bucket
def drop_source(ref: str, digest: str, file: str | None, **flags: Any) -> None:
    """Remove a source from a cache tag, and the tag if it has no other.

    DIGEST may be cut short, as `inspect` shows it. Whoever reads the tag next, on any server, gets
    a cache without it. Its manifest stays, and a builder may push it again.
    """
    from cacheproxy.collection.dropping import NoSource, drop_source
    from cacheproxy.collection.inspection import NoCache
    from cacheproxy.registry.tags import Tags
    from cacheproxy.rules import namespaces

    config = loaded(file, flags)
    repository, tag = parse_ref(ref)
    namespace = namespaces(config.storage).of(repository)

    async def work(bucket: Bucket) -> tuple[str, int]:
        return await drop_source(Tags(bucket, namespace), repository, tag, digest)

    try:
        dropped, left = visit(config, work, writing=True)
    except (NoCache, NoSource) as error:
        raise click.ClickException(str(error)) from None
    what = f"{counted(left, 'source')} left" if left else "no source left: the tag is gone"
    click.echo(f"{ref} is without {dropped}, {what}")


def _lines(report: "TagReport") -> Iterator[str]:
    yield f"{report.repository}:{report.tag}"
    yield from _union(report.union)
    yield ""
    heads = ("SOURCE", "FIRST RECEIVED", "LAST PUSHED", "LAST USED", *_HEADS, "IN UNION")
    yield from table(heads, [_row(source) for source in report.sources])
    for title, lines in _missing(report):
        if lines:
            yield from ("", title, *[f"  {line}" for line in lines])


_HEADS = (">STEPS", ">RESULTS", ">LAYERS", ">SIZE")


def _union(union: "UnionReport | None") -> Iterator[str]:
    if union is None:
        yield "  nothing is left of it: it is answered 404"
        return
    yield f"  serves   {union.digest}{'' if union.recorded else ', once it is read'}"
    if union.has is None:
        yield "  as it was pushed, for it is not understood"
        return
    yield f"  holds    {_told(union.has)}, {size(union.has.bytes)}"
    config = "" if union.config_bytes is None else f", config {size(union.config_bytes)}"
    yield f"  form     {union.form}, manifest {size(union.manifest_bytes)}{config}"


def _told(amount: "Amount") -> str:
    counts = ((amount.records, "step"), (amount.results, "result"), (amount.layers, "layer"))
    return ", ".join(counted(count, noun) for count, noun in counts)


def _row(source: "SourceReport") -> tuple[str, ...]:
    times = (source.first_received, source.last_pushed, source.last_used)
    cells = ("-",) * len(_HEADS)
    if has := source.has:
        cells = (f"{has.records:,}", f"{has.results:,}", f"{has.layers:,}", size(has.bytes))
    if source.left_out:
        united = "left out"
    elif source.united is None:
        united = "as it was pushed"
    elif source.united == source.has:
        united = "all"
    else:
        united = f"{_told(source.united)}, {size(source.united.bytes)}"
    return (short(source.digest), *map(when, times), *cells, united)


def _missing(report: "TagReport") -> Iterator[tuple[str, list[str]]]:
    yield (
        "left out",
        [f"{short(each.digest)}  {each.left_out}" for each in report.sources if each.left_out],
    )
    yield (
        "layers that are gone",
        [
            f"{short(each.digest)}  {layer}"
            for each in report.sources
            for layer in each.missing_layers
        ],
    )
    if report.union is not None:
        yield "layers whose contents sources dispute", list(report.union.disputed_layers)
        if (left := report.union.did_not_fit) is not None:
            told = [counted(left.records, "step"), counted(left.results, "result")]
            told.append(counted(left.layers, "layer"))
            yield "left out to fit what BuildKit imports", [", ".join(told)]
