"""`cacheproxy gc`."""

from typing import TYPE_CHECKING, Any

import click

from cacheproxy.cli import text
from cacheproxy.cli.options import as_json, loaded, with_settings
from cacheproxy.cli.text import counted, size
from cacheproxy.cli.visiting import visit_each
from cacheproxy.errors import RegistryError
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
    nobody can rely on it any more. The exit status is 2 if another collector is at work, in a
    namespace or in all.
    """
    from cacheproxy.collection.collector import Collector
    from cacheproxy.registry.tags import Tags
    from cacheproxy.rules import policies

    config = loaded(file, flags)

    async def work(bucket: Bucket, namespace: Namespace) -> "Report | RegistryError | None":
        collector = Collector(
            bucket,
            namespace,
            Tags(bucket, namespace),
            policies(config.retention),
            config.collection.lease_seconds,
        )
        try:
            return await collector.collect(dry=dry_run)
        except RegistryError as error:
            return error  # the other namespaces can be collected all the same

    reports = visit_each(config, work, writing=not dry_run)
    failures = [each for each in reports.values() if isinstance(each, RegistryError)]
    if len(failures) < len(reports):
        click.echo(text.in_all(reports, _lines, json=as_json))
    if failures:
        raise failures[0]
    return 2 if None in reports.values() else 0


def _lines(report: "Report | RegistryError | None") -> list[str]:
    if report is None:
        return ["another collector is at work"]
    if isinstance(report, RegistryError):
        return [f"failed     {report.detail}"]
    return [
        f"evicted    {counted(report.tags_evicted, 'tag')},"
        f" {counted(report.sources_evicted, 'source')} of caches",
        f"reachable  {counted(report.manifests_reachable, 'manifest')}",
        f"condemned  {counted(report.condemned, 'object')}, {size(report.condemned_bytes)}",
        f"waiting    {counted(report.waiting, 'object')}",
        f"deleted    {counted(report.deleted, 'object')}",
    ]
