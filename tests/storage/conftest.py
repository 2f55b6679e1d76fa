"""The bucket that the promises of `Bucket` are held against."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.storage.folder import FolderBucket


@pytest.fixture
def bucket(tmp_path: Path) -> FolderBucket:
    folder = tmp_path / "bucket"
    folder.mkdir()
    return FolderBucket(str(folder))
