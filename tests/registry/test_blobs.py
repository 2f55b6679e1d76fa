"""Blobs: shared by a namespace, seen through repositories."""

from __future__ import annotations

import asyncio

import pytest

from cacheproxy.errors import BlobUnknown, DigestInvalid
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.reference import Repository
from tests.registry.rooms import Bytes, Rooms

_APP = Repository("ci/app")
_OTHER = Repository("ci/other")
_CONTENT = b"content of a blob"
_DIGEST = digest_of(_CONTENT)


async def _visible(rooms: Rooms, repository: Repository, digest: Digest = _DIGEST) -> bool:
    """Whether it can be seen, by both ways of looking."""
    try:
        await rooms.blobs.size(repository, digest)
    except BlobUnknown:
        with pytest.raises(BlobUnknown):
            await rooms.blobs.open(repository, digest)
        return False
    with await rooms.blobs.open(repository, digest) as file:
        return digest_of(file.read_at(0, 100), digest.algorithm) == digest


async def test_blob_of_another_digest_is_refused(rooms: Rooms) -> None:
    """Nothing is stored under either digest."""
    with pytest.raises(DigestInvalid):
        await rooms.blobs.push(_APP, digest_of(b"other"), Bytes(_CONTENT))

    assert not await _visible(rooms, _APP, digest_of(b"other"))
    assert not await _visible(rooms, _APP)
    assert rooms.spooled == []


async def test_blob_that_is_there_is_kept_when_a_wrong_one_is_pushed(rooms: Rooms) -> None:
    """A second push is verified too, and cannot harm the first."""
    await rooms.blobs.push(_APP, _DIGEST, Bytes(_CONTENT))
    with pytest.raises(DigestInvalid):
        await rooms.blobs.push(_APP, _DIGEST, Bytes(b"forged"))

    assert await _visible(rooms, _APP)


async def test_blob_is_shared_by_the_repositories(rooms: Rooms) -> None:
    """What one pushes no other needs to push."""
    await rooms.blobs.push(_APP, _DIGEST, Bytes(_CONTENT))

    assert await _visible(rooms, _OTHER)


async def test_deleted_blob_cannot_be_deleted_again(rooms: Rooms) -> None:
    """What is hidden is unknown to a delete too."""
    await rooms.blobs.push(_APP, _DIGEST, Bytes(_CONTENT))
    await rooms.blobs.delete(_APP, _DIGEST)

    with pytest.raises(BlobUnknown):
        await rooms.blobs.delete(_APP, _DIGEST)


async def test_deleted_blob_is_back_when_it_is_pushed_again(rooms: Rooms) -> None:
    """A push ends the hiding, and leaves no record of it."""
    await rooms.blobs.push(_APP, _DIGEST, Bytes(_CONTENT))
    await rooms.blobs.delete(_APP, _DIGEST)
    await rooms.blobs.push(_APP, _DIGEST, Bytes(_CONTENT))

    assert await _visible(rooms, _APP)
    assert [key async for key in rooms.folder.list("default/repositories/")] == []


async def test_deletes_at_once_are_all_remembered(rooms: Rooms) -> None:
    """The record of a repository loses none of those that are written to it at once."""
    contents = [bytes([number]) for number in range(12)]
    for content in contents:
        await rooms.blobs.push(_APP, digest_of(content), Bytes(content))
    await asyncio.gather(*(rooms.blobs.delete(_APP, digest_of(each)) for each in contents))

    assert not any([await _visible(rooms, _APP, digest_of(each)) for each in contents])


async def test_mount_from_a_source_shows_the_blob(rooms: Rooms) -> None:
    """Also where it had been hidden."""
    await rooms.blobs.push(_APP, _DIGEST, Bytes(_CONTENT))
    await rooms.blobs.delete(_OTHER, _DIGEST)

    assert await rooms.blobs.mount(_OTHER, _DIGEST, _APP)
    assert await _visible(rooms, _OTHER)


async def test_right_push_beside_a_wrong_one_succeeds(rooms: Rooms) -> None:
    """Each is verified on its own bytes."""
    right, wrong = await asyncio.gather(
        rooms.blobs.push(_APP, _DIGEST, Bytes(_CONTENT)),
        rooms.blobs.push(_APP, _DIGEST, Bytes(b"forged")),
        return_exceptions=True,
    )

    assert right == len(_CONTENT)
    assert isinstance(wrong, DigestInvalid)
    assert await _visible(rooms, _APP)
