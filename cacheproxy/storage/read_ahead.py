"""Reading ahead: how much of a body gathers in memory while the disk takes what came before."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from cacheproxy.storage.pieces import Pieces

# For one body, and for all together. A batch on its way to the disk and one that gathers behind it
# are up to twice as long each.
_BYTES: Final = 1 << 20
_TOTAL: Final = 8 << 20


class Content(Protocol):
    """A body from its beginning, as aiohttp gives it; `total_bytes` of it have come."""

    total_bytes: int

    def set_read_chunk_size(self, n: int, /) -> None:
        """Have so many bytes gather before the sender is stopped."""

    async def readchunk(self) -> tuple[bytes, bool]:
        """The next piece, which may be empty: so is all that comes after the end."""

    def at_eof(self) -> bool:
        """Whether all has been read."""


class ReadAhead:
    """Large batches cost fewer hops to threads, many bodies at once cost memory: whoever begins
    gets a share of what is there for all."""

    def __init__(self) -> None:
        self._running = 0

    @contextmanager
    def share(self) -> Iterator[int]:
        """How many bytes to read ahead for one more body."""
        self._running += 1
        try:
            yield min(_BYTES, _TOTAL // self._running)
        finally:
            self._running -= 1

    async def batches(self, content: Content) -> AsyncGenerator[Pieces, None]:
        """All of a body: each batch is what has gathered since the last one."""
        with self.share() as ahead:
            content.set_read_chunk_size(ahead)
            taken = 0
            while first := await _next_piece(content):
                pieces, size = [first], len(first)
                gathered = content.total_bytes - taken  # more may come while it is taken
                while size < gathered:
                    piece, _ = await content.readchunk()
                    pieces.append(piece)
                    size += len(piece)
                taken += size
                yield Pieces(pieces)


async def _next_piece(content: Content) -> bytes:
    """Empty only at the end of all."""
    while True:
        piece, _ = await content.readchunk()
        if piece or content.at_eof():
            return piece
