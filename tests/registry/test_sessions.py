"""Upload sessions: what a failure in the middle leaves to go on with."""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from cacheproxy.errors import (
    BlobUnknown,
    BlobUploadUnknown,
    DigestInvalid,
    SizeInvalid,
    Unavailable,
)
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.oci.reference import Repository
from tests.fakes import FaultyBucket
from tests.registry.rooms import Bytes, Rooms

_APP = Repository("ci/app")


def _unannounced(content: bytes) -> Bytes:
    """A body of which the length is not known before its end."""
    body = Bytes(content)
    body.length = None
    return body


async def _keys(rooms: Rooms) -> list[str]:
    return [each.key async for each in rooms.folder.list("default/uploads/")]


async def test_session_that_has_no_byte_costs_nothing(rooms: Rooms) -> None:
    """Beginning one, and asking for its end, stores nothing."""
    session = rooms.uploads.begin(_APP)

    assert await rooms.uploads.offset(_APP, session) == 0
    assert await _keys(rooms) == []


async def test_session_in_another_repository_is_unknown(rooms: Rooms) -> None:
    """Also to append to it, to finish it and to cancel it."""
    session, other = rooms.uploads.begin(_APP), Repository("ci/other")
    uploads = rooms.uploads

    for call in (
        uploads.append(other, session, Bytes(b"abc"), None),
        uploads.finish(other, session, digest_of(b"abc"), Bytes(b"abc"), None),
        uploads.cancel(other, session),
    ):
        with pytest.raises(BlobUploadUnknown):
            await call
    assert await _keys(rooms) == []


async def test_finished_session_leaves_its_blob_and_no_chunk(rooms: Rooms) -> None:
    """Only the mark stays that it is over."""
    session = rooms.uploads.begin(_APP)
    await rooms.uploads.append(_APP, session, Bytes(b"abc"), None)
    chunked = rooms.uploads.chunked(session)
    await rooms.uploads.finish(_APP, chunked, digest_of(b"abcdef"), Bytes(b"def"), ByteRange(3, 3))

    assert await rooms.blobs.size(_APP, digest_of(b"abcdef")) == 6
    assert await _keys(rooms) == [f"default/uploads/{session}/closed"]


@pytest.mark.parametrize("last", [b"", b"def"], ids=["no body", "a body"])
async def test_session_stays_as_it_is_when_the_digest_is_wrong(rooms: Rooms, last: bytes) -> None:
    """The client may send the right digest then, with or without the last bytes."""
    session = rooms.uploads.begin(_APP)
    await rooms.uploads.append(_APP, session, Bytes(b"abc"), None)
    session = rooms.uploads.chunked(session)
    with pytest.raises(DigestInvalid):
        await rooms.uploads.finish(_APP, session, digest_of(b"other"), Bytes(last), None)

    assert await rooms.uploads.offset(_APP, session) == 3


@pytest.mark.parametrize("last", [b"", b"def"], ids=["no body", "a body"])
async def test_finish_that_failed_can_be_repeated(tmp_path: Path, last: bytes) -> None:
    """Whatever call to the bucket failed, the same PUT again makes the blob, or it is there."""
    for fail_at in count(1):
        folder = tmp_path / str(fail_at)
        plain = Rooms(folder)
        session = plain.uploads.begin(_APP)
        await plain.uploads.append(_APP, session, Bytes(b"abc"), None)
        session = plain.uploads.chunked(session)
        faulty = FaultyBucket(plain.folder, fail_at)
        digest = digest_of(b"abc" + last)
        with suppress(Unavailable):
            await Rooms(folder, faulty).uploads.finish(_APP, session, digest, Bytes(last), None)

        with suppress(BlobUploadUnknown):
            await plain.uploads.finish(_APP, session, digest, Bytes(last), None)
        assert await plain.blobs.size(_APP, digest) == 3 + len(last)
        if not faulty.reached:
            break


@pytest.mark.parametrize("content", [b"abc", b"abcdefg"])
async def test_chunk_of_another_length_than_its_range_is_refused(
    rooms: Rooms, content: bytes
) -> None:
    """Also where the length of the body is known only at its end."""
    session = rooms.uploads.begin(_APP)
    with pytest.raises(SizeInvalid):
        await rooms.uploads.append(_APP, session, _unannounced(content), ByteRange(0, 5))

    assert await rooms.uploads.offset(_APP, session) == 0


async def test_cancelled_session_leaves_no_chunk_and_no_blob(rooms: Rooms) -> None:
    """Its bytes go at once."""
    session = rooms.uploads.begin(_APP)
    await rooms.uploads.append(_APP, session, Bytes(b"abc"), None)
    await rooms.uploads.cancel(_APP, session)

    assert await _keys(rooms) == [f"default/uploads/{session}/closed"]
    with pytest.raises(BlobUnknown):
        await rooms.blobs.size(_APP, digest_of(b"abc"))


async def test_sweep_removes_what_no_session_is(rooms: Rooms) -> None:
    """A folder of rubbish among the sessions does not stay, and does not stop the sweep."""
    await rooms.folder.put("default/uploads/rubbish/x", b"")
    await rooms.uploads.append(_APP, rooms.uploads.begin(_APP), Bytes(b"abc"), None)
    rooms.now += 101

    assert await rooms.uploads.sweep() == 2
    assert await _keys(rooms) == []
