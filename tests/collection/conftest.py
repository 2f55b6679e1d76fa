"""Fixtures of the tests of upkeep."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.registry.rooms import Rooms


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    """An empty registry in a folder."""
    return Rooms(tmp_path / "data")
