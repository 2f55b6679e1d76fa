"""Contents: what comes in becomes an object, and at best an entry of the tier."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import Body
from cacheproxy.errors import (
    BlobUploadInvalid,
    Conflict,
    DigestInvalid,
    SizeInvalid,
    Unavailable,
)
from cacheproxy.oci.digest import Digest, Hasher, digest_of
from cacheproxy.oci.ranges import ByteRange
from tests.content.rooms import KEY, Batches, Broken, CancelledAt, Room, descriptors, read, until

_DIGEST = digest_of(b"content")
_KINDS = pytest.mark.parametrize("local", [True, False], ids=["local", "tier"])


async def _push(contents: Contents, body: Body, digest: Digest) -> None:
    async with contents.receive(KEY, body, Hasher(digest.algorithm)) as received:
        await received.commit(digest)


@_KINDS
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.binary(min_size=1, max_size=20), max_size=5),
    algorithm=st.sampled_from(["sha256", "sha512"]),
    announced=st.booleans(),
    ahead=st.booleans(),
)
async def test_content_of_the_right_digest_becomes_the_object(
    tmp_path: Path, local: bool, batches: list[bytes], algorithm: str, announced: bool, ahead: bool
) -> None:
    """All that came, however it was cut, sent and announced; what is read is the same again."""
    room = Room(Path(tempfile.mkdtemp(dir=tmp_path)), local=local)
    room.remote.ahead = ahead
    data = b"".join(batches)
    digest = digest_of(data, algorithm)
    body = Batches(*batches, length=len(data) if announced else None)
    async with room.contents.receive(KEY, body, Hasher(algorithm)) as received:
        await received.commit(digest)
        assert received.size == len(data)

    assert await room.stored() == await room.get(digest) == data
    await until(lambda: room.spooled == [])
    assert room.entry() == (None if local else data)
    await room.contents.close()


@_KINDS
@pytest.mark.parametrize(
    "wrong", [digest_of(b"other"), digest_of(b"content", "sha512")], ids=["content", "algorithm"]
)
async def test_content_of_another_digest_is_not_stored(
    tmp_path: Path, local: bool, wrong: Digest
) -> None:
    """What is not what it was said to be never gets the name; nor does what was not computed."""
    room = Room(tmp_path, local=local)
    with pytest.raises(DigestInvalid):
        async with room.contents.receive(KEY, Batches(b"content"), Hasher()) as received:
            await received.commit(wrong)

    assert await room.stored() is None
    assert (room.entry(), room.spooled) == (None, [])


@_KINDS
@pytest.mark.parametrize(
    ("body", "error"),
    [(Broken(), BlobUploadInvalid), (Batches(b"cont", b"ent", length=8), SizeInvalid)],
    ids=["broken", "short"],
)
async def test_content_of_a_sender_that_fails_is_not_stored(
    tmp_path: Path, local: bool, body: Body, error: type[Exception]
) -> None:
    """The sender's error is the caller's, and nothing stays."""
    room, before = Room(tmp_path, local=local), descriptors()
    with pytest.raises(error):
        await _push(room.contents, body, _DIGEST)

    assert (await room.stored(), room.spooled, descriptors()) == (None, [], before)


@_KINDS
async def test_content_without_commit_is_not_stored(tmp_path: Path, local: bool) -> None:
    """Only a commit makes an object."""
    room = Room(tmp_path, local=local)
    async with room.contents.receive(KEY, Batches(b"content"), Hasher()) as received:
        assert received.size == 7

    assert (await room.stored(), room.spooled) == (None, [])


@_KINDS
async def test_part_for_what_must_be_absent_conflicts_with_what_is_there(
    tmp_path: Path, local: bool
) -> None:
    """The object that was first stays; a part is nothing that the tier could serve."""
    room = Room(tmp_path, local=local)
    for content in (b"first", b"second"):
        with suppress(Conflict):
            async with room.contents.receive(KEY, Batches(content), Hasher()) as received:
                await received.commit_part(absent=True)
                assert content == b"first"

    assert (await room.stored(), room.spooled) == (b"first", [])
    assert room.entry() is None


@_KINDS
async def test_commit_that_the_bucket_fails_is_not_done(tmp_path: Path, local: bool) -> None:
    """Neither an object nor an entry, nor a file."""
    room = Room(tmp_path, local=local, fail_at=1)
    with pytest.raises(Unavailable):
        await _push(room.contents, Batches(b"content"), _DIGEST)

    assert await room.stored() is None
    assert (room.entry(), room.spooled) == (None, [])


@_KINDS
async def test_cancelled_push_leaves_nothing_wherever_it_was(tmp_path: Path, local: bool) -> None:
    """Neither a spool, nor a descriptor, nor an open body; the object is whole or not there."""
    for at in count(1):
        room = Room(tmp_path / str(at), local=local)
        body, before = Batches(b"cont", b"ent", length=7), descriptors()
        push = CancelledAt(_push(room.contents, body, _DIGEST), at)
        with suppress(asyncio.CancelledError):
            await push

        assert (room.spooled, descriptors()) == ([], before)
        assert body.closed or not body.reached.is_set()
        assert await room.stored() in (None, b"content")
        assert room.entry() in (None, await room.stored())
        if not push.reached:
            break
    assert at > 4


@_KINDS
async def test_object_is_hashed(tmp_path: Path, local: bool) -> None:
    """All of it, behind what the hasher has seen, with nothing left open; or it is absent."""
    room, hasher, before = Room(tmp_path, local=local), Hasher(), descriptors()
    await room.hold(b"content")
    hasher.update(b"some ")

    assert not await room.contents.read_into("absent", hasher)
    assert await room.contents.read_into(KEY, hasher)
    assert hasher.digest() == digest_of(b"some content")
    assert (room.remote.streaming, descriptors()) == (0, before)


@_KINDS
async def test_part_is_read_from_where_it_is(tmp_path: Path, local: bool) -> None:
    """From the entry where there is one, else from the bucket, which is asked for no more."""
    room = Room(tmp_path, local=local)
    digest = await room.hold(bytes(range(100)))
    part = ByteRange(30, 20)
    for _ in range(3):
        file = await room.contents.open_part(KEY, part)
        assert file is not None
        assert file.size == 100
        assert await read(file, 30, 50) == bytes(range(30, 50))
        assert await room.get(digest) == bytes(range(100))
        await until(lambda: local or room.entry() is not None)
    await room.contents.close()

    assert room.remote.parts(KEY) == ([] if local else [part, None])


@_KINDS
async def test_absent_content_is_none(tmp_path: Path, local: bool) -> None:
    """Whole or in part."""
    room = Room(tmp_path, local=local)

    assert await room.contents.open(KEY, _DIGEST) is None
    assert await room.contents.open_part(KEY, ByteRange(0, 1)) is None


async def test_the_same_content_elsewhere_is_not_served(tmp_path: Path) -> None:
    """What was pushed to one namespace is no answer in another, where there is no such object."""
    room = Room(tmp_path)
    await _push(room.contents, Batches(b"content"), _DIGEST)

    assert await room.contents.open("other", _DIGEST) is None
    assert await room.contents.open_part("other", ByteRange(0, 1)) is None
    assert await room.contents.restore("other", _DIGEST) is None
    await room.contents.close()
