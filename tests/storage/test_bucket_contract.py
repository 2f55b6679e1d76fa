"""The promises of `Bucket`, which every implementation keeps."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cacheproxy.errors import Conflict
from cacheproxy.storage.bucket import ABSENT, Match
from cacheproxy.storage.folder import FolderBucket


async def _keys(bucket: FolderBucket, prefix: str, after: str = "") -> list[str]:
    return [key async for key in bucket.list(prefix, after=after)]


async def test_what_is_absent_is_none(bucket: FolderBucket) -> None:
    """Reading what is not there is an answer, not an error."""
    found = (await bucket.head("a/b"), await bucket.read("a/b"), await bucket.open("a/b"))

    assert found == (None, None, None)
    assert not await bucket.delete("a/b")
    assert await _keys(bucket, "a/") == []


async def test_what_was_put_is_read(bucket: FolderBucket) -> None:
    """Bytes and metadata come back as they were written, the last ones written."""
    await bucket.put("a/b", b"first", metadata={"kind": "x"})
    await bucket.put("a/b", b"second", metadata={"kind": "y"})
    stored = await bucket.read("a/b")
    assert stored is not None

    assert (stored.data, dict(stored.metadata)) == (b"second", {"kind": "y"})
    assert await bucket.head("a/b") == 6


async def test_a_condition_is_kept(bucket: FolderBucket) -> None:
    """A write or delete on condition happens only to the version that was read."""
    await bucket.put("a/b", b"first", match=ABSENT)
    stored = await bucket.read("a/b")
    assert stored is not None
    await bucket.put("a/b", b"second", match=Match(stored.version))

    with pytest.raises(Conflict):
        await bucket.put("a/b", b"third", match=Match(stored.version))
    with pytest.raises(Conflict):
        await bucket.put("a/b", b"third", match=ABSENT)
    with pytest.raises(Conflict):
        await bucket.delete("a/b", match=Match(stored.version))
    assert await bucket.head("a/b") == 6


async def test_one_of_many_conditional_writers_wins(bucket: FolderBucket) -> None:
    """A race for an absent key has exactly one winner, whose bytes are there."""

    async def write(number: int) -> int | None:
        try:
            await bucket.put("race", str(number).encode(), match=ABSENT)
        except Conflict:
            return None
        return number

    won = [each for each in await asyncio.gather(*map(write, range(16))) if each is not None]
    stored = await bucket.read("race")

    assert len(won) == 1
    assert stored is not None
    assert stored.data == str(won[0]).encode()


async def test_a_file_is_adopted(bucket: FolderBucket) -> None:
    """The file becomes the object, and replaces one unless it was to be absent."""
    for content in ("first", "second"):
        (Path(bucket.spool) / content).write_text(content)
        await bucket.adopt(f"{bucket.spool}/{content}", "a/b")
    (Path(bucket.spool) / "third").write_text("third")

    with pytest.raises(Conflict):
        await bucket.adopt(f"{bucket.spool}/third", "a/b", absent=True)
    assert [path.name for path in Path(bucket.spool).iterdir()] == ["third"]
    assert await bucket.head("a/b") == 6


async def test_parts_are_joined(bucket: FolderBucket) -> None:
    """The whole is there at once; the parts stay."""
    await bucket.put("parts/1", b"one")
    await bucket.put("parts/2", b"two")
    await bucket.join(["parts/1", "parts/2"], "whole/x")
    stored = await bucket.read("whole/x")

    assert stored is not None
    assert stored.data == b"onetwo"
    assert await _keys(bucket, "parts/") == ["parts/1", "parts/2"]


async def test_keys_are_listed_in_the_order_of_code_points(bucket: FolderBucket) -> None:
    """Also where a folder's name is the beginning of a file's; metadata is not listed."""
    keys = ["r/B", "r/a-b/x", "r/a.b", "r/a/x", "r/a/y/z", "r/a0", "r/b"]
    for key in reversed(keys):
        await bucket.put(key, b"", metadata={"a": "b"})

    assert await _keys(bucket, "r/") == keys == sorted(keys)
    for position, key in enumerate(keys):
        assert await _keys(bucket, "r/", after=key) == keys[position + 1 :]


async def test_only_what_lies_directly_below_is_listed(bucket: FolderBucket) -> None:
    """With `folders`, deeper keys appear as the prefix that they share."""
    for key in ("r/a/x", "r/a/y", "r/b"):
        await bucket.put(key, b"")

    assert [key async for key in bucket.list("r/", folders=True)] == ["r/a/", "r/b"]


async def test_an_open_object_stays_readable(bucket: FolderBucket) -> None:
    """Deleting an object does not take it from who is reading it."""
    await bucket.put("a/b", b"content")
    file = await bucket.open("a/b")
    assert file is not None
    with file:
        await bucket.delete("a/b")

        assert file.read_at(3, 100) == b"tent"


async def test_a_cancelled_write_is_whole_or_not_there(bucket: FolderBucket) -> None:
    """Cancellation waits for the write to end, one way or the other, and leaves no rest."""
    for number in range(20):
        write = asyncio.create_task(bucket.put(f"a/{number}", b"content"))
        await asyncio.sleep(0)
        write.cancel()
        await asyncio.gather(write, return_exceptions=True)

        assert await bucket.head(f"a/{number}") in (None, 7)
    assert list(Path(bucket.spool).iterdir()) == []
