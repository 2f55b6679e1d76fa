"""The disk tier: blobs on a local disk, a bounded cache in front of the bucket.

    <folder>/blobs/<key>        the entries, by their keys in the bucket: namespaces share none
    <folder>/spool/             files on their way in; theirs is not this module's concern
    <folder>/.state .evicting   the boot and the running total; locked by who evicts
    <folder>/.gone-<id>/        entries of an earlier boot, being deleted

Any number of processes of one machine share a folder, and it may vanish at any time.

- The entries never exceed the limit, however many processes admit: the total is in `.state`, and
  is added to before a file becomes an entry. A process that is killed leaves it too high, never too
  low; every eviction counts again. Outside the limit are the spool, and what is being deleted.
- No entry is synced, and a crash may leave one short or zeroed: none of an earlier boot is used.
- An entry's modification time is when it was last used, within an hour.
"""

import asyncio
import fcntl
import glob
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from cacheproxy.storage.blocking import in_thread, os_errors
from cacheproxy.storage.bucket import LocalFile
from cacheproxy.storage.files import READ, WRITE, unlink

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_MARK_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class _Total:
    boot: str
    size: int
    files: int

    @classmethod
    def read(cls, fd: int) -> "_Total | None":
        try:
            boot, size, files = os.pread(fd, 128, 0).decode().split()
            return cls(boot, int(size), int(files))
        except ValueError:
            return None

    def write(self, fd: int) -> None:
        """In one call and always as long, so that who is killed leaves the old one or the new."""
        os.pwrite(fd, f"{self.boot} {self.size:020} {self.files:020}\n".encode(), 0)


class Tier:
    """At most `limit_bytes` of entries in `folder`, which is made.

    Above 95 % of the limit the least recently used go, down to 90 %; the last 5 % are room for
    what comes in meanwhile. `observe` is told how many entries were evicted, and their bytes.
    Raises Unavailable if the folder cannot be used now; if it breaks later, there are misses.
    """

    def __init__(
        self,
        folder: str,
        limit_bytes: int,
        observe: Callable[[int, int], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.spool = os.path.join(folder, "spool")
        self._folder = folder
        self._blobs = os.path.join(folder, "blobs")
        self._state = os.path.join(folder, ".state")
        self.limit = limit_bytes
        self._high = limit_bytes - limit_bytes // 20
        self._low = limit_bytes - limit_bytes // 10
        self._observe = observe
        self._clock = clock
        self._boot = _boot()
        self._evicting: asyncio.Task[None] | None = None
        with os_errors:
            os.makedirs(self.spool, exist_ok=True)
            self._forget_earlier_boots()

    def open(self, key: str) -> LocalFile | None:
        """The entry, which stays readable until it is closed; None if there is none to be had."""
        try:
            fd = os.open(self._path(key), READ)
        except OSError:
            return None  # a broken tier is no reason to fail what the bucket can serve
        found = os.fstat(fd)
        now = self._clock()
        if abs(now - found.st_mtime) >= _MARK_SECONDS:  # also one from the future: clocks are set
            with suppress(OSError):
                os.utime(fd, (now, now))
        return LocalFile(fd, found.st_size)

    def admits(self, size: int) -> bool:
        """Whether a blob of `size` bytes may be brought in: it leaves room, and the disk has it."""
        with suppress(OSError):
            os.makedirs(self.spool, exist_ok=True)
            disk = os.statvfs(self.spool)
            return size <= min(self._low, disk.f_bavail * disk.f_frsize)
        return False

    async def admit(self, path: str, key: str, size: int) -> bool:
        """Make the file at `path`, which lies in the spool, the entry; False if that fails, and
        the file stays where it is.

        It has `size` bytes, and the caller has verified that they are the blob. Evicts, which may
        take seconds in a large tier, where that must come first; else that is begun, and not
        waited for.
        """
        entry = self._path(key)
        try:
            if size > self._low:
                return False
            total = await in_thread(self._enter, path, entry, size)
            if total is None:
                await self._evict(size)
                total = await in_thread(self._enter, path, entry, size)
            if total is not None and total > self._high:
                self._evict_soon()
            return total is not None
        except OSError:
            return False

    async def settle(self) -> None:
        """Wait for an eviction that was begun."""
        if self._evicting is not None:
            await asyncio.wait([self._evicting])

    async def usage(self) -> tuple[int, int]:
        """The running total: bytes and files. Raises Unavailable."""
        return await in_thread(self._usage)

    def _path(self, key: str) -> str:
        return f"{self._blobs}/{key}"

    def _forget_earlier_boots(self) -> None:
        with _locked(self._state) as state:
            if (total := _Total.read(state)) is None or total.boot != self._boot:
                with suppress(FileNotFoundError):
                    os.rename(self._blobs, f"{self._folder}/.gone-{uuid.uuid4().hex}")
                _Total(self._boot, 0, 0).write(state)
        for gone in glob.glob(f"{glob.escape(self._folder)}/.gone-*"):
            threading.Thread(target=shutil.rmtree, args=(gone, True), daemon=True).start()

    def _total(self, state: int) -> _Total:
        return _Total.read(state) or _Total(self._boot, *self._count(0)[:2])

    def _usage(self) -> tuple[int, int]:
        with os_errors, _locked(self._state) as state:
            total = self._total(state)
            return total.size, total.files

    def _enter(self, path: str, entry: str, size: int) -> int | None:
        """Rename the file; the total in bytes then, or None if the limit leaves no room for it."""
        with _locked(self._state) as state:
            total = self._total(state)
            replaced = _stat(entry)
            after = total.size + size - (replaced.st_size if replaced else 0)
            if after > self.limit:
                return None
            os.makedirs(os.path.dirname(entry), exist_ok=True)
            os.utime(path, (self._clock(),) * 2)
            _Total(self._boot, after, total.files + (replaced is None)).write(state)
            os.rename(path, entry)
            return after

    def _evict_soon(self) -> None:
        if self._evicting is None or self._evicting.done():
            self._evicting = asyncio.create_task(self._evict(0))

    async def _evict(self, room: int) -> None:
        """Evict down to the low mark less `room`, unless another is at it or the disk is broken."""
        removed, freed = await in_thread(self._shrink, self._low - room)
        if removed and self._observe is not None:
            self._observe(removed, freed)

    def _shrink(self, target: int) -> tuple[int, int]:
        try:
            with _locked(f"{self._folder}/.evicting", fcntl.LOCK_NB):
                with _locked(self._state) as state:
                    before = self._total(state)
                size, files, oldest = self._count(before.size - target)
                removed, freed = _remove(oldest, size - target)
                with _locked(self._state) as state:
                    # What came in since may have been counted or not; it is taken as if it was not.
                    now = self._total(state)
                    size += max(0, now.size - before.size) - freed
                    files += max(0, now.files - before.files) - removed
                    _Total(self._boot, size, files).write(state)
        except OSError:
            return 0, 0
        return removed, freed

    def _count(self, wanted: int) -> tuple[int, int, list[tuple[int, int, str]]]:
        """Bytes, files, and the least recently used (-time, bytes, path) that have `wanted` bytes.

        Only these are held in memory: a heap with the newest of them first.
        """
        total = files = held = 0
        oldest: list[tuple[int, int, str]] = []
        for path in _files(self._blobs):
            if (found := _stat(path)) is None:
                continue
            total += found.st_size
            files += 1
            heappush(oldest, (-found.st_mtime_ns, found.st_size, path))
            held += found.st_size
            while oldest and held - oldest[0][1] >= wanted:
                held -= heappop(oldest)[1]
        return total, files, oldest


def _boot() -> str:
    """What is the same until the machine starts again; where that is unknown, never the same."""
    with suppress(OSError), open(_BOOT_ID) as file:
        return file.read().strip()
    return str(uuid.uuid4())


@contextmanager
def _locked(path: str, flags: int = 0) -> Iterator[int]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, WRITE, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | flags)
        yield fd
    finally:
        os.close(fd)


def _files(folder: str) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield os.path.join(parent, name)


def _stat(path: str) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return os.stat(path)
    return None


def _remove(oldest: list[tuple[int, int, str]], excess: int) -> tuple[int, int]:
    """Remove the oldest first until `excess` bytes are freed; how many files, how many bytes."""
    removed = freed = 0
    for _, size, path in sorted(oldest, reverse=True):
        if freed >= excess:
            break
        unlink(path)
        removed += 1
        freed += size
    return removed, freed
