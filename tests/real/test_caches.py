"""Cache tags as real builders use them, and beside it what they get from CNCF distribution."""

from __future__ import annotations

import hashlib
import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cacheproxy.buildkit.cache import Cache
from cacheproxy.buildkit.manifest import IMAGE, INDEX, read_cache
from tests.real.base_image import BaseImage
from tests.real.build import Build, BuildError
from tests.real.buildkit import BuildKit
from tests.real.clients import Crane
from tests.real.distribution import Distribution
from tests.real.seaweed import SeaweedFS
from tests.server import QUICK, Server

_DOCKERFILE = """\
FROM {base}
RUN echo tools > /tools
COPY source /source
RUN cat /source > /compiled
RUN cat /compiled /tools > /result
"""
_STEPS = 4

_SMALL = """\
FROM {base}
RUN echo tools > /tools
COPY source /source
RUN cat /source /tools > /result
"""

_TWO_PLATFORMS = """\
FROM scratch
ARG TARGETARCH
COPY $TARGETARCH /program
COPY $TARGETARCH /copy
"""

_ACCEPT = f"{IMAGE}, {INDEX}"
_LOOK_EACH_TIME = "--cache-verify-seconds=0.001"
_IMPORT_LIMIT = 1 << 20

_numbers = count()


@dataclass(frozen=True)
class Place:
    """A registry, and what deletes a blob from its storage. To some, only images are exported."""

    host: str
    base: str
    lose: Callable[[str], None]
    form: str = ""

    def tag(self) -> CacheTag:
        """A tag that nothing was exported to."""
        return CacheTag(self.host, f"ci/app{next(_numbers)}", self.form)


@dataclass(frozen=True)
class CacheTag:
    """A tag of a repository for caches."""

    host: str
    repository: str
    form: str

    @property
    def ref(self) -> str:
        return f"type=registry,ref={self.host}/{self.repository}:cache"

    def export(self, buildkit: BuildKit, project: Path, *options: str) -> Build:
        return buildkit.build(project, f"--export-cache={self.ref},mode=max{self.form}", *options)

    def import_(self, buildkit: BuildKit, project: Path, *options: str) -> Build:
        """Build with this cache and no other."""
        buildkit.prune()
        return buildkit.build(project, f"--import-cache={self.ref}", *options)

    def manifest(self) -> tuple[bytes, bytes]:
        """What the tag leads to, and its config."""
        manifest = self._get("manifests/cache")
        tree = json.loads(manifest)
        config = tree.get("config") or tree["manifests"][-1]
        return manifest, self._get(f"blobs/{config['digest']}")

    def cache(self) -> Cache:
        found = read_cache(*self.manifest())
        assert isinstance(found, Cache)
        return found

    def layers(self) -> list[str]:
        """The layers of the last step and of all below it, that of the base first."""
        layers = self.cache().config.layers
        chains: list[list[str]] = []
        for layer in layers:
            chains.append([*(chains[layer.parent] if layer.parent >= 0 else []), layer.blob])
        return max(chains, key=len)

    def push(self, manifest: bytes, config: bytes) -> None:
        """Push a cache in image form whose layers are there."""
        with self._ask("POST", "blobs/uploads/") as answer:
            location = answer.headers["Location"]
        if location.startswith("/"):
            location = f"http://{self.host}{location}"
        put = f"{location}{'&' if '?' in location else '?'}digest={_digest(config)}"
        for url, body, kind in (
            (put, config, "application/octet-stream"),
            (self._url("manifests/cache"), manifest, IMAGE),
        ):
            headers = {"Content-Type": kind}
            request = urllib.request.Request(url, body, headers, method="PUT")
            urllib.request.urlopen(request, timeout=30).close()

    def _get(self, path: str) -> bytes:
        with self._ask("GET", path) as answer:
            return bytes(answer.read())

    def _ask(self, method: str, path: str) -> Any:
        headers = {"Accept": _ACCEPT}
        request = urllib.request.Request(self._url(path), headers=headers, method=method)
        return urllib.request.urlopen(request, timeout=30)

    def _url(self, path: str) -> str:
        return f"http://{self.host}/v2/{self.repository}/{path}"


@pytest.fixture(scope="module")
def push_base(layout: BaseImage, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    crane = Crane(tmp_path_factory.mktemp("crane"))
    return lambda host: layout.push(host, crane)


@pytest.fixture(scope="module")
def place(
    push_base: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """cacheproxy, which looks for layers each time, and whose tags have up to 16 sources."""
    folder = tmp_path_factory.mktemp("server")
    with Server.running(folder, _LOOK_EACH_TIME, "--cache-sources=16") as server:
        blobs = server.data / "default/blobs"
        yield Place(
            server.host, push_base(server.host), lambda digest: _blob(blobs, digest).unlink()
        )


@pytest.fixture(scope="module")
def control(
    push_base: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """CNCF distribution, which refuses indexes of layers."""
    folder = tmp_path_factory.mktemp("control")
    blobs = folder / "storage/docker/registry/v2/blobs"
    with Distribution.running(folder) as control:
        yield Place(
            control.host,
            push_base(control.host),
            lambda digest: (_blob(blobs, digest) / "data").unlink(),
            ",image-manifest=true,oci-mediatypes=true",
        )


@pytest.fixture(scope="module")
def old_builder() -> Iterator[BuildKit]:
    """BuildKit v0.20, which exports indexes."""
    with BuildKit.running(component="buildkit020") as running:
        yield running


@pytest.fixture(params=["v0.32", "v0.20"])
def either(request: pytest.FixtureRequest, buildkit: BuildKit, old_builder: BuildKit) -> BuildKit:
    """A buildkitd of each version that knows nothing."""
    old_builder.prune()
    return buildkit if request.param == "v0.32" else old_builder


@pytest.fixture
def projects(tmp_path: Path) -> Callable[..., Path]:
    """Makes builds of a base, of which none has a layer in common with another but the tools."""

    def make(base: str, name: str, dockerfile: str = _DOCKERFILE) -> Path:
        folder = tmp_path / base.replace("/", "-") / name
        folder.mkdir(parents=True)
        (folder / "Dockerfile").write_text(dockerfile.format(base=base))
        _edit(folder, name)
        return folder

    return make


def _edit(project: Path, content: str) -> None:
    (project / "source").write_text(f"{project} {content}")


def _blob(blobs: Path, digest: str) -> Path:
    algorithm, _, hex_ = digest.partition(":")
    return blobs / algorithm / hex_[:2] / hex_


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_two_builds_that_export_to_one_tag_are_both_cached(
    place: Place, control: Place, either: BuildKit, projects: Callable[..., Path]
) -> None:
    """Every step of both, on an empty builder. In the control, the last export has displaced the
    first one."""
    executed = {}
    for registry in (place, control):
        tag = registry.tag()
        builds = [projects(registry.base, name) for name in ("one", "two")]
        for each in builds:
            tag.export(either, each)
        executed[registry.host] = [len(tag.import_(either, each).executed) for each in builds]

    assert executed == {place.host: [0, 0], control.host: [_STEPS - 1, 0]}


def test_an_index_and_an_image_are_one_cache_for_old_and_new_builders(
    place: Place, buildkit: BuildKit, old_builder: BuildKit, projects: Callable[..., Path]
) -> None:
    """Each of both versions has all steps of what both have exported."""
    tag = place.tag()
    builds = [projects(place.base, name) for name in ("one", "two")]
    old_builder.prune()
    tag.export(old_builder, builds[0])
    assert tag.cache().form == "index"
    tag.export(buildkit, builds[1])

    for builder in (buildkit, old_builder):
        assert [tag.import_(builder, each).executed for each in builds] == [[], []]


def test_two_platforms_of_one_build_are_both_cached(
    place: Place, control: Place, buildkit: BuildKit, projects: Callable[..., Path]
) -> None:
    """Each exported by a builder of its own."""
    executed = {}
    for registry in (place, control):
        tag = registry.tag()
        build = projects(registry.base, "app", _TWO_PLATFORMS)
        platforms = ("amd64", "arm64")
        for each in platforms:
            (build / each).write_text(f"{build} {each}")
            buildkit.prune()
            tag.export(buildkit, build, f"--opt=platform=linux/{each}")
        executed[registry.host] = [
            len(tag.import_(buildkit, build, f"--opt=platform=linux/{each}").executed)
            for each in platforms
        ]

    assert executed == {place.host: [0, 0], control.host: [2, 0]}


def test_ten_builds_that_export_at_once_are_all_cached(
    place: Place, buildkit: BuildKit, old_builder: BuildKit, projects: Callable[..., Path]
) -> None:
    """From two builders to one tag; nobody waits for anybody, and nobody loses."""
    tag = place.tag()
    builds = [projects(place.base, f"{number}") for number in range(10)]
    builders = (buildkit, old_builder)
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda at: tag.export(builders[at % 2], builds[at]), range(10)))

    buildkit.prune()  # once: no step but that of the tools is in two of them
    cached = [buildkit.build(each, f"--import-cache={tag.ref}").executed for each in builds]

    assert cached == [[]] * 10


def test_a_layer_that_is_lost_is_a_miss(
    place: Place, control: Place, either: BuildKit, projects: Callable[..., Path]
) -> None:
    """The step is executed again, the build succeeds and its export makes the cache whole. In the
    control, the build fails."""
    tag, project = place.tag(), projects(place.base, "app")
    build = _change_last_step_after_losing_the_one_before(place, tag, either, project)
    assert len(build.cached) == 2
    assert len(build.executed) == 2

    tag.export(either, project)
    assert tag.import_(either, project).executed == []

    with pytest.raises(BuildError, match="not found"):
        _change_last_step_after_losing_the_one_before(
            control, control.tag(), either, projects(control.base, "app")
        )


def _change_last_step_after_losing_the_one_before(
    place: Place, tag: CacheTag, buildkit: BuildKit, project: Path
) -> Build:
    """The changed step needs the layer below it."""
    tag.export(buildkit, project)
    place.lose(tag.layers()[-2])
    dockerfile = project / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("> /result", "> /changed"))
    return tag.import_(buildkit, project)


@pytest.fixture(scope="module")
def remote(
    seaweed: SeaweedFS,
    push_base: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Place, Path]]:
    """cacheproxy on S3, and its tier."""
    folder, prefix = tmp_path_factory.mktemp("remote"), seaweed.fresh_prefix()
    blobs = Path(f"/{seaweed.bucket}/{prefix}/default/blobs")

    def lose(digest: str) -> None:
        url = seaweed.signer.presign("DELETE", str(_blob(blobs, digest)))
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30).close()

    with Server.on_s3(folder, seaweed, prefix, _LOOK_EACH_TIME, command=QUICK) as server:
        yield Place(server.host, push_base(server.host), lose), server.data / "blobs/default/blobs"


def test_a_layer_that_s3_and_the_tier_have_lost_is_a_miss(
    remote: tuple[Place, Path], buildkit: BuildKit, projects: Callable[..., Path]
) -> None:
    """As where there is only a folder."""
    place, tier = remote

    def lose(digest: str) -> None:
        place.lose(digest)
        _blob(tier, digest).unlink()

    there = Place(place.host, place.base, lose)
    project = projects(place.base, "app")
    build = _change_last_step_after_losing_the_one_before(there, there.tag(), buildkit, project)

    assert (len(build.cached), len(build.executed)) == (2, 2)


def test_a_layer_that_s3_alone_has_lost_is_repaired(
    remote: tuple[Place, Path], buildkit: BuildKit, projects: Callable[..., Path]
) -> None:
    """The tier has it: nothing is missed, and S3 has it again when the tier is gone."""
    place, tier = remote
    tag, project = place.tag(), projects(place.base, "app")
    build = _change_last_step_after_losing_the_one_before(place, tag, buildkit, project)
    assert (len(build.cached), len(build.executed)) == (3, 1)

    shutil.rmtree(tier)
    build = tag.import_(buildkit, project)
    assert (len(build.cached), len(build.executed)) == (3, 1)


def test_a_cache_that_has_lost_all_layers_is_no_failure(
    place: Place, buildkit: BuildKit, projects: Callable[..., Path]
) -> None:
    """It is empty."""
    tag, project = place.tag(), projects(place.base, "app")
    tag.export(buildkit, project)
    for digest in tag.layers()[1:]:
        place.lose(digest)

    assert len(tag.import_(buildkit, project).executed) == _STEPS


def test_a_cache_of_3000_records_is_imported(
    place: Place, control: Place, buildkit: BuildKit, projects: Callable[..., Path]
) -> None:
    """It is over BuildKit's limit. In the control, the import of the same bytes is ignored."""
    executed = {}
    for registry in (place, control):
        tag, project = registry.tag(), projects(registry.base, "app")
        tag.export(buildkit, project)
        manifest, config = _grown(*tag.manifest(), records=3000)
        assert len(config) > _IMPORT_LIMIT
        tag.push(manifest, config)
        executed[registry.host] = len(tag.import_(buildkit, project).executed)
        if registry is place:
            assert len(tag.manifest()[1]) <= _IMPORT_LIMIT
            assert len(tag.cache().config.records) > 2000

    assert executed == {place.host: 0, control.host: _STEPS}


def _grown(manifest: bytes, config: bytes, *, records: int) -> tuple[bytes, bytes]:
    """An export with steps besides, each on the last of the others, that were executed earlier."""
    tree, about = json.loads(config), json.loads(manifest)
    known = tree["records"]
    for number in range(records - len(known)):
        selector = f"/{_digest(b'selector %d' % number)}"
        result = {"layer": 0, "createdAt": "2020-01-01T00:00:00.123456789Z"}
        known.append(
            {
                "digest": _digest(b"%d" % number),
                "layers": [result],
                "inputs": [[{"selector": selector, "link": link}] for link in range(2)],
            }
        )
    grown = json.dumps(tree).encode()
    about["config"] |= {"digest": _digest(grown), "size": len(grown)}
    return json.dumps(about).encode(), grown


def test_a_cache_that_is_merged_and_exported_again_does_not_grow(
    buildkit: BuildKit,
    push_base: Callable[[str], str],
    projects: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """For 30 rounds of import, change, build and export, with a window of 4 sources: what did not
    change is always a hit, and the union is as large as that of 4 such sources."""
    with Server.running(tmp_path, "--cache-sources=4") as server:
        tag = CacheTag(server.host, "ci/app", "")
        project = projects(push_base(server.host), "app", _SMALL)
        unions = _rounds(30, tag, buildkit, project)
        records = [len(cache.config.records) for cache, _ in unions]

        assert records[3:] == [records[3]] * 27
        for number, executed in ((29, 0), (26, 0), (25, 2)):
            _edit(project, f"{number}")
            assert len(tag.import_(buildkit, project).executed) == executed


def test_a_cache_that_is_merged_and_exported_again_stays_within_the_limit(
    buildkit: BuildKit,
    push_base: Callable[[str], str],
    projects: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Where the window is no bound, the oldest is left out, and the newest is a hit."""
    with Server.running(tmp_path, "--cache-config-bytes=3KiB") as server:
        tag = CacheTag(server.host, "ci/app", "")
        project = projects(push_base(server.host), "app", _SMALL)
        sizes = [size for _, size in _rounds(8, tag, buildkit, project)]

        assert max(sizes) <= 3 << 10
        assert min(sizes[6:]) > 2 << 10
        for number, executed in ((7, 0), (0, 2)):
            _edit(project, f"{number}")
            assert len(tag.import_(buildkit, project).executed) == executed


def _rounds(
    number: int, tag: CacheTag, buildkit: BuildKit, project: Path
) -> list[tuple[Cache, int]]:
    """Import, change, build and export; after each time, the union and the bytes of its config."""
    unions = []
    for each in range(number):
        _edit(project, f"{each}")
        build = tag.import_(buildkit, project, f"--export-cache={tag.ref},mode=max")
        assert build.cached == (["[2/4] RUN echo tools > /tools"] if each else []), build.output
        unions.append((tag.cache(), len(tag.manifest()[1])))
    return unions
