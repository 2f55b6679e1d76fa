"""`cacheproxy gc`."""

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from cacheproxy.cli import text
from cacheproxy.cli.child import work_for_server
from cacheproxy.cli.options import as_json, loaded, with_settings
from cacheproxy.cli.text import counted, size
from cacheproxy.cli.visiting import visit_each
from cacheproxy.config import handed_down
from cacheproxy.errors import RegistryError
from cacheproxy.settings import Config
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
@click.option("--namespace", default=Namespace().name, hidden=True)
@click.option("--conditions", type=int, hidden=True)
@as_json
@with_settings("storage", "s3", "retention", "collection")
def gc(
    dry_run: bool,
    for_server: "Task | None",
    namespace: str,
    conditions: int | None,
    as_json: bool,
    file: str | None,
    **flags: Any,
) -> int:
    """Collect what nobody needs, beside running servers, which do the same from time to time.

    What no policy keeps goes. What nothing leads to is condemned, and deleted by a later run, when
    nobody can rely on it any more. The exit status is 2 if another collector is at work, in a
    namespace or in all.
    """
    if for_server is not None:
        config = handed_down(file)
        work_there = partial(_for_server, config, for_server, Namespace(namespace))
        return work_for_server(config, conditions, work_there)
    config = loaded(file, flags)

    async def work(bucket: Bucket, namespace: Namespace) -> "Report | RegistryError | None":
        try:
            return await _collector(config, bucket, namespace).collect(dry=dry_run)
        except RegistryError as error:
            return error  # the other namespaces can be collected all the same

    reports = visit_each(config, work, writing=not dry_run)
    failures = [each for each in reports.values() if isinstance(each, RegistryError)]
    if len(failures) < len(reports):
        click.echo(text.in_all(reports, _lines, json=as_json))
    if failures:
        raise failures[0]
    return 2 if None in reports.values() else 0


async def _for_server(
    config: Config, task: "Task", namespace: Namespace, bucket: Bucket
) -> "Outcome":
    from cacheproxy.collecting import Outcome
    from cacheproxy.collection.budget import Budget

    collector = _collector(config, bucket, namespace, Budget(_PER_SECOND))
    if task == "cycle":
        return Outcome(await collector.collect(rest=config.collection.interval_seconds))
    await collector.finish()
    return Outcome()


def _collector(
    config: Config, bucket: Bucket, namespace: Namespace, budget: "Budget | None" = None
) -> "Collector":
    from cacheproxy.collection.collector import Collector
    from cacheproxy.registry.tags import Tags
    from cacheproxy.rules import policies

    return Collector(
        bucket,
        namespace,
        Tags(bucket, namespace),
        policies(config.retention),
        config.collection.lease_seconds,
        budget=budget,
    )


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
