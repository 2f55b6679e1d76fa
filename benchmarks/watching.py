"""Rows on what watching costs: metrics that are scraped all the time, and metrics at all."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from benchmarks import peers, unwatched
from benchmarks.latency import ALONE, OURS, Run, interleave, print_latency, print_speed
from benchmarks.load import LoadError, Target
from benchmarks.peers import Peer
from benchmarks.scale import Scale
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.manifest import OCI_MANIFEST
from tests.registry.exports import export
from tests.server import SERVE

_RUNNERS: Final = 200
_SCRAPE_SECONDS: Final = 1.0
"""Prometheus waits for 15 and more."""
_MOST_WORSE: Final = 1.05
_STARTS: Final = 6
"""Two processes of one program differ by some percent, by where in memory their things are."""

_HEADER: Final = "X-Runner"
_FLAGS: Final = (f"--clients-header={_HEADER}", "--collection-interval-seconds=0")

_EXPORT: Final = export("base", "tools", "app")
_BLOBS: Final = (*_EXPORT.layers.values(), _EXPORT.written.config)
_TAG: Final = "/v2/fleet/app/manifests/cache"
_CACHE: Final = f"/v2/fleet/app/manifests/{_EXPORT.digest}"
_ABSENT: Final = "/v2/fleet/app/manifests/other"

_PUSHES: Final = f"{OCI_MANIFEST}, */*"
_RESOLVES: Final = f"application/vnd.docker.distribution.manifest.v2+json, {OCI_MANIFEST}, */*"
_CONFIGURES: Final = "application/vnd.buildkit.cacheconfig.v0, */*"


def scrape(folder: Path, scale: Scale) -> None:
    """Runners' looks for blobs and manifests while metrics are scraped, and while they are not."""
    with ExitStack() as stack:
        servers = [stack.enter_context(_started(folder, name, SERVE)) for name in (OURS, ALONE)]
        stack.enter_context(_scraped(servers[0].host))
        runs = interleave(servers, _targets, scale)
    print_latency(f"requests of {_RUNNERS} runners, scraped (limit: not)", runs)
    print_speed("", runs)


def metrics(folder: Path, scale: Scale) -> None:
    """The same requests, counted and not."""
    commands = [(OURS, SERVE), (ALONE, unwatched.SERVE)]
    runs: dict[str, list[Run]] = {name: [] for name, _ in commands}
    for start in range(_STARTS):
        commands.reverse()
        with ExitStack() as stack:
            servers = [
                stack.enter_context(_started(folder / str(start), *each)) for each in commands
            ]
            for name, each in interleave(servers, _targets, scale).items():
                runs[name] += each
    print_speed(f"requests of {_RUNNERS} runners (limit: not counted)", runs, _MOST_WORSE)


@contextmanager
def _started(folder: Path, name: str, command: Sequence[str]) -> Iterator[Peer]:
    """A server of which every runner has asked all that it will be asked for."""
    with peers.cacheproxy(folder / name, *_FLAGS, command=command) as peer:
        builder = _Runner(peer.host, "builder")
        for blob in _BLOBS:
            path = f"/v2/fleet/app/blobs/uploads/?digest={digest_of(blob)}"
            builder.ask("POST", path, 201, body=blob)
        builder.ask("PUT", _TAG, 201, _EXPORT.written.media_type, _EXPORT.written.manifest)
        for number in range(_RUNNERS):
            _Runner(peer.host, _named(number)).build()
        yield replace(peer, name=name)


def _named(number: int) -> str:
    return f"runner-{number}"


def _blob(content: bytes) -> str:
    return f"/v2/fleet/app/blobs/{digest_of(content)}"


def _targets(host: str) -> list[Target]:
    """What runners ask for again and again; each tells its name."""
    looks = (("HEAD", _blob(_BLOBS[0])), ("HEAD", _blob(_BLOBS[1])), ("GET", _TAG), ("GET", _CACHE))
    return [
        Target(host, method, path, f"{_HEADER}: {_named(number)}\r\n")
        for number in range(_RUNNERS)
        for method, path in looks
    ]


class _Runner:
    """One that BuildKit runs on, whose cache is what another one has exported."""

    def __init__(self, host: str, name: str) -> None:
        self._connection = HTTPConnection(host)
        self._name = name

    def build(self) -> None:
        """Import the cache, miss another one, and export what is there already but for a blob."""
        self.ask("HEAD", _ABSENT, 404, _RESOLVES)
        self.ask("HEAD", _TAG, 200, _RESOLVES)
        self.ask("GET", _CACHE, 200, _RESOLVES)
        self.ask("GET", _blob(_BLOBS[-1]), 200, _CONFIGURES)
        self.ask("GET", _blob(_BLOBS[0]), 200)
        self.ask("HEAD", _blob(self._name.encode()), 404)
        for blob in _BLOBS:
            self.ask("HEAD", _blob(blob), 200)
        self.ask("HEAD", _TAG, 200, _PUSHES)
        self._connection.close()

    def ask(
        self, method: str, path: str, status: int, type_: str = "*/*", body: bytes | None = None
    ) -> None:
        """`type_` is that of the body, or else those that are accepted."""
        headers = {_HEADER: self._name, "Accept" if body is None else "Content-Type": type_}
        self._connection.request(method, path, body, headers)
        with self._connection.getresponse() as answer:
            answer.read()
            if answer.status != status:
                raise LoadError(f"{method} {path}: {answer.status}")


@contextmanager
def _scraped(host: str) -> Iterator[None]:
    """Metrics are read every so often until exit."""
    ended = threading.Event()

    def read() -> None:
        while not ended.wait(_SCRAPE_SECONDS):
            with urllib.request.urlopen(f"http://{host}/metrics") as answer:
                answer.read()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        ended.set()
        reader.join()
