"""The promises of `Bucket`, which every implementation keeps."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.errors import Conflict, Unavailable
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.bucket import ABSENT, Bucket, Head, Listed, Match
from tests.storage.objects import Files, content, keys, whole


async def test_what_is_absent_is_none(bucket: Bucket) -> None:
    """Reading what is not there is an answer, not an error."""
    found = (await bucket.head("a/b"), await bucket.read("a/b"), await bucket.open("a/b"))

    assert found == (None, None, None)
    await bucket.delete("a/b")
    assert await keys(bucket, "a/") == []


async def test_what_was_put_is_read(bucket: Bucket) -> None:
    """Bytes and metadata come back as they were written, the last ones written."""
    await bucket.put("a/b", b"first", metadata={"kind": "x"})
    await bucket.put("a/b", b"second", metadata={"kind": "y"})

    assert await whole(bucket, "a/b") == (b"second", {"kind": "y"})
    assert await bucket.head("a/b") == Head(6)


async def test_what_is_known_is_still_asked_for(bucket: Bucket) -> None:
    """An object known from before is given again, unless it has changed or gone meanwhile."""
    await bucket.put("a/b", b"first", metadata={"kind": "x"})
    known = await bucket.read("a/b")
    assert await bucket.read("a/b", known) == known

    await bucket.put("a/b", b"second")
    changed = await bucket.read("a/b", known)
    assert changed is not None
    assert (changed.data, dict(changed.metadata)) == (b"second", {})

    await bucket.delete("a/b")
    assert await bucket.read("a/b", changed) is None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), size=st.integers(1, 100))
async def test_any_part_is_opened(bucket: Bucket, data: st.DataObject, size: int) -> None:
    """A part has the bytes of the whole from its place."""
    start = data.draw(st.integers(0, size - 1))
    part = ByteRange(start, data.draw(st.integers(1, size - start)))
    await bucket.put("a/b", bytes(range(size)))

    assert await content(bucket, "a/b") == bytes(range(size))
    assert await content(bucket, "a/b", part) == bytes(range(start, start + part.length))


async def test_an_empty_object_is_there(bucket: Bucket) -> None:
    """Nothing is a content like any other."""
    await bucket.put("a/b", b"")

    assert await bucket.head("a/b") == Head(0)
    assert await whole(bucket, "a/b") == (b"", {})
    assert await content(bucket, "a/b") == b""


async def test_a_condition_is_kept(bucket: Bucket) -> None:
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
    assert await bucket.head("a/b") == Head(6)


async def test_a_delete_on_condition_is_done(bucket: Bucket) -> None:
    """Of the version that was read nothing stays."""
    await bucket.put("a/b", b"first")
    stored = await bucket.read("a/b")
    assert stored is not None

    await bucket.delete("a/b", match=stored.match)
    assert await bucket.head("a/b") is None


async def test_one_of_many_conditional_writers_wins(bucket: Bucket) -> None:
    """A race for an absent key has exactly one winner, whose bytes are there."""

    async def write(number: int) -> int | None:
        try:
            await bucket.put("race", str(number).encode(), match=ABSENT)
        except Conflict:
            return None
        return number

    won = [each for each in await asyncio.gather(*map(write, range(16))) if each is not None]

    assert len(won) == 1
    assert await whole(bucket, "race") == (str(won[0]).encode(), {})


@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("data", [b"", b"second"], ids=["empty", "bytes"])
async def test_a_file_becomes_the_object(
    bucket: Bucket, files: Files, data: bytes, known: bool
) -> None:
    """It replaces one that was there, whether its digest and its length were known or not."""
    await files.upload("a/b", b"first", known=known)
    await files.upload("a/b", data, digest_of(data), known=known)

    assert await whole(bucket, "a/b") == (data, {})
    assert await bucket.head("a/b") == Head(len(data))


async def test_a_file_that_grows_becomes_the_object(bucket: Bucket, files: Files) -> None:
    """What is not needed any more never goes beyond what was written, nor goes back."""
    path = files.make(b"")
    sent = [0]
    async with bucket.upload(path, "a/b", None) as upload:
        with open(path, "ab", buffering=0) as file:
            for size in (3, 6, 9):
                file.write(b"abc")
                await upload.wrote(size)
                assert sent[-1] <= upload.sent <= size
                sent.append(upload.sent)
        assert await bucket.head("a/b") is None
        await upload.commit(digest_of(b"abcabcabc"), 9)

    assert await content(bucket, "a/b") == b"abcabcabc"


async def test_a_file_does_not_become_what_must_be_absent(bucket: Bucket, files: Files) -> None:
    """The object that was first stays, however it came."""
    await files.upload("a/b", b"first", absent=True)
    with pytest.raises(Conflict):
        await files.upload("a/b", b"second", absent=True)

    assert await whole(bucket, "a/b") == (b"first", {})


async def test_one_of_many_files_becomes_what_was_absent(bucket: Bucket, files: Files) -> None:
    """Of writers of one chunk exactly one succeeds, whose bytes are there."""
    writes = [files.upload("race", f"{number}".encode(), absent=True) for number in range(8)]
    found = await asyncio.gather(*writes, return_exceptions=True)

    assert sum(isinstance(each, Conflict) for each in found) == 7
    assert await content(bucket, "race") == str(found.index(None)).encode()


@pytest.mark.parametrize("error", [None, Unavailable, asyncio.CancelledError])
async def test_a_file_without_commit_becomes_nothing(
    bucket: Bucket, files: Files, error: type[BaseException] | None
) -> None:
    """Whoever leaves, in whatever way, leaves the key as it was."""
    await bucket.put("a/b", b"first")
    path = files.make(b"second")
    try:
        async with bucket.upload(path, "a/b", 6) as upload:
            await upload.wrote(6)
            if error is not None:
                raise error
    except (Unavailable, asyncio.CancelledError):
        assert error is not None

    assert await whole(bucket, "a/b") == (b"first", {})
    assert await keys(bucket, "a/") == ["a/b"]


async def test_parts_are_joined(bucket: Bucket) -> None:
    """The whole is there at once, in place of what was there; the parts stay."""
    await bucket.put("whole/x", b"first", metadata={"kind": "x"})
    await bucket.put("parts/1", b"one")
    await bucket.put("parts/2", b"two")
    await bucket.join([each async for each in bucket.list("parts/")], "whole/x")

    assert await whole(bucket, "whole/x") == (b"onetwo", {})
    assert await keys(bucket, "parts/") == ["parts/1", "parts/2"]


async def test_a_join_of_what_is_absent_stores_nothing(bucket: Bucket) -> None:
    """A part that went meanwhile is a failure, not a shorter whole."""
    await bucket.put("part", b"one")
    with pytest.raises(Unavailable):
        await bucket.join([Listed("part", 3), Listed("absent", 3)], "whole")

    assert await bucket.head("whole") is None


async def test_a_cancelled_write_is_whole_or_not_there(bucket: Bucket) -> None:
    """Cancellation waits for the write to end, one way or the other."""
    for number in range(20):
        write = asyncio.create_task(bucket.put(f"a/{number}", b"content"))
        await asyncio.sleep(0)
        write.cancel()
        await asyncio.gather(write, return_exceptions=True)

        assert await bucket.head(f"a/{number}") in (None, Head(7))


async def test_a_bucket_in_order_says_so(bucket: Bucket) -> None:
    """It answers a ping, and neither that nor a sweep changes what it holds."""
    await bucket.put("a/b", b"content", metadata={"kind": "x"})
    await bucket.ping()

    assert await bucket.sweep(0) == 0
    assert await whole(bucket, "a/b") == (b"content", {"kind": "x"})
    assert await keys(bucket, "a/") == ["a/b"]


async def test_a_prepared_deletion_deletes(bucket: Bucket) -> None:
    """Whatever is there when it is sent; it can also find nothing."""
    await bucket.put("a/b", b"first")
    send = await bucket.deletion("a/b", 60)
    await bucket.put("a/b", b"second")
    await send()
    assert await bucket.head("a/b") is None
    await send()


async def test_a_deletion_that_was_held_up_deletes_nothing(bucket: Bucket) -> None:
    """A process that wakes up late takes nothing away."""
    send = await bucket.deletion("a/b", 1)
    signed = await bucket.now()
    await bucket.put("a/b", b"new")
    while await bucket.now() < signed + 3:
        pass
    with suppress(Unavailable):
        await send()

    assert await content(bucket, "a/b") == b"new"


async def test_the_clock_of_the_bucket_is_that_of_its_objects(bucket: Bucket) -> None:
    """An object that was just written was modified now, as a listing has it."""
    before = await bucket.now()
    await bucket.put("a/b", b"new")
    [listed] = [each async for each in bucket.list("a/")]

    assert before - 2 <= listed.modified <= await bucket.now() + 2


@pytest.mark.parametrize("pusher", ["runner-1", "Läufer, 2", ""])
@pytest.mark.parametrize("size", [7, 20 << 20], ids=["one request", "parts"])
async def test_an_object_tells_who_uploaded_it(
    bucket: Bucket, files: Files, pusher: str, size: int
) -> None:
    """When it is looked at, and when it is opened."""
    path = files.make(bytes(size))
    async with bucket.upload(path, "a/b", size, pusher) as upload:
        await upload.wrote(size)
        await upload.commit(None, size)

    assert await bucket.head("a/b") == Head(size, pusher)
    opened = await bucket.open("a/b")
    assert opened is not None
    assert opened.pusher == pusher
    opened.close()


async def test_joined_objects_tell_who_joined_them(bucket: Bucket) -> None:
    """Their parts may have come from anybody."""
    await bucket.put("a/1", b"content")
    await bucket.join([Listed("a/1", 7)], "a/b", "runner-1")

    assert await bucket.head("a/b") == Head(7, "runner-1")
