"""Rows on memory before S3: many uploads that are all in flight at once, and a large one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import s3, table
from benchmarks.content import Content
from benchmarks.memory import MOST_MIB, UPLOADS, upload_at_once
from benchmarks.peers import Peer
from benchmarks.registry import Registry
from benchmarks.scale import Scale

_MIB: Final = 1 << 20
_LARGE: Final = 1024 * _MIB
_MOST_BYTES: Final = 32 * _MIB
"""Of each of the many: what is in flight is on the disk, in the tier and in S3."""


def memory(folder: Path, scale: Scale) -> None:
    """The most that the server ever had resident."""
    size = min(_MOST_BYTES, scale.slow_upload_bytes)
    row = f"S3, {UPLOADS} uploads of {size // _MIB} MiB at once"
    _row(folder, row, partial(upload_at_once, size=size))
    if not scale.quick:
        _row(folder, "S3, push of 1 GiB", _push_large)


def _row(folder: Path, row: str, work: Callable[[Peer], None]) -> None:
    peaks: dict[str, float] = {}
    for name in s3.STARTS:
        place = s3.Place(name, folder / "servers")
        with s3.store() as store, place.served(store.near) as peer:
            work(peer)
            peaks[name] = peer.process.peak_bytes() / _MIB
        shutil.rmtree(folder / "servers")
    target = table.at_most(MOST_MIB, peaks["cacheproxy"])
    table.print_line(row, "MiB at most", peaks, target)


def _push_large(peer: Peer) -> None:
    with closing(Content(_LARGE)) as content, Registry(peer.host) as registry:
        registry.push(content.fresh())
