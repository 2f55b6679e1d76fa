"""Leading: of all processes that share a spool folder, one fills a blob and the others follow it.

    <spool>/<key, with `:` for `/`>.lead    locked by the process that fills; tells the size of the
                                            blob once that is known, and that it is verified once
                                            it is
    <spool>/<key, with `:` for `/`>.part    the spool that it fills

Processes know of each other by these files alone, so followers look again every few milliseconds.
"""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from cacheproxy.errors import Unavailable
from cacheproxy.storage.blocking import os_errors
from cacheproxy.storage.bucket import LocalFile
from cacheproxy.storage.files import open_if_there, try_lock, unlink

_LOOK_SECONDS: Final = 0.01
_VERIFIED: Final = " verified"


class Lead:
    """The right to fill a blob, until it is released."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.part = _part(path)

    def tell(self, size: int, *, verified: bool = False) -> None:
        """Let followers know the size of the blob, whose spool `part` exists now, or is whole."""
        os.pwrite(self._fd, f"{size}{_VERIFIED if verified else ''}".encode(), 0)


@contextmanager
def leading(folder: str, key: str) -> Iterator[Lead | None]:
    """The lead for the blob with this key; None if another process has it."""
    path = _path(folder, key)
    with os_errors:
        os.makedirs(folder, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _take(fd, path):
            yield None
            return
        lead = Lead(fd, path)
        unlink(lead.part)  # of a leader that died
        os.ftruncate(fd, 0)
        try:
            yield lead
        finally:
            unlink(path)
    finally:
        os.close(fd)


async def follow(folder: str, key: str, done: Callable[[], LocalFile | None]) -> LocalFile | None:
    """A blob as another process fills it, or what `done` opens once it is there.

    None if nobody leads any more; the caller closes it.
    """
    lead = open_if_there(_path(folder, key))
    while True:
        if (file := done()) is not None or lead is None:
            _close(lead)
            return file
        size, _ = _told(lead)
        fd = None if size is None else open_if_there(_part(_path(folder, key)))
        if size is not None and fd is not None:
            return Led(fd, size, lead)
        if _is_free(lead):
            _close(lead)
            lead = None  # one more look: it may just have finished
            continue
        try:
            await asyncio.sleep(_LOOK_SECONDS)
        except asyncio.CancelledError:
            _close(lead)
            raise


class Led(LocalFile):
    """A blob that another process fills, as it grows; `lead` is the descriptor of its lead."""

    __slots__ = ("_lead",)

    verified = False

    def __init__(self, fd: int, size: int, lead: int) -> None:
        super().__init__(fd, size)
        self._lead = lead

    def again(self) -> LocalFile:
        return Led(os.dup(self.fd), self.size, os.dup(self._lead))

    def close(self) -> None:
        super().close()
        os.close(self._lead)

    async def ready(self, offset: int) -> int:
        """See `LocalFile`. Raises Unavailable: the other process has given up or died."""
        while (end := self._end()) <= offset:
            if _is_free(self._lead) and self._end() <= offset:
                raise Unavailable("the blob could not be read")
            await asyncio.sleep(_LOOK_SECONDS)
        return end

    def _end(self) -> int:
        _, verified = _told(self._lead)
        size = os.fstat(self.fd).st_size
        return size if verified else min(size, self.size - 1)


def _path(folder: str, key: str) -> str:
    return f"{folder}/{key.replace('/', ':')}.lead"


def _part(path: str) -> str:
    return path.removesuffix(".lead") + ".part"


def _told(lead: int) -> tuple[int | None, bool]:
    """The size of the blob, if it is known by now, and whether it is verified."""
    told = os.pread(lead, 64, 0).decode()
    size = told.removesuffix(_VERIFIED)
    return (int(size) if size else None), told.endswith(_VERIFIED)


def _take(fd: int, path: str) -> bool:
    """Lock the file if it is still the one at its path: its last owner unlinks it."""
    try:
        return try_lock(fd) and os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _is_free(lead: int) -> bool:
    """Whether nobody leads: who did has finished, given up or died."""
    if not try_lock(lead, fcntl.LOCK_SH):
        return False
    fcntl.flock(lead, fcntl.LOCK_UN)
    return True


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
