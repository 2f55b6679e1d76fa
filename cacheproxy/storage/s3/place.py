"""An S3 bucket as the place where a registry is kept."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog

from cacheproxy.errors import StorageInvalid
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.format import check_format
from cacheproxy.storage.s3.bucket import open_s3
from cacheproxy.storage.s3.exclusive import exclusive_lock
from cacheproxy.storage.s3.options import Abilities, S3Options
from cacheproxy.storage.s3.probe import probe

log = structlog.get_logger()


class S3Place:
    """A bucket in S3, shared by any number of servers if it has conditional writes."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._abilities = Abilities(conditional_writes=True, ranges=True)

    @contextmanager
    def claimed(self, workers: int) -> Iterator[None]:
        self._abilities = asyncio.run(self._probe())
        if not self._abilities.conditional_writes and workers > 1:
            raise StorageInvalid(
                "the bucket has no conditional writes, so only one process may use it:"
                " set server.workers to 1"
            )
        yield

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Bucket]:
        async with open_s3(self._options, self._abilities) as bucket:
            if self._abilities.conditional_writes:
                yield bucket
                return
            async with exclusive_lock(bucket):
                log.warning("bucket_without_conditional_writes", effect="the only replica")
                yield bucket

    async def _probe(self) -> Abilities:
        async with open_s3(self._options, self._abilities) as bucket:
            abilities = await probe(bucket)
        async with open_s3(self._options, abilities) as bucket:
            await check_format(bucket)
        return abilities
