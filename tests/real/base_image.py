"""An image to build on, made of BusyBox, since no image can be pulled where the tests run."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path

from tests.real.clients import Crane
from tests.real.process import require

REPOSITORY = "base/busybox"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class BaseImage:
    """An OCI layout folder with one image: `/bin/sh` and all of BusyBox's other commands.

    The same BusyBox always makes the same digests.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        layer = _root_file_system(require("busybox"))
        config = {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._add(_CONFIG, json.dumps(config).encode()),
            "layers": [self._add(_LAYER, gzip.compress(layer, mtime=0))],
        }
        index = {
            "schemaVersion": 2,
            "manifests": [self._add(_MANIFEST, json.dumps(manifest).encode())],
        }
        (folder / "index.json").write_text(json.dumps(index))
        (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))

    def push(self, host: str, crane: Crane) -> str:
        """Push the image to the registry `host` and return its name for a `FROM` line."""
        name = f"{host}/{REPOSITORY}:latest"
        crane.run("push", str(self.folder), name)
        return name

    def _add(self, media_type: str, content: bytes) -> dict[str, str | int]:
        """Store a blob and return its descriptor."""
        digest = _digest(content)
        path = self.folder / "blobs" / Path(*digest.split(":"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _root_file_system(busybox: Path) -> bytes:
    """Return a tar of the least that a shell in a container needs."""
    listing = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    commands = sorted(set(listing.stdout.split()) - {"busybox"})
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
            _add_entry(tar, folder, mode, kind=tarfile.DIRTYPE)
        _add_entry(tar, "etc/passwd", 0o644, content=b"root:x:0:0:root:/:/bin/sh\n")
        _add_entry(tar, "bin/busybox", 0o755, content=busybox.read_bytes())
        for command in commands:
            _add_entry(tar, f"bin/{command}", 0o777, kind=tarfile.SYMTYPE, link="busybox")
    return target.getvalue()


def _add_entry(
    tar: tarfile.TarFile,
    name: str,
    mode: int,
    *,
    kind: bytes = tarfile.REGTYPE,
    content: bytes = b"",
    link: str = "",
) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type, entry.linkname, entry.size = mode, kind, link, len(content)
    tar.addfile(entry, io.BytesIO(content))


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
