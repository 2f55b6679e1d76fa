"""An S3 bucket as the place where a registry is kept."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from tempfile import TemporaryFile
from typing import Final

import structlog

from cacheproxy.errors import Conflict, StorageInvalid, Unavailable
from cacheproxy.storage.bucket import ABSENT, Bucket, Match, Observe
from cacheproxy.storage.format import FORMAT, check_format, has_format
from cacheproxy.storage.layout import FORMAT_KEY
from cacheproxy.storage.s3.bucket import S3Bucket, open_s3
from cacheproxy.storage.s3.exclusive import BucketInUse, exclusive_lock, refuse_owned
from cacheproxy.storage.s3.options import Abilities, S3Options
from cacheproxy.storage.s3.probe import probe

log = structlog.get_logger()

# Listed as a tree of folders, which takes more requests and is right everywhere.
_UNPROBED: Final = Abilities(flat=False)

_READ_SECONDS: Final = 10.0  # no build waits for a command

_NO_VERSION: Final = Match('"00000000000000000000000000000000"')


class S3Place:
    """A bucket in S3, shared by any number of servers if it has conditional writes."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._abilities = Abilities(conditional_writes=True, ranges=True)
        self.conditions: int | None = None

    @contextmanager
    def claimed(self, workers: int) -> Iterator[None]:
        self._abilities = asyncio.run(self._probe())
        if self._abilities.conditional_writes:
            yield
            return
        if workers > 1:
            raise StorageInvalid(
                "the bucket has no conditional writes, so only one process may use it:"
                " set server.workers to 1"
            )
        with TemporaryFile() as file:
            self.conditions = file.fileno()
            yield

    @asynccontextmanager
    async def opened(self, observe: Observe | None = None) -> AsyncIterator[Bucket]:
        abilities = self._abilities
        async with open_s3(self._options, abilities, observe, conditions=self.conditions) as bucket:
            if abilities.conditional_writes:
                yield bucket
                return
            async with exclusive_lock(bucket):
                log.warning("bucket_without_conditional_writes", effect="the only replica")
                yield bucket

    @asynccontextmanager
    async def joined(self, conditions: int | None) -> AsyncIterator[Bucket]:
        options = replace(self._options, read_seconds=_READ_SECONDS)
        abilities = replace(_UNPROBED, conditional_writes=conditions is None)
        async with open_s3(options, abilities, conditions=conditions) as bucket:
            yield bucket

    @asynccontextmanager
    async def visited(self, *, writing: bool = False) -> AsyncIterator[Bucket]:
        options = replace(self._options, read_seconds=_READ_SECONDS)
        async with open_s3(options, _UNPROBED) as bucket:
            await self._check(bucket)
            if not writing or await _can_be_shared(bucket):
                yield bucket
                return
        alone = replace(_UNPROBED, conditional_writes=False)
        async with open_s3(options, alone) as bucket, exclusive_lock(bucket):
            yield bucket

    async def _probe(self) -> Abilities:
        async with open_s3(self._options, self._abilities) as bucket:
            abilities = await probe(bucket)
        async with open_s3(self._options, abilities) as bucket:
            await check_format(bucket)
        return abilities

    async def _check(self, bucket: S3Bucket) -> None:
        try:
            found = await has_format(bucket)
        except Unavailable as error:
            raise StorageInvalid(bucket.explain(error)) from error
        if not found:
            url = f"s3://{self._options.bucket}/{self._options.prefix}"
            raise StorageInvalid(f"no server has stored anything in {url} yet")


async def _can_be_shared(bucket: S3Bucket) -> bool:
    """Whether conditions are kept, as far as one writer can tell; a server lets many race, and
    holds the lock if it was disappointed. Raises StorageInvalid: one does."""
    try:
        await refuse_owned(bucket)
    except BucketInUse as error:
        raise StorageInvalid(
            f"{error}, which alone may write as there are no conditional writes: stop it first"
        ) from error
    for wrong in (ABSENT, _NO_VERSION):
        try:
            await bucket.put(FORMAT_KEY, FORMAT, match=wrong)
        except Conflict:
            continue
        return False  # and what was written is what was there
    return True
