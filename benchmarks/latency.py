"""Requests over many connections at once, and what each of them takes."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Final

from benchmarks import table
from benchmarks.load import Connection, Done, LoadError, Target
from benchmarks.peers import Peer
from benchmarks.samples import Sample, measure, medians
from benchmarks.scale import Scale

_CONNECTIONS: Final = 16
_BUFFER_BYTES: Final = 1 << 20
_STALLED_SECONDS: Final = 60
_LONGER: Final = 4
"""Times as long as other reads are measured: of the slowest hundredth there are not many."""
_MOST_WORSE: Final = 1.1

OURS: Final = "cacheproxy"
ALONE: Final = "alone"
"""The same server without what it is measured with."""


@dataclass(frozen=True, slots=True)
class Run:
    """`seconds` is what each request took, in order."""

    sample: Sample
    seconds: Sequence[float]

    def within(self, share: float) -> float:
        """The milliseconds within which this share of the requests was answered."""
        return self.seconds[int(share * (len(self.seconds) - 1))] * 1000


Runs = Mapping[str, Sequence[Run]]
"""By name of the server, one for each round."""


def interleave(
    servers: Sequence[Peer], targets: Callable[[str], Sequence[Target]], scale: Scale
) -> Runs:
    """Ask each of the servers in turn, again and again, for the `targets` at its host."""
    runs: dict[str, list[Run]] = {server.name: [] for server in servers}
    for server in servers:
        ask(targets(server.host), 1.0)  # what comes later is remembered from now on
    for _ in range(scale.rounds):
        for server in servers:
            taken: list[float] = []
            work = partial(_timed, targets(server.host), scale.seconds * _LONGER, taken)
            runs[server.name].append(Run(measure(server.process, work), sorted(taken)))
    return runs


def _timed(targets: Sequence[Target], seconds: float, taken: list[float]) -> Done:
    taken += ask(targets, seconds)
    return Done(len(taken), 0)


def ask(targets: Sequence[Target], seconds: float) -> list[float]:
    """Ask for all in turn, over all connections for so long; what each answer took."""
    requests = cycle(targets)
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


def print_latency(row: str, runs: Runs) -> None:
    """What requests took beside those of the server alone."""
    half, most = medians(runs, lambda run: run.within(0.5)), medians(runs, _slowest)
    table.print_line(row, "p50 ms", half)
    table.print_line("", "p99 ms", most, table.times(most, _MOST_WORSE, ALONE))


def print_speed(row: str, runs: Runs, most_worse: float = _MOST_WORSE) -> None:
    """How many requests there were beside those of the server alone."""
    speed = medians(runs, lambda run: run.sample.per_second)
    cheap = medians(runs, lambda run: run.sample.per_cpu_second)
    least = f">= {1 / most_worse:.2f} x {ALONE}"
    for at, (unit, figures) in enumerate((("req / s", speed), ("req / CPU s", cheap))):
        met = figures[OURS] * most_worse >= figures[ALONE]
        table.print_line("" if at else row, unit, figures, table.Target(least, met))


def _slowest(run: Run) -> float:
    return run.within(0.99)
