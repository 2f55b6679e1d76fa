"""Fills: one read of the bucket, however many ask, and nobody depends on another who asks."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.content.fills import Fills
from cacheproxy.errors import Unavailable
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.bucket import LocalFile
from tests.content.rooms import KEY, Room, descriptors, read, settle, until

_CONTENT = b"0123456789"


async def _open(room: Room, digest: Digest) -> LocalFile:
    file = await room.contents.open(KEY, digest)
    assert file is not None
    return file


async def _done(room: Room, before: int | None = None) -> None:
    """Wait until no fill runs, and as many descriptors are open as `before`, if that is given."""
    await until(lambda: room.remote.streaming == 0 and room.spooled == [])
    await until(lambda: before is None or descriptors() == before)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(min_size=1, max_size=60),
    batch=st.integers(1, 20),
    askers=st.integers(1, 5),
    breaks=st.lists(st.integers(1, 20), max_size=5),
)
async def test_all_who_ask_get_the_content_of_one_read(
    tmp_path: Path, content: bytes, batch: int, askers: int, breaks: list[int]
) -> None:
    """Whatever it is, however it comes; then the tier has it, and the bucket is not asked again."""
    room = Room(Path(tempfile.mkdtemp(dir=tmp_path)))
    digest, room.remote.batch_bytes = await room.hold(content), batch
    room.remote.breaks = list(breaks)

    assert await asyncio.gather(*(room.get(digest) for _ in range(askers))) == [content] * askers
    await _done(room)
    assert await room.get(digest) == room.entry() == content
    assert room.remote.parts(KEY).count(None) == 1
    assert len(room.remote.opened) <= 1 + len(breaks)
    await room.contents.close()


async def test_many_who_ask_for_one_cold_blob_cost_one_read(room: Room) -> None:
    """Those who ask while it is opened, and those who ask while it comes."""
    digest, before = await room.hold(_CONTENT), descriptors()
    room.remote.door.clear()
    room.remote.gate = asyncio.Semaphore(1)
    early = [asyncio.create_task(room.get(digest)) for _ in range(10)]
    await settle()
    room.remote.door.set()
    files = await asyncio.gather(*(_open(room, digest) for _ in range(10)))
    late = [asyncio.create_task(read(file)) for file in files]
    room.remote.free()

    assert await asyncio.gather(*early, *late) == [_CONTENT] * 20
    await _done(room, before)
    assert await room.get(digest) == _CONTENT
    assert room.remote.opened == [(KEY, None)]


async def test_first_bytes_come_before_the_last(room: Room) -> None:
    """A client need not wait for the whole."""
    digest, room.remote.gate = await room.hold(_CONTENT), asyncio.Semaphore(1)
    with await _open(room, digest) as file:
        assert (file.size, await file.ready(0)) == (10, 4)
        assert file.read_at(0, 4) == b"0123"
        assert room.entry() is None


async def test_last_byte_is_withheld_until_all_is_verified(room: Room) -> None:
    """A client that has all of it has what it asked for."""
    digest, room.remote.gate = await room.hold(_CONTENT), asyncio.Semaphore(3)
    with await _open(room, digest) as file:
        assert await file.ready(8) == 9
        waiting = asyncio.create_task(file.ready(9))
        await settle()
        assert not waiting.done()
        room.remote.gate.release()
        assert await waiting == 10


@pytest.mark.parametrize("corrupt", [0, 9], ids=["first", "last"])
async def test_damaged_blob_is_nobodys(room: Room, corrupt: int) -> None:
    """Whoever reads it is told before its end, and no tier keeps it: the next one tries anew."""
    digest, before = await room.hold(_CONTENT), descriptors()
    room.remote.corrupt = corrupt
    files = [await _open(room, digest) for _ in range(3)]
    found = await asyncio.gather(*map(read, files), return_exceptions=True)

    assert [type(each) for each in found] == [Unavailable] * 3
    await _done(room, before)
    assert room.entry() is None
    room.remote.corrupt = -1
    assert await room.get(digest) == _CONTENT


async def test_first_who_asked_may_leave_while_it_waits(room: Room) -> None:
    """The others go on, and so does the read if nobody is left."""
    digest, before = await room.hold(_CONTENT), descriptors()
    room.remote.door.clear()
    first, *others = [asyncio.create_task(room.get(digest)) for _ in range(3)]
    await settle()
    first.cancel()
    await settle()
    room.remote.door.set()

    assert await asyncio.gather(*others) == [_CONTENT] * 2
    assert first.cancelled()
    await _done(room, before)
    assert len(room.remote.opened) == 1


async def test_first_who_asked_may_leave_with_its_file(room: Room) -> None:
    """A reader is no part of the read."""
    digest, room.remote.gate = await room.hold(_CONTENT), asyncio.Semaphore(1)
    first, second = await _open(room, digest), await _open(room, digest)
    await first.ready(0)
    first.close()
    room.remote.free()

    assert await read(second) == _CONTENT
    assert len(room.remote.opened) == 1


@pytest.mark.parametrize("fail_at", [0, 1], ids=["opens", "fails"])
async def test_who_leaves_just_as_the_answer_comes_has_left(tmp_path: Path, fail_at: int) -> None:
    """Whatever the answer, it is the cancellation that counts, and no descriptor stays."""
    room, before = Room(tmp_path, fail_at=fail_at), descriptors()
    digest = await room.hold(_CONTENT)
    room.remote.door.clear()
    asking = asyncio.create_task(room.contents.open(KEY, digest))
    await settle()
    room.remote.door.set()
    asyncio.get_running_loop().call_soon(asking.cancel)

    with pytest.raises(asyncio.CancelledError):
        await asking
    await _done(room, before)
    await room.contents.close()


async def test_read_that_broke_is_taken_up_from_there(room: Room) -> None:
    """The rest alone is asked for, and breaks that brought a byte are no failures in a row."""
    digest, room.remote.breaks = await room.hold(_CONTENT), [6, 0, 1, 0, 2]

    assert await room.get(digest) == _CONTENT
    rests = [None, *(ByteRange(start, 10 - start) for start in (6, 6, 7, 7, 9))]
    assert room.remote.parts(KEY) == rests


async def test_read_that_broke_three_times_fails_all_who_wait(room: Room) -> None:
    """And nothing of it stays; the next who asks begins anew."""
    digest, room.remote.breaks = await room.hold(_CONTENT), [6, 0, 0]
    found = await asyncio.gather(room.get(digest), room.get(digest), return_exceptions=True)

    assert [type(each) for each in found] == [Unavailable] * 2
    await _done(room)
    assert (room.entry(), len(room.remote.opened)) == (None, 3)
    assert await room.get(digest) == _CONTENT


async def test_bucket_that_cannot_be_read_fails_all_who_wait(tmp_path: Path) -> None:
    """They are told at once, and the next who asks begins anew."""
    room = Room(tmp_path, fail_at=1)
    digest = await room.hold(_CONTENT)
    found = await asyncio.gather(room.get(digest), room.get(digest), return_exceptions=True)

    assert [type(each) for each in found] == [Unavailable] * 2
    assert await room.get(digest) == _CONTENT
    await room.contents.close()


async def test_absent_blob_is_none_for_all(room: Room) -> None:
    """It is asked for once, and again later: it may have come."""
    digest = await room.hold(_CONTENT)
    await room.folder.delete(KEY)

    assert await asyncio.gather(*(room.get(digest) for _ in range(5))) == [None] * 5
    assert len(room.remote.opened) == 1
    await room.hold(_CONTENT)
    assert await room.get(digest) == _CONTENT


async def test_empty_blob_is_there(room: Room) -> None:
    """It has no byte that could be withheld."""
    digest, before = await room.hold(b""), descriptors()

    assert await asyncio.gather(*(room.get(digest) for _ in range(2))) == [b"", b""]
    assert (room.spooled, descriptors()) == ([], before)


async def test_blob_larger_than_the_tier_goes_past_it(tmp_path: Path) -> None:
    """Each who asks has a window of its own, and the tier keeps nothing."""
    room, before = Room(tmp_path, limit=8), descriptors()
    digest = await room.hold(_CONTENT)

    assert await asyncio.gather(*(room.get(digest) for _ in range(2))) == [_CONTENT] * 2
    await _done(room)
    assert (room.entry(), descriptors()) == (None, before)
    assert room.remote.parts(KEY) == [None, ByteRange(0, 10), ByteRange(0, 10)]


async def test_end_of_the_server_ends_its_reads(room: Room) -> None:
    """Who waits is told; neither a file nor a descriptor stays."""
    digest, before = await room.hold(_CONTENT), descriptors()
    room.remote.gate = asyncio.Semaphore(1)
    reading = asyncio.create_task(read(await _open(room, digest)))
    await settle()
    await room.contents.close()

    with pytest.raises(Unavailable):
        await reading
    assert (room.spooled, room.remote.streaming, descriptors()) == ([], 0, before)


async def test_the_same_content_elsewhere_is_another_read(room: Room) -> None:
    """Whoever asks for a blob of another namespace waits for that one, which may be absent."""
    digest, room.remote.gate = await room.hold(_CONTENT), asyncio.Semaphore(1)
    with await _open(room, digest):
        assert await room.contents.open("other", digest) is None
        await room.folder.put("another", _CONTENT)
        room.remote.free()
        file = await room.contents.open("another", digest)
        assert file is not None
        assert await read(file) == _CONTENT

    assert room.remote.opened == [(KEY, None), ("other", None), ("another", None)]


async def test_end_of_the_server_ends_a_read_that_has_not_begun(room: Room) -> None:
    """Nobody waits for what will never run."""
    digest = await room.hold(_CONTENT)
    fills = Fills(room.remote, room.spools, room.tier)
    asking = asyncio.create_task(fills.follow(KEY, digest))
    await asyncio.sleep(0)
    await fills.close()

    with pytest.raises(Unavailable):
        async with asyncio.timeout(60):
            await asking


async def test_who_asks_just_as_a_read_fails_is_given_no_closed_descriptor(room: Room) -> None:
    """At every turn of the loop somebody asks; the number may be another file's by then."""
    digest = await room.hold(_CONTENT)
    room.remote.corrupt = 5
    reads = [asyncio.create_task(_asked(room, digest))]
    while not reads[0].done():
        reads.append(asyncio.create_task(_asked(room, digest)))
        await asyncio.sleep(0)
    answers = await asyncio.gather(*reads, return_exceptions=True)

    assert {type(answer) for answer in answers} == {Unavailable}


async def _asked(room: Room, digest: Digest) -> bytes:
    return await read(await _open(room, digest))
