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
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import ClassVar, Protocol, Self

from cacheproxy.oci.digest import Digest
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.files import pusher_of
from cacheproxy.storage.pieces import Pieces


@dataclass(frozen=True, slots=True)
class Match:
    """A condition on a write: the object is this version, or absent where `version` is None."""

    version: str | None


ABSENT = Match(None)


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of an object without its bytes: how many these are, and who uploaded it, where
    the bucket still knows."""

    size: int
    pusher: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A small object read whole. `version` names these very bytes for a conditional write."""

    data: bytes
    metadata: Mapping[str, str]
    version: str

    @property
    def match(self) -> Match:
        """The condition that the object still is this one."""
        return Match(self.version)


@dataclass(frozen=True, slots=True)
class Listed:
    """An object of a listing and its size in bytes, or a prefix that ends in `/`, without one.

    `modified` is when the object was written, in seconds since 1970 by the clock of the bucket.
    """

    key: str
    size: int = 0
    modified: float = field(default=0.0, compare=False)


class Origin(Enum):
    """Where the bytes of a file come from."""

    DISK = "disk"
    """They were here."""
    FILL = "fill"
    """They are brought here for this reader."""
    COALESCED = "coalesced"
    """They are brought here for an earlier one."""
    BUCKET = "bucket"
    """They pass through."""


class LocalFile:
    """An object opened for reading: `size` bytes behind the descriptor `fd`.

    The bytes stay readable until `close`, even when the object is deleted or replaced meanwhile.
    """

    __slots__ = ("fd", "origin", "size")

    verified: ClassVar[bool] = True
    """Whether the size is that of what was verified, and not only what a bucket has just said."""

    def __init__(self, fd: int, size: int, origin: Origin = Origin.DISK) -> None:
        self.fd = fd
        self.size = size
        self.origin = origin

    @property
    def pusher(self) -> str:
        """Who uploaded it, where that is known."""
        return pusher_of(self.fd)

    def fileno(self) -> int:
        return self.fd

    async def ready(self, offset: int) -> int:
        """Up to which byte the file can be read; more than `offset`, unless that is the end."""
        return self.size

    def again(self) -> "LocalFile":
        """The same bytes by a descriptor of its own; the caller closes it."""
        return LocalFile(os.dup(self.fd), self.size)

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


class Stream(Protocol):
    """An object, or a part of one, on its way here: of `size` bytes in all, `length` will come.

    It is a `content.spool.Body`. Bytes that do not come as announced raise `Unavailable`.
    """

    size: int
    length: int | None
    pusher: str

    def batches(self) -> AsyncGenerator[Pieces, None]:
        """Non-empty batches, `length` bytes together."""

    def close(self) -> None:
        """Let go of what it comes from, also in the middle."""


class Upload(Protocol):
    """A local file that grows and then becomes an object. Nobody else changes it."""

    @property
    def sent(self) -> int:
        """Up to which byte the file is not needed any more."""

    async def wrote(self, size: int) -> None:
        """The file has `size` bytes now, which may be sent ahead. Waits if many are under way."""

    async def commit(self, digest: Digest | None, size: int, *, absent: bool = False) -> None:
        """Make the file, complete now and of this size and digest, if known, the object.

        Raises:
            Conflict: the object was to be `absent` and is not; otherwise it is replaced.
        """


class Observe(Protocol):
    """Is told of each request that a bucket far away was sent."""

    def __call__(
        self, operation: str, seconds: float, status: int, sent: int, received: int
    ) -> None:
        """`status` is 0 without an answer, `sent` and `received` are bytes of bodies."""


class Bucket(Protocol):
    local: bool
    """Whether objects are files here. Then `open` gives a LocalFile, else a Stream."""

    async def head(self, key: str) -> Head | None:
        """What is known of the object without reading it."""

    async def read(self, key: str, known: Stored | None = None) -> Stored | None:
        """A small object whole (records and manifests, some MiB at most).

        `known`, from an earlier read, is given back where it still is what is there: that is
        asked for, not assumed, but costs no transfer.
        """

    async def open(self, key: str, part: ByteRange | None = None) -> "LocalFile | Stream | None":
        """The object's bytes, whole or a part that it has; the caller closes it."""

    async def url(self, key: str, seconds: int) -> str | None:
        """Where whoever has this URL can GET the object for so long, if the bucket has that."""

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

    def upload(
        self, path: str, key: str, length: int | None, pusher: str = ""
    ) -> AbstractAsyncContextManager[Upload]:
        """Let the file at `path` become the object `key`; of `length` bytes, where that is known.
        It comes from `pusher`, which is for people to know: buckets may forget it.

        Without commit nothing of it is left on exit. A bucket of files may take the file itself,
        which then is no longer at `path`.
        """

    async def join(self, parts: Sequence[Listed], key: str, pusher: str = "") -> None:
        """Make the concatenation of the objects `parts` the object `key`, which comes from
        `pusher`; the parts stay."""

    async def delete(self, key: str, *, match: Match | None = None) -> None:
        """Delete the object, if it is there.

        Raises:
            Conflict: `match` does not hold.
        """

    async def deletion(self, key: str, seconds: int) -> Callable[[], Awaitable[None]]:
        """A request to delete the object that is good for so long from now, wherever it is held up
        meanwhile: what comes to the bucket later does nothing. Calling it makes one attempt.

        Without it, a process that was paused could delete what was written while it slept.
        """

    def list(self, prefix: str, *, after: str = "", folders: bool = False) -> AsyncIterator[Listed]:
        """The objects whose keys begin with `prefix`, which ends in `/`, and sort behind `after`.

        With `folders`, only what lies directly under the prefix: objects, and prefixes ending in
        `/` for all that lies deeper.
        """

    async def now(self) -> float:
        """Seconds since 1970 by the clock of the bucket, to a second or so."""

    async def ping(self) -> None:
        """Return if the bucket can be read and written now. Raises Unavailable."""

    async def sweep(self, seconds: float) -> int:
        """Remove what writers left that died at least so long ago; returns how much that was."""
