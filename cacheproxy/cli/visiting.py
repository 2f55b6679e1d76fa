"""From the settings to the bucket; commands visit it, beside the servers that run."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from cacheproxy.settings import S3, Config
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace
from cacheproxy.storage.opening import Place, place
from cacheproxy.storage.s3.options import S3Options

if TYPE_CHECKING:
    from cacheproxy.content.contents import Contents

T = TypeVar("T")


def place_of(config: Config) -> Place:
    """Where the settings say that the registry is. Raises StorageInvalid."""
    return place(config.storage.url, s3_options(config.s3))


def s3_options(config: S3) -> S3Options:
    """The settings of S3; which bucket is told by the URL of the storage."""
    return S3Options(
        bucket="",
        endpoint_url=config.endpoint_url or None,
        region=config.region or None,
        path_style=config.path_style,
        ca_file=config.ca_file or None,
        sse=config.sse or None,
        kms_key_id=config.sse_kms_key_id or None,
        storage_class=config.storage_class or None,
        checksums=config.checksums,
        part_bytes=config.part_bytes,
        copy_bytes=config.copy_bytes,
        public_endpoint_url=config.public_endpoint_url or None,
    )


def visit(config: Config, work: Callable[[Bucket], Awaitable[T]], *, writing: bool = False) -> T:
    """Do `work` with the bucket, which it may only read unless it is `writing`."""
    import structlog

    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.KeyValueRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger("error"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )

    async def visited() -> T:
        async with place_of(config).visited(writing=writing) as bucket:
            return await work(bucket)

    return asyncio.run(visited())


def visit_each(
    config: Config, work: Callable[[Bucket, Namespace], Awaitable[T]], *, writing: bool = False
) -> dict[str, T]:
    """What comes of `work` in each namespace, by their names; see `visit`."""
    from cacheproxy.rules import namespaces

    found = namespaces(config.storage)

    async def visited(bucket: Bucket) -> dict[str, T]:
        return {namespace.name: await work(bucket, namespace) for namespace in found}

    return visit(config, visited, writing=writing)


@asynccontextmanager
async def contents_of(bucket: Bucket) -> "AsyncIterator[Contents]":
    """What the bucket holds; nothing of it is kept here, for the tier is the servers'."""
    from tempfile import TemporaryDirectory

    from cacheproxy.content.contents import Contents
    from cacheproxy.content.spool import SpoolFolder
    from cacheproxy.content.tier import Tier

    with TemporaryDirectory(prefix="cacheproxy-") as folder:
        tier = Tier(folder, 0)
        contents = Contents(bucket, SpoolFolder(tier.spool), None if bucket.local else tier)
        try:
            yield contents
        finally:
            await contents.close()
