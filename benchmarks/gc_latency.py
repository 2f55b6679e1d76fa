"""The row on requests beside a collector that works all the time: a cycle begins as another ends.

Its pace is that of every server, so a cycle may take longer than the row.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import select
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Final

from benchmarks import peers, table
from benchmarks.load import Connection, Done, LoadError, Target
from benchmarks.peers import Peer
from benchmarks.samples import Sample, measure
from benchmarks.scale import Scale
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.manifest import OCI_MANIFEST
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.manifest_store import MEDIA_TYPE
from cacheproxy.registry.tags import Tags
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.layout import Namespace
from tests.collection.rooms import LAYER

_BLOBS: Final = 20_000
_LAYERS: Final = 100
_GARBAGE: Final = 0.2
_WEEK: Final = 7 * 86400.0
_REPOSITORIES: Final = 10
_ASKED: Final = 500
"""How many different things are asked for, in turn."""
_CONNECTIONS: Final = 16
_BUFFER_BYTES: Final = 1 << 20
_STALLED_SECONDS: Final = 60
_LONGER: Final = 4
"""Times as long as other reads are measured: of the slowest hundredth there are not many."""
_MOST_WORSE: Final = 1.1

_NOT: Final = "alone"
_COLLECTING: Final = "cacheproxy"
_FLAGS: Final = {
    _NOT: "--collection-interval-seconds=0",
    _COLLECTING: "--collection-interval-seconds=0.001",
}


@dataclass(frozen=True, slots=True)
class _Run:
    """`seconds` is what each request took, in order."""

    sample: Sample
    seconds: Sequence[float]

    def within(self, share: float) -> float:
        """The milliseconds within which this share of the requests was answered."""
        return self.seconds[int(share * (len(self.seconds) - 1))] * 1000


def latency(folder: Path, scale: Scale) -> None:
    """Looks for blobs and manifests, with a collector that runs on and on, and without any."""
    paths = asyncio.run(_fill(folder / "filled"))
    with ExitStack() as stack:
        servers = [stack.enter_context(_started(folder, name)) for name in _FLAGS]
        for server in servers:
            _ask(server.host, paths, 1.0)  # what comes later is remembered from now on
        runs = _measured(servers, paths, scale)
        cycles = (folder / _COLLECTING / "server.log").read_text().count('"collected"')
    _print(f"requests, always collecting, {cycles} ended (limit: never)", runs)


def _measured(servers: Sequence[Peer], paths: Sequence[str], scale: Scale) -> dict[str, list[_Run]]:
    runs: dict[str, list[_Run]] = {server.name: [] for server in servers}
    for _ in range(scale.rounds):
        for server in servers:
            taken: list[float] = []
            work = partial(_timed, server.host, paths, scale.seconds * _LONGER, taken)
            runs[server.name].append(_Run(measure(server.process, work), sorted(taken)))
    return runs


def _timed(host: str, paths: Sequence[str], seconds: float, taken: list[float]) -> Done:
    taken += _ask(host, paths, seconds)
    return Done(len(taken), 0)


def _print(row: str, runs: Mapping[str, Sequence[_Run]]) -> None:
    def medians(figure: Callable[[_Run], float]) -> dict[str, float]:
        return {name: statistics.median(map(figure, each)) for name, each in runs.items()}

    half, most = medians(lambda run: run.within(0.5)), medians(lambda run: run.within(0.99))
    speed = medians(lambda run: run.sample.per_second)
    cheap = medians(lambda run: run.sample.per_cpu_second)
    table.print_line(row, "p50 ms", half)
    table.print_line("", "p99 ms", most, table.times(most, _MOST_WORSE, _NOT))
    for unit, figures in ("req / s", speed), ("req / CPU s", cheap):
        least = f">= {1 / _MOST_WORSE:.2f} x {_NOT}"
        met = figures[_COLLECTING] * _MOST_WORSE >= figures[_NOT]
        table.print_line("", unit, figures, table.Target(least, met))


@contextmanager
def _started(folder: Path, name: str) -> Iterator[Peer]:
    """A server of its own on what is filled, whose files it does not change in place."""
    mine = folder / name
    shutil.copytree(folder / "filled", mine / "data", copy_function=os.link)
    with peers.cacheproxy(mine, _FLAGS[name]) as peer:
        yield replace(peer, name=name)


def _ask(host: str, paths: Sequence[str], seconds: float) -> list[float]:
    """Ask for all in turn, over all connections for so long; what each answer took."""
    requests = cycle([Target(host, "HEAD" if "/blobs/" in path else "GET", path) for path in paths])
    taken: list[float] = []
    with ExitStack() as stack:
        poll = stack.enter_context(select.epoll())
        asking: dict[int, _Asking] = {}
        for _ in range(_CONNECTIONS):
            one = _Asking(next(requests))
            stack.enter_context(one.connection.socket)
            asking[one.connection.socket.fileno()] = one
            poll.register(one.connection.socket, select.EPOLLIN)
        deadline = time.monotonic() + seconds
        while asking:
            events = poll.poll(_STALLED_SECONDS)
            if not events:
                raise LoadError("nothing came")
            for fd, _ in events:
                one = asking[fd]
                if not one.connection.take():
                    continue
                now = time.monotonic()
                taken.append(now - one.since)
                if now > deadline:
                    del asking[fd]
                else:
                    one.ask(next(requests))
    return taken


class _Asking:
    """A connection, and since when it waits for its answer."""

    def __init__(self, target: Target) -> None:
        self.connection = Connection(target, bytearray(_BUFFER_BYTES))
        self.ask(target)

    def ask(self, target: Target) -> None:
        self.connection.request = target.request
        self.connection.bodies = target.bodies
        self.since = time.monotonic()
        self.connection.begin()


async def _fill(root: Path) -> list[str]:
    """Manifests of so many layers each, and as garbage blobs that are old. Returns paths."""
    root.mkdir()
    bucket, namespace = FolderBucket(str(root)), Namespace()
    tags = Tags(bucket, namespace)
    blobs = [Digest(f"sha256:{secrets.token_hex(32)}") for _ in range(_BLOBS)]
    for digest in blobs:
        _place(root / namespace.blob(digest))
    kept = blobs[: int(_BLOBS * (1 - _GARBAGE))]
    for digest in blobs[len(kept) :]:
        old = time.time() - _WEEK
        os.utime(root / namespace.blob(digest), (old, old))
    paths: list[str] = []
    for at in range(0, len(kept), _LAYERS // 2):
        repository = Repository(f"fleet/app-{at % _REPOSITORIES}")
        data = _manifest(kept[at : at + _LAYERS])
        digest, tag = digest_of(data), Tag(f"build-{at}")
        key = namespace.manifest(repository, digest)
        await bucket.put(key, data, metadata={MEDIA_TYPE: OCI_MANIFEST})
        await tags.point(repository, tag, digest)
        paths += [
            f"/v2/{repository}/blobs/{kept[at]}",
            f"/v2/{repository}/blobs/{kept[at + 1]}",
            f"/v2/{repository}/manifests/{tag}",
            f"/v2/{repository}/manifests/{digest}",
        ]
    return paths[:_ASKED]


def _place(path: Path) -> None:
    """A blob without the syncs of a bucket; nobody looks at its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"blob")


def _manifest(layers: Sequence[Digest]) -> bytes:
    described = [{"mediaType": LAYER, "digest": layer, "size": 4} for layer in layers]
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described[0]}
    return json.dumps({**body, "layers": described}).encode()
