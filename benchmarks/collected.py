"""The row on collection: what cycles cost, over ten thousand blobs and over a million.

`python -m benchmarks.collected BLOBS` prints what it costs over so many, in a process of its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import table
from benchmarks.scale import Scale
from cacheproxy.buildkit.cache import CACHE_CONFIG
from cacheproxy.collection.collector import Collector
from cacheproxy.collection.retention import Policies, Policy
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.manifest import OCI_MANIFEST
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.manifest_store import MEDIA_TYPE
from cacheproxy.registry.sources import Source
from cacheproxy.registry.tags import TagRecord, Tags
from cacheproxy.storage.bucket import Listed
from cacheproxy.storage.layout import Namespace
from tests.collection.rooms import LAYER, LEASE, Time
from tests.memory import MemoryBucket

_COUNTS: Final = (10_000, 100_000, 1_000_000)
_PHASES: Final = ("mark, condemn", "mark, wait", "mark, doom, delete")
_MOST_MIB: Final = 200
_MOST_TIMES: Final = 1.5
"""What an object of a million may cost, in objects of a hundred thousand."""

_LAYERS: Final = 100
_NEW: Final = 50
"""Layers of an export that the one before did not have."""
_TAGGED: Final = 0.8
_SOURCES: Final = 16
_REPOSITORIES: Final = 20
_PAGE: Final = 1000
_HOUR: Final = 3600.0
_MIB: Final = 1 << 20


class Phase(msgspec.Struct, frozen=True):
    """What a cycle cost. `calls` are those that S3 would have had."""

    name: str
    seconds: float
    calls: int
    peak_bytes: int
    condemned: int
    deleted: int


def collection(folder: Path, scale: Scale) -> None:
    """CPU seconds, memory and calls of cycles that mark, condemn, wait and delete."""
    found = {count: _measured(count) for count in (_COUNTS[:2] if scale.quick else _COUNTS)}
    for count, phases in found.items():
        for phase in phases:
            _print(count, phase)
    if not scale.quick:
        for less, more in zip(found[_COUNTS[1]], found[_COUNTS[2]], strict=True):
            times = more.seconds / less.seconds * _COUNTS[1] / _COUNTS[2]
            target = table.at_most(_MOST_TIMES, times)
            row = f"an object of 10^6 in those of 10^5: {more.name}"
            table.print_line(row, "times", {"cacheproxy": times}, target)


def _print(count: int, phase: Phase) -> None:
    memory = phase.peak_bytes / _MIB
    figures = {
        "CPU s": phase.seconds,
        "CPU us / blob": phase.seconds / count * 1e6,
        "calls / blob": phase.calls / count,
        "MiB more": memory,
    }
    row = f"{count:,} blobs: {phase.name}"
    for unit, figure in figures.items():
        target = table.at_most(_MOST_MIB, memory) if unit == "MiB more" else None
        table.print_line(row, unit, {"cacheproxy": figure}, target)
        row = ""


def _measured(count: int) -> list[Phase]:
    command = (sys.executable, "-m", "benchmarks.collected", str(count))
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return msgspec.json.decode(output, type=list[Phase])


class _Bucket(MemoryBucket):
    """Counts what S3 would be asked, and the seconds that only the simulation takes."""

    own_seconds = 0.0

    async def list(
        self, prefix: str, *, after: str = "", folders: bool = False
    ) -> AsyncIterator[Listed]:
        found = super().list(prefix, after=after, folders=folders)
        listed = 0
        async for each in found:
            listed += 1
            if listed % _PAGE == 0:
                self.calls += 1
            yield each

    def _keys(self) -> Sequence[str]:
        began = time.thread_time()
        keys = super()._keys()
        self.own_seconds += time.thread_time() - began
        return keys


async def _phases(count: int) -> list[Phase]:
    clock, namespace = Time(), Namespace()
    bucket = _Bucket(clock)
    _fill(bucket, namespace, count)
    bucket.place(namespace.batches(), b"")  # sorted once all are there
    bucket.remove(namespace.batches())
    found = []
    for name in _PHASES:
        clock.now += LEASE + 2 * _HOUR if name != "mark, wait" else _HOUR
        collector = Collector(
            bucket,
            namespace,
            Tags(bucket, namespace),
            Policies(Policy(cache_bytes=1 << 60)),
            LEASE,
            clock=clock.nanoseconds,
        )
        found.append(await _measure(name, bucket, collector))
    return found


async def _measure(name: str, bucket: _Bucket, collector: Collector) -> Phase:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _forget_peak()
    resident, calls, own = _peak_bytes(), bucket.calls, bucket.own_seconds
    began = time.process_time()
    report = await collector.collect()
    seconds = time.process_time() - began
    assert report is not None
    return Phase(
        name,
        seconds - (bucket.own_seconds - own),
        bucket.calls - calls,
        _peak_bytes() - resident,
        report.condemned,
        report.deleted,
    )


def _fill(bucket: MemoryBucket, namespace: Namespace, count: int) -> None:
    """Exports that each share half of their layers with the one before. To the first of them tags
    lead, to the others nothing."""
    chance = random.Random(count)
    manifests = count // (_NEW + 1)
    kept = int(manifests * _TAGGED)
    for number in range(_REPOSITORIES):
        repository = Repository(f"fleet/app-{number}")
        tagged = _exports(bucket, namespace, repository, chance, kept // _REPOSITORIES)
        for at in range(0, kept, _SOURCES):
            if sources := list(islice(tagged, _SOURCES)):
                _tag(bucket, namespace, repository, Tag(f"cache-{at}"), sources)
        garbage = (manifests - kept) // _REPOSITORIES
        for _ in _exports(bucket, namespace, repository, chance, garbage):
            pass


def _exports(
    bucket: MemoryBucket,
    namespace: Namespace,
    repository: Repository,
    chance: random.Random,
    count: int,
) -> Iterator[Digest]:
    def blob(size: int) -> dict[str, object]:
        digest = Digest(f"sha256:{chance.randbytes(32).hex()}")
        bucket.place(namespace.blob(digest), b"", _NO_METADATA, size)
        return {"mediaType": LAYER, "digest": digest, "size": size}

    before: list[dict[str, object]] = []
    for _ in range(count):
        layers = [blob(_MIB) for _ in range(_NEW)]
        config = {**blob(_PAGE), "mediaType": CACHE_CONFIG}
        body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config}
        data = json.dumps({**body, "layers": before + layers}).encode()
        digest = digest_of(data)
        bucket.place(namespace.manifest(repository, digest), data, _MEDIA_TYPE)
        before = layers[: _LAYERS - _NEW]
        yield digest


_NO_METADATA: Final = {"": ""}  # one for all, where each would have one of its own
_MEDIA_TYPE: Final = {MEDIA_TYPE: OCI_MANIFEST}


def _tag(
    bucket: MemoryBucket,
    namespace: Namespace,
    repository: Repository,
    tag: Tag,
    digests: Sequence[Digest],
) -> None:
    sources = tuple([Source(str(each), 1, 1, 1) for each in digests])
    record = TagRecord(digests[-1], sources=sources)
    bucket.place(namespace.tag(repository, tag), msgspec.json.encode(record, enc_hook=str))


def _forget_peak() -> None:
    """Have the kernel take what is resident now for the most that ever was."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) * 1024 if match else 0


if __name__ == "__main__":
    print(msgspec.json.encode(asyncio.run(_phases(int(sys.argv[1])))).decode())
