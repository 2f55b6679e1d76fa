"""Docker's build client, without Docker."""

from __future__ import annotations

from pathlib import Path

from tests.real.build import Build, run_build
from tests.real.buildkit import BuildKit
from tests.real.home import Home
from tests.real.process import require

_BUILDER = "tests"


class Buildx:
    """buildx that builds on a running buildkitd through its `remote` driver."""

    def __init__(self, folder: Path, buildkit: BuildKit) -> None:
        require("buildx")
        self.home = Home(folder)
        self.home.run("buildx", "create", "--name", _BUILDER, "--driver=remote", buildkit.address)

    def build(self, context: Path, *options: str, seconds: float = 240) -> Build:
        """Build the Dockerfile in the folder `context`; raise `BuildError` when that fails."""
        arguments = ("build", "--builder", _BUILDER, "--progress=rawjson", *options, str(context))
        return run_build(self.home, "buildx", arguments, seconds=seconds)
