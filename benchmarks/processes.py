"""What server processes use, as the kernel counts it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


class ProcessTree:
    """A process and all its descendants."""

    def __init__(self, root: int) -> None:
        self.root = root

    def cpu_seconds(self) -> float:
        """User and system time so far, that of ended and awaited children included.

        The kernel counts in steps of 10 ms.
        """
        return sum(self._of_each(_cpu_seconds))

    def peak_bytes(self) -> int:
        """The sum of the most memory that each living process ever had resident."""
        return sum(self._of_each(_peak_bytes))

    def _of_each(self, look: Callable[[int], T]) -> Iterator[T]:
        for pid in self._living():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                yield look(pid)

    def _living(self) -> list[int]:
        found = [self.root]
        for pid in found:
            found += children(pid)
        return found


def children(parent: int) -> set[int]:
    """The processes that `parent` has started, in any of its threads, and not yet awaited."""
    found: set[int] = set()
    for each in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, each.read_text().split()))
    return found


def _cpu_seconds(pid: int) -> float:
    # The name in parentheses may hold spaces; what follows it is fields 3 and on of proc(5).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_SECOND


def _peak_bytes(pid: int) -> int:
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) * 1024 if match else 0
