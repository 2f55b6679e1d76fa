"""A project that BuildKit builds, and whose cache it keeps in a registry."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.load import Done, LoadError
from benchmarks.peers import Peer
from tests.real.build import Build
from tests.real.buildkit import BuildKit

STEPS: Final = 20
"""How many layers it has, of 1 MiB each."""


class Project:
    """A build whose layers nothing compresses, and the builder that it is built on."""

    def __init__(self, folder: Path, base: str, buildkit: BuildKit) -> None:
        folder.mkdir()
        self._folder = folder
        self._base = base
        self._buildkit = buildkit
        self._renewed = 0

    def renew(self) -> None:
        """Make all layers anew, and compress them, which the first export would do otherwise."""
        self.forget()
        self._renewed += 1
        steps = (
            f"RUN : {self._renewed}; dd if=/dev/urandom of=/{step} bs=1M count=1 2> /dev/null"
            for step in range(STEPS)
        )
        lines = "\n".join((f"FROM {self._base}", *steps))
        context = self._folder / "context"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(lines)
        self._build(f"--export-cache=type=local,dest={self._folder}/{self._renewed},mode=max")

    def forget(self) -> None:
        """Leave the builder with nothing."""
        self._buildkit.prune()

    def export_to(self, cache: str) -> Done:
        """Send all layers, which the builder holds, to a cache; it is named as BuildKit does."""
        self._build(f"--export-cache={cache},mode=max")
        return Done(1, STEPS << 20)

    def import_from(self, cache: str) -> Done:
        """Build with nothing but the cache, and take every layer from there."""
        image = f"--output=type=oci,dest={self._folder}/image.tar"
        build = self._build(f"--import-cache={cache}", image)
        if build.executed:
            raise LoadError(f"not cached:\n{build.output}")
        return Done(1, STEPS << 20)

    def _build(self, *options: str) -> Build:
        return self._buildkit.build(self._folder / "context", *options)


def in_registry(peer: Peer) -> str:
    """BuildKit's name for a cache that a registry keeps."""
    return f"type=registry,ref={peer.host}/bench/app:cache"
