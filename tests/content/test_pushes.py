"""What a push costs: room on the disk, and what it leaves in the tier."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import Body
from cacheproxy.errors import StorageFull
from cacheproxy.oci.digest import Digest, Hasher, digest_of
from tests.content.rooms import KEY, Batches, Room

_DIGEST = digest_of(b"content")


async def _push(contents: Contents, body: Body, digest: Digest) -> None:
    async with contents.receive(KEY, body, Hasher(digest.algorithm)) as received:
        await received.commit(digest)


def _full(fd: int, offset: int, length: int) -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


async def test_push_that_fits_becomes_an_entry_as_it_is(room: Room) -> None:
    """The very file is renamed, and serves the next who asks: the bucket is not asked."""
    async with room.contents.receive(KEY, Batches(b"content"), Hasher()) as received:
        [spool] = os.scandir(room.spools.folder)
        await received.commit(_DIGEST)
    file = room.tier.open(KEY)
    assert file is not None
    with file:
        assert os.fstat(file.fd).st_ino == spool.inode()

    assert await room.get(_DIGEST) == b"content"
    assert room.remote.opened == []


@pytest.mark.parametrize("announced", [True, False], ids=["length", "no length"])
async def test_push_larger_than_the_tier_is_given_back_as_it_is_sent(
    tmp_path: Path, announced: bool
) -> None:
    """It takes no more room than what is not sent yet, and becomes no entry."""
    room = Room(tmp_path, limit=128 << 10)
    room.remote.ahead = True
    go, batch = asyncio.Event(), b"x" * (64 << 10)
    content = 4 * batch + b"end"
    body = Batches(*[batch] * 4, b"end", length=len(content) if announced else None, go=go)
    push = asyncio.create_task(_push(room.contents, body, digest_of(content)))
    await body.reached.wait()
    [spool] = os.scandir(room.spools.folder)
    found = spool.stat()
    assert (found.st_size, found.st_blocks) == (256 << 10, 0)
    go.set()
    await push

    assert await room.stored() == content
    assert (room.entry(), room.spooled) == (None, [])
    assert room.remote.wrote == [*(number * len(batch) for number in (1, 2, 3, 4)), len(content)]


async def test_push_that_fits_is_not_given_back(room: Room) -> None:
    """However much of it was sent already: it is to become an entry."""
    room.remote.ahead = True
    body = Batches(b"x" * 100_000, b"y", length=100_001)
    await _push(room.contents, body, digest_of(b"x" * 100_000 + b"y"))

    assert room.entry() == b"x" * 100_000 + b"y"


async def test_push_on_a_full_disk_goes_on_if_it_can_be_sent(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the room cannot be reserved, the spool holds only what is not sent yet."""
    monkeypatch.setattr(os, "posix_fallocate", _full)
    room.remote.ahead = True
    await _push(room.contents, Batches(b"content", length=7), _DIGEST)

    assert (await room.stored(), room.entry()) == (b"content", None)


async def test_push_on_a_full_disk_that_is_the_bucket_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, without a byte of the body."""
    monkeypatch.setattr(os, "posix_fallocate", _full)
    room, body = Room(tmp_path, local=True), Batches(b"content", length=7)
    with pytest.raises(StorageFull):
        await _push(room.contents, body, _DIGEST)

    assert not body.reached.is_set()
    assert room.spooled == []
