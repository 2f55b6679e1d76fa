"""The servers that are compared, each a running process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks.nginx import nginx
from benchmarks.processes import ProcessTree, children
from tests.real.distribution import Distribution
from tests.s3.tls import Certificate
from tests.server import SERVE, Server

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Peer:
    """A server at `host`, an address and port."""

    name: str
    host: str
    process: ProcessTree


@contextmanager
def cacheproxy(folder: Path, *flags: str, command: Sequence[str] = SERVE) -> Iterator[Peer]:
    """This server on a folder, with these flags besides."""
    start = partial(Server.running, _made(folder), *flags, command=command)
    with started(start) as (server, process):
        yield Peer("cacheproxy", server.host, process)


@contextmanager
def distribution(folder: Path, **variables: str) -> Iterator[Peer]:
    """The CNCF registry on a folder, with these settings besides."""
    with started(lambda: Distribution.running(_made(folder), **variables)) as (registry, process):
        yield Peer("distribution", registry.host, process)


@contextmanager
def limit(folder: Path, files: Path, certificate: Certificate | None = None) -> Iterator[Peer]:
    """nginx on the folder `files`, by TLS if there is a certificate."""
    with started(lambda: nginx(_made(folder), files, certificate)) as (host, process):
        yield Peer("nginx", host, process)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def started(
    start: Callable[[], AbstractContextManager[T]],
) -> Iterator[tuple[T, ProcessTree]]:
    """What `start` yields, and the one process that it starts."""
    before = children(os.getpid())
    with start() as it:
        [pid] = children(os.getpid()) - before
        yield it, ProcessTree(pid)
