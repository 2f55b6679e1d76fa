"""Manifests, their tags and their referrers."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cacheproxy.errors import (
    BlobUnknown,
    DigestInvalid,
    ManifestInvalid,
    ManifestUnknown,
)
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.manifest import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from cacheproxy.oci.reference import Repository, Tag
from tests.registry.rooms import Bytes, Rooms

_APP = Repository("ci/app")
_SUBJECT = digest_of(b"a manifest that nobody has pushed")


def _image(name: str, subject: str | None = None, config: bytes = b"{}") -> bytes:
    """An image manifest that differs from others by its name."""
    fields: dict[str, Any] = {
        "schemaVersion": 2,
        "config": {"mediaType": "a/b", "digest": digest_of(config), "size": len(config)},
        "annotations": {"name": name},
    }
    if subject is not None:
        fields["subject"] = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 7}
    return json.dumps(fields).encode()


async def _push(rooms: Rooms, data: bytes, tag: str = "latest") -> Digest:
    return (await rooms.manifests.push(_APP, Tag(tag), [], data, OCI_MANIFEST)).digest


async def _tags(rooms: Rooms, after: str = "") -> list[str]:
    return [tag async for tag in rooms.tags.list(_APP, after)]


async def _referrers(rooms: Rooms, after: str = "") -> list[str]:
    return [each.digest async for each in rooms.referrers.list(_APP, _SUBJECT, after)]


async def test_manifest_is_of_its_repository_alone(rooms: Rooms) -> None:
    """Unlike blobs, manifests are not shared."""
    digest = await _push(rooms, _image("x"))

    with pytest.raises(ManifestUnknown):
        await rooms.manifests.get(Repository("ci/other"), digest)


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"[", ManifestInvalid), (_image("x", subject="md5:" + "a" * 32), DigestInvalid)],
    ids=["no JSON", "a subject that cannot be"],
)
async def test_manifest_that_is_refused_stores_nothing(
    rooms: Rooms, data: bytes, error: type[Exception]
) -> None:
    """It is read whole before any of it is stored."""
    with pytest.raises(error):
        await rooms.manifests.push(_APP, Tag("x"), [], data, OCI_MANIFEST)

    assert [key async for key in rooms.folder.list("default/")] == []


async def test_manifest_by_sha512_is_stored_under_it(rooms: Rooms) -> None:
    """And tags that come with it point to that digest."""
    data = _image("x", subject=_SUBJECT)
    digest = digest_of(data, "sha512")
    await rooms.manifests.push(_APP, digest, [Tag("x")], data, OCI_MANIFEST)

    assert (await rooms.manifests.get(_APP, Tag("x"))).digest == digest
    assert await _referrers(rooms) == [digest]


async def test_manifest_may_come_with_many_tags(rooms: Rooms) -> None:
    """The reference is one of them if it is a tag."""
    tags = [Tag("b"), Tag("c"), Tag("b")]
    await rooms.manifests.push(_APP, Tag("a"), tags, _image("x"), OCI_MANIFEST)

    assert await _tags(rooms) == ["a", "b", "c"]
    assert await _tags(rooms, after="a") == ["b", "c"]


@pytest.mark.parametrize(("first", "second"), [(OCI_INDEX, DOCKER_LIST), (DOCKER_LIST, OCI_INDEX)])
async def test_manifest_that_is_pushed_again_has_the_last_type(
    rooms: Rooms, first: str, second: str
) -> None:
    """Where the bytes do not say what they are, the last push does."""
    data = b'{"schemaVersion":2,"manifests":[]}'
    for media_type in (first, second):
        await rooms.manifests.push(_APP, Tag("x"), [], data, media_type)

    assert (await rooms.manifests.get(_APP, Tag("x"))).media_type == second


async def test_push_of_a_manifest_shows_the_blobs_it_needs(rooms: Rooms) -> None:
    """What was deleted from the repository is of use in it again."""
    await rooms.blobs.push(_APP, digest_of(b"{}"), Bytes(b"{}"))
    await rooms.blobs.delete(_APP, digest_of(b"{}"))
    with pytest.raises(BlobUnknown):
        await rooms.blobs.size(_APP, digest_of(b"{}"))
    await _push(rooms, _image("x"))

    assert await rooms.blobs.size(_APP, digest_of(b"{}")) == 2


async def test_tag_is_moved_by_the_next_push(rooms: Rooms) -> None:
    """The manifest it pointed to stays."""
    first = await _push(rooms, _image("x"))
    second = await _push(rooms, _image("y"))

    assert (await rooms.manifests.get(_APP, Tag("latest"))).digest == second
    assert (await rooms.manifests.get(_APP, first)).digest == first


async def test_delete_beside_a_move_leaves_the_tag_that_moved(rooms: Rooms) -> None:
    """A tag that is moved at the same moment points to what it was moved to."""
    for number in range(20):
        old = await _push(rooms, _image(f"old {number}"))
        new = _image(f"new {number}")
        await asyncio.gather(rooms.manifests.delete(_APP, old), _push(rooms, new))

        assert (await rooms.manifests.get(_APP, Tag("latest"))).data == new


async def test_read_beside_a_delete_finds_all_or_nothing(rooms: Rooms) -> None:
    """A manifest that is deleted and pushed again while it is read is there whole or unknown."""
    data = _image("x")
    digest = digest_of(data)
    other = Rooms(Path(rooms.folder.spool).parent)

    async def write() -> None:
        for _ in range(100):
            await _push(rooms, data)
            await rooms.manifests.delete(_APP, digest)

    async def read() -> None:
        while not writing.done():
            with suppress(ManifestUnknown):
                assert (await other.manifests.get(_APP, digest)).data == data
            await asyncio.sleep(0)  # a read of a local file does not give way by itself

    writing = asyncio.create_task(write())
    await asyncio.gather(writing, read())


async def test_referrers_of_an_absent_subject_are_listed(rooms: Rooms) -> None:
    """In the order of their digests, and behind any of them."""
    digests = sorted([await _push(rooms, _image(name, _SUBJECT)) for name in "abcd"])

    assert await _referrers(rooms) == digests
    assert await _referrers(rooms, after=digests[1]) == digests[2:]


async def test_referrers_pushed_at_once_are_all_listed(rooms: Rooms) -> None:
    """None is lost to another one's push."""
    pushes = [_push(rooms, _image(f"{number}", _SUBJECT), f"{number}") for number in range(16)]
    digests = await asyncio.gather(*pushes)

    assert await _referrers(rooms) == sorted(digests)
