"""A write is all or nothing, and what is read belongs together."""

from __future__ import annotations

import asyncio
import os
import resource
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cacheproxy.errors import Conflict, StorageFull, Unavailable
from cacheproxy.storage.bucket import ABSENT, Match
from cacheproxy.storage.folder import FolderBucket

_LIMIT = 4096
_LARGE = b"x" * (_LIMIT + 1)


@contextmanager
def _room_for(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a disk that becomes full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _spool(bucket: FolderBucket, content: bytes) -> str:
    path = Path(bucket.spool) / "file"
    path.write_bytes(content)
    return str(path)


async def _read(bucket: FolderBucket, key: str) -> tuple[bytes, dict[str, str]] | None:
    stored = await bucket.read(key)
    return None if stored is None else (stored.data, dict(stored.metadata))


async def test_metadata_goes_with_the_object_it_came_with(bucket: FolderBucket) -> None:
    """An object that was put without metadata has none, whatever was there before."""
    await bucket.put("a/b", b"first", metadata={"kind": "x"})
    await bucket.put("a/b", b"second")

    assert await _read(bucket, "a/b") == (b"second", {})


async def test_metadata_goes_when_a_file_replaces_the_object(bucket: FolderBucket) -> None:
    """An adopted file has no metadata, whatever was there before."""
    await bucket.put("a/b", b"first", metadata={"kind": "x"})
    await bucket.adopt(_spool(bucket, b"second"), "a/b")

    assert await _read(bucket, "a/b") == (b"second", {})


async def test_metadata_goes_with_a_deleted_object(bucket: FolderBucket) -> None:
    """What is put after a delete begins anew."""
    await bucket.put("a/b", b"first", metadata={"kind": "x"})
    await bucket.delete("a/b")
    await bucket.put("a/b", b"second")

    assert await _read(bucket, "a/b") == (b"second", {})


async def test_a_put_that_finds_no_room_leaves_nothing(bucket: FolderBucket) -> None:
    """Neither a key, nor a prefix, nor a file."""
    with _room_for(_LIMIT), pytest.raises(StorageFull):
        await bucket.put("a/b", _LARGE)

    assert [key async for key in bucket.list("a/", folders=True)] == []
    assert os.listdir(bucket.spool) == []


async def test_a_put_with_metadata_that_finds_no_room_leaves_nothing(
    bucket: FolderBucket,
) -> None:
    """A repository must not appear in the catalog because a push into it failed."""
    with _room_for(_LIMIT), pytest.raises(StorageFull):
        await bucket.put("r/a/b", _LARGE, metadata={"kind": "x"})

    assert [key async for key in bucket.list("r/", folders=True)] == []


async def test_a_put_that_finds_no_room_leaves_the_object_as_it_was(bucket: FolderBucket) -> None:
    """Neither its bytes nor its metadata change."""
    await bucket.put("a/b", b"first", metadata={"kind": "x"})
    with _room_for(_LIMIT), pytest.raises(StorageFull):
        await bucket.put("a/b", _LARGE, metadata={"kind": "y"})

    assert await _read(bucket, "a/b") == (b"first", {"kind": "x"})


async def test_a_join_that_finds_no_room_leaves_the_object_as_it_was(bucket: FolderBucket) -> None:
    """The whole appears at once or not at all."""
    await bucket.put("whole", b"first")
    await bucket.put("part", b"x" * _LIMIT)
    with _room_for(_LIMIT), pytest.raises(StorageFull):
        await bucket.join(["part", "part"], "whole")

    assert await _read(bucket, "whole") == (b"first", {})
    assert os.listdir(bucket.spool) == []


async def test_a_join_of_what_is_absent_stores_nothing(bucket: FolderBucket) -> None:
    """A part that went meanwhile is a failure, not a shorter whole."""
    await bucket.put("part", b"one")
    with pytest.raises(Unavailable):
        await bucket.join(["part", "absent"], "whole")

    assert await bucket.head("whole") is None
    assert os.listdir(bucket.spool) == []


async def test_a_conditional_delete_of_what_is_absent_conflicts(bucket: FolderBucket) -> None:
    """The version that was read is not there any more, which is what the writer must learn."""
    with pytest.raises(Conflict):
        await bucket.delete("a/b", match=Match("a version"))


async def test_one_of_many_writers_that_read_the_same_wins(bucket: FolderBucket) -> None:
    """Of 16 that replace one version exactly one succeeds."""
    await bucket.put("a/b", b"first")
    stored = await bucket.read("a/b")
    assert stored is not None
    match = Match(stored.version)
    writes = [bucket.put("a/b", f"{number}".encode(), match=match) for number in range(16)]
    found = await asyncio.gather(*writes, return_exceptions=True)

    assert sum(each is None for each in found) == 1
    assert sum(isinstance(each, Conflict) for each in found) == 15


async def test_a_refused_file_costs_no_memory(bucket: FolderBucket) -> None:
    """Whether an object is there can be known without reading all of it: chunks may be of GiB."""
    await bucket.adopt(_spool(bucket, b""), "large")
    large = await bucket.open("large")
    assert large is not None
    with large:
        os.truncate(f"/proc/self/fd/{large.fd}", 64 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(Conflict):
            await bucket.adopt(_spool(bucket, b"small"), "large", absent=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 8 << 20


async def test_what_is_read_belongs_together_while_it_is_deleted(bucket: FolderBucket) -> None:
    """An object never appears without its metadata to who reads while others write and delete."""
    loose: list[object] = []
    done = threading.Event()

    async def write() -> None:
        for _ in range(300):
            await bucket.put("a/b", b"content", metadata={"kind": "x"})
            await bucket.delete("a/b")
        done.set()

    def read() -> None:
        while not done.is_set():
            found = asyncio.run(_read(bucket, "a/b"))
            if found not in (None, (b"content", {"kind": "x"})):
                loose.append(found)

    await asyncio.gather(write(), asyncio.to_thread(read))

    assert loose == []


async def test_what_stays_after_a_race_belongs_together(bucket: FolderBucket) -> None:
    """A delete beside a put leaves all of the object or nothing of it."""
    for _ in range(300):
        await bucket.put("a/b", b"content", metadata={"kind": "x"})
        await asyncio.gather(
            bucket.delete("a/b"), bucket.put("a/b", b"content", metadata={"kind": "x"})
        )

        assert await _read(bucket, "a/b") in (None, (b"content", {"kind": "x"}))


async def test_a_put_on_absence_after_a_delete_is_taken(bucket: FolderBucket) -> None:
    """Absent is absent, whether it was never there or has gone."""
    await bucket.put("a/b", b"first")
    await bucket.delete("a/b")
    await bucket.put("a/b", b"second", match=ABSENT)

    assert await _read(bucket, "a/b") == (b"second", {})
