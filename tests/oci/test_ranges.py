"""Byte ranges of blobs and of upload chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import BlobUploadInvalid, RangeNotSatisfiable
from cacheproxy.oci.ranges import MAX_RANGES, ByteRange, parse_chunk_range, parse_ranges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=2-5", [(2, 4)]),
        ("bytes=9-9", [(9, 1)]),
        ("bytes=4-", [(4, 6)]),
        ("bytes=0-", [(0, 10)]),
        ("bytes=-3", [(7, 3)]),
        ("bytes=-99", [(0, 10)]),
        ("bytes=8-99", [(8, 2)]),
        ("bytes=0-9999999999999999999", [(0, 10)]),
        ("bytes=0-1,4-5", [(0, 2), (4, 2)]),
        ("bytes=4-5, 0-1 ,-1", [(4, 2), (0, 2), (9, 1)]),
        ("bytes=0-1,20-30", [(0, 2)]),
        ("Bytes=0-1", [(0, 2)]),
    ],
)
def test_range_of_ten_bytes_is_understood(header: str, expected: list[tuple[int, int]]) -> None:
    """Single, open-ended, suffix and several ranges, cut to what is there, in their order."""
    assert parse_ranges(header, 10) == [ByteRange(*each) for each in expected]


@pytest.mark.parametrize(
    "header",
    [
        *("bytes=10-", "bytes=10-20", "bytes=-0", "bytes=20-30,40-50", "bytes=5-4"),
        *("bytes=0-1,5-4", "bytes", "bytes=", "bytes=a-b", "bytes=1", "bytes=-", "bytes=--1"),
        *("bytes=0x1-2", "bytes=1-2-3", "bytes=\u0661-\u0662"),
        *(f"bytes=0-{'9' * 20}", f"bytes={'9' * 5000}-"),
    ],
)
def test_range_without_a_byte_or_a_sense_is_refused(header: str) -> None:
    """Beyond the end, reversed and malformed ranges get 416, which tells the size."""
    with pytest.raises(RangeNotSatisfiable) as refused:
        parse_ranges(header, 10)

    assert refused.value.size == 10


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_range_of_an_empty_blob_is_refused(header: str) -> None:
    """No range holds a byte where there is none."""
    with pytest.raises(RangeNotSatisfiable):
        parse_ranges(header, 0)


@pytest.mark.parametrize(
    "header", ["items=0-1", "", "0-1", "bytes=0-9,0-0", "bytes=0-,0-", "bytes=-6,-6"]
)
def test_range_in_another_unit_or_of_more_than_there_is_is_ignored(header: str) -> None:
    """RFC 9110, 14.2: another unit is none of ours; overlapping is how one byte asks for many."""
    assert parse_ranges(header, 10) is None


def test_range_number_1024_is_the_last() -> None:
    """As many as the limit are answered, one more makes the header ignored."""
    many = [f"{2 * number}-{2 * number}" for number in range(MAX_RANGES + 1)]

    assert len(parse_ranges("bytes=" + ",".join(many[1:]), 10_000) or []) == MAX_RANGES
    assert parse_ranges("bytes=" + ",".join(many), 10_000) is None


@given(start=st.integers(0, 10**18), length=st.integers(1, 10**18), beyond=st.integers(0, 10**18))
def test_range_that_is_told_is_the_one_that_was_asked_for(
    start: int, length: int, beyond: int
) -> None:
    """Content-Range names the bytes of a range inside of the content as they were asked for."""
    size = start + length + beyond
    [found] = parse_ranges(f"bytes={start}-{start + length - 1}", size) or []

    assert found.content_range(size) == f"bytes {start}-{start + length - 1}/{size}"


@given(size=st.integers(0, 50), text=st.text(alphabet="0123456789-, =", max_size=20))
def test_range_of_any_text_lies_within_or_is_refused(size: int, text: str) -> None:
    """Whatever is asked for, no range leaves the content, and together they are no longer."""
    try:
        ranges = parse_ranges("bytes=" + text, size)
    except RangeNotSatisfiable:
        return

    assert all(0 <= each.start <= each.last < size for each in ranges or [])
    assert sum(each.length for each in ranges or []) <= size


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("0-0", (0, 1)),
        ("0-9", (0, 10)),
        ("10-19", (10, 10)),
        (" 10-19 ", (10, 10)),
        ("bytes 10-19/20", (10, 10)),
        ("bytes=10-19", (10, 10)),
        ("bytes 10-19/*", (10, 10)),
    ],
)
def test_chunk_range_in_the_forms_of_clients_is_understood(
    header: str, expected: tuple[int, int]
) -> None:
    """The spec's form without a unit, and the one that HTTP has elsewhere."""
    assert parse_chunk_range(header) == ByteRange(*expected)


@pytest.mark.parametrize(
    "header",
    [
        *("", "-", "1-", "-1", "5-4", "a-b", "0-1,2-3", "items 0-1", "0-1/x", "0 - 1", "+0-1"),
        *("\u0660-\u0661", "9" * 20 + "-" + "9" * 20),
    ],
)
def test_chunk_range_that_is_none_is_refused(header: str) -> None:
    """A chunk that does not say where it belongs belongs nowhere."""
    with pytest.raises(BlobUploadInvalid):
        parse_chunk_range(header)
