"""Blobs that a repository hides, over two servers on one bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.errors import BlobUnknown
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.reference import Repository
from tests.fakes import FaultyBucket
from tests.registry.rooms import Bytes, Rooms

_APP = Repository("ci/app")
_BLOB = digest_of(b"content")


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
