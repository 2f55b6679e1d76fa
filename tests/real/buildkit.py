"""A real BuildKit daemon."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.real.build import Build, run_build
from tests.real.home import Home
from tests.real.process import CommandError, Daemon, require, require_root


class BuildKit:
    """A running buildkitd, and buildctl to use it."""

    def __init__(self, address: str, home: Home, component: str) -> None:
        self.address = address
        self.home = home
        self._buildctl_binary = f"{component}/buildctl"

    @classmethod
    @contextmanager
    def running(cls, config: str = "", component: str = "buildkit") -> Iterator[BuildKit]:
        """Start buildkitd; it stops, and all its files go, at the end of the context.

        `config` is text for `buildkitd.toml`. Loopback registries need none, because BuildKit calls
        them over plain HTTP anyway. `component` is the version, see `tests.components`.
        """
        require_root()
        with _short_lived_folder() as folder:
            home = Home(folder / "home")
            address = f"unix://{folder}/buildkitd.sock"
            (folder / "buildkitd.toml").write_text(config)
            command = _daemon_command(folder, address, component)
            log = folder / "buildkitd.log"
            with Daemon.running(command, environment=home.environment, log=log) as daemon:
                buildkit = cls(address, home, component)
                daemon.wait_for(buildkit._workers)
                yield buildkit

    def build(self, context: Path, *options: str, seconds: float = 240) -> Build:
        """Build the Dockerfile in the folder `context`; raise `BuildError` when that fails."""
        where = (f"--local=context={context}", f"--local=dockerfile={context}")
        build = ("build", "--frontend=dockerfile.v0", "--progress=rawjson", *where)
        arguments = ("--addr", self.address, *build, *options)
        return run_build(self.home, self._buildctl_binary, arguments, seconds=seconds)

    def prune(self) -> None:
        """Forget all that was built or pulled before."""
        self._buildctl("prune", "--all")

    def _workers(self) -> str | None:
        try:
            return self._buildctl("debug", "workers")
        except CommandError:
            return None

    def _buildctl(self, *arguments: str) -> str:
        return self.home.run(self._buildctl_binary, "--addr", self.address, *arguments)


def _daemon_command(folder: Path, address: str, component: str) -> tuple[str, ...]:
    return (
        str(require(f"{component}/buildkitd")),
        f"--config={folder}/buildkitd.toml",
        f"--root={folder}/root",
        f"--addr={address}",
        "--containerd-worker=false",
        "--oci-worker=true",
        f"--oci-worker-binary={require('runc')}",
        # Build steps share the host's network, because CNI plugins are not installed.
        "--oci-worker-net=host",
        # Only a test prunes, or else a nearly full disk would turn hits into misses.
        "--oci-worker-gc=false",
    )


@contextmanager
def _short_lived_folder() -> Iterator[Path]:
    """Make a folder whose path leaves room for a socket, and remove it whatever hangs in it."""
    folder = Path(tempfile.mkdtemp(prefix="buildkitd-"))
    try:
        yield folder
    finally:
        _unmount_below(folder)
        shutil.rmtree(folder)


def _unmount_below(folder: Path) -> None:
    """Detach what a killed build leaves mounted, the innermost first."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(line.split()[4]) for line in mounts]
    for point in reversed([point for point in points if point.is_relative_to(folder)]):
        subprocess.run(["umount", "--lazy", point], check=True)
