"""How work grows, whatever the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

LINEAR: Final = 8.0
"""More than work on four times as much takes if it is linear, and half of what it takes if it grows
with the square."""


def growth(work: Callable[[T], object], quarter: T, whole: T) -> float:
    """How many times as much CPU time it takes to work on the whole as on a quarter of it."""
    return _seconds(work, whole) / _seconds(work, quarter)


def _seconds(work: Callable[[T], object], on: T) -> float:
    start = time.thread_time()
    work(on)
    return time.thread_time() - start
