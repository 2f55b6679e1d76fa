"""`cacheproxy gc`."""

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from cacheproxy.cli import text
from cacheproxy.cli.child import work_for_server
from cacheproxy.cli.options import as_json, loaded, with_settings
from cacheproxy.cli.text import counted, size
from cacheproxy.cli.visiting import visit
from cacheproxy.config import Config
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace

if TYPE_CHECKING:
    from cacheproxy.collecting import Outcome, Task
    from cacheproxy.collection.budget import Budget
    from cacheproxy.collection.collector import Collector, Report

_PER_SECOND: Final = 2_500.0
"""Objects that a server's collector looks at: a million takes minutes, and some 5 % of a processor,
which may be the only one."""


@click.command()
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@click.option("--for-server", type=click.Choice(["cycle", "finish"]), hidden=True)
@click.option("--conditions", type=int, hidden=True)
@as_json
@with_settings("storage", "s3", "retention", "collection")
def gc(
    dry_run: bool,
    for_server: "Task | None",
    conditions: int | None,
    as_json: bool,
    file: str | None,
    **flags: Any,
) -> int:
    """Collect what nobody needs, beside running servers, which do the same from time to time.

    What no policy keeps goes. What nothing leads to is condemned, and deleted by a later run, when
    nobody can rely on it any more. The exit status is 2 if another collector is at work.
    """
    config = loaded(file, flags)
    if for_server is not None:
        return work_for_server(config, conditions, partial(_for_server, config, for_server))

    async def work(bucket: Bucket) -> "Report | None":
        return await _collector(config, bucket).collect(dry=dry_run)

    report = visit(config, work, writing=not dry_run)
    if report is None:
        click.echo("another collector is at work")
        return 2
    click.echo(text.as_json(report) if as_json else "\n".join(_lines(report)))
    return 0


async def _for_server(config: Config, task: "Task", bucket: Bucket) -> "Outcome":
    from cacheproxy.collecting import Outcome
    from cacheproxy.collection.budget import Budget

    collector = _collector(config, bucket, Budget(_PER_SECOND))
    if task == "cycle":
        return Outcome(await collector.collect(rest=config.collection.interval_seconds))
    await collector.finish()
    return Outcome()


def _collector(config: Config, bucket: Bucket, budget: "Budget | None" = None) -> "Collector":
    from cacheproxy.collection.collector import Collector
    from cacheproxy.registry.tags import Tags
    from cacheproxy.rules import policies

    namespace = Namespace()
    return Collector(
        bucket,
        namespace,
        Tags(bucket, namespace),
        policies(config.retention),
        config.collection.lease_seconds,
        budget=budget,
    )


def _lines(report: "Report") -> list[str]:
    return [
        f"evicted    {counted(report.tags_evicted, 'tag')},"
        f" {counted(report.sources_evicted, 'source')} of caches",
        f"reachable  {counted(report.manifests_reachable, 'manifest')}",
        f"condemned  {counted(report.condemned, 'object')}, {size(report.condemned_bytes)}",
        f"waiting    {counted(report.waiting, 'object')}",
        f"deleted    {counted(report.deleted, 'object')}",
    ]
