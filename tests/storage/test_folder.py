"""What is special to the folder."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from cacheproxy.storage.folder import FolderBucket, FolderInUse


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    """A second owner is refused until the first has gone."""
    lock = FolderBucket(str(tmp_path)).claim()
    with pytest.raises(FolderInUse):
        FolderBucket(str(tmp_path)).claim()
    os.close(lock)

    os.close(FolderBucket(str(tmp_path)).claim())


def test_an_owner_removes_what_a_dead_one_left(tmp_path: Path) -> None:
    """Files that never became objects go at the next start."""
    bucket = FolderBucket(str(tmp_path))
    (tmp_path / ".spool" / "left-over").touch()

    os.close(bucket.claim())

    assert os.listdir(bucket.spool) == []


async def test_folders_that_became_empty_go_without_harm_to_writers(tmp_path: Path) -> None:
    """Deleting the last object of a folder races with writing another one there; both succeed."""
    bucket = FolderBucket(str(tmp_path))
    for round_ in range(50):
        await bucket.put("deep/er/gone", b"")
        await asyncio.gather(
            bucket.delete("deep/er/gone"), bucket.put(f"deep/er/{round_}", b"stays")
        )

        assert await bucket.head(f"deep/er/{round_}") == 5
        await bucket.delete(f"deep/er/{round_}")
    assert sorted(os.listdir(tmp_path)) == [".locks", ".spool"]
