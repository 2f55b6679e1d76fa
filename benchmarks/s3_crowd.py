"""The row on a crowd: many clients that ask for one blob at once, which S3 is to send once."""

from __future__ import annotations

import select
import statistics
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import s3, table
from benchmarks.content import Body, Content
from benchmarks.load import Connection, LoadError, Target
from benchmarks.registry import REPOSITORY, Registry
from benchmarks.scale import Scale
from tests.s3.process import ProxyProcess

_CLIENTS: Final = 100
_SIZE: Final = 16 << 20
_BUFFER_BYTES: Final = 4 << 20
_STALLED_SECONDS: Final = 60.0
_MOST_BEHIND_MS: Final = 50


@dataclass(frozen=True, slots=True)
class _Found:
    reads: int
    """How many times S3 was asked for the blob."""
    behind: float
    """Seconds from the first byte that any client got to the first byte of the last one."""


def crowd(folder: Path, scale: Scale) -> None:
    """Clients of a server that has just started."""
    found: dict[str, list[_Found]] = {}
    with s3.store() as store, closing(Content(_SIZE)) as content:
        for _ in range(scale.rounds):
            for name in s3.STARTS:
                place = s3.Place(name, folder / "servers")
                body = content.fresh()
                with place.served(store.near) as peer, Registry(peer.host) as registry:
                    registry.push(body)
                with place.served(store.far) as peer:
                    found.setdefault(name, []).append(_ask(peer.host, body, store.proxy))
    _print(found)


def _ask(host: str, body: Body, proxy: ProxyProcess) -> _Found:
    target = Target(host, "GET", f"/v2/{REPOSITORY}/blobs/{body.digest}")
    buffer = bytearray(_BUFFER_BYTES)
    with ExitStack() as stack:
        clients = [Connection(target, buffer) for _ in range(_CLIENTS)]
        for client in clients:
            stack.enter_context(client.socket)
        proxy.take()
        for client in clients:
            client.begin()
        times = _first_bytes(clients)
    reads = [call for call in proxy.take() if call.operation == "GetObject" and call.received]
    return _Found(sum(call.received >= _SIZE for call in reads), max(times) - min(times))


def _first_bytes(clients: list[Connection]) -> list[float]:
    """When the body began to come, for each of the clients, all of which get all of it."""
    running = {client.socket.fileno(): client for client in clients}
    times: dict[int, float] = {}
    with select.epoll() as poll:
        for fd in running:
            poll.register(fd, select.EPOLLIN)
        while running:
            events = poll.poll(_STALLED_SECONDS)
            if not events:
                raise LoadError("nothing came")
            for fd, _ in events:
                ended = running[fd].take()
                if running[fd].received:
                    times.setdefault(fd, time.monotonic())
                if ended:
                    poll.unregister(fd)
                    del running[fd]
    return list(times.values())


def _print(found: dict[str, list[_Found]]) -> None:
    reads = {name: statistics.median(f.reads for f in each) for name, each in found.items()}
    behind = {
        name: statistics.median(f.behind * 1000 for f in each) for name, each in found.items()
    }
    row = f"{_CLIENTS} clients, one cold blob"
    table.print_line(row, "S3 reads", reads, table.at_most(1, reads["cacheproxy"]))
    allowed = table.at_most(_MOST_BEHIND_MS, behind["cacheproxy"])
    table.print_line("", "ms behind", behind, allowed)
