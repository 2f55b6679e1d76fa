"""Leading: of all processes that share a spool folder, one fills a blob and the others follow it.

    <spool>/<key, with `:` for `/`>.part    the spool that it fills

Processes know of each other by this file alone, so followers look again every few milliseconds.
Who leads holds a lock on it, on as many bytes as the blob will have once that is known, and makes
it read-only once it is verified. A file beside it would cost as much as the spool itself.
"""

import asyncio
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from cacheproxy.errors import Unavailable
from cacheproxy.storage.blocking import os_errors
from cacheproxy.storage.bucket import LocalFile
from cacheproxy.storage.files import WRITE, is_at, open_if_there, unlink

_LOOK_SECONDS: Final = 0.01
_VERIFIED: Final = 0o444
_FLOCK: Final = struct.Struct("hhqqi4x")
"""fcntl(2): type, whence, start and length in bytes (0 is all of them), and a process."""


class Lead:
    """The right to fill a blob, until it is released; the spool lies at `path`."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.path = path

    def tell(self, size: int) -> None:
        """Let followers know the size of the blob, which is not empty."""
        _lock(self._fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, size)

    def verified(self) -> None:
        """Let followers have the last byte too."""
        os.fchmod(self._fd, _VERIFIED)


@contextmanager
def leading(folder: str, key: str) -> Iterator[Lead | None]:
    """The lead for the blob with this key; None if another process has it."""
    path = _path(folder, key)
    with os_errors:
        os.makedirs(folder, exist_ok=True)
        fd = _take(path)
    if fd is None:
        yield None
        return
    try:
        yield Lead(fd, path)
    finally:
        if is_at(fd, path):
            unlink(path)
        os.close(fd)


async def follow(folder: str, key: str, done: Callable[[], LocalFile | None]) -> LocalFile | None:
    """A blob as another process fills it, or what `done` opens once it is there.

    None if nobody leads any more; the caller closes it.
    """
    part = open_if_there(_path(folder, key))
    while True:
        if (file := done()) is not None or part is None:
            _close(part)
            return file
        size = _told(part)
        if size:
            return Led(part, size)
        if size is None:
            _close(part)
            part = None  # one more look: it may just have finished
            continue
        try:
            await asyncio.sleep(_LOOK_SECONDS)
        except asyncio.CancelledError:
            _close(part)
            raise


class Led(LocalFile):
    """A blob that another process fills, as it grows."""

    __slots__ = ()

    verified = False

    def again(self) -> LocalFile:
        return Led(os.dup(self.fd), self.size)

    async def ready(self, offset: int) -> int:
        """See `LocalFile`. Raises Unavailable: the other process has given up or died."""
        while (end := self._end()) <= offset:
            if _told(self.fd) is None and self._end() <= offset:
                raise Unavailable("the blob could not be read")
            await asyncio.sleep(_LOOK_SECONDS)
        return end

    def _end(self) -> int:
        found = os.fstat(self.fd)
        if stat.S_IMODE(found.st_mode) == _VERIFIED:
            return found.st_size
        return min(found.st_size, self.size - 1)


def _path(folder: str, key: str) -> str:
    return f"{folder}/{key.replace('/', ':')}.part"


def _take(path: str) -> int | None:
    """Make and lock the file; None if another process has it. What one left that died is removed,
    as those who followed it may still read it."""
    while True:
        fd = os.open(path, WRITE, 0o644)
        try:
            _lock(fd, fcntl.F_OFD_SETLK, fcntl.F_WRLCK)
        except BlockingIOError:
            os.close(fd)
            return None
        if is_at(fd, path):
            if not os.fstat(fd).st_size:
                return fd
            unlink(path)
        os.close(fd)


def _told(part: int) -> int | None:
    """The size of the blob, 0 as long as it is not known; None if nobody leads any more: who did
    has finished, given up or died."""
    kind, size = _lock(part, fcntl.F_OFD_GETLK, fcntl.F_RDLCK)
    return None if kind == fcntl.F_UNLCK else size


def _lock(fd: int, command: int, kind: int, start: int = 0) -> tuple[int, int]:
    """Ask about, or change, the lock on all bytes from `start`; its kind then, and its length."""
    asked = _FLOCK.pack(kind, os.SEEK_SET, start, 0, 0)
    found, _, _, length, _ = _FLOCK.unpack(fcntl.fcntl(fd, command, asked))
    return found, length


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
