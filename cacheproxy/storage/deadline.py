"""Deadlines of a process that may be paused, on a machine that may sleep."""

import time
from collections.abc import Callable

Clocks = tuple[Callable[[], float], ...]

CLOCKS: Clocks = (time.monotonic, time.time)
"""The first one stops while the machine sleeps, the second one is set by hand."""


class Deadline:
    """So many seconds from now, as soon as one of the clocks says so, or is set back."""

    def __init__(self, seconds: float, clocks: Clocks = CLOCKS) -> None:
        self._spans = [(clock, now := clock(), now + seconds) for clock in clocks]

    def is_over(self) -> bool:
        return not all(begin <= clock() < end for clock, begin, end in self._spans)
