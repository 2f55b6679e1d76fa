"""Rows on what operations cost: requests to S3 and bytes, as the proxy before it counts them."""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import s3, table
from benchmarks.content import Body, Content
from benchmarks.peers import Peer
from benchmarks.registry import Registry, spread
from benchmarks.scale import Scale
from tests.s3.process import ProxyProcess, Seen

_MIB: Final = 1 << 20
_SIZES: Final = (_MIB, 100 * _MIB)
_MOST_SENT: Final = 1.01
"""Times the bytes of a blob; a little is for what is not the blob."""
_LAYERS: Final = 100
_LAYER_BYTES: Final = 256
_CONNECTIONS: Final = 16
_TAG: Final = "latest"
_MEDIA_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_SETTLE_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Made:
    """What is pushed: blobs by their sizes, and a manifest of layers."""

    blobs: list[Body]
    layers: list[Body]
    manifest: bytes

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"


_Steps = Sequence[tuple[str, int, Callable[[Registry], None]]]
"""What it is called, the most requests that it may take, and what it is."""


class _Counted:
    """Requests, and MiB that were sent with them, by row and then by name of the peer."""

    def __init__(self) -> None:
        self.most: dict[str, int] = {}
        self.requests: dict[str, dict[str, float]] = defaultdict(dict)
        self.sent: dict[str, dict[str, float]] = defaultdict(dict)

    def count(self, peer: Peer, proxy: ProxyProcess, steps: _Steps) -> None:
        with Registry(peer.host) as registry:
            time.sleep(_SETTLE_SECONDS)  # what is done at the start does not
            proxy.take()
            for row, most, act in steps:
                act(registry)
                time.sleep(_SETTLE_SECONDS)  # what is done after the answer counts too
                calls = [call for call in proxy.take() if not _is_poll(call)]
                self.most[row] = most
                self.requests[row][peer.name] = len(calls)
                self.sent[row][peer.name] = sum(call.sent for call in calls) / _MIB


def costs(folder: Path, _: Scale) -> None:
    """Requests of each operation, and for new blobs the bytes that go to S3."""
    counted = _Counted()
    with ExitStack() as stack:
        store = stack.enter_context(s3.store())
        contents = [stack.enter_context(closing(Content(size))) for size in _SIZES]
        layers = stack.enter_context(closing(Content(_LAYER_BYTES)))
        for name in s3.STARTS:
            made = _make(contents, layers)
            place = s3.Place(name, folder / "servers")
            for steps in (_warm_steps(made), _cold_steps(made)):
                with place.served(store.far) as peer:
                    counted.count(peer, store.proxy, steps)
    _print(counted)


def _make(contents: Sequence[Content], layers: Content) -> _Made:
    bodies = [layers.fresh() for _ in range(_LAYERS + 1)]
    return _Made([content.fresh() for content in contents], bodies, _manifest(bodies))


def _warm_steps(made: _Made) -> _Steps:
    """By one server after the other, as BuildKit does."""
    small, large = made.blobs
    return (
        ("push 1 MiB", 2, lambda registry: registry.push(small)),
        ("push 100 MiB", 10, lambda registry: registry.push(large)),
        ("HEAD of a blob, warm", 0, lambda registry: registry.head(small)),
        ("", 0, lambda registry: _push_all(registry, made.layers)),
        ("PUT of a manifest, 100 layers", 6, lambda registry: _put(registry, made)),
        ("PUT of it again", 6, lambda registry: _put(registry, made)),
        ("pull 1 MiB, warm", 0, lambda registry: registry.pull(small)),
        ("GET by digest, warm", 0, lambda registry: _get(registry, made.digest)),
        ("GET by tag, warm", 1, lambda registry: _get(registry, _TAG)),
    )


def _cold_steps(made: _Made) -> _Steps:
    """By a server that has just started."""
    small, large = made.blobs
    return (
        ("HEAD of a blob, cold", 1, lambda registry: registry.head(small)),
        ("pull 1 MiB, cold", 1, lambda registry: registry.pull(small)),
        ("pull 100 MiB, cold", 1, lambda registry: registry.pull(large)),
    )


def _is_poll(call: Seen) -> bool:
    return call.kind == "deleted" and call.operation == "ListObjectsV2"


def _push_all(registry: Registry, bodies: Sequence[Body]) -> None:
    spread(registry.host, _CONNECTIONS, bodies, Registry.push)


def _put(registry: Registry, made: _Made) -> None:
    registry.put_manifest(_TAG, _MEDIA_TYPE, made.manifest)


def _get(registry: Registry, reference: str) -> None:
    registry.get_manifest(reference, _MEDIA_TYPE)


def _manifest(bodies: Sequence[Body]) -> bytes:
    config, *layers = [{"digest": body.digest, "size": body.size} for body in bodies]
    tar = "application/vnd.oci.image.layer.v1.tar+gzip"
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MEDIA_TYPE,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
            "layers": [{"mediaType": tar, **layer} for layer in layers],
        }
    ).encode()


def _print(counted: _Counted) -> None:
    for row, figures in counted.requests.items():
        if not row:
            continue
        target = table.at_most(counted.most[row], figures["cacheproxy"])
        table.print_line(f"S3, {row}", "requests", figures, target)
        if row.startswith("push"):
            sent = counted.sent[row]
            most = _MOST_SENT * int(row.split()[1])
            table.print_line("", "MiB sent", sent, table.at_most(most, sent["cacheproxy"]))
