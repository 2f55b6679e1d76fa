"""Plans of multipart uploads: how large parts are, and how objects are joined within the limits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20
MOST_PARTS: Final = 10_000
LEAST_PART_BYTES: Final = 5 * MIB
"""Of every part but the last."""

# A plan whose pieces are no smaller than this share of the whole has no more than MOST_PARTS.
_SHARES: Final = 9_000


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` bytes from byte `start` on of source number `source`."""

    source: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Copy:
    """A part that the bucket takes from one of its own objects."""

    piece: Piece

    @property
    def length(self) -> int:
        return self.piece.length


@dataclass(frozen=True, slots=True)
class Send:
    """A part that is put together here, since its pieces are too small to be parts."""

    pieces: tuple[Piece, ...]

    @property
    def length(self) -> int:
        return sum(piece.length for piece in self.pieces)


Step = Copy | Send


def part_size(length: int | None, part_bytes: int) -> int:
    """How large the parts of an object of `length` bytes are, which may not be known."""
    needed = -(-(length or 0) // MOST_PARTS)
    return max(part_bytes, -(-needed // MIB) * MIB)


def plan(sizes: Sequence[int], copy_bytes: int) -> list[Step]:
    """How to join sources of these sizes: the parts of the result in order, one at least.

    Every step but the last has `LEAST_PART_BYTES`, no copy more than `copy_bytes`, which is twice
    that or more. What is sent is short of twice the least for each run of small sources, and the
    small sources themselves; it never borrows from a source that is not next to it.
    """
    least = max(LEAST_PART_BYTES, -(-sum(sizes) // _SHARES))
    filled = [number for number, size in enumerate(sizes) if size]
    steps: list[Step] = []
    waiting: list[Piece] = []
    for number in filled:
        size, last = sizes[number], number == filled[-1]
        missing = max(0, least - sum(piece.length for piece in waiting)) if waiting else 0
        copied = size - missing
        # S3 copies a range only of sources that are larger than the least part.
        uncut = bool(waiting) and size <= LEAST_PART_BYTES
        if copied <= 0 or uncut or (copied < least and not last):
            waiting.append(Piece(number, 0, size))
            if size >= missing > 0:
                steps.append(Send(tuple(waiting)))
                waiting = []
            continue
        if waiting:
            steps.append(Send((*waiting, Piece(number, 0, missing))))
            waiting = []
        steps += _copies(number, missing, copied, max(copy_bytes, 2 * least))
    if waiting or not steps:
        steps.append(Send(tuple(waiting)))
    return steps


def _copies(source: int, start: int, length: int, most: int) -> Iterator[Copy]:
    """Copies of almost equal size, so that none is too small."""
    count = -(-length // most)
    for number in range(count):
        first, end = (length * each // count for each in (number, number + 1))
        yield Copy(Piece(source, start + first, end - first))
