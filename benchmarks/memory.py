"""The row on memory: many uploads that are all in flight at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from benchmarks import peers, table
from benchmarks.content import Content
from benchmarks.peers import Peer
from benchmarks.registry import Registry
from benchmarks.scale import Scale

UPLOADS: Final = 200
_PIECE_BYTES: Final = 256 << 10
_MIB: Final = 1 << 20
MOST_MIB: Final = 300


def memory(folder: Path, scale: Scale) -> None:
    """The most that the server ever had resident, uploads and all."""
    with peers.cacheproxy(folder / "cacheproxy") as peer:
        upload_at_once(peer, scale.slow_upload_bytes)
        peak = peer.process.peak_bytes() / _MIB
    row = f"{UPLOADS} uploads of {scale.slow_upload_bytes // _MIB} MiB at once"
    target = table.at_most(MOST_MIB, peak)
    table.print_line(row, "MiB at most", {"cacheproxy": peak}, target)


def upload_at_once(peer: Peer, size: int) -> None:
    """Every upload sends a piece when all the others have, so none ends before all have begun."""
    with ExitStack() as stack:
        content = stack.enter_context(closing(Content(size)))
        clients = [stack.enter_context(Registry(peer.host)) for _ in range(UPLOADS)]
        bodies = [content.fresh() for _ in clients]
        for client, body in zip(clients, bodies, strict=True):
            client.begin(body)
        for start in range(0, size, _PIECE_BYTES):
            for client, body in zip(clients, bodies, strict=True):
                client.send(body, start, _PIECE_BYTES)
        _end(clients)


def _end(clients: Sequence[Registry]) -> None:
    for client in clients:
        client.end()
