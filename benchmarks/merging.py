"""The row on unions: what it takes to merge the exports of a large cache tag."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Final

from benchmarks import table
from benchmarks.scale import Scale
from cacheproxy.buildkit.merge import merge
from tests.buildkit.generating import long_source

_SOURCES: Final = 100
_MOST_SECONDS: Final = 2.0
_KINDS: Final = {"few to be joined": False, "most to be joined": True}


def unions(folder: Path, scale: Scale) -> None:
    """100 exports of 2,000 records, as a monorepo has them."""
    for kind, keys in _KINDS.items():
        sources = [long_source(number, keys=keys) for number in range(_SOURCES)]
        seconds = []
        for _ in range(scale.rounds):
            started = time.thread_time()
            merge(sources)
            seconds.append(time.thread_time() - started)
        figure = statistics.median(seconds)
        row = f"merge {_SOURCES} x 2,000 records, {kind}"
        target = table.at_most(_MOST_SECONDS, figure)
        table.print_line(row, "CPU s", {"cacheproxy": figure}, target)
