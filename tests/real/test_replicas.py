"""Three replicas on one bucket behind nginx, which asks each in turn, while they come and go."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.real.base_image import BaseImage
from tests.real.build import BuildError
from tests.real.buildkit import BuildKit
from tests.real.clients import Crane
from tests.real.nginx import Nginx
from tests.real.restartable import Restartable
from tests.real.seaweed import SeaweedFS

_DOCKERFILE = """\
FROM {base}
COPY source /source
RUN head -c 6000000 /dev/urandom > /big
RUN head -c 100000 /dev/urandom > /small
RUN cat /source > /result
"""
_STEPS = 4
_KILLS = 12
_CONTROL_KILLS = 3
_ACCEPT = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json,"
    " application/vnd.docker.distribution.manifest.list.v2+json"
)


@pytest.fixture(scope="module")
def replicas(
    seaweed: SeaweedFS, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Restartable]]:
    """Three servers over one prefix, which send large blobs in parts."""
    folder, prefix = tmp_path_factory.mktemp("replicas"), seaweed.fresh_prefix()
    with _running(
        [
            Restartable.replica(folder / f"{number}", seaweed, prefix, "--s3-part-bytes=5MiB")
            for number in range(3)
        ]
    ) as replicas:
        yield replicas


@contextmanager
def _running(servers: list[Restartable]) -> Iterator[list[Restartable]]:
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.close)
            server.begin()
        for server in servers:
            server.wait()
        yield servers


class _Builds:
    """Builds in a loop, each of new layers, whose caches are exported through nginx."""

    def __init__(
        self, buildkit: BuildKit, host: str, base: str, folder: Path, answers: Path
    ) -> None:
        self.exported: list[str] = []
        """Tags whose export has succeeded."""
        self.failed: list[tuple[str, str]] = []
        """Tags whose export has not, and why."""
        self._buildkit = buildkit
        self._host = host
        self._base = base
        self._folder = folder
        self._answers = answers
        self._numbers = count()
        folder.mkdir()

    def export(self, tag: str) -> None:
        """Raises BuildError."""
        context = self._folder / tag
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(_DOCKERFILE.format(base=self._base))
        (context / "source").write_text(f"{self._folder} {tag}")
        export = f"{self._cache(tag)},mode=max,compression=uncompressed,force-compression=true"
        self._buildkit.build(context, f"--export-cache={export}")
        self.exported.append(tag)

    def check(self, tag: str) -> None:
        """Import into an empty builder: every step is cached."""
        self._buildkit.prune()
        build = self._buildkit.build(self._folder / tag, f"--import-cache={self._cache(tag)}")
        assert build.executed == []
        assert len(build.cached) == _STEPS

    @contextmanager
    def looping(self, *, threads: int, check: bool) -> Iterator[None]:
        """Meanwhile, export and perhaps import again and again; failures are noted."""
        ended = threading.Event()

        def loop() -> None:
            while not ended.is_set():
                tag = f"build{next(self._numbers)}"
                try:
                    self.export(tag)
                    if check:
                        self.check(tag)
                except (BuildError, AssertionError) as error:
                    self.failed.append((tag, str(error)))

        running = [threading.Thread(target=loop) for _ in range(threads)]
        for thread in running:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in running:
                thread.join()

    def report(self) -> str:
        """What became of them, in words."""
        answers = self._answers.read_text().splitlines()
        refused = sum(answer.startswith("5") for answer in answers)
        return (
            f"{len(self.exported)} builds succeeded, {len(self.failed)} failed,"
            f" {refused} of {len(answers)} answers were 5xx"
        )

    def _cache(self, tag: str) -> str:
        return f"type=registry,ref={self._host}/ci/app:{tag}"


@pytest.fixture
def start_builds(
    buildkit: BuildKit, layout: BaseImage, crane: Crane, tmp_path: Path
) -> Iterator[Callable[[Sequence[Restartable], str], _Builds]]:
    """Put nginx before servers, and a base image into them."""
    with ExitStack() as stack:

        def start(servers: Sequence[Restartable], name: str) -> _Builds:
            folder = tmp_path / f"nginx-{name}"
            folder.mkdir()
            hosts = [server.host for server in servers]
            nginx = stack.enter_context(Nginx.balancing(folder, hosts))
            base = layout.push(nginx.host, crane)
            builds = tmp_path / f"builds-{name}"
            return _Builds(buildkit, nginx.host, base, builds, folder / "access.log")

        yield start


_StartBuilds = Callable[[Sequence[Restartable], str], _Builds]


def test_rolling_restarts_fail_no_build(
    replicas: list[Restartable], start_builds: _StartBuilds
) -> None:
    """SIGTERM to each replica in turn: all exports and imports go on without a failure."""
    builds = start_builds(replicas, "replicas")
    builds.export("before")
    builds.check("before")
    with builds.looping(threads=1, check=True):
        for replica in replicas:
            assert replica.stop() == 0
            replica.start()
        _wait_until(lambda: len(builds.exported) > len(replicas) or bool(builds.failed))

    assert builds.failed == []
    assert len(builds.exported) > len(replicas)
    print(f"rolling restarts: {builds.report()}")


def test_kills_store_nothing_wrong(
    replicas: list[Restartable], start_builds: _StartBuilds, tmp_path: Path
) -> None:
    """kill -9 in the middle of exports: what was acknowledged is whole on every replica, and what
    failed succeeds when it is repeated. Distribution is there to compare."""
    builds = start_builds(replicas, "replicas")
    _kill_during(builds, replicas, _KILLS)
    print(f"{_KILLS} kills among 3 replicas: {builds.report()}")
    for tag, _ in builds.failed:
        builds.export(tag)

    for replica in replicas:
        _check_all(replica.host, builds.exported)
    builds.check(builds.exported[-1])

    with _running([Restartable.control(tmp_path / "control")]) as control:
        builds = start_builds(control, "control")
        _kill_during(builds, control, _CONTROL_KILLS)
        print(f"{_CONTROL_KILLS} kills of distribution: {builds.report()}")


def _kill_during(builds: _Builds, servers: list[Restartable], kills: int) -> None:
    """Kill one after another at random moments; the next one when the last one is back."""
    chance = random.Random(11)
    with builds.looping(threads=2, check=False):
        for _ in range(kills):
            victim = chance.choice([server for server in servers if server.answers()])
            time.sleep(chance.uniform(0.1, 0.8))  # the moment is what is random
            victim.kill()
            victim.begin()
            _wait_for_most(servers)
    for server in servers:
        server.wait()


def _wait_for_most(servers: list[Restartable]) -> None:
    """Wait until no more than one is down."""
    needed = max(1, len(servers) - 1)
    _wait_until(lambda: sum(server.answers() is True for server in servers) >= needed)


def _wait_until(holds: Callable[[], bool]) -> None:
    """Fails if it surely never will be so, however busy the machine is."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _check_all(host: str, tags: list[str]) -> None:
    """Fetch and hash all that the manifests with these tags lead to."""
    assert tags
    with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
        for tag in tags:
            manifest = json.loads(_get(connection, f"/v2/ci/app/manifests/{tag}"))
            entries = manifest.get("layers") or manifest["manifests"]
            config = [manifest["config"]] if "config" in manifest else []
            for entry in entries + config:
                content = _get(connection, f"/v2/ci/app/blobs/{entry['digest']}")
                assert entry["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"


def _get(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path, headers={"Accept": _ACCEPT})
    with connection.getresponse() as answer:
        content = answer.read()
        assert answer.status == 200, content
        return content
