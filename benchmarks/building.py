"""Rows on BuildKit: how long a cache takes to go to a registry, and to come back."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import peers, table
from benchmarks.peers import Peer
from benchmarks.project import STEPS, Project, in_registry
from benchmarks.samples import Sample, measure, medians
from benchmarks.scale import Scale
from tests.real.base_image import BaseImage
from tests.real.buildkit import BuildKit
from tests.real.clients import Crane


def builds(folder: Path, scale: Scale) -> None:
    """Export and import of 20 layers of 1 MiB, with a builder that has nothing else to do."""
    if os.geteuid() != 0:
        print("BuildKit: skipped, buildkitd needs root")
        return
    samples: dict[str, dict[str, list[Sample]]] = {"export": {}, "import": {}}
    with ExitStack() as stack:
        source = stack.enter_context(peers.cacheproxy(folder / "source"))
        buildkit = stack.enter_context(BuildKit.running())
        project = Project(folder / "project", push_base(folder, source), buildkit)
        for number in range(scale.rounds):
            _round(folder / str(number), project, samples)
    for name, each in samples.items():
        row = f"BuildKit {name}, {STEPS} x 1 MiB"
        table.print_line(row, "s", medians(each, lambda sample: sample.wall))
        table.print_line("", "CPU s", medians(each, lambda sample: sample.cpu))


def _round(folder: Path, project: Project, samples: dict[str, dict[str, list[Sample]]]) -> None:
    """Export to empty registries, then import from each into an empty builder."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(peers.cacheproxy(folder / "cacheproxy")),
            stack.enter_context(peers.distribution(folder / "distribution")),
        ]
        project.renew()
        for peer in servers:
            sample = measure(peer.process, partial(project.export_to, in_registry(peer)))
            samples["export"].setdefault(peer.name, []).append(sample)
        for peer in servers:
            project.forget()
            sample = measure(peer.process, partial(project.import_from, in_registry(peer)))
            samples["import"].setdefault(peer.name, []).append(sample)


def push_base(folder: Path, source: Peer) -> str:
    """The name of an image to build on, which no registry that is measured holds."""
    layout = folder / "layout"
    layout.mkdir()
    return BaseImage(layout).push(source.host, Crane(folder / "crane"))
