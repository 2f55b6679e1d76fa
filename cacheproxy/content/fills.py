"""Fills: blobs on their way from the bucket into the tier, one read however many ask.

A fill runs at the speed of the bucket and the disk, on its own: whoever asked first may leave, and
nobody who is slow holds it up. All who ask follow the file as it grows.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from cacheproxy.content.leading import Lead, follow, leading
from cacheproxy.content.spool import Spool, SpoolFolder
from cacheproxy.content.tier import Tier
from cacheproxy.content.window import Reading, Window
from cacheproxy.errors import DigestInvalid, RegistryError, Unavailable
from cacheproxy.oci.digest import Digest, Hasher
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.bucket import Bucket, LocalFile, Origin
from cacheproxy.storage.files import set_pusher

log = structlog.get_logger()

_Opened = LocalFile | int | None
"""What a fill gives to who asks: the file; the size of a blob that the tier cannot take; or None,
there is no such blob."""

_RUNNING: Final = 64  # each holds a connection to the bucket


class _Fill:
    """Those who wait for a fill to open, and how it is followed since then."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[_Opened]] = []
        self._follow: Callable[[], LocalFile] | None = None
        self.here = False
        """Whether it is this process that fills."""

    async def join(self) -> _Opened:
        if self._follow is not None:
            return self._follow()
        place: asyncio.Future[_Opened] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                _close(place.result())
            raise

    def open(self, follow: Callable[[], LocalFile]) -> None:
        self._follow = follow
        for place in self._places():
            place.set_result(follow())

    def refuse(self, answer: int | None) -> None:
        for place in self._places():
            place.set_result(answer)

    def fail(self, failure: RegistryError) -> None:
        for place in self._places():
            place.set_exception(failure)

    def _places(self) -> list[asyncio.Future[_Opened]]:
        places, self._waiting = self._waiting, []
        return [place for place in places if not place.done()]


def _close(opened: _Opened) -> None:
    if isinstance(opened, LocalFile):
        opened.close()


class Fills:
    def __init__(self, bucket: Bucket, spools: SpoolFolder, tier: Tier) -> None:
        self._bucket = bucket
        self._spools = spools
        self._tier = tier
        self._running: dict[str, _Fill] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(_RUNNING)

    async def follow(self, key: str, digest: Digest) -> LocalFile | None:
        """The blob as it comes, None if it is absent; the caller closes it.

        Raises:
            Unavailable: the bucket cannot be read.
        """
        fill = self._running.get(key)
        first = fill is None
        if fill is None:
            fill = self._running[key] = _Fill()
            task = asyncio.create_task(self._run(fill, key, digest))
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, fill, key))
        opened = await fill.join()
        if opened == 0:
            return LocalFile(self._spools.scratch(), 0)
        if isinstance(opened, int):
            whole = ByteRange(0, opened)
            return await Window.open(self._bucket, self._spools, key, whole, digest)
        if opened is not None:
            opened.origin = Origin.FILL if first and fill.here else Origin.COALESCED
        return opened

    async def close(self) -> None:
        """End the fills that run."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, fill: _Fill, key: str, digest: Digest) -> None:
        try:
            async with self._room:
                while not await self._try(fill, key, digest):
                    pass  # who led has given up or died
        except RegistryError as error:
            fill.fail(error)
        finally:
            # Before anybody else has a turn: what was to be followed is closed by now.
            self._running.pop(key, None)

    def _ended(self, fill: _Fill, key: str, task: asyncio.Task[None]) -> None:
        """Also of a task that was cancelled before it began."""
        self._tasks.discard(task)
        if self._running.get(key) is fill:
            del self._running[key]
        fill.fail(Unavailable("the server ends"))
        if not task.cancelled() and (error := task.exception()):
            log.error("fill_crashed", key=key, exc_info=error)

    async def _try(self, fill: _Fill, key: str, digest: Digest) -> bool:
        """Fill the blob, or follow the process that does; False if that does not any more."""
        folder, done = self._spools.folder, partial(self._tier.open, key)
        with leading(folder, key) as lead:
            # Who led before may have finished since it was looked for.
            file = done() if lead is not None else await follow(folder, key, done)
            if lead is not None and file is None:
                await self._lead(fill, key, digest, lead)
                return True
        if file is None:
            return False
        with file:
            fill.open(file.again)
        return True

    async def _lead(self, fill: _Fill, key: str, digest: Digest, lead: Lead) -> None:
        stream = await self._bucket.open(key)
        if stream is None:
            fill.refuse(None)
            return
        assert not isinstance(stream, LocalFile), "a local bucket needs no tier"
        try:
            if stream.size == 0 or not self._tier.admits(stream.size):
                fill.refuse(stream.size)
                return
            async with self._spools.new(Hasher(digest.algorithm), lead.path) as spool:
                set_pusher(spool.path, stream.pusher)
                lead.tell(stream.size)
                fill.here = True
                fill.open(partial(spool.follow, stream.size))
                body = Reading(self._bucket, key, ByteRange(0, stream.size), stream)
                if await self._complete(spool, body, digest):
                    lead.verified()
                    await self._tier.admit(spool.path, key, stream.size)
        finally:
            stream.close()

    async def _complete(self, spool: Spool, body: Reading, digest: Digest) -> bool:
        """Whether the spool holds the blob now; its followers are told."""
        try:
            await spool.fill(body)
            spool.verify(digest)
        except DigestInvalid as error:
            log.error("blob_is_damaged", digest=digest, detail=error.detail)
            spool.fail(Unavailable("the blob is damaged in the bucket"))
        except RegistryError as error:
            spool.fail(error)
        except BaseException:
            spool.fail(Unavailable("the server ends"))
            raise
        else:
            return True
        return False
