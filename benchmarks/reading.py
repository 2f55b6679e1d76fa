"""Rows on reading: manifests, and blobs from small to large, over one and over many connections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks import load, peers, table
from benchmarks.peers import Peer
from benchmarks.samples import Samples, interleave, medians
from benchmarks.scale import Scale
from benchmarks.stored import Stored, store

_CONNECTIONS: Final = (1, 16, 64)


def manifests(folder: Path, scale: Scale) -> None:
    """Requests for a manifest of 10 layers per CPU second of the server."""
    with _running(folder) as (servers, stored):
        for by, reference in (("tag", "latest"), ("digest", stored.manifest)):
            path = stored.path("manifests", reference)
            for count in _CONNECTIONS:
                samples = _ask(servers, "GET", path, count, scale)
                _print_requests(f"manifest GET by {by}, {count} conn", samples, 10_000)


def heads(folder: Path, scale: Scale) -> None:
    """Looks for a blob per CPU second of the server."""
    with _running(folder) as (servers, stored):
        path = stored.path("blobs", stored.blobs["1 MiB"])
        for count in _CONNECTIONS:
            samples = _ask(servers, "HEAD", path, count, scale)
            _print_requests(f"blob HEAD, {count} conn", samples, 15_000)


def blobs(folder: Path, scale: Scale) -> None:
    """Blobs of three sizes: CPU seconds of the server per GiB, and GiB per second."""
    with _running(folder) as (servers, stored):
        for size, digest in stored.blobs.items():
            for count in _CONNECTIONS:
                samples = _ask(servers, "GET", stored.path("blobs", digest), count, scale)
                row = f"blob GET {size}, {count} conn"
                if size == "4 KiB":
                    _print_requests(row, samples)
                else:
                    _print_bytes(row, samples, targeted=size == "64 MiB")


def _ask(
    servers: Sequence[Peer], method: str, path: str, connections: int, scale: Scale
) -> Samples:
    return interleave(
        servers,
        lambda peer: load.run(load.Target(peer.host, method, path), connections, scale.seconds),
        scale.rounds,
    )


def _print_requests(row: str, samples: Samples, least: float | None = None) -> None:
    per_cpu = medians(samples, lambda sample: sample.per_cpu_second)
    target = None if least is None else table.at_least(least, per_cpu["cacheproxy"])
    table.print_line(row, "req / CPU s", per_cpu, target)
    table.print_line("", "req / s", medians(samples, lambda sample: sample.per_second))


def _print_bytes(row: str, samples: Samples, *, targeted: bool) -> None:
    cpu = medians(samples, lambda sample: sample.cpu_per_gib)
    speed = medians(samples, lambda sample: sample.gib_per_second)
    table.print_line(row, "CPU s / GiB", cpu, table.times(cpu, 1.5, "nginx") if targeted else None)
    table.print_line("", "GiB / s", speed, table.no_less(speed, "nginx") if targeted else None)


@contextmanager
def _running(folder: Path) -> Iterator[tuple[list[Peer], Stored]]:
    """All three peers with the same content."""
    files = folder / "files"
    with ExitStack() as stack:
        servers = [
            stack.enter_context(peers.cacheproxy(folder / "cacheproxy")),
            stack.enter_context(peers.distribution(folder / "distribution")),
            stack.enter_context(peers.limit(folder / "nginx", files)),
        ]
        yield servers, store(servers[:2], files)
