"""Fixtures of the tests of content."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.content.rooms import Room


@pytest_asyncio.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    """An empty content room; nothing of it runs on after the test."""
    room = Room(tmp_path)
    yield room
    await room.contents.close()
