"""Byte ranges: of blobs (RFC 9110, section 14) and of upload chunks (distribution-spec)."""

import re
from dataclasses import dataclass
from typing import Final

from cacheproxy.errors import BlobUploadInvalid, RangeNotSatisfiable

_SPEC: Final = re.compile(r"(\d{1,19})-(\d{0,19})|-(\d{1,19})", re.ASCII)
_CHUNK: Final = re.compile(r"(?:bytes[ =])?(\d{1,19})-(\d{1,19})(?:/(?:\d{1,19}|\*))?", re.ASCII)

# zstd:chunked clients send some hundred; more than this is no client but an attack, and a server
# may ignore it (RFC 9110, section 14.2).
MAX_RANGES: Final = 1024


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes from byte `start` on."""

    start: int
    length: int

    @property
    def last(self) -> int:
        return self.start + self.length - 1

    def content_range(self, size: int) -> str:
        """The Content-Range header of this range of `size` bytes."""
        return f"bytes {self.start}-{self.last}/{size}"


def parse_ranges(header: str, size: int) -> list[ByteRange] | None:
    """The satisfiable ranges of a Range header for content of `size` bytes, in order.

    None means that the header is to be ignored: another unit, more ranges than `MAX_RANGES`, or
    more bytes than there are (which only overlapping ranges ask for).

    Raises:
        RangeNotSatisfiable: no range holds a byte, or the header is malformed.
    """
    unit, _, specs = header.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    parts = specs.split(",", MAX_RANGES)
    if len(parts) > MAX_RANGES:
        return None
    ranges = [found for part in parts if (found := _one(part.strip(), size))]
    if not ranges:
        raise RangeNotSatisfiable(size)
    if sum(each.length for each in ranges) > size:
        return None
    return ranges


def _one(spec: str, size: int) -> ByteRange | None:
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise RangeNotSatisfiable(size)
    first, last, suffix = match.groups()
    if suffix is not None:
        start = max(0, size - int(suffix))
        end = size
    else:
        start = int(first)
        end = min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            raise RangeNotSatisfiable(size)
    return ByteRange(start, end - start) if start < end else None


def parse_chunk_range(header: str) -> ByteRange:
    """The Content-Range of an upload chunk: `<start>-<last>`, both inclusive.

    The spec has no unit here; the form with `bytes` that HTTP has elsewhere is understood too.

    Raises:
        BlobUploadInvalid: it is malformed.
    """
    match = _CHUNK.fullmatch(header.strip())
    if match is None:
        raise BlobUploadInvalid(f"Content-Range {header!r:.100} is not <start>-<end>")
    start, last = int(match[1]), int(match[2])
    if last < start:
        raise BlobUploadInvalid(f"Content-Range {header!r} ends before it starts")
    return ByteRange(start, last - start + 1)
