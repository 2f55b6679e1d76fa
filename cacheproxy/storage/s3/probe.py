"""What an S3 can do is tried out, not believed: some answer 200 to conditions that they ignore."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from cacheproxy.errors import Conflict, StorageInvalid, Unavailable
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.bucket import ABSENT, Match
from cacheproxy.storage.s3.bucket import S3Bucket
from cacheproxy.storage.s3.exclusive import BucketInUse, exclusive_lock
from cacheproxy.storage.s3.options import Abilities

__all__ = ["Abilities", "BucketInUse", "exclusive_lock", "probe"]

_WRITERS: Final = 16
_METADATA: Final = {"probe": "kept"}


async def probe(bucket: S3Bucket) -> Abilities:
    """Find out what can be done with a bucket that was opened as if it had all abilities.

    Raises:
        StorageInvalid: it cannot be used at all, and why, in one sentence.
    """
    try:
        await bucket.ping()
        async with _keys(bucket, "") as (key,):
            await _check_metadata(bucket, key)
            conditional = await _one_wins(bucket, key) and await _stale_loses(bucket, key)
            ranges = await _part_comes(bucket, key)
        return Abilities(conditional, ranges, flat=await _is_flat(bucket))
    except Unavailable as error:
        raise StorageInvalid(bucket.explain(error)) from error


@asynccontextmanager
async def _keys(bucket: S3Bucket, *ends: str) -> AsyncIterator[list[str]]:
    """Keys of our own, removed at the end; no others begin with a dot."""
    folder = f".probe/{secrets.token_hex(8)}"
    keys = [folder + end for end in ends]
    try:
        yield keys
    finally:
        with suppress(Unavailable):
            await asyncio.gather(*map(bucket.delete, keys))


async def _check_metadata(bucket: S3Bucket, key: str) -> None:
    await bucket.put(key, b"", metadata=_METADATA)
    stored = await bucket.read(key)
    if stored is None or stored.metadata != _METADATA:
        raise Unavailable("the bucket does not keep the metadata of its objects")
    await bucket.delete(key)


async def _one_wins(bucket: S3Bucket, key: str) -> bool:
    return sum(await asyncio.gather(*[_wins(bucket, key, n, ABSENT) for n in range(_WRITERS)])) == 1


async def _stale_loses(bucket: S3Bucket, key: str) -> bool:
    before = await bucket.read(key)
    if before is None:
        return False
    current = Match(before.version)
    return await _wins(bucket, key, -1, current) and not await _wins(bucket, key, -2, current)


async def _wins(bucket: S3Bucket, key: str, number: int, match: Match) -> bool:
    try:
        await bucket.put(key, f"writer {number}".encode(), match=match)
    except Conflict:
        return False
    return True


async def _part_comes(bucket: S3Bucket, key: str) -> bool:
    stream = await bucket.open(key, ByteRange(1, 2))
    if stream is None:
        return False
    stream.close()
    return not stream.cut


async def _is_flat(bucket: S3Bucket) -> bool:
    """In the order of code points `a-b` comes before `a/b`; in that of folders `a` comes first."""
    async with _keys(bucket, "-b", "/b") as keys:
        for key in keys:
            await bucket.put(key, b"")
        listing = bucket.list(".probe/", after=keys[0][:-1])
        return [each.key async for each in listing if each.key in keys] == keys
