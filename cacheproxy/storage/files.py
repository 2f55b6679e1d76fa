"""Files: what is asked of the kernel, where it takes more than one call."""

import ctypes
import fcntl
import os
from contextlib import suppress
from typing import Final

READ: Final = os.O_RDONLY | os.O_CLOEXEC
WRITE: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
CREATE: Final = WRITE | os.O_EXCL

_libc: Final = ctypes.CDLL(None, use_errno=True)  # Python has no name for fallocate(2)
_PUNCH_HOLE_KEEP_SIZE: Final = 0x03

_COPY_BYTES: Final = 1 << 30

_PUSHER: Final = "user.cacheproxy.pusher"


def open_if_there(path: str) -> int | None:
    try:
        return os.open(path, READ)
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_file(path: str) -> bytes | None:
    fd = open_if_there(path)
    if fd is None:
        return None
    try:
        return read_all(fd)
    finally:
        os.close(fd)


def read_all(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    data = os.read(fd, size + 1)
    while len(data) < size and (more := os.read(fd, size - len(data))):
        data += more
    return data


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def try_lock(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock the file without waiting, until it is closed; tell whether nobody else has it."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def append(fd: int, part: str) -> None:
    source = os.open(part, READ)
    try:
        while os.copy_file_range(source, fd, _COPY_BYTES):
            pass
    finally:
        os.close(source)


def is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def publish(temporary: str, path: str, root: str) -> None:
    """Give a synced file its name, durably, in a folder below `root` that is made if need be.

    The folder, or one above it, may vanish before the rename when it is found empty by who prunes.
    """
    folder = os.path.dirname(path)
    while True:
        try:
            os.makedirs(folder, exist_ok=True)
            os.rename(temporary, path)
        except FileNotFoundError:
            if not os.path.exists(temporary):
                raise
        except FileExistsError:  # it was there, and a moment later it was not, says makedirs
            if os.path.isfile(folder):
                raise
        else:
            break
    # All of them: another writer may have made one just now, and not synced the one above yet.
    while len(folder) >= len(root):
        sync_folder(folder)
        folder = os.path.dirname(folder)


def sync_folder(folder: str) -> None:
    try:
        fd = os.open(folder, READ | os.O_DIRECTORY)
    except FileNotFoundError:
        return  # pruned by another writer, so there is no name in it to keep
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def punch(fd: int, offset: int, length: int) -> None:
    """Give a part of a file back to the disk; it then reads as zeros."""
    if _libc.fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def set_pusher(file: int | str, pusher: str) -> None:
    """Note who a file comes from. Not every file system has room for that."""
    if pusher:
        with suppress(OSError):
            os.setxattr(file, _PUSHER, pusher.encode())


def pusher_of(file: int | str) -> str:
    """Who a file comes from, as far as that was noted."""
    try:
        return os.getxattr(file, _PUSHER).decode(errors="replace")
    except OSError:
        return ""
