"""Fixtures of the tests of registries in S3."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from structlog.typing import EventDict

from cacheproxy import upkeep
from tests.real.seaweed import SeaweedFS
from tests.s3.flows import Site
from tests.s3.proxy import S3Proxy


@pytest.fixture(autouse=True)
def nothing_crashes() -> Iterator[None]:
    """No test makes the server say that it has a fault of its own."""
    errors: list[object] = []

    def keep(logger: object, method: str, line: EventDict) -> EventDict:
        if line["event"].endswith("_crashed"):
            errors.append(line["exc_info"] if line["exc_info"] is not True else sys.exc_info()[1])
        raise structlog.DropEvent

    processors = structlog.get_config()["processors"]
    structlog.configure(processors=[keep])
    yield
    structlog.configure(processors=processors)
    assert errors == []


@pytest.fixture(autouse=True)
def nothing_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a test takes, all calls are those that it asks for."""
    monkeypatch.setattr(upkeep, "_POLL_SECONDS", 3600.0)


@pytest.fixture
async def proxy(seaweed: SeaweedFS) -> AsyncIterator[S3Proxy]:
    async with S3Proxy.running(seaweed.endpoint) as proxy:
        yield proxy


@pytest.fixture
async def site(seaweed: SeaweedFS, proxy: S3Proxy, tmp_path: Path) -> AsyncIterator[Site]:
    async with Site.opened(seaweed, proxy, tmp_path) as site:
        yield site
