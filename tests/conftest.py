"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from hypothesis import HealthCheck, settings

from tests.real.seaweed import SeaweedFS
from tests.server import Server, serving

# How long an example takes says only how busy the machine is.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Hundreds of processes are started, each of which would compile all its modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a fresh registry in this process."""
    async with serving(tmp_path / "data") as session:
        yield session


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A fresh registry in a process of its own."""
    with Server.running(tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def seaweed() -> Iterator[SeaweedFS]:
    """One S3 server for all tests, which keep apart by prefixes."""
    # Not in pytest's folder, which outlives the tests: there may be gigabytes.
    with (
        tempfile.TemporaryDirectory(prefix="seaweed-") as folder,
        SeaweedFS.running(Path(folder)) as running,
    ):
        yield running


@pytest.fixture
def s3_prefix(seaweed: SeaweedFS) -> str:
    """A prefix in the bucket of `seaweed` that no other test uses."""
    return seaweed.fresh_prefix()
