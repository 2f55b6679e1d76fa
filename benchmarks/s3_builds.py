"""Rows on BuildKit with caches in S3: by a registry, and by BuildKit itself."""

from __future__ import annotations

import os
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import peers, s3, table
from benchmarks.building import push_base
from benchmarks.project import STEPS, Project, in_registry
from benchmarks.samples import medians
from benchmarks.scale import Scale
from tests.real.buildkit import BuildKit

_ITSELF: Final = "type=s3"
_LOCAL: Final = "type=local"
_STAGES: Final = 10
_IN_A_ROW: Final = 10
_LAYERS: Final = _STAGES * _IN_A_ROW
_LAYER_BYTES: Final = 4096
_MOST_SECONDS: Final = {"warm": 1.0, "cold": 2.0}
_Walls = Mapping[str, Mapping[str, list[float]]]
"""Seconds by what is done, then by name of the peer."""


def builds(folder: Path, scale: Scale) -> None:
    """Export and import of 20 layers of 1 MiB, with a builder that has nothing else to do."""
    if not _possible():
        return
    with ExitStack() as stack:
        buildkit = stack.enter_context(BuildKit.running())
        source = stack.enter_context(peers.cacheproxy(folder / "source"))
        project = Project(folder / "project", push_base(folder, source), buildkit)
        store = stack.enter_context(s3.store())
        for delay in (s3.FAR,) if scale.quick else (0.0, s3.FAR):
            where = store.at(delay)
            walls: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
            for _ in range(scale.rounds):
                _round(folder, project, where, walls)
            _print_builds(f"{STEPS} x 1 MiB, +{1000 * delay:.0f} ms", walls)


def _round(
    folder: Path, project: Project, where: s3.S3, walls: Mapping[str, Mapping[str, list[float]]]
) -> None:
    """Export to empty caches, then import from each into an empty builder."""
    project.renew()
    with ExitStack() as stack:
        caches = {_ITSELF: s3.buildkit_cache(where, secrets.token_hex(4))}
        for name in s3.STARTS:
            place = s3.Place(name, folder / "servers")
            caches[name] = in_registry(stack.enter_context(place.served(where)))
        for name, cache in caches.items():
            walls["export"][name].append(_seconds(partial(project.export_to, cache)))
        for name, cache in caches.items():
            project.forget()
            walls["import"][name].append(_seconds(partial(project.import_from, cache)))


def _print_builds(row: str, walls: _Walls) -> None:
    for what, each in walls.items():
        figures = medians(each, float)
        target = table.times(figures, 1, _ITSELF)
        table.print_line(f"BuildKit {what} {row} (limit: {_ITSELF})", "s", figures, target)


def reexports(folder: Path, scale: Scale) -> None:
    """An unchanged cache of 100 layers, to a server that knows it, and to one that just started."""
    if not _possible():
        return
    with ExitStack() as stack:
        store = stack.enter_context(s3.store())
        buildkit = stack.enter_context(BuildKit.running())
        context = _many_layers(folder / "context")
        places = [s3.Place(name, folder / "servers") for name in s3.STARTS]
        walls: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for place in places:
            with place.served(store.near) as peer:
                _export(buildkit, context, in_registry(peer))
        for _ in range(scale.rounds):
            local = f"{_LOCAL},dest={folder}/local"
            seconds = _seconds(partial(_export, buildkit, context, local))
            walls["cold"][_LOCAL].append(seconds)
            walls["warm"][_LOCAL].append(seconds)
            for place in places:
                with place.served(store.at(s3.FAR)) as peer:
                    export = partial(_export, buildkit, context, in_registry(peer))
                    walls["cold"][place.name].append(_seconds(export))
                    walls["warm"][place.name].append(_seconds(export))
    for what, each in walls.items():
        figures = medians(each, float)
        target = table.at_most(_MOST_SECONDS[what], figures["cacheproxy"])
        row = f"re-export {_LAYERS} layers, {what} (limit: {_LOCAL})"
        table.print_line(row, "s", figures, target)


def _many_layers(folder: Path) -> Path:
    """A build without steps to run, that makes as many layers as are copied.

    It has stages, since BuildKit's own work grows with the square of how many are in a row.
    """
    folder.mkdir()
    for number in range(_LAYERS):
        (folder / str(number)).write_bytes(os.urandom(_LAYER_BYTES))
    lines: list[str] = []
    for stage in range(_STAGES - 1):
        numbers = range(stage * _IN_A_ROW, (stage + 1) * _IN_A_ROW)
        lines += (f"FROM scratch AS s{stage}", *(f"COPY {n} /{n}" for n in numbers))
    copies = (f"COPY --from=s{stage} / /{stage}/" for stage in range(_STAGES - 1))
    lines += ("FROM scratch", *copies, f"COPY {_LAYERS - 1} /last")
    (folder / "Dockerfile").write_text("\n".join(lines))
    return folder


def _export(buildkit: BuildKit, context: Path, cache: str) -> None:
    buildkit.build(context, f"--export-cache={cache},mode=max")


def _possible() -> bool:
    if os.geteuid() != 0:
        print("BuildKit: skipped, buildkitd needs root")
        return False
    return True


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started
