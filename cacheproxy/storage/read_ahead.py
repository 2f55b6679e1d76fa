"""Reading ahead: how much of a body gathers in memory while the disk takes what came before."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# For one body, and for all together. A batch on its way to the disk and one that gathers behind it
# are up to twice as long each.
_BYTES: Final = 1 << 20
_TOTAL: Final = 8 << 20


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
