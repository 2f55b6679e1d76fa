"""Measured runs, and what is in the middle of several."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from benchmarks.load import Done
from benchmarks.peers import Peer
from benchmarks.processes import ProcessTree

T = TypeVar("T")

GIB: Final = 1 << 30

_SETTLE_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: how long it took, and the CPU time of the server's processes, in seconds."""

    wall: float
    cpu: float
    done: Done

    @property
    def per_cpu_second(self) -> float:
        """Requests per CPU second."""
        # One tick of the clock is the least that can be told from nothing.
        return self.done.requests / max(self.cpu, 0.01)

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return self.done.requests / self.wall

    @property
    def cpu_per_gib(self) -> float:
        """CPU seconds per GiB of bodies."""
        return self.cpu * GIB / self.done.bytes

    @property
    def mib_per_second(self) -> float:
        """MiB of bodies per second."""
        return self.gib_per_second * 1024

    @property
    def gib_per_second(self) -> float:
        """GiB of bodies per second."""
        return self.done.bytes / GIB / self.wall


Samples = Mapping[str, Sequence[Sample]]
"""By name of the peer, one for each round."""


def measure(process: ProcessTree, work: Callable[[], Done]) -> Sample:
    """Do some work and see what it costs the server."""
    cpu, started = process.cpu_seconds(), time.monotonic()
    done = work()
    wall = time.monotonic() - started
    time.sleep(_SETTLE_SECONDS)  # what a server does after its last answer counts too
    return Sample(wall, process.cpu_seconds() - cpu, done)


def interleave(peers: Sequence[Peer], work: Callable[[Peer], Done], rounds: int) -> Samples:
    """Measure each peer in turn, again and again, as the machine has good and bad moments."""
    samples: dict[str, list[Sample]] = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            samples[peer.name].append(measure(peer.process, partial(work, peer)))
    return samples


def medians(runs: Mapping[str, Sequence[T]], figure: Callable[[T], float]) -> dict[str, float]:
    """The median of a figure for each peer, of all its runs."""
    return {name: statistics.median(map(figure, each)) for name, each in runs.items()}
