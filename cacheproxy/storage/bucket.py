"""The Bucket: all that cacheproxy asks of the place where its bytes are kept.

A bucket maps keys (paths of components that do not begin with a dot, joined by `/`) to objects:
immutable bytes with a small map of strings. Every implementation keeps these promises, and
`tests/storage/test_bucket_contract.py` holds it to them:

- Absent is None. What fails in any other way raises `Unavailable`, or `StorageFull`.
- A write is all or nothing: nothing is visible before it is complete and durable, and a writer
  that is cancelled, fails or dies leaves the key as it was.
- What a write has returned from survives a crash of the machine.
- `list` yields keys in the order of their code points.
"""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self


@dataclass(frozen=True, slots=True)
class Stored:
    """A small object read whole. `version` names these very bytes for a conditional write."""

    data: bytes
    metadata: Mapping[str, str]
    version: str


class LocalFile:
    """An object opened for reading: `size` bytes behind the descriptor `fd`.

    The bytes stay readable until `close`, even when the object is deleted or replaced meanwhile.
    """

    __slots__ = ("fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size

    def fileno(self) -> int:
        return self.fd

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset` on; fewer only at the end. Blocks."""
        return os.pread(self.fd, length, offset)

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Match:
    """A condition on a write: the object is this version, or absent where `version` is None."""

    version: str | None


ABSENT = Match(None)


class Bucket(Protocol):
    async def head(self, key: str) -> int | None:
        """The object's size in bytes."""

    async def read(self, key: str) -> Stored | None:
        """A small object whole (records and manifests, some MiB at most)."""

    async def open(self, key: str) -> LocalFile | None:
        """The object's bytes; the caller closes it."""

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        match: Match | None = None,
    ) -> None:
        """Write a small object.

        Raises:
            Conflict: `match` does not hold.
        """

    async def adopt(self, path: str, key: str, *, absent: bool = False) -> None:
        """Make the file at `path`, in the bucket's spool folder, the object, and no longer a file.

        Raises:
            Conflict: the object was to be `absent` and is not; otherwise it is replaced.
        """

    async def join(self, parts: Sequence[str], key: str) -> None:
        """Make the concatenation of the objects `parts` the object `key`; the parts stay."""

    async def delete(self, key: str, *, match: Match | None = None) -> bool:
        """Delete the object; False if it was absent.

        Raises:
            Conflict: `match` does not hold.
        """

    def list(self, prefix: str, *, after: str = "", folders: bool = False) -> AsyncIterator[str]:
        """The keys that begin with `prefix`, which ends in `/`, and sort behind `after`.

        With `folders`, only what lies directly under the prefix: keys, and prefixes ending in `/`
        for all that lies deeper.
        """

    async def ping(self) -> None:
        """Return if the bucket can be read and written now. Raises Unavailable."""
