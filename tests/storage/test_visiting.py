"""Visits: commands that open a bucket beside the servers that own it."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import pytest

from cacheproxy.errors import Conflict, StorageInvalid
from cacheproxy.storage.bucket import ABSENT, Bucket, Head
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.layout import FORMAT_KEY
from cacheproxy.storage.opening import place
from cacheproxy.storage.s3.options import S3Options


def _visited(root: Path, *, writing: bool = False) -> AbstractAsyncContextManager[Bucket]:
    return place(f"file://{root}", S3Options("")).visited(writing=writing)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder in which a server has been."""
    root = tmp_path / "data"
    root.mkdir()
    with place(f"file://{root}", S3Options("")).claimed(1):
        return root


async def test_a_folder_is_opened_beside_its_owner(root: Path) -> None:
    """What is written there is there for the owner."""
    owner = FolderBucket(str(root))
    lock = owner.claim()
    try:
        async with _visited(root, writing=True) as bucket:
            await bucket.put("a", b"1", match=ABSENT)
        assert await owner.head("a") == Head(1)
    finally:
        os.close(lock)


@pytest.mark.parametrize("writing", [False, True])
async def test_a_folder_without_a_registry_stays_as_it_is(tmp_path: Path, writing: bool) -> None:
    """Be it there or not, nothing is made."""
    (tmp_path / "other").mkdir()
    for name in ("other", "none"):
        with pytest.raises(StorageInvalid, match="no server has stored anything"):
            async with _visited(tmp_path / name, writing=writing):
                pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "other"]


async def test_a_folder_of_another_layout_is_refused(root: Path) -> None:
    """A later version knows what to do with it."""
    (root / FORMAT_KEY).write_text("99")
    with pytest.raises(StorageInvalid, match="99"):
        async with _visited(root):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_another_user_may_only_read(root: Path) -> None:
    """What root writes, the server could not use: the files of the locks first of all."""
    os.chown(root / FORMAT_KEY, 1, 1)
    async with _visited(root) as bucket:
        assert await bucket.head(FORMAT_KEY) == Head(1)
    with pytest.raises(StorageInvalid, match="another user's"):
        async with _visited(root, writing=True):
            pass


async def test_a_server_that_starts_leaves_what_visitors_write(root: Path) -> None:
    """It empties the spool, where visitors' files are on their way too, when they have left."""
    async with _visited(root, writing=True) as bucket:
        assert isinstance(bucket, FolderBucket)
        on_its_way = Path(bucket.spool) / "1"
        on_its_way.touch()
        os.close(FolderBucket(str(root)).claim())
        assert on_its_way.exists()
    os.close(FolderBucket(str(root)).claim())
    assert not on_its_way.exists()


async def test_a_folder_may_have_several_names(root: Path, tmp_path: Path) -> None:
    """As it has in a container and outside: who writes on condition locks the same file."""
    other = tmp_path / "other"
    other.symlink_to(root)
    locks = []
    for name in (root, other):
        async with _visited(name, writing=True) as bucket:
            with suppress(Conflict):
                await bucket.put("a", b"", match=ABSENT)
        locks.append(set(os.listdir(root / ".locks")))

    assert locks[0] == locks[1]
