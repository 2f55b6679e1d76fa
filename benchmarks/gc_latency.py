"""The row on requests beside a collector that works all the time: a cycle begins as another ends.

Its pace is that of every server, so a cycle may take longer than the row.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import peers
from benchmarks.latency import ALONE, OURS, interleave, print_latency, print_speed
from benchmarks.load import Target
from benchmarks.peers import Peer
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
_FLAGS: Final = {
    ALONE: "--collection-interval-seconds=0",
    OURS: "--collection-interval-seconds=0.001",
}


def latency(folder: Path, scale: Scale) -> None:
    """Looks for blobs and manifests, with a collector that runs on and on, and without any."""
    paths = asyncio.run(_fill(folder / "filled"))
    with ExitStack() as stack:
        servers = [stack.enter_context(_started(folder, name)) for name in _FLAGS]
        runs = interleave(servers, partial(_targets, paths), scale)
        cycles = (folder / OURS / "server.log").read_text().count('"collected"')
    print_latency(f"requests, always collecting, {cycles} ended (limit: never)", runs)
    print_speed("", runs)


def _targets(paths: Sequence[str], host: str) -> list[Target]:
    return [Target(host, "HEAD" if "/blobs/" in path else "GET", path) for path in paths]


@contextmanager
def _started(folder: Path, name: str) -> Iterator[Peer]:
    """A server of its own on what is filled, whose files it does not change in place."""
    mine = folder / name
    shutil.copytree(folder / "filled", mine / "data", copy_function=os.link)
    with peers.cacheproxy(mine, _FLAGS[name]) as peer:
        yield replace(peer, name=name)


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
