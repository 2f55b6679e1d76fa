"""A Bucket in a local folder.

    <root>/<key>               the bytes of an object
    <root>/<...>/.<name>.json  its metadata, where it has any: there before and after it
    <root>/.spool/             files on their way to become objects; emptied at start
    <root>/.lock               held by the server that owns the folder
    <root>/.locks/             one file per stripe of keys, held during a conditional write; and
                               one that is held, shared, by commands that write beside the owner

No component of a key begins with a dot, so none of these collides with a key.

An object appears by rename(2) of a complete, synced file, and the write returns when the folder
that holds the new name is synced too. Looking at a local file is quicker than a hop to a thread,
so `head`, `read` and `open` block the event loop for some microseconds; whatever syncs does not.
"""

import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import islice
from typing import Final

from cacheproxy.errors import Conflict
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.blocking import in_thread, os_errors
from cacheproxy.storage.bucket import ABSENT, Head, Listed, LocalFile, Match, Stored, Upload
from cacheproxy.storage.deadline import Deadline
from cacheproxy.storage.files import (
    CREATE,
    READ,
    append,
    is_at,
    open_if_there,
    publish,
    pusher_of,
    read_all,
    read_file,
    set_pusher,
    sync_folder,
    try_lock,
    unlink,
    write_all,
)

_STRIPES: Final = 64
_LIST_BATCH: Final = 1000


class FolderInUse(Exception):
    """Another server owns the folder."""


class FolderBucket:
    """See `Bucket` for the promises; `root` must exist."""

    local = True

    def __init__(self, root: str) -> None:
        self._root = os.path.abspath(root)
        self.spool = os.path.join(self._root, ".spool")
        self._locks = os.path.join(self._root, ".locks")
        self._visitors = os.path.join(self._locks, "visitors")
        with os_errors:
            os.makedirs(self.spool, exist_ok=True)
            os.makedirs(self._locks, exist_ok=True)

    def claim(self) -> int:
        """Own the folder until the returned descriptor, and every copy of it, is closed.

        What a dead owner left in the spool is removed.

        Raises:
            FolderInUse: another server owns it.
        """
        with os_errors:
            lock = os.open(os.path.join(self._root, ".lock"), os.O_RDWR | os.O_CREAT, 0o644)
        if not try_lock(lock):
            os.close(lock)
            raise FolderInUse(f"{self._root} is in use by another cacheproxy")
        self._clean()
        return lock

    def visit(self) -> int:
        """Write beside whoever owns the folder until the returned descriptor is closed."""
        with os_errors:
            visit = os.open(self._visitors, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(visit, fcntl.LOCK_SH)
        return visit

    def _clean(self) -> None:
        """Empty the spool, unless a visitor may be writing there; then the next owner does."""
        with os_errors:
            visit = os.open(self._visitors, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if try_lock(visit):
                for left_over in os.scandir(self.spool):
                    os.unlink(left_over.path)
        finally:
            os.close(visit)

    async def head(self, key: str) -> Head | None:
        path = self._path(key)
        with os_errors:
            try:
                return Head(os.stat(path).st_size, pusher_of(path))
            except (FileNotFoundError, NotADirectoryError):
                return None

    async def read(self, key: str, known: Stored | None = None) -> Stored | None:
        with os_errors:
            return _read_stored(self._path(key))

    async def open(self, key: str, part: ByteRange | None = None) -> LocalFile | None:
        with os_errors:
            try:
                fd = os.open(self._path(key), READ)
            except (FileNotFoundError, NotADirectoryError):
                return None
            return LocalFile(fd, os.fstat(fd).st_size)

    async def url(self, key: str, seconds: int) -> None:
        """Files have no URL."""

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        match: Match | None = None,
    ) -> None:
        await in_thread(self._put, self._path(key), data, metadata, match)

    @asynccontextmanager
    async def upload(
        self, path: str, key: str, length: int | None, pusher: str = ""
    ) -> AsyncIterator[Upload]:
        set_pusher(path, pusher)
        yield _Rename(partial(self._adopt, path, self._path(key)))

    async def join(self, parts: Sequence[Listed], key: str, pusher: str = "") -> None:
        sources = [self._path(part.key) for part in parts]
        await in_thread(self._join, sources, self._path(key), pusher)

    async def delete(self, key: str, *, match: Match | None = None) -> None:
        await in_thread(self._delete, self._path(key), match)

    async def deletion(self, key: str, seconds: int) -> Callable[[], Awaitable[None]]:
        deadline = Deadline(seconds)
        return partial(in_thread, self._delete, self._path(key), None, deadline)

    async def list(
        self, prefix: str, *, after: str = "", folders: bool = False
    ) -> AsyncIterator[Listed]:
        folder = self._path(prefix)
        if not os.path.isdir(folder):
            return
        found = _walk(folder, prefix, after, folders)
        while batch := await in_thread(_take, found):
            for listed in batch:
                yield listed

    async def now(self) -> float:
        return time.time()

    async def ping(self) -> None:
        await in_thread(self._probe)

    async def sweep(self, seconds: float) -> int:
        """Nothing: whoever claims the folder finds what its dead owner left."""
        return 0

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _put(
        self, path: str, data: bytes, metadata: Mapping[str, str] | None, match: Match | None
    ) -> None:
        with os_errors, self._staged(data) as object_, self._condition(path, match, bool(metadata)):
            if metadata:
                with self._staged(json.dumps(dict(metadata)).encode()) as beside:
                    publish(beside, _metadata_path(path), self._root)
            publish(object_, path, self._root)
            if not metadata:
                unlink(_metadata_path(path))

    @contextmanager
    def _staged(self, data: bytes) -> Iterator[str]:
        """A synced file in the spool, removed on exit unless it was published."""
        temporary = self._temporary()
        try:
            fd = os.open(temporary, CREATE, 0o644)
            try:
                write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            yield temporary
        finally:
            unlink(temporary)

    def _adopt(self, source: str, path: str, absent: bool) -> None:
        match = ABSENT if absent else None
        with os_errors, self._condition(path, match):
            fd = os.open(source, READ)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            publish(source, path, self._root)
            unlink(_metadata_path(path))

    def _join(self, parts: Sequence[str], path: str, pusher: str) -> None:
        temporary = self._temporary()
        try:
            with os_errors:
                fd = os.open(temporary, CREATE, 0o644)
                try:
                    set_pusher(fd, pusher)
                    for part in parts:
                        append(fd, part)
                    os.fsync(fd)
                finally:
                    os.close(fd)
                publish(temporary, path, self._root)
                unlink(_metadata_path(path))
        except BaseException:
            unlink(temporary)
            raise

    def _delete(self, path: str, match: Match | None, deadline: Deadline | None = None) -> None:
        with os_errors, self._condition(path, match, locked=True):
            if (deadline is not None and deadline.is_over()) or not unlink(path):
                return
            unlink(_metadata_path(path))
            sync_folder(os.path.dirname(path))
        self._prune(os.path.dirname(path))

    def _prune(self, folder: str) -> None:
        """Remove folders that became empty, up to the root, so that listings stay short."""
        with suppress(OSError):  # not empty: something lives there, or is just being written
            while folder != self._root:
                os.rmdir(folder)
                folder = os.path.dirname(folder)

    @contextmanager
    def _condition(self, path: str, match: Match | None, locked: bool = False) -> Iterator[None]:
        """Hold the key's stripe while the condition is checked and acted upon.

        It is held without a condition if `locked`, so that a delete takes no metadata from an
        object that is put beside it.
        """
        if match is None and not locked:
            yield
            return
        key = path[len(self._root) :]  # the folder may have another name for another process
        stripe = int.from_bytes(hashlib.sha256(key.encode()).digest()[:2]) % _STRIPES
        fd = os.open(os.path.join(self._locks, str(stripe)), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if match is not None and not _matches(path, match):
                raise Conflict(path)
            yield
        finally:
            os.close(fd)

    def _probe(self) -> None:
        with os_errors:
            probe = self._temporary()
            os.close(os.open(probe, CREATE, 0o644))
            os.unlink(probe)

    def _temporary(self) -> str:
        return os.path.join(self.spool, uuid.uuid4().hex)


class _Rename:
    """The upload of a file that is here already."""

    sent = 0

    def __init__(self, adopt: Callable[[bool], None]) -> None:
        self._adopt = adopt

    async def wrote(self, size: int) -> None:
        """Nothing goes ahead of the rename."""

    async def commit(self, digest: Digest | None, size: int, *, absent: bool = False) -> None:
        await in_thread(self._adopt, absent)


def _metadata_path(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.json"


def _read_stored(path: str) -> Stored | None:
    while True:
        fd = open_if_there(path)
        if fd is None:
            return None
        try:
            data = read_all(fd)
            metadata = read_file(_metadata_path(path))
            # Metadata goes after its object, so without any the object must still be this one.
            if metadata is not None or is_at(fd, path):
                found = {} if metadata is None else json.loads(metadata)
                return Stored(data, found, _version(data))
        finally:
            os.close(fd)


def _matches(path: str, match: Match) -> bool:
    if match.version is None:
        return not os.path.lexists(path)  # without a read: what is there may be large
    data = read_file(path)
    return data is not None and _version(data) == match.version


def _version(data: bytes) -> str:
    """Equal bytes are an equal version: a record says all there is to its state."""
    return hashlib.sha256(data).hexdigest()


def _take(found: Iterator[Listed]) -> list[Listed]:
    with os_errors:
        return list(islice(found, _LIST_BATCH))


def _walk(folder: str, prefix: str, after: str, folders: bool) -> Iterator[Listed]:
    """In the order of code points; sub-trees that sort before `after` are not entered."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(
                (entry.name + "/", 0, 0.0) if entry.is_dir() else (entry.name, *_stat(entry))
                for entry in entries
                if not entry.name.startswith(".")
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, size, modified in found:
        key = prefix + name
        if not name.endswith("/") or folders:
            if key > after:
                yield Listed(key, size, modified)
        elif key > after or after.startswith(key):
            yield from _walk(f"{folder}/{name}", key, after, folders)


def _stat(entry: os.DirEntry[str]) -> tuple[int, float]:
    try:
        found = entry.stat()
    except FileNotFoundError:
        return 0, 0.0  # deleted while it was listed
    return found.st_size, found.st_mtime
