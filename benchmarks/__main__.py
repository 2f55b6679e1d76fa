"""Run rows of the table, by default all."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import (
    building,
    collected,
    gc_latency,
    memory,
    merging,
    month,
    pushing,
    reading,
    s3_builds,
    s3_costs,
    s3_crowd,
    s3_memory,
    s3_transfers,
    scaling,
    table,
    tls,
    watching,
)
from benchmarks.scale import QUICK, WHOLE, Scale
from benchmarks.turn import alone_on_machine

ROWS: dict[str, Callable[[Path, Scale], None]] = {
    "manifests": reading.manifests,
    "heads": reading.heads,
    "blobs": reading.blobs,
    "pushes": pushing.pushes,
    "tls": tls.tls,
    "memory": memory.memory,
    "workers": scaling.workers,
    "builds": building.builds,
    "unions": merging.unions,
    "collection": collected.collection,
    "gc-latency": gc_latency.latency,
    "scrape": watching.scrape,
    "metrics": watching.metrics,
    "month": month.month,
    "s3-costs": s3_costs.costs,
    "s3-crowd": s3_crowd.crowd,
    "s3-transfers": s3_transfers.transfers,
    "s3-reexports": s3_builds.reexports,
    "s3-builds": s3_builds.builds,
    "s3-memory": s3_memory.memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and nothing long")
    parser.add_argument("rows", nargs="*", metavar="row", help=", ".join(ROWS))
    given = parser.parse_args()
    if unknown := set(given.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    scale = QUICK if given.quick else WHOLE
    with alone_on_machine():
        _run(given.rows or list(ROWS), scale)


def _run(rows: Sequence[str], scale: Scale) -> None:
    busy = os.getloadavg()[0]
    print(f"{os.cpu_count()} processors, of which others kept {busy:.1f} busy in the last minute")
    table.print_heading()
    started = time.monotonic()
    for name in rows:
        with tempfile.TemporaryDirectory(prefix="cacheproxy-benchmark-") as folder:
            ROWS[name](Path(folder), scale)
    print(f"{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
