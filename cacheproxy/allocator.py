"""The C library's allocator, set for a server of large bodies."""

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3

# What may lie at the end of the heap unused, and how large a piece is that lives outside of it.
_UNUSED_BYTES: Final = 16 << 20
_OUTSIDE_BYTES: Final = 8 << 20


def keep_freed_memory() -> None:
    """Keep some freed memory for the next batch of a body.

    Left alone, the C library gives it back to the system between batches and takes it anew, page by
    page, which makes pushes 5 % dearer. Only glibc is told; others have no such call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _UNUSED_BYTES)
        mallopt(_MMAP_THRESHOLD, _OUTSIDE_BYTES)
