"""What is special to the folder."""

from __future__ import annotations

import asyncio
import os
import resource
import stat
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cacheproxy.errors import Conflict, StorageFull, Unavailable
from cacheproxy.storage.bucket import Head, Listed, Match
from cacheproxy.storage.folder import FolderBucket, FolderInUse
from tests.storage.objects import Files, keys, whole

_LIMIT = 4096
_LARGE = b"x" * (_LIMIT + 1)


@pytest.fixture
def bucket(tmp_path: Path) -> FolderBucket:
    return FolderBucket(str(tmp_path))


@contextmanager
def _room_for(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a disk that becomes full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    """A second owner is refused until the first has gone."""
    lock = FolderBucket(str(tmp_path)).claim()
    with pytest.raises(FolderInUse):
        FolderBucket(str(tmp_path)).claim()
    os.close(lock)

    os.close(FolderBucket(str(tmp_path)).claim())


def test_an_owner_removes_what_a_dead_one_left(bucket: FolderBucket) -> None:
    """Files that never became objects go at the next start."""
    (Path(bucket.spool) / "left-over").touch()

    os.close(bucket.claim())

    assert os.listdir(bucket.spool) == []


async def test_folders_that_became_empty_go_without_harm_to_writers(
    bucket: FolderBucket, tmp_path: Path
) -> None:
    """Deleting the last object of a folder races with writing another one there; both succeed."""
    for round_ in range(50):
        await bucket.put("deep/er/gone", b"")
        await asyncio.gather(
            bucket.delete("deep/er/gone"), bucket.put(f"deep/er/{round_}", b"stays")
        )

        assert await bucket.head(f"deep/er/{round_}") == Head(5)
        await bucket.delete(f"deep/er/{round_}")
    assert sorted(os.listdir(tmp_path)) == [".locks", ".spool"]


async def test_a_file_is_taken_as_it_is(bucket: FolderBucket, files: Files) -> None:
    """It is renamed, not copied; a refused one stays where it is, for its owner to remove."""
    path = files.make(b"first")
    inode = os.stat(path).st_ino
    async with bucket.upload(path, "a/b", 5) as upload:
        await upload.commit(None, 5, absent=True)
    file = await bucket.open("a/b")
    assert file is not None
    with file:
        assert os.fstat(file.fd).st_ino == inode
    assert os.listdir(bucket.spool) == []

    with pytest.raises(Conflict):
        await files.upload("a/b", b"second", absent=True)
    assert len(os.listdir(bucket.spool)) == 1


async def test_an_open_object_stays_readable(bucket: FolderBucket) -> None:
    """Deleting an object does not take it from who is reading it."""
    await bucket.put("a/b", b"content")
    file = await bucket.open("a/b")
    assert file is not None
    with file, file.again() as again:
        await bucket.delete("a/b")

        assert file.read_at(3, 100) == b"tent"
        assert again.read_at(0, 3) == b"con"


async def test_a_cancelled_write_leaves_no_rest(bucket: FolderBucket) -> None:
    """Whether it was done or not, the spool is empty."""
    for number in range(20):
        write = asyncio.create_task(bucket.put(f"a/{number}", b"content"))
        await asyncio.sleep(0)
        write.cancel()
        await asyncio.gather(write, return_exceptions=True)

    assert os.listdir(bucket.spool) == []


async def test_a_put_that_finds_no_room_leaves_nothing(bucket: FolderBucket) -> None:
    """Neither a key, nor a prefix, nor a file."""
    with _room_for(_LIMIT), pytest.raises(StorageFull):
        await bucket.put("a/b", _LARGE)

    assert await keys(bucket, "a/", folders=True) == []
    assert os.listdir(bucket.spool) == []


async def test_a_put_with_metadata_that_finds_no_room_leaves_nothing(
    bucket: FolderBucket,
) -> None:
    """A repository must not appear in the catalog because a push into it failed."""
    with _room_for(_LIMIT), pytest.raises(StorageFull):
        await bucket.put("r/a/b", _LARGE, metadata={"kind": "x"})

    assert await keys(bucket, "r/", folders=True) == []


async def test_a_put_that_finds_no_room_leaves_the_object_as_it_was(bucket: FolderBucket) -> None:
    """Neither its bytes nor its metadata change."""
    await bucket.put("a/b", b"first", metadata={"kind": "x"})
    with _room_for(_LIMIT), pytest.raises(StorageFull):
        await bucket.put("a/b", _LARGE, metadata={"kind": "y"})

    assert await whole(bucket, "a/b") == (b"first", {"kind": "x"})


async def test_a_join_that_finds_no_room_leaves_the_object_as_it_was(bucket: FolderBucket) -> None:
    """The whole appears at once or not at all."""
    await bucket.put("whole", b"first")
    await bucket.put("part", b"x" * _LIMIT)
    with _room_for(_LIMIT), pytest.raises(StorageFull):
        await bucket.join([Listed("part", _LIMIT)] * 2, "whole")

    assert await whole(bucket, "whole") == (b"first", {})
    assert os.listdir(bucket.spool) == []


async def test_a_join_of_what_is_absent_leaves_no_rest(bucket: FolderBucket) -> None:
    """The parts that were there are not in the spool."""
    await bucket.put("part", b"one")
    with pytest.raises(Unavailable):
        await bucket.join([Listed("part", 3), Listed("absent", 3)], "whole")

    assert os.listdir(bucket.spool) == []


async def test_a_version_that_never_was_is_not_deleted(bucket: FolderBucket) -> None:
    """Nor where nothing is there: a condition on a version is not one on absence."""
    with pytest.raises(Conflict):
        await bucket.delete("a/b", match=Match("a version"))


async def test_a_refused_file_costs_no_memory(bucket: FolderBucket, files: Files) -> None:
    """Whether an object is there can be known without reading all of it: chunks may be of GiB."""
    large = files.make(b"")
    os.truncate(large, 64 << 20)
    async with bucket.upload(large, "large", None) as upload:
        await upload.commit(None, 64 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(Conflict):
            await files.upload("large", b"small", absent=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 8 << 20


async def test_what_is_read_belongs_together_while_it_is_deleted(bucket: FolderBucket) -> None:
    """An object never appears without its metadata to another process than the writer's."""
    loose: list[object] = []
    done = threading.Event()

    async def write() -> None:
        for _ in range(300):
            await bucket.put("a/b", b"content", metadata={"kind": "x"})
            await bucket.delete("a/b")
        done.set()

    def read() -> None:
        while not done.is_set():
            found = asyncio.run(whole(bucket, "a/b"))
            if found not in (None, (b"content", {"kind": "x"})):
                loose.append(found)

    await asyncio.gather(write(), asyncio.to_thread(read))

    assert loose == []


class _Disk:
    """What a machine that loses power keeps: bytes and names as they were when last synced."""

    def __init__(self) -> None:
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self.named: dict[str, bytes | None] = {}
        """What was kept of a file when it got its name, by its path."""

    def synced(self, fd: int) -> None:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            names = {name: os.stat(name, dir_fd=fd).st_ino for name in os.listdir(fd)}
            self._names[found.st_ino] = names
        else:
            self._bytes[found.st_ino] = os.pread(fd, found.st_size, 0)

    def renamed(self, source: str, target: str) -> None:
        self.named[target] = self._bytes.get(os.stat(source).st_ino)

    def check(self, root: Path, written: dict[Path, bytes]) -> None:
        """All of these files in `root` are kept."""
        assert {path: self._kept(root, path) for path in written} == written

    def _kept(self, root: Path, path: Path) -> bytes | None:
        """What a file holds, if its name and those of all folders that it is in are kept."""
        inode = root.stat().st_ino
        for name in path.relative_to(root).parts:
            inode = self._names.get(inode, {}).get(name, 0)
        return self._bytes.get(inode)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> _Disk:
    """What is kept of all that is written from now on."""
    disk, fsync, rename = _Disk(), os.fsync, os.rename

    def watched_fsync(fd: int) -> None:
        fsync(fd)
        disk.synced(fd)

    def watched_rename(source: str, target: str) -> None:
        disk.renamed(source, target)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    return disk


async def _upload(bucket: FolderBucket, files: Files) -> None:
    await files.upload("deep/er/key", b"content")


async def _put(bucket: FolderBucket, files: Files) -> None:
    await bucket.put("deep/er/key", b"content", metadata={"kind": "x"})


async def _join(bucket: FolderBucket, files: Files) -> None:
    await bucket.put("part", b"content")
    await bucket.join([Listed("part", 7)] * 2, "deep/er/key")


_Write = Callable[[FolderBucket, Files], Awaitable[None]]
_each_write = pytest.mark.parametrize("write", [_upload, _put, _join])


def _written(root: Path) -> dict[Path, bytes]:
    """The files that a write has made, that of its metadata too."""
    return {path: path.read_bytes() for path in (root / "deep" / "er").iterdir()}


@_each_write
async def test_a_file_is_synced_before_it_gets_its_name(
    bucket: FolderBucket, files: Files, disk: _Disk, tmp_path: Path, write: _Write
) -> None:
    """No loss of power leaves an object without its bytes."""
    await write(bucket, files)

    written = _written(tmp_path)
    assert {path: disk.named[str(path)] for path in written} == written


@_each_write
async def test_what_was_written_survives_a_loss_of_power(
    bucket: FolderBucket, files: Files, disk: _Disk, tmp_path: Path, write: _Write
) -> None:
    """When a write returns, its name is synced, and all folders above it, up to the root."""
    await write(bucket, files)

    disk.check(tmp_path, _written(tmp_path))


@_each_write
async def test_a_write_waits_for_nobody_to_sync_the_folders(
    bucket: FolderBucket, files: Files, disk: _Disk, tmp_path: Path, write: _Write
) -> None:
    """Another writer has just made them, and may be killed before they are synced."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    await write(bucket, files)

    disk.check(tmp_path, _written(tmp_path))
