"""Hashing and writing alone: what a push cannot cost less than.

`python -m benchmarks.alone FOLDER SIZE COUNT [sync]` prints the wall and CPU seconds that it takes.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.load import Done
from benchmarks.samples import Sample

_BATCH_BYTES: Final = 1 << 20
_RANDOM_BYTES: Final = 64 << 20
_SYNC: Final = "sync"


def hash_and_write(folder: Path, size: int, count: int, *, sync: bool) -> Sample:
    """Write so many files of `size` bytes into a new folder, each hashed, and perhaps synced.

    A process of its own does it, so that its CPU time is that and nothing else.
    """
    folder.mkdir()
    command = [sys.executable, "-m", "benchmarks.alone", str(folder), str(size), str(count)]
    if sync:
        command.append(_SYNC)
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    told = json.loads(output)
    return Sample(told["wall"], told["cpu"], Done(count, size * count))


def _main(folder: Path, size: int, count: int, *, sync: bool) -> None:
    # As much as caches do not hold, since what comes from a network is not in them either.
    data = memoryview(os.urandom(min(size, _RANDOM_BYTES)))
    cpu, started = _cpu_seconds(), time.monotonic()
    for number in range(count):
        _write(folder / str(number), data, size, sync=sync)
    wall = time.monotonic() - started
    print(json.dumps({"wall": wall, "cpu": _cpu_seconds() - cpu}))


def _write(path: Path, data: memoryview, size: int, *, sync: bool) -> None:
    hasher = hashlib.sha256()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for start in range(0, size, _BATCH_BYTES):
        offset = start % len(data)
        batch = data[offset : offset + min(_BATCH_BYTES, size - start)]
        hasher.update(batch)
        os.write(fd, batch)
    if sync:
        os.fsync(fd)
    os.close(fd)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sync=sys.argv[4:] == [_SYNC])
