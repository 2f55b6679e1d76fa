"""`cacheproxy fsck`."""

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import click

from cacheproxy.cli.options import loaded, on_bucket, parse_size
from cacheproxy.cli.text import counted, size
from cacheproxy.cli.visiting import contents_of, visit_each
from cacheproxy.settings import Bytes
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace

if TYPE_CHECKING:
    from cacheproxy.collection.fsck import Checked, Finding

_LINE_SECONDS = 10.0


@click.command()
@click.option(
    "--rate", callback=parse_size, default="100MiB", help="Bytes to read in a second. [100MiB]"
)
@click.option("--quarantine", is_flag=True, help="Move what is damaged out of the way.")
@on_bucket
def fsck(rate: Bytes, quarantine: bool, file: str | None, **flags: Any) -> int:
    """Look whether all that is stored is whole, beside running servers.

    Blobs and manifests are hashed, and tags are followed to all that they need. The exit status is
    1 if something is wrong. With --quarantine, damaged blobs and manifests are moved below
    `quarantine/` after ten minutes, so that builders push them again.
    """
    from cacheproxy.collection.budget import Budget
    from cacheproxy.collection.fsck import Fsck

    config, budget = loaded(file, flags), Budget(rate)

    async def work(bucket: Bucket, namespace: Namespace) -> bool:
        if config.storage.namespaces:
            click.echo(f"namespace {namespace.name}")
        async with contents_of(bucket) as contents:
            with _Bar() if sys.stderr.isatty() else _Lines() as progress:
                fsck = Fsck(bucket, namespace, contents, budget, progress, quarantine=quarantine)
                checked = await fsck.run()
        click.echo(_told(checked))
        return bool(checked.wrong)

    return 1 if any(visit_each(config, work, writing=quarantine).values()) else 0


def _told(checked: "Checked") -> str:
    looked_at = (
        f"{counted(checked.blobs, 'blob')} ({size(checked.bytes)}),"
        f" {counted(checked.manifests, 'manifest')} and {counted(checked.tags, 'tag')}"
    )
    if not checked.wrong:
        return f"{looked_at}: all is well"
    moved = f", {checked.quarantined:,} quarantined" if checked.quarantined else ""
    return f"{looked_at}: {counted(checked.wrong, 'problem')}{moved}"


class _Lines:
    """A `collection.fsck.Watcher` that prints a line now and then."""

    def __init__(self) -> None:
        self._size = self._hashed = 0
        self._next = time.monotonic() + _LINE_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None: ...

    def planned(self, size: int) -> None:
        self._size = size

    def hashed(self, count: int) -> None:
        self._hashed += count
        if (now := time.monotonic()) >= self._next:
            self._next = now + _LINE_SECONDS
            click.echo(f"hashed {size(self._hashed)} of {size(self._size)}", err=True)

    def found(self, finding: "Finding") -> None:
        click.echo(f"{finding.what}: {finding.problem}")

    def waiting(self, count: int, seconds: float) -> None:
        things = counted(count, "damaged object")
        click.echo(f"in {seconds / 60:.0f} minutes {things} will be quarantined", err=True)

    def quarantined(self, what: str) -> None:
        click.echo(f"{what}: quarantined")


class _Bar(_Lines):
    """One that draws a bar on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._drawn = ExitStack()
        self._bar: Any = None

    def __exit__(self, *failure: object) -> None:
        self._drawn.close()

    def planned(self, size: int) -> None:
        bar = click.progressbar(length=size, label="hashing", file=sys.stderr)
        self._bar = self._drawn.enter_context(bar)

    def hashed(self, count: int) -> None:
        self._bar.update(count)

    def found(self, finding: "Finding") -> None:
        click.echo("\r\x1b[K", nl=False, err=True)  # where the bar is; it is drawn again
        super().found(finding)

    def waiting(self, count: int, seconds: float) -> None:
        self._drawn.close()  # all is hashed
        super().waiting(count, seconds)
