"""Plans of parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.storage.s3.parts import (
    LEAST_PART_BYTES,
    MIB,
    MOST_PARTS,
    Copy,
    Piece,
    Send,
    part_size,
    plan,
)

_LEAST = LEAST_PART_BYTES
_SIZE = st.one_of(
    st.sampled_from([0, 1, _LEAST - 1, _LEAST, _LEAST + 1, 2 * _LEAST, 2 * _LEAST - 1]),
    st.integers(0, 2 * _LEAST),
    st.integers(0, 100 * _LEAST),
)
_SIZES = st.lists(_SIZE, max_size=12)
_LIMIT = st.integers(2 * _LEAST, 20 * _LEAST)


@given(_SIZES, _LIMIT)
def test_a_plan_takes_every_byte_once_and_in_order(sizes: list[int], limit: int) -> None:
    """The parts of the result, one behind the other, are the sources, one behind the other."""
    steps = plan(sizes, limit)
    pieces = [piece for step in steps for piece in _pieces(step)]
    sources = [Piece(number, 0, size) for number, size in enumerate(sizes) if size]

    assert _merged(pieces) == sources


@given(_SIZES, _LIMIT)
def test_steps_of_a_plan_are_as_s3_wants_parts(sizes: list[int], limit: int) -> None:
    """None but the last is too small, no copy too large, and there is one at least."""
    steps = plan(sizes, limit)

    assert steps
    assert all(step.length >= _LEAST for step in steps[:-1])
    assert all(step.length <= limit for step in steps if isinstance(step, Copy))


@given(_SIZES, _LIMIT)
def test_only_of_large_sources_a_range_is_copied(sizes: list[int], limit: int) -> None:
    """S3 copies a smaller one whole or not at all."""
    for step in plan(sizes, limit):
        if isinstance(step, Copy) and step.length < sizes[step.piece.source]:
            assert sizes[step.piece.source] > _LEAST


@given(_SIZES, _LIMIT)
def test_what_is_sent_is_bounded(sizes: list[int], limit: int) -> None:
    """Beyond the small sources only what fills their parts up is sent, and little at a time."""
    sends = [step for step in plan(sizes, limit) if isinstance(step, Send)]
    small = sum(size for size in sizes if size < _LEAST)

    assert all(step.length < 2 * _LEAST for step in sends)
    assert sum(step.length for step in sends) <= small + 2 * _LEAST * len(sends)
    if all(size >= _LEAST for size in sizes[:-1]) and any(sizes):
        assert not sends


@pytest.mark.parametrize("size", [6 * MIB, _LEAST - 1, 300 * MIB])
def test_a_plan_of_many_sources_has_no_more_parts_than_s3_takes(size: int) -> None:
    """An upload in 30,000 chunks can be completed."""
    assert len(plan([size] * 30_000, 5 << 30)) <= MOST_PARTS


def test_of_small_neighbours_a_part_is_sent_and_the_rest_copied() -> None:
    """Only what a small source lacks is taken from the next one."""
    assert plan([3, 20 * MIB, 7], 5 << 30) == [
        Send((Piece(0, 0, 3), Piece(1, 0, _LEAST - 3))),
        Copy(Piece(1, _LEAST - 3, 20 * MIB - _LEAST + 3)),
        Copy(Piece(2, 0, 7)),
    ]


@pytest.mark.parametrize(
    ("length", "size"),
    [(None, 16 * MIB), (0, 16 * MIB), (10_000 * 16 * MIB, 16 * MIB), (160_001 * MIB, 17 * MIB)],
)
def test_parts_grow_with_what_was_announced(length: int | None, size: int) -> None:
    """So that there are never more of them than S3 takes."""
    assert part_size(length, 16 * MIB) == size


def _pieces(step: Copy | Send) -> tuple[Piece, ...]:
    return (step.piece,) if isinstance(step, Copy) else step.pieces


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Pieces of one source that follow each other, as one."""
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if last and last.source == piece.source and last.start + last.length == piece.start:
            merged[-1] = Piece(last.source, last.start, last.length + piece.length)
        else:
            merged.append(piece)
    return merged
