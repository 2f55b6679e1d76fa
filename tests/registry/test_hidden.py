"""Blobs that a repository hides, over two servers on one bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.errors import BlobUnknown
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.hidden import Hidden
from cacheproxy.storage.layout import Namespace
from tests.fakes import FaultyBucket
from tests.real.seaweed import SeaweedFS
from tests.registry.rooms import Bytes, Rooms
from tests.storage.s3_buckets import opened

_APP = Repository("ci/app")
_BLOB = digest_of(b"content")
_OTHER = digest_of(b"other")


@pytest.fixture
async def pair(tmp_path: Path) -> tuple[Rooms, Rooms]:
    """Two servers on one bucket, which holds a blob."""
    here, there = Rooms(tmp_path / "data"), Rooms(tmp_path / "data")
    await here.blobs.push(_APP, _BLOB, Bytes(b"content"))
    return here, there


async def test_a_deletion_is_seen_by_others_after_their_poll(pair: tuple[Rooms, Rooms]) -> None:
    """It is seen at once where it happened, and elsewhere one poll later."""
    here, there = pair
    await here.blobs.delete(_APP, _BLOB)

    with pytest.raises(BlobUnknown):
        await here.blobs.size(_APP, _BLOB)
    assert await there.blobs.size(_APP, _BLOB) == 7
    await there.hidden.poll()
    with pytest.raises(BlobUnknown):
        await there.blobs.size(_APP, _BLOB)


async def test_what_was_shown_again_elsewhere_is_never_refused(pair: tuple[Rooms, Rooms]) -> None:
    """A push that was acknowledged by another server counts at once."""
    here, there = pair
    await here.blobs.delete(_APP, _BLOB)
    await there.hidden.poll()
    await here.blobs.push(_APP, _BLOB, Bytes(b"content"))

    assert await there.blobs.size(_APP, _BLOB) == 7


async def test_a_push_undoes_a_deletion_that_its_server_has_not_heard_of(
    pair: tuple[Rooms, Rooms],
) -> None:
    """Otherwise the next poll would hide what was just acknowledged."""
    here, there = pair
    await here.blobs.delete(_APP, _BLOB)
    await there.blobs.push(_APP, _BLOB, Bytes(b"content"))
    await there.hidden.poll()

    assert await there.blobs.size(_APP, _BLOB) == 7


async def test_looking_at_a_blob_asks_for_nothing_but_the_blob(tmp_path: Path) -> None:
    """HEAD is the hot path: one call to the bucket."""
    plain = Rooms(tmp_path / "data")
    await plain.blobs.push(_APP, _BLOB, Bytes(b"content"))
    bucket = FaultyBucket(plain.folder, fail_at=0)
    rooms = Rooms(tmp_path / "data", bucket)
    await rooms.condemned.poll()
    bucket.arm(2)

    assert await rooms.blobs.size(_APP, _BLOB) == 7


async def test_a_poll_transfers_what_has_changed_only(seaweed: SeaweedFS) -> None:
    """Each server asks every ten seconds, for a record that changes now and then."""
    reads: list[int] = []

    def observe(operation: str, seconds: float, status: int, sent: int, received: int) -> None:
        if operation == "GetObject":
            reads.append(status)

    async with opened(seaweed, observe) as bucket:
        here, there = Hidden(bucket, Namespace()), Hidden(bucket, Namespace())
        await here.add(_APP, _BLOB)
        await there.poll()
        reads.clear()

        await there.poll()
        assert await there.has(_APP, _BLOB)
        assert reads == [304, 200]  # the poll's, and that of whoever tells a client

        await here.remove(_APP, [_BLOB])
        await here.add(_APP, _OTHER)
        await there.poll()
        assert not await there.has(_APP, _BLOB)
        assert await there.has(_APP, _OTHER)
