"""A write is all or nothing, and what is read belongs together."""

from __future__ import annotations

import asyncio

import pytest

from cacheproxy.errors import Conflict
from cacheproxy.storage.bucket import ABSENT, Bucket, Match
from tests.storage.objects import Files, whole


async def test_metadata_goes_with_the_object_it_came_with(bucket: Bucket) -> None:
    """An object that was put without metadata has none, whatever was there before."""
    await bucket.put("a/b", b"first", metadata={"kind": "x"})
    await bucket.put("a/b", b"second")

    assert await whole(bucket, "a/b") == (b"second", {})


async def test_metadata_goes_when_a_file_replaces_the_object(bucket: Bucket, files: Files) -> None:
    """An uploaded file has no metadata, whatever was there before."""
    await bucket.put("a/b", b"first", metadata={"kind": "x"})
    await files.upload("a/b", b"second")

    assert await whole(bucket, "a/b") == (b"second", {})


async def test_metadata_goes_with_a_deleted_object(bucket: Bucket) -> None:
    """What is put after a delete begins anew."""
    await bucket.put("a/b", b"first", metadata={"kind": "x"})
    await bucket.delete("a/b")
    await bucket.put("a/b", b"second")

    assert await whole(bucket, "a/b") == (b"second", {})


async def test_a_conditional_delete_of_what_is_absent_conflicts(bucket: Bucket) -> None:
    """The version that was read is not there any more, which is what the writer must learn."""
    await bucket.put("a/b", b"first")
    stored = await bucket.read("a/b")
    assert stored is not None
    await bucket.delete("a/b")
    with pytest.raises(Conflict):
        await bucket.delete("a/b", match=stored.match)


async def test_one_of_many_writers_that_read_the_same_wins(bucket: Bucket) -> None:
    """Of 16 that replace one version exactly one succeeds."""
    await bucket.put("a/b", b"first")
    stored = await bucket.read("a/b")
    assert stored is not None
    match = Match(stored.version)
    writes = [bucket.put("a/b", f"{number}".encode(), match=match) for number in range(16)]
    found = await asyncio.gather(*writes, return_exceptions=True)

    assert sum(each is None for each in found) == 1
    assert sum(isinstance(each, Conflict) for each in found) == 15


async def test_what_is_read_belongs_together_while_it_is_replaced(bucket: Bucket) -> None:
    """Bytes and metadata are of one write, to who reads while others write and delete."""
    done = asyncio.Event()
    pairs = [(str(number).encode(), {"number": str(number)}) for number in range(20)]

    async def write() -> None:
        for data, metadata in pairs:
            await bucket.put("a/b", data, metadata=metadata)
            await bucket.delete("a/b")
        done.set()

    async def read() -> None:
        while not done.is_set():
            found = await whole(bucket, "a/b")
            assert found is None or found in pairs
            await asyncio.sleep(0)

    await asyncio.gather(write(), read(), read())


async def test_what_stays_after_a_race_belongs_together(bucket: Bucket) -> None:
    """A delete beside a put leaves all of the object or nothing of it."""
    for _ in range(300):
        await bucket.put("a/b", b"content", metadata={"kind": "x"})
        await asyncio.gather(
            bucket.delete("a/b"), bucket.put("a/b", b"content", metadata={"kind": "x"})
        )

        assert await whole(bucket, "a/b") in (None, (b"content", {"kind": "x"}))


async def test_a_put_on_absence_after_a_delete_is_taken(bucket: Bucket) -> None:
    """Absent is absent, whether it was never there or has gone."""
    await bucket.put("a/b", b"first")
    await bucket.delete("a/b")
    await bucket.put("a/b", b"second", match=ABSENT)

    assert await whole(bucket, "a/b") == (b"second", {})
