"""BuildKit's caches through the registry, kept in S3."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.base_image import BaseImage
from tests.real.buildkit import BuildKit
from tests.real.clients import Crane
from tests.real.conformance import Conformance
from tests.real.seaweed import SeaweedFS
from tests.server import QUICK, Server

_DOCKERFILE = """\
FROM {base} AS compile
COPY source /source
RUN tr a-z A-Z < /source > /compiled
FROM {base}
RUN echo tools > /tools
COPY --from=compile /compiled /compiled
RUN cat /compiled /tools > /result
"""
_STEPS = 5


@pytest.fixture(params=[1, 2], ids=["1 worker", "2 workers"], scope="module")
def server(
    request: pytest.FixtureRequest, seaweed: SeaweedFS, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server on S3, shared by the tests, which keep apart by repositories."""
    folder = tmp_path_factory.mktemp("s3")
    prefix, workers = seaweed.fresh_prefix(), f"--workers={request.param}"
    with Server.on_s3(folder, seaweed, prefix, workers, command=QUICK) as running:
        yield running


@pytest.fixture
def context(server: Server, layout: BaseImage, crane: Crane, tmp_path: Path) -> Path:
    """A build whose layers are in no other test's cache."""
    folder = tmp_path / "context"
    folder.mkdir()
    base = layout.push(server.host, crane)
    (folder / "Dockerfile").write_text(_DOCKERFILE.format(base=base))
    (folder / "source").write_text(tmp_path.name)
    return folder


@pytest.mark.parametrize(
    "form", ["image-manifest=true,compression=zstd,force-compression=true", "image-manifest=false"]
)
def test_the_tier_can_vanish(
    server: Server, buildkit: BuildKit, context: Path, crane: Crane, form: str
) -> None:
    """An image and a cache are pushed by one build; both are whole when the disk tier is gone."""
    image = f"{server.host}/ci/{context.parent.name}:image"
    cache = f"type=registry,ref={server.host}/ci/{context.parent.name}:cache"
    output = f"--output=type=image,name={image},push=true"
    export = f"--export-cache={cache},mode=max,oci-mediatypes=true,{form}"
    buildkit.build(context, output, export)
    buildkit.prune()
    shutil.rmtree(server.data)

    build = buildkit.build(context, f"--import-cache={cache}")

    assert build.executed == []
    assert len(build.cached) == _STEPS
    crane.run("validate", "--remote", image)


def test_nothing_in_the_conformance_suite_fails_or_is_skipped(
    seaweed: SeaweedFS, s3_prefix: str, tmp_path: Path
) -> None:
    """S3 is no reason to leave a part of the specification out."""
    with Server.on_s3(tmp_path / "server", seaweed, s3_prefix, command=QUICK) as server:
        outcome = Conformance.of(server.host, tmp_path / "conformance")

    assert outcome.failures == ()
    assert outcome.skipped == ()
    assert outcome.left_out == 0
    assert outcome.passed > 800
