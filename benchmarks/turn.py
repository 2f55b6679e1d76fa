"""Takes turns with other runs on this machine, which would only measure each other."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LOCK: Final = "cacheproxy-benchmark.lock"


@contextmanager
def alone_on_machine() -> Iterator[None]:
    """Wait until no other run is on, and keep others waiting until exit."""
    with (Path(tempfile.gettempdir()) / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another run to end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
