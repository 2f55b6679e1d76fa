"""Objects of S3 joined by S3 itself; only what is too small to be a part passes through here."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Final

from cacheproxy.errors import Unavailable
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.bucket import Listed
from cacheproxy.storage.s3.multipart import Multipart, Part, copy_source
from cacheproxy.storage.s3.objects import S3Objects, pushed_by
from cacheproxy.storage.s3.parts import Copy, Piece, Send, Step, plan
from cacheproxy.storage.s3.requests import Body

_AT_ONCE: Final = 4


async def join(objects: S3Objects, parts: Sequence[Listed], key: str, pusher: str) -> None:
    """See `Bucket.join`. One request where there is but one step."""
    steps = plan([part.size for part in parts], objects.options.copy_bytes)
    match steps:
        case [Copy(Piece(source)) as step]:
            await _copy(objects, parts[source].key, key, step.length, pusher)
        case [Send() as step]:
            body = _body(objects, parts, step)
            await objects.write(key, body, step.length, None, pushed_by(pusher), None)
        case _:
            await _assemble(objects, parts, steps, key, pusher)


async def _copy(objects: S3Objects, source: str, key: str, length: int, pusher: str) -> None:
    params = {
        "Key": objects.name(key),
        "CopySource": copy_source(objects, source),
        "MetadataDirective": "REPLACE",
        "Metadata": pushed_by(pusher),
        **objects.options.object_params(),
    }
    await objects.requests.call("CopyObject", params, objects.options.write_seconds, length=length)


async def _assemble(
    objects: S3Objects, parts: Sequence[Listed], steps: Sequence[Step], key: str, pusher: str
) -> None:
    multipart = await Multipart.begin(objects, key, pusher)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def take(number: int, step: Step) -> Part:
        async with slots:
            if isinstance(step, Copy):
                source = parts[step.piece.source]
                return await multipart.copy(number, source.key, source.size, step)
            return await multipart.send(number, _body(objects, parts, step), step.length, None)

    tasks = [asyncio.create_task(take(number, step)) for number, step in enumerate(steps, 1)]
    try:
        done = await asyncio.gather(*tasks)
        length = sum(step.length for step in steps)
        await multipart.complete(done, length, absent=False)
    except BaseException:
        await objects.background.run(_abandon(multipart, tasks))
        raise


async def _abandon(multipart: Multipart, tasks: Sequence[asyncio.Task[Part]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await multipart.abort()


def _body(objects: S3Objects, parts: Sequence[Listed], step: Send) -> Callable[[], Body]:
    async def batches() -> AsyncIterator[bytes]:
        for cut in step.pieces:
            stream = await objects.open(parts[cut.source].key, ByteRange(cut.start, cut.length))
            if stream is None:
                raise Unavailable("an object to be joined is not in the bucket")
            async with aclosing(stream.batches()) as found:
                async for batch in found:
                    for piece in batch:
                        yield piece

    return batches
