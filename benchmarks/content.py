"""Bytes to push, in memory, that no registry has seen before."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from typing import Final

_FRESH_BYTES: Final = 16
_RANDOM_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Body:
    """One blob: the bytes in the file `fd`, and `end`."""

    digest: str
    size: int
    fd: int
    end: bytes

    def send(self, connection: socket.socket, start: int = 0, count: int | None = None) -> None:
        """Send `count` bytes from `start` on, by default all; the kernel copies them."""
        stop = self.size if count is None else min(self.size, start + count)
        kept = self.size - len(self.end)
        while start < min(stop, kept):
            start += os.sendfile(connection.fileno(), self.fd, start, min(stop, kept) - start)
        connection.sendall(self.end[start - kept : stop - kept] if stop > kept else b"")

    def bytes(self) -> bytes:
        """All of it."""
        return os.pread(self.fd, self.size - len(self.end), 0) + self.end


class Content:
    """Makes bodies of one size that differ in their last bytes, so that a digest costs little."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._fd = os.memfd_create("benchmark", os.MFD_CLOEXEC)
        self._hash = hashlib.sha256()
        kept = size - _FRESH_BYTES
        chance = os.urandom(min(kept, _RANDOM_BYTES))
        for start in range(0, kept, _RANDOM_BYTES):
            part = chance[: kept - start]
            os.pwrite(self._fd, part, start)
            self._hash.update(part)

    def fresh(self) -> Body:
        """A body that was never made before."""
        end = os.urandom(_FRESH_BYTES)
        digest = self._hash.copy()
        digest.update(end)
        return Body(f"sha256:{digest.hexdigest()}", self.size, self._fd, end)

    def close(self) -> None:
        os.close(self._fd)
