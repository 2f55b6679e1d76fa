"""Rows on blobs that go to S3 and come back, over as many connections as BuildKit opens."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import s3, table
from benchmarks.alone import hash_and_write
from benchmarks.content import Body, Content
from benchmarks.load import Done
from benchmarks.peers import Peer
from benchmarks.pushing import touch_memory
from benchmarks.registry import Act, Registry, spread
from benchmarks.samples import Sample, measure, medians
from benchmarks.scale import Scale

_MIB: Final = 1 << 20
_CONNECTIONS: Final = 4
_COPIES: Final = 2
"""A push makes one on the disk of the server, and one on that of S3."""


@dataclass(frozen=True, slots=True)
class _Load:
    """So many blobs of a size; in a quick look fewer, or none."""

    name: str
    size: int
    count: int
    quick: int


_LOADS: Final = (
    _Load("1 MiB", _MIB, 200, 50),
    _Load("64 MiB", 64 * _MIB, 8, 4),
    _Load("1 GiB", 1024 * _MIB, 1, 0),
)
_Figures = Mapping[str, Mapping[str, list[Sample]]]
"""By what is done, then by name of the peer."""


def transfers(folder: Path, scale: Scale) -> None:
    """Pushes, pulls from a server that has just started, and pulls of what it has just served.

    The limit is what S3 takes by itself for the same bodies, and the CPU of hashing and writing
    them.
    """
    for load in _LOADS:
        count = load.quick if scale.quick else load.count
        if not count:
            continue
        with closing(Content(load.size)) as content:
            for delay, figures in _measure(folder, content, count, scale.rounds).items():
                _print(f"{load.name} x {count}, +{1000 * delay:.0f} ms", figures, delay)


def _measure(folder: Path, content: Content, count: int, rounds: int) -> Mapping[float, _Figures]:
    """By the delay. Each round has an S3 of its own, so that not too much gathers."""
    found: dict[float, dict[str, dict[str, list[Sample]]]] = {
        delay: defaultdict(lambda: defaultdict(list)) for delay in (0.0, s3.FAR)
    }
    for _ in range(rounds):
        with s3.store() as store:
            for delay, figures in found.items():
                for name in s3.STARTS:
                    bodies = [content.fresh() for _ in range(count)]
                    place = s3.Place(name, folder / "servers")
                    for what, sample in _round(place, store.at(delay), bodies).items():
                        figures[what][name].append(sample)
                    shutil.rmtree(folder / "servers")
                for what, sample in _alone(folder / "alone", store.at(delay), content, count):
                    figures[what]["alone"].append(sample)
    return found


def _round(place: s3.Place, where: s3.S3, bodies: list[Body]) -> dict[str, Sample]:
    size = sum(body.size for body in bodies)
    with place.served(where) as peer:
        touch_memory(_COPIES * size)
        push = measure(peer.process, partial(_spread, peer, bodies, Registry.push))
    with place.served(where) as peer:
        touch_memory(size)
        pull = partial(_spread, peer, bodies, Registry.pull)
        return {
            "push": push,
            "cold pull": measure(peer.process, pull),
            "warm pull": measure(peer.process, pull),
        }


def _alone(
    folder: Path, where: s3.S3, content: Content, count: int
) -> Iterator[tuple[str, Sample]]:
    bodies = [content.fresh() for _ in range(count)]
    touch_memory(_COPIES * count * content.size)
    cpu = hash_and_write(folder, content.size, count, sync=False).cpu
    shutil.rmtree(folder)
    for what, act in (("push", where.put), ("cold pull", where.get)):
        started = time.monotonic()
        done = spread(where.host, _CONNECTIONS, bodies, act)
        yield what, Sample(time.monotonic() - started, cpu, done)


def _spread(peer: Peer, bodies: list[Body], act: Act) -> Done:
    return spread(peer.host, _CONNECTIONS, bodies, act)


def _print(row: str, figures: _Figures, delay: float) -> None:
    for what, samples in figures.items():
        wall = medians(samples, lambda sample: sample.wall)
        far_push = what == "push" and delay
        target = table.times(wall, 0.5, "distribution") if far_push else None
        limit = " (limit: S3)" if "alone" in wall else ""
        table.print_line(
            f"S3 {what} {row}{limit}", "s", wall, target or table.ahead(wall, "distribution")
        )
        table.print_line("", "CPU s / GiB", medians(samples, lambda sample: sample.cpu_per_gib))
