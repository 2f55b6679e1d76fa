"""The row on several worker processes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks import peers, table
from benchmarks.load import Done, LoadError
from benchmarks.peers import Peer
from benchmarks.samples import interleave, medians
from benchmarks.scale import Scale
from benchmarks.stored import Stored, store
from tests.real.process import require

_CONNECTIONS: Final = 64
_WORKERS: Final = 2
_REQUESTS: Final = re.compile(r"(\d+) requests in ")
_FAILED: Final = "Non-2xx"


def workers(folder: Path, scale: Scale) -> None:
    """Manifests by tag from one worker and from two.

    The client is wrk, which takes far less of a machine of two cores than Python would.
    """
    wrk = require("wrk")
    with ExitStack() as stack:
        servers = [stack.enter_context(_started(folder, count)) for count in (1, _WORKERS)]
        store(servers, folder / "files")
        samples = interleave(servers, lambda peer: _ask(wrk, peer, scale), scale.rounds)
    _print("req / s", medians(samples, lambda sample: sample.per_second))
    _print("req / CPU s", medians(samples, lambda sample: sample.per_cpu_second))


@contextmanager
def _started(folder: Path, count: int) -> Iterator[Peer]:
    with peers.cacheproxy(folder / str(count), f"--workers={count}") as peer:
        yield replace(peer, name=str(count))


def _ask(wrk: Path, peer: Peer, scale: Scale) -> Done:
    # wrk counts in whole seconds.
    seconds = max(1, round(scale.seconds * 2))
    url = f"http://{peer.host}{Stored.path('manifests', 'latest')}"
    command = (wrk, "--threads=1", f"--connections={_CONNECTIONS}", f"--duration={seconds}s", url)
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = _REQUESTS.search(said)
    if match is None or _FAILED in said:
        raise LoadError(said)
    return Done(int(match[1]), 0)


def _print(unit: str, figures: Mapping[str, float]) -> None:
    one, several = figures["1"], figures[str(_WORKERS)]
    row = f"manifest GET, {_WORKERS} workers (limit: 1)"
    table.print_line(row, unit, {"cacheproxy": several, "alone": one})
