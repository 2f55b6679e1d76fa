"""What the servers hold when they are read from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.content import Body, Content
from benchmarks.peers import Peer
from benchmarks.registry import REPOSITORY, Registry

_SIZES: Final = {"4 KiB": 4 << 10, "1 MiB": 1 << 20, "64 MiB": 64 << 20}
_MEDIA_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_LAYERS: Final = 10


@dataclass(frozen=True, slots=True)
class Stored:
    """What all the peers have: a manifest, tagged `latest`, and blobs by the names of sizes."""

    manifest: str
    blobs: dict[str, str]

    @staticmethod
    def path(kind: str, reference: str) -> str:
        return f"/v2/{REPOSITORY}/{kind}/{reference}"


def store(registries: Sequence[Peer], files: Path) -> Stored:
    """Push the content, and lay it out as files whose paths are those of the requests."""
    with ExitStack() as stack:
        contents = {name: stack.enter_context(closing(Content(n))) for name, n in _SIZES.items()}
        bodies = {name: content.fresh() for name, content in contents.items()}
        manifest = _manifest(bodies["4 KiB"])
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        for peer in registries:
            with Registry(peer.host) as registry:
                for body in bodies.values():
                    registry.push(body)
                registry.put_manifest("latest", _MEDIA_TYPE, manifest)
        stored = Stored(digest, {name: body.digest for name, body in bodies.items()})
        for reference in ("latest", digest):
            write(files, stored.path("manifests", reference), manifest)
        for body in bodies.values():
            write(files, stored.path("blobs", body.digest), body.bytes())
        return stored


def _manifest(layer: Body) -> bytes:
    """A manifest as a build with ten steps makes it; one blob stands for all of its layers."""
    descriptor = {"digest": layer.digest, "size": layer.size}
    tar = "application/vnd.oci.image.layer.v1.tar+gzip"
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MEDIA_TYPE,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **descriptor},
            "layers": [{"mediaType": tar, **descriptor}] * _LAYERS,
        }
    ).encode()


def write(files: Path, path: str, data: bytes) -> None:
    """Make a file whose path is that of a request."""
    target = files / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
