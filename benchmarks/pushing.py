"""Rows on pushes of new blobs, one after the other, each as a POST and a PUT."""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Final

from benchmarks import peers, table
from benchmarks.alone import hash_and_write
from benchmarks.content import Content
from benchmarks.load import Done
from benchmarks.peers import Peer
from benchmarks.registry import Registry
from benchmarks.samples import Sample, Samples, measure, medians
from benchmarks.scale import Scale

_MIB: Final = 1 << 20

# Size in bytes, how many make a sample, whether that is too long for a quick look.
_SIZES: Final = {
    "4 KiB": (4 << 10, 100, False),
    "1 MiB": (_MIB, 50, False),
    "64 MiB": (64 * _MIB, 4, False),
    "1 GiB": (1024 * _MIB, 1, True),
}
_TARGETED: Final = ("64 MiB", "1 GiB")
_STARTS: Final[Mapping[str, Callable[[Path], AbstractContextManager[Peer]]]] = {
    "cacheproxy": peers.cacheproxy,
    "distribution": peers.distribution,
}


def pushes(folder: Path, scale: Scale) -> None:
    """CPU seconds per GiB and the wall, beside hashing and writing alone."""
    for name, (size, count, long) in _SIZES.items():
        if scale.quick and long:
            continue
        samples: dict[str, list[Sample]] = {"cacheproxy": [], "distribution": [], "alone": []}
        with closing(Content(size)) as content:
            for _ in range(scale.rounds):
                for each, found in samples.items():
                    found.append(_sample(each, folder / each, content, count))
        _print(name, samples)


def _sample(name: str, folder: Path, content: Content, count: int) -> Sample:
    """A run on an empty folder, which is removed, so that the disk holds one run at a time."""
    size = count * content.size
    try:
        if name == "alone":
            touch_memory(size)
            return hash_and_write(folder, content.size, count, sync=True)
        with _STARTS[name](folder) as peer:
            touch_memory(size)
            return measure(peer.process, lambda: _push(peer, content, count))
    finally:
        shutil.rmtree(folder)


def touch_memory(size: int) -> None:
    """Have the host back as much memory as the page cache is going to take.

    A virtual machine may give free memory back to its host. To get it anew costs more than a CPU
    second per GiB, which whoever comes to write a file then would pay.
    """
    mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def _push(peer: Peer, content: Content, count: int) -> Done:
    with Registry(peer.host) as registry:
        for _ in range(count):
            registry.push(content.fresh())
    return Done(count, count * content.size)


def _print(name: str, samples: Samples) -> None:
    row, targeted = f"push {name}", name in _TARGETED
    cpu = medians(samples, lambda sample: sample.cpu_per_gib)
    wall = medians(samples, lambda sample: sample.wall / sample.done.requests * 1000)
    table.print_line(row, "CPU s / GiB", cpu, table.times(cpu, 1.5, "alone") if targeted else None)
    table.print_line("", "ms each", wall, table.ahead(wall, "distribution") if targeted else None)
