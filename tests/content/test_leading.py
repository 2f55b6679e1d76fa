"""Leading: of the processes of a machine one reads a blob, and the others follow it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from cacheproxy.content.contents import Contents
from cacheproxy.content.leading import leading
from cacheproxy.content.tier import Tier
from cacheproxy.errors import Unavailable
from cacheproxy.oci.digest import Digest
from tests.content.rooms import KEY, Room, descriptors, read, settle, until

_CONTENT = b"0123456789"


@pytest_asyncio.fixture
async def others(room: Room) -> AsyncIterator[list[Contents]]:
    """The contents of other processes of the same machine."""
    others = [room.another() for _ in range(3)]
    yield others
    for each in others:
        await each.close()


async def _get(contents: Contents, digest: Digest) -> bytes | None:
    file = await contents.open(KEY, digest)
    return None if file is None else await read(file)


async def test_processes_that_ask_for_one_cold_blob_cost_one_read(
    room: Room, others: list[Contents]
) -> None:
    """They share what they have, and all have it in the end."""
    digest, before = await room.hold(_CONTENT), descriptors()
    found = await asyncio.gather(room.get(digest), *(_get(each, digest) for each in others))

    assert list(found) == [_CONTENT] * 4
    await until(lambda: room.spooled == [])
    assert room.remote.opened == [(KEY, None)]
    await until(lambda: descriptors() == before)


async def test_who_looked_just_before_another_was_done_does_not_read_it_again(
    room: Room, others: list[Contents], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody leads any more, and the blob is there."""
    digest = await room.hold(_CONTENT)
    look, looks = Tier.open, iter([True])
    monkeypatch.setattr(
        Tier, "open", lambda tier, key: None if next(looks, False) else look(tier, key)
    )
    await _get(others[0], digest)
    await until(lambda: room.spooled == [])
    looks = iter([True])

    assert await room.get(digest) == _CONTENT
    assert room.remote.opened == [(KEY, None)]
    assert room.spooled == []


async def test_who_fills_the_same_content_elsewhere_is_not_followed(
    room: Room, others: list[Contents]
) -> None:
    """That is the blob of another namespace, and may be absent here."""
    digest, room.remote.gate = await room.hold(_CONTENT), asyncio.Semaphore(1)
    leading = await room.contents.open(KEY, digest)
    assert leading is not None
    with leading:
        assert await others[0].open("other", digest) is None


async def test_follower_of_another_process_reads_along(room: Room, others: list[Contents]) -> None:
    """The first bytes come before the last, which comes when all is verified."""
    digest, room.remote.gate = await room.hold(_CONTENT), asyncio.Semaphore(1)
    leading, following = await room.contents.open(KEY, digest), await others[0].open(KEY, digest)
    assert leading is not None
    assert following is not None
    with leading, following:
        assert (await following.ready(0), following.read_at(0, 4)) == (4, b"0123")
        room.remote.gate.release()
        room.remote.gate.release()
        assert await following.ready(8) == 9
        waiting = asyncio.create_task(following.ready(9))
        await settle()
        assert not waiting.done()
        room.remote.free()
        assert await waiting == 10


async def test_damaged_blob_is_nobodys_in_any_process(room: Room, others: list[Contents]) -> None:
    """Who follows another process is told like those who wait in it."""
    digest, room.remote.corrupt = await room.hold(_CONTENT), 5
    room.remote.gate = asyncio.Semaphore(1)
    leading, following = await room.contents.open(KEY, digest), await others[0].open(KEY, digest)
    assert leading is not None
    assert following is not None
    room.remote.free()
    found = await asyncio.gather(read(leading), read(following), return_exceptions=True)

    assert [type(each) for each in found] == [Unavailable] * 2
    assert room.entry() is None


async def test_absent_blob_is_none_in_all_processes(room: Room, others: list[Contents]) -> None:
    """Whoever asks the bucket, and however often."""
    digest = await room.hold(_CONTENT)
    await room.folder.delete(KEY)

    assert await asyncio.gather(*(_get(each, digest) for each in others)) == [None] * 3
    await until(lambda: room.spooled == [])


@contextmanager
def _led(room: Room) -> Iterator[None]:
    """Another process leads, and has read half; it dies on exit."""
    with leading(room.spools.folder, KEY) as lead:
        assert lead is not None
        Path(lead.path).write_bytes(_CONTENT[:5])
        lead.tell(len(_CONTENT))
        yield
        os.link(lead.path, f"{lead.path}.left")
    os.rename(f"{lead.path}.left", lead.path)


async def test_process_that_died_while_it_led_is_replaced(room: Room) -> None:
    """What it left is in nobody's way."""
    digest = await room.hold(_CONTENT)
    with _led(room):
        pass

    assert await room.get(digest) == _CONTENT
    await until(lambda: room.spooled == [])


async def test_follower_of_a_process_that_died_is_told(room: Room) -> None:
    """It does not wait for ever for what will not come."""
    digest = await room.hold(_CONTENT)
    with _led(room):
        file = await room.contents.open(KEY, digest)
        assert file is not None
        assert await file.ready(0) == 5
    with file, pytest.raises(Unavailable):
        async with asyncio.timeout(60):
            await file.ready(5)
