"""Bytes that came together."""

import os
from collections.abc import Iterator, Sequence
from typing import Final

from cacheproxy.oci.digest import Hasher

_MANY: Final = 16
"""Of more pieces each is small, and to put them together costs less than to take care of each."""


class Pieces:
    """Bytes in the pieces in which they came, since to put large ones together is to copy them."""

    __slots__ = ("_pieces", "size")

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces if len(pieces) <= _MANY else [b"".join(pieces)]
        self.size = sum(map(len, pieces))

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def __bytes__(self) -> bytes:
        return b"".join(self._pieces)

    def part(self, start: int, end: int) -> "Pieces":
        if start == 0 and end >= self.size:
            return self
        return Pieces([bytes(self)[start:end]])

    def hash(self, hasher: Hasher) -> None:
        for piece in self._pieces:
            hasher.update(piece)

    def write_at(self, fd: int, offset: int) -> None:
        written = os.pwritev(fd, self._pieces, offset)
        if written < self.size:  # the disk is full, or a signal came
            rest = memoryview(bytes(self))[written:]
            while rest:
                count = os.pwrite(fd, rest, offset + self.size - len(rest))
                rest = rest[count:]
