"""Fixtures that every room's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.server import Server, serving


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
