"""Each call to the bucket of each flow fails once: nothing partial is seen, a retry succeeds."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from cacheproxy.errors import BlobUploadUnknown, ManifestUnknown, Unavailable
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.manifest import OCI_MANIFEST
from cacheproxy.oci.reference import Repository, Tag
from tests.fakes import FaultyBucket
from tests.registry.rooms import Bytes, Rooms

Flow = Callable[[Rooms], Awaitable[None]]

_APP = Repository("ci/app")
_CONTENT = b"content of a blob"
_SUBJECT = digest_of(b"subject")
_MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "config": {"mediaType": "x", "digest": digest_of(_CONTENT), "size": len(_CONTENT)},
        "subject": {"mediaType": OCI_MANIFEST, "digest": _SUBJECT, "size": 7},
    }
).encode()


async def _push_blob(rooms: Rooms) -> None:
    await rooms.blobs.push(_APP, digest_of(_CONTENT), Bytes(_CONTENT))


async def _push_chunks(rooms: Rooms) -> None:
    session = rooms.uploads.begin(_APP)
    await rooms.uploads.append(_APP, session, Bytes(_CONTENT[:5]), None)
    await rooms.uploads.append(_APP, session, Bytes(_CONTENT[5:9]), None)
    rest = Bytes(_CONTENT[9:])
    session = rooms.uploads.chunked(session)
    await rooms.uploads.finish(_APP, session, digest_of(_CONTENT), rest, None)


async def _push_manifest(rooms: Rooms) -> None:
    await rooms.manifests.push(_APP, Tag("tag"), [], _MANIFEST, OCI_MANIFEST)


async def _push_and_delete(rooms: Rooms) -> None:
    await _push_blob(rooms)
    await rooms.blobs.delete(_APP, digest_of(_CONTENT))
    await _push_manifest(rooms)
    await rooms.manifests.delete(_APP, digest_of(_MANIFEST))


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("flow", [_push_blob, _push_chunks, _push_manifest, _push_and_delete])
async def test_a_failure_at_any_call_leaves_nothing_wrong(
    tmp_path: Path, flow: Flow, late: bool
) -> None:
    """What can be read is right, the spool is empty, and doing it all again succeeds."""
    for fail_at in count(1):
        plain = Rooms(tmp_path / str(fail_at))
        faulty = FaultyBucket(plain.folder, fail_at, late)
        with suppress(Unavailable):
            await flow(Rooms(tmp_path / str(fail_at), faulty))
        await _check(plain)
        await flow(plain)
        await _check(plain)
        if not faulty.reached:
            break
    assert fail_at > 2


async def _check(rooms: Rooms) -> None:
    assert rooms.spooled == []
    blob = await rooms.folder.open(f"default/blobs/sha256/{_key(_CONTENT)}")
    if blob is not None:
        with blob:
            assert blob.read_at(0, 100) == _CONTENT
    try:
        found = await rooms.manifests.get(_APP, Tag("tag"))
    except ManifestUnknown:
        return
    assert (found.data, found.media_type) == (_MANIFEST, OCI_MANIFEST)
    assert [each.digest async for each in rooms.referrers.list(_APP, _SUBJECT)] == [found.digest]


def _key(content: bytes) -> str:
    hex_ = digest_of(content).hex
    return f"{hex_[:2]}/{hex_}"


async def test_a_session_whose_end_was_interrupted_is_over_or_whole(tmp_path: Path) -> None:
    """Cancelling with a failure in between never leaves a session with a hole."""
    for fail_at in range(1, 6):
        plain = Rooms(tmp_path / str(fail_at))
        session = plain.uploads.begin(_APP)
        await plain.uploads.append(_APP, session, Bytes(b"abc"), None)
        await plain.uploads.append(_APP, session, Bytes(b"def"), None)
        broken = Rooms(tmp_path / str(fail_at), FaultyBucket(plain.folder, fail_at))
        with suppress(Unavailable):
            await broken.uploads.cancel(_APP, session)

        with suppress(BlobUploadUnknown):
            assert await plain.uploads.offset(_APP, session) == 6
