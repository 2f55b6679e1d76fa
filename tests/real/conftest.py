"""Real builders and clients against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.base_image import BaseImage
from tests.real.buildkit import BuildKit
from tests.real.buildx import Buildx
from tests.real.clients import Buildah, Crane, Skopeo, Store
from tests.server import Server


@pytest.fixture(scope="session")
def builder() -> Iterator[BuildKit]:
    """One buildkitd for all tests: it starts slowly and forgets by `prune`."""
    with BuildKit.running() as running:
        yield running


@pytest.fixture
def buildkit(builder: BuildKit) -> BuildKit:
    """A buildkitd that knows nothing."""
    builder.prune()
    return builder


@pytest.fixture
def buildx(buildkit: BuildKit, tmp_path: Path) -> Buildx:
    return Buildx(tmp_path / "buildx", buildkit)


@pytest.fixture
def crane(tmp_path: Path) -> Crane:
    return Crane(tmp_path / "crane")


@pytest.fixture
def skopeo(tmp_path: Path) -> Skopeo:
    return Skopeo(tmp_path / "skopeo")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def buildah(tmp_path: Path) -> Buildah:
    return Buildah(tmp_path / "buildah")


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> BaseImage:
    """The base image as an OCI layout folder, which tests only read."""
    return BaseImage(tmp_path_factory.mktemp("base"))


@pytest.fixture
def base(server: Server, layout: BaseImage, crane: Crane) -> str:
    """The name of the base image in the registry."""
    return layout.push(server.host, crane)
