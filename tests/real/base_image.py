"""Images to build on, made of BusyBox and of Python, since none can be pulled where tests run."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import re
import ssl
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pip

from tests.real.clients import Crane
from tests.real.process import require

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_LEVEL = 1
_MANYLINUX = (
    *("libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1"),
    *("libstdc++.so.6", "libutil.so.1"),
)
_UNNEEDED = re.compile(r"(site|dist)-packages|test|idlelib|config-.*|.*\.opt-\d\.pyc")


class Image:
    """An OCI layout folder with one image of one layer."""

    def __init__(self, folder: Path, repository: str, layer: bytes, path: str) -> None:
        self.folder = folder
        self._repository = repository
        config = {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Env": [f"PATH={path}"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._add(_CONFIG, json.dumps(config).encode()),
            "layers": [self._add(_LAYER, gzip.compress(layer, _LEVEL, mtime=0))],
        }
        index = {
            "schemaVersion": 2,
            "manifests": [self._add(_MANIFEST, json.dumps(manifest).encode())],
        }
        (folder / "index.json").write_text(json.dumps(index))
        (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))

    def push(self, host: str, crane: Crane) -> str:
        """Push the image to the registry `host` and return its name for a `FROM` line."""
        name = f"{host}/{self._repository}:latest"
        crane.run("push", str(self.folder), name)
        return name

    def blob(self, digest: str) -> bytes:
        return self._path(digest).read_bytes()

    def _path(self, digest: str) -> Path:
        return self.folder / "blobs" / Path(*digest.split(":"))

    def _add(self, media_type: str, content: bytes) -> dict[str, str | int]:
        """Store a blob and return its descriptor."""
        digest = _digest(content)
        path = self._path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}


class BaseImage(Image):
    """`/bin/sh` and all of BusyBox's other commands.

    The same BusyBox always makes the same digests.
    """

    def __init__(self, folder: Path) -> None:
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            _add_busybox(tar, require("busybox"))
        super().__init__(folder, "base/busybox", target.getvalue(), "/bin")


class PythonImage(Image):
    """BusyBox, and the Python that runs the tests, with pip, at the path that it has here."""

    def __init__(self, folder: Path) -> None:
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
            _add_busybox(tar, require("busybox"))
            python = _add_python(tar)
            for name in ("python", "python3"):
                _add_entry(
                    tar, f"usr/local/bin/{name}", 0o777, kind=tarfile.SYMTYPE, link=str(python)
                )
        super().__init__(folder, "base/python", target.getvalue(), "/usr/local/bin:/bin")


def _add_busybox(tar: tarfile.TarFile, busybox: Path) -> None:
    """Add the least that a shell in a container needs."""
    listing = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    commands = sorted(set(listing.stdout.split()) - {"busybox"})
    for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
        _add_entry(tar, folder, mode, kind=tarfile.DIRTYPE)
    _add_entry(tar, "etc/passwd", 0o644, content=b"root:x:0:0:root:/:/bin/sh\n")
    _add_entry(tar, "bin/busybox", 0o755, content=busybox.read_bytes())
    for command in commands:
        _add_entry(tar, f"bin/{command}", 0o777, kind=tarfile.SYMTYPE, link="busybox")


def _add_python(tar: tarfile.TarFile) -> Path:
    """Add the interpreter, its library, what they link to, and the certificates that it trusts."""
    python = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    modules = sorted((library / "lib-dynload").glob("*.so"))
    certificates = Path(ssl.get_default_verify_paths().cafile or "")
    for path in (python, *_linked((python, *modules)), certificates):
        if path.is_file():
            _add_entry(tar, str(path).lstrip("/"), 0o755, content=path.read_bytes())
    tar.add(library, filter=_needed)
    tar.add(Path(pip.__file__).parent, arcname=library / "pip", filter=_needed)
    return python


def _linked(programs: tuple[Path, ...]) -> Iterator[Path]:
    """The shared libraries of `programs`, and what wheels may count on in any Linux."""
    listing = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    found = {Path(path) for path in re.findall(r"(/\S+) \(0x", listing)}
    (c_library,) = (path for path in found if path.name == "libc.so.6")
    yield from sorted(found | {c_library.with_name(name) for name in _MANYLINUX})


def _needed(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out other packages and Python's own tests, and who owns the files here."""
    if _UNNEEDED.fullmatch(Path(entry.name).name):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


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
