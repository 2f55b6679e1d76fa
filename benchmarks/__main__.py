"""Run rows of the table, by default all."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import building, memory, pushing, reading, scaling, table
from benchmarks.scale import QUICK, WHOLE, Scale

ROWS: dict[str, Callable[[Path, Scale], None]] = {
    "manifests": reading.manifests,
    "heads": reading.heads,
    "blobs": reading.blobs,
    "pushes": pushing.pushes,
    "memory": memory.memory,
    "workers": scaling.workers,
    "builds": building.builds,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="in less than 3 minutes, not 12")
    parser.add_argument("rows", nargs="*", metavar="row", help=", ".join(ROWS))
    given = parser.parse_args()
    if unknown := set(given.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    scale = QUICK if given.quick else WHOLE
    table.print_heading()
    started = time.monotonic()
    for name in given.rows or ROWS:
        with tempfile.TemporaryDirectory(prefix="cacheproxy-benchmark-") as folder:
            ROWS[name](Path(folder), scale)
    print(f"{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
