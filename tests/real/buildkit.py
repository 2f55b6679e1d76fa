"""A real BuildKit daemon."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.real.build import Build, run_build
from tests.real.home import Home
from tests.real.process import CommandError, Daemon, require, require_root


class BuildKit:
    """A running buildkitd, and buildctl to use it."""

    def __init__(self, folder: Path, component: str) -> None:
        self.address = f"unix://{folder}/buildkitd.sock"
        self.home = Home(folder / "home")
        self._folder = folder
        self._component = component
        self._running = ExitStack()

    @classmethod
    @contextmanager
    def running(cls, config: str = "", component: str = "buildkit") -> Iterator[BuildKit]:
        """Start buildkitd; it stops, and all its files go, at the end of the context.

        `config` is text for `buildkitd.toml`. Loopback registries need none, because BuildKit calls
        them over plain HTTP anyway. `component` is the version, see `tests.components`.
        """
        require_root()
        with _short_lived_folder() as folder:
            (folder / "buildkitd.toml").write_text(config)
            buildkit = cls(folder, component)
            with buildkit._running:
                buildkit._start()
                yield buildkit

    def build(self, context: Path, *options: str, seconds: float = 240) -> Build:
        """Build the Dockerfile in the folder `context`; raise `BuildError` when that fails."""
        where = (f"--local=context={context}", f"--local=dockerfile={context}")
        build = ("build", "--frontend=dockerfile.v0", "--progress=rawjson", *where)
        arguments = ("--addr", self.address, *build, *options)
        return run_build(self.home, f"{self._component}/buildctl", arguments, seconds=seconds)

    def prune(self) -> None:
        """Forget all that was built or pulled before.

        What buildkitd takes to be in use outlives its own prune, now and then for good, long after
        the build has ended. A daemon that keeps something is replaced. As `process._leashed` says,
        by a thread that outlives it.
        """
        self._buildctl("prune", "--all")
        if self._remembers():
            self._running.close()
            _remove(self._folder / "root")
            self._start()

    def _start(self) -> None:
        command = _daemon_command(self._folder, self.address, self._component)
        log = self._folder / "buildkitd.log"
        daemon = Daemon.running(command, environment=self.home.environment, log=log)
        self._running.enter_context(daemon).wait_for(self._workers)

    def _remembers(self) -> bool:
        return self._buildctl("du", "--format={{len .}}").strip() != "0"

    def _workers(self) -> str | None:
        try:
            return self._buildctl("debug", "workers")
        except CommandError:
            return None

    def _buildctl(self, *arguments: str) -> str:
        return self.home.run(f"{self._component}/buildctl", "--addr", self.address, *arguments)


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
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder in which a killed build may have left mounts, the innermost first."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(line.split()[4]) for line in mounts]
    for point in reversed([point for point in points if point.is_relative_to(folder)]):
        subprocess.run(["umount", "--lazy", point], check=True)
    shutil.rmtree(folder)
