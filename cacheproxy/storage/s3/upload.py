"""A growing file on its way to S3, in parts that are sent while it grows.

Nothing is sent before there is more of the file than fits one part, so that what fits costs one
request. Parts are read from the file when they are sent, so memory is bounded and each can be sent
again.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from cacheproxy.oci.digest import Digest
from cacheproxy.storage.blocking import in_thread, os_errors
from cacheproxy.storage.bucket import ABSENT
from cacheproxy.storage.files import READ
from cacheproxy.storage.s3.background import Background
from cacheproxy.storage.s3.multipart import Multipart, Part
from cacheproxy.storage.s3.objects import S3Objects, pushed_by
from cacheproxy.storage.s3.parts import MIB, part_size
from cacheproxy.storage.s3.requests import Body

_AT_ONCE: Final = 4


class S3Upload:
    """See `Upload`. Made by `uploading`."""

    def __init__(
        self, objects: S3Objects, path: str, key: str, length: int | None, pusher: str
    ) -> None:
        self._objects = objects
        self._path = path
        self._key = key
        self._pusher = pusher
        self._part_bytes = part_size(length, objects.options.part_bytes)
        self._fd: int | None = None
        self._multipart: asyncio.Task[Multipart] | None = None
        self._started = 0
        self._running: dict[int, asyncio.Task[Part]] = {}
        self._parts: list[Part] = []
        self._completed = False

    @property
    def sent(self) -> int:
        """The first part that runs, or has failed, and all behind it are needed."""
        return min(self._running, default=self._started)

    async def wrote(self, size: int) -> None:
        while size - self._started > self._part_bytes:
            await self._settle(_AT_ONCE - 1)
            self._start(self._part_bytes)

    async def commit(self, digest: Digest | None, size: int, *, absent: bool = False) -> None:
        await self.wrote(size)
        if self._multipart is None:
            await self._put(digest, size, absent)
            return
        await self._settle(_AT_ONCE - 1)
        self._start(size - self._started)
        await self._settle(0)
        parts = sorted(self._parts, key=lambda part: int(part["PartNumber"]))
        multipart = await asyncio.shield(self._multipart)
        await multipart.complete(parts, size, absent=absent)
        self._completed = True

    async def leave(self) -> None:
        """Stop, and abort what was not completed."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        if self._fd is not None:
            os.close(self._fd)
        if self._multipart is not None and not self._completed:
            multipart = await self._multipart
            await multipart.abort()

    async def _put(self, digest: Digest | None, size: int, absent: bool) -> None:
        match = ABSENT if absent else None
        body, metadata = self._range(0, size), pushed_by(self._pusher)
        await self._objects.write(self._key, body, size, digest, metadata, match)

    def _start(self, length: int) -> None:
        if self._multipart is None:
            beginning = Multipart.begin(self._objects, self._key, self._pusher)
            self._multipart = asyncio.create_task(beginning)
        start = self._started
        number = len(self._parts) + len(self._running) + 1
        self._running[start] = asyncio.create_task(self._send(number, start, length))
        self._started += length

    async def _send(self, number: int, start: int, length: int) -> Part:
        assert self._multipart is not None
        multipart = await asyncio.shield(self._multipart)
        sha256 = None
        if self._objects.options.checksums == "required":
            sha256 = await in_thread(_sha256_of, self._file(), start, length)
        return await multipart.send(number, self._range(start, length), length, sha256)

    async def _settle(self, running: int) -> None:
        """Wait until no more than so many parts run. Raises what a part raised."""
        while True:
            for start, task in list(self._running.items()):
                if task.done():
                    self._parts.append(task.result())
                    del self._running[start]
            if len(self._running) <= running:
                return
            await asyncio.wait(self._running.values(), return_when=asyncio.FIRST_COMPLETED)

    def _range(self, start: int, length: int) -> Callable[[], Body]:
        async def pieces() -> AsyncIterator[bytes]:
            for at in range(start, start + length, MIB):
                with os_errors:
                    piece = await in_thread(
                        os.pread, self._file(), min(MIB, start + length - at), at
                    )
                yield piece

        return pieces

    def _file(self) -> int:
        if self._fd is None:
            with os_errors:
                self._fd = os.open(self._path, READ)
        return self._fd


def _sha256_of(fd: int, start: int, length: int) -> bytes:
    found = hashlib.sha256()
    for at in range(start, start + length, MIB):
        found.update(os.pread(fd, min(MIB, start + length - at), at))
    return found.digest()


@asynccontextmanager
async def uploading(upload: S3Upload, background: Background) -> AsyncIterator[S3Upload]:
    """Leave the upload whatever happens."""
    try:
        yield upload
    finally:
        await background.run(upload.leave())
