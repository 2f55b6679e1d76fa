"""`cacheproxy gc`."""

from typing import TYPE_CHECKING, Any

import click

from cacheproxy.cli import text
from cacheproxy.cli.options import as_json, loaded, with_settings
from cacheproxy.cli.text import counted, size
from cacheproxy.cli.visiting import visit
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace

if TYPE_CHECKING:
    from cacheproxy.collection.collector import Report


@click.command()
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@as_json
@with_settings("storage", "s3", "retention", "collection")
def gc(dry_run: bool, as_json: bool, file: str | None, **flags: Any) -> int:
    """Collect what nobody needs, beside running servers, which do the same from time to time.

    What no policy keeps goes. What nothing leads to is condemned, and deleted by a later run, when
    nobody can rely on it any more. The exit status is 2 if another collector is at work.
    """
    from cacheproxy.collection.collector import Collector
    from cacheproxy.registry.tags import Tags
    from cacheproxy.rules import policies

    config = loaded(file, flags)

    async def work(bucket: Bucket) -> "Report | None":
        namespace = Namespace()
        collector = Collector(
            bucket,
            namespace,
            Tags(bucket, namespace),
            policies(config.retention),
            config.collection.lease_seconds,
        )
        return await collector.collect(dry=dry_run)

    report = visit(config, work, writing=not dry_run)
    if report is None:
        click.echo("another collector is at work")
        return 2
    click.echo(text.as_json(report) if as_json else "\n".join(_lines(report)))
    return 0


def _lines(report: "Report") -> list[str]:
    return [
        f"evicted    {counted(report.tags_evicted, 'tag')},"
        f" {counted(report.sources_evicted, 'source')} of caches",
        f"reachable  {counted(report.manifests_reachable, 'manifest')}",
        f"condemned  {counted(report.condemned, 'object')}, {size(report.condemned_bytes)}",
        f"waiting    {counted(report.waiting, 'object')}",
        f"deleted    {counted(report.deleted, 'object')}",
    ]
